"""The figure: what is decided, how good the clean estimate is, and what skipping costs, against the noise level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from halign_bench.analysis.timesteps.analyse import Analysis, Row
from halign_bench.figures.style import COLOURS, FORMATS, WIDTHS, Look, save, settings

STYLES = tuple(zip(COLOURS[:4], ("-", "--", ":", "-."), ("o", "s", "^", "D"), strict=True))
PANELS = (
    ("decided", "Decided at t", "correlation with the remake"),
    ("estimate", "Clean estimate at t", "s.d. from finished"),
    ("skipped", "Everything above t skipped", "s.d. from whole path"),
)


def draw(analysis: Analysis, width: float = WIDTHS["page"]) -> Any:
    """A matplotlib Figure; to be used within `settings`."""
    found = analysis.recommendation
    if found is None:
        return draw_levels(analysis.rows, width=width)
    return draw_levels(analysis.rows, found.t_mid, found.interval, width)


def draw_levels(
    rows: Sequence[Row], t_mid: float | None = None, interval: tuple[float, float] | None = None,
    width: float = WIDTHS["page"],
) -> Any:  # fmt: skip
    """The same from its numbers; `width` in inches. Panels lie beside each other where it is wide, else below."""
    look = Look(width)
    figure, axes = look.panels(
        len(PANELS), len(PANELS) if look.wide else 1, 2.3 if look.wide else 1.5, sharex=True
    )  # fmt: skip
    for axis, (measure, title, unit) in zip(axes, PANELS, strict=True):
        axis.axhline(0, color="0.75", linewidth=0.8, zorder=0)
        if t_mid is not None:
            if interval is not None and interval[0] < interval[1]:
                axis.axvspan(*interval, color="0.92", zorder=-1)
            axis.axvline(t_mid, color="0.35", linewidth=0.8, label=f"t_mid {t_mid:.4g}")
        for number, criterion in enumerate(dict.fromkeys(row.criterion for row in rows)):
            colour, line, marker = STYLES[number % len(STYLES)]
            own = [row for row in rows if row.criterion == criterion]
            known = [(row.t, one) for row in own if (one := getattr(row, measure)).value is not None]
            axis.plot(
                [t for t, _ in known], [one.value for _, one in known], color=colour, linestyle=line, marker=marker,
                markersize=3, linewidth=1.2, label=criterion,
            )  # fmt: skip
            inner = [(t, one.ci) for t, one in known if one.ci is not None]
            if inner:
                low, high = zip(*(ci for _, ci in inner), strict=True)
                axis.fill_between([t for t, _ in inner], low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set_title(title)
        axis.set_ylabel(unit)
        axis.set_xlim(1.02, -0.02)  # as sampling goes: from noise to clean
    for axis in axes if look.wide else axes[-1:]:
        axis.set_xlabel("noise level t")
    axes[0].set_ylim(top=1.05)
    axes[0].legend(loc="lower right")
    return figure


def write(analysis: Analysis, folder: Path, name: str = "timesteps") -> list[Path]:
    """Writes `name`.pdf, .svg and .png, the same bytes for the same numbers."""
    with settings():
        return save(draw(analysis), folder, name)


__all__ = ["FORMATS", "draw", "draw_levels", "settings", "write"]
