"""The shipped evaluators, measured again on a few held-out clips, and refused when they are not what the card says."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from halign_bench.errors import RequestError
from halign_bench.metric import Scored
from halign_bench.progress import Progress
from halign_bench.registry import get
from halign_bench.track import Clip, Unscorable
from halign_bench.tracks.puppet import evaluator_data as data
from halign_bench.tracks.puppet import evaluator_quality as quality
from halign_bench.tracks.puppet import fitness, train_evaluators
from halign_bench.tracks.puppet.clips import VERSION, draw_clip
from halign_bench.tracks.puppet.evaluators import NAMES, WEIGHTS, load

CARD = json.loads((WEIGHTS / NAMES[1]).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def extractors():
    return load()


@pytest.fixture(scope="module")
def long_clips():
    rows = [data.long_clip("evaluator-test", 100 + i) for i in range(24)]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip("evaluator-test", 3, 17, 64)


def test_the_card_meets_what_was_asked_for():
    assert CARD["quality"]["sync"]["clips"] >= 400
    assert CARD["quality"]["sync"]["sync_exact"] >= 0.95
    assert CARD["quality"]["hands"]["pck"] >= 0.95
    assert CARD["quality"]["identity"]["auc"] >= 0.98
    assert {row["kind"] for row in CARD["quality"]["damage"]} == set(fitness.DAMAGES)
    assert all(row["follows"] for row in CARD["quality"]["damage"])


def test_the_card_is_about_the_shipped_weights():
    content = (WEIGHTS / NAMES[0]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == CARD["sha256"]
    assert len(content) <= 2_000_000
    assert (WEIGHTS / "evaluators.md").read_text(encoding="utf-8") == quality.card_text(CARD)


def test_the_card_is_about_this_renderer():
    assert CARD["trained"]["renderer"] == VERSION, "the renderer changed: train the evaluators again"


def test_protocol_names_net_weights_and_preprocessing(extractors):
    assert set(extractors) == {"image", "video", "sync", "hands", "identity"}
    for extractor in extractors.values():
        assert extractor.name == "puppet"
        assert CARD["sha256"] in extractor.protocol
        assert "64x64" in extractor.protocol
    assert len({extractor.protocol for extractor in extractors.values()}) == 5


def test_shapes(extractors, clip):
    found = {key: extractor([clip], [clip])[0] for key, extractor in extractors.items()}
    assert found["image"].shape == (17, 64)
    assert found["video"].shape == (64,)
    assert found["sync"]["video"].shape == found["sync"]["audio"].shape == (13, 96)
    assert found["hands"]["keypoints"].shape == (17, 2, 21, 2)
    assert found["hands"]["confidence"].shape == (17, 2, 21)
    assert found["hands"]["expected"].shape == (17, 2)
    assert found["hands"]["expected"].dtype == bool
    assert found["identity"]["embedding"].shape == (17, 64)
    assert found["identity"]["reference"].shape == (64,)


def test_sync_net_finds_shifted_sound(extractors, long_clips):
    found = quality.sync_quality(long_clips, extractors["sync"])
    assert found["sync_exact"] >= 0.93
    assert found["exact_by_shift"]["0"] >= 0.93
    assert found["sync_c_in_sync"] > 3 * found["sync_c_of_another_voice"]


def test_hand_net_finds_joints(extractors, long_clips):
    few = {key: values[:6] for key, values in long_clips.items()}
    assert quality.hand_quality(few, extractors["hands"])["pck"] >= 0.95


def test_hand_net_finds_joints_at_another_frame_size(extractors):
    clip = draw_clip("evaluator-test", 11, 5, 96)
    found = extractors["hands"]([clip], [clip])[0]
    true = np.stack([clip.skeleton[:, rows, :2] for rows in clip.layout.hands], 1)
    error = np.linalg.norm(found["keypoints"] - true, axis=-1)
    assert np.median(error) < 1.5


def test_identity_net_tells_people_apart(extractors):
    rows = [data.portraits("evaluator-test", 120 + i) for i in range(30)]
    found = quality.identity_quality({"views": np.stack([row["views"] for row in rows])}, extractors["identity"])
    assert found["auc"] >= 0.97
    assert found["auc_other_clothes"] >= 0.95


def test_area_under_curve():
    assert quality.area_under_curve(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1.0
    assert quality.area_under_curve(np.array([1.0]), np.array([1.0])) == 0.5
    assert quality.area_under_curve(np.array([1.0, 3.0]), np.array([2.0])) == 0.5


@pytest.mark.parametrize("kind", list(fitness.DAMAGES))
def test_scores_follow_damage_of_known_size(extractors, kind):
    indices = [
        data.spread("evaluator-test", 40 + i) for i in range(24 if "fvd" in fitness.DAMAGES[kind].metrics else 8)
    ]
    for found in fitness.measure(kind, extractors, indices, "evaluator-test"):
        assert found.follows, f"{found.metric} under {kind}: {found.values}"
        assert abs(found.spearman) > 0.6


def test_removed_fingers_lose_confidence_and_the_others_keep_it(extractors):
    index = 77
    target, made = fitness.target_of("evaluator-test", index), fitness.take("evaluator-test", index, 17)
    video = fitness.render(made.identity, made.motion, made.script.at_frames(17), 64, ((0, 2, 3, 4), (0, 1, 2, 3)))
    found = extractors["hands"]([replace(target, video=video)], [target])[0]["confidence"].mean(0)
    fingers = found[:, 1:].reshape(2, 5, 4).mean(-1)
    assert fingers[0, 1] < 0.4 < 0.7 < np.delete(fingers[0], 1).min()
    assert fingers[1, 4] < 0.4 < 0.7 < np.delete(fingers[1], 4).min()


def test_pixels_of_the_hands_are_scored_where_the_skeleton_has_them(extractors, clip):
    hands = np.concatenate([clip.skeleton[:, rows, :2] for rows in clip.layout.hands], 1)
    low, high = np.floor(hands.min(1)).astype(int), np.ceil(hands.max(1)).astype(int)
    spoilt, elsewhere = clip.video.copy(), clip.video.copy()
    elsewhere[:, :6] = 0  # above the head
    for frame, (x0, y0), (x1, y1) in zip(spoilt, low, high, strict=True):
        frame[max(y0, 0) : y1, max(x0, 0) : x1] = 128
    for name, best in (("ssim_hand", 1.0), ("psnr_hand", 100.0)):
        values = []
        for video in (clip.video, elsewhere, spoilt):
            metric, made = get("metric", name)(extractors["hands"]), replace(clip, video=video)
            metric.update(Scored(made, clip, *extractors["hands"]([made, clip], [clip, clip])))
            values.append(metric.compute())
            assert metric.failures() == {} and extractors["hands"].protocol in metric.protocol
        assert values[0] == values[1] == pytest.approx(best) and values[2] < 0.8 * best


def test_a_crop_without_a_hand_is_not_a_hand(extractors, clip):
    empty = np.broadcast_to(np.uint8([120, 130, 150]), clip.video.shape)
    assert extractors["hands"]([replace(clip, video=empty)], [clip])[0]["confidence"].mean() < 0.3


def test_what_cannot_be_scored_says_why(extractors, clip):
    silent, blind = replace(clip, audio=None), replace(clip, skeleton=None)
    short = replace(clip, video=clip.video[:4])
    single = replace(clip, video=clip.video[:1])
    assert extractors["sync"]([clip], [silent]) == [Unscorable("no audio")]
    assert extractors["sync"]([clip], [blind]) == [Unscorable("no skeleton")]
    assert extractors["hands"]([clip], [blind]) == [Unscorable("no skeleton")]
    assert extractors["sync"]([short], [clip]) == [Unscorable("shorter than one sync window of 5 frames")]
    assert extractors["video"]([single], [single]) == [Unscorable("single frame")]
    assert isinstance(extractors["hands"]([clip], [replace(clip, skeleton=clip.skeleton[:9])])[0], Unscorable)


def test_features_do_not_depend_on_what_else_is_in_the_batch(extractors, clip):
    other = draw_clip("evaluator-test", 20, 17, 64)
    for key in ("image", "video"):
        alone = extractors[key]([clip], [clip])[0]
        assert np.array_equal(alone, extractors[key]([other, clip], [other, clip])[1])


def test_tampered_weights_are_refused(tmp_path):
    content = bytearray((WEIGHTS / NAMES[0]).read_bytes())
    content[-5] ^= 1
    (tmp_path / NAMES[0]).write_bytes(content)
    (tmp_path / NAMES[1]).write_text((WEIGHTS / NAMES[1]).read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(RequestError, match=r"evaluators\.safetensors were changed: sha256 .*reinstall"):
        load(folder=tmp_path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(RequestError, match="cannot be read"):
        load(folder=tmp_path)


def test_unknown_damage_is_refused(clip):
    with pytest.raises(RequestError, match="no kind of damage is called 'dust'"):
        fitness.damaged(clip, fitness.take("evaluator-test", 3, 17), "dust", 1)


def test_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(train_evaluators, "SAVE_EVERY", 2)
    progress = Progress(Console(file=io.StringIO()))
    stop_at = [99]

    def loss(net, rng):
        stop_at[0] -= 1
        if stop_at[0] == 0:
            raise KeyboardInterrupt
        return (net.raw(torch.from_numpy(rng.standard_normal((4, 5, 64), np.float32))) - 1).square().mean()

    whole = train_evaluators.fit("clip", loss, 6, tmp_path / "a", progress)
    stop_at[0] = 6
    with pytest.raises(KeyboardInterrupt):
        train_evaluators.fit("clip", loss, 6, tmp_path / "b", progress)
    stop_at[0] = 99
    resumed = train_evaluators.fit("clip", loss, 6, tmp_path / "b", progress)
    assert stop_at[0] == 97  # two of six steps were left
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
