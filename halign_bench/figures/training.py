"""How trainings went: errors on winners and losers, and implicit accuracy, against the samples that were seen.

Read from the logs that a run keeps in its folder beside the records (`cells/*/train/*/train.jsonl`), so records that
were copied elsewhere have none. A step's numbers are of one batch: what is drawn strongly is their running mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from halign_bench.documents import parsed
from halign_bench.figures.source import NoData, Row, Source
from halign_bench.figures.style import COLOURS, Look, balanced
from halign_bench.record import Record

TOGETHER = 4  # methods in a picture; without a line of panels for accuracy, half as many again
SHARE = 0.1  # of a stage's steps, over which the running mean goes
# As methods log them; a gap is an error less the reference's.
ACCURACY = "implicit_accuracy"
QUANTITIES = ("winner_gap", "loser_gap", "winner_error", "loser_error", ACCURACY)
WINNER = {"color": COLOURS[0], "linestyle": "-"}
LOSER = {"color": COLOURS[1], "linestyle": "--"}
TOLD = {"color": COLOURS[2], "linestyle": "-"}


def rows(source: Source) -> list[Row]:
    """A line for each method, logged quantity and step: its mean over seeds, and the running mean of that.

    Raises NoData where no log lies beside the records, or none holds an error of winners or losers.
    """
    found: list[Row] = []
    logs = 0
    for method in source.methods:
        runs = [log for record in source.records.done(method) if (log := _log(record))]
        logs += len(runs)
        for quantity in QUANTITIES:
            found += _curve(method, quantity, runs)
    if not logs:
        raise NoData("no training log lies beside these records; give the --out folder of the run itself")
    if not found:
        raise NoData("none of these methods logs errors of winners and losers, or implicit accuracy")
    return found


def _log(record: Record) -> list[dict[str, Any]]:
    """Entries of every part of a cell's training, in order; samples count on from part to part. Empty: no log."""
    if record.source is None or record.cell_hash is None:
        return []
    cell = record.source.parent.parent / "cells" / f"{record.source.stem}-{record.cell_hash[:8]}"
    entries: list[dict[str, Any]] = []
    for part in sorted(cell.glob("train/*/train.jsonl"), key=lambda path: int(path.parent.name.partition("-")[0])):
        before = entries[-1]["samples"] if entries else 0
        entries += [{**entry, "samples": entry["samples"] + before} for entry in _entries(part)]
    return entries


