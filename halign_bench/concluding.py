"""From what a metric holds of each clip to its score, interval and counts: the same for every command that scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from halign_bench.companions import ClipScore
from halign_bench.errors import first_line
from halign_bench.record import MetricValue
from halign_bench.stats import percentile_interval, resampled_means
from halign_bench.track import LARGEST, Unscorable

if TYPE_CHECKING:
    from halign_bench.metric import Metric


@dataclass(frozen=True)
class Conclusion:
    """A score, and what paired comparisons need: scores of clips, or (set metrics) one a resample."""

    value: MetricValue
    clips: list[ClipScore]
    replicates: list[float | None]


def conclude(
    metric: Metric, key: str, identities: Sequence[str], draws: Sequence[np.ndarray],
    check: Callable[[], None] = lambda: None,
) -> Conclusion:  # fmt: skip
    """Of all clips that the metric was given.

    identities  of these clips, in the same order
    draws       resamples of their positions (`stats.bootstrap_indices`)
    check       called often; may raise to stop
    """
    scored = [not isinstance(value, Unscorable) for value in metric.values]
    value, reason = _total(metric)
    clips: list[ClipScore] = []
    resampled: list[float | None] = []
    if metric.per_clip:
        numbers = [float(v) if ok else None for v, ok in zip(metric.values, scored, strict=True)]
        for clip_id, identity, raw, number in zip(metric.ids, identities, metric.values, numbers, strict=True):
            clips.append(ClipScore(clip_id, identity, key, number, raw.reason if number is None else None))
        replicates = resampled_means(numbers, draws)
    else:
        for draw in draws:
            check()
            resampled.append(_resampled(metric, draw) if value is not None else None)
        replicates = np.array([np.nan if number is None else number for number in resampled], float)
    clusters = len({identity for identity, ok in zip(identities, scored, strict=True) if ok})
    found = MetricValue(
        value=value, n=sum(scored), failed=metric.failures(), unit=metric.unit,
        ci=percentile_interval(value, replicates, clusters, metric.bounds) if value is not None else None,
        higher_is_better=metric.higher_is_better, bounds=metric.bounds, protocol=metric.protocol,
        reason=reason,
    )  # fmt: skip
    return Conclusion(found, clips, resampled)


def _total(metric: Metric) -> tuple[float | None, str | None]:
    """The score of all clips, or why there is none."""
    if (reason := metric.degenerate()) is not None:
        return None, reason
    try:
        value = metric.compute()
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as problem:  # of numbers that it cannot take
        return None, f"it cannot be computed: {first_line(problem)}"
    if value is None:
        return None, metric.reason()
    known = finite_or_none(value)
    return known, None if known is not None else "over all clips it is not a finite number"


def _resampled(metric: Metric, draw: np.ndarray) -> float | None:
    try:
        return finite_or_none(metric.compute(draw))
    except (ArithmeticError, ValueError, np.linalg.LinAlgError):
        return None


def not_measured(cls: type[Metric], reason: str) -> MetricValue:
    """For a metric that nothing could be asked of."""
    return MetricValue(
        value=None, n=0, unit=cls.unit, higher_is_better=cls.higher_is_better, bounds=cls.bounds, protocol=cls.recipe,
        reason=reason,
    )  # fmt: skip


def finite_or_none(value: float | None) -> float | None:
    return float(value) if value is not None and abs(value) < LARGEST else None


__all__ = ["Conclusion", "conclude", "finite_or_none", "not_measured"]
