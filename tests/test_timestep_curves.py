"""Curves over noise levels and the t_mid that follows: against numpy, closed forms, and planted answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from halign_bench.analysis.commands import parse_levels
from halign_bench.analysis.timesteps.curves import Curve, change, decided, recommend, settled
from halign_bench.analysis.timesteps.measure import choose_levels
from halign_bench.errors import RequestError
from halign_bench.sampling import path
from halign_bench.stats import bootstrap_indices, resample_counts

LEVELS = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)


def resamples(clips: int, replicates: int = 200) -> np.ndarray:
    names = [str(n) for n in range(clips)]
    return resample_counts(bootstrap_indices(names, names, replicates), clips)


def scores(clips: int = 12, candidates: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(clips, candidates)), rng.normal(size=(clips, candidates, len(LEVELS)))


# decided


def test_decided_of_two_candidates_is_the_correlation_of_their_differences():
    full, remade = scores(candidates=2)
    curve = decided(full, remade, resamples(12))
    before, after = full[:, 0] - full[:, 1], remade[:, 0] - remade[:, 1]
    for i in range(len(LEVELS)):
        # The order of the two is arbitrary, so both orders count: a correlation without a mean.
        expected = np.corrcoef(np.r_[before, -before], np.r_[after[:, i], -after[:, i]])[0, 1]
        assert curve.values[i] == pytest.approx(expected, abs=1e-6)


def test_decided_of_a_resample_is_that_of_its_clips():
    full, remade = scores()
    counts = resamples(12, 5)
    curve = decided(full, remade, counts)
    for draw, found in zip(counts.astype(int), curve.replicates, strict=True):
        rows = np.repeat(np.arange(12), draw)
        again = decided(full[rows], remade[rows], np.ones((1, 12)))
        np.testing.assert_allclose(found, again.values, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    shifts=arrays(float, (12, 2), elements=st.floats(-5, 5)), scale=st.floats(0.1, 10), other=st.floats(0.1, 10)
)
def test_decided_has_no_unit_and_ignores_what_a_prompt_gives_to_all_its_candidates(shifts, scale, other):
    full, remade = scores()
    plain = decided(full, remade, resamples(12, 3)).values
    moved = decided(scale * full + shifts[:, :1], other * remade + shifts[:, 1:, None], resamples(12, 3)).values
    np.testing.assert_allclose(moved, plain, atol=1e-7)
    assert (np.abs(plain) <= 1).all()


def test_decided_is_all_of_a_copy_and_unknown_where_nothing_varies():
    full, remade = scores()
    copies = np.repeat(full[..., None], len(LEVELS), axis=-1)
    assert decided(full, copies, resamples(12)).values == pytest.approx(np.ones(len(LEVELS)))
    assert decided(full, -copies, resamples(12)).values == pytest.approx(-np.ones(len(LEVELS)))
    assert np.isnan(decided(np.ones_like(full), remade, resamples(12)).values).all()


def test_a_clip_without_a_score_is_as_if_it_were_not_there():
    full, remade = scores()
    there = np.arange(12) != 5
    full[5, 1] = np.nan
    remade[5] = np.nan
    counts = resamples(12)
    for function in (decided, change):
        whole, without = function(full, remade, counts), function(full[there], remade[there], counts[:, there])
        np.testing.assert_allclose(whole.values, without.values, atol=1e-9)
        np.testing.assert_allclose(whole.replicates, without.replicates, atol=1e-9)


# change and settled


def test_change_is_a_paired_mean_in_standard_deviations_of_finished_samples():
    full, other = scores()
    counts = resamples(12)
    curve = change(full, other, counts)
    np.testing.assert_allclose(curve.values, [(other[..., i] - full).mean() / full.std() for i in range(7)], atol=1e-6)
    rows = np.repeat(np.arange(12), counts[3].astype(int))
    expected = (other - full[..., None])[rows].mean((0, 1)) / full.std()
    np.testing.assert_allclose(curve.replicates[3], expected, atol=1e-6)
    assert np.isnan(change(np.ones_like(full), other, counts).values).all()


def test_settled_is_the_share_of_the_way_whichever_way_it_goes():
    full, _ = scores(clips=40)
    counts = resamples(40)
    for way in (3.0, -3.0):  # the first estimate is worse, or better, than the finished sample by so much
        start = change(full, (full - way)[..., None], counts)
        here = change(full, np.stack([full - way * left for left in (0.9, 0.5, 0.1)], -1), counts)
        assert settled(here, start, 40).values == pytest.approx([0.1, 0.5, 0.9])


def test_settled_is_unknown_where_the_ends_are_not_told_apart():
    full, other = scores(clips=40)
    start = change(full, other[..., :1], resamples(40))
    (ends,) = start.intervals(40)
    assert ends[0] < 0 < ends[1]
    assert np.isnan(settled(change(full, other, resamples(40)), start, 40).values).all()


# The recommendation


def logistic(place: float) -> np.ndarray:
    """Decided share that passes one half at noise level `place`."""
    return 1 / (1 + np.exp((np.array(LEVELS) - place) / 0.08))


def curve(values: np.ndarray, spread: float, seed: int) -> Curve:
    rng = np.random.default_rng(seed)
    return Curve(values + 0.0, values + rng.normal(0, spread, (1000, len(values))))


@settings(max_examples=25, deadline=None)
@given(high=st.floats(0.6, 0.85), low=st.floats(0.15, 0.4), seed=st.integers(0, 5))
def test_where_motion_is_decided_first_t_mid_is_between(high, low, seed):
    early, late = curve(logistic(high), 0.03, seed), curve(logistic(low), 0.03, seed + 50)
    found = recommend(LEVELS, early, late, clusters=30)
    gap = logistic(high) - logistic(low)
    assert found.verdict == "early first" and found.t_mid == LEVELS[int(gap.argmax())]
    assert low - 0.13 < found.t_mid < high + 0.13  # a level is 0.125 from the next
    assert found.interval[0] <= found.t_mid <= found.interval[1]
    assert found.gaps[LEVELS.index(found.t_mid)].value == pytest.approx(gap.max())
    backwards = recommend(LEVELS, late, early, clusters=30)
    assert (backwards.verdict, backwards.t_mid, backwards.at) == ("late first", None, found.t_mid)


def test_a_plateau_makes_the_interval_wide_and_a_peak_makes_it_narrow():
    base = np.zeros(len(LEVELS))
    plateau, peak = np.array([0, 0.5, 0.5, 0.5, 0.5, 0.5, 0]), np.array([0, 0, 0.5, 0, 0, 0, 0])
    flat = recommend(LEVELS, curve(plateau, 0.05, 1), curve(base, 0.05, 2), 30)
    sharp = recommend(LEVELS, curve(peak, 0.05, 1), curve(base, 0.05, 2), 30)
    assert flat.interval == (0.25, 0.75)
    assert sharp.interval == (0.625, 0.625)


def test_it_cannot_tell_curves_that_do_not_differ_and_says_how_many_clips_would():
    same = logistic(0.5)
    found = recommend(LEVELS, curve(same, 0.05, 1), curve(same, 0.05, 2), 30)
    assert (found.verdict, found.t_mid, found.interval) == ("cannot tell", None, None)
    near = recommend(LEVELS, curve(same + 0.05, 0.05, 1), curve(same, 0.05, 2), 30)
    assert near.verdict == "cannot tell" and near.times > 1
    assert recommend(LEVELS, curve(same - 0.01, 0.05, 1), curve(same, 0.05, 2), 30).times is None
    unknown = Curve(np.full(7, np.nan), np.full((1000, 7), np.nan))
    assert recommend(LEVELS, unknown, curve(same, 0.05, 2), 30).at is None


def test_chance_alone_is_rarely_taken_for_an_order():
    """Under no difference at all an order is claimed in at most about 5 % of analyses, seven levels notwithstanding."""
    claimed = 0
    counts = resamples(24, 200)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        full, remade = rng.normal(size=(2, 24, 2)), rng.normal(size=(2, 24, 2, len(LEVELS)))
        remade += full[..., None]
        early, late = (decided(full[k], remade[k], counts) for k in (0, 1))
        claimed += recommend(LEVELS, early, late, 24).verdict != "cannot tell"
    assert claimed <= 7


# Levels


@pytest.mark.parametrize(("nfe", "guidance", "expected"), [
    (16, 1.0, (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)), (4, 1.0, (0.75, 0.5, 0.25)), (2, 1.0, (0.5,)),
    (8, 3.0, (0.75, 0.5, 0.25)),
])  # fmt: skip
def test_levels_are_even_and_where_the_sampler_steps(nfe, guidance, expected):
    assert choose_levels(path(nfe, guidance), None) == pytest.approx(expected)


def test_any_number_of_steps_gives_distinct_falling_levels():
    for nfe in range(2, 60):
        levels = choose_levels(path(nfe), None)
        assert len(levels) == min(7, nfe - 1)
        assert all(high > low > 0 for high, low in itertools.pairwise(levels)) and levels[0] < 1


def test_levels_asked_for_are_the_nearest_steps_each_once():
    assert choose_levels(path(4), (0.45, 0.5, 0.8)) == (0.75, 0.5)
    with pytest.raises(RequestError, match="single step"):
        choose_levels(path(2, 3.0), None)


def test_levels_are_read_from_text():
    assert parse_levels("0.5, .75,0.5") == (0.75, 0.5)
    for wrong in ("", "0", "1", "a", "nan", "0.5,,0.2", "-0.5"):
        with pytest.raises(RequestError, match="between 0 and 1"):
            parse_levels(wrong)
