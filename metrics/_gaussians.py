"""The linear algebra of Fréchet distances between Gaussians, without matrix roots."""

from __future__ import annotations

import numpy as np

LARGE = 512  # from this side on, singular values cost seconds and eigenvalues a third of that
TOLERANCE = 1e-5  # of the distance: the most that eigenvalues in place of singular values may be off by


def factor(covariance: np.ndarray) -> np.ndarray:
    """A matrix F `[D, D]` with FᵀF = covariance (symmetric, positive semi-definite)."""
    covariance = np.asarray(covariance, dtype=np.float64)
    try:
        return np.linalg.cholesky(covariance).T  # ten times as fast as what singular ones need
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(values.clip(0))[:, None] * vectors.T  # rounding makes zero eigenvalues slightly negative


def distance(rest: float, product: np.ndarray) -> float:
    """rest - 2 ‖product‖_*, at least 0; `rest` is |μ1 - μ2|² + tr Σ1 + tr Σ2, `product` is F1 F2ᵀ.

    With Σ = FᵀF the trace of √(Σ1Σ2) is the sum of the singular values of F1F2ᵀ, the nuclear norm: no matrix root,
    no complex numbers, and no eigenvalues of a product, whose square roots lose half of the digits near zero. A
    large product goes by the roots of the eigenvalues of F1F2ᵀF2F1ᵀ, three times as fast, wherever a bound on
    what that loses stays below `TOLERANCE` of the distance; what it does lose is a thousandth of the bound.
    """
    if min(product.shape) >= LARGE:
        wide = product if product.shape[0] <= product.shape[1] else product.T
        values = np.linalg.eigvalsh(wide @ wide.T).clip(0)
        roots = np.sqrt(values)
        error = 16 * np.finfo(float).eps * values[-1]  # of each eigenvalue, so of its root error / max(root, √error)
        lost = (error / np.maximum(roots, np.sqrt(error))).sum() if error > 0 else 0.0
        total = rest - 2 * roots.sum()
        if 2 * lost <= TOLERANCE * total:
            return float(total)
    return float(max(rest - 2 * np.linalg.svd(product, compute_uv=False).sum(), 0.0))
