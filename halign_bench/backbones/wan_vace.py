"""Backbone `wan-vace`: Wan with VACE's control branch, given the skeleton as a video and the reference as an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from halign_bench.backbone import Condition
from halign_bench.backbones._codecs import WanCodec
from halign_bench.backbones._diffusers import DiffusersBackbone
from halign_bench.backbones._wan import GUIDANCE, STEPS, wan_blocks, wan_clip, wan_prepare, wan_text
from halign_bench.inserts import Block
from halign_bench.registry import register
from halign_bench.track import Clip


@register
class WanVACE(DiffusersBackbone):
    """VACE (arXiv 2503.07598), the task that its authors call reference and pose to video.

    The first latent frame is the reference's slot: it is noised, denoised and then thrown away, as in diffusers. A
    clip without a skeleton has the grey control video of the pipeline's default.
    """

    name = "wan-vace"
    summary = "Wan 2.1 VACE, driven by reference and skeleton, flow matching; needs --model"
    pipelines = ("WanVACEPipeline",)
    parameterisation = "flow"
    guidance = GUIDANCE
    slots = 1

    def prepare(self) -> None:
        wan_prepare(self)
        self.codec = WanCodec(self.pipeline.vae)

    def own_clip(self) -> tuple[int, tuple[int, int]]:
        return wan_clip(self)

    def cell(self) -> int:
        return self.codec.spatial * int(self.denoiser.config.patch_size[1])

    def encode_text(self, prompts: list[str]) -> Tensor:
        return wan_text(self, prompts)

    def encode_clips(self, clips: Sequence[Clip]) -> Tensor:
        return self.with_references(clips)

    def native(self, clips: Sequence[Clip]) -> Condition:
        rows = []
        for clip in clips:
            drawn = self.pixels(self.pose(clip)[None])
            control = drawn if clip.skeleton is not None else torch.zeros_like(drawn)
            everything = torch.ones_like(control)  # all of it is to be made, nothing is kept
            reference = [[self.pixels(clip.reference[None, None])[0, :, 0]]]
            latents = self.pipeline.prepare_video_latents(control, everything, reference, device=self.device)
            rows.append(torch.cat([latents, self.pipeline.prepare_masks(everything, reference)], dim=1).float())
        return {"control": torch.cat(rows)}

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        dtype = self.denoiser.dtype
        made: Tensor = self.denoiser(
            hidden_states=x_t.to(dtype), timestep=t * STEPS, encoder_hidden_states=condition["text"].to(dtype),
            control_hidden_states=condition["control"].to(dtype), return_dict=False,
        )[0]  # fmt: skip
        return made

    @staticmethod
    def blocks_of(denoiser: Any) -> list[Block]:
        return wan_blocks(denoiser)
