"""Faces of a shot without looking at every frame: detection is most of the work of a sync score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from halign_bench.extractors.face_tracks import overlap

STILL = 0.8  # IoU of a face with itself some frames later, above which the frames between are interpolated

AT_ONCE = 16  # frames

Detector = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
NOTHING = np.zeros((0, 5))


def detect_sparsely(frames: Sequence[np.ndarray], detect: Detector, every: int) -> tuple[list[np.ndarray], int]:
    """(faces of each frame of one shot, how many frames were looked at).

    Looks at every `every`-th frame and the last one. Between two of them that show the same faces in nearly the
    same places (each IoU > 0.8) the list is empty, for the tracker to interpolate; between others it looks at
    every frame. With `every` = 1 at all.
    """
    marks = sorted({*range(0, len(frames), every), len(frames) - 1}) if len(frames) else []
    found = _detected(frames, marks, detect)
    doubtful = [
        frame
        for before, after in pairwise(marks)
        if not same_faces(found[before], found[after])
        for frame in range(before + 1, after)
    ]
    found |= _detected(frames, doubtful, detect)
    return [found.get(frame, NOTHING) for frame in range(len(frames))], len(found)


def _detected(frames: Sequence[np.ndarray], numbers: list[int], detect: Detector) -> dict[int, np.ndarray]:
    """Faces by frame number; a few frames at a time, since frames may be decoded as they are asked for."""
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(numbers), AT_ONCE):
        some = numbers[start : start + AT_ONCE]
        found |= zip(some, detect([frames[number] for number in some]), strict=True)
    return found


def same_faces(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether each face `[n, 5]` of either has one in the other that it overlaps by IoU > 0.8.

    >>> same_faces(np.array([[0, 0, 10, 10, 0.99]]), np.array([[0, 0, 10, 9, 0.95]]))
    True
    >>> same_faces(np.array([[0, 0, 10, 10, 0.99]]), np.zeros((0, 5)))
    False
    """
    if len(before) != len(after):
        return False
    shared = np.array([overlap(box, after[:, :4]) for box in before[:, :4]]).reshape(len(before), len(after)) > STILL
    return bool(shared.any(0).all() and shared.any(1).all())
