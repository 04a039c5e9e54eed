"""Features for FVD: 400 logits of I3D, in StyleGAN-V's TorchScript file and in VideoGPT's state dict.

The two nets have different weights, so that their distances must not be compared. What programs of this field do:
StyleGAN-V takes 16 consecutive frames of each video (the first ones of a generated video) and squeezes them to
224 x 224 inside of the detector; common_metrics_on_video_quality takes whole videos, scales the shorter side to
224 and keeps the centre; VideoGPT does so too, but gives its net [-0.5, 0.5], half of the range it was trained on.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from halign_bench.errors import RequestError, first_line
from halign_bench.extractors._i3d_net import CLASSES, LEAST_FRAMES, load
from halign_bench.extractors._pixels import batched, checked_frames, checked_images, full_precision
from halign_bench.extractors._weights import read_file
from halign_bench.track import Clip, Unscorable

SIDE = 224


def centred(frames: Tensor) -> Tensor:
    """uint8 `[T, H, W, 3]` to float `[3, T, 224, 224]` in [0, 1]: shorter side to 224, then the middle.

    Bilinear without antialiasing; the longer side is rounded up. Source: VideoGPT, `data.preprocess`.
    """
    pictures = frames.permute(0, 3, 1, 2).float() / 255
    height, width = pictures.shape[2:]
    scale = SIDE / min(height, width)
    size = (SIDE, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), SIDE)
    pictures = F.interpolate(pictures, size, mode="bilinear", align_corners=False)
    top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    return pictures[:, :, top : top + SIDE, left : left + SIDE].permute(1, 0, 2, 3)


def window_starts(total: int, frames: int, windows: str) -> list[int]:
    """First frames of the windows of `frames` in a clip of `total`: the first one, or all that do not overlap.

    >>> window_starts(40, 16, "first"), window_starts(40, 16, "all"), window_starts(15, 16, "all")
    ([0], [0, 16], [])
    """
    starts = list(range(0, total - frames + 1, frames))
    return starts[:1] if windows == "first" else starts


class _I3D:
    """Cuts clips into windows, and fills batches across clips. Subclasses prepare a window and run the net."""

    dimensions = CLASSES
    name: str

    def __init__(self, device: str, frames: int, windows: str, batch: int) -> None:
        if frames < LEAST_FRAMES:
            raise RequestError(f"windows of {frames} frames are too short for I3D; it needs at least {LEAST_FRAMES}")
        if windows not in ("first", "all"):
            raise RequestError(f"unknown windows '{windows}' for I3D (available: first, all)")
        if batch < 1:
            raise RequestError(f"batches of {batch}: at least 1 is needed")
        self.device, self.frames, self.windows, self.batch = device, frames, windows, batch

    @property
    def cutting(self) -> str:
        """For the protocol string: what of a clip is seen."""
        which = "first" if self.windows == "first" else "all, not overlapping,"
        return f"{which} {self.frames} consecutive frames at 25 fps, shorter clips not scored"

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list[Any]:
        starts = [window_starts(len(checked_frames(clip.video)), self.frames, self.windows) for clip in clips]
        with full_precision():
            features = self._forward(self._cut(clips, starts))
        parts = torch.split(features, [len(found) for found in starts])
        short = f"shorter than a window of {self.frames} frames"
        return [part.numpy() if len(part) else Unscorable(short) for part in parts]

    def videos(self, videos: Tensor) -> Tensor:
        """uint8 `[N, T, 3, H, W]`, each one window, to `[N, 400]`. Raises ValueError for any other, or T below 9."""
        if checked_images(videos, 5).shape[1] < LEAST_FRAMES:
            raise ValueError(f"videos of {videos.shape[1]} frames are too short for I3D; at least {LEAST_FRAMES}")
        with full_precision():
            return self._forward(iter(videos.permute(0, 1, 3, 4, 2)))

    def _cut(self, clips: Sequence[Clip], starts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        for clip, found in zip(clips, starts, strict=True):
            for start in found:
                yield torch.from_numpy(np.array(clip.video[start : start + self.frames]))

    def _forward(self, windows: Iterator[Tensor]) -> Tensor:
        """`[n, 400]` of windows uint8 `[T, H, W, 3]`."""
        prepared = (self.prepare(window.to(self.device))[None] for window in windows)
        found = [self.logits(batch).float().cpu() for batch in batched(prepared, self.batch)]
        return torch.cat(found) if found else torch.zeros(0, CLASSES)

    def prepare(self, frames: Tensor) -> Tensor:
        """A window uint8 `[T, H, W, 3]` as the net takes it, `[3, T, …]`."""
        raise NotImplementedError

    def logits(self, batch: Tensor) -> Tensor:
        raise NotImplementedError


class I3DTorchScript(_I3D):
    """Feature "video": float32 `[windows, 400]` of each clip, by StyleGAN-V's detector `i3d_torchscript.pt`.

    preprocessing  "stylegan-v": uint8 frames, rescaled and squeezed to 224 x 224 by the detector itself;
                   "common-metrics": `centred`, in [-1, 1], and the detector does neither
    trust, sha256  TorchScript is code that runs: the file is opened only with `trust`, or when its hash is
                   `sha256`, the one pinned in the manifest

    Raises RequestError when the file is not trusted, cannot be opened or has another call convention.
    """

    assets: tuple[str, ...] = ("i3d-torchscript",)

    def __init__(
        self, weights: Path, device: str = "cpu", trust: bool = False, sha256: str | None = None,
        preprocessing: str = "stylegan-v", frames: int = 16, windows: str = "first", batch: int = 4,
    ) -> None:  # fmt: skip
        super().__init__(device, frames, windows, batch)
        if preprocessing not in ("stylegan-v", "common-metrics"):
            known = "stylegan-v, common-metrics"
            raise RequestError(f"unknown preprocessing '{preprocessing}' for this I3D (available: {known})")
        self.inside = preprocessing == "stylegan-v"
        content, found = read_file(weights)
        if not trust and found != sha256:
            why = "no sha256 is pinned for it" if sha256 is None else f"its sha256 {found[:12]}… is not {sha256[:12]}…"
            raise RequestError(f"{weights} is TorchScript, which is code that runs, and {why}; check it, then trust it")
        try:
            self._net = torch.jit.load(io.BytesIO(content), map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            raise RequestError(f"{weights} is no TorchScript file: {first_line(error)}") from None
        self._weights = weights
        self.name = "i3d" if self.inside else "i3d-common-metrics"
        resized = "squeezed to 224x224 by the detector" if self.inside else "shorter side to 224, centre"
        self.protocol = (
            f"I3D of StyleGAN-V, {CLASSES} logits; weights sha256 {found}; {preprocessing}: {resized}, [-1, 1]; "
            f"{self.cutting}; float32"
        )

    def prepare(self, frames: Tensor) -> Tensor:
        return frames.permute(3, 0, 1, 2) if self.inside else (centred(frames) - 0.5) * 2

    def logits(self, batch: Tensor) -> Tensor:
        try:
            found = self._net(batch.contiguous(), rescale=self.inside, resize=self.inside, return_features=True)
        except (RuntimeError, TypeError) as error:
            last = str(error).strip().splitlines()[-1][:200]
            raise RequestError(f"{self._weights} could not be run as StyleGAN-V's I3D detector: {last}") from None
        if not isinstance(found, Tensor) or found.shape != (len(batch), CLASSES):
            form = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise RequestError(f"{self._weights} gives {form} where {(len(batch), CLASSES)} logits are expected")
        return found


class I3DVideoGPT(_I3D):
    """Feature "video": float32 `[windows, 400]` of each clip, by the state dict `i3d_pretrained_400.pt`.

    preprocessing  "common-metrics": `centred`, in [-1, 1], as the net was trained;
                   "videogpt": the same in [-0.5, 0.5], as VideoGPT's own program does

    Raises RequestError when the weights cannot be read or are not of that layout.
    """

    assets: tuple[str, ...] = ("i3d-videogpt",)
    RANGES: dict[str, Callable[[Tensor], Tensor]] = {  # noqa: RUF012  # read only
        "common-metrics": lambda x: (x - 0.5) * 2, "videogpt": lambda x: x - 0.5,
    }  # fmt: skip

    def __init__(
        self, weights: Path, device: str = "cpu", preprocessing: str = "common-metrics", frames: int = 16,
        windows: str = "first", batch: int = 4,
    ) -> None:  # fmt: skip
        super().__init__(device, frames, windows, batch)
        if preprocessing not in self.RANGES:
            known = ", ".join(self.RANGES)
            raise RequestError(f"unknown preprocessing '{preprocessing}' for this I3D (available: {known})")
        self._range = self.RANGES[preprocessing]
        net, found = load(weights)
        self._net = net.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        whole = preprocessing == "common-metrics"
        self.name = "i3d-videogpt" if whole else "i3d-videogpt-half-range"
        self.protocol = (
            f"I3D of VideoGPT, {CLASSES} logits; weights sha256 {found}; {preprocessing}: shorter side to 224, centre, "
            f"{'[-1, 1]' if whole else '[-0.5, 0.5]'}; {self.cutting}; float32"
        )

    def prepare(self, frames: Tensor) -> Tensor:
        return self._range(centred(frames))

    def logits(self, batch: Tensor) -> Tensor:
        return self._net(batch.contiguous(memory_format=torch.channels_last_3d))
