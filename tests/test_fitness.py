"""Clips spoilt by a known amount: what each damage does, how metrics are measured on it, and what is called fit."""

from __future__ import annotations

import doctest
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import media_files as files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halign_bench.fitness import rule, spoiling
from halign_bench.fitness.damages import DAMAGES, FALLS, RISES, Damage, Spoilt, Subject, of_pictures
from halign_bench.fitness.measuring import Measurement
from halign_bench.fitness.run import Guarded
from halign_bench.registry import get
from halign_bench.track import Clip, Unscorable
from halign_bench.tracks.puppet import fitness as puppet
from halign_bench.tracks.puppet.evaluators import load

SHARES = st.floats(0, 1)


# Damage


@pytest.mark.parametrize("module", (spoiling, rule))
def test_examples_in_the_documentation_hold(module):
    assert doctest.testmod(module).failed == 0


@given(st.integers(1, 40), SHARES, st.integers(0, 9))
def test_shuffling_moves_no_more_than_its_share_and_loses_no_frame(frames, share, seed):
    order = spoiling.shuffled(frames, share, np.random.default_rng(seed))
    assert sorted(order) == list(range(frames))
    assert (order != np.arange(frames)).sum() <= round(share * frames)


@given(st.integers(1, 40), SHARES)
def test_freezing_keeps_the_beginning_and_then_stands_still(frames, share):
    order = spoiling.frozen(frames, share)
    still = round(share * (frames - 1))
    assert (order[: frames - still] == np.arange(frames - still)).all()
    assert (order[frames - still :] == frames - 1 - still).all()


@given(st.integers(1, 40), SHARES, SHARES, st.integers(0, 9))
def test_a_larger_share_of_frames_includes_the_smaller(frames, one, two, seed):
    less, more = (spoiling.chosen_frames(frames, s, np.random.default_rng(seed)) for s in sorted((one, two)))
    assert (more | ~less).all() and more.sum() == np.ceil(max(one, two) * frames)


@given(st.integers(0, 50), st.integers(0, 60), SHARES)
def test_wrong_sound_is_the_end_of_the_right_length_and_silent_where_there_is_none(length, other, share):
    found = spoiling.sound_replaced(np.ones(length), np.full(other, 2.0), share)
    kept = length - round(share * length)
    assert len(found) == length and (found[:kept] == 1).all()
    assert (found[kept:other] == 2).all() and (found[max(kept, other) :] == 0).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(12, 40), st.integers(12, 40), st.integers(0, 9))
def test_blur_smooths_more_with_its_width_and_noise_is_as_strong_as_stated(frames, height, width, seed):
    video = np.random.default_rng(seed).integers(64, 192, (frames, height, width, 3), np.uint8)
    spreads = [spoiling.blurred(video, sigma).std() for sigma in (0, 2, 6)]
    assert spreads[0] == video.std() and spreads[0] > spreads[1] > spreads[2]
    noise = spoiling.noisy(video, 10, np.random.default_rng(seed)).astype(float) - video
    assert abs(noise.std() - 10) < 1.5 and abs(noise.mean()) < 1.5


def test_long_videos_are_spoilt_in_pieces_to_the_same_pixels(monkeypatch):
    video = files.textured(5)
    whole = spoiling.blurred(video, 2), spoiling.noisy(video, 9, np.random.default_rng(0))
    monkeypatch.setattr(spoiling, "PIECE", 1)
    pieces = spoiling.blurred(video, 2), spoiling.noisy(video, 9, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_only_the_boxes_of_hands_are_touched():
    video = files.textured(3)
    boxes = [(1, np.array([8, 4, 30, 24]))]
    inside = np.zeros(video.shape, bool)
    inside[1, 4:24, 8:30] = True
    for spoilt in (spoiling.boxes_blurred(video, boxes, 0.2), spoiling.boxes_removed(video, boxes)):
        assert (spoilt == video)[~inside].all() and (spoilt != video)[inside].mean() > 0.8
    removed = spoiling.boxes_removed(video, boxes)[1, 4:24, 8:30]
    assert (removed == removed[0, 0]).all()


def test_the_card_of_the_evaluators_names_the_damages_that_any_clip_can_have():
    for kind, damage in puppet.DAMAGES.items():
        shared = DAMAGES.get(kind)
        assert shared is None or (shared.unit, shared.levels) == (damage.unit, damage.levels)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("frozen", "noise", "fingers_removed"))
def test_the_committed_card_is_what_is_measured_now(kind):
    from halign_bench.tracks.puppet.evaluator_data import spread
    from halign_bench.tracks.puppet.evaluators import NAMES, WEIGHTS

    card = json.loads((WEIGHTS / NAMES[1]).read_text(encoding="utf-8"))["quality"]["damage"]
    rows = [spread("evaluator-test", index) for index in range(100)]
    for found in puppet.measure(kind, load(), rows, "evaluator-test"):
        stated = next(row for row in card if (row["kind"], row["metric"]) == (kind, found.metric))
        assert list(found.values) == pytest.approx(stated["values"], rel=1e-4, abs=1e-6)
        assert found.spearman == pytest.approx(stated["spearman"], abs=1e-6)


