"""The embedded track: the same bytes everywhere, disjoint splits, stated shares, a mouth that follows its sound."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from halign_bench.errors import RequestError
from halign_bench.registry import get
from halign_bench.tracks.puppet.annotator import SCALE, PuppetAnnotator, calibrate
from halign_bench.tracks.puppet.clips import SPLITS, draw_clip, take
from halign_bench.tracks.puppet.defects import FIDELITY_DEFECTS, FIDELITY_SHARES, MOTION_DEFECTS, MOTION_SHARES

DIGEST = """
import hashlib, sys
from halign_bench.tracks.puppet.clips import draw_clip
for index in map(int, sys.argv[1:]):
    c = draw_clip("pretrain", index, 17, 64)
    parts = (c.video, c.audio, c.skeleton, c.reference)
    print(index, hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


def digest(index: int) -> str:
    c = draw_clip("pretrain", index, 17, 64)
    assert c.audio is not None and c.skeleton is not None
    parts = (c.video, c.audio, c.skeleton, c.reference)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_same_bytes_in_another_process_and_order():
    here = {index: digest(index) for index in (3, 0, 7)}
    answer = subprocess.run([sys.executable, "-c", DIGEST, "7", "3", "0"], capture_output=True, text=True, check=True)
    there = {int(line.split()[0]): line.split()[1] for line in answer.stdout.splitlines()}
    assert there == here


def test_clip_contract():
    clip = get("track", "puppet")().clip("eval", 5)
    assert clip.video.shape == (17, 64, 64, 3) and clip.video.dtype == np.uint8
    assert clip.audio.shape == (17 * 640,) and clip.audio.dtype == np.float32 and np.abs(clip.audio).max() <= 1
    assert clip.skeleton.shape == (17, 52, 3) and clip.skeleton.dtype == np.float32
    assert clip.reference.shape == (64, 64, 3) and clip.defects == ()
    for hand in clip.layout.hands:
        assert clip.skeleton[:, hand].shape == (17, 21, 3)


def test_splits_are_disjoint_in_identity_and_seed():
    takes = {name: [take(name, index, 17) for index in range(0, 40, 4)] for name in SPLITS}
    seeds = Counter(t.seed for group in takes.values() for t in group)
    faces = Counter((t.identity_name, t.identity.skin.tobytes()) for group in takes.values() for t in group)
    assert max(seeds.values()) == 1
    people = Counter(face for _, face in set(faces))
    assert max(people.values()) == 1
    assert len({split.key for split in SPLITS.values()}) == len(SPLITS)


def test_longer_and_larger_clips():
    clip = get("track", "puppet")(frames=33, size=(96, 96)).clip("eval", 0)
    assert clip.video.shape == (33, 96, 96, 3) and len(clip.audio) == 33 * 640
    assert clip.skeleton[..., :2].max() > 64


@pytest.mark.parametrize("index", [-1, 2000])
def test_index_out_of_range_is_one_sentence(index):
    with pytest.raises(RequestError, match="clips 0 to 1999"):
        draw_clip("eval", index, 17, 64)


def test_defects_come_at_the_stated_shares():
    from halign_bench.tracks.puppet.defects import draw_defects

    count = 4000
    drawn = Counter(d for i in range(count) for d in draw_defects(np.random.default_rng(i)))
    for name, share in zip(MOTION_DEFECTS + FIDELITY_DEFECTS, MOTION_SHARES + FIDELITY_SHARES, strict=True):
        assert abs(drawn[name] / count - share) < 4 * np.sqrt(share / count)
    assert all(not draw_clip("eval", i, 17, 64).defects for i in range(3))


@pytest.mark.parametrize("defect", MOTION_DEFECTS + FIDELITY_DEFECTS)
def test_each_defect_changes_the_video_and_the_annotator_sees_it(defect):
    criterion = "motion" if defect in MOTION_DEFECTS else "fidelity"
    annotator = PuppetAnnotator()
    clean, spoiled = [], []
    for index in range(8):
        target, made = draw_clip("annotator-train", 400 + index, 17, 64), take("annotator-train", 400 + index, 17)
        video = made.draw(64, (defect,))
        assert not np.array_equal(video, target.video)
        clean.append(annotator(target.video, target)[criterion])
        spoiled.append(annotator(video, target)[criterion])
    assert np.mean(np.array(clean) > np.array(spoiled)) >= 0.75
    assert np.mean(clean) > np.mean(spoiled)


def test_annotator_scale_is_what_calibrate_measures():
    few = calibrate(10)
    assert set(few) == set(SCALE)
    for name, (mean, spread) in SCALE.items():
        assert abs(few[name][0] - mean) < 1.5 * spread


def test_mouth_follows_the_sound():
    """Loudness of the waveform at each frame goes with the mouth's opening at that frame, and less so when shifted."""
    right, wrong = [], []
    for index in range(30):
        made = take("eval", index, 33)
        loud = np.sqrt(np.square(made.audio().reshape(33, 640)).mean(1))
        opening = made.script.at_frames(33)[:, 0]
        right.append(np.corrcoef(loud, opening)[0, 1])
        wrong.append(np.corrcoef(loud[5:], opening[:-5])[0, 1])
    assert np.mean(right) > 0.5
    assert np.mean(right) > np.mean(wrong) + 0.4


def test_skeleton_lies_on_the_hands():
    """Pixels at finger joints have the palm's colour, not the wall's."""
    made, clip = take("eval", 8, 17), draw_clip("eval", 8, 17, 64)
    points = clip.skeleton[:, clip.layout.left_hand]
    seen = points[points[..., 2] > 0.5][:, :2].round().astype(int)
    frames = np.repeat(np.arange(17), 21)[points[..., 2].ravel() > 0.5]
    colours = clip.video[frames, seen[:, 1].clip(0, 63), seen[:, 0].clip(0, 63)].astype(float)
    to_skin = np.abs(colours - made.identity.skin * 1.14).sum(1)
    to_wall = np.abs(colours - made.identity.wall).sum(1)
    assert np.mean(to_skin < to_wall) > 0.8
