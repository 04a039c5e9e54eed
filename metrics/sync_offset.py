"""How far the voice is from the mouth in time."""

from __future__ import annotations

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

from .sync_c import clip_sync


@register
class SyncOffset(PerClipMetric):
    """Absolute offset of the best shift. Without its sign, so that early and late clips do not cancel out."""

    name = "sync_offset"
    unit = "frames"
    higher_is_better = False
    bounds = (0, None)
    feature = "sync"
    needs = frozenset({"audio"})
    alone = True
    compares = False
    summary = "frames between mouth and voice, early or late alike"
    recipe = "absolute shift of least mean distance within ±vshift, audio zero-padded"

    def measure(self, scored: Scored) -> float | Unscorable:
        scores = clip_sync(scored.features)
        return scores if isinstance(scores, Unscorable) else float(abs(scores.offset))
