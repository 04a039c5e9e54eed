"""Fréchet distance between two sets of image features (FID)."""

from __future__ import annotations

from typing import Any

import numpy as np

from halign_bench.metric import Scored, SetMetric
from halign_bench.registry import register


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Fréchet distance of the Gaussians fitted to two samples (Heusel et al. 2017, arXiv 1706.08500).

    ``x`` `[n1, D]` and ``y`` `[n2, D]`: features, one row a sample, n1 and n2 at least 2. Returns
    |μ1 - μ2|² + tr Σ1 + tr Σ2 - 2 tr √(Σ1Σ2), at least 0, with unbiased covariances, in squared
    feature units. For n < D no D×D matrix is formed: with centred X = UᵀΣ-factors the trace is the
    nuclear norm ‖X1 X2ᵀ‖_* / √((n1-1)(n2-1)), which is exact. Raises ValueError on wrong shapes
    and on values that are not finite.

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
    return _frechet(np.asarray(mean1, float), _factor(cov1), np.asarray(mean2, float), _factor(cov2))


def _samples(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"features of shape {x.shape} given; at least two samples are needed, [n, D]")
    if not np.isfinite(x).all():
        raise ValueError("features contain NaN or infinite values")
    return x


def _factor_of_sample(centred: np.ndarray) -> np.ndarray:
    """A matrix F `[min(n, D), D]` with FᵀF = the unbiased covariance."""
    n, dimensions = centred.shape
    if n <= dimensions:
        return centred / np.sqrt(n - 1)
    return _factor(centred.T @ centred / (n - 1))


def _factor(covariance: np.ndarray) -> np.ndarray:
    covariance = np.asarray(covariance, dtype=np.float64)
    try:
        return np.linalg.cholesky(covariance).T  # ten times as fast as what singular ones need
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(values.clip(0))[:, None] * vectors.T  # rounding makes zero eigenvalues slightly negative


def _frechet(mean1: np.ndarray, factor1: np.ndarray, mean2: np.ndarray, factor2: np.ndarray) -> float:
    # With Σ = FᵀF the trace of √(Σ1Σ2) is the sum of the singular values of F1F2ᵀ: no matrix root, no complex
    # numbers, and no eigenvalues of a product, whose square roots lose half of the digits near zero.
    trace = np.linalg.svd(factor1 @ factor2.T, compute_uv=False).sum()
    total = ((mean1 - mean2) ** 2).sum() + (factor1**2).sum() + (factor2**2).sum() - 2 * trace
    return float(max(total, 0.0))


@register
class FID(SetMetric):
    """Fréchet distance of image features, every frame of every clip a sample."""

    name = "fid"
    unit = "squared feature units"
    higher_is_better = False
    bounds = (0, None)
    feature = "image"
    summary = "Fréchet distance between generated and real frames"
    recipe = "Fréchet distance over all frames, unbiased covariances, exact trace by singular values"

    def measure(self, scored: Scored) -> Any:
        return np.asarray(scored.features, float), np.asarray(scored.target_features, float)

    def distance(self, features: np.ndarray, target_features: np.ndarray) -> float:
        return frechet_distance(features, target_features)
