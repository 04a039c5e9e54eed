"""Statistics of paired comparisons: bootstrap clustered by identity, seeds as a second level, Holm, ranks, fronts.

The conventions, once. Clips of one identity are not independent, so whole identities are resampled. Every method's
score is computed on the same resamples, so that a difference of two methods has as replicates the differences of
theirs; that serves distances between sets (FID) and means over clips alike.

Throughout, `points` `[S]` are a score for each training seed, on all clips, and `replicates` `[S, B]` the same
scores on B resamples (NaN where a resample gave none). Results are None, never NaN, where data do not suffice.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
# Of intervals from several seeds, at 95 %; chosen by simulation (tests/test_coverage.py) for 95 % ± 2 from three seeds.
OVERLAP = 0.6  # how much of the residual variance that clips and seeds share is taken out of the seeds'
WELCH = 0.6  # how far the squared width goes from Banerjee's to Welch's
_LEAST_P = 1e-100


# Resampling


def bootstrap_indices(
    ids: Sequence[str], identities: Sequence[str], replicates: int = 1000, seed: int = 0
) -> list[np.ndarray]:
    """`replicates` arrays of clip positions: identities drawn with replacement, each with all of its clips.

    A pure function of the arguments; the order in which clips are given changes positions, not the clips drawn.
    Arrays differ in length when identities have different numbers of clips. Raises ValueError when ids repeat.

    >>> [sorted(draw.tolist()) for draw in bootstrap_indices(["a", "b", "c"], ["x", "x", "y"], 2)]
    [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    if len(ids) != len(identities) or len(set(ids)) != len(ids):
        raise ValueError(f"{len(ids)} clip ids and {len(identities)} identities given; ids must be distinct, one each")
    clusters: dict[str, list[int]] = {}
    for position in sorted(range(len(ids)), key=lambda i: (identities[i], ids[i])):
        clusters.setdefault(identities[position], []).append(position)
    members = [np.array(positions) for positions in clusters.values()]
    if not members:
        return [np.zeros(0, int) for _ in range(replicates)]
    generator = np.random.default_rng(int(bootstrap_signature(ids, identities, replicates, seed)[:32], 16))
    draws = generator.integers(0, len(members), (replicates, len(members)))
    return [np.concatenate([members[k] for k in draw]) for draw in draws]


def bootstrap_signature(ids: Sequence[str], identities: Sequence[str], replicates: int, seed: int) -> str:
    """sha256 of what determines the resamples; replicates with equal signatures are paired."""
    pairs = sorted(zip(identities, ids, strict=True))
    return hashlib.sha256(json.dumps([pairs, replicates, seed]).encode()).hexdigest()


def resample_counts(indices: Sequence[np.ndarray], clips: int) -> np.ndarray:
    """`[B, clips]`: how often each clip stands in each resample."""
    return np.array([np.bincount(draw, minlength=clips) for draw in indices], float).reshape(len(indices), clips)


def resampled_means(values: Sequence[float | None], indices: Sequence[np.ndarray]) -> np.ndarray:
    """`[B]` means over each resample of the scores that exist; NaN where a resample has none."""
    return weighted_means(values, resample_counts(indices, len(values)))


def weighted_means(values: Sequence[float | None], counts: np.ndarray) -> np.ndarray:
    """`resampled_means` from `resample_counts`, for many scores on the same resamples."""
    scores = np.array([np.nan if value is None else value for value in values], float)
    known = ~np.isnan(scores)
    weight = counts @ known.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, counts @ np.where(known, scores, 0.0) / weight, np.nan)


# Intervals


