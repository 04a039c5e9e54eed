"""Random weights in the exact layout of the published files, which are too large, or not free, to be here.

What they compute means nothing; what is shown on them is that the real loading code reads the real layout, and
that two programs agree on the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from halign_bench.extractors import _i3d_net, _inception_net


def random_state(layout: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """A state dict under which activations keep their size from layer to layer, counters of batch norms included."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in layout.items():
        part = name.rsplit(".", 1)[1]
        normal = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            state[name] = normal * (2 / (normal.numel() / shape[0])) ** 0.5
        elif part == "running_var" or (part == "weight" and ".bn." in name):
            state[name] = 1 + 0.3 * torch.tanh(normal)
        else:
            state[name] = 0.1 * normal
        if part == "running_var":
            state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(1)
    return state


def write_inception(path: Path, seed: int = 0) -> Path:
    """As pt_inception-2015-12-05-6726825d.pth."""
    torch.save(random_state(_inception_net.published_layout(), seed), path)
    return path


def write_i3d(path: Path, seed: int = 0) -> Path:
    """As i3d_pretrained_400.pt."""
    torch.save(random_state(_i3d_net.published_layout(), seed), path)
    return path


class Detector(nn.Module):
    """A net behind the call convention of i3d_torchscript.pt."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        x = x.float()
        if resize:
            frames = x.transpose(1, 2).flatten(0, 1)
            frames = F.interpolate(frames, [224, 224], mode="bilinear", align_corners=False)
            x = frames.unflatten(0, [x.shape[0], x.shape[2]]).transpose(1, 2)
        if rescale:
            x = 2 * x / 255 - 1
        logits = self.net(x)
        return logits if return_features else torch.softmax(logits, 1)


def write_torchscript(path: Path, net: nn.Module) -> Path:
    """As i3d_torchscript.pt."""
    torch.jit.script(Detector(net)).save(str(path))
    return path
