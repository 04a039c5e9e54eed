"""Divides the weights of a frozen base among the processes of a launch, by torch's `fully_shard` (FSDP 2).

Adapters come later and are not divided: they are small, every process has them whole, and saves and loads them as ever.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from halign_bench.processes import Processes

if TYPE_CHECKING:
    import torch


def shard(module: torch.nn.Module, processes: Processes) -> None:
    """In place, block by block; a module on the CPU comes to the device that way, and is never whole there.

    Does nothing where the launch does not ask for it.
    """
    if not processes.sharded:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    assert processes.device is not None
    mesh = init_device_mesh(processes.device.partition(":")[0], (processes.world,))
    reshard = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() not in ("false", "no_shard", "shard_grad_op")
    for block in _blocks(module):
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(module, mesh=mesh, reshard_after_forward=reshard)
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nobody here writes into it


def _blocks(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """What stands in the topmost lists of modules: of a transformer its layers."""
    import torch

    for child in module.children():
        if isinstance(child, torch.nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)


__all__ = ["shard"]
