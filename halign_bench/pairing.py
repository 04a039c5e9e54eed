"""Brings the scores of several records onto the same resamples, so that methods can be compared pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from halign_bench.companions import COMPANIONS, read_clips, read_replicates
from halign_bench.errors import RequestError
from halign_bench.record import SPEED, Record, parse_key
from halign_bench.stats import Difference, bootstrap_indices, paired_difference, resample_counts, weighted_means

REPLICATES, SEED = 1000, 0  # for records that do not say

Pair = tuple[Record, "Record | None"]
Side = tuple[np.ndarray, np.ndarray]  # a score for each seed `[S]` and on each resample `[S, B]`
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


@dataclass(frozen=True)
class Sides:
    """Two scores on the same resamples; the second is 0 where one is looked at alone."""

    ours: Side
    theirs: Side
    identities: int
    clips: int


@dataclass(frozen=True)
class PairedClips:
    """Scores `[S, N]` of the same clips on both sides, NaN where either has none; `counts` `[B, N]` of resamples."""

    ours: np.ndarray
    theirs: np.ndarray
    counts: np.ndarray
    identities: int
    clips: int

    def means(self, table: np.ndarray) -> Side:
        """Of a table `[S, N]` of these clips: over all of them, and over each resample."""
        return np.nanmean(table, axis=1), np.stack([weighted_means(row, self.counts) for row in table])


def nothing(reason: str) -> Sample:
    """No sample, and why."""
    return Sample(np.zeros(0), np.zeros((0, 0)), reason=reason)


class Scores:
    """Reads the companions of records once. `problems` names those that could not be read."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._clips: dict[int, dict[str, ClipScores]] = {}
        self._replicates: dict[int, dict[str, list[float | None]]] = {}
        self._counts: dict[tuple, np.ndarray] = {}
        self._samples: dict[tuple, Sample] = {}

    def sample(
        self, pairs: Sequence[Pair], key: str, other_key: str | None = None, ratio: bool = False
    ) -> Sample:
        """Score `key` of each pair's first record, less `other_key` (default `key`) of the second where there is one.

        One pair a seed. Pairs in which either has no score are left out. Clip scores are differenced clip by clip,
        over the clips that both could score; scores of sets by their replicates on the same resamples; speeds by
        the chunks that were sampled together, which then count as the clips and identities of the sample.

        ratio  the natural logarithm of first over second instead, of the means over the clips that both could score
        """
        other_key = other_key or key
        cached = (key, other_key, ratio, *(id(record) for pair in pairs for record in pair))
        if cached not in self._samples:
            self._samples[cached] = self._sample(pairs, key, other_key, ratio)
        return self._samples[cached]

    def _sample(self, pairs: Sequence[Pair], key: str, other_key: str, ratio: bool) -> Sample:
        pairs = [
            (a, b) for a, b in pairs
            if _value(a, key) is not None and (b is None or _value(b, other_key) is not None)
        ]  # fmt: skip
        if not pairs:
            return nothing("no seed has a score")
        rows = [(r, k) for a, b in pairs for r, k in ((a, key), (b, other_key)) if r is not None]
        if parse_key(key).name != SPEED and not any(record.files.keys() & COMPANIONS for record, _ in rows):
            return nothing("no resampled scores beside the records")
        if parse_key(key).name == SPEED:
            found = self._from_chunks(pairs, key, other_key)
        elif all(self._has_clips(record, k) for record, k in rows):
            found = self._from_clips(pairs, key, other_key)
        else:
            found = self._from_replicates(pairs, rows, key, other_key)
        if isinstance(found, str):
            return nothing(found)
        (ours, our_draws), (theirs, their_draws) = found.ours, found.theirs
        if not ratio:
            return Sample(ours - theirs, our_draws - their_draws, found.identities, found.clips)
        if min(ours.min(), theirs.min()) <= 0:
            return nothing("a ratio needs scores above 0")
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = np.log(our_draws) - np.log(their_draws)
        draws = np.where(np.isfinite(draws), draws, np.nan)
        return Sample(np.log(ours) - np.log(theirs), draws, found.identities, found.clips)

    def wins(self, pairs: Sequence[Pair], key: str, higher_is_better: bool) -> Sample:
        """Share of clips that each pair's first record scores better than its second; a tie is half a win."""
        rows = [(a, b) for a, b in pairs if b is not None and _value(a, key) is not None and _value(b, key) is not None]
        if not rows:
            return nothing("no seed has a score")
        if not all(self._has_clips(record, key) for row in rows for record in row):
            return nothing("it is not scored clip by clip")
        found = self._paired_clips(rows, key, key)
        if isinstance(found, str):
            return nothing(found)
        ahead = np.sign(found.ours - found.theirs) * (1 if higher_is_better else -1)
        return Sample(*found.means((1 + ahead) / 2), found.identities, found.clips)

    def _from_clips(self, pairs: Sequence[Pair], key: str, other_key: str) -> Sides | str:
        found = self._paired_clips(pairs, key, other_key)
        if isinstance(found, str):
            return found
        return Sides(found.means(found.ours), found.means(found.theirs), found.identities, found.clips)

    def _paired_clips(self, pairs: Sequence[Pair], key: str, other_key: str) -> PairedClips | str:
        rows = [(self.clips(a)[key], self.clips(b)[other_key] if b is not None else None) for a, b in pairs]
        common = set.intersection(*(set(scores) for row in rows for scores in row if scores is not None))
        ids = sorted(common)
        identities = [rows[0][0][clip][0] for clip in ids]
        ours, theirs = (
            np.array([[_clip_score(row[side], clip) for clip in ids] for row in rows], float) for side in (0, 1)
        )
        unknown = np.isnan(ours) | np.isnan(theirs)
        seeds = ~unknown.all(1) if ids else np.zeros(len(rows), bool)
        if not seeds.any():
            return "no clip was scored on both sides"
        ours, theirs = (np.where(unknown, np.nan, table)[seeds] for table in (ours, theirs))
        scored = ~unknown[seeds].any(0)
        people = len({identity for identity, known in zip(identities, scored, strict=True) if known})
        counts = self._resamples(pairs[0][0], ids, identities)
        return PairedClips(ours, theirs, counts, people, int(scored.sum()))

    def _from_replicates(
        self, pairs: Sequence[Pair], rows: Sequence[tuple[Record, str]], key: str, other_key: str
    ) -> Sides | str:
        for record, name in rows:
            if name not in self.replicates(record):
                return "no resampled scores beside the record"
        plans = [record.bootstrap for record, _ in rows]
        first = plans[0]
        lengths = {len(self.replicates(record)[name]) for record, name in rows}
        if first is None or any(plan != first for plan in plans) or len(lengths) != 1:
            return "the two sides were not resampled alike"

        def side(records: Sequence[Record | None], name: str) -> Side:
            points = [_value(record, name) if record is not None else 0.0 for record in records]
            draws = [self.replicates(r)[name] if r is not None else [0.0] * max(lengths) for r in records]
            return np.array(points, float), np.array(draws, float)

        clips = min(record.metrics[name].n for record, name in rows)
        ours, theirs = side([a for a, _ in pairs], key), side([b for _, b in pairs], other_key)
        return Sides(ours, theirs, first.identities, clips)

    def _from_chunks(self, pairs: Sequence[Pair], key: str, other_key: str) -> Sides | str:
        """Seconds of the chunks in which both sides sampled the same clips."""
        ours, theirs = [], []
        for a, b in pairs:
            if b is None or len(_chunks(a, key)) != len(_chunks(b, other_key)) or len(_chunks(a, key)) < 2:
                return "fewer than two chunks of clips were timed on both sides"
            if _machine(a, key) != _machine(b, other_key):
                return "the two sides were timed on different machines"
            ours.append(_chunks(a, key))
            theirs.append(_chunks(b, other_key))
        names = [str(number) for number in range(len(ours[0]))]
        if any(len(seconds) != len(names) for seconds in ours):
            return "the seeds were timed in different chunks"
        counts = self._resamples(pairs[0][0], names, names)

        def seconds_per_second(side: int, name: str, chunks: list[list[float]]) -> Side:
            table = np.array(chunks)
            records = [record for pair in pairs if (record := pair[side]) is not None]
            points = np.array([record.metrics[name].value for record in records], float)
            return points, table @ counts.T * (points / table.sum(1))[:, None]

        sides = seconds_per_second(0, key, ours), seconds_per_second(1, other_key, theirs)
        return Sides(*sides, len(names), len(names))

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


def _chunks(record: Record, key: str) -> list[float]:
    """Seconds of each chunk at the score's NFE; where its name has none, there is one NFE."""
    nfe, chunks = parse_key(key).nfe, record.timings.chunks
    return chunks.get(str(nfe), []) if nfe is not None else next(iter(chunks.values()), [])


def _machine(record: Record, key: str) -> tuple[object, str]:
    return record.environment.hardware, record.metrics[key].protocol


def _value(record: Record, key: str) -> float | None:
    score = record.metrics.get(key)
    return score.value if score is not None else None


def _clip_score(scores: ClipScores | None, clip: str) -> float:
    """NaN where the clip could not be scored; 0 where there is no second side."""
    value = scores[clip][1] if scores is not None else 0.0
    return float("nan") if value is None else value
