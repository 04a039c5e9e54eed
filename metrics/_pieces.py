"""Long videos in pieces: what metrics compute of pixels takes many times the pixels' own memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

VALUES = 2**20  # of a piece: what is computed of it stays in a processor's caches


def pieces(video: np.ndarray) -> Iterator[slice]:
    """Consecutive frames of `[T, …]`, as many at once as have at most `VALUES` values, and at least one.

    >>> list(pieces(np.zeros((3, 512, 1024))))
    [slice(0, 2, None), slice(2, 4, None)]
    """
    step = max(1, VALUES // max(1, math.prod(video.shape[1:])))
    return (slice(start, start + step) for start in range(0, len(video), step))
