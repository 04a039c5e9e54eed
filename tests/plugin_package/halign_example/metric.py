"""Metrics of a third party: one that keeps the contract, one that scores what it cannot score."""

from __future__ import annotations

import numpy as np

from halign_bench.metric import Metric, PerClipMetric, Scored
from halign_bench.registry import register


@register
class ExampleBrightness(PerClipMetric):
    """Difference of mean brightness between clip and target."""

    name = "example_brightness"
    unit = "grey levels"
    higher_is_better = False
    summary = "difference of mean brightness"
    recipe = "absolute difference of mean grey levels"

    def measure(self, scored: Scored) -> float:
        return float(abs(scored.clip.video.mean() - scored.target.video.mean()))


class ExampleZero(Metric):
    """Gives 0.0 where there is nothing to score: what `conformance` must notice."""

    name = "example_zero"
    unit = "none"
    higher_is_better = True
    summary = "always zero"
    recipe = "zero"

    def measure(self, scored: Scored) -> float:
        return 0.0

    def compute(self, indices: np.ndarray | None = None) -> float | None:
        return 0.0
