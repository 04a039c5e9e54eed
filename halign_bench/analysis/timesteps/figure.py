"""The figure: what is decided, how good the clean estimate is, and what skipping costs, against the noise level."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from halign_bench.analysis.timesteps.analyse import Analysis
from halign_bench.atomic import atomic_path

FORMATS = ("pdf", "svg", "png")
# Okabe and Ito's colours for colour-blind readers; line and marker tell the same without any colour.
STYLES = (("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#009E73", ":", "^"), ("#CC79A7", "-.", "D"))
PANELS = (
    ("decided", "Decided at t", "correlation with the remake"),
    ("estimate", "Clean estimate at t", "standard deviations from finished"),
    ("skipped", "Everything above t skipped", "standard deviations from whole path"),
)
SETTINGS = {
    "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path",  # embedded, or drawn: the same on every machine
    "svg.hashsalt": "halign-bench", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 9, "legend.frameon": False,
}  # fmt: skip


def draw(analysis: Analysis) -> Any:
    """A matplotlib Figure of 180 x 65 mm; to be used within `settings`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.1, 2.6), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharex=True)
    found = analysis.recommendation
    for axis, (measure, title, unit) in zip(axes, PANELS, strict=True):
        axis.axhline(0, color="0.75", linewidth=0.8, zorder=0)
        if found is not None and found.t_mid is not None:
            if found.interval is not None and found.interval[0] < found.interval[1]:
                axis.axvspan(*found.interval, color="0.92", zorder=-1)
            axis.axvline(found.t_mid, color="0.35", linewidth=0.8, label=f"t_mid {found.t_mid:.4g}")
        for number, criterion in enumerate(analysis.criteria):
            colour, line, marker = STYLES[number % len(STYLES)]
            rows = [row for row in analysis.rows if row.criterion == criterion.name]
            known = [(row.t, one) for row in rows if (one := getattr(row, measure)).value is not None]
            axis.plot(
                [t for t, _ in known], [one.value for _, one in known], color=colour, linestyle=line, marker=marker,
                markersize=3, linewidth=1.2, label=criterion.name,
            )  # fmt: skip
            inner = [(t, one.ci) for t, one in known if one.ci is not None]
            if inner:
                low, high = zip(*(ci for _, ci in inner), strict=True)
                axis.fill_between([t for t, _ in inner], low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set_title(title)
        axis.set_xlabel("noise level t")
        axis.set_ylabel(unit)
        axis.set_xlim(1.02, -0.02)  # as sampling goes: from noise to clean
    axes[0].set_ylim(top=1.05)
    axes[0].legend(loc="lower right")
    return figure


@contextmanager
def settings() -> Iterator[None]:
    """Fonts and styles of the figure, without a window and without touching anybody's own settings."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        yield


def write(analysis: Analysis, folder: Path, name: str = "timesteps") -> list[Path]:
    """Writes `name`.pdf, .svg and .png, the same bytes for the same numbers."""
    paths = []
    with settings():
        figure = draw(analysis)
        for kind in FORMATS:
            # No date within, so that a file changes only where the numbers do.
            metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
            path = folder / f"{name}.{kind}"
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=200, metadata=metadata[kind])
            paths.append(path)
    return paths


__all__ = ["FORMATS", "draw", "settings", "write"]
