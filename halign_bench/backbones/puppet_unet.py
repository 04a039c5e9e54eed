"""Backbone `puppet-unet`: a small UNet with motion modules, noise prediction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from halign_bench.backbones._puppet import AUDIO, CHANNELS, NEARLY_CLEAN, TIMES, PuppetBackbone
from halign_bench.inserts import Block
from halign_bench.registry import register

LAST_ALPHA = 0.05  # of pure noise: what predicts noise has to be shown a trace of the signal


@register
class PuppetUNet(PuppetBackbone):
    """The kind that the first wave of human animation is built on: a 2-D UNet with motion modules (AnimateDiff,
    arXiv 2307.04725), which predicts the noise. Its codec and audio encoder are those of `puppet-dit`.

    x_t = cos(θ)·x0 + sin(θ)·noise with θ = t·arccos(0.05), the cosine schedule (arXiv 2102.09672) cut off at its end.

    One resolution: latents are 8 x 8, and convolutions of more channels serve better than fewer pixels.
    """

    name = "puppet-unet"
    summary = "small UNetMotionModel, epsilon prediction, for the embedded track"
    parameterisation = "epsilon"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")
    subfolder = component = "unet"

    @classmethod
    def network_class(cls) -> Any:
        from diffusers import UNetMotionModel

        return UNetMotionModel

    @classmethod
    def new_network(cls, latent_channels: int, width: int, layers: int, heads: int) -> Any:
        return cls.network_class()(
            in_channels=3 * latent_channels + CHANNELS,
            out_channels=latent_channels,
            down_block_types=("CrossAttnDownBlockMotion",),
            up_block_types=("CrossAttnUpBlockMotion",),
            block_out_channels=(width,),
            layers_per_block=layers,
            norm_num_groups=min(16, width // 4),
            cross_attention_dim=AUDIO + TIMES,
            num_attention_heads=heads,
            motion_num_attention_heads=heads,
            motion_max_seq_length=32,
        )

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = t * torch.arccos(torch.tensor(LAST_ALPHA, device=t.device))
        return torch.cos(angle), torch.sin(angle)

    def network(self, stacked: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        each = tokens.repeat_interleave(stacked.shape[2], dim=0)  # every latent frame attends to all tokens
        output: Tensor = self.denoiser(stacked, t * 1000, each, return_dict=False)[0]
        return output

    def prediction(self, x_t: Tensor, output: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.alpha_sigma(t)
        nearly_clean = self.alpha_sigma(t.new_tensor(NEARLY_CLEAN))[1]
        return (x_t - alpha * output) / sigma.clamp(min=nearly_clean)

    def blocks(self) -> list[Block]:
        """Of the spatial transformers, which alone attend to sound."""
        levels = [*self.denoiser.down_blocks, self.denoiser.mid_block, *self.denoiser.up_blocks]
        transformers = [transformer for level in levels for transformer in level.attentions]
        return [
            Block(block.norm2, block.attn2, block.ff, block.attn2.to_q.in_features, block.attn2.heads, 1)
            for transformer in transformers
            for block in transformer.transformer_blocks
        ]
