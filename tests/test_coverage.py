"""How often paired intervals cover, and how often `check` is right, in simulations that go through the real statistics.

`pytest -m slow -s tests/test_coverage.py` prints every rate with its Monte-Carlo interval. Differences are made of
what clips of an identity share, what clips and seeds share not, and what the seeds are apart; the resamples are those
of records, of `bootstrap_indices`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from halign_bench.checking.power import POWER, Variance, clips_needed, least_margin
from halign_bench.checking.verdicts import verdict
from halign_bench.stats import bootstrap_indices, holm, paired_difference, resample_counts, spread

B = 200
CHECKS = 20


@dataclass(frozen=True)
class World:
    """Standard deviations of a clip's paired difference: by its identity, by clip and seed, and by seed."""

    seeds: int
    identities: int
    each: int
    identity: float
    clip: float
    seed: float = 0.0
    skewed: bool = False

    def draw(self, rng: np.random.Generator, trials: int, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """`points` `[T, S]` and `replicates` `[T, S, B]`."""
        clips = self.identities * self.each
        people = rng.exponential(1, (trials, 1, self.identities)) - 1 if self.skewed else rng.standard_normal(
            (trials, 1, self.identities)
        )  # fmt: skip
        made = effect + self.identity * np.repeat(people, self.each, 2)
        made = made + self.clip * rng.standard_normal((trials, self.seeds, clips))
        made = made + self.seed * rng.standard_normal((trials, self.seeds, 1))
        ids = [f"clip{i:05d}" for i in range(clips)]
        names = [f"person{i // self.each:05d}" for i in range(clips)]
        weights = resample_counts(bootstrap_indices(ids, names, B), clips) / clips
        return made.mean(2), made @ weights.T

    def variance(self) -> Variance:
        """What a plan would take from endless records of this world."""
        clips = self.identities * self.each
        return Variance(
            self.identity**2 / self.identities, self.clip**2 / clips, self.seed**2 if self.seeds > 1 else None,
            clips, self.identities, self.seeds,
        )  # fmt: skip


def monte_carlo(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate."""
    z, rate = 1.96, hits / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return centre - half, centre + half


def told(name: str, hits: int, trials: int) -> float:
    low, high = monte_carlo(hits, trials)
    print(f"{name}: {hits / trials:.1%} of {trials}, Monte-Carlo 95 % [{low:.1%}, {high:.1%}]")
    return hits / trials


WORLDS = {
    "one seed": World(1, 24, 4, 0.5, 1.0),
    "one seed, strongly clustered": World(1, 24, 4, 1.0, 0.1),
    "one seed, 8 identities of 12 clips, strongly clustered": World(1, 8, 12, 1.0, 0.1),
    "one seed, clips of nobody in particular": World(1, 24, 4, 0.0, 1.0),
    "3 seeds that do not differ": World(3, 24, 4, 0.5, 1.0),
    "3 seeds that differ a little": World(3, 24, 4, 0.5, 1.0, 0.1),
    "3 seeds that differ as clips do": World(3, 24, 4, 0.5, 1.0, 0.2),
    "3 seeds that differ much": World(3, 24, 4, 0.5, 1.0, 1.0),
    "3 seeds, strongly clustered": World(3, 24, 4, 1.0, 0.2, 0.2),
    "3 seeds, 8 identities of 12 clips, strongly clustered": World(3, 8, 12, 1.0, 0.2, 0.3),
    "5 seeds": World(5, 24, 4, 0.5, 1.0, 0.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_paired_intervals_cover_95_percent_within_two_points(name):
    trials, effect = 4000, 0.7
    world = WORLDS[name]
    points, replicates = world.draw(np.random.default_rng(5), trials, effect)
    covered = 0
    for i in range(trials):
        parts = spread(points[i], replicates[i], world.identities)
        covered += abs(points[i].mean() - effect) <= parts.reach(0.05)
    told(f"coverage, {name}", covered, trials)
    low, high = monte_carlo(covered, trials)
    assert low <= 0.97 and high >= 0.93  # the intervals themselves are wide by 0.7 points at most
    assert high - low < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0.05, 0.1, 0.2, 0.4, 1.0])
def test_small_p_values_of_three_seeds_are_not_too_small(seed):
    """What Holm over a table stands on: p below 0.005 no more often than that."""
    trials = 10_000
    world = World(3, 24, 4, 0.35, 1.0, seed)
    points, replicates = world.draw(np.random.default_rng(6), trials)
    small = sum(
        abs(points[i].mean()) > spread(points[i], replicates[i], world.identities).reach(0.005) for i in range(trials)
    )
    told(f"p below 0.005, seeds ±{seed}", small, trials)
    assert monte_carlo(small, trials)[0] <= 0.005


def verdicts(world: World, rng: np.random.Generator, margin: float, loss: float) -> list[str]:
    """One comparison of `CHECKS` scores without a true difference, but for the first, which loses `loss`."""
    points, replicates = world.draw(rng, CHECKS)
    points[0], replicates[0] = points[0] - loss, replicates[0] - loss
    found = [paired_difference(p, r, world.identities) for p, r in zip(points, replicates, strict=True)]
    adjusted = holm([difference.p for difference in found])
    return [verdict(d, p, True, margin) for d, p in zip(found, adjusted, strict=True)]


CHECKED = {
    "one seed": World(1, 24, 4, 0.5, 1.0),
    "one seed, 8 identities, strongly clustered": World(1, 8, 3, 1.0, 0.1),
    "one seed, skewed": World(1, 24, 4, 1.0, 0.3, skewed=True),
    "3 seeds": World(3, 24, 4, 0.5, 1.0, 0.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKED)
def test_check_is_right_about_a_margin_that_its_clips_can_tell(name):
    world, trials = CHECKED[name], 1000
    margin = least_margin(world.variance(), CHECKS)
    rng = np.random.default_rng(7)
    same = [verdicts(world, rng, margin, 0.0) for _ in range(trials)]
    lost = [verdicts(world, rng, margin, 2 * margin)[0] for _ in range(trials)]
    false = sum("regression" in found for found in same)
    assert told(f"false regressions, {name}", false, trials) <= 0.05
    assert told(f"twice the margin reported, {name}", lost.count("regression"), trials) >= 0.9
    passed = sum(found[0] in ("equivalent", "not worse") for found in same)
    assert told(f"passed without a difference, {name}", passed, trials) >= POWER


@pytest.mark.slow
def test_without_a_margin_a_false_regression_is_as_rare():
    world, trials = World(3, 24, 4, 0.5, 1.0, 0.2), 1000
    rng = np.random.default_rng(8)
    false = sum("regression" in verdicts(world, rng, 0.0, 0.0) for _ in range(trials))
    assert told("false regressions, 3 seeds, margin 0", false, trials) <= 0.05


@pytest.mark.slow
def test_the_planned_number_of_clips_is_enough():
    few = World(1, 12, 4, 0.5, 1.0)
    margin = 0.6 * least_margin(few.variance(), CHECKS)
    clips = clips_needed(few.variance(), 1, margin, CHECKS)
    enough = World(1, clips // 4, 4, 0.5, 1.0)
    rng, trials = np.random.default_rng(9), 1000
    lost = [verdicts(enough, rng, margin, 2 * margin)[0] for _ in range(trials)].count("regression")
    assert told(f"twice the margin reported by the {clips} clips planned", lost, trials) >= 0.9
    same = [verdicts(few, rng, margin, 0.0)[0] for _ in range(trials)]
    assert told("passed with a third of them", trials - same.count("cannot tell"), trials) < 0.8


def test_intervals_that_take_clips_for_independent_would_be_found_out():
    """What the simulations guard against makes them fail."""
    world, trials = World(1, 24, 4, 1.0, 0.1), 300
    rng = np.random.default_rng(5)
    clips = np.repeat(rng.standard_normal((trials, world.identities)), world.each, 1)
    count = clips.shape[1]
    weights = resample_counts([rng.integers(0, count, count) for _ in range(B)], count) / count
    replicates = clips @ weights.T
    covered = sum(
        abs(values.mean()) <= spread(values.mean(keepdims=True), draws[None], count).reach(0.05)
        for values, draws in zip(clips, replicates, strict=True)
    )
    assert covered / trials < 0.85
