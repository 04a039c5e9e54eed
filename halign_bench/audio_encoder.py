"""What a mouth does to make a sound: the embedded backbone's speech encoder, in place of a wav2vec."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from halign_bench.audio import log_mel

BANDS = 20
REACH = 2  # video frames of sound on either side
FEATURES = 3


class AudioEncoder(nn.Module):
    """Log-mel energies `[B, T, 20]` at 25 fps -> `[B, T, 2]`: how open and how wide the mouth is, about 0 to 1."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(BANDS * (2 * REACH + 1), width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, mel: Tensor) -> Tensor:
        frames = mel.shape[1]
        padded = nn.functional.pad(mel.transpose(1, 2), (REACH, REACH), mode="replicate").transpose(1, 2)
        windows = torch.cat([padded[:, k : k + frames] for k in range(2 * REACH + 1)], dim=-1)
        shape: Tensor = self.net(windows)
        return shape

    @torch.no_grad()
    def features(self, audio: np.ndarray, frames: int) -> Tensor:
        """float32 `[samples]` mono 16 kHz -> `[frames, 3]`: opening, width, and 1 (silence is not absence)."""
        device = next(self.parameters()).device
        mel = torch.from_numpy(log_mel(audio, frames, BANDS)).to(device)
        shape = self(mel[None])[0].clamp(0, 1)
        return torch.cat([shape, torch.ones_like(shape[:, :1])], dim=-1)


def draw_lips(shape: np.ndarray, centre: np.ndarray, unit: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mouth opening and width `[N, 2]`, where the mouth is `[N, 2]`, nose to neck `[N]` (pixels) -> `[N, H, W]`.

    1 inside an ellipse, 0 outside, with an edge of about a pixel.
    """
    y, x = (np.arange(n) + 0.5 for n in size)
    half_width = (unit * (0.2 + 0.2 * shape[:, 1]))[:, None, None]
    half_height = (unit * (0.05 + 0.3 * shape[:, 0]))[:, None, None]
    across = (x - centre[:, 0, None, None]) / half_width
    down = (y[:, None] - centre[:, 1, None, None]) / half_height
    inside = 1 - np.sqrt(across**2 + down**2)
    return np.clip(inside * np.minimum(half_width, half_height) + 0.5, 0, 1).astype(np.float32)


__all__ = ["BANDS", "FEATURES", "REACH", "AudioEncoder", "draw_lips"]
