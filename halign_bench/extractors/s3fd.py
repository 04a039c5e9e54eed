"""S3FD, the face detector of the published sync pipeline (Zhang et al. 2017, arXiv 1708.05237).

Layout, decoding, suppression and thresholds are those of `sfd_face.pth` in joonson/syncnet_python. Frames go
through the net in batches, and only boxes that can come out are decoded, which changes no box.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from halign_bench.extractors.checkpoint import load_published
from halign_bench.extractors.opencv import opencv

SCALE = 0.25  # of the frame that the net sees
CONFIDENCE = 0.9  # a face has more
SMALLEST_FRAME = 112  # pixels; of smaller ones the net's poolings leave nothing
MEAN = (123.0, 117.0, 104.0)  # of R, G, B, taken off
ANCHORS = ((4, 16), (8, 32), (16, 64), (32, 128), (64, 256), (128, 512))  # stride and side, pixels
VARIANCES = (0.1, 0.2)  # of centre and of size
OVERLAP, CANDIDATES, KEPT = 0.3, 5000, 750  # suppression inside the published net
LAST_OVERLAP = 0.1  # and once more behind it

# Outputs of 3x3 convolutions by stage; all stages but the last end in a pooling.
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_TAPS = {15: "L2Norm3_3", 22: "L2Norm4_3", 29: "L2Norm5_3"}  # layers behind which a scale is detected
_HEADS = (256, 512, 512, 1024, 512, 256)


class L2Norm(nn.Module):
    """Scales each position's features to length 1, then each channel by its weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) * self.weight[:, None, None]


def _backbone() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for number, stage in enumerate(_STAGES):
        for out in stage:
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)]
            channels = out
        layers.append(nn.MaxPool2d(2, ceil_mode=number == 2))
    layers += [nn.Conv2d(channels, 1024, 3, padding=6, dilation=6), nn.ReLU(inplace=True)]
    return [*layers, nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True)]


class S3FD(nn.Module):
    """Module names are those of the published state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = nn.ModuleList(_backbone())
        self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3 = L2Norm(256), L2Norm(512), L2Norm(512)
        self.extras = nn.ModuleList([
            nn.Conv2d(1024, 256, 1), nn.Conv2d(256, 512, 3, stride=2, padding=1),
            nn.Conv2d(512, 128, 1), nn.Conv2d(128, 256, 3, stride=2, padding=1),
        ])  # fmt: skip
        self.loc = nn.ModuleList([nn.Conv2d(width, 4, 3, padding=1) for width in _HEADS])
        self.conf = nn.ModuleList([
            nn.Conv2d(width, 2 if number else 4, 3, padding=1) for number, width in enumerate(_HEADS)
        ])  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """`[B, 3, h, w]` RGB less `MEAN` -> (offsets `[B, A, 4]`, face probability `[B, A]`, sizes of the 6 maps)."""
        sources = []
        for number, layer in enumerate(self.vgg):
            x = layer(x)
            if number in _TAPS:
                sources.append(getattr(self, _TAPS[number])(x))  # a new tensor: what follows works in place
        sources.append(x)
        for number, layer in enumerate(self.extras):
            x = F.relu(layer(x), inplace=True)
            if number % 2:
                sources.append(x)
        offsets, scores = [], []
        for number, source in enumerate(sources):
            logits = self.conf[number](source)
            if number == 0:  # the finest map has three kinds of background, of which the most likely counts
                logits = torch.cat([logits[:, :3].amax(1, keepdim=True), logits[:, 3:]], 1)
            scores.append(logits.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 2)))
            offsets.append(self.loc[number](source).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4)))
        sizes = [(source.shape[2], source.shape[3]) for source in sources]
        return torch.cat(offsets, 1), torch.cat(scores, 1).softmax(-1)[..., 1], sizes


@lru_cache(maxsize=16)
def anchors(height: int, width: int, sizes: tuple[tuple[int, int], ...]) -> Tensor:
    """`[A, 4]`: centre x, y, width and height of each map's anchors, as shares of the picture's sides."""
    rows = []
    for (stride, side), (high, wide) in zip(ANCHORS, sizes, strict=True):
        y, x = np.mgrid[:high, :wide] + 0.5
        ones = np.ones_like(x)
        rows.append(np.stack([x * stride / width, y * stride / height, ones * side / width, ones * side / height], -1))
    return torch.from_numpy(np.concatenate([row.reshape(-1, 4) for row in rows]).astype(np.float32))


def decode(offsets: Tensor, prior: Tensor) -> Tensor:
    """Boxes `[n, 4]` (x0, y0, x1, y1) of offsets `[n, 4]` from anchors `[n, 4]`, in the anchors' unit."""
    centre = prior[:, :2] + offsets[:, :2] * VARIANCES[0] * prior[:, 2:]
    size = prior[:, 2:] * torch.exp(offsets[:, 2:] * VARIANCES[1])
    corner = centre - size / 2
    return torch.cat([corner, size + corner], 1)


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """Indices of the boxes `[n, 4]` that stay, best first: none overlaps a better one that stays by IoU > overlap.

    >>> suppress(np.array([[0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]]), np.array([0.8, 0.9, 0.7]), 0.5).tolist()
    [1, 2]
    """
    order = np.argsort(scores, kind="stable")[::-1]
    x0, y0, x1, y1 = boxes.T
    areas = (x1 - x0) * (y1 - y0)
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        wide = np.minimum(x1[best], x1[rest]) - np.maximum(x0[best], x0[rest])
        high = np.minimum(y1[best], y1[rest]) - np.maximum(y0[best], y0[rest])
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        order = rest[shared / (areas[best] + areas[rest] - shared) <= overlap]
    return np.array(kept, int)


