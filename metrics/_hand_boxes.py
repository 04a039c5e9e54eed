"""Where the hands of the real clip are, for metrics of the pixels there."""

from __future__ import annotations

import numpy as np

from halign_bench.metric import Scored
from halign_bench.track import Unscorable

from .hkc import FOUND
from .psnr import common_frames

MARGIN = 0.25  # of the longer side of the keypoints' box: they are joints, and fingers reach beyond them
RECIPE = (
    "boxes of the target's hand keypoints (its skeleton where it has one, else where a hand is expected and found "
    f"with mean confidence > {FOUND}), {MARGIN} of the longer side added on each, cut to the frame; "
    "mean over frames and hands"
)


def hand_boxes(keypoints: np.ndarray, visible: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes int `[T, 2, 4]` (left, top, right, bottom; half open) around hands, and bool `[T, 2]` which of them count.

    ``keypoints`` `[T, 2, 21, 2]` x, y in pixels, ``visible`` bool `[T, 2]`, ``size`` (height, width) of the frame.
    A hand counts when it is visible and some of its box lies inside the frame. Nothing is published on the boxes of
    SSIM-Hand and PSNR-Hand; these are this project's.

    >>> points = np.zeros((1, 2, 21, 2)) + [8.0, 4.0]
    >>> points[0, :, 1] += [8.0, 4.0]
    >>> boxes, counts = hand_boxes(points, np.array([[True, False]]), (10, 30))
    >>> boxes[0, 0].tolist(), counts.tolist()
    ([6, 2, 19, 10], [[True, False]])
    """
    points = np.asarray(keypoints, dtype=np.float64)
    usable = np.asarray(visible, bool) & np.isfinite(points).all((-1, -2))
    points = np.where(usable[..., None, None], points, 0.0)
    low, high = points.min(-2), points.max(-2)
    margin = MARGIN * (high - low).max(-1, keepdims=True)
    limit = np.array([size[1], size[0]], float)
    low = np.clip(np.floor(low - margin), 0, limit).astype(int)
    high = np.clip(np.ceil(high + margin) + 1, 0, limit).astype(int)
    return np.concatenate([low, high], -1), usable & (high > low).all(-1)


def target_boxes(scored: Scored) -> list[tuple[int, np.ndarray]] | Unscorable:
    """(frame, box) of every hand of the target that counts, or why clip and target cannot be compared there."""
    videos = common_frames(scored)
    if isinstance(videos, Unscorable):
        return videos
    target, frames = scored.target, len(videos[0])
    if target.skeleton is not None and target.layout is not None:
        hands = np.stack([target.skeleton[:, rows] for rows in target.layout.hands], 1)
        keypoints, visible = hands[..., :2], (hands[..., 2] > 0.5).mean(-1) >= 0.5
    else:
        found = scored.target_features
        keypoints = found["keypoints"]
        visible = np.asarray(found["expected"], bool) & (np.asarray(found["confidence"], float).mean(-1) > FOUND)
    if len(keypoints) < frames:
        return Unscorable(f"skeleton has {len(keypoints)} frames, the clip {frames}")
    height, width = target.video.shape[1:3]
    boxes, counts = hand_boxes(keypoints[:frames], visible[:frames], (height, width))
    chosen = [(int(frame), boxes[frame, hand]) for frame, hand in np.argwhere(counts)]
    return chosen or Unscorable("no hands")
