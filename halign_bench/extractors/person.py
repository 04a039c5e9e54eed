"""The person of a frame, by YOLOX as DWPose and rtmlib run it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from halign_bench.errors import RequestError
from halign_bench.extractors.onnx_net import OnnxNet, needed

STRIDES = (8, 16, 32)
OVERLAP = 0.45  # of two boxes, above which the less certain one is dropped
NESTED_THRESHOLD = 0.3  # of files whose own graph has already dropped overlapping boxes
PAD = 114
SIDE = 640


def letterbox(frame: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """uint8 `[H, W, 3]` scaled into the upper left corner of a grey canvas of `size`, and by how much it was scaled."""
    cv2 = needed("cv2", "person detectors")
    height, width = frame.shape[:2]
    ratio = min(size[0] / height, size[1] / width)
    rows, columns = int(height * ratio), int(width * ratio)
    canvas = np.full((*size, 3), PAD, np.uint8)
    canvas[:rows, :columns] = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return canvas, ratio


@lru_cache(maxsize=8)
def _cells(size: tuple[int, int]) -> np.ndarray:
    """float32 `[A, 3]`: column, row and stride of each cell of an input of `size`, row by row, finest grid first."""
    grids = []
    for stride in STRIDES:
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride].reshape(2, -1)
        grids.append(np.stack([columns, rows, np.full_like(rows, stride)], 1))
    return np.concatenate(grids).astype(np.float32)


def person_boxes(
    raw: np.ndarray, size: tuple[int, int], threshold: float, ratio: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes `[n, 4]` (left, top, right, bottom) in pixels of the frame, and their scores `[n]`, best first.

    ``raw`` `[A, 5 + classes]`: for each cell of the three grids of an input of ``size`` (height, width) the box's
    centre and size, objectness, and classes, of which the first is "person" (Ge et al. 2021, arXiv 2107.08430).
    Only what scores above ``threshold`` is decoded, and what overlaps with something better by more than 45 % is
    left out. ``ratio`` is by how much the frame was scaled. Raises RequestError when the grids are other ones.
    """
    cells = _cells(size)
    if len(cells) != len(raw):
        raise RequestError(f"the person detector gives {len(raw)} cells for {size}, YOLOX has {len(cells)}")
    scores = raw[:, 4] * raw[:, 5]
    chosen = np.flatnonzero(scores > threshold)
    places, strides = cells[chosen, :2], cells[chosen, 2:]
    centres = (raw[chosen, :2] + places) * strides
    with np.errstate(over="ignore"):
        halves = np.exp(raw[chosen, 2:4]) * strides / 2
    boxes, scores = np.concatenate([centres - halves, centres + halves], 1) / ratio, scores[chosen]
    finite = np.isfinite(boxes).all(1)
    boxes, scores = boxes[finite], scores[finite]
    kept = suppressed(boxes, scores)
    return boxes[kept], scores[kept]


def suppressed(boxes: np.ndarray, scores: np.ndarray, overlap: float = OVERLAP) -> np.ndarray:
    """Positions that greedy suppression keeps, best first, of equal ones the first.

    Sides count their last pixel, as in the public programs.

    >>> boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 8], [20, 0, 29, 9]], float)
    >>> suppressed(boxes, np.array([0.5, 0.9, 0.4])).tolist()
    [1, 2]
    """
    left = np.argsort(-scores, kind="stable")
    x0, y0, x1, y1 = boxes[left].T
    x1, y1 = x1 + 1, y1 + 1
    areas = (x1 - x0) * (y1 - y0)
    kept, rest = [], np.arange(len(left))
    while rest.size:
        best, rest = rest[0], rest[1:]
        kept.append(left[best])
        width = np.minimum(x1[best], x1[rest]) - np.maximum(x0[best], x0[rest])
        height = np.minimum(y1[best], y1[rest]) - np.maximum(y0[best], y0[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        rest = rest[shared / (areas[best] + areas[rest] - shared) <= overlap]
    return np.array(kept, int)


class PersonDetector:
    """The largest person of each frame, or none.

    Files with raw outputs (`yolox_l.onnx`: `[1, 8400, 85]`) and with suppression in the graph (`[1, n, 5]`).
    """

    def __init__(self, path: Path, device: str, threshold: float) -> None:
        self.net, self.threshold = OnnxNet(path, device, "person detectors"), threshold
        self.size = self.net.size or (SIDE, SIDE)

    def __call__(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """Boxes `[N, 4]` (left, top, right, bottom) in pixels of the frames uint8 `[H, W, 3]`, NaN for nobody."""
        canvases, ratios = zip(*(letterbox(frame, self.size) for frame in frames), strict=True)
        outputs = self.net(np.stack(canvases).transpose(0, 3, 1, 2).astype(np.float32))
        found = np.full((len(frames), 4), np.nan)
        for row, (output, ratio) in enumerate(zip(outputs, ratios, strict=True)):
            boxes = self._people(output, ratio)
            if len(boxes):
                found[row] = boxes[(boxes[:, 2:] - boxes[:, :2]).prod(1).argmax()]
        return found

    def _people(self, output: Sequence[np.ndarray], ratio: float) -> np.ndarray:
        raw = output[0]
        if raw.shape[-1] > 5:
            return person_boxes(raw, self.size, self.threshold, ratio)[0]
        people = raw[:, 4] > NESTED_THRESHOLD
        if len(output) > 1:  # classes
            people &= output[1].reshape(-1) == 0
        return raw[people, :4] / ratio
