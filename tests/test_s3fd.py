"""The face detector on random weights in the published layout; that it finds faces cannot be shown without its own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sync_nets import layout, s3fd_weights

from halign_bench.errors import RequestError
from halign_bench.extractors.s3fd import FaceDetector, anchors, decode, suppress

pytest.importorskip("cv2", reason="OpenCV is not installed")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, frames: np.ndarray) -> Path:
    return s3fd_weights(tmp_path_factory.mktemp("s3fd") / "sfd_face.pth", frames[0])


@pytest.fixture(scope="module")
def detector(weights: Path) -> FaceDetector:
    return FaceDetector(weights, batch=2)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 200, 264, 3), dtype=np.uint8)


def test_the_layout_is_the_published_one(weights: Path) -> None:
    """Names and shapes as the public program's own net gives them (joonson/syncnet_python at 6efbb1c)."""
    assert layout(weights) == (65, "9b071e607063b94da9cd9726d869165a88d07c5bf9930ce16b6c359b0d68f846")


def test_dropping_unlikely_boxes_first_changes_nothing(detector: FaceDetector, frames: np.ndarray) -> None:
    """Against suppression among everything above 0.05, as published."""
    import cv2

    found = detector(frames)
    for frame, faces in zip(frames, found, strict=True):
        small = cv2.resize(frame, None, fx=0.25, fy=0.25).astype(np.float32) - np.float32([123, 117, 104])
        with torch.inference_mode():
            offsets, scores, sizes = detector.net(torch.from_numpy(small).permute(2, 0, 1)[None])
        boxes = decode(offsets[0], anchors(small.shape[0], small.shape[1], tuple(sizes)))
        boxes, score = boxes[scores[0] > 0.05].numpy(), scores[0][scores[0] > 0.05].numpy()
        kept = [int(k) for k in suppress(boxes, score, 0.3) if score[k] > 0.9]
        expected = np.concatenate([boxes[kept] * np.float32([264, 200, 264, 200]), score[kept, None]], 1)
        expected = expected[suppress(expected[:, :4], expected[:, 4], 0.1)]
        assert 2 <= len(faces) < len(score)
        assert np.allclose(faces, expected, atol=1e-2)
        assert (np.diff(faces[:, 4]) <= 0).all()
        assert faces[:, 4].min() > 0.9


def test_a_frame_has_the_same_faces_in_any_batch(detector: FaceDetector, frames: np.ndarray) -> None:
    alone = detector(frames[2:])[0]
    assert np.allclose(alone, detector(frames)[2], atol=1e-2)


def test_the_smallest_frames_are_looked_at_and_smaller_ones_refused(detector: FaceDetector) -> None:
    assert len(detector([np.zeros((112, 113, 3), np.uint8)])) == 1
    with pytest.raises(ValueError, match="at least 112 pixels"):
        detector([np.zeros((111, 640, 3), np.uint8)])


def test_without_opencv_it_says_how_to_get_it(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(RequestError, match=r'need OpenCV: pip install "halign-bench\[score\]"'):
        FaceDetector(weights)


def test_no_frames_no_faces(detector: FaceDetector) -> None:
    assert detector([]) == []


def test_an_anchor_without_offset_is_its_own_box() -> None:
    prior = anchors(64, 128, ((16, 32), (8, 16), (4, 8), (2, 4), (1, 2), (1, 1)))
    assert len(prior) == 16 * 32 + 8 * 16 + 4 * 8 + 2 * 4 + 2 + 1
    assert torch.allclose(prior[0], torch.tensor([2 / 128, 2 / 64, 16 / 128, 16 / 64]))
    boxes = decode(torch.zeros(len(prior), 4), prior)
    assert torch.allclose((boxes[:, :2] + boxes[:, 2:]) / 2, prior[:, :2], atol=1e-6)
    assert torch.allclose(boxes[:, 2:] - boxes[:, :2], prior[:, 2:], atol=1e-6)


@given(st.lists(st.tuples(*[st.floats(0, 20)] * 2, *[st.floats(1, 10)] * 2, st.floats(0, 1)), max_size=12),
       st.floats(0.05, 0.9))  # fmt: skip
def test_what_stays_overlaps_little_and_what_goes_overlaps_something_better(rows: list, limit: float) -> None:
    from halign_bench.extractors.face_tracks import overlap

    table = np.array(rows).reshape(-1, 5)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], 1)
    kept = suppress(boxes, table[:, 4], limit)
    for place, number in enumerate(kept):
        assert (overlap(boxes[number], boxes[kept[:place]]) <= limit + 1e-9).all()
    for number in set(range(len(boxes))) - set(kept.tolist()):
        better = [k for k in kept if table[k, 4] >= table[number, 4]]
        assert (overlap(boxes[number], boxes[better]) > limit - 1e-9).any()


def test_weights_of_another_layout_are_refused(tmp_path: Path, weights: Path) -> None:
    tensors = torch.load(weights, weights_only=True)
    path = tmp_path / "sfd_face.pth"
    with pytest.raises(RequestError, match=r"S3FD weights cannot be read from .*sfd_face\.pth"):
        FaceDetector(path)
    path.write_bytes(b"not weights")
    with pytest.raises(RequestError, match="is not a state dict of S3FD"):
        FaceDetector(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(RequestError, match="holds other things than tensors"):
        FaceDetector(path)
    torch.save({name: value for name, value in tensors.items() if name != "vgg.0.bias"}, path)
    with pytest.raises(RequestError, match=r"does not have the layout of S3FD: it lacks vgg\.0\.bias"):
        FaceDetector(path)
    torch.save(tensors | {"L2Norm3_3.weight": torch.zeros(3)}, path)
    with pytest.raises(RequestError, match=r"another shape of L2Norm3_3\.weight"):
        FaceDetector(path)


def test_a_pickle_that_would_run_something_is_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"vgg.0.weight": Trap()}, tmp_path / "sfd_face.pth")
    with pytest.raises(RequestError, match="is not a state dict"):
        FaceDetector(tmp_path / "sfd_face.pth")
    assert not (tmp_path / "sprung").exists()
