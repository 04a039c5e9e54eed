"""Speech features at video rate, for backbones without a pretrained speech encoder."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from halign_bench.track import FPS, SAMPLE_RATE

N_FFT = 512
HOP = 160
HOPS_PER_FRAME = SAMPLE_RATE // FPS // HOP  # 4


@lru_cache(maxsize=4)
def mel_filters(bands: int) -> np.ndarray:
    """Triangular filters `[bands, N_FFT/2 + 1]`, evenly spaced on the HTK mel scale from 60 Hz to 7.6 kHz."""

    def mel(hz: float) -> float:
        return float(2595 * np.log10(1 + hz / 700))

    edges = 700 * (10 ** (np.linspace(mel(60), mel(7600), bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)


def log_mel(audio: np.ndarray, frames: int, bands: int = 20) -> np.ndarray:
    """float32 `[samples]` mono 16 kHz -> float32 `[frames, bands]`: log-mel energies, averaged over each video frame.

    Audio shorter than the video counts as silence; about zero mean and unit variance for speech.
    """
    needed = frames * HOPS_PER_FRAME * HOP + N_FFT
    padded = np.zeros(needed, np.float32)
    half = (N_FFT - HOP) // 2
    kept = audio[: needed - half]
    padded[half : half + len(kept)] = kept
    windows = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][: frames * HOPS_PER_FRAME]
    power = np.abs(np.fft.rfft(windows * np.hanning(N_FFT), axis=-1)) ** 2
    energy = (power @ mel_filters(bands).T).reshape(frames, HOPS_PER_FRAME, bands).mean(1)
    return ((np.log(energy + 1e-4) + 2.0) / 4.0).astype(np.float32)
