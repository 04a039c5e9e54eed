"""Track `clips`: windows of real files, splits that share nobody, files that are left out with a reason."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from pathlib import Path

import media_files as files
import numpy as np
import pytest

from halign_bench import media
from halign_bench.errors import RequestError
from halign_bench.registry import get
from halign_bench.track import Clip
from halign_bench.tracks import clips
from halign_bench.tracks._pixel_annotator import PixelAnnotator
from halign_bench.tracks.clips import ClipsTrack

T = 5
SIZE = (16, 24)


def track(folder: Path, frames: int = T) -> ClipsTrack:
    return ClipsTrack(folder, frames, SIZE)


def all_clips(of: ClipsTrack) -> dict[str, list[Clip]]:
    return {split: [of.clip(split, index) for index in range(count)] for split, count in of.splits().items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good files of 21, 11, 5 and 12 output frames; one has sound."""
    folder = tmp_path_factory.mktemp("made")
    files.write(folder / "anna.mp4", files.textured(21, seed=1), sound=files.tone(0.84, 44_100))
    files.write(folder / "bert.avi", files.textured(11, 47, 63, seed=2))
    files.write(folder / "cleo.mkv", files.textured(5, seed=3))
    files.write(folder / "dora.mov", files.textured(14, seed=4), fps=30)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "videos"))


def test_it_is_found_by_its_name_and_wants_data() -> None:
    assert get("track", "clips") is ClipsTrack and ClipsTrack.needs_data
    with pytest.raises(RequestError, match="--data DIR"):
        ClipsTrack(None)


def test_windows_follow_one_another_after_the_reference(folder: Path) -> None:
    (folder / "clear").mkdir()
    for name in ("a.mp4", "b.mp4"):
        files.write(folder / "clear" / name, files.numbered(16 if name == "a.mp4" else 17))
    found = all_clips(ClipsTrack(folder / "clear", T, (48, 64)))
    assert [clip.id for clip in found["prompts"]] == ["a@00001", "a@00006", "a@00011"]
    for clip, start in zip(found["prompts"], (1, 6, 11), strict=True):
        assert [files.number_of(frame) for frame in clip.video] == list(range(start, start + T))
        assert files.number_of(clip.reference) == 0


def test_what_a_clip_holds(folder: Path) -> None:
    of = track(folder)
    for clip in chain(*all_clips(of).values()):
        assert clip.video.shape == (T, *SIZE, 3) and clip.video.dtype == np.uint8
        assert clip.reference.shape == (*SIZE, 3) and clip.reference.dtype == np.uint8
        assert clip.skeleton is None and clip.layout is None  # never invented
        if clip.identity == "anna":
            assert clip.audio is not None and clip.audio.shape == (T * 640,) and clip.audio.dtype == np.float32
            assert 0.2 < clip.audio.std() < 0.5
        else:
            assert clip.audio is None
    assert dict(of.extractors()) == {} and of.refusals() == []


def test_splits_share_no_person_and_deal_windows_in_turns(folder: Path) -> None:
    of = track(folder)
    found = all_clips(of)
    people = {split: [clip.identity for clip in members] for split, members in found.items()}
    assert people["prompts"] == ["anna", "cleo", "dora", "anna", "dora", "anna", "anna"]
    assert people["eval"] == ["bert", "bert"]
    ids = [clip.id for members in found.values() for clip in members]
    assert len(set(ids)) == len(ids)
    assert of.fingerprint()["division"] == "by file"


def test_the_same_clips_in_another_process_and_any_order(folder: Path) -> None:
    of = track(folder)
    backwards = {(split, i): of.clip(split, i) for split, n in of.splits().items() for i in reversed(range(n))}
    code = (
        "import sys, hashlib, json; from pathlib import Path; from halign_bench.tracks.clips import ClipsTrack\n"
        f"t = ClipsTrack(Path(sys.argv[1]), {T}, {SIZE})\n"
        "h = {}\n"
        "for s, n in t.splits().items():\n"
        "    for i in range(n):\n"
        "        c = t.clip(s, i)\n"
        "        h[f'{s} {i} {c.id}'] = hashlib.sha256(c.video.tobytes() + c.reference.tobytes()"
        " + (b'' if c.audio is None else c.audio.tobytes())).hexdigest()\n"
        "print(json.dumps([h, t.fingerprint()]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    hashes, fingerprint = json.loads(done.stdout)
    assert fingerprint == of.fingerprint()
    assert len(hashes) == len(backwards)
    for (split, index), clip in backwards.items():
        sound = b"" if clip.audio is None else clip.audio.tobytes()
        digest = hashlib.sha256(clip.video.tobytes() + clip.reference.tobytes() + sound).hexdigest()
        assert hashes[f"{split} {index} {clip.id}"] == digest


def test_each_file_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = media.VideoReader.__iter__

    def counted(reader: media.VideoReader) -> Iterator[np.ndarray]:
        opened.append(Path(reader.path).name)
        return real(reader)

    monkeypatch.setattr(media.VideoReader, "__iter__", counted)
    of = track(folder)
    for _ in range(2):
        all_clips(of)
    of.fingerprint(), of.refusals()
    assert sorted(opened) == ["anna.mp4", "bert.avi", "cleo.mkv", "dora.mov"]


def test_a_clip_given_out_may_be_changed(folder: Path) -> None:
    of = track(folder)
    before = of.clip("eval", 0).video.copy()
    of.clip("eval", 0).video[:] = 0
    np.testing.assert_array_equal(of.clip("eval", 0).video, before)


def test_no_more_windows_of_a_file_than_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "WINDOWS_PER_FILE", 2)
    of = track(folder)
    assert [clip.id for clip in all_clips(of)["prompts"]].count("anna@00001") == 1
    assert of.fingerprint()["files"]["anna.mp4"]["windows"] == 2


