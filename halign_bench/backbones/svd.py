"""Backbone `svd`: Stable Video Diffusion, which animates the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from halign_bench.backbone import Condition
from halign_bench.backbones._codecs import ImageCodec
from halign_bench.backbones._diffusers import DiffusersBackbone
from halign_bench.backbones._schedules import Karras, check_prediction
from halign_bench.backbones._unets import unet_blocks, unet_cell
from halign_bench.inserts import Block
from halign_bench.registry import register
from halign_bench.sampling import derived_seed
from halign_bench.track import FPS, Clip

MOTION = 127  # "motion bucket" of diffusers' pipeline
AUGMENTATION = 0.02  # noise on the first frame, likewise


@register
class SVD(DiffusersBackbone):
    """Stable Video Diffusion (arXiv 2311.15127): a UNet in EDM's preconditioning that predicts v.

    It is told of the first frame, its noise, the motion it should have and the frame rate, and of nothing else.
    Guidance grows from 1 in the first frame to its value in the last.
    """

    name = "svd"
    summary = "Stable Video Diffusion, animates the reference, v prediction; needs --model"
    pipelines = ("StableVideoDiffusionPipeline",)
    component = "unet"
    parameterisation = "v"
    guidance = 3.0

    def prepare(self) -> None:
        check_prediction(self.pipeline.scheduler, "v_prediction", self.name)
        self.codec = ImageCodec(self.pipeline.vae)
        self.levels = Karras(self.pipeline.scheduler)

    def channels(self) -> int:
        return 2 * super().channels()  # the first frame

    def own_clip(self) -> tuple[int, tuple[int, int]]:
        config = self.denoiser.config
        side = config.sample_size * self.codec.spatial
        return 1 + 4 * ((config.num_frames - 1) // 4), (side * 3 // 4, side * 4 // 3)  # 14 or 25; 576 x 1024

    def cell(self) -> int:
        return self.codec.spatial * unet_cell(self.denoiser)

    def native(self, clips: Sequence[Clip]) -> Condition:
        images, latents = self.pipeline._encode_image(self.pictures(clips), self.device, 1, False), []
        for clip in clips:
            image = self.pixels(clip.reference[None, None])
            generator = torch.Generator().manual_seed(derived_seed("noise augmentation", clip.id))
            noise = torch.randn(image.shape, generator=generator).to(image.device)
            latents.append(self.codec.unscaled(image + AUGMENTATION * noise))
        return {"image": images.float(), "first_frame": torch.cat(latents)}

    def unconditional(self, condition: Condition) -> Condition:
        nothing = {name: torch.zeros_like(condition[name]) for name in ("image", "first_frame")}
        return {**super().unconditional(condition), **nothing}

    def guided(self, conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
        ramp = torch.linspace(1, guidance, conditional.shape[2], device=conditional.device).view(-1, 1, 1)
        return unconditional + ramp * (conditional - unconditional)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.levels.alpha_sigma(t)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        dtype = self.denoiser.dtype
        first = condition["first_frame"].expand(-1, -1, x_t.shape[2], -1, -1)
        # Trained on frame rates less one.
        told = torch.tensor([[FPS - 1, MOTION, AUGMENTATION]], dtype=dtype, device=x_t.device).expand(len(x_t), -1)
        made: Tensor = self.denoiser(
            torch.cat([x_t, first], dim=1).transpose(1, 2).to(dtype), self.levels.c_noise(t),
            encoder_hidden_states=condition["image"].to(dtype), added_time_ids=told, return_dict=False,
        )[0]  # fmt: skip
        return made.transpose(1, 2)

    @staticmethod
    def blocks_of(denoiser: Any) -> list[Block]:
        return unet_blocks(denoiser)
