"""From faces in frames to faces over time: linked, interpolated, smoothed and cut out.

The rules and constants are those of `run_pipeline.py` in joonson/syncnet_python. Faces are float `[n, 5]`
(x0, y0, x1, y1 in pixels, confidence), best first, as `FaceDetector` gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from halign_bench.extractors.opencv import opencv

OVERLAP = 0.5  # a face goes on where IoU is more
LONGEST_GAP = 25  # frames from one detection of a track to the next
SMALLEST = 100  # pixels: a track's mean width or mean height is more
MARGIN = 0.4  # of a box's half side: twice below it, once at either side
MEDIAN = 13  # frames of the filter that smooths boxes
PADDING = 110  # grey beyond the frame
SIDE = 224  # pixels of what is cut out


@dataclass(frozen=True)
class FaceTrack:
    """boxes: float64 `[n, 4]` (x0, y0, x1, y1 in pixels) of the n frames from `start`.

    detected   for how many of them a detection stands (see `link_faces`)
    """

    start: int
    boxes: np.ndarray
    detected: int

    @property
    def stop(self) -> int:
        return self.start + len(self.boxes)

    @property
    def side(self) -> float:
        """The greater of mean width and mean height, pixels."""
        return float((self.boxes[:, 2:] - self.boxes[:, :2]).mean(0).max())


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of one box `[4]` with each of `[n, 4]`.

    >>> overlap(np.array([0, 0, 2, 2]), np.array([[0, 0, 2, 1], [4, 4, 5, 5]])).tolist()
    [0.5, 0.0]
    """
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    return shared / (np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - shared)


def link_faces(faces: Sequence[np.ndarray], first: int = 0, every: int = 1) -> list[FaceTrack]:
    """Tracks of one shot, in the order in which they begin; `faces` of its frames, of which frame 0 is `first`.

    A track takes the earliest (there: best) face that is left, and from each later frame the best one left that
    overlaps its last box by IoU > 0.5, until 25 frames have none. Boxes between are interpolated. Where only every
    n-th frame was looked at, `every` = n, a detection stands for up to n frames.

    The published tracker does the same on boxes of which no two overlap much, as a detector leaves them. The
    package syncnet-python ends a track at the first face that does not match.
    """
    left = [list(range(len(found))) for found in faces]
    tracks = []
    for start in range(len(faces)):
        while left[start]:
            taken = [(start, left[start].pop(0))]
            for frame in range(start + 1, len(faces)):
                at, number = taken[-1]
                if frame - at > LONGEST_GAP:
                    break
                if not left[frame]:
                    continue
                shared = overlap(faces[at][number, :4], faces[frame][left[frame], :4])
                if (shared > OVERLAP).any():
                    taken.append((frame, left[frame].pop(int((shared > OVERLAP).argmax()))))
            at_frames = np.array([frame for frame, _ in taken])
            boxes = np.stack([faces[frame][number, :4] for frame, number in taken])
            between = np.arange(at_frames[0], at_frames[-1] + 1)
            smooth = np.stack([np.interp(between, at_frames, column) for column in boxes.T], 1)
            detected = 1 + int(np.minimum(np.diff(at_frames), every).sum())
            tracks.append(FaceTrack(first + start, smooth, detected))
    return tracks


def crop_windows(track: FaceTrack) -> np.ndarray:
    """int `[n, 4]`: x0, y0, x1, y1 in pixels of what is cut out of each frame; may reach beyond it.

    Half sides and centres are smoothed by a median of 13 frames (zeros beyond the ends, which makes the first and
    last six boxes small, as in the published code); then one half side above the centre, 1.8 below it, 1.4 left
    and right.
    """
    from scipy.signal import medfilt

    low, high = track.boxes[:, :2], track.boxes[:, 2:]
    half = medfilt((high - low).max(1) / 2, MEDIAN)
    x, y = (medfilt(centre, MEDIAN) for centre in ((low + high) / 2).T)
    # Cut to whole pixels in the padded frame, so towards zero there, and moved back.
    pad = (half * (1 + 2 * MARGIN)).astype(int)
    side, below = half * (1 + MARGIN), half * (1 + 2 * MARGIN)
    edges = np.stack([x + pad - side, y + pad - half, x + pad + side, y + pad + below], 1).astype(int)
    return edges - pad[:, None]


def crop_faces(frames: Iterable[np.ndarray], track: FaceTrack) -> np.ndarray:
    """uint8 `[n, 224, 224, 3]`: the track's face in each of its frames; `frames` are those alone, uint8 `[H, W, 3]`.

    Beyond the frame it is grey (110).
    """
    cv2 = opencv()
    windows = crop_windows(track)
    out = np.empty((len(windows), SIDE, SIDE, 3), np.uint8)
    for number, (frame, (x0, y0, x1, y1)) in enumerate(zip(frames, windows, strict=True)):
        inside = frame[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        if inside.shape[:2] != (y1 - y0, x1 - x0):
            whole = np.full((max(y1 - y0, 1), max(x1 - x0, 1), 3), PADDING, np.uint8)
            top, left = max(-y0, 0), max(-x0, 0)
            whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
            inside = whole
        out[number] = cv2.resize(inside, (SIDE, SIDE))
    return out
