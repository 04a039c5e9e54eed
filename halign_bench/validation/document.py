"""A record by itself: its hashes and names, and whether its numbers can be true of one another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from halign_bench.errors import PluginError, RequestError
from halign_bench.grammar import parse_methods
from halign_bench.protocol import sha256_of
from halign_bench.record import SPEED, MetricValue, Record, parse_key
from halign_bench.track import FPS
from halign_bench.validation.finding import Problem
from halign_bench.validation.reading import Agreed

HELD_OUT = "implicit_accuracy"  # of held-out pairs, not of the evaluation clips; no metric of the protocol
PER_NFE = 3.0  # a network evaluation costs about the same at every NFE; more than this much apart is a mistake
EXACT = 1e-6  # relative: the same sum in another order


def problems(record: Record, protocol: Agreed) -> Iterator[Problem]:
    """All that does not fit together within the record."""
    yield from _hashes(record, protocol)
    yield from _names(record, protocol)
    yield from _training(record, protocol)
    if record.status == "done":
        yield from _scores(record, protocol)
        yield from _times(record, protocol)


def _hashes(record: Record, protocol: Agreed) -> Iterator[Problem]:
    if record.protocol_hash != sha256_of(record.protocol):
        yield "protocol_hash", "is not the sha256 of the protocol in the same file"
    cell = {"protocol": record.protocol_hash, "pipeline": record.config.effective, "seed": record.cell.seed}
    if record.cell_hash is None:
        yield "cell_hash", "is missing"
    elif record.cell_hash != sha256_of(cell):
        yield "cell_hash", "does not follow from protocol_hash, config.effective and cell.seed"
    if record.base.sha256 != protocol.backbone.base_sha256:
        yield "base.sha256", "is another checkpoint than protocol.backbone.base_sha256"
    if record.status == "done" and record.bootstrap != protocol.evaluation.bootstrap:
        yield "bootstrap", "is not the bootstrap of protocol.evaluation"


def _names(record: Record, protocol: Agreed) -> Iterator[Problem]:
    for field, given, agreed_on in (
        ("cell.track", record.cell.track, protocol.track.name),
        ("cell.backbone", record.cell.backbone, protocol.backbone.name),
        ("base.name", record.base.name, protocol.backbone.name),
    ):
        if given != agreed_on:
            yield field, f"is {given!r}, and the protocol is of {agreed_on!r}"
    parts = record.config.effective
    parts = parts if isinstance(parts, list) else [parts]
    trained = [part.get("method") if isinstance(part, dict) else None for part in parts]
    try:
        pipelines = parse_methods(record.cell.method)
        named = [name for name, _ in pipelines[0]]
        if len(pipelines) != 1 or named != trained:
            yield "cell.method", f"is {record.cell.method!r}, and config.effective is of {trained}"
    except RequestError:
        yield "cell.method", f"is {record.cell.method!r}, which is no method as --methods takes it"
    for kind, name in record.files.items():
        if kind in ("clips", "bootstrap") and (name != Path(name).name or name in ("", ".", "..") or "\\" in name):
            yield f"files.{kind}", f"is {name!r}, and must be the name of a file in the same folder"


def _training(record: Record, protocol: Agreed) -> Iterator[Problem]:
    spent = record.training
    if spent is None:
        if record.status == "done":
            yield "training", "is missing"
        return
    parts = len(record.config.effective) if isinstance(record.config.effective, list) else 1
    budget = protocol.training.samples * max(parts, 1)
    if spent.samples_seen > budget:
        yield "training.samples_seen", f"is {spent.samples_seen}, above the budget of {budget}"
    if record.cell.method == "base" and (spent.samples_seen or spent.trained_parameters):
        yield "training", "the base is not trained, and here it has seen samples or has trained parameters"
    if record.status == "done" and spent.steps and not (spent.samples_seen and spent.trained_parameters):
        yield "training", f"{spent.steps} steps without a sample or a trained parameter"
    if spent.steps and not record.timings.train:
        yield "timings.train", f"is {record.timings.train} after {spent.steps} steps"


def _scores(record: Record, protocol: Agreed) -> Iterator[Problem]:
    expected = protocol.expected()
    for key in expected.keys() - record.metrics.keys():
        yield f"metrics.{key}", "is missing, and the protocol lists it"
    for key, score in record.metrics.items():
        for field, text in _score(key, score, expected, protocol.evaluation.clips):
            yield f"metrics.{key}{field}", text


def _score(key: str, score: MetricValue, expected: dict[str, str], clips: int) -> Iterator[Problem]:
    name = parse_key(key).name
    if name != HELD_OUT:
        if key not in expected:
            yield "", "is not in the protocol"
        elif not (score.protocol.startswith(expected[key]) if name == SPEED else score.protocol == expected[key]):
            yield ".protocol", "is not the one in protocol.metrics"
        counted = score.n + sum(score.failed.values())
        if counted != clips and (score.value is not None or counted):
            yield ".n", f"{score.n} clips scored and {counted - score.n} failed are not the {clips} of the protocol"
    definition = _definition(name)
    if definition is not None and definition != (score.unit, score.higher_is_better, score.bounds):
        unit, up, bounds = definition
        yield "", f"unit, higher_is_better and bounds of {name} are {unit!r}, {up} and {bounds}"
    if score.value is None:
        return
    if not score.n:
        yield ".n", "is 0, and there is a value"
    low, high = (-math.inf if score.bounds[0] is None else score.bounds[0]), score.bounds[1]
    for field, number in ((".value", score.value), *((".ci", end) for end in score.ci or ())):
        if not low <= number <= (math.inf if high is None else high):
            yield field, f"{number:g} is outside of the bounds {score.bounds[0]} to {score.bounds[1]}"
    if score.ci is not None and not score.ci[0] <= score.value <= score.ci[1]:
        yield ".ci", f"{score.ci[0]:g} to {score.ci[1]:g} does not hold the value {score.value:g}"


def _definition(name: str) -> tuple[str, bool | None, tuple[float | None, float | None]] | None:
    """Unit, better side and bounds of a metric that is installed here."""
    from halign_bench import registry

    if name in (HELD_OUT, SPEED):
        return None
    try:
        metric: Any = registry.get("metric", name)
    except PluginError:
        return None
    return metric.unit, metric.higher_is_better, metric.bounds


def _times(record: Record, protocol: Agreed) -> Iterator[Problem]:
    evaluation, times = protocol.evaluation, record.timings
    count = math.ceil(evaluation.clips / evaluation.chunk)
    generated = evaluation.clips * protocol.backbone.frames / FPS
    speeds: dict[int, float] = {}
    for nfe in evaluation.nfe:
        chunks = times.chunks.get(str(nfe), [])
        if len(chunks) != count or not all(seconds > 0 for seconds in chunks):
            yield f"timings.chunks.{nfe}", f"needs {count} times above 0, one a chunk of {evaluation.chunk} clips"
            continue
        speeds[nfe] = sum(chunks) / generated
        for key, score in record.metrics.items():
            found = parse_key(key)
            if found.name != SPEED or found.nfe not in (None, nfe) or score.value is None:
                continue
            if not math.isclose(score.value, speeds[nfe], rel_tol=EXACT):
                yield f"metrics.{key}.value", f"is {score.value:g}, and timings.chunks.{nfe} make it {speeds[nfe]:g}"
    if len(speeds) == len(evaluation.nfe):
        total = sum(map(sum, times.chunks.values()))
        if times.sample is None or not math.isclose(times.sample, total, rel_tol=EXACT):
            yield "timings.sample", f"is {times.sample}, and timings.chunks add up to {total:g}"
        main = evaluation.nfe[0]
        for nfe, speed in speeds.items():
            times_as_fast, fewer = speeds[main] / speed, main / nfe
            if not fewer / PER_NFE <= times_as_fast <= fewer * PER_NFE:
                text = f"{times_as_fast:.3g} times as fast as NFE {main} with 1/{fewer:.3g} of its network evaluations"
                yield f"timings.chunks.{nfe}", text
    if record.started is None or record.finished is None or not _in_order(record.started, record.finished):
        yield "finished", f"{record.started} to {record.finished} is no span of time"


def _in_order(started: str, finished: str) -> bool:
    try:
        return datetime.fromisoformat(started) <= datetime.fromisoformat(finished)
    except (ValueError, TypeError):  # no date, or one with and one without a time zone
        return False


__all__ = ["HELD_OUT", "problems"]
