"""torch.compile of a network's repeated blocks while LoRAs train: fewer passes over memory, after minutes of compiling.

Blocks are alike, so that one is compiled for all of them, once for each kind of pass: with gradients and without, and
for each set of adapters that is on. What is compiled rounds differently from what is not, in the last bits.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from halign_bench.errors import RequestError, first_line

if TYPE_CHECKING:
    import torch

KINDS = 64  # of passes of one class of blocks, at most: adapter sets, with and without gradients, shapes of a batch
WITHOUT = "leave --compile out"


def check_compiling(network: torch.nn.Module, device: str) -> None:
    """Raises RequestError where blocks of this network cannot be compiled for this device."""
    if not _blocks(network):
        raise RequestError(f"--compile: a {type(network).__name__} of diffusers names no repeated blocks; {WITHOUT}")
    kind = device.split(":")[0]
    if kind == "cpu":
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # as torch's inductor looks
        if shutil.which(compiler) is None:
            raise RequestError(f"--compile: there is no C++ compiler {compiler}; set CXX to one that is, or {WITHOUT}")
    elif kind != "cuda":
        raise RequestError(f"--compile is for the devices cpu and cuda, not {device}; {WITHOUT}")
    elif find_spec("triton") is None:
        raise RequestError(f"--compile needs triton on a GPU, and it is not installed; install it, or {WITHOUT}")


@contextmanager
def compiled(network: torch.nn.Module, device: str) -> Iterator[None]:
    """Within the context the repeated blocks of `network` run compiled, afterwards as before, and nothing is kept but
    torch's cache on disk. Hooks of blocks must be the same all the time.

    Raises RequestError where they cannot be compiled, also while they run: too many kinds of pass end in a sentence
    instead of going on without compiled code.
    """
    import torch
    from torch._dynamo import config
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
    from torch._inductor import config as inductor

    check_compiling(network, device)
    blocks = _blocks(network)
    # Values of half precision are rounded where plain blocks round them. Else policy and reference, which are compiled
    # apart, would differ before anything is learnt, by 0.4 % in bf16, of which β makes a logit.
    alike = inductor.patch(emulate_precision_casts=True)
    try:
        with config.patch(cache_size_limit=KINDS, fail_on_cache_limit_hit=True), alike:
            for block in blocks:
                block.compile(dynamic=False)
            yield
    except FailOnRecompileLimitHit:
        raise RequestError(f"--compile: blocks have more than {KINDS} kinds of pass to compile; {WITHOUT}") from None
    except TorchDynamoException as problem:
        raise RequestError(f"--compile: torch cannot compile it ({first_line(problem)}); {WITHOUT}") from problem
    finally:
        for block in blocks:
            block._compiled_call_impl = None
        torch._dynamo.reset()


def _blocks(network: torch.nn.Module) -> list[torch.nn.Module]:
    names = getattr(network, "_repeated_blocks", None) or ()
    return [module for module in network.modules() if type(module).__name__ in names]


__all__ = ["check_compiling", "compiled"]
