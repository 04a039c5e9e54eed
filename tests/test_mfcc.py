"""The mel cepstra are those of python_speech_features."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halign_bench.extractors.mfcc import mfcc, pcm16


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4000), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 100.0, 10_000.0]))
def test_cepstra_are_those_of_the_package(length: int, seed: int, loudness: float) -> None:
    package = pytest.importorskip("python_speech_features", reason="python_speech_features is not installed")
    samples = (loudness * np.random.default_rng(seed).standard_normal(length)).clip(-32768, 32767).astype(np.int16)
    expected = package.mfcc(samples, 16_000)
    found = mfcc(samples)
    assert found.shape == expected.shape
    # A window of equal samples has bands of rounding noise alone, whose logarithm is noise too.
    audible = np.abs(expected).max(1) < 60
    assert np.abs(found - expected)[audible].max(initial=0) < 1e-8


def test_silence_has_finite_cepstra() -> None:
    found = mfcc(np.zeros(16_000, np.int16))
    assert np.isfinite(found).all()
    assert np.allclose(found[:, 0], np.log(np.finfo(float).eps))


def test_a_second_has_99_frames_and_a_sample_one() -> None:
    assert mfcc(np.ones(16_000)).shape == (99, 13)
    assert mfcc(np.ones(1)).shape == (1, 13)


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((2, 100))])
def test_what_is_not_a_row_of_samples_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match="samples are"):
        mfcc(samples)


def test_samples_beyond_the_range_are_clipped_and_others_rounded() -> None:
    assert pcm16(np.array([2.0, -2.0, 1.5 / 32768, 2.5 / 32768])).tolist() == [32767, -32768, 2, 2]
