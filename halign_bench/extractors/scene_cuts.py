"""Where one shot ends and the next begins, by the rule of PySceneDetect's ContentDetector (0.6 and later).

syncnet-python uses that version. joonson/syncnet_python names 0.5.1, which had the threshold 30, scaled by dropping
pixels and did not merge quick cuts: clips that flicker, or change by 27 to 30, may be cut otherwise there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from halign_bench.extractors.opencv import opencv

THRESHOLD = 27.0  # mean change of hue, saturation and value (of 255) between neighbouring frames
SHORTEST = 15  # frames of a shot; quicker cuts are merged
LONGER_SIDE = 256  # pixels that frames are scaled down to


def content_changes(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Change of each uint8 `[H, W, 3]` RGB frame from the one before it, `[T]` in [0, 255]; the first is 0.

    Mean over the three channels of HSV (hue in halves of a degree) of the mean absolute difference.
    """
    cv2 = opencv()
    changes: list[float] = []
    last: np.ndarray | None = None
    for frame in frames:
        height, width = frame.shape[:2]
        factor = max(height, width) / LONGER_SIDE
        if factor > 1:
            frame = cv2.resize(frame, (max(1, round(width / factor)), max(1, round(height / factor))))
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        changes.append(0.0 if last is None else float(cv2.absdiff(hsv, last).mean()))
        last = hsv
    return np.array(changes)


def merged_cuts(above: Sequence[bool] | np.ndarray, shortest: int = SHORTEST) -> list[int]:
    """Frames that begin a shot, given for each frame whether it differs enough from the one before it.

    A change at least `shortest` frames after the last one is a cut. Changes that follow more quickly are one
    transition, whose last change is the cut once `shortest` quiet frames have passed and if it lasted `shortest`
    frames; before the first cut such flashes are passed over.

    >>> merged_cuts([False] * 20 + [True] + [False] * 5 + [True] + [False] * 20)
    [20]
    """
    cuts: list[int] = []
    last_change = 0
    transition: int | None = None  # where the transition that is being merged began
    for frame, changed in enumerate(above):
        settled = frame - last_change >= shortest
        last_change = frame if changed else last_change
        if transition is not None:
            if settled and not changed and last_change - transition >= shortest:
                cuts.append(last_change)
                transition = None
        elif changed and settled:
            cuts.append(frame)
        elif changed and cuts:
            transition = frame
    return cuts


def scenes(changes: np.ndarray, threshold: float = THRESHOLD, shortest: int = SHORTEST) -> list[tuple[int, int]]:
    """`[first, last)` frames of each shot, together all frames, from `content_changes`.

    >>> scenes(np.array([0.0] * 20 + [90.0] + [0.0] * 9))
    [(0, 20), (20, 30)]
    """
    edges = [0, *merged_cuts(changes >= threshold, shortest), len(changes)]
    return list(pairwise(edges))
