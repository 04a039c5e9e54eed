"""Brings the scores of several records onto the same resamples, so that methods can be compared pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from halign_bench.errors import RequestError
from halign_bench.results import Record, read_clips, read_replicates
from halign_bench.stats import Difference, bootstrap_indices, paired_difference, resample_counts, weighted_means

REPLICATES, SEED = 1000, 0  # for records that do not say

Pair = tuple[Record, "Record | None"]
ClipScores = dict[str, tuple[str, "float | None"]]


@dataclass(frozen=True)
class Sample:
    """A score, or a difference of two, for each seed `[S]` and on each resample `[S, B]`; or why there is none."""

    points: np.ndarray
    replicates: np.ndarray
    identities: int = 0
    clips: int = 0
    reason: str | None = None

    def difference(self) -> Difference:
        if self.reason is not None:
            return Difference(None, reason=self.reason)
        return paired_difference(self.points, self.replicates, self.identities)


def _nothing(reason: str) -> Sample:
    return Sample(np.zeros(0), np.zeros((0, 0)), reason=reason)


class Scores:
    """Reads the companions of records once. `problems` names those that could not be read."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._clips: dict[int, dict[str, ClipScores]] = {}
        self._replicates: dict[int, dict[str, list[float | None]]] = {}
        self._counts: dict[tuple, np.ndarray] = {}
        self._samples: dict[tuple, Sample] = {}

    def sample(self, pairs: Sequence[Pair], key: str, other_key: str | None = None) -> Sample:
        """Score `key` of each pair's first record, less `other_key` (default `key`) of the second where there is one.

        One pair a seed. Pairs in which either has no score are left out. Clip scores are differenced clip by clip,
        over the clips that both could score; scores of sets by their replicates on the same resamples.
        """
        other_key = other_key or key
        cached = (key, other_key, *(id(record) for pair in pairs for record in pair))
        if cached not in self._samples:
            self._samples[cached] = self._sample(pairs, key, other_key)
        return self._samples[cached]

    def _sample(self, pairs: Sequence[Pair], key: str, other_key: str) -> Sample:
        pairs = [
            (a, b) for a, b in pairs
            if _value(a, key) is not None and (b is None or _value(b, other_key) is not None)
        ]  # fmt: skip
        if not pairs:
            return _nothing("no seed has a score")
        sides = [(r, k) for a, b in pairs for r, k in ((a, key), (b, other_key)) if r is not None]
        if all(self._has_clips(record, k) for record, k in sides):
            return self._from_clips(pairs, key, other_key)
        return self._from_replicates(pairs, sides, key, other_key)

    def _from_clips(self, pairs: Sequence[Pair], key: str, other_key: str) -> Sample:
        rows = [(self.clips(a)[key], self.clips(b)[other_key] if b is not None else None) for a, b in pairs]
        common = set.intersection(*(set(scores) for row in rows for scores in row if scores is not None))
        ids = sorted(common)
        identities = [rows[0][0][clip][0] for clip in ids]
        table = np.array([[_difference(ours, theirs, clip) for clip in ids] for ours, theirs in rows], float)
        kept = table[~np.isnan(table).all(1)] if ids else table[:0]
        if not len(kept):
            return _nothing("no clip was scored on both sides")
        replicates = np.stack([weighted_means(row, self._resamples(pairs[0][0], ids, identities)) for row in kept])
        scored = ~np.isnan(kept).any(0)
        people = len({identity for identity, known in zip(identities, scored, strict=True) if known})
        return Sample(np.nanmean(kept, axis=1), replicates, people, int(scored.sum()))

    def _from_replicates(
        self, pairs: Sequence[Pair], sides: Sequence[tuple[Record, str]], key: str, other_key: str
    ) -> Sample:
        for record, name in sides:
            if name not in self.replicates(record):
                return _nothing("no resampled scores beside the record")
        plans = [record.bootstrap for record, _ in sides]
        first = plans[0]
        lengths = {len(self.replicates(record)[name]) for record, name in sides}
        if first is None or any(plan != first for plan in plans) or len(lengths) != 1:
            return _nothing("the two sides were not resampled alike")

        def less(a: Record, b: Record | None) -> tuple[float, np.ndarray]:
            point, draws = _value(a, key), np.array(self.replicates(a)[key], float)
            if b is None:
                return float(point or 0.0), draws
            return float(point or 0.0) - float(_value(b, other_key) or 0.0), draws - np.array(
                self.replicates(b)[other_key], float
            )

        both = [less(a, b) for a, b in pairs]
        clips = min(record.metrics[name].n for record, name in sides)
        return Sample(np.array([p for p, _ in both]), np.stack([d for _, d in both]), first.identities, clips)

    def _resamples(self, record: Record, ids: list[str], identities: list[str]) -> np.ndarray:
        plan = record.bootstrap
        replicates, seed = (plan.replicates, plan.seed) if plan else (REPLICATES, SEED)
        key = (tuple(ids), tuple(identities), replicates, seed)
        if key not in self._counts:
            self._counts[key] = resample_counts(bootstrap_indices(ids, identities, replicates, seed), len(ids))
        return self._counts[key]

    def _has_clips(self, record: Record, key: str) -> bool:
        return any(value is not None for _, value in self.clips(record).get(key, {}).values())

    def clips(self, record: Record) -> dict[str, ClipScores]:
        if id(record) not in self._clips:
            try:
                self._clips[id(record)] = read_clips(record)
            except RequestError as error:
                self.problems.append(str(error))
                self._clips[id(record)] = {}
        return self._clips[id(record)]

    def replicates(self, record: Record) -> dict[str, list[float | None]]:
        if id(record) not in self._replicates:
            try:
                self._replicates[id(record)] = read_replicates(record)
            except RequestError as error:
                self.problems.append(str(error))
                self._replicates[id(record)] = {}
        return self._replicates[id(record)]


def _value(record: Record, key: str) -> float | None:
    score = record.metrics.get(key)
    return score.value if score is not None else None


def _difference(ours: ClipScores, theirs: ClipScores | None, clip: str) -> float:
    value = ours[clip][1]
    other = 0.0 if theirs is None else theirs[clip][1]
    return float("nan") if value is None or other is None else value - other
