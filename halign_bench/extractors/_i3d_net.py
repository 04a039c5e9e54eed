"""Inception-v1 inflated to video (Carreira & Zisserman 2017, arXiv 1705.07750), in VideoGPT's state-dict layout.

Batch norms (epsilon 1e-5) are folded into the convolutions as the weights are read. Paddings are TensorFlow's
"SAME", which puts the odd one behind.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from halign_bench.extractors._weights import StateDict

CLASSES = 400
LEAST_FRAMES = 9  # three halvings in time have to leave the two that the last pool needs
NORM_EPSILON = 1e-5


def pad_same(x: Tensor, kernel: list[int], stride: list[int]) -> Tensor:
    """Zeros around `[N, C, T, H, W]` so that ⌈size / stride⌉ places come out. (TorchScript compiles this.)"""
    pads: list[int] = []
    for axis in (2, 1, 0):
        size = x.shape[axis + 2]
        missing = max((-(-size // stride[axis]) - 1) * stride[axis] + kernel[axis] - size, 0)
        pads += [missing // 2, missing - missing // 2]
    return F.pad(x, pads) if max(pads) > 0 else x


class Unit(nn.Module):
    """A convolution with "SAME" padding, then ReLU."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, channels, kernel, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out))
        self.kernel, self.stride = [kernel] * 3, [stride] * 3

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 1:  # symmetric: the convolution pads by itself, without a copy
            return torch.relu_(F.conv3d(x, self.weight, self.bias, padding=self.kernel[0] // 2))
        return torch.relu_(F.conv3d(pad_same(x, self.kernel, self.stride), self.weight, self.bias, self.stride))


class Pool(nn.Module):
    """Maximum with "SAME" padding. Zeros do for padding: what comes in is behind a ReLU."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = list(kernel), list(stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches: 1; 1 then 3; 1 then 3; maximum then 1. `widths` are the six convolutions' output channels."""

    def __init__(self, channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = Unit(channels, widths[0], 1)
        self.b1a, self.b1b = Unit(channels, widths[1], 1), Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = Unit(channels, widths[3], 1), Unit(widths[3], widths[4], 3)
        self.b3b = Unit(channels, widths[5], 1)

    def forward(self, x: Tensor) -> Tensor:
        pool = F.max_pool3d(x, [3, 3, 3], [1, 1, 1], [1, 1, 1])
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pool)], 1)


MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


class I3DNet(nn.Module):
    """`[N, 3, T, 224, 224]` in [-1, 1], T at least 9, to logits `[N, 400]`, averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["Conv3d_1a_7x7"] = Unit(3, 64, 7, 2)
        layers["MaxPool3d_2a_3x3"] = Pool((1, 3, 3), (1, 2, 2))
        layers["Conv3d_2b_1x1"] = Unit(64, 64, 1)
        layers["Conv3d_2c_3x3"] = Unit(64, 192, 3)
        layers["MaxPool3d_3a_3x3"] = Pool((1, 3, 3), (1, 2, 2))
        channels = 192
        for name, widths in MIXED.items():
            if name == "Mixed_4b":
                layers["MaxPool3d_4a_3x3"] = Pool((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                layers["MaxPool3d_5a_2x2"] = Pool((2, 2, 2), (2, 2, 2))
            layers[name] = Mixed(channels, widths)
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.trunk = nn.Sequential(layers)
        self.logits = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool3d(self.trunk(x), [2, 7, 7], [1, 1, 1])
        # The published last layer is a 1x1x1 convolution, averaged over time: a linear map of the average.
        return self.logits(pooled.mean([2, 3, 4]))


def published_layout() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of `i3d_pretrained_400.pt` (counters of training steps aside)."""
    layout: dict[str, tuple[int, ...]] = {}
    for name, shape in _units():
        layout[f"{name}.conv3d.weight"] = shape
        layout |= {f"{name}.bn.{part}": shape[:1] for part in ("weight", "bias", "running_mean", "running_var")}
    return layout | {"logits.conv3d.weight": (CLASSES, 1024, 1, 1, 1), "logits.conv3d.bias": (CLASSES,)}


def load(weights: Path) -> tuple[I3DNet, str]:
    """The net with published weights, in evaluation mode, and their sha256. Raises RequestError."""
    state = StateDict(weights)
    tensors: dict[str, Tensor] = {}
    for name, shape in _units():
        weight, bias = state.convolution(f"{name}.conv3d", f"{name}.bn", shape, NORM_EPSILON)
        tensors |= {f"trunk.{name}.weight": weight, f"trunk.{name}.bias": bias}
    tensors["logits.weight"] = state.take("logits.conv3d.weight", (CLASSES, 1024, 1, 1, 1)).flatten(1)
    tensors["logits.bias"] = state.take("logits.conv3d.bias", (CLASSES,))
    state.done()
    net = _empty()
    net.load_state_dict(tensors, assign=True)
    return net.eval().requires_grad_(False), state.sha256


def _empty() -> I3DNet:
    with torch.device("meta"):  # initial values would only be thrown away
        return I3DNet()


def _units() -> list[tuple[str, tuple[int, ...]]]:
    trunk = _empty().trunk
    return [(name, tuple(module.weight.shape)) for name, module in trunk.named_modules() if isinstance(module, Unit)]
