"""Figures as plain data for the page: the rows that `halign_bench.figures` draws, as panels with points to hover over.

Every number here stands in a row of the figure's CSV: nothing is computed a second time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from halign_bench.figures.labels import SECONDS, label
from halign_bench.figures.source import Row
from halign_bench.figures.training import ACCURACY

Range = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """x, y with the interval of each where there is one; `told` fills its marker; `note` stands in its tooltip."""

    x: Any
    y: Any
    x_range: Range | None = None
    y_range: Range | None = None
    told: bool = False
    note: str = ""


@dataclass(frozen=True)
class Series:
    """name  a method, or what is measured; a method looks as it does in all figures
    line  points are joined; faint ones stand behind the others and are not pointed at
    """

    name: str
    points: list[Point]
    line: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Panel:
    """x, y       what the axes show
    log        of the x axis, whose ticks are the values there are
    names      categories of the y axis, from above; None is numbers
    at_x, at_y   where lines are drawn that points are compared with
    steps      corners of a front, None where there is none
    better     whether more is better, in x and in y: where that is, seen from 0, is shaded
    backwards  x grows to the left
    """

    title: str
    x: str
    y: str
    series: list[Series]
    log: bool = False
    names: list[str] | None = None
    at_x: list[float] = field(default_factory=list)
    at_y: list[float] = field(default_factory=list)
    steps: list[tuple[float, float]] | None = None
    better: tuple[bool, bool] | None = None
    backwards: bool = False


def _quality(x: str, what: str, log: bool) -> Callable[[Sequence[Row]], list[Panel]]:
    def panels(rows: Sequence[Row]) -> list[Panel]:
        found = []
        for metric, of in _groups(rows, "metric"):
            series = []
            for method, own in _groups([row for row in of if row["shown"] is not None], "method"):
                points = [
                    Point(row[x], row["shown"], None, _around(row), _told(row), _quality_note(row))
                    for row in sorted(own, key=lambda row: row[x])
                ]  # fmt: skip
                series.append(Series(method, points, line=True))
            found.append(Panel(label(metric, of[0]["higher_is_better"]), what, of[0]["unit"], series, log=log))
        return found

    return panels


def _around(row: Row) -> Range | None:
    """The interval of the difference, where the point is drawn."""
    if row["difference"] is None or row["difference_low"] is None:
        return None
    start = row["shown"] - row["difference"]
    return start + row["difference_low"], start + row["difference_high"]


def _quality_note(row: Row) -> str:
    seeds = f"{row['n_seeds']} seed{'s' if row['n_seeds'] != 1 else ''}"
    nfe = "" if row["nfe"] is None else f"NFE {row['nfe']}, "
    return f"{nfe}own mean {row['value']:.4g}, {seeds}" + (f", {row['verdict']}" if row["verdict"] else "")


def _told(row: Row) -> bool:
    return row["verdict"] not in (None, "undecided")


def _pareto(rows: Sequence[Row]) -> list[Panel]:
    found = []
    for (x, y), of in _groups(rows, "x", "y"):
        series = [
            Series(row["method"], [Point(
                row["x_difference"], row["y_difference"], (row["x_low"], row["x_high"]), (row["y_low"], row["y_high"]),
                row["on_front"], "on the front" if row["on_front"] else "",
            )])
            for row in of
        ]  # fmt: skip
        names = (f"Δ {label(key, of[0][f'{axis}_higher_is_better'])}" for axis, key in (("x", x), ("y", y)))
        across, up = names
        better = of[0]["x_higher_is_better"], of[0]["y_higher_is_better"]
        found.append(Panel(
            f"{label(y)} against {label(x)}", across, up, series, at_x=[0.0], at_y=[0.0], steps=_steps(of),
            better=better,
        ))  # fmt: skip
    return found


def _steps(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Corners of the front: across first where less is better in x, up first where more is."""
    front = sorted((row["x_difference"], row["y_difference"]) for row in rows if row["on_front"])
    corners = front[:1]
    for (x0, y0), (x1, y1) in itertools.pairwise(front):
        corners += [(x0, y1) if rows[0]["x_higher_is_better"] else (x1, y0), (x1, y1)]
    return corners


