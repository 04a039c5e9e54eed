"""Backbone `wan`: Wan 2.1, from a prompt, or from a prompt and the reference as its first frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from halign_bench.backbone import Condition
from halign_bench.backbones._codecs import WanCodec
from halign_bench.backbones._diffusers import DiffusersBackbone
from halign_bench.backbones._wan import GUIDANCE, STEPS, wan_blocks, wan_clip, wan_prepare, wan_text
from halign_bench.errors import RequestError
from halign_bench.inserts import Block
from halign_bench.registry import register
from halign_bench.track import Clip


@register
class Wan(DiffusersBackbone):
    """Wan (arXiv 2503.20314). Where the checkpoint is of the image-to-video kind the reference is the first frame."""

    name = "wan"
    summary = "Wan 2.1 text-to-video or image-to-video, flow matching; needs --model"
    pipelines = ("WanPipeline", "WanImageToVideoPipeline")
    parameterisation = "flow"
    guidance = GUIDANCE

    def prepare(self) -> None:
        wan_prepare(self)
        self.codec = WanCodec(self.pipeline.vae)
        channels, own = self.denoiser.config.in_channels, self.codec.channels
        self.from_image = type(self.pipeline).__name__ == "WanImageToVideoPipeline"
        expected = 2 * own + self.codec.temporal if self.from_image else own
        if channels != expected:
            raise RequestError(f"wan: its transformer takes {channels} channels where {expected} are expected")

    def own_clip(self) -> tuple[int, tuple[int, int]]:
        return wan_clip(self)

    def cell(self) -> int:
        return self.codec.spatial * int(self.denoiser.config.patch_size[1])

    def encode_text(self, prompts: list[str]) -> Tensor:
        return wan_text(self, prompts)

    def native(self, clips: Sequence[Clip]) -> Condition:
        if not self.from_image:
            return {}
        height, width = self.size
        rows, nothing = [], torch.zeros(1, device=self.device)  # latents are given, so that none are drawn
        for clip in clips:
            image = self.pixels(clip.reference[None, None])[:, :, 0]
            rows.append(self.pipeline.prepare_latents(
                image, 1, self.codec.channels, height, width, self.frames, torch.float32, self.device, None, nothing
            )[1])  # fmt: skip
        condition: Condition = {"first_frame": torch.cat(rows)}
        if self.denoiser.config.image_dim is not None:
            condition["image"] = self.pipeline.encode_image(self.references(clips), self.device).float()
        return condition

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        stacked = torch.cat([x_t, condition["first_frame"]], dim=1) if self.from_image else x_t
        dtype = self.denoiser.dtype
        image = condition["image"].to(dtype) if "image" in condition else None
        made: Tensor = self.denoiser(
            hidden_states=stacked.to(dtype), timestep=t * STEPS, encoder_hidden_states=condition["text"].to(dtype),
            encoder_hidden_states_image=image, return_dict=False,
        )[0]  # fmt: skip
        return made

    @staticmethod
    def blocks_of(denoiser: Any) -> list[Block]:
        return wan_blocks(denoiser)
