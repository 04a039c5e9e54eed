"""Structural similarity (SSIM)."""

from __future__ import annotations

import numpy as np

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

from .psnr import mismatch

WINDOW, SIGMA = 11, 1.5


def ssim(video: np.ndarray, target: np.ndarray) -> float:
    """Mean SSIM in [-1, 1] over frames, pixels and colours of uint8 videos `[T, H, W, C]` (Wang et al. 2004).

    Gaussian window 11×11, σ 1.5, K1 0.01, K2 0.03, frames reflected at their borders, as in torchmetrics 1.9
    (scikit-image leaves the borders out). Raises ValueError when shapes differ or a frame is smaller than the window.

    >>> noise = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    >>> ssim(noise, noise)
    1.0
    """
    if video.shape != target.shape or min(video.shape[1:3]) < WINDOW:
        raise ValueError(f"videos of shapes {video.shape} and {target.shape}: equal ones of 11 pixels or more needed")
    x, y = video.astype(np.float64), target.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    cov = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    return float((similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def _blur(x: np.ndarray) -> np.ndarray:
    """Gaussian window over axes 1 and 2 of `[T, H, W, C]`."""
    from scipy.ndimage import correlate1d

    taps = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    taps /= taps.sum()
    for axis in (1, 2):
        x = correlate1d(x, taps, axis=axis, mode="mirror")
    return x


@register
class SSIM(PerClipMetric):
    """Structure kept of the real clip, frame by frame."""

    name = "ssim"
    unit = "similarity"
    higher_is_better = True
    bounds = (-1, 1)
    summary = "structural similarity with the real clip"
    recipe = "mean over frames, RGB, Gaussian window 11×11 σ 1.5, K1 0.01, K2 0.03, reflected borders"

    def measure(self, scored: Scored) -> float | Unscorable:
        if min(scored.clip.video.shape[1:3]) < WINDOW:
            return Unscorable(f"frame smaller than SSIM's {WINDOW}-pixel window")
        return mismatch(scored) or ssim(scored.clip.video, scored.target.video)
