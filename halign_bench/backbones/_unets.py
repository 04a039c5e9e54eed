"""What the video UNets of diffusers have in common: levels of spatial transformers, each at half the size."""

from __future__ import annotations

from typing import Any

from halign_bench.inserts import Block


def unet_cell(denoiser: Any) -> int:
    """Latent cells that height and width must be multiples of, so that halving and doubling give them back."""
    return 2 ** (len(denoiser.down_blocks) - 1)


def unet_blocks(denoiser: Any) -> list[Block]:
    """Of the spatial transformers, which alone attend to prompt or image; every frame is a latent frame."""
    deepest = len(denoiser.down_blocks) - 1
    levels = [
        *enumerate(denoiser.down_blocks), (deepest, denoiser.mid_block),
        *((deepest - number, block) for number, block in enumerate(denoiser.up_blocks)),
    ]  # fmt: skip
    return [
        Block(block.norm2, block.attn2, block.ff, block.attn2.to_q.in_features, block.attn2.heads, 2**level, span=1)
        for level, stage in levels
        for transformer in getattr(stage, "attentions", ())
        for block in transformer.transformer_blocks
    ]
