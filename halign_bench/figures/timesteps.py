"""The analysis of noise levels, drawn again from the document that `halign-bench analyze timesteps` left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from halign_bench.figures.source import NoData, Source
from halign_bench.figures.style import Look

if TYPE_CHECKING:
    from halign_bench.figures.source import Row

MEASURES = ("decided", "estimate", "settled", "skipped")
MARK = ("t_mid", "t_mid_low", "t_mid_high")


def rows(source: Source) -> list[Row]:
    """A line for each model, criterion and noise level, as in timesteps.csv, with the recommended t_mid.

    Raises NoData where no folder of an analysis was given.
    """
    found: list[Row] = []
    for document in source.analyses:
        advice = document["recommendation"] or {}
        interval = advice.get("interval") or (None, None)
        for row in document["rows"]:
            line: Row = {
                "backbone": document["backbone"]["name"], "track": document["track"]["name"],
                "criterion": row["criterion"], "t": row["t"], "skip_nfe": row["skip_nfe"],
            }  # fmt: skip
            for name in MEASURES:
                low, high = row[name]["ci"] or (None, None)
                line |= {name: row[name]["value"], f"{name}_low": low, f"{name}_high": high}
            found.append(line | dict(zip(MARK, (advice.get("t_mid"), *interval), strict=True)))
    if not found:
        raise NoData("no folder of an analysis was given; halign-bench analyze timesteps makes one")
    return found


def pages(rows: Sequence[Row]) -> list[list[Row]]:
    """One for each model and track."""
    analysed = dict.fromkeys((row["backbone"], row["track"]) for row in rows)
    return [[row for row in rows if (row["backbone"], row["track"]) == one] for one in analysed]


def draw(rows: Sequence[Row], look: Look) -> Any:
    """A matplotlib Figure, by the drawing of the analysis itself; to be used within `style.settings`."""
    from halign_bench.analysis.timesteps.analyse import Estimate
    from halign_bench.analysis.timesteps.analyse import Row as Level
    from halign_bench.analysis.timesteps.figure import draw_levels

    def estimate(row: Row, name: str) -> Estimate:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return Estimate(row[name], None if low is None else (low, high))

    levels = [
        Level(row["criterion"], row["t"], row["skip_nfe"], *(estimate(row, name) for name in MEASURES)) for row in rows
    ]
    t_mid, low, high = (rows[0][name] for name in MARK)
    return draw_levels(levels, t_mid, None if low is None else (low, high), look.width)


__all__ = ["draw", "pages", "rows"]
