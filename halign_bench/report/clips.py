"""Scores of single clips: which clips all methods find hard or easy, and what each method has on each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from halign_bench.figures.source import NoData, Source, direction
from halign_bench.record import SPEED, Record, parse_key

RULE = (
    "Clips stand in the order of their mean rank: over all methods, seeds and scores of single clips that have a "
    "better side, each at the main NFE and of equal weight; 0 is the worst clip of all, 1 the best. A clip that a "
    "score could not be given is left out of that score's ranking."
)


@dataclass(frozen=True)
class ClipRank:
    """rank  mean over methods, seeds and scores in [0, 1], 0 worst; spread  its range over methods, 0 all alike"""

    id: str
    identity: str
    rank: float
    spread: float


def ranked(source: Source) -> list[ClipRank]:
    """Every clip that has a score, the worst first. Raises NoData where no score was kept clip by clip."""
    keys = directed_keys(source)
    identities: dict[str, str] = {}
    by_method: list[dict[str, list[float]]] = []
    for method in source.methods:
        found: dict[str, list[float]] = {}
        for record in source.records.done(method):
            scores = source.records.scores.clips(record)
            for key in keys:
                known = {clip: value for clip, (_, value) in scores.get(key, {}).items() if value is not None}
                identities |= {clip: identity for clip, (identity, _) in scores.get(key, {}).items()}
                for clip, place in zip(known, _places(list(known.values()), bool(direction(source.table, key))),
                                       strict=True):  # fmt: skip
                    found.setdefault(clip, []).append(place)
        by_method.append(found)
    clips = sorted(set().union(*by_method)) if by_method else []
    if not clips:
        raise NoData("no score of single clips lies beside these records")
    ranks = []
    for clip in clips:
        means = [float(np.mean(found[clip])) for found in by_method if clip in found]
        everything = [place for found in by_method for place in found.get(clip, [])]
        ranks.append(ClipRank(clip, identities[clip], float(np.mean(everything)), max(means) - min(means)))
    return sorted(ranks, key=lambda one: (one.rank, one.id))


def directed_keys(source: Source) -> list[str]:
    """Scores at the main NFE that have a better side; implicit accuracy is of held-out pairs, not of samples."""
    board = source.table
    return [
        key for key in board.scores_at()
        if direction(board, key) is not None and parse_key(key).name not in (SPEED, "implicit_accuracy")
    ]  # fmt: skip


def _places(values: Sequence[float], higher_is_better: bool) -> list[float]:
    """In [0, 1], 0 worst; ties share the mean of their places.

    >>> _places([3.0, 1.0, 3.0], True)
    [0.75, 0.0, 0.75]
    """
    from scipy.stats import rankdata

    if len(values) < 2:
        return [0.5] * len(values)
    ranks = (rankdata(values if higher_is_better else [-value for value in values]) - 1) / (len(values) - 1)
    return [float(rank) for rank in ranks]


def extremes(ranks: Sequence[ClipRank], count: int) -> list[ClipRank]:
    """The worst and the best, half and half, the worst first; all where there are no more.

    >>> clips = [ClipRank(name, "", i / 4, 0.0) for i, name in enumerate("abcde")]
    >>> [clip.id for clip in extremes(clips, 3)]
    ['a', 'b', 'e']
    """
    if count >= len(ranks):
        return list(ranks)
    worst = (count + 1) // 2
    return [*ranks[:worst], *ranks[len(ranks) - (count - worst) :]]


def gallery_seed(source: Source) -> int:
    """Of which samples are shown: the seed that the most methods have, of several the lowest."""
    counts: dict[int, int] = {}
    for method in source.methods:
        for record in source.records.done(method):
            counts[record.cell.seed] = counts.get(record.cell.seed, 0) + 1
    if not counts:
        raise NoData("no method finished")
    return min(counts, key=lambda seed: (-counts[seed], seed))


def of_seed(source: Source, seed: int) -> dict[str, Record]:
    """Method -> its finished record of this seed, of those that have one."""
    found = {m: r for m in source.methods for r in source.records.done(m) if r.cell.seed == seed}
    return {method: found[method] for method in source.methods if method in found}


def clip_keys(source: Source, records: Sequence[Record]) -> list[str]:
    """Scores at the main NFE that any of these records has clip by clip, as the table orders them."""
    kept = {key for record in records for key in source.records.scores.clips(record)}
    return [key for key in source.table.scores_at() if key in kept and parse_key(key).name != "implicit_accuracy"]


__all__ = [
    "RULE", "ClipRank", "clip_keys", "directed_keys", "extremes", "gallery_seed", "of_seed", "ranked",
]  # fmt: skip
