"""Structural similarity of the hands (SSIM-Hand)."""

from __future__ import annotations

import numpy as np

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

from ._hand_boxes import RECIPE, target_boxes
from .ssim import WINDOW, similarity_map


def box_ssim(frame: np.ndarray, target: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """Mean SSIM in [-1, 1] over a box (left, top, right, bottom) of uint8 frames `[H, W, C]`.

    That of the whole frame's SSIM map there: windows reach beyond the box, and boxes may be smaller than a window.

    >>> noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    >>> box_ssim(noise, noise, (4, 5, 9, 8))
    1.0
    """
    left, top, right, bottom = box
    reach = WINDOW // 2
    x0, y0 = max(left - reach, 0), max(top - reach, 0)
    around = np.s_[None, y0 : bottom + reach, x0 : right + reach]
    similarity = similarity_map(frame[around], target[around])
    return float(similarity[0, top - y0 : bottom - y0, left - x0 : right - x0].mean())


@register
class SSIMHand(PerClipMetric):
    """Structure kept of the real clip's hands.

    IPA (arXiv 2605.07545) reports it; no code for it is published.
    """

    name = "ssim_hand"
    unit = "similarity"
    higher_is_better = True
    bounds = (-1, 1)
    feature = "hands"
    summary = "structural similarity with the real clip in its hand boxes"
    recipe = f"SSIM map as of ssim, RGB, mean over the box; {RECIPE}"

    def measure(self, scored: Scored) -> float | Unscorable:
        if min(scored.target.video.shape[1:3]) < WINDOW:
            return Unscorable(f"frame smaller than SSIM's {WINDOW}-pixel window")
        hands = target_boxes(scored)
        if isinstance(hands, Unscorable):
            return hands
        ours, theirs = scored.clip.video, scored.target.video
        return float(np.mean([box_ssim(ours[frame], theirs[frame], tuple(box.tolist())) for frame, box in hands]))