def percentile_interval(
    estimate: float,
    replicates: np.ndarray,
    clusters: int,
    bounds: tuple[float | None, float | None] = (None, None),
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """Percentile interval of one score, recentred for bias and widened for few clusters; None when fewer than 2.

    Recentred: a resample repeats clips, which moves a Fréchet distance up, sometimes so far that plain percentiles
    leave out the estimate; so replicates are shifted to have the estimate as their mean. Widened: percentiles at
    Φ(±√(G/(G-1)) t_{G-1}) in place of the normal quantiles (Hesterberg 2015, arXiv 1411.5279), without which
    intervals from few clusters are too narrow. Cut at `bounds`.
    """
    replicates = replicates[np.isfinite(replicates)]
    if clusters < 2 or len(replicates) < 2:
        return None
    return _interval(estimate, replicates - replicates.mean(), clusters - 1, math.sqrt(clusters / (clusters - 1)),
                     bounds, level)  # fmt: skip


def _interval(
    estimate: float, deviations: np.ndarray, df: float, widening: float,
    bounds: tuple[float | None, float | None], level: float,
) -> tuple[float, float]:  # fmt: skip
    from scipy import stats as scipy_stats

    reach = widening * scipy_stats.t.ppf((1 + level) / 2, df)
    tail = float(scipy_stats.norm.sf(reach))
    low, high = estimate + np.quantile(deviations, [tail, 1 - tail])
    least, greatest = (-math.inf if bounds[0] is None else bounds[0]), (math.inf if bounds[1] is None else bounds[1])
    low, high = float(min(max(low, least), greatest)), float(min(max(high, least), greatest))
    return min(low, estimate), max(high, estimate)


@dataclass(frozen=True)
class Spread:
    """Where the uncertainty of a mean over seeds comes from: variances of that mean, and degrees of freedom.

    clips     as clips vary, with what varies clip by clip and seed by seed
    seeds     as the seeds' scores vary; it holds `residual` too, because seeds were scored on finitely many clips
    residual  what varies clip by clip and seed by seed alone, and so is in both
    """

    clips: float
    seeds: float
    residual: float
    clips_df: int
    seeds_df: int

    @property
    def own(self) -> float:
        """Variance of the seeds themselves."""
        return max(0.0, self.seeds - self.residual)

    @property
    def df(self) -> float:
        """Of clips and seeds together, after Satterthwaite (1946)."""
        parts = [(self.clips, self.clips_df)] + ([(self.seeds, self.seeds_df)] if self.seeds_df else [])
        squares = sum(variance**2 / df for variance, df in parts)
        return (self.clips + self.seeds) ** 2 / squares if squares else self.clips_df

    def reach(self, p: float) -> float:
        """Half of the interval that leaves out `p`."""
        parts = self.clips, self.seeds, self.residual
        return math.sqrt(squared_reach(p, *parts, self.clips_df, self.seeds_df))

    def p(self, value: float) -> float:
        """The two-sided p at which the interval just reaches from `value` to 0; 0 where none is so small."""
        from scipy.optimize import brentq
        from scipy.special import stdtr

        if self.seeds == 0:
            return float(2 * stdtr(self.clips_df, -abs(value) / math.sqrt(self.clips)))
        if self.reach(_LEAST_P) <= abs(value):
            return 0.0
        if abs(value) <= self.reach(1.0):  # which older scipy finds to be a little above 0
            return 1.0
        return math.exp(brentq(lambda log_p: self.reach(math.exp(log_p)) - abs(value), math.log(_LEAST_P), 0.0))


def squared_reach(p: float, clips: Any, seeds: Any, residual: Any, clips_df: int, seeds_df: int) -> Any:
    """Square of half the interval that leaves out `p`, for variances as in `Spread`, numbers or arrays of one shape.

    Banerjee's interval (1961) gives each variance its own Student's t and never covers less than it says; where both
    matter, more. Welch's has one t with Satterthwaite's degrees of freedom; these are estimated from the same two or
    three seeds as the variance, too high where that came out low, and it covers less: at p = 0.003, which Holm asks
    for, three seeds that matter leave out the truth six times as often as it says. So at 95 % the interval lies
    between them, and the smaller p, the nearer to Banerjee's; with two seeds it is Banerjee's.
    """
    from scipy.special import stdtrit

    if not seeds_df:
        return stdtrit(clips_df, p / 2) ** 2 * clips
    leniency = min(1.0, p / (1 - LEVEL)) if seeds_df > 1 else 0.0
    own = np.maximum(0.0, seeds - OVERLAP * leniency * residual)
    banerjee = stdtrit(clips_df, p / 2) ** 2 * clips + stdtrit(seeds_df, p / 2) ** 2 * own
    both = clips + own
    with np.errstate(invalid="ignore"):
        df = np.where(both > 0, both**2 / (clips**2 / clips_df + own**2 / seeds_df), clips_df)
    welch = stdtrit(df, p / 2) ** 2 * both
    return banerjee - WELCH * leniency * (banerjee - welch)


def spread(points: np.ndarray, replicates: np.ndarray, clusters: int) -> Spread | None:
    """Variances of the mean over seeds, from clips and from seeds; None with fewer than two identities.

    Clips: variance of the replicates' mean over seeds, times G/(G-1). Seeds: variance between the seeds' scores
    over S; 0 for one seed, which then stands for itself alone. Residual: a single seed's replicates vary by all
    that clips do to it, their mean over seeds by what clips do to all seeds alike and a 1/S of the rest.
    """
    count = len(points)
    if clusters < 2 or count < 1:
        return None
    replicates = replicates[:, np.isfinite(replicates).all(0)]
    if replicates.shape[1] < 2:
        return None
    inflation = clusters / (clusters - 1)
    clips = float(replicates.mean(0).var(ddof=1)) * inflation
    if count == 1:
        return Spread(clips, 0.0, 0.0, clusters - 1, 0)
    single = float(replicates.var(axis=1, ddof=1).mean()) * inflation
    residual = max(0.0, (single - clips) / (count - 1))
    return Spread(clips, float(np.var(points, ddof=1)) / count, residual, clusters - 1, count - 1)


def score_interval(
    points: np.ndarray,
    replicates: np.ndarray,
    clusters: int,
    bounds: tuple[float | None, float | None] = (None, None),
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """Interval of a score's mean over seeds: `percentile_interval`, with seeds drawn as a second level.

    For one seed it is `percentile_interval`. Draws of seeds are scaled by √(S/(S-1)), as their spread around
    their own mean is too small by that much.
    """
    if len(points) == 1:
        return percentile_interval(float(points[0]), replicates[0], clusters, bounds, level)
    parts = spread(points, replicates, clusters)
    if parts is None:
        return None
    count, means = len(points), replicates.mean(0)
    means = means[np.isfinite(means)]
    draws = np.random.default_rng(count).integers(0, count, (len(means), count))
    seeds = (points[draws].mean(1) - points.mean()) * math.sqrt(count / (count - 1))
    deviations = (means - means.mean()) * math.sqrt(clusters / (clusters - 1)) + seeds
    return _interval(float(points.mean()), deviations, parts.df, 1.0, bounds, level)


# Differences


@dataclass(frozen=True)
class Difference:
    """A paired difference, method less reference; `reason` says why value, ci or p are None."""

    value: float | None
    ci: tuple[float, float] | None = None
    p: float | None = None
    seeds: int = 0
    identities: int = 0
    reason: str | None = None


def paired_difference(points: np.ndarray, replicates: np.ndarray, clusters: int, level: float = LEVEL) -> Difference:
    """Mean over seeds of paired differences `points` `[S]` with `replicates` `[S, B]`, its CI and two-sided p-value.

    From the variances of `spread`; CI and p come from the same intervals, so the CI excludes zero exactly when
    p < 1 - level. It covers 95 % within two points for one seed and from three seeds on, unless hardly anything of
    what clips do is common to all seeds (then 92 to 97.5 %), and 94 to 99 % with two seeds. A difference without any
    spread, equal on every clip, gets the least p that a sign-flip test over G identities can give, 2^(1-G).
    """
    points, replicates = np.asarray(points, float), np.asarray(replicates, float)
    if not len(points):
        return Difference(None, reason="no seed in common")
    value = float(points.mean())
    seeds = len(points)
    if clusters < 2:
        return Difference(value, None, None, seeds, clusters, "clips of fewer than two identities: no interval")
    parts = spread(points, replicates, clusters)
    if parts is None:
        return Difference(value, None, None, seeds, clusters, "too few resamples could be scored: no interval")
    if math.sqrt(parts.clips + parts.seeds) <= 1e-12 * max(abs(value), 1e-300):
        return Difference(value, (value, value), 1.0 if value == 0 else 2.0 ** (1 - clusters), seeds, clusters)
    reach = parts.reach(1 - level)
    return Difference(value, (value - reach, value + reach), parts.p(value), seeds, clusters)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) adjusted p-values; None stays None and does not count.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for position, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - position) * p))
        adjusted[i] = largest
    return adjusted


