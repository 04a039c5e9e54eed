"""Backbone `animatediff`: Stable Diffusion 1.5 with AnimateDiff's motion modules, from a prompt."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from halign_bench.backbone import Condition
from halign_bench.backbones._codecs import ImageCodec
from halign_bench.backbones._diffusers import DiffusersBackbone
from halign_bench.backbones._schedules import Discrete, check_prediction
from halign_bench.backbones._unets import unet_blocks, unet_cell
from halign_bench.inserts import Block
from halign_bench.registry import register


@register
class AnimateDiff(DiffusersBackbone):
    """AnimateDiff (arXiv 2307.04725): `--model` is a folder that `AnimateDiffPipeline.save_pretrained` wrote, in which
    a motion adapter and an image model are one UNet. It reads a prompt and is told of nothing else.
    """

    name = "animatediff"
    summary = "AnimateDiff on Stable Diffusion 1.5, from a prompt, epsilon prediction; needs --model"
    pipelines = ("AnimateDiffPipeline",)
    component = "unet"
    parameterisation = "epsilon"
    guidance = 7.5  # of diffusers' pipeline

    def prepare(self) -> None:
        check_prediction(self.pipeline.scheduler, "epsilon", self.name)
        self.pipeline.register_modules(motion_adapter=None)  # its weights are the UNet's, this is a second copy
        self.codec = ImageCodec(self.pipeline.vae)
        self.levels = Discrete(self.pipeline.scheduler)

    def own_clip(self) -> tuple[int, tuple[int, int]]:
        side = self.denoiser.config.sample_size * self.codec.spatial
        return 17, (side, side)  # 16 in its paper

    def cell(self) -> int:
        return self.codec.spatial * unet_cell(self.denoiser)

    def encode_text(self, prompts: list[str]) -> Tensor:
        made: Tensor = self.pipeline.encode_prompt(prompts, self.device, 1, False)[0]
        return made

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.levels.alpha_sigma(t)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        dtype, frames = self.denoiser.dtype, x_t.shape[2]
        text = condition["text"].to(dtype).repeat_interleave(frames, dim=0)
        made: Tensor = self.denoiser(x_t.to(dtype), self.levels.step(t), text, return_dict=False)[0]
        return made

    @staticmethod
    def blocks_of(denoiser: Any) -> list[Block]:
        return unet_blocks(denoiser)
