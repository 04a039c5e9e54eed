"""Mel cepstra as the package python_speech_features computes them with its defaults, which SyncNet was trained on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from halign_bench.track import SAMPLE_RATE

WINDOW = 400  # samples: 25 ms
STEP = 160  # samples: 10 ms
FFT = 512
FILTERS = 26
CEPSTRA = 13
PREEMPHASIS = 0.97
LIFTER = 22
FLOOR = np.finfo(float).eps  # in place of an energy of 0, whose logarithm does not exist


def pcm16(audio: np.ndarray) -> np.ndarray:
    """float `[N]` in [-1, 1] to the int16 samples that FFmpeg would write: rounded to even, clipped.

    >>> pcm16(np.array([0.0, 0.5, 1.0, -1.0])).tolist()
    [0, 16384, 32767, -32768]
    """
    return np.clip(np.rint(np.asarray(audio, np.float64) * 32768), -32768, 32767).astype(np.int16)


@lru_cache(maxsize=1)
def mel_filters() -> np.ndarray:
    """`[FILTERS, FFT // 2 + 1]`: triangles between whole FFT bins, evenly spaced in mel from 0 Hz to 8 kHz."""
    mel = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700.0), FILTERS + 2)
    edges = np.floor((FFT + 1) * (700 * (10 ** (mel / 2595.0) - 1)) / SAMPLE_RATE)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.arange(FFT // 2 + 1)
    rising = np.where((bins >= left) & (bins < centre), (bins - left) / (centre - left), 0)
    falling = np.where((bins >= centre) & (bins < right), (right - bins) / (right - centre), 0)
    return rising + falling


@lru_cache(maxsize=1)
def _cepstral_basis() -> np.ndarray:
    """`[FILTERS, CEPSTRA]`: the first columns of the orthonormal DCT-II, liftered."""
    order = np.arange(CEPSTRA)
    basis = np.cos(np.pi * np.outer(np.arange(FILTERS) + 0.5, order) / FILTERS) * np.sqrt(2 / FILTERS)
    basis[:, 0] /= np.sqrt(2)
    return basis * (1 + LIFTER / 2 * np.sin(np.pi * order / LIFTER))


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Samples `[N]` at 16 kHz on the scale of int16 -> float64 `[frames, 13]`, 100 frames a second.

    Windows of 25 ms without a taper, 26 mel filters, pre-emphasis 0.97, lifter 22; the first cepstrum is the
    logarithm of the frame's energy. The last window is filled up with zeros. Raises ValueError when there is no
    sample. Source: James Lyons, python_speech_features 0.6, `mfcc` with default arguments.

    >>> mfcc(np.zeros(16_000, np.int16)).shape
    (99, 13)
    """
    signal = np.asarray(samples, np.float64)
    if signal.ndim != 1 or not len(signal):
        raise ValueError(f"samples are [N] with N > 0, not {signal.shape}")
    signal = np.concatenate([signal[:1], signal[1:] - PREEMPHASIS * signal[:-1]])
    frames = 1 + max(0, -(-(len(signal) - WINDOW) // STEP))
    padded = np.zeros((frames - 1) * STEP + WINDOW)
    padded[: len(signal)] = signal
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::STEP]
    power = np.abs(np.fft.rfft(windows, FFT)) ** 2 / FFT
    energy, bands = power.sum(1), power @ mel_filters().T
    cepstra = np.log(np.where(bands == 0, FLOOR, bands)) @ _cepstral_basis()
    cepstra[:, 0] = np.log(np.where(energy == 0, FLOOR, energy))
    return cepstra
