"""What the embedded backbones share: codec, conditions, files, and a network that predicts the clean latent.

The skeleton is drawn and encoded by the same codec and, like the reference image, joins the noisy
latent as extra channels. Sound is read by a small encoder of its own as the mouth that makes it.
There is one audio token a latent frame, from the video frame at that latent's place in time and its
two neighbours, and every position attends to all tokens. The mouths that these ask for are also drawn
where the skeleton says the mouth is, and join the channels of the latent frame they fall into. So one
video frame of four goes unheard: that is the temporal mismatch of a stride-4 codec.

The network's own output is the clean latent, of which the prediction follows: noise fills every
channel, clean latents do not, and a narrow network need not carry what it is not asked for
(Li & He, "Back to Basics: Let Denoising Generative Models Denoise", arXiv 2511.13720). For the same
reason it sees x_t as its Wiener estimate of the clean latent, which is nothing where x_t tells nothing
and would only drown the conditions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from halign_bench.audio_encoder import FEATURES, AudioEncoder, draw_lips
from halign_bench.backbone import Backbone, Condition
from halign_bench.codec import SPATIAL_STRIDE, TEMPORAL_STRIDE, PuppetCodec
from halign_bench.errors import RequestError, first_line
from halign_bench.masks import mouth_place
from halign_bench.skeleton import draw_skeleton
from halign_bench.track import Clip

SHIPPED = Path(__file__).parent.parent / "weights"
CODEC_OF = "puppet-dit"  # whose folder has the codec and the audio encoder of all shipped bases
AUDIO_REACH = 1  # an audio token sees its own video frame and this many on either side
AUDIO = FEATURES * (2 * AUDIO_REACH + 1)
HEARD = (-3, -1, 0)  # which of a latent frame's four video frames, the last being 0, some token sees
LIPS = len(HEARD) * SPATIAL_STRIDE**2  # channels of their pictures, a pixel each
TIMES = 4  # sinusoids of time, which an audio token carries too: attention alone does not see order
POSITIONS = TIMES + 4  # and of row and column
NEARLY_CLEAN = 0.2  # below this noise level a little of the noise is asked for too, else its division by t explodes
CHANNELS = POSITIONS + LIPS  # that join the noisy latent, the skeleton and the reference


def subsampled_audio(features: Tensor) -> Tensor:
    """`[B, T, F]` -> `[B, 1 + (T-1)/4, F·(2·reach+1)]`: every fourth frame with its neighbours."""
    padded = torch.nn.functional.pad(features, (0, 0, AUDIO_REACH, AUDIO_REACH))
    windows = padded.unfold(1, 2 * AUDIO_REACH + 1, 1)  # [B, T, F, window]
    return windows[:, ::TEMPORAL_STRIDE].flatten(2)


def lips_channels(audio: Tensor, clip: Clip, size: tuple[int, int]) -> Tensor:
    """`[192, 1 + (T-1)/4, h, w]`: the mouths that the heard frames of `audio` `[T, 3]` ask for, drawn where they are.

    Zero where no skeleton says where that is.
    """
    place, frames = mouth_place(clip), np.arange(0, len(audio), TEMPORAL_STRIDE)[:, None] + HEARD
    pictures = np.zeros((*frames.shape, *size), np.float32)
    if place is not None:
        rows = frames.clip(0).ravel()
        pictures = draw_lips(audio[rows, :2].cpu().numpy(), place[0][rows], place[1][rows], size)
    stacked = torch.from_numpy(pictures).view(*frames.shape, *size)
    return torch.nn.functional.pixel_unshuffle(stacked, SPATIAL_STRIDE).transpose(0, 1).to(audio.device)


def position_channels(shape: Sequence[int], like: Tensor) -> Tensor:
    """`[1, 8, T, H, W]`: sine and cosine of time (two octaves), row and column."""
    frames, height, width = (torch.arange(n, device=like.device, dtype=like.dtype) for n in shape)
    waves = [(frames.view(-1, 1, 1), 0.5), (frames.view(-1, 1, 1), 1.5), (height.view(1, -1, 1), 0.35),
             (width.view(1, 1, -1), 0.35)]  # fmt: skip
    channels = [fn(axis * rate).expand(*shape) for axis, rate in waves for fn in (torch.sin, torch.cos)]
    return torch.stack(channels)[None]


class PuppetBackbone(Backbone):
    """An embedded backbone says which network it has and what its prediction is.

    subfolder  of the checkpoint folder, where diffusers' files of the network are
    """

    subfolder: ClassVar[str]
    guidance = 3.0  # at 1 the mouth follows the sound in a third of the clips, at 3 in nine of ten

    def __init__(
        self, denoiser: Any, codec: PuppetCodec, audio_encoder: AudioEncoder, base_sha256: str,
        device: str = "cpu", frames: int = 17, size: tuple[int, int] = (64, 64),
    ) -> None:  # fmt: skip
        self.denoiser = denoiser.to(device).eval().requires_grad_(False)
        self.codec = codec.to(device).eval().requires_grad_(False)
        self.audio_encoder = audio_encoder.to(device).eval().requires_grad_(False)
        self.base_sha256, self.device, self.frames, self.size = base_sha256, device, frames, size

    @classmethod
    def network_class(cls) -> Any:
        """Of diffusers."""
        raise NotImplementedError

    @classmethod
    def new_network(cls, latent_channels: int, width: int, layers: int, heads: int) -> Any:
        """With random weights."""
        raise NotImplementedError

    def network(self, stacked: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """Its output, the clean latent, from all channels `[B, …, T, H, W]`, t `[B]`, audio tokens `[B, T, …]`."""
        raise NotImplementedError

    def seen(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x_t as the network is shown it: its Wiener estimate of the clean latent."""
        return x_t * alpha / (alpha**2 + sigma**2)

    def prediction(self, x_t: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """In the backbone's parameterisation, from the network's output; t is `[B, 1, 1, 1, 1]`."""
        raise NotImplementedError

    @classmethod
    def load(cls, checkpoint: str | Path | None = None, device: str = "cpu") -> PuppetBackbone:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder, shared = (Path(checkpoint or SHIPPED / name) for name in (cls.name, CODEC_OF))
        needed = [
            shared / "codec.safetensors", shared / "audio_encoder.safetensors",
            folder / cls.subfolder / "diffusion_pytorch_model.safetensors",
        ]  # fmt: skip
        for file in needed:
            if not file.is_file():
                again = f"`halign-bench pretrain --backbone {cls.name}`"
                raise RequestError(f"backbone {cls.name}: {file} is missing; make it with {again}")
        try:
            weights, heard = ({key: value.float() for key, value in load_file(file).items()} for file in needed[:2])
            codec = PuppetCodec(*codec_shape(weights))
            codec.load_state_dict(weights)
            audio_encoder = AudioEncoder(len(heard["net.0.bias"]))
            audio_encoder.load_state_dict(heard)
            denoiser = cls.network_class().from_pretrained(folder / cls.subfolder, torch_dtype=torch.float32)
        except (SafetensorError, RuntimeError, OSError, KeyError, ValueError) as error:
            reason = first_line(error)
            raise RequestError(f"backbone {cls.name}: the checkpoint in {folder} cannot be read ({reason})") from error
        digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in needed)).hexdigest()
        return cls(denoiser, codec, audio_encoder, digest, device)

    def save(self, folder: Path) -> None:
        """Half-precision files in diffusers' layout, readable by `load`."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        for name, module in (("codec", self.codec), ("audio_encoder", self.audio_encoder)):
            halves = {key: value.half().contiguous() for key, value in module.state_dict().items()}
            save_file(halves, folder / f"{name}.safetensors")
        twin = type(self.denoiser).from_config(self.denoiser.config)
        twin.load_state_dict(self.denoiser.state_dict())
        twin.half().save_pretrained(folder / self.subfolder)

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
        audio = torch.zeros(len(clips), self.frames, FEATURES, device=self.device)
        lips = torch.zeros(len(clips), LIPS, latent_frames, height, width, device=self.device)
        # Half precision: a method that hears every frame reads them, and they are three times a clip's latents.
        frames = torch.zeros(len(clips), self.frames, channels, height, width, device=self.device).half()
        drawn = {}
        for row, clip in enumerate(clips):
            if clip.audio is not None:
                audio[row] = self.audio_encoder.features(clip.audio, self.frames)
                lips[row] = lips_channels(audio[row], clip, self.size)
            if clip.skeleton is not None and clip.layout is not None:
                drawn[row] = draw_skeleton(clip.skeleton, clip.layout, self.size)
        if drawn:
            pictures = np.stack(list(drawn.values()))
            skeletons[list(drawn)] = self.encode(pictures)
            alone = self.encode(pictures.reshape(-1, 1, *pictures.shape[2:]))  # [B·T, C, 1, H, W]
            frames[list(drawn)] = alone[:, :, 0].unflatten(0, (-1, self.frames)).half()
        reference = self.encode(np.stack([clip.reference[None] for clip in clips]))
        return {
            "reference": reference, "skeleton": skeletons, "skeleton_frames": frames, "audio": audio, "lips": lips
        }  # fmt: skip

    def unconditional(self, condition: Condition) -> Condition:
        return {**condition, **{name: torch.zeros_like(condition[name]) for name in ("audio", "lips")}}

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        shape = x_t.shape[2:]
        reference = condition["reference"].expand(-1, -1, shape[0], -1, -1)
        position = position_channels(shape, x_t).expand(len(x_t), -1, -1, -1, -1)
        t_ = t.view(-1, 1, 1, 1, 1)
        seen = self.seen(x_t, *self.alpha_sigma(t_))
        stacked = torch.cat([seen, condition["skeleton"], reference, position, condition["lips"]], dim=1)
        times = position[:, :TIMES, :, 0, 0].transpose(1, 2)
        tokens = torch.cat([subsampled_audio(condition["audio"]), times], dim=-1)
        return self.prediction(x_t, self.network(stacked, t, tokens), t_)


def codec_shape(weights: dict[str, Tensor]) -> tuple[int, int]:
    """(latent channels, width) of a codec, read off its weights."""
    return len(weights["scale"]), len(weights["across_time.bias"]) // 3
