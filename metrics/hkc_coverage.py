"""Share of expected hands that the detector finds."""

from __future__ import annotations

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

from .hkc import FOUND, hand_coverage


@register
class HKCCoverage(PerClipMetric):
    """Expected hands found, over frames and sides: what HKC and HKV rest on."""

    name = "hkc_coverage"
    unit = "share"
    higher_is_better = True
    bounds = (0, 1)
    feature = "hands"
    alone = True
    compares = False
    summary = "share of expected hands that are found"
    recipe = f"share of expected hands and frames with mean keypoint confidence above {FOUND}"

    def measure(self, scored: Scored) -> float | Unscorable:
        score = hand_coverage(scored.features["confidence"], scored.features["expected"])
        return Unscorable("no hands") if score is None else score
