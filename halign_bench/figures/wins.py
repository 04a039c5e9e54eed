"""On how many clips is a method better than base? A panel for each score that clips have, with the share of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from halign_bench.figures.labels import two_lines
from halign_bench.figures.source import NoData, Row, Source, direction
from halign_bench.figures.style import Look
from halign_bench.record import SPEED, metric_key, parse_key
from halign_bench.stats import score_interval


def rows(source: Source) -> list[Row]:
    """A line for each score and method, at the main NFE; a tie counts as half a win. 95 % as for scores.

    Implicit accuracy is not among them: its pairs are held-out preferences, not samples of the method.
    Raises NoData where base is missing or no score was kept clip by clip.
    """
    board, cells = source.table, source.records
    if "base" not in cells.methods or not cells.done("base"):
        raise NoData("base is not among the finished records, and wins are counted against it")
    found: list[Row] = []
    for key in board.scores_at():
        name, where, nfe = parse_key(key)
        if direction(board, key) is None or name in (SPEED, "implicit_accuracy"):
            continue
        for method in (name for name in source.methods if name != "base"):
            sample = cells.wins(method, "base", key)
            if sample.reason is not None:
                continue
            ci = score_interval(sample.points, sample.replicates, sample.identities, (0, 1))
            low, high = ci or (None, None)
            found.append({
                "metric": metric_key(name, where), "nfe": nfe, "higher_is_better": direction(board, key),
                "method": method, "win_rate": float(sample.points.mean()), "ci_low": low, "ci_high": high,
                "clips": sample.clips, "identities": sample.identities, "n_seeds": len(sample.points),
            })  # fmt: skip
    if not found:
        raise NoData("no score of single clips lies beside the records of base and another method")
    return found


def draw(rows: Sequence[Row], look: Look) -> Any:
    """A matplotlib Figure; to be used within `style.settings`. Filled: the interval leaves out one half."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    columns = 5 if look.wide else 3
    figure, axes = look.panels(len(metrics), columns, 0.48 + 0.115 * len(methods), extra=0.25, sharex=True, sharey=True)
    for axis, metric in zip(axes, metrics, strict=True):
        of = [row for row in rows if row["metric"] == metric]
        axis.axvline(0.5, color="0.6", linewidth=0.6, zorder=1)
        for row in of:
            _whisker(axis, methods.index(row["method"]), row, look.of(row["method"]))
        axis.set_title(two_lines(metric))
        axis.set_xlim(-0.05, 1.05)
        axis.set_xticks([0, 0.5, 1], ["0", "½", "1"])
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].set_ylim(len(methods) - 0.4, -0.6)
    figure.supxlabel("share of clips better than base's", fontsize="medium")
    return figure


def _whisker(axis: Any, place: int, row: Row, style: dict[str, Any]) -> None:
    clear = row["ci_low"] is not None and not row["ci_low"] <= 0.5 <= row["ci_high"]
    if row["ci_low"] is not None:
        axis.hlines(place, row["ci_low"], row["ci_high"], color=style["color"], linewidth=0.9, zorder=2)
    axis.plot([row["win_rate"]], [place], linestyle="none", color=style["color"], marker=style["marker"],
              markerfacecolor=style["color"] if clear else "white", markeredgewidth=0.8, zorder=3)  # fmt: skip


__all__ = ["draw", "rows"]
