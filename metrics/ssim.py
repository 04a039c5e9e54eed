"""Structural similarity (SSIM)."""

from __future__ import annotations

from functools import cache

import numpy as np

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

from ._pieces import pieces
from .psnr import common_frames

WINDOW, SIGMA = 11, 1.5
TILE = 64  # rows that are blurred by one product


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
    frames = [similarity_map(video[part], target[part]).mean((1, 2, 3), dtype=float) for part in pieces(video)]
    return float(np.concatenate(frames).mean())


def similarity_map(video: np.ndarray, target: np.ndarray) -> np.ndarray:
    """SSIM `[T, H, W, C]` in [-1, 1] of each pixel and colour, in single precision; arguments as of `ssim`."""
    # Variances do not change with the 128 that are taken off, and squares of small numbers keep more digits.
    x, y = (np.subtract(v.transpose(0, 3, 1, 2), 128, dtype=np.float32) for v in (video, target))
    mean_x, mean_y, square_x, square_y, product = (_blur(v) for v in (x, y, x * x, y * y, x * y))
    var_x, var_y, cov = square_x - mean_x**2, square_y - mean_y**2, product - mean_x * mean_y
    mean_x += 128
    mean_y += 128
    c1, c2 = np.float32((0.01 * 255) ** 2), np.float32((0.03 * 255) ** 2)
    similarity = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return np.asarray(similarity.transpose(0, 3, 2, 1))


def _blur(x: np.ndarray) -> np.ndarray:
    """`[T, C, H, W]` to `[T, C, W, H]`: the Gaussian window over both axes, borders reflected."""
    rows = _blurred_down(x.reshape(-1, *x.shape[2:]))
    return _blurred_down(np.ascontiguousarray(rows.transpose(0, 2, 1))).reshape(*x.shape[:2], x.shape[3], x.shape[2])


def _blurred_down(x: np.ndarray) -> np.ndarray:
    """The window over the middle axis, as products of strips of `TILE` rows with a band matrix, which are fast."""
    reach, height = WINDOW // 2, x.shape[1]
    tiles = -(-height // TILE)
    padded = np.pad(x, ((0, 0), (reach, reach), (0, 0)), mode="reflect")
    padded = np.pad(padded, ((0, 0), (0, tiles * TILE - height), (0, 0)))
    image, row, pixel = padded.strides
    shape = len(x), tiles, TILE + 2 * reach, x.shape[2]
    strips = np.lib.stride_tricks.as_strided(padded, shape, (image, TILE * row, row, pixel), writeable=False)
    return (_band() @ strips).reshape(len(x), tiles * TILE, x.shape[2])[:, :height]


@cache
def _band() -> np.ndarray:
    """`[TILE, TILE + WINDOW - 1]`: row i holds the window from column i on."""
    taps = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    band = np.zeros((TILE, TILE + WINDOW - 1), np.float32)
    for row in range(TILE):
        band[row, row : row + WINDOW] = taps / taps.sum()
    return band


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
        videos = common_frames(scored)
        return videos if isinstance(videos, Unscorable) else ssim(*videos)
