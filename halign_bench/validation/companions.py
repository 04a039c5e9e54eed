"""The files beside a record: whether they are there, whole, of the protocol's clips, and add up to what it says."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from halign_bench.companions import parquet_columns
from halign_bench.errors import first_line
from halign_bench.record import SPEED, MetricValue, Record, parse_key
from halign_bench.stats import (
    bootstrap_indices,
    bootstrap_signature,
    percentile_interval,
    resample_counts,
    weighted_means,
)
from halign_bench.validation.document import HELD_OUT
from halign_bench.validation.finding import Problem
from halign_bench.validation.reading import Agreed

EXACT = 1e-6  # relative: the same mean in another order
ALIKE = 1.5  # an interval may be this much wider or narrower than from today's rules; invented ones are further off
CLIPS, BOOTSTRAP = ("metric", "clip", "identity", "value", "reason"), ("metric", "replicate", "value")


class Scored(NamedTuple):
    """A score of each clip, in the order of the file."""

    clips: tuple[str, ...]
    identities: tuple[str, ...]
    values: tuple[float | None, ...]
    reasons: tuple[str | None, ...]


@dataclass
class Companions:
    """What was read, by metric key, and what was wrong with it."""

    clips: dict[str, Scored] = field(default_factory=dict)
    replicates: dict[str, list[tuple[int, float | None]]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read(record: Record) -> Companions:
    """Both files of a finished record, as far as they can be read."""
    found = Companions()
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for key, *row in _table(record, "clips", CLIPS, found.problems):
        rows.setdefault(key, []).append(tuple(row))
    found.clips = {key: Scored(*zip(*listed, strict=True)) for key, listed in rows.items()}
    for key, number, value in _table(record, "bootstrap", BOOTSTRAP, found.problems):
        found.replicates.setdefault(key, []).append((number, value))
    return found


def _table(record: Record, kind: str, columns: Sequence[str], problems: list[Problem]) -> Iterator[tuple[Any, ...]]:
    import pyarrow as pa

    name = record.files.get(kind)
    if name is None or record.source is None:
        problems.append((f"files.{kind}", "is missing, and the record is done"))
        return iter(())
    path = record.source.parent / name
    try:
        return iter(list(zip(*parquet_columns(path, columns, record.sha256s.get(kind)), strict=True)))
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        said = f"cannot be read ({first_line(error)})" if os.path.lexists(path) else "is not there"
        problems.append((f"files.{kind}", f"{name} {said}"))
        return iter(())


def problems(record: Record, protocol: Agreed, found: Companions) -> Iterator[Problem]:
    """All in which the files and the record differ."""
    yield from found.problems
    if found.problems:
        return
    for kind, keys in (("clips", found.clips.keys()), ("bootstrap", found.replicates.keys())):
        for key in keys - record.metrics.keys():
            yield f"files.{kind}", f"has {key}, which the record has not"
    for key, score in record.metrics.items():
        measured = score.value is not None and parse_key(key).name != SPEED
        if measured and key not in found.clips and key not in found.replicates:
            yield f"metrics.{key}", "has a value, and neither scores of clips nor replicates lie beside the record"
    yield from _evaluated(protocol, found.clips)
    resamples = _Resamples(protocol)
    for key, rows in found.clips.items():
        if key in record.metrics:
            for name, text in _clip_problems(key, record.metrics[key], rows, resamples):
                yield f"metrics.{key}{name}", text
    for key, listed in found.replicates.items():
        if key in record.metrics:
            yield from _replicate_problems(key, record.metrics[key], listed, protocol)


def _evaluated(protocol: Agreed, clips: Mapping[str, Scored]) -> Iterator[Problem]:
    """Whether it is the protocol's clips that were scored; said once for all scores that share a mistake."""
    wrong: dict[str, list[str]] = {}
    known: dict[tuple, str | None] = {}
    for key, rows in clips.items():
        if parse_key(key).name == HELD_OUT:
            continue
        which = rows.clips, rows.identities
        if which not in known:
            known[which] = _not_the_clips(protocol, rows)
        if text := known[which]:
            wrong.setdefault(text, []).append(key)
    for text, keys in wrong.items():
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        yield "files.clips", f"{keys[0]}{more}: {text}"


