"""Fréchet distance between two sets of image features (FID)."""

from __future__ import annotations

from typing import Any

import numpy as np

from halign_bench.metric import Scored, SetMetric
from halign_bench.registry import register
from halign_bench.track import Unscorable

from ._frechet_resampling import FrechetResampling, thinning
from ._gaussians import distance, factor


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Fréchet distance of the Gaussians fitted to two samples (Heusel et al. 2017, arXiv 1706.08500).

    ``x`` `[n1, D]` and ``y`` `[n2, D]`: features, one row a sample, n1 and n2 at least 2. Returns
    |μ1 - μ2|² + tr Σ1 + tr Σ2 - 2 tr √(Σ1Σ2), at least 0, with unbiased covariances, in squared
    feature units. For n < D no D×D matrix is formed: with centred X = UᵀΣ-factors the trace is the
    nuclear norm ‖X1 X2ᵀ‖_* / √((n1-1)(n2-1)), which is exact. Raises ValueError on wrong shapes
    and on values that are not finite, or whose squares are not.

    >>> x = np.array([[0.0], [2.0]])
    >>> round(frechet_distance(x, x + 3), 12)
    9.0
    >>> round(frechet_distance(x, 2 * x), 12)  # means 1 and 2, standard deviations √2 and 2√2
    3.0
    """
    x, y = _samples(x), _samples(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features of {x.shape[1]} and of {y.shape[1]} dimensions have no Fréchet distance")
    mean1, mean2 = x.mean(0), y.mean(0)
    factor1 = _factor_of_sample(x - mean1)
    factor2 = _factor_of_sample(y - mean2)
    return _frechet(mean1, factor1, mean2, factor2)


def frechet_distance_from_moments(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """The same from means `[D]` and covariances `[D, D]` (symmetric, positive semi-definite).

    >>> zero, eye = np.zeros(2), np.eye(2)
    >>> round(frechet_distance_from_moments(zero, eye, zero + 1, 4 * eye), 12)
    4.0
    """
    return _frechet(np.asarray(mean1, float), factor(cov1), np.asarray(mean2, float), factor(cov2))


def fid_infinity(x: np.ndarray, y: np.ndarray, points: int = 15, seed: int = 0) -> float:
    """Fréchet distance extrapolated to endlessly many samples (Chong & Forsyth 2020, arXiv 1911.07023).

    ``x`` `[n1, D]`, ``y`` `[n2, D]`. The distance of random subsets of n on both sides is fitted by a + b/n over
    `points` sizes from a fifth of the smaller set to all of it, evenly spaced; a is returned, and may be slightly
    negative. The paper subsamples the generated side alone, against a reference taken as the truth; here both
    sets are small.

    The bias falls as 1/n only where covariances are well estimated, and only for independent samples: below 10 D
    of them a ValueError is raised (20,480 for Inception, 4,000 for I3D), as a number would mean nothing. Frames
    of one clip are not independent, which is why this is a function and no metric: to make it one, it needs one
    frame a clip and that many clips.
    """
    x, y = _samples(x), _samples(y)
    total, dimensions = min(len(x), len(y)), x.shape[1]
    if total < 10 * dimensions:
        raise ValueError(f"{total} samples in {dimensions} dimensions: extrapolation needs at least {10 * dimensions}")
    if points < 2:
        raise ValueError(f"a line through {points} points has no intercept; at least 2 are needed")
    generator = np.random.default_rng(seed)
    sizes = np.linspace(total / 5, total, points).round().astype(int)
    found = [
        frechet_distance(*(side[generator.choice(len(side), size, replace=False)] for side in (x, y)))
        for size in sizes
    ]
    slope_and_value = np.polyfit(1 / sizes, found, 1)
    return float(slope_and_value[1])


def _samples(x: np.ndarray, least: int = 2) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or len(x) < least:
        raise ValueError(f"features of shape {x.shape} given; at least two samples are needed, [n, D]")
    if not np.isfinite(x).all() or np.abs(x).max(initial=0) > 1e140:
        raise ValueError("features contain NaN or infinite values, or such whose squares are infinite")
    return x


def _factor_of_sample(centred: np.ndarray) -> np.ndarray:
    """A matrix F `[min(n, D), D]` with FᵀF = the unbiased covariance."""
    n, dimensions = centred.shape
    if n <= dimensions:
        return centred / np.sqrt(n - 1)
    return factor(centred.T @ centred / (n - 1))


def _frechet_of_parts(xs: list[np.ndarray], ys: list[np.ndarray]) -> float:
    """`frechet_distance` of the samples of all parts together, which need not be in memory at once."""
    return _frechet(*_mean_and_factor(xs), *_mean_and_factor(ys))


def _mean_and_factor(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    count, dimensions = sum(len(part) for part in parts), parts[0].shape[1]
    if count <= dimensions:
        together = _samples(np.concatenate(parts))
        return together.mean(0), _factor_of_sample(together - together.mean(0))
    mean = sum(_samples(part, least=0).sum(0) for part in parts) / count
    scatter = np.zeros((dimensions, dimensions))
    for part in parts:
        centred = part - mean
        scatter += centred.T @ centred
    return mean, factor(scatter / (count - 1))


def _frechet(mean1: np.ndarray, factor1: np.ndarray, mean2: np.ndarray, factor2: np.ndarray) -> float:
    rest = ((mean1 - mean2) ** 2).sum() + (factor1**2).sum() + (factor2**2).sum()
    return distance(float(rest), factor1 @ factor2.T)


class FrechetMetric(SetMetric):
    """A Fréchet distance over the features of all clips, and of resamples of the clips."""

    unit = "squared feature units"
    higher_is_better = False
    bounds = (0, None)

    def reset(self) -> None:
        super().reset()
        self._resampling: tuple[int, FrechetResampling] | None = None

    @property
    def protocol(self) -> str:
        """Says so where resamples see a part of the samples."""
        pairs = [value for value in self.values if not isinstance(value, Unscorable)]
        sides = [[pair[side] for pair in pairs] for side in (0, 1) if pairs]
        step = max((thinning([len(x) for x in side], side[0].shape[1]) for side in sides), default=1)
        return super().protocol + (f"; interval by resamples of 1 sample in {step} of each clip" if step > 1 else "")

    def compute(self, indices: np.ndarray | None = None) -> float | None:
        """All clips as `frechet_distance`; a resample, the same clips on both sides, by `FrechetResampling`."""
        if indices is None:
            pairs = [value for value in self.values if not isinstance(value, Unscorable)]
            return _frechet_of_parts([x for x, _ in pairs], [y for _, y in pairs]) if len(pairs) >= 2 else None
        scored = np.array([not isinstance(value, Unscorable) for value in self.values], bool)
        weights = np.bincount(np.asarray(indices, int), minlength=len(self.values))[scored].astype(float)
        if weights.sum() < 2:
            return None
        if self._resampling is None or self._resampling[0] != len(self.values):
            pairs = [value for value in self.values if not isinstance(value, Unscorable)]
            self._resampling = len(self.values), FrechetResampling([x for x, _ in pairs], [y for _, y in pairs])
        return self._resampling[1](weights)


@register
class FID(FrechetMetric):
    """Fréchet distance of image features, every frame of every clip a sample."""

    name = "fid"
    feature = "image"
    summary = "Fréchet distance between generated and real frames"
    recipe = "Fréchet distance over all frames, unbiased covariances, exact trace by singular values"

    def measure(self, scored: Scored) -> Any:
        return np.asarray(scored.features), np.asarray(scored.target_features)  # in single precision they take half
