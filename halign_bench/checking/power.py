"""How many clips and seeds a margin takes, from the variance of paired differences on record.

A margin is told where both hold, each with 90 % probability: of two sides without any true difference, a loss
greater than the margin is ruled out; and a true loss of twice the margin is reported as a regression, at 5 % over
all that is checked. The probabilities are those of `verdicts` under normal theory, drawn (2,000 draws, seeded), so
that the uncertainty of a variance from few identities or seeds counts too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from halign_bench.pairing import Sample
from halign_bench.stats import LEVEL, spread, squared_reach

POWER = 0.9
AIM = 0.92  # what is planned for, so that the error of the draws does not take it below POWER
ALPHA = 1 - LEVEL
MOST_TIMES, MOST_SEEDS = 1000, 100  # no plan goes beyond so many times the clips on record, and so many seeds
DRAWS = 2000


@dataclass(frozen=True)
class Variance:
    """Of a paired difference: variances of one seed's mean over the `clips` on record, of `identities`.

    shared    what clips do to all seeds alike; falls with clips
    residual  what varies by clip and seed; falls with clips and seeds
    seeds     between seeds, whatever the clips; falls with seeds; None when one seed is on record
    """

    shared: float
    residual: float
    seeds: float | None
    clips: int
    identities: int
    n_seeds: int


def variance_of(sample: Sample) -> Variance | None:
    """None where the sample has no spread to plan with."""
    parts = None if sample.reason else spread(sample.points, sample.replicates, sample.identities)
    if parts is None or parts.clips + parts.seeds <= 0:
        return None
    count = len(sample.points)
    seeds = max(0.0, parts.seeds - parts.residual) * count if count > 1 else None
    shared = max(0.0, parts.clips - parts.residual)
    return Variance(shared, parts.residual * count, seeds, sample.clips, sample.identities, count)


@lru_cache(maxsize=4)
def _draws(draws: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for every plan, so that more data never look worse by chance."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(draws), rng.random(draws), rng.random(draws)


def _mean_square(df: int, uniform: np.ndarray) -> np.ndarray:
    """Draws of χ²/df."""
    from scipy.special import gammaincinv

    return 2 * gammaincinv(df / 2, uniform) / df


def chance(found: Variance, identities: int, seeds: int, margin: float, checks: int) -> float:
    """Probability that a margin is told with so many identities (each with its clips on record) and seeds."""
    more = identities / found.identities
    residual = found.residual / seeds / more
    clips, own = found.shared / more + residual, (found.seeds or 0.0) / seeds
    normal, first, second = _draws(DRAWS)
    clips_seen = clips * _mean_square(identities - 1, first)
    seeds_seen = (own + residual) * _mean_square(seeds - 1, second) if seeds > 1 else np.zeros(DRAWS)
    noise = normal * math.sqrt(clips + own)

    def reach(p: float) -> np.ndarray:
        return np.sqrt(squared_reach(p, clips_seen, seeds_seen, residual, identities - 1, seeds - 1))

    ruled_out = noise + reach(ALPHA) <= margin
    reported = 2 * margin + noise > np.maximum(margin, reach(ALPHA / max(checks, 1)))
    return float(min(ruled_out.mean(), reported.mean()))


def clips_needed(found: Variance, seeds: int, margin: float, checks: int = 1) -> int | None:
    """The least number of clips, with as many to an identity as on record; None where no number would do."""
    most = MOST_TIMES * found.identities
    identities = _least(lambda count: chance(found, count, seeds, margin, checks) >= AIM, 2, most)
    return None if identities is None else math.ceil(identities * found.clips / found.identities)


def seeds_needed(found: Variance, margin: float, checks: int = 1) -> int | None:
    """The least number of seeds with the clips on record; None where no number would do or one seed is on record."""
    if found.seeds is None:
        return None
    return _least(lambda count: chance(found, found.identities, count, margin, checks) >= AIM, 2, MOST_SEEDS)


def both_needed(found: Variance, margin: float, checks: int = 1) -> tuple[int, int] | None:
    """Clips and seeds, of twice, four times, … the seeds on record those that make the least of their product."""
    if found.seeds is None:
        return None
    counts = []
    seeds = 2 * found.n_seeds
    while seeds <= MOST_SEEDS:
        clips = clips_needed(found, seeds, margin, checks)
        if clips is not None:
            counts.append((clips, seeds))
        seeds *= 2
    return min(counts, key=math.prod, default=None)


def least_margin(found: Variance, checks: int = 1) -> float:
    """The smallest margin that the clips and seeds on record tell, to a percent."""
    error = math.sqrt(found.shared + found.residual / found.n_seeds + (found.seeds or 0.0) / found.n_seeds)
    low, high = error, 2 * error
    while chance(found, found.identities, found.n_seeds, high, checks) < AIM:
        low, high = high, 2 * high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        told = chance(found, found.identities, found.n_seeds, middle, checks) >= AIM
        low, high = (low, middle) if told else (middle, high)
    return high


def _least(enough: Callable[[int], bool], low: int, most: int) -> int | None:
    """The least number from `low` to `most` that is enough; None where `most` is not."""
    if enough(low):
        return low
    high = 2 * low
    while not enough(min(high, most)):
        if high >= most:
            return None
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


__all__ = ["POWER", "Variance", "both_needed", "chance", "clips_needed", "least_margin", "seeds_needed", "variance_of"]