def _not_the_clips(protocol: Agreed, rows: Scored) -> str | None:
    plan = protocol.evaluation.bootstrap
    if len(set(rows.clips)) != len(rows.clips):
        return "a clip stands there twice"
    if hashlib.sha256(json.dumps(list(rows.clips)).encode()).hexdigest() != protocol.evaluation.clips_sha256:
        return "the clips are not those of protocol.evaluation.clips_sha256, in their order"
    if bootstrap_signature(rows.clips, rows.identities, plan.replicates, plan.seed) != plan.sha256:
        return "the identities of the clips are not those of protocol.evaluation.bootstrap.sha256"
    if len(set(rows.identities)) != plan.identities:
        return f"{len(set(rows.identities))} identities are not the {plan.identities} of the protocol's bootstrap"
    return None


class _Resamples:
    """How often each clip stands in each resample, made once for each set of clips."""

    def __init__(self, protocol: Agreed) -> None:
        self._plan = protocol.evaluation.bootstrap
        self._counts: dict[tuple, np.ndarray] = {}

    def means(self, rows: Scored) -> np.ndarray:
        which = rows.clips, rows.identities
        if which not in self._counts:
            draws = bootstrap_indices(*which, self._plan.replicates, self._plan.seed)
            self._counts[which] = resample_counts(draws, len(rows.clips))
        return weighted_means(rows.values, self._counts[which])


def _clip_problems(key: str, score: MetricValue, rows: Scored, resamples: _Resamples) -> Iterator[Problem]:
    values = [value for value in rows.values if value is not None]
    reasons = Counter(why for value, why in zip(rows.values, rows.reasons, strict=True) if value is None)
    if not all(map(math.isfinite, values)):
        yield "", "a score of a clip is NaN or infinite"
        return
    if any((value is None) == (why is None) for value, why in zip(rows.values, rows.reasons, strict=True)):
        yield "", "a clip has both a score and a reason for having none, or neither"
        return
    if len(values) != score.n:
        yield ".n", f"is {score.n}, and {len(values)} clips have a score"
    if dict(reasons) != score.failed and parse_key(key).name != HELD_OUT:
        yield ".failed", f"is {score.failed or 'empty'}, and the clips say {dict(reasons) or 'none'}"
    if score.value is None:
        if values:
            yield ".value", f"is null, and {len(values)} clips have a score"
        return
    mean = sum(values) / len(values) if values else math.nan
    if not math.isclose(mean, score.value, rel_tol=EXACT, abs_tol=1e-9):
        yield ".value", f"is {score.value:g}, and the mean over the clips is {mean:g}"
    elif len(set(rows.clips)) == len(rows.clips) and parse_key(key).name != HELD_OUT:
        people = len({who for who, value in zip(rows.identities, rows.values, strict=True) if value is not None})
        yield from _interval_problems(score, resamples.means(rows), people)


def _replicate_problems(
    key: str, score: MetricValue, listed: Sequence[tuple[int, float | None]], protocol: Agreed
) -> Iterator[Problem]:
    plan = protocol.evaluation.bootstrap
    values = np.array([math.nan if value is None else value for _, value in sorted(listed)], float)
    if sorted(number for number, _ in listed) != list(range(plan.replicates)):
        yield "files.bootstrap", f"{key} has {len(listed)} replicates, and needs 0 to {plan.replicates - 1}, each once"
    elif np.isinf(values).any() or any(value is not None and math.isnan(value) for _, value in listed):
        yield "files.bootstrap", f"a replicate of {key} is NaN or infinite"
    elif score.value is not None:
        for name, text in _interval_problems(score, values, plan.identities):
            yield f"metrics.{key}{name}", text


def _interval_problems(score: MetricValue, replicates: np.ndarray, people: int) -> Iterator[Problem]:
    """Whether the interval is about the one that its own resamples give."""
    assert score.value is not None
    made = percentile_interval(score.value, replicates, people, score.bounds)
    if (made is None) != (score.ci is None):
        yield ".ci", f"is {score.ci}, and the resamples give {made}"
    elif made is not None and score.ci is not None:
        ours, theirs = (made[1] - made[0]) / 2, (score.ci[1] - score.ci[0]) / 2
        apart = max(abs(a - b) for a, b in zip(made, score.ci, strict=True))
        if apart > (ALIKE - 1) * ours + 1e-6 * max(abs(score.value), 1.0) or theirs > ALIKE * ours + 1e-6:
            text = f"{score.ci[0]:g} to {score.ci[1]:g} is not what the resamples give, {made[0]:g} to {made[1]:g}"
            yield ".ci", text


__all__ = ["Companions", "Scored", "problems", "read"]
