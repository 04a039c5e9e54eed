"""Quality against network evaluations, and against the seconds that they take: a panel for each headline score.

base is a line. Every other method is drawn at base's value plus the paired difference from it, with the interval of
that difference: so what is seen between a line and base's is what was measured on the same clips and seeds, also where
base has more seeds. A method's own value, and the interval of that, which is several times as wide because clips
differ far more than methods do, stand in the CSV.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from halign_bench.figures.labels import SECONDS, label
from halign_bench.figures.source import NoData, Row, Source, against_base, at_nfe, headline
from halign_bench.figures.style import Look, balanced
from halign_bench.leaderboard import NO_TIMES
from halign_bench.record import SPEED, metric_key, parse_key

TOGETHER = 5  # methods in a picture beside base; more bands cannot be told apart


def nfe_rows(source: Source) -> list[Row]:
    """A line for each score, method and NFE. Raises NoData where there is no grid, or no base to compare with."""
    board = source.table
    if len(board.nfes()) < 2:
        raise NoData("all samples were made at one NFE; run with --nfe 100,30,10 to have a curve")
    return _rows(source)


def seconds_rows(source: Source) -> list[Row]:
    """The same lines where sampling was timed together with base's. Raises NoData where times do not compare."""
    board = source.table
    if NO_TIMES in board.notes:
        raise NoData(NO_TIMES)
    rows = [row for row in _rows(source) if row["shown_seconds"] is not None]
    if not any(row["method"] != "base" for row in rows):
        raise NoData("the records of base and another method do not say how long chunks of the same clips took")
    return rows


def _rows(source: Source) -> list[Row]:
    board = source.table
    compared = against_base(board)
    by_name = {row.method: row for row in board.rows if row.metrics}
    grid: list[int | None] = [*board.nfes()] or [None]
    rows: list[Row] = []
    for key, nfe in product(headline(board), grid):
        name, where, _ = parse_key(key)
        found = at_nfe(board, key, nfe) if nfe is not None else key
        level = by_name["base"].metrics.get(found or "")
        for method in source.methods:
            score = by_name[method].metrics.get(found or "") if method in by_name else None
            if found is None or score is None or score.value is None:
                continue
            difference = compared.get((method, found), {"ci": (None, None)})
            shown = score.value if method == "base" else None
            if level is not None and level.value is not None and "difference" in difference:
                shown = level.value + difference["difference"]
            seconds, shown_seconds = _seconds(source, method, nfe)
            low, high = score.ci or (None, None)
            rows.append({
                "metric": metric_key(name, where), "unit": score.unit, "higher_is_better": score.higher_is_better,
                "method": method, "nfe": nfe, "shown": shown, "difference": difference.get("difference"),
                "difference_low": difference["ci"][0], "difference_high": difference["ci"][1],
                "verdict": difference.get("verdict"), "n": score.n, "n_seeds": score.n_seeds, "value": score.value,
                "ci_low": low, "ci_high": high, "seconds_per_second": seconds, "shown_seconds": shown_seconds,
            })  # fmt: skip
    if not any(row["shown"] is not None and row["method"] != "base" for row in rows):
        raise NoData("no score that has a better side was measured for base and another method")
    return rows


def _seconds(source: Source, method: str, nfe: int | None) -> tuple[float | None, float | None]:
    """Of sampling a generated second: the method's own, and base's plus the difference on the same chunks and seeds."""
    board = source.table
    rows = {row.method: row.metrics for row in board.rows}
    key = next((key for key in board.scores_at(nfe) if parse_key(key).name == SPEED), "")
    own, base = (rows[name][key].value if key in rows[name] else None for name in (method, "base"))
    if method == "base" or own is None or base is None:
        return own, own if method == "base" else None
    sample = source.records.paired(method, "base", key)
    return own, None if sample.reason is not None else base + float(sample.points.mean())


def pages(rows: Sequence[Row]) -> list[list[Row]]:
    """Of a few methods each, base in all of them."""
    others = [name for name in dict.fromkeys(row["method"] for row in rows) if name != "base"]
    return [[row for row in rows if row["method"] in ("base", *group)] for group in balanced(others, TOGETHER)]


def draw_nfe(rows: Sequence[Row], look: Look) -> Any:
    """A matplotlib Figure; to be used within `style.settings`."""
    grid = sorted({row["nfe"] for row in rows})

    def finish(axis: Any) -> None:
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks(grid, [str(nfe) for nfe in grid])

    return _draw(rows, look, "nfe", "network evaluations", finish)


def draw_seconds(rows: Sequence[Row], look: Look) -> Any:
    """Likewise; a method's points are its NFEs."""

    def finish(axis: Any) -> None:
        axis.set_xlim(left=0)
        axis.locator_params(axis="x", nbins=5)

    return _draw(rows, look, "shown_seconds", SECONDS, finish)


def _draw(rows: Sequence[Row], look: Look, x: str, what: str, finish: Any) -> Any:
    rows = [row for row in rows if row["shown"] is not None]
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
        axis.margins(x=0.08)
        finish(axis)
    figure.supxlabel(what, fontsize="medium")
    look.legend(figure, list(handles.values()), list(handles))
    return figure


def _curve(axis: Any, rows: Sequence[Row], x: str, style: dict[str, Any], is_base: bool) -> Any:
    xs, ys = [row[x] for row in rows], [row["shown"] for row in rows]
    (line,) = axis.plot(xs, ys, markerfacecolor="white", zorder=4 if is_base else 3, **style)
    told = [row for row in rows if row["verdict"] not in (None, "undecided")]
    axis.plot([row[x] for row in told], [row["shown"] for row in told], color=style["color"], marker=style["marker"],
              linestyle="none", zorder=5)  # fmt: skip
    bars = [row for row in rows if row["difference"] is not None]
    low, high = ([row["shown"] + row[end] - row["difference"] for row in bars]
                 for end in ("difference_low", "difference_high"))  # fmt: skip
    if len(bars) > 1:
        axis.fill_between([row[x] for row in bars], low, high, color=style["color"], alpha=0.15, linewidth=0)
    elif bars:
        axis.vlines([bars[0][x]], low, high, color=style["color"], linewidth=0.8)
    return line


__all__ = ["draw_nfe", "draw_seconds", "nfe_rows", "pages", "seconds_rows"]