def _entries(path: Path) -> Iterable[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = parsed(line)
        except ValueError:
            return  # the last line of a training that was killed
        if isinstance(entry, dict) and isinstance(entry.get("samples"), int):
            yield entry


def _curve(method: str, quantity: str, runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[Row]:
    """Over the seeds that have the step, stage by stage: what a stage ends with is not averaged into the next."""
    points: dict[tuple[str, int], list[float]] = {}
    for entry in (entry for run in runs for entry in run):
        if isinstance(value := entry.get(quantity), (int, float)):
            points.setdefault((str(entry.get("stage")), entry["samples"]), []).append(float(value))
    rows: list[Row] = []
    for stage in dict.fromkeys(stage for stage, _ in points):
        steps = sorted(samples for name, samples in points if name == stage)
        values = [float(np.mean(points[stage, samples])) for samples in steps]
        smooth = running_mean(values, max(1, round(SHARE * len(values))))
        rows += [
            {"method": method, "stage": stage, "quantity": quantity, "samples": samples, "value": value,
             "running_mean": mean, "n_seeds": len(points[stage, samples])}
            for samples, value, mean in zip(steps, values, smooth, strict=True)
        ]  # fmt: skip
    return rows


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over the last `window` values, fewer at the start.

    >>> running_mean([1.0, 3.0, 5.0], 2)
    [1.0, 2.0, 4.0]
    """
    return [float(np.mean(values[max(0, i + 1 - window) : i + 1])) for i in range(len(values))]


def pages(rows: Sequence[Row]) -> list[list[Row]]:
    """Of a few methods each, those that learn from pairs apart from those that have no accuracy to show."""
    telling = {row["method"] for row in rows if row["quantity"] == ACCURACY}
    groups: list[list[str]] = []
    for among, size in ((True, TOGETHER), (False, TOGETHER * 3 // 2)):
        methods = [name for name in dict.fromkeys(row["method"] for row in rows) if (name in telling) == among]
        groups += balanced(methods, size)
    return [[row for row in rows if row["method"] in group] for group in groups]


def draw(rows: Sequence[Row], look: Look) -> Any:
    """A matplotlib Figure; to be used within `style.settings`. For each method errors above, accuracy below."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = (_errors, _accuracy) if any(row["quantity"] == ACCURACY for row in rows) else (_errors,)
    columns = min((4 if len(lines) > 1 else 3) if look.wide else 2, len(methods))
    places = [
        (method, line)
        for start in range(0, len(methods), columns)
        for line in lines for method in _filled(methods[start : start + columns], columns)
    ]  # fmt: skip
    figure, axes = look.panels(len(places), columns, 1.05, extra=0.3)
    handles: dict[str, Any] = {}
    for axis, (method, line) in zip(axes, places, strict=True):
        if method:
            handles |= line(axis, [row for row in rows if row["method"] == method])
            axis.set_xlim(_extent([row for row in rows if row["method"] == method]))
            axis.locator_params(axis="x", nbins=4)
            axis.tick_params(labelbottom=line is lines[-1])
        axis.set_visible(bool(method))
        if line is lines[0]:
            axis.set_title(method)
    figure.supxlabel("samples seen", fontsize="medium")
    look.legend(figure, list(handles.values()), list(handles))
    return figure


def _filled(methods: Sequence[str], columns: int) -> list[str]:
    return [*methods, *[""] * (columns - len(methods))]


def _errors(axis: Any, rows: Sequence[Row]) -> dict[str, Any]:
    gaps = any(row["quantity"].endswith("_gap") for row in rows)
    shown = [row for row in rows if row["quantity"] != ACCURACY]
    power = _power([row["running_mean"] for row in shown])
    handles = {}
    for name, style in (("winner", WINNER), ("loser", LOSER)):
        own = [row for row in shown if row["quantity"] == f"{name}_{'gap' if gaps else 'error'}"]
        if line := _line(axis, own, style, 10.0**-power):
            handles[name] = line
    if gaps:
        axis.axhline(0, color="0.6", linewidth=0.6, zorder=1)
    axis.set_ylabel(("Δ error" if gaps else "error") + (f" ($10^{{{power}}}$)" if power else ""))
    axis.locator_params(axis="y", nbins=4)
    return handles


def _power(values: Sequence[float]) -> int:
    """Of ten, so that the largest of small numbers has one digit before the point; 0 where they are not small."""
    largest = max(map(abs, values), default=0.0)
    return math.floor(math.log10(largest)) if 0 < largest < 0.1 else 0


def _accuracy(axis: Any, rows: Sequence[Row]) -> dict[str, Any]:
    axis.set_ylim(0, 1)
    axis.set_yticks([0, 0.5, 1], ["0", "½", "1"])
    axis.axhline(0.5, color="0.6", linewidth=0.6, zorder=1)
    axis.set_ylabel("accuracy")
    return {"implicit accuracy": _line(axis, [row for row in rows if row["quantity"] == ACCURACY], TOLD)}


def _extent(rows: Sequence[Row]) -> tuple[float, float]:
    samples = [row["samples"] for row in rows]
    edge = 0.03 * (max(samples) - min(samples)) or 1
    return min(samples) - edge, max(samples) + edge


def _line(axis: Any, rows: Sequence[Row], style: Mapping[str, Any], scale: float = 1.0) -> Any:
    """One line through all stages, with a gap between them; batches behind it, faintly."""
    line = None
    for stage in dict.fromkeys(row["stage"] for row in rows):
        of = [row for row in rows if row["stage"] == stage]
        xs = [row["samples"] for row in of]
        axis.plot(xs, [scale * row["value"] for row in of], color=style["color"], linewidth=0.4, alpha=0.35, zorder=2)
        (line,) = axis.plot(xs, [scale * row["running_mean"] for row in of], **style, zorder=3)
    return line


__all__ = ["draw", "pages", "rows", "running_mean"]
