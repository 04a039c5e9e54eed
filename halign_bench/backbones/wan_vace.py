"""Backbone `wan-vace`: Wan with VACE's control branch, given the skeleton as a video and the reference as an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from halign_bench.backbone import Condition
from halign_bench.backbones._wan import WanFamily
from halign_bench.errors import RequestError
from halign_bench.registry import register
from halign_bench.track import Clip


@register
class WanVACE(WanFamily):
    """VACE (arXiv 2503.07598), the task that its authors call reference and pose to video.

    The first latent frame is the reference's slot: it is noised, denoised and then thrown away, as in diffusers. A
    clip without a skeleton has the grey control video of the pipeline's default. VACE's own preprocessing draws body
    and face by DWPose; tracks have no facial landmarks but hands, which are drawn by DWPose's rule too.
    """

    name = "wan-vace"
    summary = "Wan 2.1 VACE, driven by reference and skeleton, flow matching; needs --model"
    pipelines = ("WanVACEPipeline",)
    slots = 1

    def prepare(self) -> None:
        super().prepare()
        takes = self.denoiser.config.vace_in_channels
        # What is kept, what is made anew, and a mask of each latent cell's pixels.
        given = 2 * self.codec.channels + self.codec.spatial**2
        if takes != given:
            raise RequestError(f"backbone wan-vace: its control branch takes {takes} channels, and there are {given}")

    def encode_clips(self, clips: Sequence[Clip]) -> Tensor:
        return self.with_references(clips)

    def native(self, clips: Sequence[Clip]) -> Condition:
        rows = []
        for clip in clips:
            pose = self.pose(clip)
            shape = (1, 3, self.frames, *self.size)
            control = torch.zeros(shape, device=self.device) if pose is None else self.pixels(pose[None])
            everything = torch.ones_like(control)  # all of it is to be made, nothing is kept
            reference = [[self.pixels(clip.reference[None, None])[0, :, 0]]]
            latents = self.pipeline.prepare_video_latents(control, everything, reference, device=self.device)
            rows.append(torch.cat([latents, self.pipeline.prepare_masks(everything, reference)], dim=1).float())
        return {"control": torch.cat(rows)}

    def inputs(self, x_t: Tensor, condition: Condition) -> dict[str, Tensor]:
        return {"hidden_states": x_t, "control_hidden_states": condition["control"]}
