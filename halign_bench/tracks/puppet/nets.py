"""The evaluators' nets and the preprocessing that belongs to them. All work on 64 x 64 canvases.

Frames are float `[N, 3, 64, 64]` in [0, 1]; points are pixels of that canvas, pixel i covering [i, i + 1).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from halign_bench.track import FPS, SAMPLE_RATE

SIDE = 64
HOP = SAMPLE_RATE // FPS  # 640 samples a video frame
SYNC_WINDOW, VSHIFT = 5, 5  # video frames
MOUTH_SIDE = 20  # pixels of the canvas, one output pixel each
HAND_SIDE, HAND_BINS = 28, 56  # crop in pixels; SimCC bins of half a pixel
HAND_SIGMA = 0.8  # pixels: width of the target of a clean joint
HEAD_CENTRE, HEAD_SIDE = (32.0, 18.5), 36
MELS = 40


def crop(frames: Tensor, centre: Tensor, side: float, out: int, zoom: Tensor | None = None) -> Tensor:
    """Bilinear squares `[N, 3, out, out]` of `side` pixels around `centre` `[N, 2]`; edges are repeated."""
    steps = (torch.arange(out, device=frames.device) + 0.5 - out / 2) * (side / out)
    offset = steps.expand(len(frames), out) if zoom is None else steps * zoom[:, None]
    x = (centre[:, :1] + offset) * (2 / frames.shape[3]) - 1
    y = (centre[:, 1:] + offset) * (2 / frames.shape[2]) - 1
    grid = torch.stack([x[:, None, :].expand(-1, out, -1), y[:, :, None].expand(-1, -1, out)], -1)
    return F.grid_sample(frames, grid, mode="bilinear", padding_mode="border", align_corners=False)


def mouth_centre(nose: Tensor, neck: Tensor) -> Tensor:
    """The mouth lies 0.38 of the way from nose to neck."""
    return nose + 0.383 * (neck - nose)


def hand_centre(points: Tensor) -> Tensor:
    """Centre of the box around `[..., 21, 2]`."""
    return (points.amin(-2) + points.amax(-2)) / 2


def _convs(*layers: tuple[int, int, int, int]) -> nn.Sequential:
    """(in, out, kernel, stride) each with batch norm and ReLU."""
    parts: list[nn.Module] = []
    for c_in, c_out, kernel, stride in layers:
        parts += [nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
    return nn.Sequential(*parts)


class LogMel(nn.Module):
    """Log mel energies `[B, 40, 4 T]` of `[B, 640 T]` samples: 25 ms Hann windows every 10 ms, 60 to 7600 Hz."""

    filters: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        low_mel, high_mel = (2595 * np.log10(1 + f / 700) for f in (60.0, 7600.0))
        mel = np.linspace(low_mel, high_mel, MELS + 2)
        edges = 700 * (10 ** (mel / 2595) - 1)
        bins = np.linspace(0, SAMPLE_RATE / 2, 257)
        low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
        weights = np.clip(np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)), 0, None)
        self.register_buffer("filters", torch.from_numpy(weights).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(400), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        with torch.autocast(wave.device.type, enabled=False):
            padded = F.pad(wave.float(), (176, 176))  # the middle of step s is at sample 160 s + 80
            spectrum = torch.stft(padded, 512, 160, 400, self.window, center=False, return_complex=True).abs() ** 2
            return torch.log(self.filters @ spectrum + 1e-3) / 3


class SyncNet(nn.Module):
    """Two towers (Chung & Zisserman 2016): windows of 5 mouth crops and of 200 ms of speech to unit vectors."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.mel = LogMel()
        self.frames = _convs((3, 24, 3, 1), (24, 48, 3, 2), (48, 48, 3, 1), (48, 48, 3, 2))
        self.squeeze = nn.Sequential(nn.Linear(48 * 25, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU())
        self.lips = nn.Sequential(
            nn.Conv1d(64, 128, SYNC_WINDOW, bias=False), nn.BatchNorm1d(128), nn.ReLU(),
            nn.Conv1d(128, width, 1),
        )  # fmt: skip
        # Receptive field 20 steps of 10 ms, stride 4: one vector a window, without looking beyond it.
        self.voice = nn.Sequential(
            nn.Conv1d(MELS, 64, 4, 2, bias=False), nn.BatchNorm1d(64), nn.ReLU(),
            nn.Conv1d(64, 96, 3, 2, bias=False), nn.BatchNorm1d(96), nn.ReLU(),
            nn.Conv1d(96, 128, 4, bias=False), nn.BatchNorm1d(128), nn.ReLU(),
            nn.Conv1d(128, width, 1),
        )  # fmt: skip

    def video(self, mouths: Tensor) -> Tensor:
        """`[B, T, 3, 20, 20]` in [0, 1] to unit vectors `[B, T - 4, width]`."""
        batch, frames = mouths.shape[:2]
        maps = self.frames(mouths.flatten(0, 1) * 4 - 2)
        lips = self.squeeze(maps.flatten(1)).view(batch, frames, -1)
        return F.normalize(self.lips(lips.transpose(1, 2)).float(), dim=1).transpose(1, 2)

    def audio(self, wave: Tensor) -> Tensor:
        """`[B, 640 T]` samples in [-1, 1] to unit vectors `[B, T - 4, width]`."""
        return F.normalize(self.voice(self.mel(wave)).float(), dim=1).transpose(1, 2)


class HandNet(nn.Module):
    """One hand to 1-D distributions of x and of y per joint (SimCC, Li et al. 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = _convs((3, 24, 3, 1), (24, 32, 3, 1))
        self.mid = _convs((32, 48, 3, 2), (48, 48, 3, 1))
        self.coarse = _convs((48, 64, 3, 2), (64, 64, 3, 1), (64, 64, 3, 1))
        self.up_mid = _convs((64 + 48, 48, 3, 1))
        self.up_fine = _convs((48 + 32, 48, 3, 1))
        self.out = nn.Conv2d(48, 21 * 4, 1)

    def forward(self, hands: Tensor) -> tuple[Tensor, Tensor]:
        """`[N, 3, 28, 28]` in [0, 1], thumb to the right, to log-probabilities of x and y, each `[N, 21, 56]`."""
        fine = self.fine(hands * 4 - 2)
        mid = self.mid(fine)
        maps = F.interpolate(self.coarse(mid), scale_factor=2)
        maps = F.interpolate(self.up_mid(torch.cat([maps, mid], 1)), scale_factor=2)
        maps = self.out(self.up_fine(torch.cat([maps, fine], 1))).float()
        maps = maps.view(len(hands), 21, 2, 2, HAND_SIDE, HAND_SIDE)  # joint, axis, half of the pixel, row, column
        x = maps[:, :, 0].logsumexp(-2).transpose(2, 3).flatten(2)
        y = maps[:, :, 1].logsumexp(-1).transpose(2, 3).flatten(2)
        return x.log_softmax(-1), y.log_softmax(-1)


def hand_peak() -> float:
    """Largest bin of a clean joint's target: confidence 1."""
    bins = (np.arange(-20, 21)) * (HAND_SIDE / HAND_BINS)
    weights = np.exp(-0.5 * (bins / HAND_SIGMA) ** 2)
    return float(weights.max() / weights.sum())


def read_hands(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Joints `[N, 21, 2]` in crop pixels (mean over ±1.5 px around the peak) and confidences `[N, 21]` in [0, 1].

    Confidence is the lesser of both axes' largest bins, over the largest bin of a clean joint's target.
    """
    step = HAND_SIDE / HAND_BINS
    places = (torch.arange(HAND_BINS, device=x.device) + 0.5) * step
    joints, tops = [], []
    for axis in (x.exp(), y.exp()):
        top, at = axis.max(-1, keepdim=True)
        near = axis * ((torch.arange(HAND_BINS, device=x.device) - at).abs() <= 3)
        joints.append((near * places).sum(-1) / near.sum(-1))
        tops.append(top[..., 0])
    return torch.stack(joints, -1), (torch.minimum(*tops) / hand_peak()).clamp(max=1.0)


class IdentityNet(nn.Module):
    """Head and shoulders of the fixed upper area to a unit vector."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.maps = _convs((3, 24, 3, 1), (24, 48, 3, 2), (48, 64, 3, 1), (64, 80, 3, 2), (80, 20, 1, 1))
        self.out = nn.Linear(20 * 81, width)

    def forward(self, heads: Tensor) -> Tensor:
        """`[N, 3, 36, 36]` in [0, 1] to `[N, 64]`."""
        return F.normalize(self.out(self.maps(heads * 4 - 2).flatten(1)).float(), dim=-1)


class FrameNet(nn.Module):
    """A whole frame to features that know pose, looks and how the picture is spoiled."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int = 64, targets: int = 1) -> None:
        super().__init__()
        self.maps = _convs((3, 24, 5, 2), (24, 48, 3, 2), (48, 72, 3, 2), (72, 72, 3, 1), (72, 72, 3, 2))
        self.out = nn.Linear(72 * 17, width)
        self.heads = nn.Linear(width, targets)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def raw(self, frames: Tensor) -> Tensor:
        maps = self.maps(frames * 4 - 2)
        return self.out(torch.cat([maps.flatten(1), maps.mean((2, 3))], 1)).float()

    def forward(self, frames: Tensor) -> Tensor:
        """`[N, 3, 64, 64]` in [0, 1] to features `[N, 64]` of mean 0 and deviation 1 over clean training frames."""
        return (self.raw(frames) - self.mean) / self.std


class ClipNet(nn.Module):
    """Frame features over time to features of how a clip moves and looks."""

    mean: Tensor
    std: Tensor

    def __init__(self, frame_width: int = 64, width: int = 64, targets: int = 1) -> None:
        super().__init__()
        self.time = nn.Sequential(
            nn.Conv1d(2 * frame_width, 88, 3, padding=1), nn.ReLU(),
            nn.Conv1d(88, 88, 3, padding=2, dilation=2), nn.ReLU(),
        )  # fmt: skip
        self.out = nn.Linear(3 * 88, width)
        self.heads = nn.Linear(width, targets)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def raw(self, features: Tensor) -> Tensor:
        change = F.pad(features[:, 1:] - features[:, :-1], (0, 0, 1, 0))
        maps = self.time(torch.cat([features, 2 * change], -1).transpose(1, 2))
        return self.out(torch.cat([maps.mean(-1), maps.amax(-1), maps.float().std(-1, correction=0)], -1)).float()

    def forward(self, features: Tensor) -> Tensor:
        """Frame features `[B, T, 64]`, T at least 2, to `[B, 64]`, standardised as those of frames."""
        return (self.raw(features) - self.mean) / self.std
