"""Peak signal-to-noise ratio of the hands (PSNR-Hand)."""

from __future__ import annotations

import numpy as np

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

from ._hand_boxes import RECIPE, target_boxes
from .psnr import psnr


@register
class PSNRHand(PerClipMetric):
    """Pixel error against the real clip where that has hands.

    IPA (arXiv 2605.07545) reports it; no code for it is published.
    """

    name = "psnr_hand"
    unit = "dB"
    higher_is_better = True
    bounds = (0, 100)
    feature = "hands"
    summary = "pixel error against the real clip in its hand boxes"
    recipe = f"RGB, peak 255, equal boxes count 100 dB; {RECIPE}"

    def measure(self, scored: Scored) -> float | Unscorable:
        hands = target_boxes(scored)
        if isinstance(hands, Unscorable):
            return hands
        ours, theirs = scored.clip.video, scored.target.video
        values = [
            psnr(ours[[frame], top:bottom, left:right], theirs[[frame], top:bottom, left:right])
            for frame, (left, top, right, bottom) in hands
        ]
        return float(np.mean(values))
