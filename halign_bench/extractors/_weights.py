"""Reads published weight files: tensors by their published names, and one sentence when a file is not the right one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from halign_bench.errors import RequestError, first_line
from halign_bench.extractors.checkpoint import opened


def read_file(path: Path) -> tuple[bytes, str]:
    """Content of a weight file and its sha256, read once so that what was hashed is what is opened."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise RequestError(f"weights {path} cannot be read: {error.strerror or error}") from None
    return content, hashlib.sha256(content).hexdigest()


class StateDict:
    """A published state dict whose tensors are taken by name; `done` refuses what nobody took.

    `.safetensors`, or what `torch.save` wrote; the latter is opened with `weights_only=True`.
    Everything that is wrong with the file is a RequestError that names it.
    """

    def __init__(self, path: Path) -> None:
        content, self.sha256 = read_file(path)
        self.path = Path(path)
        try:
            if self.path.suffix == ".safetensors":
                from safetensors.torch import load

                found = load(content)
            else:
                found = opened(content)
        except Exception as error:  # torch, pickle, zipfile and safetensors each have their own
            raise RequestError(f"weights {path} cannot be opened: {first_line(error)}") from None
        if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
            raise RequestError(f"weights {path} hold no state dict, which is tensors by name")
        self._tensors = dict(found)

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """float32 tensor `name`, which has to be of `shape`."""
        value = self._tensors.pop(name, None)
        if value is None:
            raise RequestError(f"weights {self.path} lack {name}: they are not of the expected layout")
        if tuple(value.shape) != shape:
            raise RequestError(f"weights {self.path}: {name} is {tuple(value.shape)}, {shape} is expected")
        return value.float()

    def convolution(self, name: str, norm: str, shape: tuple[int, ...], epsilon: float) -> tuple[Tensor, Tensor]:
        """Weight and bias of a bias-free convolution `name` with the batch norm `norm` behind it folded in.

        In evaluation the two are one affine map, w·g/√(v + ε) and b - m·g/√(v + ε): half of the memory traffic.
        """
        weight = self.take(f"{name}.weight", shape)
        gain, bias, mean, variance = (
            self.take(f"{norm}.{part}", shape[:1]) for part in ("weight", "bias", "running_mean", "running_var")
        )
        self._tensors.pop(f"{norm}.num_batches_tracked", None)  # older files have none, and only training reads it
        scale = gain / torch.sqrt(variance + epsilon)
        return weight * scale.view(-1, *[1] * (len(shape) - 1)), bias - mean * scale

    def done(self) -> None:
        if self._tensors:
            extra = min(self._tensors)
            raise RequestError(f"weights {self.path} hold {extra} too: they are not of the expected layout")
