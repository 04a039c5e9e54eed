"""The smallest backbone and track that behave like real ones: for tests only, a few milliseconds a forward.

`TinyBackbone` is a real `WanTransformer3DModel` of width 24 behind a linear codec; `TinyTrack` draws
a dozen 5-frame clips of 16×16 in which a square moves as loudly as the audio is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from halign_bench.backbone import Backbone, Condition
from halign_bench.inserts import Block
from halign_bench.track import SAMPLE_RATE, Clip, Extractor, SkeletonLayout, Track

FRAMES = 5
SIZE = (16, 16)
LAYOUT = SkeletonLayout(body=("nose", "neck"), left_hand=slice(2, 23), right_hand=slice(23, 44), edges=((0, 1),))


def numbers(*key: object) -> np.random.Generator:
    """A generator that depends on its key alone."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


class TinyAnnotator:
    criteria = ("motion", "fidelity")
    protocol = "tiny annotator: distance of motion magnitude, and of pixels, to the prompt's own clip"

    def __call__(self, video: np.ndarray, target: Clip) -> dict[str, float]:
        made, real = video.astype(np.float64) / 255, target.video.astype(np.float64) / 255
        motion = abs(np.abs(np.diff(made, axis=0)).mean() - np.abs(np.diff(real, axis=0)).mean())
        return {"motion": -float(motion), "fidelity": -float(((made - real) ** 2).mean())}


class TinyTrack(Track):
    """12 prompts of 6 people and 8 evaluation clips of 4 others, all made up on the spot."""

    name = "tiny"
    summary = "a moving square, for tests"

    def __init__(
        self, data: Path | None = None, frames: int = FRAMES, size: tuple[int, int] = SIZE, prompts: int = 12,
        evaluation: int = 8,
    ) -> None:
        super().__init__(data, frames, size)
        self.counts = {"prompts": prompts, "eval": evaluation}

    def splits(self) -> Mapping[str, int]:
        return self.counts

    def clip(self, split: str, index: int) -> Clip:
        if not 0 <= index < self.counts[split]:
            raise IndexError(f"{split} has {self.counts[split]} clips, there is no {index}")
        identity = f"{split}-person-{index // 2}"
        person, take = numbers(identity), numbers(split, index)
        height, width = self.size
        colour = person.uniform(40, 215, size=(2, 3))
        loudness = take.uniform(0, 1, size=self.frames)
        column = int(take.integers(0, width - 4))
        video = np.empty((self.frames, height, width, 3), dtype=np.uint8)
        skeleton = np.zeros((self.frames, 44, 3), dtype=np.float32)
        for frame, loud in enumerate(loudness):
            row = int(loud * (height - 4))
            video[frame] = colour[0]
            video[frame, row : row + 4, column : column + 4] = colour[1]
            skeleton[frame, :, 0] = column + 2 + take.uniform(-2, 2, size=44)
            skeleton[frame, :, 1] = row + 2 + take.uniform(-2, 2, size=44)
        skeleton[..., 2] = 1.0
        reference = np.empty((height, width, 3), dtype=np.uint8)
        reference[:] = colour[0]
        per_frame = SAMPLE_RATE // 25
        tone = np.sin(2 * np.pi * 220 * np.arange(self.frames * per_frame) / SAMPLE_RATE)
        audio = (np.repeat(loudness, per_frame) * tone).astype(np.float32)
        return Clip(f"tiny/{split}/{index:03d}", identity, video, reference, audio, skeleton, LAYOUT)

    def extractors(self, device: str = "cpu") -> Mapping[str, Extractor]:
        return {}

    def annotator(self) -> TinyAnnotator:
        return TinyAnnotator()

    def fingerprint(self) -> dict[str, Any]:
        return {"track": self.name, "frames": self.frames, "size": list(self.size), "splits": dict(self.counts)}


