"""Fréchet distance between two sets of video features (FVD)."""

from __future__ import annotations

from typing import Any

import numpy as np

from halign_bench.metric import Scored
from halign_bench.registry import register

from .fid import FrechetMetric


@register
class FVD(FrechetMetric):
    """Fréchet distance of video features, one sample a clip (Unterthiner et al. 2018, arXiv 1812.01717)."""

    name = "fvd"
    feature = "video"
    summary = "Fréchet distance between generated and real clips"
    recipe = "Fréchet distance over clips, unbiased covariances, exact trace by singular values"

    def measure(self, scored: Scored) -> Any:
        return np.atleast_2d(scored.features), np.atleast_2d(scored.target_features)
