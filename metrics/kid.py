"""Kernel distance between two sets of image features (KID)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from halign_bench.metric import Scored, SetMetric
from halign_bench.registry import register
from halign_bench.track import Unscorable

MOST = 10_000  # samples of a side: their kernel sums take a quarter of a minute on two cores, in 2048 dimensions
COLUMNS = 4096  # of the kernel matrix at once


def thinning(counts: Sequence[int]) -> int:
    """The least k for which every k-th sample of each clip, the first included, is at most `MOST` in all, or 1 a clip.

    >>> thinning([200, 200]), thinning([200] * 80), thinning([1] * 20_000)
    (1, 2, 1)
    """
    step = max(1, -(-sum(counts) // MOST))
    while step < max(counts) and sum(-(-count // step) for count in counts) > MOST:
        step += 1
    return min(step, max(counts))


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x·y / D + 1)³ for each pair: `[n, D]`, `[m, D]` -> `[n, m]`."""
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD with the polynomial kernel of degree 3 (Bińkowski et al. 2018, arXiv 1801.01401).

    ``x`` `[n, D]` and ``y`` `[m, D]`, n and m at least 2. All samples at once, no random subsets. Unbiased,
    so it may be slightly negative for two samples of the same distribution. Raises ValueError on fewer samples.

    >>> x = np.array([[0.0], [1.0]])
    >>> kernel_distance(x, x)  # 2·1 / 2 + 2·1 / 2 - 2·(1 + 1 + 1 + 8) / 4
    -3.5
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    n, m = len(x), len(y)
    if n < 2 or m < 2:
        raise ValueError(f"{n} and {m} samples given; at least two on each side are needed")
    xx, yy, xy = polynomial_kernel(x, x), polynomial_kernel(y, y), polynomial_kernel(x, y)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


@register
class KID(SetMetric):
    """Kernel distance of image features, every frame of every clip a sample."""

    name = "kid"
    unit = "squared MMD"
    higher_is_better = False
    feature = "image"
    summary = "kernel distance between generated and real frames, unbiased for few clips"
    recipe = "squared MMD over all frames, polynomial kernel (x·y/D + 1)³, unbiased, no subsets"

    def reset(self) -> None:
        super().reset()
        self._sums: tuple[int, dict[str, np.ndarray]] | None = None

    @property
    def protocol(self) -> str:
        """Says so where not every frame counts."""
        pairs = [value for value in self.values if not isinstance(value, Unscorable)]
        step = _step(pairs) if pairs else 1
        return super().protocol + (f"; 1 frame in {step} of each clip, for {MOST} in all" if step > 1 else "")

    def measure(self, scored: Scored) -> Any:
        return np.asarray(scored.features), np.asarray(scored.target_features)  # in single precision they take half

    def distance(self, features: np.ndarray, target_features: np.ndarray) -> float:
        return kernel_distance(features, target_features)

    def compute(self, indices: np.ndarray | None = None) -> float | None:
        """As `kernel_distance` on the resampled clips; a resample only reweights kernel sums between clips."""
        total = len(self.values)
        times = np.bincount(np.arange(total) if indices is None else np.asarray(indices, int), minlength=total)
        scored = np.array([not isinstance(value, Unscorable) for value in self.values], bool)
        w = times[scored].astype(float)
        if w.sum() < 2:
            return None
        s = self._kernel_sums()
        n, m = w @ s["n"], w @ s["m"]
        if n < 2 or m < 2:
            return None
        xx = (w @ s["xx"] @ w - w @ s["xx_diagonal"]) / (n * (n - 1))
        yy = (w @ s["yy"] @ w - w @ s["yy_diagonal"]) / (m * (m - 1))
        return float(xx + yy - 2 * (w @ s["xy"] @ w) / (n * m))

    def _kernel_sums(self) -> dict[str, np.ndarray]:
        """Sums of the kernel over each pair of scored clips `[clips, clips]`, computed once."""
        if self._sums is not None and self._sums[0] == len(self.values):
            return self._sums[1]
        pairs = [value for value in self.values if not isinstance(value, Unscorable)]
        step = _step(pairs)
        xs, ys = ([np.asarray(pair[side][::step], float) for pair in pairs] for side in (0, 1))

        def between(left: list[np.ndarray], right: list[np.ndarray]) -> np.ndarray:
            columns = np.concatenate(right)
            starts = np.cumsum([0] + [len(r) for r in right[:-1]])
            rows = []
            for one in left:
                parts = [columns[at : at + COLUMNS] for at in range(0, len(columns), COLUMNS)]
                sums = np.concatenate([polynomial_kernel(one, part).sum(0) for part in parts])
                rows.append(np.add.reduceat(sums, starts))
            return np.stack(rows)

        def diagonal(side: list[np.ndarray]) -> np.ndarray:
            return np.array([(((one**2).sum(1) / one.shape[1] + 1.0) ** 3).sum() for one in side])

        sums = {
            "n": np.array([len(x) for x in xs], float), "m": np.array([len(y) for y in ys], float),
            "xx": between(xs, xs), "yy": between(ys, ys), "xy": between(xs, ys),
            "xx_diagonal": diagonal(xs), "yy_diagonal": diagonal(ys),
        }  # fmt: skip
        self._sums = (len(self.values), sums)
        return sums


def _step(pairs: list[tuple[np.ndarray, np.ndarray]]) -> int:
    return max(thinning([len(pair[side]) for pair in pairs]) for side in (0, 1))
