"""Motion magnitude relative to the target's."""

from __future__ import annotations

import numpy as np

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

from ._pieces import pieces

POOL = 4
STILL = 0.05  # grey levels; a target that changes less than this does not move


def motion_magnitude(video: np.ndarray) -> float | None:
    """Mean absolute change from frame to frame, in grey levels 0..255, of a uint8 video `[T, H, W, 3]`.

    Luma (Rec. 601) averaged over blocks of 4×4 pixels first, so that pixel noise counts for little. 0 is a
    frozen clip. None for a single frame.

    >>> still = np.full((3, 8, 8, 3), 90, np.uint8)
    >>> motion_magnitude(still)
    0.0
    >>> still[1] += 10
    >>> round(motion_magnitude(still), 6)
    10.0
    """
    frames, height, width, _ = video.shape
    if frames < 2:
        return None
    down, across = min(POOL, height), min(POOL, width)
    rows, columns = height // down, width // across
    blocks = []
    for part in pieces(video):
        cut = video[part][:, : rows * down, : columns * across]  # summed in whole numbers, which is fast and exact
        summed = cut.reshape(len(cut), rows, down, columns * across * 3).sum(2, dtype=np.uint16)
        blocks.append(summed.reshape(len(cut), rows, columns, across, 3).sum(3, dtype=np.uint16))
    luma = np.concatenate(blocks) @ np.array([0.299, 0.587, 0.114]) / (down * across)
    return float(np.abs(np.diff(luma, axis=0)).mean())


@register
class Motion(PerClipMetric):
    """Motion of the generated clip over that of its target: 0 frozen, 1 as the target, above 1 restless."""

    name = "motion"
    unit = "× target"
    higher_is_better = None
    bounds = (0, None)
    summary = "motion magnitude as a multiple of the target's (0 = frozen)"
    recipe = f"mean absolute luma change between frames, {POOL}×{POOL} blocks, over the target's"

    def measure(self, scored: Scored) -> float | Unscorable:
        ours, theirs = motion_magnitude(scored.clip.video), motion_magnitude(scored.target.video)
        if ours is None or theirs is None:
            return Unscorable("single frame")
        if theirs < STILL:
            return Unscorable("target does not move")
        return ours / theirs
