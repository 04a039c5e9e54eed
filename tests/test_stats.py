"""Resampling, intervals, paired differences, corrections and ranks."""

from __future__ import annotations

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from halign_bench.stats import (
    Difference,
    bootstrap_indices,
    bootstrap_signature,
    holm,
    non_inferior,
    paired_difference,
    pareto_front,
    percentile_interval,
    resampled_means,
    score_interval,
    significance_ranks,
)


def people(identities: int, each: int) -> tuple[list[str], list[str]]:
    ids = [f"clip{i:03d}" for i in range(identities * each)]
    return ids, [f"person{i // each:03d}" for i in range(identities * each)]


def test_identities_are_drawn_whole():
    ids, identities = people(5, 3)
    for draw in bootstrap_indices(ids, identities, 50):
        counts = np.bincount(draw, minlength=15).reshape(5, 3)
        assert (counts == counts[:, :1]).all() and counts[:, 0].sum() == 5


def test_resamples_depend_on_clips_not_on_their_order_and_differ_by_seed():
    ids, identities = people(6, 2)
    order = np.random.default_rng(0).permutation(12)
    first = [sorted(ids[i] for i in draw) for draw in bootstrap_indices(ids, identities, 20, seed=1)]
    shuffled_ids, shuffled = [ids[i] for i in order], [identities[i] for i in order]
    again = [sorted(shuffled_ids[i] for i in draw) for draw in bootstrap_indices(shuffled_ids, shuffled, 20, seed=1)]
    other = [sorted(ids[i] for i in draw) for draw in bootstrap_indices(ids, identities, 20, seed=2)]
    assert first == again and first != other
    assert bootstrap_signature(ids, identities, 20, 1) == bootstrap_signature(shuffled_ids, shuffled, 20, 1)
    assert bootstrap_signature(ids, identities, 20, 1) != bootstrap_signature(ids, identities, 20, 2)


def test_repeated_ids_are_refused():
    with pytest.raises(ValueError, match="distinct"):
        bootstrap_indices(["a", "a"], ["x", "y"])


def test_resampled_means_leave_out_what_has_no_score():
    means = resampled_means([1.0, None, 3.0], [np.array([0, 0, 2]), np.array([1, 1, 1]), np.array([1, 2])])
    assert means[0] == pytest.approx(5 / 3) and np.isnan(means[1]) and means[2] == 3


def test_interval_of_many_clusters_agrees_with_scipy():
    from scipy import stats as scipy_stats

    values = np.random.default_rng(3).gamma(2.0, size=400)
    ids, identities = people(400, 1)
    ours = percentile_interval(values.mean(), resampled_means(values, bootstrap_indices(ids, identities, 4000)), 400)
    generator = "rng" if Version(scipy.__version__) >= Version("1.15") else "random_state"
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", **{generator: np.random.default_rng(0)}
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.06 * width)


def test_recentring_keeps_a_biased_estimate_inside_and_bounds_are_kept():
    replicates = np.random.default_rng(0).normal(3.0, 0.2, 1000)  # all far above the estimate, as for FID
    low, high = percentile_interval(1.0, replicates, 50)
    assert low < 1.0 < high < 2.0
    assert percentile_interval(0.1, replicates, 50, bounds=(0, None))[0] == 0.0


@pytest.mark.parametrize("clusters", [0, 1])
def test_fewer_than_two_identities_give_no_interval(clusters):
    replicates = np.ones((2, 100))
    assert percentile_interval(1.0, replicates[0], clusters) is None
    assert score_interval(np.ones(2), replicates, clusters) is None
    difference = paired_difference(np.ones(2), replicates, clusters)
    assert difference.value == 1.0 and difference.ci is None and difference.p is None
    assert "identities" in difference.reason


def test_replicates_without_scores_give_a_reason_not_nan():
    difference = paired_difference(np.array([1.0]), np.full((1, 50), np.nan), 10)
    assert difference.ci is None and "resamples" in difference.reason
    assert paired_difference(np.zeros(0), np.zeros((0, 50)), 10).value is None


