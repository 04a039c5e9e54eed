"""Signs of trouble: seen where they are, once a stage, the same after a resume, and not where all is well."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import cell, make_record
from rich.console import Console
from run_tiny import TINY, ScoredTrack
from tiny import TinyBackbone, TinyTrack

from halign_bench.batch import error
from halign_bench.companions import ClipScore
from halign_bench.evaluation import Evaluator
from halign_bench.leaderboard import build
from halign_bench.method import LossOutput
from halign_bench.preferences import PreferenceSpec, collect
from halign_bench.progress import Progress
from halign_bench.record import Sign
from halign_bench.registry import get
from halign_bench.results import read_record
from halign_bench.signs import NORM, WINDOW, TrainingSigns, in_samples, over_exposed
from halign_bench.training import TrainingSpec, train

DPO = get("method", "diffusion-dpo")


def signs_of(entries) -> list[Sign]:
    signs = TrainingSigns()
    return [sign for entry in entries for sign in signs.see(entry)]


def names_of(entries) -> list[tuple[str, int]]:
    return [(sign.name, sign.step) for sign in signs_of(entries)]


def entries(count=3 * WINDOW, stage="x", start=0, **columns):
    """Lines of a training log; a column is a function of the step or a constant."""
    for step in range(1, count + 1):
        values = {name: value(step) if callable(value) else value for name, value in columns.items()}
        yield {"stage": stage, "step": step + start, "loss": 0.5, **values}


def noise(step: int) -> float:
    return float(np.random.default_rng(step).normal(0, 0.01))


def test_nothing_is_said_of_a_healthy_training():
    healthy = {"winner_gap": lambda s: noise(s) - 0.002 * s, "implicit_accuracy": lambda s: 0.5 + 0.49 * s / 60}
    assert names_of(entries(**healthy, norm_ratio=[1.0, 1.1, None, 0.9])) == []
    assert names_of(entries()) == []  # a method that logs nothing but its loss


def test_a_winners_error_that_rises():
    (sign,) = signs_of(entries(winner_gap=lambda s: noise(s) + 0.001 * s))
    assert sign.name == "winner error rising" and WINDOW <= sign.step < 2 * WINDOW
    assert f"step {sign.step}" in sign.text and f"{sign.value:.3g} above the reference's" in sign.text


def test_implicit_accuracy_at_one_must_hold_and_almost_one_is_not_it():
    assert names_of(entries(implicit_accuracy=1.0)) == [("implicit accuracy at 1", WINDOW)]
    assert names_of(entries(implicit_accuracy=lambda s: 1.0 if s % (WINDOW - 1) else 0.75)) == []


@pytest.mark.parametrize(("ratio", "says"), [(NORM + 0.01, True), (1 / NORM - 0.01, True), (NORM - 0.01, False)])
def test_predictions_that_grow_or_shrink_against_the_reference(ratio, says):
    found = signs_of(entries(norm_ratio=[1.0, None, 1.0, ratio]))
    assert [(s.name, s.step) for s in found] == ([("prediction size", WINDOW)] if says else [])
    if says:
        assert f"t in [0.75, 1] are {ratio:.2f} times" in found[0].text and found[0].value == pytest.approx(ratio)


def test_each_sign_is_told_once_a_stage():
    told = names_of([*entries(stage="a", implicit_accuracy=1.0), *entries(stage="b", implicit_accuracy=1.0)])
    assert told == [("implicit accuracy at 1", WINDOW)] * 2


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=70), st.integers(0, 70))
def test_a_resumed_training_comes_to_the_same_signs(gaps, cut):
    lines = [{"stage": "x", "step": i, "winner_gap": gap, "norm_ratio": [1 + gap]} for i, gap in enumerate(gaps)]
    whole, resumed = TrainingSigns(), TrainingSigns()
    expected = [sign for line in lines for sign in whole.see(line)]
    before = [sign for line in lines[:cut] for sign in resumed.see(line)]
    assert before + [sign for line in lines[cut:] for sign in resumed.see(line)] == expected


# In real trainings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return collect(
        TinyBackbone(), TinyTrack(), PreferenceSpec(prompts=12, candidates=3, nfe=2), tmp_path_factory.mktemp("cache")
    )


SPEC = TrainingSpec(samples=240, batch_size=8, lr=5e-3, rank=4, warmup=2)


class Unlearns(DPO):
    """Goes away from its winners instead of towards them."""

    def loss(self, stage, policy, reference, batch, backbone):
        x_t, target = batch.winner.noised(backbone)
        clips = batch.winner
        ours = error(policy(x_t, clips.t, clips.condition), target)
        theirs = error(reference(x_t, clips.t, clips.condition), target)
        return LossOutput(-ours, {"winner_gap": ours - theirs})

    def at_start(self, stage):
        return {}


def test_a_method_that_unlearns_its_winners(data, tmp_path):
    said: list[str] = []
    result = train(Unlearns(), TinyBackbone(), data, SPEC, 0, tmp_path, warn=said.append)
    assert "winner error rising" in [sign.name for sign in result.warnings]
    assert said == [sign.text for sign in result.warnings] and len(set(said)) == len(said)
    # What is finished is not told again, and is still in the result.
    again = train(Unlearns(), TinyBackbone(), data, SPEC, 0, tmp_path, warn=said.append)
    assert again.warnings == result.warnings and len(said) == len(result.warnings)


def test_dpo_on_few_pairs_learns_them_by_heart(data, tmp_path):
    spec = SPEC.model_copy(update={"samples": 1200, "lr": 2e-2})
    result = train(DPO(DPO.Config(beta=1000)), TinyBackbone(), data, spec, 0, tmp_path)
    assert "implicit accuracy at 1" in [sign.name for sign in result.warnings]


def test_a_healthy_dpo_is_not_warned_of(data, tmp_path):
    spec = SPEC.model_copy(update={"lr": 1e-4, "samples": 8 * WINDOW})  # not long enough to know these pairs by heart
    assert train(DPO(), TinyBackbone(), data, spec, 0, tmp_path).warnings == []


def test_signs_survive_an_interrupt(data, tmp_path):
    whole = train(Unlearns(), TinyBackbone(), data, SPEC, 0, tmp_path / "whole")

    def stop(done, budget):
        if done == 8 * (WINDOW - 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Unlearns(), TinyBackbone(), data, SPEC, 0, tmp_path / "cut", stop)
    assert train(Unlearns(), TinyBackbone(), data, SPEC, 0, tmp_path / "cut").warnings == whole.warnings


# In samples


def test_over_exposure_is_against_the_target():
    dark, bright = np.full((5, 8, 8, 3), 100, np.uint8), np.full((5, 8, 8, 3), 255, np.uint8)
    partly = dark.copy()
    partly[:, :1] = 255  # an eighth of it
    assert over_exposed(bright, dark) and over_exposed(partly, dark)
    assert not over_exposed(bright, bright) and not over_exposed(dark, bright) and not over_exposed(dark, dark)


def test_frozen_samples_are_counted():
    def clips(*motion):
        return [ClipScore(f"c{i}", "p", "motion@toy/nfe10", m, None if m is not None else "single frame")
                for i, m in enumerate(motion)]  # fmt: skip

    (sign,) = in_samples(10, 0, clips(0.05, 0.0, 0.9, 1.1, None))
    assert sign.name == "frozen samples" and sign.value == 0.5 and sign.step is None
    assert sign.text.startswith("at NFE 10, 2 of 4 samples are frozen")
    assert in_samples(10, 0, clips(0.11, 1.0)) == [] and in_samples(10, 0, []) == []
    assert in_samples(10, 1, clips(*[1.0] * 10)) == []  # one of ten is no sign yet
    assert in_samples(10, 2, clips(*[1.0] * 10))[0].name == "over-exposed samples"


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda video: video, None), (lambda video: np.full_like(video, 255), "over-exposed samples"),
        (lambda video: np.broadcast_to(video[:1], video.shape).copy(), "frozen samples"),
    ],
)  # fmt: skip
def test_an_evaluation_sees_them_at_the_nfe_where_they_are(tmp_path, spoil, name):
    evaluator = Evaluator(TinyBackbone(), track := ScoredTrack(), TINY)
    for nfe in TINY.nfe:
        change = spoil if nfe == 2 else lambda video: video
        evaluator.provide(tmp_path, nfe, 0, lambda i, change=change: change(track.clip("eval", i).video))
    result = evaluator.evaluate(lambda t: (), 0, tmp_path, Progress(Console(file=io.StringIO())), "cell")
    found = {sign.name: sign.text for sign in result.signs}
    assert (name in found) == (name is not None) and (name is not None or not found)
    assert all(text.startswith("at NFE 2, 8 of 8") for text in found.values())


# In records and tables


def test_a_record_keeps_its_warnings_and_the_table_shows_them(tmp_path):
    sign = Sign(name="prediction size", step=30, value=1.5, text="stage x, step 30: predictions are too large")
    record = cell(tmp_path, "tuned", warnings=[sign])
    assert read_record(record.source).warnings == [sign]
    board = build([cell(tmp_path, "base"), record])
    assert board.document()["rows"][1]["warnings"] == [f"seed 0: {sign.text}"]
    assert f"- tuned, seed 0: {sign.text}" in board.to_markdown()
    assert "Signs of trouble" not in build([make_record("base")]).to_markdown()


@pytest.mark.parametrize(("gain", "told"), [(-0.5, True), (0.5, False)])
def test_accuracy_at_one_with_worse_samples_is_noted(tmp_path, gain, told):
    sign = Sign(name="implicit accuracy at 1", step=30, value=1.0, text="stage x, step 30: implicit accuracy …")
    board = build([cell(tmp_path, "base"), cell(tmp_path, "tuned", gain=gain, warnings=[sign])])
    notes = [note for note in board.notes if "implicit accuracy at 1 by step 30" in note]
    assert bool(notes) == told
    if told:
        assert "worse than base's in" in notes[0] and "sync_c@toy" in notes[0] and "fid@toy" in notes[0]
    unwarned = build([cell(tmp_path, "base"), cell(tmp_path, "tuned", gain=gain)])
    assert not [note for note in unwarned.notes if "implicit accuracy" in note]
