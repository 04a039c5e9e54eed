"""From scores at noise levels to curves with intervals, and from two curves to a t_mid. Pure functions of arrays.

P clips, K candidates each, L noise levels from high to low, B resamples. `counts` `[B, P]` says how often each clip
stands in each resample. A clip with a NaN among its finished candidates is left out, whatever its other numbers are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from halign_bench.stats import Difference, holm, paired_difference, percentile_interval

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Curve:
    """A number for each noise level: `values` `[L]` on all clips, `replicates` `[B, L]` on resamples; NaN: unknown."""

    values: np.ndarray
    replicates: np.ndarray

    def intervals(
        self, clusters: int, bounds: tuple[float | None, float | None] = (None, None)
    ) -> list[tuple[float, float] | None]:
        return [
            percentile_interval(float(value), self.replicates[:, i], clusters, bounds) if math.isfinite(value) else None
            for i, value in enumerate(self.values)
        ]


def decided(full: np.ndarray, remade: np.ndarray, counts: np.ndarray) -> Curve:
    """Correlation of the scores of candidates `[P, K]` and of their remakes `[P, K, L]` within prompts.

    Scores are taken as deviations from their prompt's mean, so what a prompt gives to all of its candidates, before
    or after, does not count. Unknown where either does not vary.
    """
    known = ~np.isnan(full).any(1)
    before = np.where(known[:, None], full - full.mean(1, keepdims=True), 0.0)[..., None]
    after = np.where(known[:, None, None], remade - remade.mean(1, keepdims=True), 0.0)
    products = [(x * y).sum(1) for x, y in ((before, after), (before, before), (after, after))]  # [P, L] or [P, 1]

    def correlation(weights: np.ndarray) -> np.ndarray:
        both, one, other = (weights @ product for product in products)
        scale = np.sqrt(one * other)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(scale > 1e-12, np.clip(both / scale, -1, 1), np.nan)

    return Curve(correlation(known.astype(float)), correlation(counts * known))


def change(full: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> Curve:
    """Mean of `scores` `[P, K, L]` less the finished candidates' `[P, K]`, in standard deviations of the latter.

    The unit is a fixed number, not resampled. Unknown where finished candidates all score the same.
    """
    known = ~np.isnan(full).any(1)
    spread = float(full[known].std()) if known.any() else 0.0
    if spread < 1e-12:
        return Curve(np.full(scores.shape[-1], np.nan), np.full((len(counts), scores.shape[-1]), np.nan))
    differences = np.where(known[:, None], (scores - full[..., None]).mean(1), 0.0) / spread

    def mean(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(-1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 0, weights @ differences / total, np.nan)

    return Curve(mean(known.astype(float)), mean(counts * known))


def settled(estimate: Curve, first: Curve, clusters: int) -> Curve:
    """Share of the way from the first estimate's quality to the finished sample's that is covered at each level.

    estimate, first  `change` of the clean estimates at the levels, and at t = 1 (one level)
    Unknown where first and finished are not told apart: a share of nothing has no meaning.
    """
    ends = first.intervals(clusters)[0]
    if ends is None or ends[0] <= 0 <= ends[1]:
        return Curve(np.full_like(estimate.values, np.nan), np.full_like(estimate.replicates, np.nan))
    with np.errstate(invalid="ignore", divide="ignore"):
        return Curve(1 - estimate.values / first.values, 1 - estimate.replicates / first.replicates)


@dataclass(frozen=True)
class Recommendation:
    """Where to divide, or why nowhere.

    verdict   "early first": t_mid is given; "late first": the other way round; "cannot tell"
    t_mid     the level at which `early` is ahead of `late` by the most, and its interval
    gaps      early - late at each level, p not yet adjusted; `p` `[L]` are Holm's
    at        level with the largest gap in the direction of the verdict
    times     "cannot tell": about how many times the clips would tell the largest gap from 0; None when none would
    """

    verdict: Literal["early first", "late first", "cannot tell"]
    t_mid: float | None
    interval: tuple[float, float] | None
    at: float | None
    gaps: list[Difference]
    p: list[float | None]
    times: float | None = None


def recommend(levels: Sequence[float], early: Curve, late: Curve, clusters: int) -> Recommendation:
    """Youden's index of two `decided` curves, with Holm's correction over the levels. The package says why so."""
    values, replicates = early.values - late.values, early.replicates - late.replicates
    gaps = [
        paired_difference(np.array([value]), replicates[:, i][None], clusters)
        if math.isfinite(value) else Difference(None, reason="not measured")
        for i, value in enumerate(values)
    ]  # fmt: skip
    p = holm([gap.p for gap in gaps])
    if not np.isfinite(values).any():
        return Recommendation("cannot tell", None, None, None, gaps, p)
    highest, lowest = int(np.nanargmax(values)), int(np.nanargmin(values))
    if values[highest] > 0 and _significant(p[highest]):
        usable = replicates[np.isfinite(replicates).all(1)] if np.isfinite(values).all() else replicates[:0]
        interval = None
        if len(usable):
            places = np.array(levels)[usable.argmax(1)]
            low, high = np.quantile(places, [0.025, 0.975], method="nearest")
            interval = min(float(low), levels[highest]), max(float(high), levels[highest])
        return Recommendation("early first", levels[highest], interval, levels[highest], gaps, p)
    if values[lowest] < 0 and _significant(p[lowest]):
        return Recommendation("late first", None, None, levels[lowest], gaps, p)
    times = _times(gaps[highest], len(levels)) if values[highest] > 0 else None
    return Recommendation("cannot tell", None, None, levels[highest], gaps, p, times)


def _significant(p: float | None) -> bool:
    return p is not None and p < SIGNIFICANT


def _times(gap: Difference, levels: int) -> float | None:
    """How many times the clips, if the gap stays as it is, until it is significant at the first of Holm's steps."""
    from scipy import stats as scipy_stats

    if gap.p is None or gap.value is None or not 0 < gap.p < 1:
        return None
    have, need = (float(scipy_stats.norm.isf(p / 2)) for p in (gap.p, SIGNIFICANT / levels))
    return max(1.0, (need / have) ** 2) if have > 0 else None
