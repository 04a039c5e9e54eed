"""Hand keypoint confidence (HKC)."""

from __future__ import annotations

import numpy as np

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

FOUND = 0.3  # a hand is found when its mean keypoint confidence exceeds this; below it keypoints are not drawn either


def hand_confidence(confidence: np.ndarray, expected: np.ndarray) -> float | None:
    """Mean over frames and hands, where a hand is expected, of the mean confidence of its 21 keypoints.

    ``confidence`` `[T, 2, 21]` in the detector's scale, ``expected`` bool `[T, 2]`. None when no hand is
    expected anywhere. Hands that the detector misses count with the low confidence that they have. No formula
    is published for HKC; this is this project's definition.

    >>> round(hand_confidence(np.array([[[0.5] * 21, [0.1] * 21]]), np.array([[True, False]])), 12)
    0.5
    >>> hand_confidence(np.zeros((1, 2, 21)), np.zeros((1, 2), bool)) is None
    True
    """
    hands = np.asarray(confidence, dtype=np.float64).mean(-1)[np.asarray(expected, bool)]
    return float(hands.mean()) if hands.size else None


def hand_coverage(confidence: np.ndarray, expected: np.ndarray, found: float = FOUND) -> float | None:
    """Share in [0, 1] of the expected hands, over frames and sides, whose mean confidence exceeds ``found``.

    Shapes as in `hand_confidence`; None when no hand is expected.

    >>> hand_coverage(np.array([[[0.5] * 21, [0.1] * 21]]), np.array([[True, True]]))
    0.5
    """
    hands = np.asarray(confidence, dtype=np.float64).mean(-1)[np.asarray(expected, bool)]
    return float((hands > found).mean()) if hands.size else None


@register
class HKC(PerClipMetric):
    """Mean keypoint confidence of the hands that should be visible."""

    name = "hkc"
    unit = "detector confidence"
    higher_is_better = True
    feature = "hands"
    alone = True
    compares = False
    summary = "hand keypoint confidence where a hand is expected"
    recipe = "mean over expected hands and frames of the mean confidence of 21 keypoints"

    def measure(self, scored: Scored) -> float | Unscorable:
        score = hand_confidence(scored.features["confidence"], scored.features["expected"])
        return Unscorable("no hands") if score is None else score
