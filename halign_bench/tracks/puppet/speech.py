"""Speech by formant synthesis, and the mouth that makes it: one syllable script drives both.

A script is a chain of syllables (a consonant closure, then a vowel) with pauses. Sampled at
100 Hz it gives loudness, vowel weights and mouth shape; the waveform is a glottal pulse train
through the vowels' formant resonators, cross-faded by those weights, plus frication noise.
Formants: Peterson & Barney 1952, averages for men, scaled by the speaker's vocal tract.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import sosfilt

from halign_bench.track import FPS, SAMPLE_RATE

RATE = 100  # control points a second
LEAD = 0.6  # seconds of script before and after the clip, so that shifted mouths stay real

FORMANTS = np.array([[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240]])
BANDWIDTHS = (70.0, 100.0, 140.0)
VOWEL_OPEN = np.array([1.0, 0.62, 0.36, 0.75, 0.42])
VOWEL_WIDE = np.array([0.6, 0.85, 1.0, 0.3, 0.12])
# Consonants: bilabial (lips shut, silent), fricative (narrow, noise), alveolar (half shut, murmur).
CONSONANT_OPEN = np.array([0.0, 0.16, 0.2])
CONSONANT_WIDE = np.array([0.55, 0.8, 0.6])
CONSONANT_VOICE = np.array([0.04, 0.0, 0.15])
CONSONANT_NOISE = np.array([0.0, 0.35, 0.05])


@dataclass(frozen=True)
class Script:
    """Control curves at 100 Hz over [-LEAD, duration + LEAD] seconds."""

    opening: np.ndarray  # [N] 0 shut .. 1 wide open
    width: np.ndarray  # [N] 0 rounded .. 1 spread
    voice: np.ndarray  # [N] loudness of voicing
    noise: np.ndarray  # [N] loudness of frication
    vowels: np.ndarray  # [N, 5] weights of the vowel resonators

    def at_frames(self, frames: int, shift: float = 0.0) -> np.ndarray:
        """Mouth opening and width at each video frame's centre, `[frames, 2]`; `shift` in frames."""
        times = LEAD + (np.arange(frames) + 0.5 + shift) / FPS
        grid = np.arange(len(self.opening)) / RATE
        return np.stack([np.interp(times, grid, self.opening), np.interp(times, grid, self.width)], axis=1)


def write_script(rng: np.random.Generator, duration: float) -> Script:
    """A random script that covers `duration` seconds of clip."""
    total = round((duration + 2 * LEAD) * RATE)
    opening, width = np.zeros(total), np.full(total, 0.5)
    voice, noise, vowels = np.zeros(total), np.zeros(total), np.zeros((total, 5))
    pace = rng.uniform(0.85, 1.2)
    at, last_vowel = -int(rng.integers(0, 30)), 0
    while at < total:
        kind = int(rng.integers(3))
        closure = round(pace * rng.uniform(6, 10))
        vowel = int(rng.integers(5))
        length = round(pace * rng.uniform(9, 20))
        pause = round(rng.uniform(12, 22)) if rng.random() < 0.1 else 0
        spans = ((0, closure), (closure, closure + length), (closure + length, closure + length + pause))
        (a, b), (c, d), (e, f) = ((max(at + low, 0), max(at + high, 0)) for low, high in spans)
        opening[a:b], width[a:b] = CONSONANT_OPEN[kind], CONSONANT_WIDE[kind]
        voice[a:b], noise[a:b], vowels[a:b, last_vowel] = CONSONANT_VOICE[kind], CONSONANT_NOISE[kind], 1.0
        opening[c:d], width[c:d] = VOWEL_OPEN[vowel] * rng.uniform(0.85, 1.0), VOWEL_WIDE[vowel]
        voice[c:d], vowels[c:d, vowel] = rng.uniform(0.75, 1.0), 1.0
        opening[e:f], width[e:f], vowels[e:f, vowel] = 0.0, 0.5, 1.0
        at, last_vowel = at + closure + length + pause, vowel
    smooth = 1.6  # 16 ms: lips and loudness move together, and not in steps
    return Script(*(gaussian_filter1d(curve, smooth, axis=0) for curve in (opening, width, voice, noise, vowels)))


def _resonators(tract: float) -> list[np.ndarray]:
    """For each vowel, its three formants as second-order sections."""
    banks = []
    for formants in FORMANTS * tract:
        sections = []
        for centre, bandwidth in zip(formants, BANDWIDTHS, strict=True):
            radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
            angle = 2 * np.pi * centre / SAMPLE_RATE
            a1, a2 = -2 * radius * np.cos(angle), radius**2
            sections.append([1 + a1 + a2, 0, 0, 1, a1, a2])
        banks.append(np.array(sections))
    return banks


def synthesise(script: Script, rng: np.random.Generator, duration: float, pitch: float, tract: float) -> np.ndarray:
    """float32 waveform `[round(duration * 16000)]` in [-1, 1] for the clip's own span of the script."""
    length, lead = round(duration * SAMPLE_RATE), round(0.1 * SAMPLE_RATE)  # filters settle before the clip
    times = (np.arange(length + lead) - lead) / SAMPLE_RATE + LEAD
    grid = np.arange(len(script.voice)) / RATE
    melody = pitch * (1 + 0.08 * np.sin(2 * np.pi * rng.uniform(0.4, 0.9) * times + rng.uniform(0, 6.28)))
    phase = np.cumsum(melody) / SAMPLE_RATE
    pulses = np.diff(np.floor(phase), prepend=np.floor(phase[0]))
    source = gaussian_filter1d(pulses, 1.2) * np.interp(times, grid, script.voice)
    hiss = rng.standard_normal(len(times)) * np.interp(times, grid, script.noise)
    wave = 0.03 * np.diff(hiss, prepend=0.0)
    for vowel, bank in enumerate(_resonators(tract)):
        weight = script.vowels[:, vowel]
        if weight.max() > 1e-3:
            wave = wave + sosfilt(bank, source) * np.interp(times, grid, weight)
    wave = wave[lead:] + 1e-4 * rng.standard_normal(length)
    return np.asarray(0.5 * wave / max(float(np.abs(wave).max()), 1e-3), dtype=np.float32)
