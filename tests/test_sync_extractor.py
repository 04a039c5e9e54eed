"""From a clip to features for Sync-C, with given detections in place of a detector that random weights cannot be."""

from __future__ import annotations

import doctest
import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from halign_bench.metrics.sync_c import clip_sync
from sync_nets import drifting, given, moving_clip, s3fd_weights, syncnet_weights

from halign_bench.errors import RequestError
from halign_bench.extractors.reencode import ReencodedFrames, reencode_faces
from halign_bench.extractors.sync import SyncExtractor
from halign_bench.media import read_audio, read_video
from halign_bench.track import Clip, Unscorable

pytest.importorskip("cv2", reason="OpenCV is not installed")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sync")
    return syncnet_weights(folder / "syncnet_v2.model"), s3fd_weights(folder / "sfd_face.pth")


@pytest.fixture
def extractor(files: tuple[Path, Path]) -> SyncExtractor:
    made = SyncExtractor(*files, min_track=15, every=1)
    made.detect = given(lambda k: [drifting(k)])
    return made


@pytest.fixture(scope="module")
def clip() -> Clip:
    return moving_clip(24)


@pytest.mark.parametrize("name", ["face_tracks", "mfcc", "s3fd", "scene_cuts", "sparse_detection"])
def test_doctests(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"halign_bench.extractors.{name}"))
    assert results.attempted > 0 == results.failed


def test_features_are_what_the_metric_wants(extractor: SyncExtractor, clip: Clip) -> None:
    (features,) = extractor([clip], [clip])
    assert features["video"].shape == features["audio"].shape == (19, 1024)
    assert {key: features[key] for key in ("vshift", "first", "frames", "tracks", "looked_at", "found")} == {
        "vshift": 15, "first": 0, "frames": 24, "tracks": 1, "looked_at": 24, "found": 24,
    }  # fmt: skip
    scores = clip_sync(features)
    assert not isinstance(scores, Unscorable)
    assert scores.distance > 0


def test_the_sound_is_that_of_the_condition_and_of_the_track(extractor: SyncExtractor, clip: Clip) -> None:
    """A face that is there from frame 4 on is scored with the sound from 4 / 25 s on."""
    assert clip.audio is not None
    extractor.detect = given(lambda k: [drifting(k)] if k >= 4 else [])
    other = replace(clip, audio=np.concatenate([np.zeros(4 * 640, np.float32), clip.audio[: -4 * 640]]))
    features = extractor.features(clip, other)
    assert (features["first"], features["frames"], features["found"]) == (4, 20, 20)
    _, expected = extractor.embed(np.zeros((20, 224, 224, 3), np.uint8), clip.audio[: 20 * 640])
    assert np.allclose(features["audio"], expected, atol=1e-4)


def test_of_two_faces_the_one_with_the_highest_confidence_gives_all_numbers(
    extractor: SyncExtractor, clip: Clip
) -> None:
    places = {"left": 10.0, "right": 170.0}
    alone = {}
    for name, x in places.items():
        extractor.detect = given(lambda k, x=x: [drifting(k, x=x)])
        alone[name] = clip_sync(extractor.features(clip, clip))
    extractor.detect = given(lambda k: [drifting(k, x=x) for x in places.values()])
    features = extractor.features(clip, clip)
    assert features["tracks"] == 2
    best = max(alone.values(), key=lambda scores: scores.confidence)
    assert clip_sync(features) == pytest.approx(best)
    assert alone["left"] != pytest.approx(alone["right"])


def test_what_cannot_be_scored_says_why_and_how_much(extractor: SyncExtractor, clip: Clip) -> None:
    assert clip.audio is not None
    assert extractor([clip], [replace(clip, audio=None)]) == [Unscorable("no audio")]
    extractor.detect = given(lambda k: [])
    assert extractor([clip], [clip]) == [Unscorable("no face found in 24 frames")]
    extractor.detect = given(lambda k: [drifting(k)] if k < 15 else [])
    assert extractor([clip], [clip]) == [Unscorable("longest face track has 15 frames, more than 15 are needed")]
    extractor.detect = given(lambda k: [drifting(k, side=60)])
    assert extractor([clip], [clip]) == [Unscorable("face too small: 66 pixels, more than 100 are needed")]
    tiny = replace(clip, video=clip.video[:, :100])
    assert extractor([tiny], [clip]) == [
        Unscorable("frames of 320x100 are too small to find faces in; 112 are needed")
    ]  # fmt: skip
    extractor.detect = given(lambda k: [drifting(k)])
    mute = replace(clip, audio=clip.audio[: 640 * 5])
    reason = "sound is shorter than one sync window beside each of 1 face tracks"
    assert extractor([clip], [mute]) == [Unscorable(reason)]


