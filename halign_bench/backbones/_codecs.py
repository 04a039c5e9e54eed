"""Video codecs of diffusers: pixels `[B, 3, T, H, W]` in [-1, 1] to latents `[B, C, T', h, w]` of about unit variance.

Latents are the mode of the encoder's distribution, so that encoding twice gives the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FRAMES_AT_ONCE = 8  # of a clip whose frames are coded each by itself


class WanCodec:
    """`AutoencoderKLWan`: causal, T' = 1 + (T-1)/4; each channel has a mean and a spread of its own."""

    def __init__(self, vae: Any) -> None:
        config = vae.config
        self.vae, self.channels = vae, config.z_dim
        self.temporal = 2 ** sum(vae.temperal_downsample)
        self.spatial = config.get("scale_factor_spatial") or 2 ** len(vae.temperal_downsample)
        self.mean, self.std = (
            torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std)
        )

    def encode(self, pixels: Tensor) -> Tensor:
        latents = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return (latents.float() - self.mean.to(latents.device)) / self.std.to(latents.device)

    def decode(self, latents: Tensor) -> Tensor:
        scaled = (latents * self.std.to(latents.device) + self.mean.to(latents.device)).to(self.vae.dtype)
        made: Tensor = self.vae.decode(scaled, return_dict=False)[0]
        return made.float()


class CogVideoXCodec:
    """`AutoencoderKLCogVideoX`: causal, T' = 1 + (T-1)/4, one scale. It decodes odd numbers of latent frames alone."""

    def __init__(self, vae: Any) -> None:
        config = vae.config
        self.vae, self.channels, self.scale = vae, config.latent_channels, config.scaling_factor
        self.temporal = int(config.temporal_compression_ratio)
        self.spatial = 2 ** (len(config.block_out_channels) - 1)

    def encode(self, pixels: Tensor) -> Tensor:
        latents: Tensor = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return latents.float() * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        made: Tensor = self.vae.decode((latents / self.scale).to(self.vae.dtype)).sample
        return made.float()


class ImageCodec:
    """`AutoencoderKL`, or `AutoencoderKLTemporalDecoder`, which decodes a clip's frames together: T' = T, one scale."""

    temporal = 1

    def __init__(self, vae: Any) -> None:
        config = vae.config
        self.vae, self.channels, self.scale = vae, config.latent_channels, config.scaling_factor
        self.spatial = 2 ** (len(config.block_out_channels) - 1)
        self.together = type(vae).__name__ == "AutoencoderKLTemporalDecoder"

    def encode(self, pixels: Tensor) -> Tensor:
        return self.unscaled(pixels) * self.scale

    def unscaled(self, pixels: Tensor) -> Tensor:
        """As SVD is shown its first frame."""
        frames = pixels.transpose(1, 2).flatten(0, 1).to(self.vae.dtype)
        latents = torch.cat([self.vae.encode(some).latent_dist.mode() for some in frames.split(FRAMES_AT_ONCE)])
        return latents.float().unflatten(0, (len(pixels), -1)).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        frames = (latents / self.scale).transpose(1, 2).to(self.vae.dtype)  # [B, T, C, h, w]
        if self.together:
            made = [self.vae.decode(video, num_frames=len(video)).sample for video in frames]
        else:
            made = [
                torch.cat([self.vae.decode(some).sample for some in video.split(FRAMES_AT_ONCE)]) for video in frames
            ]
        return torch.stack(made).transpose(1, 2).float()
