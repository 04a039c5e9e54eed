"""Hand keypoint variance (HKV)."""

from __future__ import annotations

import numpy as np

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

from .hkc import FOUND


def hand_variance(keypoints: np.ndarray, visible: np.ndarray, size: tuple[int, int]) -> float | None:
    """Variance over time of the hands' keypoint positions, in squared percent of the frame's longer side.

    ``keypoints`` `[T, 2, 21, 2]` x, y in pixels; ``visible`` bool `[T, 2]`: the hands that count; ``size``
    (height, width). For each hand: the variances of x and y over its visible frames, added, averaged over its
    keypoints; then the mean of both hands, each weighted by its frames. 4 means that hands stray by about 2 %
    of the frame. A hand visible in fewer than two frames is left out; None when that leaves none. No formula is
    published for HKV; this is this project's definition.

    >>> still = np.zeros((4, 2, 21, 2))
    >>> hand_variance(still, np.ones((4, 2), bool), (100, 100))
    0.0
    >>> moving = still + np.array([0.0, 4.0, 0.0, 4.0])[:, None, None, None] * np.array([1.0, 0.0])
    >>> hand_variance(moving, np.ones((4, 2), bool), (50, 100))
    4.0
    """
    percent = np.asarray(keypoints, dtype=np.float64) * (100.0 / max(size))
    visible = np.asarray(visible, bool)
    total, weight = 0.0, 0
    for hand in range(percent.shape[1]):
        track = percent[visible[:, hand], hand]
        if len(track) >= 2:
            total += len(track) * float(track.var(axis=0).sum(-1).mean())
            weight += len(track)
    return total / weight if weight else None


@register
class HKV(PerClipMetric):
    """How much the hands move. Papers read it as richness of motion, but jitter raises it too: no better side."""

    name = "hkv"
    unit = "%² of the longer side"
    higher_is_better = None
    bounds = (0, None)
    feature = "hands"
    alone = True
    compares = False
    summary = "variance of hand keypoint positions over time"
    recipe = f"variance of x plus y over the frames in which an expected hand is found (mean confidence > {FOUND})"

    def measure(self, scored: Scored) -> float | Unscorable:
        hands = scored.features
        expected = np.asarray(hands["expected"], bool)
        if not expected.any():
            return Unscorable("no hands")
        found = expected & (np.asarray(hands["confidence"], float).mean(-1) > FOUND)
        height, width = scored.clip.video.shape[1:3]
        score = hand_variance(hands["keypoints"], found, (height, width))
        return Unscorable("no hand found in two frames") if score is None else score
