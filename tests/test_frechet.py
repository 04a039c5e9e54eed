"""Fréchet distances of large, singular and resampled features, and extrapolated ones."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
from halign_bench.metrics import _frechet_resampling, _gaussians
from halign_bench.metrics._frechet_resampling import FrechetResampling
from halign_bench.metrics.fid import FID, fid_infinity, frechet_distance
from hypothesis import given, settings
from hypothesis import strategies as st

from halign_bench.metric import Scored
from halign_bench.track import Clip

BLANK = np.zeros((1, 1, 1, 3), np.uint8)


def test_doctests():
    assert doctest.testmod(importlib.import_module("halign_bench.metrics._frechet_resampling")).failed == 0


def clips_of(rng: np.random.Generator, counts: list[int], dimensions: int, spread: float = 1.0) -> list[np.ndarray]:
    """Frames of a clip resemble each other, as real ones do."""
    return [rng.normal(0, spread, dimensions) + 0.4 * rng.normal(size=(count, dimensions)) for count in counts]


# Large matrices


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 12), st.integers(2, 12), st.integers(1, 9), st.integers(1, 9), st.floats(0, 1e3), st.integers(0, 99)
)
def test_the_way_of_large_matrices_agrees_with_singular_values(n1, n2, dimensions, rank, offset, seed):
    """Singular, duplicated, constant and equal features, through the path that is otherwise for 512 and more."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n1, rank)) @ rng.normal(size=(rank, dimensions)) + offset
    y = np.repeat(x[:1], n2, axis=0) if seed % 3 == 0 else rng.normal(size=(n2, dimensions)) * (seed % 2)
    for left, right in ((x, y), (y, x), (y, y), (x, np.concatenate([x, x])), (x, x + 1e-4)):
        exact = frechet_distance(left, right)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_gaussians, "LARGE", 1)
            found = frechet_distance(left, right)
        assert np.isfinite(found) and found >= 0
        assert found == pytest.approx(exact, rel=1e-4, abs=1e-12 * (1 + offset) ** 2)


def test_equal_large_sets_are_at_no_distance():
    """Where eigenvalues would lose what is left of the distance, singular values are taken."""
    x = np.random.default_rng(0).normal(size=(520, 530))
    assert frechet_distance(x, x[::-1]) < 1e-9
    apart = frechet_distance(x, 1.5 * x + 1)  # √(Σ·2.25Σ) = 1.5 Σ
    assert apart == pytest.approx(((0.5 * x.mean(0) + 1) ** 2).sum() + 0.25 * x.var(0, ddof=1).sum(), rel=1e-6)


def test_features_whose_squares_are_infinite_are_refused():
    with pytest.raises(ValueError, match="squares are infinite"):
        frechet_distance(np.full((3, 2), 1e200), np.ones((3, 2)))


# Resamples


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 7), st.integers(1, 12), st.floats(-50, 50), st.integers(0, 99))
def test_resamples_by_sums_are_the_distances_of_the_clips_themselves(data, clips, dimensions, offset, seed):
    """Uneven clips on both sides, any number of times each: by samples and by moments, as size decides."""
    rng = np.random.default_rng(seed)
    counts = st.lists(st.integers(1, 4), min_size=clips, max_size=clips)
    xs = clips_of(rng, data.draw(counts), dimensions)
    ys = [y + offset for y in clips_of(rng, data.draw(counts), dimensions, 2.0)]
    resampling = FrechetResampling(xs, ys)
    draw = data.draw(st.lists(st.integers(0, clips - 1), min_size=2, max_size=2 * clips))
    expected = frechet_distance(np.concatenate([xs[k] for k in draw]), np.concatenate([ys[k] for k in draw]))
    found = resampling(np.bincount(draw, minlength=clips).astype(float))
    scale = 1 + float(np.mean([(y**2).sum(1).mean() for y in ys]))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6 * scale)


def test_a_resample_of_one_sample_has_no_distance():
    rng = np.random.default_rng(1)
    resampling = FrechetResampling(clips_of(rng, [1, 1, 1], 4), clips_of(rng, [1, 1, 1], 4))
    assert resampling(np.array([0.0, 1.0, 0.0])) is None and resampling(np.array([0.0, 2.0, 0.0])) is not None


def test_the_protocol_says_where_resamples_see_a_part_of_the_samples(monkeypatch):
    rng = np.random.default_rng(5)
    metric = FID()
    assert metric.protocol == FID.recipe
    for number in range(6):
        clip = Clip(f"clip{number}", "person", BLANK, BLANK[0])
        metric.update(Scored(clip, clip, rng.normal(size=(4, 15)), rng.normal(1, 2, size=(4, 15))))
    assert metric.protocol == FID.recipe
    whole, draw = metric.compute(), np.array([0, 0, 3, 4, 5, 1])
    exact = metric.compute(draw)
    monkeypatch.setattr(_frechet_resampling, "MOST", 14)
    metric._resampling = None
    assert metric.protocol == f"{FID.recipe}; interval by resamples of 1 sample in 2 of each clip"
    pairs = [(x[::2], y[::2]) for x, y in (metric.values[k] for k in draw)]
    thin = frechet_distance(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
    assert metric.compute(draw) == pytest.approx(thin, rel=1e-9) != exact
    assert metric.compute() == whole
    metric.reset()
    assert metric.protocol == FID.recipe and metric.compute() is None


# Extrapolation


def test_extrapolation_comes_nearer_to_what_endless_samples_would_give():
    """Of two known Gaussians with standard deviations 1 and 1.2 in 16 dimensions, 16 · 0.2² = 0.64 apart."""
    plain, better = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(320, 16)), rng.normal(0, 1.2, size=(320, 16))
        plain.append(frechet_distance(x, y) - 0.64)
        better.append(fid_infinity(x, y) - 0.64)
    assert np.mean(plain) > 0.3  # half as much again as the distance itself
    assert abs(np.mean(better)) < 0.2 * np.mean(plain)


def test_extrapolation_refuses_too_few_samples_and_points():
    x = np.random.default_rng(0).normal(size=(159, 16))
    with pytest.raises(ValueError, match="159 samples in 16 dimensions: extrapolation needs at least 160"):
        fid_infinity(x, x)
    with pytest.raises(ValueError, match="at least 2"):
        fid_infinity(x[:, :2], x[:, :2], points=1)