# -- fingerprint


def test_fingerprint_is_of_contents_not_of_places(folder: Path, tmp_path: Path) -> None:
    before = track(folder).fingerprint()
    json.dumps(before, allow_nan=False)
    moved = folder.rename(tmp_path / "elsewhere")
    (moved / "notes.txt").write_text("something else")
    (moved / "broken.mp4").write_bytes(b"")
    assert track(moved).fingerprint() == before
    files.write(moved / "bert.avi", files.textured(11, 47, 63, seed=22))
    assert track(moved).fingerprint() != before
    assert track(moved, 9).fingerprint() != track(moved).fingerprint()


# -- files that are left out, while the others go on


def test_bad_files_are_left_out_by_name_and_the_others_go_on(folder: Path) -> None:
    expected = track(folder).splits()
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "letter.mp4").write_text("Dear reader, this is not a video.")
    files.write(folder / "sound only.mp4", sound=files.tone(0.4, 44_100))
    files.cut(files.write(folder / "x.mp4", files.textured(20)), 0.5, folder / "z cut.mp4")
    (folder / "x.mp4").unlink()
    files.write(folder / "zz short.mp4", files.textured(3))
    files.write(folder / "zz slow.mp4", files.textured(4), fps=5)
    shutil.copy(folder / "anna.mp4", folder / "zz copy.mp4")
    files.write(folder / "anna.mkv", files.textured(30, seed=9)).rename(folder / "anna.webm")
    (folder / "zz link.mp4").symlink_to(folder / "gone.mp4")
    (folder / "readme.md").write_text("words")
    (folder / ".hidden.mp4").write_bytes(b"x")
    of = track(folder)
    assert of.splits() == expected
    reasons = {refusal.source: refusal.reason for refusal in of.refusals()}
    assert reasons["zero.mp4"] == "is empty (0 bytes)"
    assert reasons["letter.mp4"] == "is not a video file that can be read"
    assert reasons["sound only.mp4"] == "has no video stream"
    assert reasons["z cut.mp4"].startswith("is cut off or damaged")
    assert reasons["zz short.mp4"] == "gives 3 frames at 25 fps, a window needs 5"
    assert reasons["zz slow.mp4"].startswith("has 4 different frames for 20 at 25 fps")
    assert reasons["zz copy.mp4"] == "has the same bytes as anna.mp4"
    assert reasons["anna.webm"] == "has the name of anna.mp4, which is taken instead"
    assert reasons["zz link.mp4"] == "is not a file"
    assert len(reasons) == 9 and of.ignored == 2


def test_of_a_cut_file_whole_windows_are_used_and_it_is_noted(folder: Path) -> None:
    whole = files.write(folder / "whole.mp4", files.textured(30), options={"movflags": "+faststart"})
    files.cut(whole, 0.7, folder / "erna.mp4")
    whole.unlink()
    entry = track(folder).fingerprint()["files"]["erna.mp4"]
    assert 2 <= entry["windows"] < 5 and entry["frames"] < 30
    assert entry["notes"][0].startswith("damaged or cut off after")


