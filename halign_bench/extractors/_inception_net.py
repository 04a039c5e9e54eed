"""The Inception-v3 of 2015-12-05 that FID is defined on, in the layout of its PyTorch state dict.

It is not torchvision's: average pools leave their padding out of the mean, the last block pools by maximum, and
there are 1008 classes. Batch norms are folded into the convolutions as the weights are read.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from halign_bench.extractors._weights import StateDict

DIMENSIONS = 2048
CLASSES = 1008
NORM_EPSILON = 1e-3
Kernel = int | tuple[int, int]
Step = tuple[tuple[str, int, Kernel], ...]  # convolutions side by side: published name, output channels, kernel
Chain = tuple[Step, ...]


class Convolution(nn.Conv2d):
    """A convolution, then ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(super().forward(x))


class Mixed(nn.Module):
    """Chains of convolutions beside a pool, concatenated. `stride` 2 halves the picture in each chain's last step."""

    def __init__(
        self, channels: int, chains: tuple[Chain, ...], pooled: int = 0, stride: int = 1, maximum: bool = False
    ) -> None:
        super().__init__()
        self.chains = [[[name for name, _, _ in step] for step in chain] for chain in chains]
        self.stride, self.maximum, self.pooled = stride, maximum or stride == 2, pooled
        self.channels = pooled or channels
        for chain in chains:
            width = channels
            for number, step in enumerate(chain):
                halves = stride == 2 and number == len(chain) - 1
                for name, out, kernel in step:
                    size = (kernel, kernel) if isinstance(kernel, int) else kernel
                    padding = (0, 0) if halves else (size[0] // 2, size[1] // 2)
                    self.add_module(name, Convolution(width, out, size, 2 if halves else 1, padding))
                width = sum(out for _, out, _ in step)
            self.channels += width
        if pooled:
            self.branch_pool = Convolution(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for chain in self.chains:
            y = x
            for step in chain:
                sides = [getattr(self, name)(y) for name in step]
                y = sides[0] if len(sides) == 1 else torch.cat(sides, 1)
            found.append(y)
        if self.maximum:
            pool = F.max_pool2d(x, 3, self.stride, 0 if self.stride == 2 else 1)
        else:
            pool = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        found.append(self.branch_pool(pool) if self.pooled else pool)
        return torch.cat(found, 1)


def _one(name: str, out: int, kernel: Kernel) -> Step:
    return ((name, out, kernel),)


def _mixed_5(channels: int, pooled: int) -> Mixed:
    return Mixed(channels, (
        (_one("branch1x1", 64, 1),),
        (_one("branch5x5_1", 48, 1), _one("branch5x5_2", 64, 5)),
        (_one("branch3x3dbl_1", 64, 1), _one("branch3x3dbl_2", 96, 3), _one("branch3x3dbl_3", 96, 3)),
    ), pooled)  # fmt: skip


def _mixed_6a(channels: int) -> Mixed:
    return Mixed(channels, (
        (_one("branch3x3", 384, 3),),
        (_one("branch3x3dbl_1", 64, 1), _one("branch3x3dbl_2", 96, 3), _one("branch3x3dbl_3", 96, 3)),
    ), stride=2)  # fmt: skip


def _mixed_6(channels: int, width: int) -> Mixed:
    return Mixed(channels, (
        (_one("branch1x1", 192, 1),),
        (_one("branch7x7_1", width, 1), _one("branch7x7_2", width, (1, 7)), _one("branch7x7_3", 192, (7, 1))),
        (
            _one("branch7x7dbl_1", width, 1), _one("branch7x7dbl_2", width, (7, 1)),
            _one("branch7x7dbl_3", width, (1, 7)), _one("branch7x7dbl_4", width, (7, 1)),
            _one("branch7x7dbl_5", 192, (1, 7)),
        ),
    ), 192)  # fmt: skip


def _mixed_7a(channels: int) -> Mixed:
    return Mixed(channels, (
        (_one("branch3x3_1", 192, 1), _one("branch3x3_2", 320, 3)),
        (
            _one("branch7x7x3_1", 192, 1), _one("branch7x7x3_2", 192, (1, 7)),
            _one("branch7x7x3_3", 192, (7, 1)), _one("branch7x7x3_4", 192, 3),
        ),
    ), stride=2)  # fmt: skip


def _mixed_7(channels: int, maximum: bool) -> Mixed:
    return Mixed(channels, (
        (_one("branch1x1", 320, 1),),
        (_one("branch3x3_1", 384, 1), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))),
        (
            _one("branch3x3dbl_1", 448, 1), _one("branch3x3dbl_2", 384, 3),
            (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
        ),
    ), 192, maximum=maximum)  # fmt: skip


class InceptionNet(nn.Module):
    """`[N, 3, 299, 299]` in about [-1, 1] to the mean `[N, 2048]` over places of the last block's activations."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b = _mixed_5(192, 32)
        self.Mixed_5c = _mixed_5(256, 64)
        self.Mixed_5d = _mixed_5(288, 64)
        self.Mixed_6a = _mixed_6a(288)
        self.Mixed_6b = _mixed_6(768, 128)
        self.Mixed_6c = _mixed_6(768, 160)
        self.Mixed_6d = _mixed_6(768, 160)
        self.Mixed_6e = _mixed_6(768, 192)
        self.Mixed_7a = _mixed_7a(768)
        self.Mixed_7b = _mixed_7(1280, maximum=False)
        self.Mixed_7c = _mixed_7(DIMENSIONS, maximum=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))


def published_layout() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the published state dict (counters of training steps aside)."""
    layout: dict[str, tuple[int, ...]] = {}
    for name, shape in _convolutions():
        layout[f"{name}.conv.weight"] = shape
        layout |= {f"{name}.bn.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")}
    return layout | {"fc.weight": (CLASSES, DIMENSIONS), "fc.bias": (CLASSES,)}


def load(weights: Path) -> tuple[InceptionNet, str]:
    """The net with published weights, in evaluation mode, and their sha256. Raises RequestError."""
    state = StateDict(weights)
    tensors: dict[str, Tensor] = {}
    for name, shape in _convolutions():
        weight, bias = state.convolution(f"{name}.conv", f"{name}.bn", shape, NORM_EPSILON)
        tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
    for name in ("fc.weight", "fc.bias"):  # the classes that it was trained on: no feature reads them
        state.take(name, published_layout()[name])
    state.done()
    net = _empty()
    net.load_state_dict(tensors, assign=True)
    return net.eval().requires_grad_(False), state.sha256


def _empty() -> InceptionNet:
    with torch.device("meta"):  # initial values would only be thrown away
        return InceptionNet()


def _convolutions() -> list[tuple[str, tuple[int, ...]]]:
    return [(n, tuple(m.weight.shape)) for n, m in _empty().named_modules() if isinstance(m, Convolution)]
