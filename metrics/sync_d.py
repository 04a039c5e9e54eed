"""Distance between mouth and voice (Sync-D, LSE-D)."""

from __future__ import annotations

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

from .sync_c import clip_sync


@register
class SyncD(PerClipMetric):
    """Least mean distance over shifts."""

    name = "sync_d"
    unit = "embedding distance"
    higher_is_better = False
    bounds = (0, None)
    feature = "sync"
    needs = frozenset({"audio"})
    alone = True
    compares = False
    summary = "distance between mouth and voice at the best shift (LSE-D)"
    recipe = "least mean distance over shifts within ±vshift, audio zero-padded"

    def measure(self, scored: Scored) -> float | Unscorable:
        scores = clip_sync(scored.features)
        return scores if isinstance(scores, Unscorable) else scores.distance
