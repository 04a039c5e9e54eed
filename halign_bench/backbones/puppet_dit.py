"""Backbone `puppet-dit`: a tiny-config Wan transformer with a light codec, flow matching.

The skeleton is drawn and encoded by the same codec and, like the reference image, joins the noisy
latent as extra channels. There is one audio token a latent frame, from the video frame at that
latent's place in time; it joins the channels of its own frame, and every position attends to all
of them by cross-attention. The three video frames between two tokens have no token of their own:
that is the temporal mismatch of a stride-4 codec.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from halign_bench.audio import log_mel
from halign_bench.backbone import Backbone, Condition
from halign_bench.codec import SPATIAL_STRIDE, TEMPORAL_STRIDE, PuppetCodec
from halign_bench.errors import RequestError
from halign_bench.registry import register
from halign_bench.skeleton import draw_skeleton
from halign_bench.track import Clip

if TYPE_CHECKING:
    from diffusers import WanTransformer3DModel

SHIPPED = Path(__file__).parent.parent / "weights" / "puppet-dit"
AUDIO_BANDS = 20
AUDIO_REACH = 1  # an audio token sees its own video frame and this many on either side
AUDIO = AUDIO_BANDS * (2 * AUDIO_REACH + 1)
TIMES = 4  # sinusoids of time, which an audio token carries too: attention alone does not see order
POSITIONS = TIMES + 4  # and of row and column


def make_transformer(latent_channels: int, width: int, layers: int, heads: int) -> WanTransformer3DModel:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=3 * latent_channels + POSITIONS + AUDIO,
        out_channels=latent_channels,
        text_dim=AUDIO + TIMES,
        freq_dim=128,
        ffn_dim=4 * width,
        num_layers=layers,
        cross_attn_norm=True,
        rope_max_seq_len=64,
    )


def subsampled_audio(features: Tensor) -> Tensor:
    """`[B, T, F]` -> `[B, 1 + (T-1)/4, F·(2·reach+1)]`: every fourth frame with its neighbours."""
    padded = torch.nn.functional.pad(features, (0, 0, AUDIO_REACH, AUDIO_REACH))
    windows = padded.unfold(1, 2 * AUDIO_REACH + 1, 1)  # [B, T, F, window]
    return windows[:, ::TEMPORAL_STRIDE].flatten(2)


def position_channels(shape: Sequence[int], like: Tensor) -> Tensor:
    """`[1, 8, T, H, W]`: sine and cosine of time (two octaves), row and column."""
    frames, height, width = (torch.arange(n, device=like.device, dtype=like.dtype) for n in shape)
    waves = [(frames.view(-1, 1, 1), 0.5), (frames.view(-1, 1, 1), 1.5), (height.view(1, -1, 1), 0.35),
             (width.view(1, 1, -1), 0.35)]  # fmt: skip
    channels = [fn(axis * rate).expand(*shape) for axis, rate in waves for fn in (torch.sin, torch.cos)]
    return torch.stack(channels)[None]


@register
class PuppetDiT(Backbone):
    """Small enough to train on two cores, built of the classes that billion-parameter models use."""

    name = "puppet-dit"
    summary = "tiny WanTransformer3DModel, flow matching, for the embedded track and quick trials"
    parameterisation = "flow"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")

    def __init__(
        self, denoiser: WanTransformer3DModel, codec: PuppetCodec, base_sha256: str, device: str = "cpu",
        frames: int = 17, size: tuple[int, int] = (64, 64),
    ) -> None:  # fmt: skip
        self.denoiser = denoiser.to(device).eval().requires_grad_(False)
        self.codec = codec.to(device).eval().requires_grad_(False)
        self.base_sha256, self.device, self.frames, self.size = base_sha256, device, frames, size

    @classmethod
    def load(cls, checkpoint: Path | None = None, device: str = "cpu") -> PuppetDiT:
        from diffusers import WanTransformer3DModel
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = checkpoint or SHIPPED
        needed = [folder / "codec.safetensors", folder / "transformer" / "diffusion_pytorch_model.safetensors"]
        for file in needed:
            if not file.is_file():
                raise RequestError(f"backbone puppet-dit: {file} is missing; make it with `halign-bench pretrain`")
        try:
            weights = load_file(needed[0])
            codec = PuppetCodec(*codec_shape(weights))
            codec.load_state_dict({key: value.float() for key, value in weights.items()})
            denoiser = WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
        except (SafetensorError, RuntimeError, OSError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise RequestError(f"backbone puppet-dit: the checkpoint in {folder} cannot be read ({reason})") from error
        digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in needed)).hexdigest()
        return cls(denoiser, codec, digest, device)

    def save(self, folder: Path) -> None:
        """Half-precision files in diffusers' layout, readable by `load`."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        halves = {key: value.half().contiguous() for key, value in self.codec.state_dict().items()}
        save_file(halves, folder / "codec.safetensors")
        twin = type(self.denoiser).from_config(self.denoiser.config)
        twin.load_state_dict(self.denoiser.state_dict())
        twin.half().save_pretrained(folder / "transformer")

    def latent_shape(self) -> tuple[int, int, int, int]:
        latent_frames = 1 + (self.frames - 1) // TEMPORAL_STRIDE
        return self.codec.latent_channels, latent_frames, self.size[0] // SPATIAL_STRIDE, self.size[1] // SPATIAL_STRIDE

    @torch.no_grad()
    def encode(self, videos: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(videos)).to(self.device).permute(0, 4, 1, 2, 3)
        return self.codec.encode(pixels.float() / 127.5 - 1)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        pixels = self.codec.decode(latents.to(self.device)).clamp(-1, 1)
        return ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy()

    def condition(self, clips: Sequence[Clip]) -> Condition:
        channels, latent_frames, height, width = self.latent_shape()
        skeletons = torch.zeros(len(clips), channels, latent_frames, height, width, device=self.device)
        audio = torch.zeros(len(clips), self.frames, AUDIO_BANDS)
        drawn = {}
        for row, clip in enumerate(clips):
            if clip.audio is not None:
                audio[row] = torch.from_numpy(log_mel(clip.audio, self.frames, AUDIO_BANDS))
            if clip.skeleton is not None and clip.layout is not None:
                drawn[row] = draw_skeleton(clip.skeleton, clip.layout, self.size)
        if drawn:
            skeletons[list(drawn)] = self.encode(np.stack(list(drawn.values())))
        reference = self.encode(np.stack([clip.reference[None] for clip in clips]))
        return {"reference": reference, "skeleton": skeletons, "audio": audio.to(self.device)}

    def unconditional(self, condition: Condition) -> Condition:
        return {**condition, "audio": torch.zeros_like(condition["audio"])}

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        shape = x_t.shape[2:]
        reference = condition["reference"].expand(-1, -1, shape[0], -1, -1)
        position = position_channels(shape, x_t).expand(len(x_t), -1, -1, -1, -1)
        tokens = subsampled_audio(condition["audio"])
        heard = tokens.transpose(1, 2)[..., None, None].expand(-1, -1, *shape)
        stacked = torch.cat([x_t, condition["skeleton"], reference, position, heard], dim=1)
        times = position[:, :TIMES, :, 0, 0].transpose(1, 2)
        tokens = torch.cat([tokens, times], dim=-1)
        prediction: Tensor = self.denoiser(stacked, t * 1000, tokens, return_dict=False)[0]
        return prediction


def codec_shape(weights: dict[str, Tensor]) -> tuple[int, int]:
    """(latent channels, width) of a codec, read off its weights."""
    return len(weights["scale"]), len(weights["across_time.bias"]) // 3
