"""Whole-body keypoints from files in the published layouts: who is found, where, how sure, and where hands are due."""

from __future__ import annotations

import doctest
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halign_bench.errors import RequestError
from halign_bench.extractors import memo, person, simcc
from halign_bench.extractors.onnx_net import needed, session_options
from halign_bench.extractors.wholebody import RTMW, DWPose, Pose, expected_hands
from halign_bench.media import read_video
from halign_bench.metric import Scored
from halign_bench.registry import get
from halign_bench.track import Clip, Unscorable

for _package in ("onnx", "onnxruntime", "cv2"):
    pytest.importorskip(_package, reason=f'needs {_package}: pip install "halign-bench[score]"')
files = pytest.importorskip("onnx_files")

T, SIZE = 3, (320, 480)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("nets")
    return {
        "yolox": files.yolox(folder / "yolox_l.onnx"), "pose": files.simcc(folder / "dw-ll_ucoco_384.onnx"),
        "yolox-bgr": files.yolox(folder / "yolox_bgr.onnx", red=2), "pose-bgr": files.simcc(folder / "bgr.onnx", red=2),
    }  # fmt: skip


@pytest.fixture(scope="module")
def dwpose(nets: dict[str, Path]) -> DWPose:
    return DWPose(nets["yolox"], nets["pose"])


def clip(*lefts: int | None, top: int = 100, size: tuple[int, int] = SIZE, name: str = "a") -> Clip:
    """Grey, with a red square of 50 pixels whose left side is at lefts[t]; None for no square."""
    video = np.full((len(lefts), *size, 3), 60, np.uint8)
    for frame, left in zip(video, lefts, strict=True):
        if left is not None:
            frame[top : top + 50, left : left + 50] = (250, 10, 10)
    return Clip(name, name, video, video[0])


@pytest.mark.parametrize("module", [memo, person, simcc])
def test_doctests(module):
    found = doctest.testmod(module)
    assert found.failed == 0 < found.attempted


# Who is found


def raw_output(*people: tuple[int, int, float, float, float], size: int = 64) -> np.ndarray:
    """YOLOX output `[A, 85]` for a square input: (cell of the finest grid, class, score, width, height)."""
    cells = sum((size // stride) ** 2 for stride in person.STRIDES)
    raw = np.zeros((cells, 85), np.float32)
    for cell, kind, score, width, height in people:
        raw[cell, :5] = 0.5, 0.5, np.log(width / 8), np.log(height / 8), score
        raw[cell, 5 + kind] = 1.0
    return raw


def test_boxes_are_decoded_in_pixels_of_the_frame():
    boxes, scores = person.person_boxes(raw_output((10, 0, 0.9, 16, 24)), (64, 64), 0.3, ratio=0.5)
    # Cell 10 of 8 a row is row 1, column 2: centre (20, 12), sides 16 and 24, twice as large in the frame.
    np.testing.assert_allclose(boxes, [[24, 0, 56, 48]], atol=1e-4)
    assert scores == pytest.approx([0.9])


def test_other_things_are_not_persons_and_doubles_are_dropped():
    # Two persons whose boxes share little, a better double of the first one cell lower, and a chair.
    raw = raw_output((10, 0, 0.8, 16, 24), (18, 0, 0.9, 16, 24), (13, 0, 0.7, 16, 24), (40, 56, 0.99, 60, 60))
    boxes, scores = person.person_boxes(raw, (64, 64), 0.3)
    assert scores == pytest.approx([0.9, 0.7])
    np.testing.assert_allclose(boxes, [[12, 8, 28, 32], [36, 0, 52, 24]], atol=1e-4)
    assert person.person_boxes(raw, (64, 64), 0.95)[0].shape == (0, 4)


def test_grids_of_another_size_are_refused():
    with pytest.raises(RequestError, match="cells"):
        person.person_boxes(raw_output(), (96, 96), 0.3)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 12), st.integers(0, 999))
def test_suppression_keeps_the_best_and_nothing_that_overlaps(count, seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 30, (count, 2))
    boxes, scores = np.concatenate([low, low + rng.uniform(5, 30, (count, 2))], 1), rng.permutation(count) / 100
    kept = person.suppressed(boxes, scores)
    assert list(scores[kept]) == sorted(scores[kept], reverse=True)

    def overlap(a, b):
        width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + 1
        shared = max(width, 0) * max(height, 0)
        return shared / (np.prod(a[2:] - a[:2] + 1) + np.prod(b[2:] - b[:2] + 1) - shared)

    for i in range(count):
        better = [k for k in kept if scores[k] >= scores[i] and k != i]
        assert (i in kept) == all(overlap(boxes[i], boxes[k]) <= person.OVERLAP for k in better)


