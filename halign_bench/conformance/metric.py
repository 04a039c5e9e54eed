"""The contract of a metric."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from halign_bench.conformance import Skipped, require
from halign_bench.conformance.samples import features_of, sample_clip, spoilt
from halign_bench.metric import Metric, Scored
from halign_bench.track import Unscorable

CLIPS = 8
UNSCORABLE = Unscorable("left out on purpose")


class Subject:
    def __init__(self, cls: type[Metric]) -> None:
        self.cls = cls

    def new(self) -> Metric:
        extractor = SimpleNamespace(name="sample", protocol="sample features") if self.cls.feature else None
        return self.cls(extractor)  # type: ignore[arg-type]  # the metric only reads its name and protocol

    def scored(self, worse: bool = False) -> list[Scored]:
        """Eight clips that equal their targets, or spoilt ones."""
        key, found = self.cls.feature, []
        for index in range(CLIPS):
            clip = sample_clip(index)
            try:
                features = features_of(clip, key, index)
            except KeyError:
                raise Skipped(f"there are no sample features called '{key}'") from None
            made, made_features = spoilt(clip, features, key, index) if worse else (clip, features)
            found.append(Scored(made, clip, made_features, features))
        return found

    def value(self, scored: Iterable[Scored]) -> float | None:
        metric = self.new()
        for one in scored:
            metric.update(one)
        return metric.compute()


def states_direction_unit_and_recipe(subject: Subject) -> str:
    cls = subject.cls
    require(cls.higher_is_better in (True, False, None), "`higher_is_better` must be True, False or None")
    require(bool(cls.unit), "`unit` is empty")
    known = {"audio", "reference", "skeleton"}
    require(set(cls.needs) <= known, f"`needs` may hold audio, reference and skeleton, not {sorted(cls.needs)}")
    protocol = subject.new().protocol
    require(bool(protocol), "the protocol string is empty: fill `recipe`")
    return protocol


def scores_clips(subject: Subject) -> str:
    value = subject.value(subject.scored())
    require(isinstance(value, float) and math.isfinite(value), f"clips equal to their targets score {value!r}")
    return f"{value:.4g} {subject.cls.unit} for clips equal to their targets"


def prefers_clips_that_equal_their_targets(subject: Subject) -> str:
    if subject.cls.higher_is_better is None:
        raise Skipped("it has no better side")
    good, bad = subject.value(subject.scored()), subject.value(subject.scored(worse=True))
    require(good is not None and bad is not None, f"scores {good!r} and {bad!r}")
    assert good is not None and bad is not None
    better = good > bad if subject.cls.higher_is_better else good < bad
    require(better, f"clips equal to their targets score {good:.6g} and clearly spoilt ones {bad:.6g}")
    return f"{good:.4g} against {bad:.4g} for spoilt clips"


def stays_within_its_bounds(subject: Subject) -> None:
    low, high = getattr(subject.cls, "bounds", (None, None))
    if low is None and high is None:
        raise Skipped("it states none")
    for worse in (False, True):
        value = subject.value(subject.scored(worse))
        within = value is not None and (low is None or value >= low) and (high is None or value <= high)
        require(within, f"{value!r} lies outside ({low}, {high})")


def gives_none_for_nothing(subject: Subject) -> None:
    value = subject.new().compute()
    require(value is None, f"without any clip it gives {value!r}; it must give None, never 0.0 or NaN")


def counts_what_cannot_be_scored_and_gives_none(subject: Subject) -> None:
    metric = subject.new()
    for one in subject.scored():
        metric.update(replace(one, features=UNSCORABLE))
    value, failures = metric.compute(), metric.failures()
    require(value is None, f"when no clip can be scored it gives {value!r}; it must give None, never 0.0 or NaN")
    require(sum(failures.values()) == CLIPS, f"{CLIPS} clips could not be scored and `failures` counts {failures}")
    require(all(isinstance(reason, str) and reason for reason in failures), f"failures without a reason: {failures}")


def leaves_unscorable_clips_out_of_the_score(subject: Subject) -> None:
    scored = subject.scored(worse=True)
    spoiler = replace(scored[0], features=UNSCORABLE)
    alone, among = subject.value(scored), subject.value([*scored, spoiler])
    require(_same(alone, among), f"{alone!r} becomes {among!r} when a clip that cannot be scored joins")


def takes_an_index_that_repeats(subject: Subject) -> None:
    metric, scored = subject.new(), subject.scored(worse=True)
    for one in scored:
        metric.update(one)
    chosen = np.array([0, 0, 3, 5, 5, 5, 7, 2])
    resampled, direct = metric.compute(chosen), subject.value(scored[i] for i in chosen)
    require(_same(resampled, direct), f"compute(indices) gives {resampled!r}, those clips themselves {direct!r}")
    whole = metric.compute(np.arange(CLIPS))
    require(_same(whole, metric.compute()), f"all clips by index give {whole!r}, without one {metric.compute()!r}")


def keeps_one_value_a_clip(subject: Subject) -> None:
    metric, scored = subject.new(), subject.scored()
    for one in scored:
        metric.update(one)
    require(list(metric.ids) == [one.clip.id for one in scored], "`ids` are not the clips' in their order")
    require(len(metric.values) == CLIPS, f"{len(metric.values)} values for {CLIPS} clips")
    if subject.cls.per_clip:
        require(all(isinstance(v, (float, Unscorable)) for v in metric.values), "per-clip values must be floats")


def reset_forgets_everything(subject: Subject) -> None:
    metric = subject.new()
    for one in subject.scored(worse=True):
        metric.update(one)
    metric.reset()
    require(metric.compute() is None and not metric.failures(), "after `reset` there is still a score or a failure")
    for one in subject.scored():
        metric.update(one)
    again, fresh = metric.compute(), subject.value(subject.scored())
    require(again == fresh, f"after `reset` it gives {again!r}, a new one {fresh!r}")


def is_deterministic(subject: Subject) -> None:
    values = {subject.value(subject.scored(worse=True)) for _ in range(2)}
    require(len(values) == 1, f"the same clips score {sorted(map(str, values))}")


def does_not_depend_on_the_order_of_clips(subject: Subject) -> None:
    scored = subject.scored(worse=True)
    forwards, backwards = subject.value(scored), subject.value(scored[::-1])
    require(_same(forwards, backwards), f"{forwards!r} in one order, {backwards!r} in the other")


def _same(a: Any, b: Any) -> bool:
    return a is not None and b is not None and math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


CHECKS = (
    states_direction_unit_and_recipe, scores_clips, prefers_clips_that_equal_their_targets, stays_within_its_bounds,
    gives_none_for_nothing, counts_what_cannot_be_scored_and_gives_none, leaves_unscorable_clips_out_of_the_score,
    takes_an_index_that_repeats, keeps_one_value_a_clip, reset_forgets_everything, is_deterministic,
    does_not_depend_on_the_order_of_clips,
)  # fmt: skip
