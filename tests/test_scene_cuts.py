"""Scene cuts are those of PySceneDetect's ContentDetector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halign_bench.extractors.scene_cuts import content_changes, merged_cuts, scenes

pytest.importorskip("cv2", reason="OpenCV is not installed")


def video(seed: int, cuts: list[int], frames: int, height: int = 90, width: int = 160) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shots = rng.integers(0, 255, (len(cuts) + 1, height, width, 3), dtype=np.uint8)
    which = np.searchsorted(cuts, np.arange(frames), side="right")
    return (shots[which] // 2 + rng.integers(0, 20, (frames, 1, 1, 1), dtype=np.uint8)).astype(np.uint8)


def stamp(frame: int):
    """A frame's number as the installed version of the package wants it."""
    import scenedetect

    return frame if scenedetect.__version__.startswith("0.6") else scenedetect.FrameTimecode(frame, fps=25.0)


@pytest.mark.parametrize("size", [(90, 160), (400, 300)])
def test_changes_are_those_of_the_package(size: tuple[int, int]) -> None:
    detectors = pytest.importorskip("scenedetect.detectors", reason="scenedetect is not installed")
    import cv2
    from scenedetect.scene_manager import compute_downscale_factor

    frames = video(0, [7, 9], 12, *size)
    detector = detectors.ContentDetector()
    factor = compute_downscale_factor(max(size))
    small = [cv2.resize(frame, (round(size[1] / factor), round(size[0] / factor))) for frame in frames]
    expected = [
        detector._calculate_frame_score(stamp(number), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        for number, frame in enumerate(small)
    ]
    assert np.allclose(content_changes(frames), expected, rtol=0, atol=1e-9)
    assert max(expected) > 27 > min(expected[1:])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 25)), max_size=30), st.integers(1, 20))
def test_cuts_are_merged_as_in_the_package(runs: list[tuple[bool, int]], shortest: int) -> None:
    scenedetect = pytest.importorskip("scenedetect", reason="scenedetect is not installed")
    if scenedetect.__version__.startswith("0.6"):
        from scenedetect.scene_detector import FlashFilter
    else:
        from scenedetect.detector import FlashFilter
    above = [changed for changed, count in runs for _ in range(count)]
    package = FlashFilter(mode=FlashFilter.Mode.MERGE, length=shortest)
    found = [cut for frame, changed in enumerate(above) for cut in package.filter(stamp(frame), changed)]
    assert merged_cuts(above, shortest) == [cut if isinstance(cut, int) else cut.frame_num for cut in found]


@pytest.mark.parametrize(
    ("runs", "cuts"),
    [
        ([(False, 20), (True, 1), (False, 5), (True, 1), (False, 20)], [20]),  # too short to be a transition
        ([(False, 20), (True, 1), (False, 20), (True, 1), (False, 9)], [20, 41]),
        ([(False, 20), (True, 1), (False, 5), (True, 20), (False, 20)], [20, 45]),  # its last change is the cut
        ([(False, 5), (True, 20), (False, 20)], []),  # flashes before the first cut
        ([(True, 40)], []),
    ],
)
def test_cuts_that_the_package_finds(runs: list[tuple[bool, int]], cuts: list[int]) -> None:
    """Recorded from PySceneDetect 0.6.7.1, for where it is not installed."""
    assert merged_cuts([changed for changed, count in runs for _ in range(count)]) == cuts


def test_scenes_cover_all_frames() -> None:
    changes = content_changes(video(1, [30, 60], 100))
    assert scenes(changes) == [(0, 30), (30, 60), (60, 100)]


def test_a_video_without_a_cut_is_one_scene() -> None:
    assert scenes(content_changes(video(2, [], 20))) == [(0, 20)]
