"""Fréchet distances in 2,048 dimensions: `pytest benchmarks/bench_frechet.py`.

Against scipy's matrix root, and of resamples against the distance of the clips themselves. Each benchmark times
both forms in one run, in processor seconds of all threads, so that other work on the machine does not count, and
puts their ratio into `extra_info`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from halign_bench.metrics._frechet_resampling import FrechetResampling
from halign_bench.metrics.fid import frechet_distance

DIMENSIONS = 2048


def features(samples: int, seed: int) -> np.ndarray:
    """Correlated, with variances that fall over four orders of magnitude, as Inception's do."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(DIMENSIONS, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    scales = np.exp(-np.arange(DIMENSIONS) / 400)
    return (rng.normal(size=(samples, DIMENSIONS)) * scales) @ mixing + 0.02 * seed


def by_matrix_root(x: np.ndarray, y: np.ndarray) -> float:
    from scipy.linalg import sqrtm

    cov1, cov2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov1 + cov2 - 2 * sqrtm(cov1 @ cov2).real))


def seconds(function: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    found = function()
    return found, time.process_time() - started


@pytest.mark.parametrize(("samples", "times"), [(256, 100), (2048, 5)])
def test_frechet_distance_against_the_matrix_root(benchmark, samples, times):
    x, y = features(samples, 1), features(samples, 2)
    theirs, their_seconds = seconds(lambda: by_matrix_root(x, y))
    ours = benchmark.pedantic(frechet_distance, (x, y), rounds=3, iterations=1, warmup_rounds=1)
    _, our_seconds = seconds(lambda: frechet_distance(x, y))
    benchmark.extra_info |= {
        "their_seconds": their_seconds, "our_seconds": our_seconds, "ratio": their_seconds / our_seconds,
        "difference": abs(ours - theirs) / theirs,
    }  # fmt: skip
    assert abs(ours - theirs) <= 1e-4 * theirs
    assert their_seconds >= times * our_seconds


@pytest.mark.parametrize(("clips", "frames"), [(200, 1), (40, 12)])
def test_a_resample_against_the_distance_of_its_clips(benchmark, clips, frames):
    """An FVD of 200 clips, and an FID of 40 clips with 12 frames each, were their extractors that wide."""
    x, y = (features(clips * frames, seed).reshape(clips, frames, DIMENSIONS) for seed in (1, 2))
    resampling = FrechetResampling(list(x), list(y))
    draw = np.random.default_rng(3).integers(0, clips, clips)
    weights = np.bincount(draw, minlength=clips).astype(float)
    ours = benchmark.pedantic(resampling, (weights,), rounds=5, iterations=1, warmup_rounds=1)
    _, our_seconds = seconds(lambda: resampling(weights))
    theirs, their_seconds = seconds(lambda: frechet_distance(np.concatenate(x[draw]), np.concatenate(y[draw])))
    benchmark.extra_info |= {"seconds_of_1000": 1000 * our_seconds, "ratio": their_seconds / our_seconds}
    assert abs(ours - theirs) <= 1e-6 * theirs