class TinyBackbone(Backbone):
    """Latents `[4, 1 + (T-1)/4, H/4, W/4]`: the mean colour of a 4×4 patch, and how its brightness changes."""

    name = "tiny-dit"
    summary = "a random WanTransformer3DModel of width 24, for tests"
    parameterisation = "flow"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    passed = 0  # samples that went through any of them in this process

    def __init__(self, seed: int = 0, frames: int = FRAMES, size: tuple[int, int] = SIZE) -> None:
        import torch
        from diffusers import WanTransformer3DModel

        self.frames, self.size, self.device = frames, size, "cpu"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.denoiser = WanTransformer3DModel(
                patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=9, out_channels=4,
                text_dim=8, freq_dim=16, ffn_dim=48, num_layers=2, rope_max_seq_len=32,
            ).eval().requires_grad_(False)
        self.base_sha256 = hashlib.sha256(f"tiny {seed}".encode()).hexdigest()
        self.forwards = 0  # samples that went through the network, for tests that count

    @classmethod
    def load(cls, checkpoint: Path | None = None, device: str = "cpu") -> TinyBackbone:
        return cls()

    def latent_shape(self) -> tuple[int, int, int, int]:
        return 4, 1 + (self.frames - 1) // 4, self.size[0] // 4, self.size[1] // 4

    def encode(self, videos: np.ndarray) -> Any:
        import torch

        pixels = torch.from_numpy(videos.astype(np.float32) / 127.5 - 1)  # [B, T, H, W, 3]
        pixels = torch.cat([pixels[:, :1].expand(-1, 3, -1, -1, -1), pixels], dim=1)  # the first frame fills its group
        batch, frames, height, width, _ = pixels.shape
        patches = pixels.reshape(batch, frames // 4, 4, height // 4, 4, width // 4, 4, 3)
        colour = patches.mean(dim=(2, 4, 6)).permute(0, 4, 1, 2, 3)  # [B, 3, T', h, w]
        brightness = patches.mean(dim=(4, 6, 7))  # [B, T', 4, h, w]
        slope = brightness[:, :, 2:].mean(2) - brightness[:, :, :2].mean(2)
        return torch.cat([colour, slope[:, None]], dim=1) * 2

    def decode(self, latents: Any) -> np.ndarray:
        latents = latents.float().cpu() / 2
        ramp = latents.new_tensor([-0.5, -0.5, 0.5, 0.5])
        slope = latents[:, 3:, :, None] * ramp[:, None, None]  # [B, 1, T', 4, h, w]
        pixels = (latents[:, :3, :, None] + slope).flatten(2, 3)[:, :, 3:]  # [B, 3, T, h, w]
        pixels = pixels.repeat_interleave(4, dim=3).repeat_interleave(4, dim=4).permute(0, 2, 3, 4, 1)
        return ((pixels + 1) * 127.5).round().clamp(0, 255).byte().numpy()

    def condition(self, clips: Sequence[Clip]) -> Condition:
        import torch

        _, frames, height, width = self.latent_shape()
        still = np.stack([np.repeat(clip.reference[None], self.frames, axis=0) for clip in clips])
        points = np.zeros((len(clips), 1, frames, height, width), dtype=np.float32)
        each = np.zeros((len(clips), self.frames, 1, height, width), dtype=np.float32)
        audio = np.zeros((len(clips), self.frames, 8), dtype=np.float32)
        for position, clip in enumerate(clips):
            if clip.skeleton is not None:
                for frame, keypoints in enumerate(clip.skeleton):
                    x = np.clip(keypoints[:, 0] / 4, 0, width - 1).astype(int)
                    y = np.clip(keypoints[:, 1] / 4, 0, height - 1).astype(int)
                    np.add.at(points[position, 0, (frame + 3) // 4], (y, x), keypoints[:, 2] / 44)
                    np.add.at(each[position, frame, 0], (y, x), keypoints[:, 2] / 44)
            if clip.audio is not None:
                windows = np.array_split(np.abs(clip.audio), self.frames * 8)
                audio[position] = np.array([window.mean() for window in windows]).reshape(self.frames, 8)
        return {
            "reference": self.encode(still),
            "skeleton": torch.from_numpy(points),
            "skeleton_frames": torch.from_numpy(each),
            "audio": torch.from_numpy(audio),
        }

    def unconditional(self, condition: Condition) -> Condition:
        return {**condition, "audio": condition["audio"] * 0}

    def blocks(self) -> list[Block]:
        return [Block(block.norm2, block.attn2, block.ffn, 24, 2, stride=2) for block in self.denoiser.blocks]

    def predict(self, x_t: Any, t: Any, condition: Condition) -> Any:
        import torch

        self.forwards += len(x_t)
        TinyBackbone.passed += len(x_t)
        hidden = torch.cat([x_t, condition["reference"], condition["skeleton"]], dim=1)
        return self.denoiser(
            hidden_states=hidden, timestep=t * 1000, encoder_hidden_states=condition["audio"], return_dict=False
        )[0]
