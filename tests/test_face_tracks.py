"""Faces linked over time and cut out, by the published rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sync_nets import drifting

from halign_bench.extractors.face_tracks import FaceTrack, crop_faces, crop_windows, link_faces, overlap
from halign_bench.extractors.sparse_detection import detect_sparsely, same_faces

NONE = np.zeros((0, 5))


def face(*places: float) -> np.ndarray:
    """One face of 100 x 100 at each x."""
    return np.array([[x, 10, x + 100, 110, 0.99] for x in places]).reshape(-1, 5)


def test_a_face_that_moves_is_one_track() -> None:
    (track,) = link_faces([face(3 * number) for number in range(50)], first=7)
    assert (track.start, track.stop, track.detected, track.side) == (7, 57, 50, 100)


def test_two_faces_are_two_tracks_in_any_order_of_the_detections() -> None:
    frames = [face(0, 300) if number % 2 else face(300, 0) for number in range(20)]
    tracks = link_faces(frames)
    assert sorted(track.boxes[:, 0].mean() for track in tracks) == [0, 300]
    assert [track.detected for track in tracks] == [20, 20]


def test_a_face_that_another_hides_for_a_moment_goes_on() -> None:
    """syncnet-python ends a track at the first face that does not match; the published tracker does not."""
    frames = [face(300, 0) if number == 5 else face(0) for number in range(20)]
    assert sorted(track.detected for track in link_faces(frames)) == [1, 20]


@pytest.mark.parametrize(("missing", "tracks"), [(24, [50]), (25, [25, 25])])
def test_boxes_between_are_interpolated_over_at_most_25_frames(missing: int, tracks: list[int]) -> None:
    frames = [face(0)] * 25 + [NONE] * missing + [face(30)] * 25
    found = link_faces(frames)
    assert [track.detected for track in found] == tracks
    if len(found) == 1:
        middle = found[0].boxes[25 : 25 + missing, 0]
        assert np.allclose(middle, 30 * np.arange(1, missing + 1) / (missing + 1))


def test_with_every_fifth_frame_a_detection_stands_for_five() -> None:
    frames = [face(number) if number % 5 == 0 else NONE for number in range(101)]
    (track,) = link_faces(frames, every=5)
    assert track.detected == len(track.boxes) == 101
    assert np.allclose(track.boxes[:, 0], np.arange(101))
    (with_a_gap,) = link_faces(frames[:51] + [NONE] * 19 + frames[70:], every=5)
    assert with_a_gap.detected == 101 - (20 - 5)


def test_a_shot_without_faces_has_no_track() -> None:
    assert link_faces([NONE] * 10) == [] == link_faces([])


def published_crop(frame: np.ndarray, x: float, y: float, half: float) -> np.ndarray:
    """The crop by way of a padded copy of the whole frame."""
    import cv2

    pad = int(half * 1.8)
    padded = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), constant_values=110)
    x, y = x + pad, y + pad
    top, bottom, left, right = int(y - half), int(y + half * 1.8), int(x - half * 1.4), int(x + half * 1.4)
    return cv2.resize(padded[top:bottom, left:right], (224, 224))


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 200), st.floats(0, 150), st.floats(20, 260), st.integers(0, 2**16))
@example(127.0, 1.0, 259.99999999999994, 0)
def test_crops_are_those_of_a_padded_frame(x: float, y: float, side: float, seed: int) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    frame = np.random.default_rng(seed).integers(0, 255, (150, 200, 3), dtype=np.uint8)
    box = np.array([x - side / 2, y - 0.4 * side, x + side / 2, y + 0.4 * side])
    track = FaceTrack(0, np.tile(box, (20, 1)), 20)
    found = crop_faces([frame] * 20, track)
    assert found.shape == (20, 224, 224, 3)
    if min(x, y) > 0:  # a median among zeros beyond the ends leaves positive numbers as they are
        half = max(box[2] - box[0], box[3] - box[1]) / 2  # not side / 2, which may be cut to another pixel
        assert np.array_equal(found[10], published_crop(frame, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, half))


def test_a_jump_of_one_frame_is_smoothed_away() -> None:
    boxes = np.tile([50.0, 50, 150, 150], (40, 1))
    boxes[20] += 30
    windows = crop_windows(FaceTrack(0, boxes, 40))
    assert (windows == windows[0]).all()
    assert windows[0].tolist() == [30, 50, 170, 190]


@given(st.lists(st.floats(-50, 50), min_size=4, max_size=4), st.lists(st.floats(-50, 50), min_size=4, max_size=4))
def test_overlap_is_symmetric_and_at_most_1(a: list[float], b: list[float]) -> None:
    first, second = (np.array([*np.minimum(v[:2], v[2:]), *(np.maximum(v[:2], v[2:]) + 1)]) for v in (a, b))
    there, back = overlap(first, second[None])[0], overlap(second, first[None])[0]
    assert there == pytest.approx(back)
    assert 0 <= there <= 1 + 1e-9
    assert overlap(first, first[None])[0] == pytest.approx(1)


def looked_at(boxes, frames: int, every: int):
    """(faces, numbers of the frames that a detector was shown)."""
    seen: list[int] = []

    def detect(some):
        seen.extend(int(frame[0, 0, 0]) for frame in some)
        return [np.asarray(boxes(int(frame[0, 0, 0])), float).reshape(-1, 5) for frame in some]

    found, count = detect_sparsely([np.full((2, 2, 3), number, np.uint8) for number in range(frames)], detect, every)
    assert count == len(seen) == len(set(seen))
    return found, sorted(seen)


def test_a_still_face_is_looked_for_in_every_fifth_frame_and_the_last() -> None:
    found, seen = looked_at(lambda k: [drifting(k)], 53, 5)
    assert seen == [*range(0, 53, 5), 52]
    (track,) = link_faces(found, every=5)
    assert np.allclose(track.boxes, [drifting(k)[:4] for k in range(53)])


def test_where_a_face_comes_goes_or_moves_every_frame_is_looked_at() -> None:
    assert looked_at(lambda k: [drifting(k)] if k >= 12 else [], 31, 5)[1] == [0, 5, *range(10, 16), 20, 25, 30]
    fast = looked_at(lambda k: [drifting(k, speed=20)], 11, 5)[0]
    assert all(len(some) for some in fast)
    assert len(link_faces(fast, every=5)) == 1


def test_every_frame_means_every_frame() -> None:
    assert looked_at(lambda k: [drifting(k)], 20, 1)[1] == list(range(20))
    assert looked_at(lambda k: [], 0, 5) == ([], [])


def test_the_same_faces_in_another_order_are_the_same() -> None:
    assert same_faces(face(0, 300), face(300, 2))
    assert not same_faces(face(0, 300), face(0, 1))
    assert same_faces(NONE, NONE)
