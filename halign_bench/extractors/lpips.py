"""LPIPS, the distance of deep features (Zhang et al. 2018, arXiv 1801.03924), in the published layout.

A file of torchvision's backbone and one of linear weights, version 0.1 of richzhang/PerceptualSimilarity.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from halign_bench.decoding import shown
from halign_bench.errors import RequestError
from halign_bench.extractors.checkpoint import read_state_dict
from halign_bench.track import Clip, Unscorable

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of R, G, B in [-1, 1]
EPS = 1e-10
PIXELS = 2**20  # of all frames that go through the net together


def _alexnet() -> nn.Sequential:
    relu = nn.ReLU
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), relu(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), relu(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), relu(),
        nn.Conv2d(384, 256, 3, padding=1), relu(),
        nn.Conv2d(256, 256, 3, padding=1), relu(),
    )  # fmt: skip


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers += [nn.MaxPool2d(2)] if layers else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def unit(features: Tensor) -> Tensor:
    """`[N, C, H, W]` with the channels of each position scaled to length 1."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + EPS)


class LPIPS:
    """dict(distance `[T]`: of each frame from the same frame of the condition, at least 0 for published weights).

    Clips that differ from their condition in length or size are unscorable. A clip that is its own condition has
    distance 0 without being looked at.
    """

    assets: ClassVar[tuple[str, ...]] = ()  # the constructor's files, in this order
    name: ClassVar[str]
    backbone: ClassVar[str]  # in words
    taps: ClassVar[tuple[int, ...]]  # layers whose outputs are compared
    least: ClassVar[int]  # pixels of a side, below which the net has no output

    def __init__(self, linear: Path, backbone: Path, device: str = "cpu") -> None:
        """From the linear weights and torchvision's file of the backbone. Raises RequestError on another layout."""
        self.device = device
        self.net = self.layers()
        tensors, backbone_sha = read_state_dict(backbone, f"{self.backbone} backbone")
        own = {name: tensors.get(f"features.{name}") for name in self.net.state_dict()}
        self._fill(own, backbone)
        self.net.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights, linear_sha = read_state_dict(linear, "LPIPS linear")
        channels = [layer.out_channels for layer in self.net if isinstance(layer, nn.Conv2d)]
        convolutions = [n for n, layer in enumerate(self.net) if isinstance(layer, nn.Conv2d)]
        self.linear = []
        for number, tap in enumerate(self.taps):
            weight = weights.get(f"lin{number}.model.1.weight")
            width = channels[max(k for k, at in enumerate(convolutions) if at < tap)]
            if weight is None or weight.shape != (1, width, 1, 1):
                raise RequestError(
                    f"{shown(linear)} does not have the layout of LPIPS with {self.backbone}: "
                    f"lin{number}.model.1.weight must be [1, {width}, 1, 1]"
                )
            self.linear.append(weight.float().to(device))
        self._shift, self._scale = (torch.tensor(v, device=device).view(3, 1, 1) for v in (SHIFT, SCALE))
        self.protocol = (
            f"LPIPS v0.1, {self.backbone} sha256 {backbone_sha}, linear weights sha256 {linear_sha}; "
            "frames in their own size, RGB in [-1, 1]"
        )

    def _fill(self, tensors: dict[str, Tensor | None], path: Path) -> None:
        for name, wanted in self.net.state_dict().items():
            given = tensors[name]
            if given is None or given.shape != wanted.shape:
                raise RequestError(
                    f"{shown(path)} does not have the layout of torchvision's {self.backbone}: "
                    f"features.{name} must be {list(wanted.shape)}"
                )
        self.net.load_state_dict({name: value.float() for name, value in tensors.items() if value is not None})

    def layers(self) -> nn.Sequential:
        """The backbone's layers up to the last tap, numbered as in torchvision's `features`."""
        raise NotImplementedError

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list[Any]:
        return [self.features(clip, condition) for clip, condition in zip(clips, conditions, strict=True)]

    def features(self, clip: Clip, condition: Clip) -> dict[str, np.ndarray] | Unscorable:
        """Features of one clip."""
        ours, theirs = clip.video, condition.video
        if ours.shape[1:] != theirs.shape[1:]:
            return Unscorable("frame size differs from the target's")
        if min(ours.shape[1:3]) < self.least:
            return Unscorable(f"frame smaller than the {self.least} pixels that LPIPS needs")
        if ours is theirs:
            return {"distance": np.zeros(len(ours), np.float32)}
        count = min(len(ours), len(theirs))
        step = max(PIXELS // (ours.shape[1] * ours.shape[2]), 1)
        parts = [
            self.distances(ours[start:stop], theirs[start:stop])
            for start in range(0, count, step)
            for stop in (min(start + step, count),)
        ]
        return {"distance": np.concatenate(parts)}

    @torch.inference_mode()
    def distances(self, video: np.ndarray, target: np.ndarray) -> np.ndarray:
        """float32 `[T]`: LPIPS of each frame of uint8 RGB `[T, H, W, 3]` from the same frame of the other video."""
        total = torch.zeros(len(video), device=self.device)
        tap = 0
        # TensorFloat-32, cuDNN's default for convolutions, would move the third digit.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            x, y = self._prepared(video), self._prepared(target)
            for number, layer in enumerate(self.net):
                x, y = layer(x), layer(y)
                if number == self.taps[tap]:
                    total += ((unit(x) - unit(y)).square() * self.linear[tap]).sum(1).mean((1, 2))
                    tap += 1
        return np.asarray(total.cpu().numpy())

    def _prepared(self, video: np.ndarray) -> Tensor:
        frames = torch.from_numpy(np.array(video)).to(self.device).permute(0, 3, 1, 2)
        return (frames.float() / 127.5 - 1 - self._shift) / self._scale


class LPIPSAlex(LPIPS):
    """With AlexNet, the usual choice for scores."""

    name = "alex"
    assets = ("lpips-alex", "alexnet")
    backbone = "AlexNet"
    taps = (1, 4, 7, 9, 11)
    least = 31

    def layers(self) -> nn.Sequential:
        return _alexnet()


class LPIPSVGG(LPIPS):
    """With VGG-16, the usual choice for losses."""

    name = "vgg"
    assets = ("lpips-vgg", "vgg16")
    backbone = "VGG-16"
    taps = (3, 8, 15, 22, 29)
    least = 16

    def layers(self) -> nn.Sequential:
        return _vgg16()