# Measuring and judging


ALONE = Unscorable("alone")


def made_subject(number: int, other: Clip | Unscorable = ALONE) -> Subject:
    video = (files.textured(6, seed=number) // 2) + 64
    clip = Clip(f"clip {number}", f"person {number}", video, video[0], np.full(6 * 640, 0.1, np.float32))
    return Subject(clip, clip, (number,), lambda: other)


class Random:
    """Features that have nothing to do with the clip but its content's hash."""

    name, protocol = "random", "noise"

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list:
        seeds = [int.from_bytes(hashlib.sha256(clip.video.tobytes()).digest()[:4], "big") for clip in clips]
        rows = [np.random.default_rng(seed).normal(size=(2, 8)) for seed in seeds]
        return [{"embedding": row[:1], "reference": row[1]} for row in rows]


def measured(damages: dict[str, Damage], names: Sequence[str], subjects: Sequence[Subject], **extractors):
    measurement = Measurement(damages, {name: get("metric", name) for name in names}, extractors)
    for subject in subjects:
        measurement.add(subject)
    return {ladder.metric: ladder for ladder in measurement.ladders()}


def test_a_metric_that_follows_is_fit_and_one_that_does_not_is_unfit():
    subjects = [made_subject(n) for n in range(5)]
    found = measured({"blur": DAMAGES["blur"]}, ("psnr", "ssim"), subjects)
    for ladder in found.values():
        assert (ladder.verdict, ladder.reason, ladder.clips) == ("fit", None, 5)
        assert ladder.spearman == -1 and list(ladder.totals) == sorted(ladder.totals, reverse=True)
    assert found["psnr"].totals[0] == 100 and found["psnr"].key == "psnr@pixels"
    # the same damage, and a metric that is said to rise by it
    reverse = replace(DAMAGES["blur"], follows={"psnr": RISES})
    assert measured({"blur": reverse}, ("psnr",), subjects)["psnr"].verdict == "unfit"
    # one that a damage leaves as it is
    nothing = Damage("nothing", (0, 1, 2), {"psnr": FALLS}, of_pictures(lambda video, level, rng: video))
    unmoved = measured({"nothing": nothing}, ("psnr",), subjects)["psnr"]
    assert unmoved.spearman == 0 and unmoved.verdict == "unfit"


def test_an_extractor_that_knows_nothing_is_not_called_fit():
    other = made_subject(99).clip
    subjects = [made_subject(n, other) for n in range(6)]
    found = measured({"swap": DAMAGES["identity_swapped"]}, ("csim",), subjects, identity=Random())["csim"]
    assert found.verdict == "unfit" and "is asked for" in str(found.reason) and found.key == "csim@random"


def test_what_cannot_be_measured_is_not_measured_with_its_reason():
    damages = {"swap": DAMAGES["identity_swapped"]}
    alone = measured(damages, ("csim",), [made_subject(n) for n in range(6)], identity=Random())["csim"]
    assert (alone.verdict, alone.reason, alone.totals) == ("not measured", "alone (6 clips)", ())
    few = measured({"blur": DAMAGES["blur"]}, ("psnr",), [made_subject(n) for n in range(3)])["psnr"]
    assert few.verdict == "not measured" and "3 clips were scored" in str(few.reason) and few.spearman == -1


def test_only_clips_that_are_scored_at_every_level_count():
    def too_dark_at_two(subject: Subject, level: float, rng: np.random.Generator) -> Spoilt | Unscorable:
        if level == 2 and subject.seed[0] < 2:
            return Unscorable("too dark")
        return Spoilt(replace(subject.clip, video=subject.clip.video // int(level + 1)), subject.clip)

    dark = Damage("f-stops", (0, 1, 2), {"psnr": FALLS}, too_dark_at_two)
    all_of_them = measured({"dark": dark}, ("psnr",), [made_subject(n) for n in range(7)])["psnr"]
    without = measured({"dark": dark}, ("psnr",), [made_subject(n) for n in range(2, 7)])["psnr"]
    assert (all_of_them.clips, all_of_them.failed) == (5, {"too dark": 2})
    assert all_of_them.totals == without.totals and all_of_them.verdict == "fit"


def test_a_failing_extractor_costs_its_clips_and_nothing_else():
    class Broken(Random):
        def __call__(self, clips, conditions):
            raise ZeroDivisionError("no variance")

    found = measured(
        {"swap": DAMAGES["identity_swapped"], "blur": DAMAGES["blur"]}, ("csim", "psnr"),
        [made_subject(n, made_subject(9).clip) for n in range(4)], identity=Guarded(Broken()),
    )  # fmt: skip
    assert found["csim"].reason == "random failed: ZeroDivisionError: no variance (4 clips)"
    assert found["psnr"].verdict == "fit"


@given(st.sampled_from((RISES, FALLS)), st.floats(-1, 1), st.integers(0, 9))
def test_fit_needs_the_right_sign_and_enough_clips(sign, rank, clips):
    verdict, reason = rule.judge(sign, clips, rank)
    assert (verdict == "fit") == (clips >= rule.CLIPS and round(sign * rank, 9) >= rule.LEAST)
    assert (reason is None) == (verdict == "fit")