def _wins(rows: Sequence[Row]) -> list[Panel]:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    return [
        Panel(
            label(metric, of[0]["higher_is_better"]), "share of clips better than base's", "",
            [Series(row["method"], [Point(
                row["win_rate"], row["method"], _pair(row, "ci_low", "ci_high"),
                told=row["ci_low"] is not None and not row["ci_low"] <= 0.5 <= row["ci_high"],
                note=f"{row['clips']} clips of {row['identities']} people",
            )]) for row in of],
            names=methods, at_x=[0.5],
        )
        for metric, of in _groups(rows, "metric")
    ]  # fmt: skip


def _training(rows: Sequence[Row]) -> list[Panel]:
    found = []
    for method, own in _groups(rows, "method"):
        errors = [row for row in own if row["quantity"] != ACCURACY]
        gaps = any(row["quantity"].endswith("_gap") for row in errors)
        wanted = [row for row in errors if row["quantity"].endswith("_gap" if gaps else "_error")]
        for of, y, lines in (
            (wanted, "Δ error" if gaps else "error", [0.0] if gaps else []),
            ([row for row in own if row["quantity"] == ACCURACY], "implicit accuracy", [0.5]),
        ):
            if of:
                series = [line for quantity, one in _groups(of, "quantity") for line in _curves(quantity, one)]
                found.append(Panel(f"{method}: {y}", "samples seen", y, series, at_y=lines))
    return found


def _curves(quantity: str, rows: Sequence[Row]) -> list[Series]:
    """Batches, faintly, then their running mean; a stage after the other."""
    name = quantity.removesuffix("_gap").removesuffix("_error").replace("_", " ")
    batches, means = [], []
    for _, of in _groups(rows, "stage"):
        batches.append(Series(name, [Point(row["samples"], row["value"]) for row in of], line=True, faint=True))
        means.append(Series(name, [
            Point(row["samples"], row["running_mean"], note=f"{row['stage']}, batch {row['value']:.4g}") for row in of
        ], line=True))  # fmt: skip
    return [*batches, *means]


def _ablation(setting: str, what: str, log: bool) -> Callable[[Sequence[Row]], list[Panel]]:
    def panels(rows: Sequence[Row]) -> list[Panel]:
        return [
            Panel(label(metric, of[0]["higher_is_better"]), what, "Δ from base", [Series(setting, [
                Point(
                    row[setting], row["difference"], None, _pair(row, "difference_low", "difference_high"), _told(row),
                    f"{row['method']}, {row['n_seeds']} seed{'s' if row['n_seeds'] != 1 else ''}",
                )
                for row in of
            ], line=True)], log=log, at_y=[0.0])
            for metric, of in _groups(rows, "metric")
        ]  # fmt: skip

    return panels


def _timesteps(rows: Sequence[Row]) -> list[Panel]:
    from halign_bench.analysis.timesteps.figure import PANELS

    found = []
    for (backbone, track), own in _groups(rows, "backbone", "track"):
        for measure, title, unit in PANELS:
            series = [
                Series(criterion, [
                    Point(row["t"], row[measure], None, _pair(row, f"{measure}_low", f"{measure}_high"))
                    for row in of if row[measure] is not None
                ], line=True)
                for criterion, of in _groups(own, "criterion")
            ]  # fmt: skip
            marks = [own[0]["t_mid"]] if own[0]["t_mid"] is not None else []
            found.append(Panel(
                f"{title} ({backbone} on {track})", "noise level t", unit, series, at_x=marks, at_y=[0.0],
                backwards=True,
            ))  # fmt: skip
    return found


DRAWINGS: dict[str, Callable[[Sequence[Row]], list[Panel]]] = {
    "quality-nfe": _quality("nfe", "network evaluations", True),
    "quality-seconds": _quality("shown_seconds", SECONDS, False),
    "pareto": _pareto,
    "win-rates": _wins,
    "training": _training,
    "timesteps": _timesteps,
    "fold": _ablation("fold", "video frames told to a latent frame", False),
    "data-efficiency": _ablation("winners", "winners learnt from", True),
}


def panels(name: str, rows: Sequence[Row]) -> list[Panel]:
    """What a figure of `halign_bench.figures` shows, from its rows."""
    return DRAWINGS[name](rows)


def _pair(row: Row, low: str, high: str) -> Range | None:
    return None if row[low] is None else (row[low], row[high])


def _groups(rows: Iterable[Row], *names: str) -> list[tuple[Any, list[Row]]]:
    """Rows by what these columns hold, in the order in which they come."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in names)
        found.setdefault(key if len(names) > 1 else key[0], []).append(row)
    return list(found.items())


__all__ = ["DRAWINGS", "Panel", "Point", "Series", "panels"]