def significance_ranks(names: Sequence[str], better: Mapping[tuple[str, str], bool | None]) -> dict[str, int | None]:
    """Rank = 1 + how many others are significantly better, so that those not told apart share a rank.

    ``better[a, b]``: a is significantly better than b; None or absent when the pair could not be tested. A name
    without any tested pair has rank None, and so has everything where nothing is told apart: then there is no order.

    >>> significance_ranks(["a", "b", "c"], {("a", "c"): True, ("c", "a"): False, ("a", "b"): False, ("b", "a"): False})
    {'a': 1, 'b': 1, 'c': 2}
    """
    tested = {name for pair, verdict in better.items() if verdict is not None for name in pair}
    if not any(better.values()):
        return dict.fromkeys(names)
    return {
        name: 1 + sum(bool(better.get((other, name))) for other in names if other != name) if name in tested else None
        for name in names
    }


def pareto_front(rows: Sequence[Sequence[float | None]], higher_is_better: Sequence[bool]) -> list[bool | None]:
    """Whether no other row is at least as good in every column and better in one. None for rows with a gap.

    >>> pareto_front([[1, 5], [2, 6], [0, 7], [None, 1]], [True, False])
    [True, True, False, None]
    """
    complete = [
        tuple(value if up else -value for value, up in zip(row, higher_is_better, strict=True) if value is not None)
        for row in rows
        if None not in row
    ]

    def dominated(row: tuple[float, ...]) -> bool:
        return any(other != row and all(o >= r for o, r in zip(other, row, strict=True)) for other in complete)

    verdicts = iter([not dominated(row) for row in complete])
    return [None if None in row else next(verdicts) for row in rows]


def non_inferior(difference: Difference, higher_is_better: bool, margin: float) -> bool | None:
    """Whether the interval excludes being worse than the reference by `margin` (≥ 0) or more; None without one."""
    if difference.ci is None:
        return None
    low, high = difference.ci
    return low > -margin if higher_is_better else high < margin