class FaceDetector:
    """Faces of frames, as in the published pipeline: at a quarter of the size, confidence over 0.9.

    Raises RequestError for weights in another layout, and when OpenCV is not installed.

    weights   `sfd_face.pth`
    sha256    of the file
    protocol  what a protocol string says of it
    """

    assets: tuple[str, ...] = ("s3fd",)

    def __init__(self, weights: Path, device: str = "cpu", batch: int = 8) -> None:
        opencv()  # says now, not at the first clip, that it is missing
        self.device, self.batch = device, batch
        self.net = S3FD()
        self.sha256 = load_published(self.net, weights, "S3FD")
        self.net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.protocol = (
            f"S3FD, weights sha256 {self.sha256}, frames scaled by {SCALE}, confidence > {CONFIDENCE}, "
            f"suppression at IoU {OVERLAP} and {LAST_OVERLAP}"
        )

    def __call__(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """uint8 `[H, W, 3]` RGB frames of one size -> for each float64 `[n, 5]`: x0, y0, x1, y1 in pixels, confidence.

        Best first. Confidence lies in (0.9, 1]; boxes may reach beyond the frame. Raises ValueError for frames with a
        side under 112 pixels.
        """
        if len(frames) and min(frames[0].shape[:2]) < SMALLEST_FRAME:
            raise ValueError(f"frames are at least {SMALLEST_FRAME} pixels high and wide, not {frames[0].shape[:2]}")
        found: list[np.ndarray] = []
        for start in range(0, len(frames), self.batch):
            found += self._detect(frames[start : start + self.batch])
        return found

    @torch.inference_mode()
    def _detect(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        cv2 = opencv()
        height, width = frames[0].shape[:2]
        small = [cv2.resize(frame, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_LINEAR) for frame in frames]
        pictures = torch.from_numpy(np.stack(small)).to(self.device).float() - torch.tensor(MEAN, device=self.device)
        offsets, scores, sizes = self.net(pictures.permute(0, 3, 1, 2))
        prior = anchors(pictures.shape[1], pictures.shape[2], tuple(sizes)).to(self.device)
        scale = torch.tensor([width, height, width, height], dtype=torch.float32)
        found = []
        for offset, score in zip(offsets, scores, strict=True):
            # The published net suppresses among everything above 0.05, then drops what is not above 0.9. A box is
            # suppressed by better ones alone, so dropping first gives the same faces.
            likely = (score > CONFIDENCE).nonzero()[:, 0]
            boxes, confidence = decode(offset[likely], prior[likely]).cpu(), score[likely].cpu().numpy()
            best = np.argsort(confidence, kind="stable")[-CANDIDATES:]
            kept = best[suppress(boxes.numpy()[best], confidence[best], OVERLAP)][:KEPT]
            faces = np.concatenate([(boxes[kept] * scale).numpy(), confidence[kept, None]], 1).astype(np.float64)
            found.append(faces[suppress(faces[:, :4], faces[:, 4], LAST_OVERLAP)])
        return found
