"""Backbone `wan`: Wan 2.1, from a prompt, or from a prompt and the reference as its first frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from halign_bench.backbone import Condition
from halign_bench.backbones._wan import WanFamily
from halign_bench.registry import register
from halign_bench.track import Clip


@register
class Wan(WanFamily):
    """Wan (arXiv 2503.20314). Where the checkpoint is of the image-to-video kind the reference is the first frame."""

    name = "wan"
    summary = "Wan 2.1 text-to-video or image-to-video, flow matching; needs --model"
    pipelines = ("WanPipeline", "WanImageToVideoPipeline")

    def prepare(self) -> None:
        super().prepare()
        self.from_image = type(self.pipeline).__name__ == "WanImageToVideoPipeline"

    def channels(self) -> int:
        own = super().channels()
        return 2 * own + self.codec.temporal if self.from_image else own  # a mask of video frames, and a latent

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
            condition["image"] = self.pipeline.encode_image(self.pictures(clips), self.device).float()
        return condition

    def inputs(self, x_t: Tensor, condition: Condition) -> dict[str, Tensor]:
        if not self.from_image:
            return {"hidden_states": x_t}
        seen = {"encoder_hidden_states_image": condition["image"]} if "image" in condition else {}
        return {"hidden_states": torch.cat([x_t, condition["first_frame"]], dim=1), **seen}
