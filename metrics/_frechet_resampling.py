"""Fréchet distances of resampled clips from sums over clips, without going through the features again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ._gaussians import distance, factor

EXACT = 1024  # largest side of a matrix that is decomposed anew for each resample
KEEP_BYTES = 2**29  # of scatter matrices, one a clip


def resampling_of(samples: int, dimensions: int) -> str:
    """Which of the ways below serves that many samples on the larger side.

    >>> [resampling_of(*size) for size in ((100, 2048), (5000, 64), (5000, 2048))]
    ['samples', 'moments', 'linear']
    """
    if min(samples, dimensions) > EXACT:
        return "linear"
    return "samples" if samples <= dimensions else "moments"


class FrechetResampling:
    """The Fréchet distance as a function of how often each clip counts.

    xs, ys  features of each clip on the two sides, `[n, D]`, n may differ. Both are shifted by one vector, which
            changes no distance and keeps what is squared small.

    A resample is a weight for each clip. Means and traces are exact sums over clips. The nuclear norm of F1F2ᵀ is
      by samples  with at most D of them: F is the weighted, centred sample itself, so F1F2ᵀ is a block of the Gram
                  matrix X1X2ᵀ, of the samples that were drawn; no D appears any more
      by moments  otherwise: F factors the covariance, a weighted sum of the clips' scatter matrices
      linear      when either would be larger than `EXACT`: to first order in the weights, from one decomposition.
                  As the norm is concave, this misses some of the bias of a resample, not of its spread

    Source of the first two: algebra; of the third: the norm's gradient is UVᵀ, the infinitesimal jackknife.
    """

    def __init__(self, xs: list[np.ndarray], ys: list[np.ndarray]) -> None:
        self._x, self._y = np.concatenate(xs).astype(float), np.concatenate(ys).astype(float)
        shift = (self._x.mean(0) + self._y.mean(0)) / 2
        self._x, self._y = self._x - shift, self._y - shift
        self._sides = [_Side(self._x, [len(x) for x in xs]), _Side(self._y, [len(y) for y in ys])]
        samples, dimensions = max(len(self._x), len(self._y)), self._x.shape[1]
        self.how = resampling_of(samples, dimensions)
        if self.how == "linear":
            self._gradient = self._gradients()
        elif self.how == "samples":
            self._cross = self._x @ self._y.T
        elif 2 * len(xs) * dimensions**2 * 8 <= KEEP_BYTES:
            for side in self._sides:
                side.keep_scatter()

    def __call__(self, weights: np.ndarray) -> float | None:
        """The distance with clip k counted `weights[k]` times; None with fewer than two samples on a side."""
        x, y = self._sides
        n, m = weights @ x.counts, weights @ y.counts
        if n < 2 or m < 2:
            return None
        mean_x, mean_y = weights @ x.sums / n, weights @ y.sums / m
        traces = x.trace(weights, n, mean_x) + y.trace(weights, m, mean_y)
        rest = float(((mean_x - mean_y) ** 2).sum() + traces)
        scale = np.sqrt((n - 1) * (m - 1))
        if self.how == "linear":
            norm = weights @ self._gradient / scale
            return float(max(rest - 2 * norm, 0.0))
        if self.how == "moments":
            factors = [factor(x.covariance(weights, n, mean_x)), factor(y.covariance(weights, m, mean_y))]
            return distance(rest, factors[0] @ factors[1].T)
        a, b = weights[x.clip], weights[y.clip]
        rows, columns = np.flatnonzero(a), np.flatnonzero(b)
        a, b = a[rows], b[columns]
        cross = self._cross[np.ix_(rows, columns)]
        left, right = a @ cross / n, cross @ b / m  # products with the means
        centred = cross - left - right[:, None] + a @ right / n
        return distance(rest, np.sqrt(a)[:, None] * centred * np.sqrt(b) / scale)

    def _gradients(self) -> np.ndarray:
        """`[clips]`: what each clip's weight adds to the nuclear norm of the unscaled product at weight 1.

        With Xᶜ = Q F on each side and F1F2ᵀ = U S Vᵀ, the derivative by the weight of row i is
        ½ q1ᵢ U S Uᵀ q1ᵢᵀ, and alike with V on side 2. They sum to the norm itself.
        """
        centred = [side.x - side.x.mean(0) for side in self._sides]
        pairs = [_orthogonal(c) for c in centred]
        u, s, vt = np.linalg.svd(pairs[0][1] @ pairs[1][1].T, full_matrices=False)
        found = np.zeros(len(self._sides[0].counts))
        for side, (q, _), axes in zip(self._sides, pairs, (u, vt.T), strict=True):
            np.add.at(found, side.clip, 0.5 * (((q @ axes) ** 2) * s).sum(1))
        return found


class _Side:
    """Sums over the clips of one side."""

    def __init__(self, x: np.ndarray, counts: list[int]) -> None:
        self.x, self.counts = x, np.array(counts, float)
        self.clip = np.repeat(np.arange(len(counts)), counts)
        ends = np.cumsum([0, *counts])
        self._parts = [slice(a, b) for a, b in pairwise(ends)]
        self.sums = np.stack([x[part].sum(0) for part in self._parts])
        self.squares = np.array([(x[part] ** 2).sum() for part in self._parts])
        self._scatter: np.ndarray | None = None

    def keep_scatter(self) -> None:
        self._scatter = np.stack([(self.x[part].T @ self.x[part]).ravel() for part in self._parts])

    def trace(self, weights: np.ndarray, n: float, mean: np.ndarray) -> float:
        return float(max((weights @ self.squares - n * (mean**2).sum()) / (n - 1), 0.0))

    def covariance(self, weights: np.ndarray, n: float, mean: np.ndarray) -> np.ndarray:
        if self._scatter is not None:
            second = (weights @ self._scatter).reshape(len(mean), len(mean))
        else:
            second = (self.x * weights[self.clip][:, None]).T @ self.x
        return (second - n * np.outer(mean, mean)) / (n - 1)


def _orthogonal(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Q, F) with Q F = the sample and orthonormal columns in Q, directions without variance left out."""
    values, vectors = np.linalg.eigh(centred.T @ centred)
    kept = values > values[-1] * centred.shape[1] * np.finfo(float).eps
    roots = np.sqrt(values[kept])
    return centred @ (vectors[:, kept] / roots), roots[:, None] * vectors[:, kept].T