def test_a_track_does_not_go_over_a_cut(extractor: SyncExtractor, clip: Clip) -> None:
    cut = replace(clip, video=np.concatenate([clip.video[:20], 255 - clip.video[:16]]))
    longer = moving_clip(36)
    extractor.detect = given(lambda k: [drifting(k)])
    features = extractor.features(cut, longer)
    assert (features["tracks"], features["frames"] in (16, 20)) == (2, True)


def test_every_fifth_frame_finds_the_same_track(files: tuple[Path, Path], extractor: SyncExtractor, clip: Clip) -> None:
    sparse = SyncExtractor(*files, min_track=15)
    seen = [0, 5, 10, 15, 20, 23]
    sparse.detect = given(lambda k: [drifting(seen[k])])
    features, full = sparse.features(clip, clip), extractor.features(clip, clip)
    assert (features["looked_at"], full["looked_at"]) == (6, 24)
    assert np.allclose(features["video"], full["video"], atol=1e-5)


def test_the_protocol_names_mode_weights_and_constants(files: tuple[Path, Path]) -> None:
    fast, reference = SyncExtractor(*files), SyncExtractor(*files, mode="reference")
    assert (fast.name, reference.name) == ("syncnet", "syncnet-reference")
    assert fast.assets == ("syncnet-v2", "s3fd")
    for extractor in (fast, reference):
        for part in ("more than 100 frames", "IoU > 0.5", "gap <= 25", "224x224", "vshift 15", "confidence > 0.9"):
            assert part in extractor.protocol
        assert extractor.protocol.count("sha256") == 2
    assert "mode fast: frames as they are" in fast.protocol
    assert "every 5th frame" in fast.protocol
    assert "mode reference: frames through MPEG-4" in reference.protocol
    assert "every frame" in reference.protocol
    assert SyncExtractor(*files, min_track=50).protocol != fast.protocol


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"mode": "slow"}, "'slow' is unknown"), ({"mode": "reference", "every": 5}, "looks at every frame"),
     ({"every": 0}, "at least 1"), ({"min_track": 5}, "`min_track` 13")],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(files: tuple[Path, Path], options: dict, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        SyncExtractor(*files, **options)


def test_reference_goes_through_the_encodings_and_fast_does_not(
    files: tuple[Path, Path], extractor: SyncExtractor, clip: Clip
) -> None:
    reference = SyncExtractor(*files, mode="reference", min_track=15)
    reference.detect = given(lambda k: [drifting(k)])
    encoded, plain = reference.features(clip, clip), extractor.features(clip, clip)
    assert encoded["video"].shape == plain["video"].shape
    assert np.array_equal(encoded["audio"], plain["audio"])
    change = np.abs(encoded["video"] - plain["video"]).max() / np.abs(plain["video"]).max()
    assert 1e-3 < change < 0.5


def test_encoded_frames_are_a_little_worse_and_in_order(clip: Clip) -> None:
    frames = ReencodedFrames(clip.video)
    assert len(frames) == len(clip.video) == len(frames.changes)
    for number in (0, 7, 23):
        errors = np.square(clip.video.astype(float) - frames[number]).mean((1, 2, 3))
        assert errors.argmin() == number
        assert 1 < errors[number] < 0.6 * np.delete(errors, number).min()  # its neighbours are a pixel away
    assert ReencodedFrames(clip.video[:3, :237, :319])[2].shape == (237, 319, 3)  # odd sides
    faces = np.ascontiguousarray(clip.video[:, :224, :224])
    again = reencode_faces(faces)
    assert again.shape == faces.shape
    assert 1 < np.square(again.astype(float) - faces).mean() < 500


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fast", "reference"])
def test_a_real_clip_with_its_face_given(files: tuple[Path, Path], mode, real_clip) -> None:
    """Decoding, cuts, crops and windows on a real video; the face's box was read off one of its frames by eye."""
    path = real_clip("portrait_guitar_5s.avi")
    video, sound = read_video(path).frames, read_audio(path)
    assert sound is not None
    extractor = SyncExtractor(*files, mode=mode)
    extractor.detect = given(lambda k: [[400, 110, 650, 410, 0.99]])
    clip = Clip("guitar", "man", video, video[0], sound.samples)
    features = extractor.features(clip, clip)
    assert features["frames"] == len(video)
    assert len(features["video"]) == min(len(video), len(sound.samples) // 640) - 5
    assert not isinstance(clip_sync(features), Unscorable)