def test_the_largest_person_of_a_file_with_suppression_in_its_graph(tmp_path):
    boxes = np.array([[0, 0, 50, 50, 0.9], [10, 20, 210, 320, 0.5], [0, 0, 600, 600, 0.1], [0, 0, 500, 500, 0.8]])
    path = files.yolox_with_suppression(tmp_path / "a.onnx", boxes, labels=np.array([0, 0, 0, 7]))
    detector = person.PersonDetector(path, "cpu", 0.7)
    found = detector([np.zeros((320, 320, 3), np.uint8)])
    np.testing.assert_allclose(found, [[5, 10, 105, 160]])


# Keypoints


def test_keypoints_land_on_the_red_square_of_the_original_frame(dwpose):
    pose = dwpose.pose(clip(200, 320, None).video)
    assert pose.found.tolist() == [True, True, False]
    assert pose.keypoints.shape == (T, 133, 2) and pose.confidence.shape == (T, 133)
    np.testing.assert_allclose(pose.keypoints[0], np.tile([200, 100], (133, 1)), atol=1.5)
    np.testing.assert_allclose(pose.keypoints[1], np.tile([320, 100], (133, 1)), atol=1.5)
    assert (pose.confidence[:2] > 0.7).all()
    assert np.isnan(pose.keypoints[2]).all() and (pose.confidence[2] == 0).all()  # nobody, and not the whole frame


@pytest.mark.parametrize("size", [(640, 640), (200, 900), (900, 200)])
def test_frames_of_any_size_and_shape(dwpose, size):
    left, top = size[1] // 4, size[0] // 4
    found = dwpose.pose(clip(left, top=top, size=size).video)
    np.testing.assert_allclose(found.keypoints[0, 0], [left, top], atol=3)


def test_more_frames_than_a_batch_give_the_same(dwpose):
    video = clip(*range(0, 200, 10)).video
    whole, alone = dwpose.pose(video), dwpose.pose(video[13:14])
    np.testing.assert_array_equal(whole.keypoints[13], alone.keypoints[0])
    assert whole.found.all() and len(whole.found) == 20


def test_the_decoders_differ_in_confidence_channels_and_protocol(nets):
    video = clip(200).video
    red = {decoder: DWPose(nets["yolox"], nets["pose"], decoder=decoder) for decoder in ("dwpose", "rtmlib")}
    assert red["dwpose"].pose(video).found.all() and not red["rtmlib"].pose(video).found.any()  # it is given BGR
    swapped = RTMW(nets["yolox-bgr"], nets["pose-bgr"])
    np.testing.assert_allclose(swapped.pose(video).keypoints[0, 0], [200, 100], atol=1.5)
    protocols = {one.protocol for one in (*red.values(), swapped)}
    assert len(protocols) == 3
    assert "lesser" in red["dwpose"].protocol and "mean" in swapped.protocol
    for text in protocols:
        assert text.count("sha256") == 2 and "wrist" in text and "reference clip" in text
    assert (DWPose.name, RTMW.name) == ("dwpose", "rtmw") and DWPose.assets == ("yolox-l", "dwpose-l")


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
def test_decoding_is_the_largest_bin_of_each_axis(count, wide, high, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, count, wide)), rng.normal(size=(2, count, high))
    for decoder, combine in (("dwpose", min), ("rtmlib", lambda a, b: (a + b) / 2)):
        points, confidence = simcc.decode_simcc(x, y, decoder)
        for i in np.ndindex(2, count):
            assert points[i].tolist() == [list(x[i]).index(max(x[i])) / 2, list(y[i]).index(max(y[i])) / 2]
            assert confidence[i] == pytest.approx(combine(max(x[i]), max(y[i])))


def test_an_unknown_decoder_is_refused(nets):
    with pytest.raises(RequestError, match="dwpose, rtmlib, not 'mmpose'"):
        DWPose(nets["yolox"], nets["pose"], decoder="mmpose")


# Features


def test_features_have_the_stated_form(dwpose):
    one = clip(200, 320, None)
    (found,) = dwpose([one], [one])
    assert found["keypoints"].shape == (T, 2, 21, 2) and found["confidence"].shape == (T, 2, 21)
    assert found["expected"].tolist() == [[True, True], [True, True], [False, False]]
    assert found["found"].tolist() == [True, True, False]
    pose = dwpose.pose(one.video)
    np.testing.assert_array_equal(found["confidence"][:, 0], pose.confidence[:, 91:112])
    np.testing.assert_array_equal(found["keypoints"][:, 1], pose.keypoints[:, 112:133])


def test_the_reference_says_where_a_hand_is_expected(dwpose):
    made, real = clip(200, None, 200, 200), clip(None, 210, 210)
    (found,) = dwpose([made], [real])
    # Seen but not asked for; asked for but missed; both; and beyond the reference's end.
    assert found["expected"].all(1).tolist() == [False, True, True, False]
    assert found["confidence"].max((1, 2))[1] == 0