def simulate(rng: np.random.Generator, seeds: int, identities: int, seed_sd: float, effect: float = 0.0):
    """Differences of clips with a component of the person, of the seed, and of the clip itself."""
    each = 3
    ids, names = people(identities, each)
    person = np.repeat(rng.normal(0, 1.0, identities), each)
    clips = effect + person + rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, 0.5, (seeds, identities * each))
    indices = bootstrap_indices(ids, names, 200, seed=int(rng.integers(1 << 30)))
    return clips.mean(1), np.stack([resampled_means(row, indices) for row in clips])


@pytest.mark.parametrize(("seeds", "identities", "seed_sd"), [(1, 10, 0.0), (3, 12, 0.0), (3, 12, 0.6), (2, 24, 0.4)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(seeds, identities, seed_sd):
    rng = np.random.default_rng(seeds * 100 + identities)
    trials = 250
    differences, scores = 0, 0
    for _ in range(trials):
        points, replicates = simulate(rng, seeds, identities, seed_sd, effect=0.7)
        low, high = paired_difference(points, replicates, identities).ci
        differences += low <= 0.7 <= high
        low, high = score_interval(points, replicates, identities)
        scores += low <= 0.7 <= high
    # 95 % nominal; the standard error of 250 trials is 1.4 points. Two or three seeds can only err on the wide side.
    assert 0.90 <= differences / trials <= 0.995
    assert 0.87 <= scores / trials <= 1.0


def test_clustering_matters():
    """Taking clips for independent would give intervals much too narrow."""
    rng = np.random.default_rng(5)
    points, replicates = simulate(rng, 1, 20, 0.0)
    clustered = percentile_interval(points[0], replicates[0], 20)
    values = np.repeat(rng.normal(0, 1, 20), 3)
    ids, _ = people(20, 3)
    naive = percentile_interval(values.mean(), resampled_means(values, bootstrap_indices(ids, ids, 200)), 60)
    assert clustered[1] - clustered[0] > 1.3 * (naive[1] - naive[0])


def test_interval_excludes_zero_exactly_when_p_is_below_five_percent():
    rng = np.random.default_rng(8)
    for effect in np.linspace(0, 2, 30):
        difference = paired_difference(*simulate(rng, 3, 12, 0.2, effect), 12)
        assert (difference.ci[0] > 0 or difference.ci[1] < 0) == (difference.p < 0.05)


def test_differences_without_spread():
    same = paired_difference(np.zeros(3), np.zeros((3, 50)), 8)
    shifted = paired_difference(np.full(3, 0.5), np.full((3, 50), 0.5), 8)
    assert same.p == 1.0 and same.ci == (0.0, 0.0)
    assert shifted.p == pytest.approx(2**-7) and shifted.ci == (0.5, 0.5)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_is_monotone_and_between_raw_and_bonferroni(p_values):
    adjusted = holm(p_values)
    known = [(p, q) for p, q in zip(p_values, adjusted, strict=True) if p is not None]
    assert [q is None for q in adjusted] == [p is None for p in p_values]
    for p, q in known:
        assert p <= q <= min(1.0, p * len(known)) + 1e-12
    in_order = [q for _, q in sorted(known)]
    assert in_order == sorted(in_order)


def test_ranks_are_shared_by_those_not_told_apart():
    verdicts = {("a", "c"): True, ("c", "a"): False, ("a", "b"): False, ("b", "a"): False, ("b", "c"): False}
    assert significance_ranks("abc", verdicts) == {"a": 1, "b": 1, "c": 2}


def test_no_ranks_where_nothing_is_told_apart_or_a_method_was_not_tested():
    assert significance_ranks("ab", {("a", "b"): False, ("b", "a"): False}) == {"a": None, "b": None}
    assert significance_ranks("abc", {("a", "b"): True, ("b", "a"): False}) == {"a": 1, "b": 2, "c": None}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_pareto_front_is_not_empty_and_nothing_beats_it(rows):
    front = pareto_front(rows, [True, False])
    assert any(front)
    for row, on_front in zip(rows, front, strict=True):
        beaten = any(o != row and o[0] >= row[0] and o[1] <= row[1] for o in rows)
        assert on_front != beaten


def test_non_inferiority():
    assert non_inferior(Difference(-0.1, (-0.3, 0.1)), True, 0.5) is True
    assert non_inferior(Difference(-0.1, (-0.3, 0.1)), True, 0.2) is False
    assert non_inferior(Difference(0.1, (-0.1, 0.3)), False, 0.5) is True
    assert non_inferior(Difference(0.1), False, 0.5) is None
