"""Identity similarity (CSIM)."""

from __future__ import annotations

import numpy as np

from halign_bench.metric import PerClipMetric, Scored
from halign_bench.registry import register
from halign_bench.track import Unscorable


def cosine_similarity(embeddings: np.ndarray, reference: np.ndarray) -> float | None:
    """Mean cosine in [-1, 1] between embeddings `[D]` or `[T, D]` and one reference `[D]`.

    None when a vector is zero, and so has no direction.

    >>> cosine_similarity(np.array([[3.0, 0.0], [0.0, 2.0]]), np.array([1.0, 0.0]))
    0.5
    """
    rows = np.atleast_2d(np.asarray(embeddings, dtype=np.float64))
    reference = np.asarray(reference, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(reference)
    if not rows.size or not norms.all():
        return None
    return float(np.clip(rows @ reference / norms, -1, 1).mean())


@register
class CSIM(PerClipMetric):
    """Cosine between the identity embeddings of the generated clip and of the reference image."""

    name = "csim"
    unit = "cosine"
    higher_is_better = True
    bounds = (-1, 1)
    feature = "identity"
    needs = frozenset({"reference"})
    alone = True
    compares = False
    summary = "identity kept from the reference image"
    recipe = "mean cosine of the clip's identity embeddings with the reference image's"

    def measure(self, scored: Scored) -> float | Unscorable:
        score = cosine_similarity(scored.features["embedding"], scored.features["reference"])
        return Unscorable("identity embedding is zero") if score is None else score