def test_a_wrist_counts_that_is_seen_and_inside_the_frame():
    keypoints, confidence = np.full((4, 133, 2), 5.0), np.full((4, 133), 0.1)
    confidence[:, 9], confidence[:, 10] = [0.9, 0.9, 0.9, 0.3], 0.9
    keypoints[0, 9], keypoints[1, 9] = [-0.5, 5], [5, 20]
    keypoints[2, 10] = np.nan
    pose = Pose(keypoints, confidence, np.ones(4, bool))
    found = expected_hands(pose, 5, (20, 30))
    assert found.tolist() == [[False, True], [False, True], [True, False], [False, True], [False, False]]
    assert expected_hands(pose, 2, (20, 30)).tolist() == found[:2].tolist()


def test_nobody_is_a_reason_and_not_a_score(dwpose):
    empty, full = clip(None, None, name="empty"), clip(200, 200)
    assert dwpose([empty], [empty]) == [Unscorable("nobody found in the 2 frames")]
    assert dwpose([full], [empty]) == [Unscorable("nobody found in the 2 frames of the reference clip")]
    (missed,) = dwpose([empty], [full])  # the hands of the reference were all missed, which is a measurement
    metric = get("metric", "hkc_coverage")()
    metric.update(Scored(empty, full, missed, dwpose([full], [full])[0]))
    assert metric.compute() == 0.0


def test_pose_is_computed_once_for_each_clip(nets, monkeypatch):
    extractor = DWPose(nets["yolox"], nets["pose"])
    frames = []
    inner = extractor.people.net.__class__.__call__
    monkeypatch.setattr(
        type(extractor.people.net), "__call__",
        lambda net, pictures: (frames.append(len(pictures)) if net is extractor.people.net else None)
        or inner(net, pictures),
    )  # fmt: skip
    made, real = clip(200, 210), clip(220, 230)
    extractor([made], [real])
    again = replace(real, video=real.video.copy())  # read from its file once more
    extractor([again, made], [again, again])
    assert sum(frames) == 4


def test_metrics_read_the_features(dwpose):
    made, real = clip(200, 208, 216), clip(200, 200, 200)
    features = dwpose([made, real], [real, real])
    scored = Scored(made, real, *features)
    values = {}
    for name in ("hkc", "hkc_coverage", "hkv", "ssim_hand", "psnr_hand"):
        metric = get("metric", name)(dwpose)
        metric.update(scored)
        values[name] = metric.compute()
        assert metric.failures() == {} and dwpose.protocol in metric.protocol
    assert values["hkc"] > 0.7 and values["hkc_coverage"] == 1.0
    assert values["hkv"] == pytest.approx(np.var([0, 8 / 4.8, 16 / 4.8]), rel=0.2)  # percent of 480 pixels
    assert values["ssim_hand"] < 1 and values["psnr_hand"] < 100


# Files that are something else


def test_files_that_cannot_be_used_say_so(nets, tmp_path):
    with pytest.raises(RequestError, match=r"cannot be read from .*none\.onnx"):
        DWPose(tmp_path / "none.onnx", nets["pose"])
    (tmp_path / "text.onnx").write_text("not a net")
    with pytest.raises(RequestError, match=r"text\.onnx cannot be opened as an ONNX file"):
        DWPose(tmp_path / "text.onnx", nets["pose"])
    with pytest.raises(RequestError, match="17 keypoints, not the 133"):
        DWPose(nets["yolox"], files.simcc(tmp_path / "body.onnx", count=17))
    with pytest.raises(RequestError, match="not a SimCC keypoint net"):
        DWPose(nets["yolox"], nets["yolox"])
    with pytest.raises(RequestError, match="cannot run on tpu"):
        DWPose(nets["yolox"], nets["pose"], device="tpu")


def test_a_package_that_is_missing_is_named_with_what_installs_it():
    with pytest.raises(RequestError, match=r'nets need no_such_package .*: pip install "halign-bench\[score\]"'):
        needed("no_such_package", "nets")


def test_onnxruntime_takes_its_threads_from_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert session_options("nets").intra_op_num_threads == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert session_options("nets").intra_op_num_threads == 0


# A real clip. The nets are random: this shows that the machinery works on real frames, and nothing about their quality.


def test_a_real_clip_goes_through(tmp_path):
    name = "portrait_guitar_5s.avi"
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "clips"
    path = Path(os.environ.get("HALIGN_TEST_CLIPS", beside)) / name
    if not path.is_file():
        pytest.skip(f"no real clip {name}: set HALIGN_TEST_CLIPS to a folder that has it")
    video = read_video(path, frames=4).frames
    one = Clip(name, name, video, video[0])
    extractor = DWPose(
        files.yolox(tmp_path / "yolox_l.onnx", seed=2), files.simcc(tmp_path / "dw-ll_ucoco_384.onnx", seed=2)
    )
    (found,) = extractor([one], [one])
    pose = extractor.pose(video)
    assert len(found["found"]) == 4 and found["found"].any()
    assert np.isfinite(pose.keypoints[pose.found]).all() and (pose.confidence[pose.found] != 0).any()
    assert pose.keypoints[pose.found].std() > 1
    assert found["expected"].any(1).tolist() == (expected_hands(pose, 4, video.shape[1:3])).any(1).tolist()
