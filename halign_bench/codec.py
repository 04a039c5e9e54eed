"""The puppet's video codec, with the Wan VAE's interface: linear encoder, denoising decoder.

Temporal stride 4 and T = 1 + 4n: the first frame is a latent of its own, then every four frames
share one. Spatial stride 8. The encoder is the leading principal components of 4x8x8 patches,
scaled halfway between their own spread and none: fully whitened, the faintest components are as
loud as the strongest; unscaled, they drown in a small denoiser's error. The decoder adds to the
inverse projection what a convolutional net makes of the neighbouring latents in space and time. It
is trained on noised latents, so that it cleans what a small denoiser leaves behind.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TEMPORAL_STRIDE = 4
SPATIAL_STRIDE = 8
PATCH = 3 * TEMPORAL_STRIDE * SPATIAL_STRIDE**2


class _ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def to_patches(video: Tensor) -> Tensor:
    """`[B, 3, T, H, W]` -> `[B, 768, 1 + (T-1)/4, H/8, W/8]`; the first frame is repeated to fill its group."""
    _, _, frames, height, width = video.shape
    if (frames - 1) % TEMPORAL_STRIDE or height % SPATIAL_STRIDE or width % SPATIAL_STRIDE:
        raise ValueError(f"a clip of {frames} frames of {height}x{width} does not fit T = 1 + 4n and multiples of 8")
    padded = torch.cat([video[:, :, :1].expand(-1, -1, TEMPORAL_STRIDE - 1, -1, -1), video], dim=2)
    groups = padded.unflatten(2, (-1, TEMPORAL_STRIDE)).transpose(1, 2).flatten(2, 3)  # [B, n, 3·4, H, W]
    return F.pixel_unshuffle(groups, SPATIAL_STRIDE).transpose(1, 2)


def from_patches(patches: Tensor) -> Tensor:
    """The inverse of `to_patches`."""
    groups = F.pixel_shuffle(patches.transpose(1, 2), SPATIAL_STRIDE)
    video = groups.unflatten(2, (3, TEMPORAL_STRIDE)).transpose(1, 2).flatten(2, 3)
    return video[:, :, TEMPORAL_STRIDE - 1 :]


class PuppetCodec(nn.Module):
    """encode: video `[B, 3, T, H, W]` in [-1, 1] -> latents `[B, C, 1 + (T-1)/4, H/8, W/8]`, mean square about 1.

    decode is the inverse, up to loss.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, latent_channels: int = 96, width: int = 48) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.register_buffer("mean", torch.zeros(PATCH))
        self.register_buffer("basis", torch.zeros(PATCH, latent_channels))  # orthonormal columns
        self.register_buffer("scale", torch.ones(latent_channels))
        w = width
        self.across_time = nn.Conv3d(latent_channels, 3 * w, 3, padding=1)
        self.refine = nn.Sequential(
            _ResBlock(3 * w), nn.Conv2d(3 * w, 8 * w, 3, padding=1), nn.PixelShuffle(2),
            _ResBlock(2 * w), nn.Conv2d(2 * w, 4 * w, 3, padding=1), nn.PixelShuffle(2),
            _ResBlock(w), nn.GroupNorm(8, w), nn.SiLU(), nn.Conv2d(w, 12 * TEMPORAL_STRIDE, 3, padding=1),
            nn.PixelShuffle(2),
        )  # fmt: skip
        last = self.refine[-2]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    @torch.no_grad()
    def fit(self, patches: Tensor, weights: Tensor) -> None:
        """Principal components of patches `[N, 768]`, weighted `[N]`; each is divided by the root of its spread.

        Unweighted, the components spend themselves on outlines, and how a mouth moves within four
        frames is lost.
        """
        shares = (weights / weights.sum())[:, None]
        self.mean.copy_((shares * patches).sum(0))
        centred = patches - self.mean
        variance, vectors = torch.linalg.eigh(((shares * centred).T @ centred).double())
        top = variance.flip(0)[: self.latent_channels].float()
        self.basis.copy_(vectors.flip(1)[:, : self.latent_channels].float())
        damped = top.sqrt().sqrt()
        self.scale.copy_(damped * (top / damped.square()).mean().sqrt())

    def encode(self, video: Tensor) -> Tensor:
        patches = to_patches(video).movedim(1, -1)
        return ((patches - self.mean) @ self.basis / self.scale).movedim(-1, 1).contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        """Video `[B, 3, T, H, W]`, about [-1, 1], not clamped."""
        projected = ((latents.movedim(1, -1) * self.scale) @ self.basis.T + self.mean).movedim(-1, 1)
        features = self.across_time(latents).transpose(1, 2)
        detail = self.refine(features.flatten(0, 1)).unflatten(0, features.shape[:2])  # [B, n, 12, H, W]
        detail = detail.unflatten(2, (3, TEMPORAL_STRIDE)).transpose(1, 2).flatten(2, 3)[:, :, TEMPORAL_STRIDE - 1 :]
        return (from_patches(projected) + detail).float()
