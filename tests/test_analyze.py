"""`analyze timesteps`: each sample is what it is said to be, a model whose answer is known, and the command itself."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from halign_bench.methods.tpo import TPO
from run_tiny import ScoredTrack
from tiny import TinyAnnotator, TinyBackbone, TinyTrack

from halign_bench.analysis.timesteps import figure, report
from halign_bench.analysis.timesteps.analyse import analyse
from halign_bench.analysis.timesteps.measure import Scores, Spec, measure
from halign_bench.backbone import Backbone
from halign_bench.errors import Interrupted, RequestError
from halign_bench.preferences import PreferenceSpec, collect
from halign_bench.registry import register
from halign_bench.sampling import initial_noise, path, sample
from halign_bench.track import Clip, Track

COARSE, FINE = 3.0, 0.3  # standard deviations of the two channels of a Gaussian world


class GaussianBackbone(Backbone):
    """The exact flow model of two independent Gaussian channels. The louder one is decided at higher noise."""

    name = "gaussian"
    parameterisation = "flow"
    lora_targets = ()
    base_sha256, device, frames, size, denoiser = "gaussian", "cpu", 1, (1, 1), torch.nn.Identity()

    def latent_shape(self):
        return 2, 1, 1, 1

    def condition(self, clips):
        return {}

    def decode(self, latents):
        return latents.numpy()

    def adapters(self, active, fused=False):
        return nullcontext()

    def predict(self, x_t, t, condition):
        t, spread = t.view(-1, 1, 1, 1, 1), torch.tensor([COARSE, FINE]).view(1, 2, 1, 1, 1)
        return (x_t - x_t * shrink(t, spread)) / t


def shrink(t, spread):
    """E[x0 | x_t] = shrink · x_t for x0 ~ N(0, spread²)."""
    return (1 - t) * spread**2 / ((1 - t) ** 2 * spread**2 + t**2)


class GaussianTrack(Track):
    name = "gaussian"

    def __init__(self, prompts: int) -> None:
        super().__init__(None, 1, (1, 1))
        self.prompts = prompts

    def splits(self):
        return {"prompts": self.prompts}

    def clip(self, split, index):
        nothing = np.zeros((1, 1, 1, 3), np.uint8)
        return Clip(f"{split}/{index}", f"person {index}", nothing, nothing[0])

    def annotator(self):
        return ReadsChannels()

    def fingerprint(self):
        return {"prompts": self.prompts}


class ReadsChannels:
    criteria, protocol = ("motion", "fidelity"), "a channel each, in units of its own; prompts differ"

    def __call__(self, video, target):
        return {"motion": 5 * video[0].item() + len(target.id), "fidelity": video[1].item() - 7}


def euler(spread: float, nfe: int) -> dict[float, float]:
    """By noise level, what the sampler multiplies x by from there to the end."""
    factors, total = {0.0: 1.0}, 1.0
    for step in range(1, nfe + 1):
        now, after = step / nfe, (step - 1) / nfe
        total *= 1 + (after - now) * (1 - shrink(now, spread)) / now
        factors[now] = total
    return factors


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory) -> Scores:
    spec = Spec(clips=300, nfe=16, chunk=300)
    return measure(GaussianBackbone(), GaussianTrack(300), spec, tmp_path_factory.mktemp("cache"))


def test_every_score_is_of_the_sample_that_its_definition_says(gaussian):
    for channel, (name, spread) in enumerate((("motion", COARSE), ("fidelity", FINE))):
        to_end = euler(spread, 16)
        for candidate in (0, 1):
            names = [f"{clip}#candidate{candidate}" for clip in gaussian.ids]
            noise, fresh = (
                initial_noise(GaussianBackbone(), given, 0)[:, channel, 0, 0, 0].double().numpy()
                for given in (names, [f"{given}#remade" for given in names])
            )

            def seen(kind, level=None, name=name, candidate=candidate):
                scores = gaussian.values[kind][name][:, candidate]
                scores = scores if level is None else scores[:, level]
                offset = np.array([len(clip) for clip in gaussian.ids])
                return (scores - offset) / 5 if name == "motion" else scores + 7

            full = noise * to_end[1.0]
            np.testing.assert_allclose(seen("full"), full, atol=1e-5)
            np.testing.assert_allclose(seen("first", 0), 0 * noise, atol=1e-5)  # E[x0 | pure noise]
            for level, t in enumerate(gaussian.levels):
                x_t = noise * to_end[1.0] / to_end[t]
                np.testing.assert_allclose(seen("estimate", level), x_t * shrink(t, spread), atol=1e-5)
                remade = ((1 - t) * full + t * fresh) * to_end[t]
                np.testing.assert_allclose(seen("remade", level), remade, atol=1e-5)
                np.testing.assert_allclose(seen("skipped", level), t * noise * to_end[t], atol=1e-5)


def test_what_is_decided_in_a_gaussian_world_is_its_closed_form_and_so_is_t_mid(gaussian):
    result = analyse(gaussian, 16)
    truth = {}
    for name, spread in (("motion", COARSE), ("fidelity", FINE)):
        made = euler(spread, 16)[1.0]  # standard deviation of finished samples
        t = np.array(gaussian.levels)
        truth[name] = (1 - t) * made / np.sqrt((1 - t) ** 2 * made**2 + t**2)
        found = np.array([result.row(name, level).decided.value for level in gaussian.levels])
        assert (np.abs(found - truth[name]) < 4 * (1 - truth[name] ** 2) / math.sqrt(300) + 0.005).all()
    recommendation = result.recommendation
    assert recommendation.verdict == "early first"
    best = gaussian.levels[int((truth["motion"] - truth["fidelity"]).argmax())]
    assert recommendation.interval[0] <= best <= recommendation.interval[1]
    assert abs(recommendation.t_mid - best) <= 0.125
    assert f"t_mid={recommendation.t_mid:.4g}" in report.sentences(result)[-1]


def test_ends_are_true_by_definition_or_measured_and_both_mean_one_step(gaussian):
    result = analyse(gaussian, 16)
    for name in gaussian.criteria:
        noise, clean = result.row(name, 1.0), result.row(name, 0.0)
        assert (noise.decided.value, noise.skipped.value, noise.nfe) == (0.0, 0.0, 16)
        assert (clean.decided.value, clean.estimate.value, clean.nfe) == (1.0, 0.0, 1)
        assert clean.skipped == noise.estimate and clean.skipped.ci is not None
    assert gaussian.skip_nfe == (15, 13, 11, 9, 7, 5, 3)


# On the tiny network


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


SPEC = Spec(nfe=4, clips=8, chunk=4)


def rescore(backbone, track, latents) -> np.ndarray:
    clips = [track.clip("prompts", index) for index in range(len(latents))]
    made = zip(backbone.decode(latents), clips, strict=True)
    return np.array([track.annotator()(video, clip)["fidelity"] for video, clip in made])


def test_candidates_are_those_of_the_preferences(cache):
    backbone, track = TinyBackbone(), TinyTrack()
    scores = measure(backbone, track, SPEC, cache)
    pairs = collect(backbone, track, PreferenceSpec(prompts=8, candidates=2, nfe=4, chunk=4), cache)
    for c, name in enumerate(pairs.criteria):
        np.testing.assert_allclose(scores.values["full"][name], pairs.scores[..., c], atol=1e-9)


def test_a_skipped_path_is_the_one_that_tpo_samples_when_it_skips(cache):
    backbone, track = TinyBackbone(), TinyTrack()
    scores = measure(backbone, track, SPEC, cache)
    condition = backbone.condition([track.clip("prompts", index) for index in range(8)])
    noise = initial_noise(backbone, [f"{name}#candidate1" for name in scores.ids], 0)
    for level, (t, nfe) in enumerate(zip(scores.levels, scores.skip_nfe, strict=True)):
        segments = TPO(TPO.Config(t_mid=t, motion_nfe_share=0.0)).segments()
        made = sample(backbone, condition, noise, nfe=nfe, segments=segments, batch_size=4)
        seen = scores.values["skipped"]["fidelity"][:, 1, level]
        np.testing.assert_allclose(seen, rescore(backbone, track, made), atol=1e-6)


def test_it_costs_what_the_progress_says_and_goes_on_where_it_was_stopped(cache):
    reports: list[tuple[int, int]] = []
    whole = TinyBackbone()
    expected = measure(whole, TinyTrack(), SPEC, cache / "whole", lambda *now: reports.append(now))
    total = 8 * 2 * (4 + 2 * (3 + 2 + 1))
    assert whole.forwards == total and reports[0] == (0, total) and reports[-1] == (total, total)
    first, second = TinyBackbone(), TinyBackbone()

    def stop(done: int, _: int) -> None:
        if done > total / 2 + 10:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        measure(first, TinyTrack(), SPEC, cache, stop)
    again = measure(second, TinyTrack(), SPEC, cache)
    assert second.forwards == total / 2
    for kind, of in expected.values.items():
        for name in of:
            assert np.array_equal(of[name], again.values[kind][name])


def test_guidance_counts_both_of_its_evaluations(cache):
    backbone = TinyBackbone()
    scores = measure(backbone, TinyTrack(), Spec(nfe=4, clips=2, guidance=2.0), cache)
    assert (scores.levels, scores.skip_nfe) == ((0.5,), (4,))
    assert backbone.forwards == 2 * 2 * (4 + 2 * 2)


class Fails(TinyAnnotator):
    """Cannot tell fidelity for some prompts."""

    def __init__(self, failing: int) -> None:
        self.failing = failing

    def __call__(self, video, target):
        scores = super().__call__(video, target)
        if int(target.id[-3:]) < self.failing:
            scores["fidelity"] = math.nan
        return scores


class WithFails(TinyTrack):
    failing = 0

    def annotator(self):
        return Fails(self.failing)


def test_clips_without_a_score_are_left_out_of_that_criterion_alone_and_counted(cache):
    track = WithFails()
    track.failing = 3
    result = analyse(measure(TinyBackbone(), track, SPEC, cache), 4)
    assert [criterion.clips for criterion in result.criteria] == [8, 5]
    assert result.notes == [
        "fidelity: 3 of 8 clips are left out: the annotator could not score all of their samples"
    ]
    assert all(row.decided.value is not None and row.skipped.value is not None for row in result.rows)


def test_a_criterion_that_is_never_scored_is_unknown_and_said_to_be(cache):
    track = WithFails()
    track.failing = 8
    result = analyse(measure(TinyBackbone(), track, SPEC, cache), 4)
    assert "fidelity: the annotator scored all samples of 0 of 8 clips, which is too few to measure it" in result.notes
    unknown = [row for row in result.rows if row.criterion == "fidelity"]
    assert all(getattr(row, name).value is None for row in unknown for name in report.MEASURES)
    assert report.sentences(result) == ["cannot tell: motion and fidelity were not both measured"]
    json.dumps(report.to_document(result, {}), allow_nan=False)


class OneCriterion(TinyAnnotator):
    criteria = ("overall",)

    def __call__(self, video, target):
        return {"overall": super().__call__(video, target)["fidelity"]}


def test_an_annotator_without_motion_and_fidelity_gets_curves_and_no_t_mid(cache):
    track = TinyTrack()
    track.annotator = OneCriterion
    result = analyse(measure(TinyBackbone(), track, SPEC, cache), 4)
    assert result.recommendation is None and report.sentences(result) == []
    assert result.notes == ["no t_mid: the track's annotator has no criterion named motion or fidelity"]
    assert result.row("overall", 0.5).decided.value is not None


def test_what_a_track_cannot_give_is_said_in_a_sentence(cache):
    class Unlabelled(TinyTrack):
        def annotator(self):
            raise NotImplementedError

    with pytest.raises(RequestError, match="track tiny has no annotator"):
        measure(TinyBackbone(), Unlabelled(), SPEC, cache)
    with pytest.raises(RequestError, match="--clips 13: track tiny has 12 clips in its split prompts"):
        measure(TinyBackbone(), TinyTrack(), Spec(clips=13, nfe=4), cache)
    with pytest.raises(RequestError, match="at least 2"):
        measure(TinyBackbone(), TinyTrack(prompts=1), Spec(nfe=4), cache)


# What is written


def test_the_csv_holds_what_the_analysis_found(gaussian):
    result = analyse(gaussian, 16)
    rows = list(csv.DictReader(report.to_csv(result).splitlines()))
    assert len(rows) == 2 * (7 + 2)
    for given, row in zip(rows, result.rows, strict=True):
        assert (given["criterion"], float(given["t"]), int(given["skip_nfe"])) == (row.criterion, row.t, row.nfe)
        for name in report.MEASURES:
            found = getattr(row, name)
            assert given[name] == ("" if found.value is None else str(found.value))
            assert given[f"{name}_low"] == ("" if found.ci is None else str(found.ci[0]))
    scores = list(csv.DictReader(report.scores_csv(result).splitlines()))
    assert len(scores) == 300 * 2 * 2 * (1 + 1 + 3 * 7)
    one = next(row for row in scores if row["kind"] == "remade" and row["t"] == "0.5" and row["criterion"] == "motion")
    level = gaussian.levels.index(0.5)
    assert (one["clip"], float(one["score"])) == (gaussian.ids[0], gaussian.values["remade"]["motion"][0, 0, level])


def test_the_figure_draws_the_numbers_with_their_intervals_and_embeds_its_fonts(gaussian, tmp_path):
    result = analyse(gaussian, 16)
    with figure.settings():
        panels = figure.draw(result).axes
    assert len(panels) == 3
    for axis, (measure_name, _, _) in zip(panels, figure.PANELS, strict=True):
        lines = {line.get_label(): line for line in axis.lines}
        for criterion in result.criteria:
            t, drawn = lines[criterion.name].get_data()
            expected = [getattr(result.row(criterion.name, level), measure_name).value for level in t]
            assert list(drawn) == expected and len(t) == 9
        assert len({(line.get_linestyle(), line.get_marker()) for line in axis.lines[-2:]}) == 2  # told apart in grey
        assert len(axis.collections) >= 2  # a band each
        low, high = sorted(axis.get_xlim())
        assert low < 0 < 1 < high and axis.get_xlim()[0] > 1
    written = figure.write(result, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["timesteps.pdf", "timesteps.png", "timesteps.svg"]
    pdf = written[0].read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert b"<text" not in written[1].read_bytes()  # drawn: no font to be missing
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in figure.write(result, tmp_path)] == before


# The command


@register
class Unlabelled(ScoredTrack):
    name = "tiny-unlabelled"

    def annotator(self):
        raise NotImplementedError


TINY = ("analyze", "timesteps", "--track", "tiny-scored", "--backbone", "tiny-dit", "--nfe", "4")


def command(*arguments: str) -> int:
    from halign_bench.cli import main

    return main([*TINY, *arguments])


def test_the_command_writes_and_prints_and_a_second_time_only_reads(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HALIGN_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    assert command("--clips", "8", "--out", str(out), "--json") == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document == json.loads((out / "timesteps.json").read_text())
    assert document["schema"] == "halign-bench/timesteps/1" and document["clips"] == 8
    assert document["backbone"]["name"] == "tiny-dit" and document["split"] == "prompts"
    assert document["recommendation"]["verdict"] in ("early first", "late first", "cannot tell")
    assert len(document["conclusions"]) >= 1 and "sample and score: done" in said.err
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == {f"timesteps.{kind}" for kind in ("csv", "json", "pdf", "svg", "png")} | {
        "timesteps-scores.csv"
    }
    monkeypatch.setattr(TinyBackbone, "predict", None)  # nothing is sampled again
    assert command("--clips", "8", "--out", str(out)) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    table = capsys.readouterr().out
    assert table.startswith("tiny-dit on tiny-scored: 8 clips of 4 identities, 2 candidates each, NFE 4\n")
    assert "decided" in table and "fidelity" in table and document["conclusions"][0] in table


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--clips", "13"], "--clips 13: track tiny-scored has 12 clips"),
        (["--track", "tiny-unlabelled"], "track tiny-unlabelled has no annotator"),
        (["--device", "gpu"], "--device gpu"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence_and_leaves_nothing(arguments, words, tmp_path, capsys):
    assert command("--out", str(tmp_path / "out"), *arguments) == 2
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("halign-bench: ") and words in complaint
    assert not (tmp_path / "out").exists()


def test_levels_between_two_steps_are_moved_and_said_to_be(tmp_path, capsys):
    assert command("--clips", "4", "--levels", "0.7,0.5", "--out", str(tmp_path / "out"), "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["levels"] == [0.75, 0.5]
    assert "levels 0.7 are measured where the sampler steps, at 0.75, 0.5 in all" in said.err


def test_an_interrupt_is_130_and_the_same_command_goes_on(tmp_path):
    program = Path(__file__).parent / "run_tiny.py"
    arguments = [sys.executable, str(program), *TINY, "--nfe", "200", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "HALIGN_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(program.parent)}
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment)
    said = iter(process.stderr.readline, "")
    assert any("sample and score ..." in line for line in said)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130, rest
    assert "the same command goes on from there" in rest.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_steps_of_the_path_are_those_of_a_run():
    """The analysis steps evenly, as a run does: a change of one without the other would make its t_mid misleading."""
    assert [step.now for step in path(16)] == [1 - n / 16 for n in range(16)]