def test_subfolders_are_read_and_equal_names_in_them_are_different_people(tmp_path: Path) -> None:
    for number, name in enumerate(["a/take.mp4", "b/take.mp4", "b/ünï 'q'.mp4"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        files.write(tmp_path / name, files.textured(6, seed=number))
    of = track(tmp_path)
    found = all_clips(of)
    assert [clip.identity for clip in found["prompts"]] == ["a/take", "ünï 'q'"]
    assert [clip.identity for clip in found["eval"]] == ["b/take"]


def test_no_more_files_than_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "MAX_FILES", 2)
    of = track(folder)
    assert set(of.fingerprint()["files"]) == {"anna.mp4", "bert.avi"}
    assert [refusal.source for refusal in of.refusals()] == ["cleo.mkv", "dora.mov"]


# -- one file alone


def alone(tmp_path: Path, frames: int) -> ClipsTrack:
    files.write(tmp_path / "alone.mp4", files.numbered(frames))
    return ClipsTrack(tmp_path, T, (48, 64))


def test_a_lone_file_is_divided_by_time_with_a_gap(tmp_path: Path) -> None:
    of = alone(tmp_path, 36)  # 7 windows
    found = all_clips(of)
    assert [clip.id for clip in found["prompts"]] == [f"alone@{start:05d}" for start in (1, 6, 11, 16)]
    assert [clip.id for clip in found["eval"]] == ["alone@00026", "alone@00031"]
    assert of.fingerprint()["division"] == "one file by time, 5 frames apart: the same person is in both"


def test_a_lone_file_of_two_windows_has_them_as_far_apart_as_can_be(tmp_path: Path) -> None:
    of = alone(tmp_path, 14)
    assert [clip.id for clip in chain(*all_clips(of).values())] == ["alone@00001", "alone@00009"]
    assert "3 frames apart" in of.fingerprint()["division"]
    assert files.number_of(of.clip("eval", 0).video[-1]) == 13


# -- sound


def test_a_wav_beside_a_video_is_its_sound(folder: Path) -> None:
    files.write_wav(folder / "anna.wav", np.full(16_000, 0.25, np.float32))
    files.write_wav(folder / "bert.WAV", files.tone(0.3, 16_000))
    of = track(folder)
    entries = of.fingerprint()["files"]
    assert entries["anna.mp4"]["sound"] == "anna.wav" and entries["bert.avi"]["sound"] == "bert.WAV"
    assert entries["cleo.mkv"]["sound"] is None
    np.testing.assert_allclose(of.clip("prompts", 0).audio, 0.25, atol=1e-3)


def test_sound_that_ends_early_is_filled_up_then_absent(folder: Path) -> None:
    files.write_wav(folder / "anna.wav", np.full(round(0.3 * 16_000), 0.25, np.float32))  # of 0.84 s
    of = track(folder)
    windows = sorted((c for c in all_clips(of)["prompts"] if c.identity == "anna"), key=lambda c: c.id)
    assert len(windows) == 4
    assert (windows[0].audio > 0.2).all()
    second = windows[1].audio  # of frames 6 to 10, 0.24 s to 0.44 s
    assert (second[:900] > 0.2).all() and not second[1000:].any() and len(second) == T * 640
    assert windows[2].audio is None and windows[3].audio is None
    assert of.fingerprint()["files"]["anna.mp4"]["notes"] == ["sound ends 0.540 s before the video: silence after it"]


def test_a_broken_wav_is_reported_and_the_videos_own_sound_is_used(folder: Path) -> None:
    (folder / "anna.wav").write_bytes(b"")
    of = track(folder)
    assert [(r.source, r.reason) for r in of.refusals()] == [
        ("anna.wav", "is empty (0 bytes); the sound in anna.mp4 is used, if any")
    ]
    assert of.fingerprint()["files"]["anna.mp4"]["sound"] == "anna.mp4"
    assert of.clip("prompts", 0).audio.std() > 0.2


# -- what cannot be answered


def sentence(caught: pytest.ExceptionInfo[RequestError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_folders_without_enough_clips_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        track(tmp_path / "nowhere").splits()
    assert sentence(caught) == f"--data {tmp_path / 'nowhere'}: no such folder"
    (tmp_path / "file.mp4").write_bytes(b"")
    with pytest.raises(RequestError) as caught:
        track(tmp_path / "file.mp4").splits()
    assert "is not a folder" in sentence(caught)
    with pytest.raises(RequestError) as caught:
        track(tmp_path).splits()
    assert "no usable video" in sentence(caught) and "file.mp4 is empty (0 bytes)" in sentence(caught)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("words")
    with pytest.raises(RequestError) as caught:
        track(tmp_path / "empty").fingerprint()
    assert "no usable video" in sentence(caught) and "1 file" in sentence(caught)
    (tmp_path / "one").mkdir()
    files.write(tmp_path / "one" / "a.mp4", files.textured(7))
    with pytest.raises(RequestError) as caught:
        track(tmp_path / "one").clip("eval", 0)
    assert "only 1 window; a run needs two windows of 5 frames" in sentence(caught)


@pytest.mark.parametrize("frames", [0, 1, 4, 16, 18])
def test_frames_must_be_one_more_than_a_multiple_of_four(tmp_path: Path, frames: int) -> None:
    with pytest.raises(RequestError, match=r"1 \+ 4n"):
        ClipsTrack(tmp_path, frames)


def test_unknown_splits_and_numbers_are_refused(folder: Path) -> None:
    of = track(folder)
    with pytest.raises(RequestError, match=r"no split 'pretrain'; it has prompts, eval"):
        of.clip("pretrain", 0)
    for index in (-1, 2):
        with pytest.raises(RequestError, match="has clips 0 to 1"):
            of.clip("eval", index)


# -- annotator


@pytest.fixture(scope="module")
def walk() -> Clip:
    """A smooth scene with a square that moves two pixels a frame."""
    rows, columns = np.mgrid[:48, :48]
    video = np.stack([80 + rows + columns // 2] * 9)[..., None].repeat(3, -1).astype(np.uint8)
    for frame in range(9):
        video[frame, 12:28, 6 + 2 * frame : 20 + 2 * frame] = (230, 60, 30)
    return Clip("walk", "walk", video, video[0])


def scores(video: np.ndarray, clip: Clip) -> tuple[float, float]:
    found = PixelAnnotator()(video, clip)
    assert tuple(found) == PixelAnnotator.criteria == ("motion", "fidelity")
    return found["motion"], found["fidelity"]


def test_the_real_frames_are_the_best_there_is(walk: Clip) -> None:
    assert scores(walk.video, walk) == (0.0, 0.0)


def test_frozen_and_jittered_and_shuffled_lose_on_motion(walk: Clip) -> None:
    rng = np.random.default_rng(0)
    frozen = np.repeat(walk.video[:1], 9, 0)
    jittered = np.stack([np.roll(frame, rng.integers(-2, 3, 2), (0, 1)) for frame in walk.video])
    shuffled = walk.video[rng.permutation(9)]
    slower = walk.video[np.arange(9) // 2]
    brighter = np.clip(walk.video.astype(int) + 12, 0, 255).astype(np.uint8)
    assert scores(frozen, walk)[0] < scores(slower, walk)[0] < 0
    assert scores(jittered, walk)[0] < scores(brighter, walk)[0]
    assert scores(shuffled, walk)[0] < scores(slower, walk)[0]
    assert scores(brighter, walk)[0] > -0.01 > scores(brighter, walk)[1]  # a wrong colour is no wrong motion


def test_wrong_motion_of_the_right_amount_beats_none(walk: Clip) -> None:
    backwards = walk.video[::-1]
    frozen = np.repeat(walk.video[4:5], 9, 0)
    assert scores(backwards, walk)[0] > scores(frozen, walk)[0]


def test_fidelity_falls_with_blur_and_noise(walk: Clip) -> None:
    from PIL import Image, ImageFilter

    rng = np.random.default_rng(0)
    by_blur = [
        np.stack([np.asarray(Image.fromarray(f).filter(ImageFilter.GaussianBlur(radius))) for f in walk.video])
        for radius in (0, 0.7, 1.5, 3)
    ]
    noise = rng.normal(0, 1, walk.video.shape)
    by_noise = [np.clip(walk.video + sigma * noise, 0, 255).astype(np.uint8) for sigma in (0, 4, 12, 30)]
    for levels in (by_blur, by_noise):
        found = [scores(video, walk)[1] for video in levels]
        assert found[0] == 0 and all(worse < better for better, worse in pairwise(found))


def test_a_candidate_of_another_shape_is_an_error(walk: Clip) -> None:
    with pytest.raises(ValueError, match="walk"):
        PixelAnnotator()(walk.video[:5], walk)


def test_the_annotator_comes_from_the_track(folder: Path) -> None:
    annotator = track(folder).annotator()
    assert annotator.criteria == ("motion", "fidelity") and "frame differences" in annotator.protocol


# -- real clips


def test_real_clips(tmp_path: Path, real_clip: Callable[[str], Path]) -> None:
    for name in ("halfbody_woman_10s.mp4", "portrait_guitar_5s.avi", "portrait_guitar_5s.wav"):
        (tmp_path / name).symlink_to(real_clip(name))
    of = ClipsTrack(tmp_path)
    assert dict(of.splits()) == {"prompts": 14, "eval": 7}
    entries = of.fingerprint()["files"]
    assert {name: entry["frames"] for name, entry in entries.items()} == {
        "halfbody_woman_10s.mp4": 250,
        "portrait_guitar_5s.avi": 133,
    }
    assert entries["halfbody_woman_10s.mp4"]["notes"] == []
    assert entries["portrait_guitar_5s.avi"]["sound"] == "portrait_guitar_5s.wav"
    for split, count in of.splits().items():
        clip = of.clip(split, count - 1)
        assert clip.video.shape == (17, 64, 64, 3) and clip.video.std() > 20
        assert clip.audio is not None and clip.audio.shape == (10_880,) and clip.audio.std() > 0.005
