"""Modules of a method's own that train in place of a LoRA: where they go in a network, and how they are switched.

A backbone says where its blocks are, a method what it adds there; neither knows the other's classes. Hooks are on
the network for the time of one forward pass, and only while an insert is active: off, the network is the base itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from halign_bench.errors import HalignError

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Condition

HOLDER = "halign_inserts"  # the denoiser's sub-module that holds them: they move, freeze and are counted with it


@dataclass(frozen=True)
class Block:
    """Where one block of a network can be added to. Its modules may be of any class; tokens come frame by frame,
    `[B, T·N, width]` or `[B·T, N, width]` for T latent frames, the first of several where a module takes or gives them.
    What stands before them in the first form (a prompt's tokens, a reference's slot) is left alone.

    norm          is given the residual stream before cross-attention
    attention     its output is added to that stream (text cross-attention); it is the stream where norm is None
    feed_forward  is given the stream after that, normalised and modulated
    width, heads  channels of a token, and heads of its attention
    stride        latent cells on a side of a token
    span          video frames that a latent frame stands for, the first one apart
    """

    norm: torch.nn.Module | None
    attention: torch.nn.Module
    feed_forward: torch.nn.Module
    width: int
    heads: int
    stride: int = 1
    span: int = 4


Addition = Callable[[int, "torch.Tensor"], "torch.Tensor"]
"""(number of the block, its tokens `[B, T, N, width]`) -> what is added to them, of the same shape."""


@dataclass(frozen=True)
class Additions:
    """What an insert adds in one forward pass.

    to_stream        to the residual stream after cross-attention, given that stream
    to_feed_forward  to what the feed-forward network is given, given that
    """

    to_stream: Addition | None = None
    to_feed_forward: Addition | None = None


@dataclass(frozen=True)
class Insert:
    """A module beside the network, attached under an adapter's name.

    build  (blocks, condition) -> the module, its last layers zero so that it adds nothing yet; `condition` is that of
           any clips and tells shapes. It draws from torch's own generator, which is seeded. No buffers
    add    (module, blocks, condition) -> what it adds in the forward pass of these clips
    """

    build: Callable[[Sequence[Block], Condition], torch.nn.Module]
    add: Callable[[torch.nn.Module, Sequence[Block], Condition], Additions]


def inserts(module: torch.nn.Module) -> tuple[str, ...]:
    """Names of the inserts attached to `module`, in the order in which they came."""
    return tuple(getattr(module, HOLDER, ()))


def attach_insert(
    module: torch.nn.Module, name: str, insert: Insert, blocks: Sequence[Block], condition: Condition, seed: int
) -> list[torch.nn.Parameter]:
    """Adds an insert, not active, its fp32 weights drawn from `seed` alone; its parameters alone are left trainable."""
    import torch

    if name in inserts(module):
        raise ValueError(f"an adapter {name} is attached already")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # on the CPU, so that every device starts alike
        layers = insert.build(blocks, condition).float()
    if not hasattr(module, HOLDER):
        holder = torch.nn.ModuleDict()
        holder.adds, holder.active, holder.running = {}, (), None
        module.add_module(HOLDER, holder)
    module.requires_grad_(False)
    holder = getattr(module, HOLDER)
    holder[name] = layers.to(next(module.parameters()).device)
    holder.adds[name] = insert.add
    return list(holder[name].parameters())


def remove_inserts(module: torch.nn.Module, names: Sequence[str]) -> None:
    for name in names:
        holder = getattr(module, HOLDER)
        holder.pop(name)
        holder.adds.pop(name)
        holder.active = tuple(other for other in holder.active if other != name)
        if not len(holder):
            delattr(module, HOLDER)


@contextmanager
def active_inserts(module: torch.nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Within the context exactly `names` are active in `running`; nests."""
    holder = getattr(module, HOLDER, None)
    if holder is None:
        yield
        return
    before, holder.active = holder.active, tuple(names)
    try:
        yield
    finally:
        holder.active = before


@contextmanager
def running(
    module: torch.nn.Module, blocks: Callable[[], Sequence[Block]], latents: torch.Tensor, condition: Condition,
    slots: int = 0,
) -> Iterator[None]:
    """Within the context, meant for one forward pass of `latents` `[B, C, T, H, W]`, active inserts add what they add.

    The first `slots` latent frames are not the video's and are not added to.
    """
    holder = getattr(module, HOLDER, None)
    if holder is None or not holder.active:
        yield
        return
    places = list(blocks())
    additions = [holder.adds[name](holder[name], places, condition) for name in holder.active]
    holder.running = (places, additions, (len(latents), latents.shape[2] - slots, *latents.shape[3:]))
    try:
        with hooked(*holder.running):
            yield
    finally:
        holder.running = None


def now_running(module: torch.nn.Module) -> tuple[Sequence[Block], Sequence[Additions], tuple[int, ...]] | None:
    """What `hooked` was given for the forward pass that is under way; None where nothing is added to it."""
    return getattr(getattr(module, HOLDER, None), "running", None)


@contextmanager
def hooked(blocks: Sequence[Block], additions: Sequence[Additions], shape: tuple[int, ...]) -> Iterator[None]:
    """Within the context, meant for one forward pass, these are added; `shape` is (clips, latent frames, h, w)."""
    clips, frames, height, width = shape
    handles: list[Any] = []
    try:
        for number, block in enumerate(blocks):
            tokens = -(-height // block.stride) * -(-width // block.stride)  # of a frame, rounded up
            handles += _hooks(number, block, additions, (clips, frames, tokens))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hooks(number: int, block: Block, additions: Sequence[Additions], shape: tuple[int, int, int]) -> list[Any]:
    streams: list[torch.Tensor] = []  # from the norm to the attention that follows it

    def added(addition: Addition, tokens: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import pad

        batch, frames, count = shape
        own = tokens.shape[:-1] == (batch * frames, count)
        before = 0 if own else tokens.shape[1] - frames * count
        if not own and (len(tokens) != batch or before < 0):
            raise HalignError(
                f"block {number} has tokens {list(tokens.shape)}, which are not {frames} frames of {count} tokens for "
                f"each of {batch} clips"
            )
        video = tokens if own else tokens[:, before:]
        more = addition(number, video.reshape(batch, frames, count, -1)).reshape(video.shape)
        return more if own else pad(more, (0, 0, before, 0))

    def keep(_: Any, given: tuple[Any, ...]) -> None:
        streams.append(given[0])

    def after_attention(_: Any, given: tuple[Any, ...], output: Any) -> Any:
        result, *others = output if isinstance(output, tuple) else (output,)
        stream = result if block.norm is None else streams.pop() + result
        for addition in (each.to_stream for each in additions if each.to_stream is not None):
            more = added(addition, stream)
            stream, result = stream + more, result + more.to(result.dtype)
        return (result, *others) if isinstance(output, tuple) else result

    def before_feed_forward(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens = given[0]
        for addition in (each.to_feed_forward for each in additions if each.to_feed_forward is not None):
            tokens = tokens + added(addition, tokens).to(tokens.dtype)
        return (tokens, *given[1:])

    handles = [] if block.norm is None else [block.norm.register_forward_pre_hook(keep)]
    return [
        *handles, block.attention.register_forward_hook(after_attention),
        block.feed_forward.register_forward_pre_hook(before_feed_forward),
    ]


__all__ = [
    "HOLDER", "Addition", "Additions", "Block", "Insert", "active_inserts", "attach_insert", "hooked",
    "inserts", "now_running", "remove_inserts", "running",
]
