"""Keypoints of a person by nets with SimCC outputs (RTMPose and its kin; Li et al. 2022, arXiv 2107.03332)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from halign_bench.decoding import shown
from halign_bench.errors import RequestError
from halign_bench.extractors.onnx_net import OnnxNet, needed

Decoder = Literal["dwpose", "rtmlib"]
DECODERS: tuple[Decoder, ...] = get_args(Decoder)
KEYPOINTS = 133  # COCO-WholeBody
PADDING = 1.25  # of the person's box
BINS = 2.0  # a pixel of the net's input
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


def decode_simcc(along_x: np.ndarray, along_y: np.ndarray, decoder: Decoder) -> tuple[np.ndarray, np.ndarray]:
    """Positions `[..., 2]` in pixels of the net's input and confidences `[...]` of SimCC outputs `[..., bins]`.

    A position is the largest bin of each axis. The confidence is the lesser of both bins' values as in DWPose's own
    program ("dwpose"), or their mean as in rtmlib ("rtmlib"); neither is bound to [0, 1]. The public programs move
    keypoints whose confidence is not positive to (-0.5, -0.5); here they stay, and their confidence tells.

    >>> x, y = np.array([[0.1, 0.9, 0.2, 0.0]]), np.array([[0.5, 0.1]])
    >>> decode_simcc(x, y, "dwpose")[1].tolist(), decode_simcc(x, y, "rtmlib")[1].round(12).tolist()
    ([0.5], [0.7])
    >>> decode_simcc(x, y, "dwpose")[0].tolist()
    [[0.5, 0.0]]
    """
    if decoder not in DECODERS:
        raise RequestError(f"keypoints are decoded as one of {', '.join(DECODERS)}, not '{decoder}'")
    points = np.stack([along_x.argmax(-1), along_y.argmax(-1)], -1) / BINS
    most_x, most_y = along_x.max(-1), along_y.max(-1)
    return points, np.minimum(most_x, most_y) if decoder == "dwpose" else (most_x + most_y) * 0.5


def crop_of(box: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Centre `[2]` and width and height `[2]` of what the net sees of a box: enlarged by a quarter and to its shape.

    >>> [side.tolist() for side in crop_of(np.array([0.0, 0.0, 80.0, 80.0]), (384, 288))]
    [[40.0, 40.0], [100.0, 133.33333333333334]]
    """
    centre = (box[:2] + box[2:]) * 0.5
    width, height = (box[2:] - box[:2]) * PADDING
    shape = size[1] / size[0]
    return centre, np.array([width, width / shape] if width > height * shape else [height * shape, height])


class KeypointNet:
    """Keypoints of one person a frame, from files with outputs `[N, 133, 2 W]` and `[N, 133, 2 H]`."""

    def __init__(self, path: Path, device: str, decoder: Decoder) -> None:
        self.net, self.decoder = OnnxNet(path, device, "keypoint nets"), decoder
        if self.net.size is None or len(self.net.outputs) != 2:
            raise RequestError(f"{shown(path)} is not a SimCC keypoint net with an input of fixed size and two outputs")
        self.size = self.net.size
        count = self.net.outputs[0][1]
        if isinstance(count, int) and count != KEYPOINTS:
            raise RequestError(f"{shown(path)} finds {count} keypoints, not the {KEYPOINTS} of the whole body")

    def __call__(self, frames: Sequence[np.ndarray], boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints `[N, 133, 2]` (x, y in pixels of the frames) and confidences `[N, 133]` in boxes `[N, 4]`."""
        height, width = self.size
        crops = [crop_of(box, self.size) for box in boxes]
        pictures = np.stack([self._cut(frame, *crop) for frame, crop in zip(frames, crops, strict=True)])
        outputs = self.net(((pictures.astype(np.float32) - MEAN) / STD).transpose(0, 3, 1, 2))
        along_x, along_y = (np.stack(axis) for axis in zip(*outputs, strict=True))
        points, confidence = decode_simcc(along_x, along_y, self.decoder)
        centres, sides = (np.stack(part)[:, None] for part in zip(*crops, strict=True))
        return points / (width, height) * sides + centres - sides / 2, confidence

    def _cut(self, frame: np.ndarray, centre: np.ndarray, side: np.ndarray) -> np.ndarray:
        """uint8 `[H, W, 3]` of the net's size; black beyond the frame."""
        cv2 = needed("cv2", "keypoint nets")
        height, width = self.size
        # Three points, as in the public programs: their rounding decides which grey level a pixel gets.
        (x, y), half = centre, side[0] / 2
        ours = np.array([[x, y], [x, y - half], [x - half, y - half]], np.float32)
        theirs = np.array([[width / 2, height / 2], [width / 2, height / 2 - width / 2],
                           [0, height / 2 - width / 2]], np.float32)  # fmt: skip
        matrix = cv2.getAffineTransform(ours, theirs)
        return np.asarray(cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR))
