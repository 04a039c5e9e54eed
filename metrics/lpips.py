"""Learned perceptual image patch similarity (LPIPS)."""

from __future__ import annotations

import numpy as np

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable


@register
class LPIPS(PerClipMetric):
    """Distance of deep features from the real clip, frame by frame (Zhang et al. 2018, arXiv 1801.03924)."""

    name = "lpips"
    unit = "distance"
    higher_is_better = False
    bounds = (0, None)
    feature = "perceptual"
    compares = False
    summary = "distance of deep features from the real clip"
    recipe = "mean over frames of the distance from the target's frame of the same number"

    def measure(self, scored: Scored) -> float | Unscorable:
        distances = np.asarray(scored.features["distance"], float)
        return float(distances.mean()) if len(distances) else Unscorable("no frames")
