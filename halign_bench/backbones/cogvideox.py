"""Backbone `cogvideox`: CogVideoX 1.0 and 1.5, from a prompt, or from a prompt and the reference as its first frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from halign_bench.backbone import Condition
from halign_bench.backbones._codecs import CogVideoXCodec
from halign_bench.backbones._diffusers import DiffusersBackbone
from halign_bench.backbones._schedules import Discrete, check_prediction
from halign_bench.errors import RequestError
from halign_bench.inserts import Block
from halign_bench.registry import register
from halign_bench.track import Clip

OFFSET = 2.0  # told to image-to-video 1.5, a constant of diffusers' pipeline


@register
class CogVideoX(DiffusersBackbone):
    """CogVideoX (arXiv 2408.06072): v prediction on a schedule whose last step is pure noise.

    1.5 takes latent frames two by two; where their number is odd the first one is repeated in front (a slot), as in
    its training code, and thrown away again. The reference's latent is the mode of the codec's distribution, of which
    diffusers draws.
    """

    name = "cogvideox"
    summary = "CogVideoX text-to-video or image-to-video, v prediction; needs --model"
    pipelines = ("CogVideoXPipeline", "CogVideoXImageToVideoPipeline")
    parameterisation = "v"
    guidance = 6.0  # of diffusers' pipeline

    def prepare(self) -> None:
        check_prediction(self.pipeline.scheduler, "v_prediction", self.name)
        self.codec = CogVideoXCodec(self.pipeline.vae)
        self.levels = Discrete(self.pipeline.scheduler)
        self.from_image = type(self.pipeline).__name__ == "CogVideoXImageToVideoPipeline"

    def channels(self) -> int:
        return super().channels() * (2 if self.from_image else 1)

    def own_clip(self) -> tuple[int, tuple[int, int]]:
        config, spatial = self.denoiser.config, self.codec.spatial
        return config.sample_frames, (config.sample_height * spatial, config.sample_width * spatial)

    def cell(self) -> int:
        return self.codec.spatial * int(self.denoiser.config.patch_size)

    def check_clip(self) -> None:
        super().check_clip()
        config, latent_frames = self.denoiser.config, 1 + (self.frames - 1) // self.codec.temporal
        if latent_frames % 2 == 0:
            raise RequestError(f"--frames {self.frames}: CogVideoX's codec takes 1 + 8n frames (9, 17, 25, …)")
        if config.use_learned_positional_embeddings and (self.frames, self.size) != self.own_clip():
            frames, (height, width) = self.own_clip()
            raise RequestError(
                f"this CogVideoX has learned positions of {frames} frames of {width}x{height}; leave --frames and "
                "--size out"
            )
        self.slots = -latent_frames % (config.patch_size_t or 1)

    def encode_text(self, prompts: list[str]) -> Tensor:
        made: Tensor = self.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, device=self.device,
            max_sequence_length=self.denoiser.config.max_text_seq_length,
        )[0]  # fmt: skip
        return made

    def front(self, videos: np.ndarray, latents: Tensor) -> Tensor:
        return latents[:, :, :1]

    def native(self, clips: Sequence[Clip]) -> Condition:
        if not self.from_image:
            return {}
        first = self.encoded(np.stack([clip.reference[None] for clip in clips]))
        if self.pipeline.vae.config.invert_scale_latents:  # 1.5 was trained with them divided twice
            first = first / self.codec.scale**2
        later = torch.zeros(len(first), *self.latent_shape(), device=first.device)[:, :, 1:]
        return {"first_frame": torch.cat([first, later], dim=2)}

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.levels.alpha_sigma(t)

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        config, dtype = self.denoiser.config, self.denoiser.dtype
        stacked = torch.cat([x_t, condition["first_frame"]], dim=1) if self.from_image else x_t
        positions = None
        if config.use_rotary_positional_embeddings:
            positions = self.pipeline._prepare_rotary_positional_embeddings(*self.size, x_t.shape[2], x_t.device)
        made: Tensor = self.denoiser(
            hidden_states=stacked.transpose(1, 2).to(dtype), encoder_hidden_states=condition["text"].to(dtype),
            timestep=self.levels.step(t), image_rotary_emb=positions, return_dict=False,
            ofs=None if config.ofs_embed_dim is None else x_t.new_full((1,), OFFSET),
        )[0]  # fmt: skip
        return made.transpose(1, 2)

    @staticmethod
    def blocks_of(denoiser: Any) -> list[Block]:
        """None of 1.5, each of whose tokens is of two latent frames.

        Prompt and video attend to each other in one attention whose output is gated, so additions to the stream come
        behind the whole block.
        """
        config = denoiser.config
        if config.patch_size_t is not None:
            return []
        width = config.num_attention_heads * config.attention_head_dim
        return [
            Block(None, block, block.ff, width, config.num_attention_heads, config.patch_size)
            for block in denoiser.transformer_blocks
        ]
