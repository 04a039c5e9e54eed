"""Confidence that mouth and voice belong together (Sync-C, LSE-C)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable

EPS = 1e-6  # torch.nn.functional.pairwise_distance adds it to each difference, and so do the published scores


class SyncScores(NamedTuple):
    confidence: float
    distance: float
    offset: int


def sync_scores(video_embeddings: np.ndarray, audio_embeddings: np.ndarray, vshift: int = 15) -> SyncScores:
    """Confidence, distance and offset of one clip, as in joonson/syncnet_python (Chung & Zisserman 2016).

    ``video_embeddings`` and ``audio_embeddings`` `[W, D]`: embeddings of the same W windows, not normalised.
    Each video window is compared with the audio windows up to ``vshift`` frames away (zeros beyond the ends);
    distances are averaged over windows, which gives 2·vshift + 1 values. distance = their least (Sync-D),
    confidence = their median less the least (Sync-C), offset = vshift - argmin, in frames. Raises ValueError
    when shapes differ or there is no window.

    >>> clip = np.eye(8)
    >>> confidence, distance, offset = sync_scores(clip, np.roll(clip, 2, axis=0), vshift=3)
    >>> offset
    -2
    """
    video = np.asarray(video_embeddings, dtype=np.float64)
    audio = np.asarray(audio_embeddings, dtype=np.float64)
    if video.ndim != 2 or video.shape != audio.shape or not len(video):
        raise ValueError(f"embeddings of shapes {video.shape} and {audio.shape} given; both must be [W, D], W > 0")
    padded = np.pad(audio, ((vshift, vshift), (0, 0)))
    windows = len(video)
    means = np.array([
        np.sqrt(((video - padded[shift : shift + windows] + EPS) ** 2).sum(1)).mean() for shift in range(2 * vshift + 1)
    ])  # fmt: skip
    best = int(means.argmin())
    median = np.sort(means)[(len(means) - 1) // 2]  # torch.median: the lower middle value
    return SyncScores(float(median - means[best]), float(means[best]), vshift - best)


def clip_sync(features: Mapping[str, Any]) -> SyncScores | Unscorable:
    """`sync_scores` of an extractor's "sync" features: video `[W, D]`, audio `[W, D]`, vshift."""
    video, audio = np.asarray(features["video"], float), np.asarray(features["audio"], float)
    if len(video) == 0 or len(audio) == 0:
        return Unscorable("shorter than one sync window")
    if not (np.isfinite(video).all() and np.isfinite(audio).all()):
        return Unscorable("sync embeddings are not finite")
    if any(len(side) > 1 and (side == side[0]).all() for side in (video, audio)):
        return Unscorable("sync embeddings do not change over the clip")  # what is left is how the ends are filled up
    windows = min(len(video), len(audio))  # the reference code cuts both to the shorter one
    return sync_scores(video[:windows], audio[:windows], int(features["vshift"]))


@register
class SyncC(PerClipMetric):
    """Median distance over shifts less the least one: how much better the best shift is than any."""

    name = "sync_c"
    unit = "embedding distance"
    higher_is_better = True
    bounds = (0, None)
    feature = "sync"
    needs = frozenset({"audio"})
    alone = True
    compares = False
    summary = "confidence that mouth and voice belong together (LSE-C)"
    recipe = "median less least mean distance over shifts within ±vshift, audio zero-padded"

    def measure(self, scored: Scored) -> float | Unscorable:
        scores = clip_sync(scored.features)
        return scores if isinstance(scores, Unscorable) else scores.confidence
