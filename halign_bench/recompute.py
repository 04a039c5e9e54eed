"""Gradient checkpointing: blocks keep their inputs alone and run again in `backward()`, as the policy that ran before.

torch repeats a block when its gradients are needed. By then other adapters may be on (the reference's pass is without
any), and hooks of a method's own module are gone. So what was on is taken down at the forward pass and put back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from halign_bench.adapters import active, active_adapters
from halign_bench.errors import RequestError
from halign_bench.inserts import hooked, now_running

if TYPE_CHECKING:
    import torch


class _AsBefore(AbstractContextManager[None]):
    """Adapters and hooks as they are when this is made, within each later use."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network, self.names, self.hooks = network, active(network), now_running(network)

    def __enter__(self) -> None:
        self.stack = ExitStack()
        if active(self.network) != self.names:
            self.stack.enter_context(active_adapters(self.network, self.names))
        if self.hooks is not None:
            self.stack.enter_context(hooked(*self.hooks))

    def __exit__(self, *problem: Any) -> None:
        self.stack.__exit__(*problem)


def _checkpoint(network: torch.nn.Module, block: Any, *args: Any) -> Any:
    from torch.utils.checkpoint import checkpoint

    before = _AsBefore(network)
    # No random state to keep: networks are in eval mode.
    return checkpoint(
        block, *args, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), before)
    )


@contextmanager
def recomputing(network: torch.nn.Module) -> Iterator[None]:
    """Within the context passes with gradients keep only what goes into blocks, for one more pass forward.

    Loss and gradients are the same. Raises RequestError for a network without gradient checkpointing of diffusers.
    """
    if not getattr(network, "_supports_gradient_checkpointing", False):
        raise RequestError(f"a {type(network).__name__} has no gradient checkpointing; set `checkpointing` to False")
    network.enable_gradient_checkpointing(partial(_checkpoint, network))  # type: ignore[operator]  # diffusers' method
    try:
        yield
    finally:
        network.disable_gradient_checkpointing()  # type: ignore[operator]


__all__ = ["recomputing"]
