"""Features for FID and KID: the Inception-v3 of 2015-12-05, with the three preprocessings in use.

The weights are those of pytorch-fid and torch-fidelity (pt_inception-2015-12-05-6726825d.pth, a state dict). What
differs between programs is how a frame gets to 299 x 299, and FIDs of different ones must not be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from halign_bench.errors import RequestError
from halign_bench.extractors._inception_net import DIMENSIONS, load
from halign_bench.extractors._pixels import batched, checked_frames, checked_images, full_precision
from halign_bench.track import Clip, Unscorable

SIDE = 299


def torch_fidelity(frames: Tensor) -> Tensor:
    """uint8 `[N, H, W, 3]` to float `[N, 3, 299, 299]` in [-1, 1): TensorFlow 1's bilinear, then (x - 128) / 128.

    TensorFlow 1 puts output pixel i at i · H / 299 without the half-pixel shift, and shrinks without antialiasing.
    Source: torch-fidelity, `interpolate_compat_tensorflow`, agreed with bit for bit.
    """
    top, bottom, down = _tensorflow_grid(frames.shape[1], frames.device)
    left, right, across = _tensorflow_grid(frames.shape[2], frames.device)

    def rows(chosen: Tensor) -> Tensor:
        picked = frames.index_select(1, chosen)
        near, far = (picked.index_select(2, columns).float() for columns in (left, right))
        return near + (far - near) * across.view(1, 1, -1, 1)

    upper = rows(top)
    resized = upper + (rows(bottom) - upper) * down.view(1, -1, 1, 1)
    return ((resized - 128) / 128).permute(0, 3, 1, 2)


def _tensorflow_grid(length: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    places = torch.arange(SIDE, dtype=torch.float32, device=device) * torch.tensor(length / SIDE, dtype=torch.float32)
    low = places.long()
    return low, (low + 1).clamp(max=length - 1), places - low.float()


def pytorch_fid(frames: Tensor) -> Tensor:
    """uint8 `[N, H, W, 3]` to float `[N, 3, 299, 299]` in [-1, 1]: bilinear without antialiasing, then 2x - 1."""
    pictures = frames.permute(0, 3, 1, 2).float() / 255
    return 2 * F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1


def clean(frames: Tensor) -> Tensor:
    """uint8 `[N, H, W, 3]` to float `[N, 3, 299, 299]` in [-1, 1): PIL's bicubic on floats, then (x - 128) / 128.

    Antialiased, unquantised, cut at 0 and 255. torch's antialiased bicubic has PIL's coefficients, in single
    precision: the two differ by less than a hundredth of a grey level. Source: clean-fid (Parmar et al. 2022,
    arXiv 2104.11222).
    """
    pictures = frames.permute(0, 3, 1, 2).float()
    resized = F.interpolate(pictures, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
    return (resized.clamp(0, 255) - 128) / 128


# name after the @ of a metric's key, what is done in words, how
PREPROCESSINGS: dict[str, tuple[str, str, Callable[[Tensor], Tensor]]] = {
    "torch-fidelity": ("inception", f"TensorFlow 1 bilinear to {SIDE}, (x - 128) / 128", torch_fidelity),
    "pytorch-fid": ("inception-pytorch-fid", f"bilinear to {SIDE} without antialiasing, 2x - 1", pytorch_fid),
    "clean": ("inception-clean", f"PIL bicubic on floats to {SIDE}, (x - 128) / 128", clean),
}


class Inception:
    """Feature "image": float32 `[frames, 2048]` of each clip, mean over places of the last block's activations.

    weights        pt_inception-2015-12-05-6726825d.pth
    preprocessing  one of `PREPROCESSINGS`
    every          every so many frames one is taken, the first included
    batch          frames at once

    Raises RequestError when the weights cannot be read or are not of that layout, or for an unknown option.
    """

    assets: tuple[str, ...] = ("inception-fid",)
    dimensions = DIMENSIONS

    def __init__(
        self, weights: Path, device: str = "cpu", preprocessing: str = "torch-fidelity", every: int = 1,
        batch: int = 16,
    ) -> None:  # fmt: skip
        if preprocessing not in PREPROCESSINGS:
            known = ", ".join(PREPROCESSINGS)
            raise RequestError(f"unknown preprocessing '{preprocessing}' for Inception (available: {known})")
        if every < 1 or batch < 1:
            raise RequestError(f"every {every} frames in batches of {batch}: both must be at least 1")
        self.name, words, self._prepare = PREPROCESSINGS[preprocessing]
        self.device, self.every, self.batch = device, every, batch
        net, sha256 = load(weights)
        self._net = net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        taken = "every frame" if every == 1 else f"one frame in {every}"
        self.protocol = (
            f"FID Inception-v3 of 2015-12-05, {DIMENSIONS} pool features; weights sha256 {sha256}; "
            f"{preprocessing}: {words}; {taken}; float32"
        )

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list[Any]:
        videos = [checked_frames(clip.video) for clip in clips]
        with full_precision():
            features = self._forward(self._batches(videos))
        parts = torch.split(features, [len(range(0, len(frames), self.every)) for frames in videos])
        return [part.numpy() if len(part) else Unscorable("no frames") for part in parts]

    def images(self, images: Tensor) -> Tensor:
        """uint8 `[N, 3, H, W]` to `[N, 2048]`. Raises ValueError for any other type or shape."""
        with full_precision():
            return self._forward([checked_images(images, 4).permute(0, 2, 3, 1)])

    def _batches(self, videos: Sequence[np.ndarray]) -> Iterator[Tensor]:
        step = self.every * self.batch
        for frames in videos:
            for start in range(0, len(frames), step):
                yield torch.from_numpy(np.array(frames[start : start + step : self.every]))

    def _forward(self, pieces: Any) -> Tensor:
        """`[n, 2048]` of pieces uint8 `[k, H, W, 3]`: batches are filled across clips, whatever their sizes."""
        prepared = (self._prepare(piece.to(self.device)) for piece in pieces)
        found = [
            self._net(batch.contiguous(memory_format=torch.channels_last)).float().cpu()
            for batch in batched(prepared, self.batch)
        ]
        return torch.cat(found) if found else torch.zeros(0, DIMENSIONS)
