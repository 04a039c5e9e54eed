"""Where weights lie that are not always needed: kept on the host once, on the device while they are used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Hosted:
    """Frozen modules whose weights stay on the host; `to` lets their parameters and buffers be there, or elsewhere.

    Weights that are on the host already are not copied, and what goes back to it is what lay there all the time.
    Tensors that modules share stay shared.
    """

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        every = {id(part): part for module in modules for part in module.modules()}.values()
        slots = [
            (held, name) for part in every for held in (part._parameters, part._buffers)
            for name, tensor in held.items() if tensor is not None
        ]  # fmt: skip
        self.slots = [(held, name, id(held[name])) for held, name in slots]
        self.hosts = {id(held[name]): _moved(held[name], "cpu") for held, name in slots}

    def to(self, device: str) -> None:
        there = {key: _moved(host, device) for key, host in self.hosts.items()}
        for held, name, key in self.slots:
            held[name] = there[key]

    @contextmanager
    def aside(self, device: str) -> Iterator[None]:
        """Within the context they are on the host, before and after it on `device`."""
        self.to("cpu")
        try:
            yield
        finally:
            self.to(device)


def _moved(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """The tensor itself where it is there already."""
    import torch

    if str(tensor.device) == device:
        return tensor
    moved = tensor.data.to(device)
    return torch.nn.Parameter(moved, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else moved


__all__ = ["Hosted"]
