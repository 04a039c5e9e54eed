"""Two scores against each other, as paired differences from base, which is where the lines cross.

Differences, not scores: a method's clips are the base's clips, so what it gains is known far better than where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from halign_bench.figures.labels import label
from halign_bench.figures.source import NoData, Row, Source, against_base, direction, headline
from halign_bench.figures.style import Look
from halign_bench.record import metric_key, parse_key
from halign_bench.stats import pareto_front

# Lips and hands against how real it looks; motion and identity, which are what fidelity is often bought with.
PAIRS = (("sync_c", "fid"), ("sync_c", "hkc"), ("motion_gap", "hkc"), ("csim", "fid"))


def rows(source: Source) -> list[Row]:
    """A line for each pair of scores and method. Raises NoData where base, or a second score, is missing."""
    board = source.table
    compared = against_base(board)
    found: list[Row] = []
    for x, y in _pairs(headline(board, most=len(board.scores_at()))):
        up = [bool(direction(board, key)) for key in (x, y)]
        known = [m for m in source.methods if (m, x) in compared and (m, y) in compared]
        if not known:
            continue
        points = [[0.0, 0.0], *([compared[m, x]["difference"], compared[m, y]["difference"]] for m in known)]
        front = pareto_front(points, up)
        for method, on_front in zip(["base", *known], front, strict=True):
            entry: Row = {"method": method, "on_front": on_front}
            for axis, key in (("x", x), ("y", y)):
                name, where, _ = parse_key(key)
                difference = compared.get((method, key), {"difference": 0.0, "ci": (0.0, 0.0)})
                entry |= {
                    axis: metric_key(name, where), f"{axis}_higher_is_better": direction(board, key),
                    f"{axis}_difference": difference["difference"], f"{axis}_low": difference["ci"][0],
                    f"{axis}_high": difference["ci"][1],
                }  # fmt: skip
            found.append(entry)
    if not found:
        raise NoData("it needs base, another method, and two scores that have a better side and an interval")
    return found


def _pairs(keys: Sequence[str]) -> list[tuple[str, str]]:
    named: dict[str, str] = {}
    for key in keys:
        named.setdefault(parse_key(key).name, key)
    pairs = [(named[x], named[y]) for x, y in PAIRS if x in named and y in named]
    return pairs or [(keys[1], keys[0])] if len(keys) > 1 else []


def draw(rows: Sequence[Row], look: Look) -> Any:
    """A matplotlib Figure; to be used within `style.settings`. Filled markers are on the front."""
    panels = list(dict.fromkeys((row["x"], row["y"]) for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = look.panels(
        len(panels), 4 if look.wide else 2, 1.9 if look.wide else 1.5, extra=look.legend_height(methods)
    )
    handles: dict[str, Any] = {}
    for axis, (x, y) in zip(axes, panels, strict=True):
        of = [row for row in rows if (row["x"], row["y"]) == (x, y)]
        for at, line in ((0, axis.axhline), (0, axis.axvline)):
            line(at, color="0.6", linewidth=0.6, zorder=1)
        for row in of:
            handles[row["method"]] = _point(axis, row, look.of(row["method"]))
        _front(axis, of)
        axis.margins(0.08)
        _shade(axis, of[0]["x_higher_is_better"], of[0]["y_higher_is_better"])
        axis.set_xlabel(f"Δ {label(x, of[0]['x_higher_is_better'])}")
        axis.set_ylabel(f"Δ {label(y, of[0]['y_higher_is_better'])}")
        axis.locator_params(nbins=4)
    look.legend(figure, list(handles.values()), list(handles))
    return figure


def _point(axis: Any, row: Row, style: dict[str, Any]) -> Any:
    x, y = row["x_difference"], row["y_difference"]
    axis.hlines(y, row["x_low"], row["x_high"], color=style["color"], linewidth=0.5, alpha=0.6, zorder=2)
    axis.vlines(x, row["y_low"], row["y_high"], color=style["color"], linewidth=0.5, alpha=0.6, zorder=2)
    fill = style["color"] if row["on_front"] else "white"
    (point,) = axis.plot(
        [x], [y], linestyle="none", color=style["color"], marker=style["marker"], markerfacecolor=fill,
        markeredgewidth=0.8, zorder=4,
    )  # fmt: skip
    return point


def _front(axis: Any, rows: Sequence[Row]) -> None:
    """Steps through the front's points: what is worse than a step, a method on the front already beats."""
    front = sorted((row["x_difference"], row["y_difference"]) for row in rows if row["on_front"])
    where = "post" if rows[0]["x_higher_is_better"] is False else "pre"
    axis.step([x for x, _ in front], [y for _, y in front], where=where, color="0.45", linewidth=0.8, zorder=1.5)


def _shade(axis: Any, x_up: bool, y_up: bool) -> None:
    """The quarter in which both are better than base's."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    axis.fill_between([0, right] if x_up else [left, 0], *((0, top) if y_up else (bottom, 0)), color="0.93", zorder=0,
                      linewidth=0)  # fmt: skip
    axis.set_xlim(left, right)
    axis.set_ylim(bottom, top)


__all__ = ["draw", "rows"]
