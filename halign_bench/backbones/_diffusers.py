"""What backbones of published models share: a diffusers pipeline without its loop.

The pipeline loads the checkpoint and prepares prompts and images as its authors do; the harness adds noise, samples
and trains. Whatever a model is not made for it is not given: a clip's reference, skeleton and prompt reach the models
that take them. Beside these every model's condition has what methods bring modules of their own for: `skeleton_frames`,
the skeleton as OpenPose draws it, each frame encoded by itself, and, with an audio encoder, `audio`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from halign_bench.backbone import Backbone, Condition, native_precision
from halign_bench.backbones import _pipelines
from halign_bench.errors import RequestError
from halign_bench.inserts import Block
from halign_bench.openpose import draw_openpose, dwpose_brush
from halign_bench.processes import here
from halign_bench.track import Clip
from halign_bench.wav2vec2 import Wav2Vec2


class DiffusersBackbone(Backbone):
    """A model says how its codec, its conditions and its network are called, and how its noise levels are counted.

    pipelines  classes of diffusers that it aligns
    component  the pipeline's component that is trained
    codec      of `_codecs`
    """

    pipelines: ClassVar[tuple[str, ...]]
    component = "transformer"
    needs_model = True
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")  # as diffusers' own LoRA scripts
    brush = staticmethod(dwpose_brush)  # that skeletons are drawn with
    codec: Any

    def __init__(
        self, pipeline: Any, base_sha256: str, device: str = "cpu", frames: int | None = None,
        size: tuple[int, int] | None = None, ears: Wav2Vec2 | None = None,
    ) -> None:  # fmt: skip
        self.pipeline, self.denoiser = pipeline, getattr(pipeline, self.component)
        self.base_sha256, self.device, self.ears = base_sha256, device, ears
        self.checkpointing = device.startswith("cuda")  # a clip's tokens are tens of thousands, through 30 blocks
        self.prepare()
        if (takes := self.denoiser.config.in_channels) != (given := self.channels()):
            raise RequestError(
                f"backbone {self.name}: the {self.component} takes {takes} channels, and its codec and conditions have "
                f"{given}"
            )
        own_frames, own_size = self.own_clip()
        self.frames, self.size = frames or own_frames, size or own_size
        self.check_clip()

    @classmethod
    def load(
        cls, checkpoint: str | Path | None = None, device: str = "cpu", frames: int | None = None,
        size: tuple[int, int] | None = None, audio_encoder: str | None = None,
    ) -> DiffusersBackbone:  # fmt: skip
        assert checkpoint is not None  # it needs one, and says so
        index = _pipelines.read_index(checkpoint)
        if refusal := cls.refusal(index):
            raise RequestError(f"--model {checkpoint}: {refusal}")
        ears = None if audio_encoder is None else Wav2Vec2(audio_encoder, device)
        folder = _pipelines.folder_of(checkpoint)
        # On a GPU as they are published; a processor multiplies in bf16 too where it can, on fp32 weights.
        on_gpu = device.startswith("cuda") and native_precision(device) == "bf16"
        dtype = torch.bfloat16 if on_gpu else torch.float32
        pipeline = _pipelines.load(folder, index, dtype, device, cls.component if here().sharded else None)
        sources = [folder] if ears is None else [folder, ears.folder]
        return cls(pipeline, _pipelines.digest(*sources), device, frames, size, ears)

    @classmethod
    def refusal(cls, index: Mapping[str, Any]) -> str | None:
        """Why a pipeline that says this of itself is none for this backbone, before its weights are fetched."""
        if (found := index.get("_class_name")) not in cls.pipelines:
            return f"is a {found}, backbone {cls.name} needs a {' or a '.join(cls.pipelines)}"
        return None

    # What a model says.

    def prepare(self) -> None:
        """Sets `codec`, and whatever else follows from the checkpoint alone. Raises RequestError where it is unfit."""
        raise NotImplementedError

    def channels(self) -> int:
        """Of what the network is given: latents, and what of its condition is stacked on them."""
        return int(self.codec.channels)

    def own_clip(self) -> tuple[int, tuple[int, int]]:
        """(frames, (height, width)) that the model was published for."""
        raise NotImplementedError

    def cell(self) -> int:
        """Pixels that height and width must be multiples of."""
        raise NotImplementedError

    def encode_text(self, prompts: list[str]) -> Tensor | None:
        """`[B, L, D]`; None for a model that reads none."""
        return None

    def native(self, clips: Sequence[Clip]) -> Condition:
        """What the model itself is told of clips beside their prompts; the names are its own."""
        return {}

    @staticmethod
    def blocks_of(denoiser: Any) -> list[Block]:
        """Where methods may add to such a network; none where its tokens are not a latent frame's."""
        return []

    # What follows.

    def blocks(self) -> list[Block]:
        return self.blocks_of(self.denoiser)

    def encoders(self) -> list[torch.nn.Module]:
        """Every network of the pipeline but the one that trains."""
        if self.pipeline.components.get("text_encoder") is not None:
            self.no_text  # noqa: B018  # guidance's second branch may be asked for while the encoder is away
        others = [each for each in self.pipeline.components.values() if isinstance(each, torch.nn.Module)]
        return [*(each for each in others if each is not self.denoiser), *([self.ears.net] if self.ears else [])]

    def check_clip(self) -> None:
        cell, (height, width) = self.cell(), self.size
        if height % cell or width % cell:
            raise RequestError(f"--size {width}x{height}: {self.name} takes multiples of {cell}")

    def latent_shape(self) -> tuple[int, int, int, int]:
        latent_frames = self.slots + 1 + (self.frames - 1) // self.codec.temporal
        height, width = (side // self.codec.spatial for side in self.size)
        return self.codec.channels, latent_frames, height, width

    def pixels(self, videos: np.ndarray) -> Tensor:
        """uint8 `[B, T, H, W, 3]` -> `[B, 3, T, H, W]` in [-1, 1]."""
        on_device = torch.from_numpy(np.ascontiguousarray(videos)).to(self.device).movedim(-1, 1)
        return on_device.float() / 127.5 - 1

    def encoded(self, videos: np.ndarray) -> Tensor:
        """Latents without slots, one clip after the other."""
        return torch.cat([self.codec.encode(self.pixels(video[None])) for video in videos])

    @torch.no_grad()
    def encode(self, videos: np.ndarray) -> Tensor:
        latents = self.encoded(videos)
        return torch.cat([self.front(videos, latents), latents], dim=2) if self.slots else latents

    def front(self, videos: np.ndarray, latents: Tensor) -> Tensor:
        """Clean latents `[B, C, slots, h, w]` of the slots; where the reference's is, a clip's first frame."""
        return self.encoded(videos[:, :1])

    @torch.no_grad()
    def with_references(self, clips: Sequence[Clip]) -> Tensor:
        """`encode_clips` of a model whose slot holds the reference."""
        references = self.encoded(np.stack([clip.reference[None] for clip in clips]))
        return torch.cat([references, self.encoded(np.stack([clip.video for clip in clips]))], dim=2)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        videos = []
        for video in latents[:, :, self.slots :].to(self.device).split(1):
            pixels = self.codec.decode(video).clamp(-1, 1)
            videos.append(((pixels + 1) * 127.5).round().to(torch.uint8).movedim(1, -1).cpu())
        return torch.cat(videos).numpy()

    @torch.no_grad()
    def condition(self, clips: Sequence[Clip]) -> Condition:
        condition = {name: tensor.to(self.device) for name, tensor in self.native(clips).items()}
        if (text := self.encode_text([clip.prompt for clip in clips])) is not None:
            condition["text"] = text.to(self.device).float()
        condition["skeleton_frames"] = self.skeleton_frames(clips)
        if self.ears is not None:
            audio = torch.zeros(len(clips), self.frames, self.ears.width)
            for row, clip in enumerate(clips):
                if clip.audio is not None:
                    audio[row] = self.ears(clip.audio, self.frames)
            condition["audio"] = audio.to(self.device)
        return condition

    def unconditional(self, condition: Condition) -> Condition:
        """The prompt is empty and there is no sound, where there are any."""
        empty = dict(condition)
        if "text" in condition:
            empty["text"] = self.no_text.to(condition["text"].device).expand_as(condition["text"])
        if "audio" in condition:
            empty["audio"] = torch.zeros_like(condition["audio"])
        return empty

    @cached_property
    def no_text(self) -> Tensor:
        with torch.no_grad():
            text = self.encode_text([""])
        assert text is not None
        return text.float()

    def pose(self, clip: Clip) -> np.ndarray | None:
        """uint8 `[T, H, W, 3]`, the skeleton as published models know it; None where there is none."""
        if clip.skeleton is None or clip.layout is None:
            return None
        return draw_openpose(clip.skeleton, clip.layout, self.size, self.brush(self.size))

    def skeleton_frames(self, clips: Sequence[Clip]) -> Tensor:
        """`[B, T, C, h, w]`, half precision: methods that fold frames read it, and it is as large as four clips."""
        channels, _, height, width = self.latent_shape()
        frames = torch.zeros(len(clips), self.frames, channels, height, width, dtype=torch.half, device=self.device)
        for row, clip in enumerate(clips):
            if (pose := self.pose(clip)) is not None:
                frames[row] = self.encoded(pose[:, None])[:, :, 0].half()
        return frames

    def pictures(self, clips: Sequence[Clip]) -> list[Any]:
        """References as images of PIL, which image encoders are given."""
        from PIL import Image

        return [Image.fromarray(clip.reference) for clip in clips]
