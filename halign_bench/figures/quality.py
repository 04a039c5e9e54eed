"""Quality against network evaluations, and against the seconds that they take: a panel for each headline score.

base is a line; bands and bars are the paired 95 % interval of the difference from it, laid around each method's own
value. The interval of a score by itself, which is in the CSV too, is several times as wide, because clips differ far
more than methods do.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from halign_bench.figures.labels import SECONDS, label
from halign_bench.figures.source import (
    NoData,
    Row,
    Source,
    against_base,
    at_nfe,
    direction,
    headline,
    unit,
)
from halign_bench.figures.style import Look
from halign_bench.leaderboard import NO_TIMES
from halign_bench.results import SPEED, metric_key, parse_key

TOGETHER = 5  # methods in a picture beside base; more bands cannot be told apart


def nfe_rows(source: Source) -> list[Row]:
    """A line for each score, method and NFE. Raises NoData where there is no grid, or no base to compare with."""
    board = source.table
    if len(board.nfes()) < 2:
        raise NoData("all samples were made at one NFE; run with --nfe 100,30,10 to have a curve")
    return _rows(source)


def seconds_rows(source: Source) -> list[Row]:
    """The same lines where the time of sampling was measured, with it. Raises NoData where times do not compare."""
    board = source.table
    if NO_TIMES in board.notes:
        raise NoData(NO_TIMES)
    rows = [row for row in _rows(source) if row["seconds_per_second"] is not None]
    if not rows:
        raise NoData("no record says how long sampling took")
    return rows


def _rows(source: Source) -> list[Row]:
    board = source.table
    compared = against_base(board)
    shown = {row.method: row for row in board.rows if row.metrics}
    rows = []
    for key, method, nfe in product(headline(board), source.methods, board.nfes() or [None]):
        found = at_nfe(board, key, nfe) if nfe is not None else key
        score = shown[method].metrics.get(found) if found is not None and method in shown else None
        if found is None or score is None or score.value is None:
            continue
        name, where, _ = parse_key(key)
        difference = compared.get((method, found), {})
        low, high = score.ci or (None, None)
        delta_low, delta_high = difference.get("ci") or (None, None)
        rows.append({
            "metric": metric_key(name, where), "unit": unit(board, key), "higher_is_better": direction(board, key),
            "method": method, "nfe": nfe, "seconds_per_second": _seconds(source, method, nfe), "value": score.value,
            "ci_low": low, "ci_high": high, "difference": difference.get("difference"), "difference_low": delta_low,
            "difference_high": delta_high, "verdict": difference.get("verdict"), "n": score.n,
            "n_seeds": score.n_seeds,
        })  # fmt: skip
    if not rows:
        raise NoData("no score that has a better side was measured")
    return rows


def _seconds(source: Source, method: str, nfe: int | None) -> float | None:
    board = source.table
    row = next(row for row in board.rows if row.method == method)
    keys = [key for key in board.scores_at(nfe) if parse_key(key).name == SPEED and key in row.metrics]
    return row.metrics[keys[0]].value if keys else None


def pages(rows: Sequence[Row]) -> list[list[Row]]:
    """Of a few methods each, base in all of them."""
    others = [name for name in dict.fromkeys(row["method"] for row in rows) if name != "base"]
    groups = [others[i : i + TOGETHER] for i in range(0, len(others), TOGETHER)] or [[]]
    return [[row for row in rows if row["method"] in ("base", *group)] for group in groups]


def draw_nfe(rows: Sequence[Row], look: Look) -> Any:
    """A matplotlib Figure; to be used within `style.settings`."""
    grid = sorted({row["nfe"] for row in rows})

    def finish(axis: Any) -> None:
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks(grid, [str(nfe) for nfe in grid])
        axis.set_xlabel("network evaluations")

    return _draw(rows, look, "nfe", finish)


def draw_seconds(rows: Sequence[Row], look: Look) -> Any:
    """Likewise; the larger marker is the main NFE, where there are several."""

    def finish(axis: Any) -> None:
        axis.set_xlim(left=0)
        axis.set_xlabel(SECONDS)

    return _draw(rows, look, "seconds_per_second", finish)


def _draw(rows: Sequence[Row], look: Look, x: str, finish: Any) -> Any:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = look.panels(
        len(metrics), 3 if look.wide else 2, 1.5 if look.wide else 1.15, extra=look.legend_height(methods)
    )
    handles: dict[str, Any] = {}
    for axis, metric in zip(axes, metrics, strict=True):
        of = [row for row in rows if row["metric"] == metric]
        axis.set_title(label(metric, of[0]["higher_is_better"]))
        axis.set_ylabel(of[0]["unit"])
        for method in methods:
            own = sorted((row for row in of if row["method"] == method), key=lambda row: row[x])
            if own:
                handles[method] = _curve(axis, own, x, look.of(method), method == "base")
        finish(axis)
        axis.margins(x=0.08)
    for axis in axes[: -3 if look.wide else -2]:
        axis.set_xlabel("")
    look.legend(figure, list(handles.values()), list(handles))
    return figure


def _curve(axis: Any, rows: Sequence[Row], x: str, style: dict[str, Any], is_base: bool) -> Any:
    xs, ys = [row[x] for row in rows], [row["value"] for row in rows]
    (line,) = axis.plot(xs, ys, markerfacecolor="white", zorder=4 if is_base else 3, **style)
    told = [row for row in rows if row["verdict"] not in (None, "undecided")]
    axis.plot([row[x] for row in told], [row["value"] for row in told], color=style["color"], marker=style["marker"],
              linestyle="none", zorder=5)  # fmt: skip
    bars = [row for row in rows if row["difference"] is not None]
    low = [row["value"] + row["difference_low"] - row["difference"] for row in bars]
    high = [row["value"] + row["difference_high"] - row["difference"] for row in bars]
    if len(bars) > 1:
        axis.fill_between([row[x] for row in bars], low, high, color=style["color"], alpha=0.15, linewidth=0)
    elif bars:
        axis.vlines([bars[0][x]], low, high, color=style["color"], linewidth=0.8)
    return line


__all__ = ["draw_nfe", "draw_seconds", "nfe_rows", "pages", "seconds_rows"]
