"""Backbone `wan-animate`: Wan 2.2 Animate, driven by a reference, a skeleton and a face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from halign_bench.backbone import Condition
from halign_bench.backbones._wan import WanFamily
from halign_bench.openpose import animate_brush
from halign_bench.registry import register
from halign_bench.track import Clip


@register
class WanAnimate(WanFamily):
    """Wan-Animate (arXiv 2509.14055) in its animation mode, one segment.

    It is driven by a video of a face beside the skeleton. Here that is the clip's own face, cut out around the nose:
    self-reenactment, as its paper evaluates it, so what its samples say of lip-sync tells nothing about sound. A clip
    without a skeleton has no such video, and the network is shown what guidance's second branch shows: blank frames.

    The first latent frame is the reference's slot, as in `wan-vace`.
    """

    name = "wan-animate"
    summary = "Wan 2.2 Animate, driven by reference, skeleton and the clip's own face; needs --model"
    pipelines = ("WanAnimatePipeline",)
    guidance = 1.0  # of diffusers' pipeline and of its authors' code: off
    slots = 1
    brush = staticmethod(animate_brush)

    def channels(self) -> int:
        return 2 * super().channels() + self.codec.temporal  # as image-to-video: a mask of video frames, and a latent

    def own_clip(self) -> tuple[int, tuple[int, int]]:
        return 77, super().own_clip()[1]

    def encode_clips(self, clips: Sequence[Clip]) -> Tensor:
        return self.with_references(clips)

    def native(self, clips: Sequence[Clip]) -> Condition:
        height, width = self.size
        before = self.pipeline.prepare_prev_segment_cond_latents(
            None, segment_frame_length=self.frames, height=height, width=width, device=self.device
        )
        references, poses = [], []
        for clip in clips:
            image = self.pixels(clip.reference[None, None])[:, :, 0]
            references.append(self.pipeline.prepare_reference_image_latents(image, device=self.device))
            poses.append(self.pipeline.prepare_pose_latents(self.pixels(self.drawn(clip)[None]), device=self.device))
        return {
            "reference": torch.cat([torch.cat([row, before], dim=2) for row in references]).float(),
            "skeleton": torch.cat(poses).float(),
            "image": self.pipeline.encode_image(self.pictures(clips), self.device).float(),
            "face": torch.from_numpy(np.stack([self.face(clip) for clip in clips])),
        }

    def drawn(self, clip: Clip) -> np.ndarray:
        pose = self.pose(clip)
        return np.zeros((self.frames, *self.size, 3), np.uint8) if pose is None else pose

    def face(self, clip: Clip) -> np.ndarray:
        """uint8 `[T, S, S, 3]`: what is around the nose, as wide as from there to the neck; black is blank.

        That is about the box around a grown-up's facial landmarks, a little enlarged, that its authors cut out.
        """
        from PIL import Image

        side = int(self.denoiser.config.motion_encoder_size)
        made = np.zeros((self.frames, side, side, 3), np.uint8)
        if clip.skeleton is None or clip.layout is None or not {"nose", "neck"} <= set(clip.layout.body):
            return made
        nose, neck = (clip.skeleton[:, clip.layout.body.index(joint), :2] for joint in ("nose", "neck"))
        for frame, (place, reach) in enumerate(zip(nose, np.linalg.norm(neck - nose, axis=-1), strict=True)):
            box = (*(place - reach / 2), *(place + reach / 2))
            made[frame] = np.asarray(Image.fromarray(clip.video[frame]).resize((side, side), box=self.within(box)))
        return made

    def within(self, box: tuple[float, ...]) -> tuple[float, ...]:
        """Of (left, top, right, bottom) what lies in the frame, at least a pixel of it."""
        height, width = self.size
        left, top = (float(np.clip(edge, 0, most - 1)) for edge, most in zip(box[:2], (width, height), strict=True))
        right, bottom = (float(np.clip(edge, 1, most)) for edge, most in zip(box[2:], (width, height), strict=True))
        return left, top, max(right, left + 1), max(bottom, top + 1)

    def unconditional(self, condition: Condition) -> Condition:
        return {**super().unconditional(condition), "face": torch.zeros_like(condition["face"])}

    def inputs(self, x_t: Tensor, condition: Condition) -> dict[str, Tensor]:
        return {
            "hidden_states": torch.cat([x_t, condition["reference"]], dim=1),
            "encoder_hidden_states_image": condition["image"], "pose_hidden_states": condition["skeleton"],
            "face_pixel_values": condition["face"].movedim(-1, 1).float() / 127.5 - 1,
        }  # fmt: skip
