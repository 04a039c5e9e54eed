"""Peak signal-to-noise ratio (PSNR)."""

from __future__ import annotations

import numpy as np

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

from ._pieces import pieces

CEILING = 100.0  # dB of a frame equal to its target, whose PSNR is infinite; the usual convention for videos


def psnr(video: np.ndarray, target: np.ndarray) -> float:
    """Mean over frames of the PSNR in dB of uint8 videos `[T, H, W, C]`. A frame equal to its target counts 100 dB.

    Raises ValueError when shapes differ.

    >>> black = np.zeros((2, 4, 4, 3), np.uint8)
    >>> psnr(black, black), round(psnr(black, black + 255), 6)
    (100.0, 0.0)
    """
    if video.shape != target.shape:
        raise ValueError(f"videos of shapes {video.shape} and {target.shape} cannot be compared")
    errors = np.concatenate([
        ((video[part].astype(np.float64) - target[part]) ** 2).reshape(len(video[part]), -1).mean(1)
        for part in pieces(video)
    ])  # fmt: skip
    with np.errstate(divide="ignore"):
        return float(np.minimum(10 * np.log10(255.0**2 / errors), CEILING).mean())


def common_frames(scored: Scored) -> tuple[np.ndarray, np.ndarray] | Unscorable:
    """Both videos over the frames that both have, or why they cannot be compared pixel by pixel."""
    ours, theirs = scored.clip.video, scored.target.video
    if ours.shape[1:] != theirs.shape[1:]:
        sizes = " and ".join(f"{video.shape[2]}x{video.shape[1]}" for video in (ours, theirs))
        return Unscorable(f"frame sizes differ from the target's: {sizes}")
    count = min(len(ours), len(theirs))
    videos = tuple(video if len(video) == count else video[:count] for video in (ours, theirs))
    return (videos[0], videos[1]) if count else Unscorable("no frames")


@register
class PSNR(PerClipMetric):
    """Pixel error against the real clip, frame by frame."""

    name = "psnr"
    unit = "dB"
    higher_is_better = True
    bounds = (0, 100)
    summary = "pixel error against the real clip"
    recipe = "mean over frames, RGB, peak 255, equal frames count 100 dB"

    def measure(self, scored: Scored) -> float | Unscorable:
        videos = common_frames(scored)
        return videos if isinstance(videos, Unscorable) else psnr(*videos)
