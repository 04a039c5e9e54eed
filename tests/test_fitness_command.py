"""`halign-bench fitness` as a user types it, on the embedded track and on folders of real videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import media_files as files
import numpy as np
import pytest
from test_fitness import measured

from halign_bench.cli import main
from halign_bench.fitness import rule
from halign_bench.fitness.damages import DAMAGES
from halign_bench.fitness.folder import SHORT, Folder
from halign_bench.fitness.report import markdown
from halign_bench.track import Clip, Unscorable
from halign_bench.tracks.puppet import FITNESS

# Folders of real videos


class Numbers:
    """A sync net that reads the number of each frame from its brightness, and the same from the sound's level."""

    name, protocol = "numbers", "brightness and level"

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list:
        found = []
        for clip, condition in zip(clips, conditions, strict=True):
            heard = np.abs(condition.audio[: len(clip.video) * 640]).reshape(-1, 640).mean(1)
            seen = clip.video.mean((1, 2, 3)) / files.LEVEL
            video, sound = (np.eye(64)[np.rint(x).astype(int)] for x in (seen, heard * 50))
            found.append({"video": video, "audio": sound, "vshift": 15})
        return found


def numbered_videos(folder: Path, offsets: Sequence[int], frames: int = 40) -> Path:
    """Files whose frame k is of brightness k, with sound of level k that comes so many frames early."""
    for number, early in enumerate(offsets):
        files.write(folder / f"clip {number}.mp4", files.numbered(frames))
        levels = np.clip(np.arange(frames + 10) + early, 0, 49) / 50
        files.write_wav(folder / f"clip {number}.wav", levels.repeat(640))
    return folder


def test_shifts_of_the_sound_are_found_exactly_whatever_offset_a_clip_has_already(tmp_path):
    folder = Folder(numbered_videos(tmp_path, (0, 2, -3, 5)))
    found = measured({"shift": DAMAGES["audio_shift"]}, ("sync_offset",), list(folder.subjects(9)), sync=Numbers())
    ladder = found["sync_offset"]
    assert ladder.totals == (2.5, 3.5, 4.5, 5.5, 6.5) and ladder.exact == 1 and ladder.verdict == "fit"


def test_the_sound_of_another_file_takes_its_place(tmp_path):
    folder = Folder(numbered_videos(tmp_path, (0, 9, 0, 9)))
    found = measured({"wrong": DAMAGES["wrong_sound"]}, ("sync_d", "sync_c"), list(folder.subjects(9)), sync=Numbers())
    assert found["sync_d"].totals[0] < found["sync_d"].totals[2]
    assert all(ladder.clips == 4 for ladder in found.values())


def test_windows_come_in_turns_and_pictures_are_spoilt_in_their_first_frames(tmp_path, monkeypatch):
    monkeypatch.setattr("halign_bench.fitness.folder.LONG", 20)
    files.write(tmp_path / "a.mp4", files.numbered(40))
    files.write(tmp_path / "b.mp4", files.numbered(30, 32, 96), sound=files.tone(1.2, 44_100))
    files.write(tmp_path / "short.mp4", files.numbered(SHORT - 1))
    (tmp_path / "text.mp4").write_text("no video")
    folder = Folder(tmp_path)
    subjects = list(folder.subjects(9))
    assert [subject.long.id for subject in subjects] == ["a@00000", "b@00000", "a@00020"]
    assert [len(subject.long.video) for subject in subjects] == [20, 20, 20]
    assert all(len(subject.clip.video) == SHORT for subject in subjects)
    assert files.number_of(subjects[2].clip.video[0]) == 20 and files.number_of(subjects[2].clip.reference) == 0
    assert subjects[0].long.audio is None and len(subjects[1].long.audio) == 20 * 640
    assert len(subjects[1].clip.audio) == SHORT * 640
    other = subjects[0].other()
    assert other.identity == "b" and other.video.shape[1:] == subjects[0].clip.video.shape[1:]
    assert {refusal.source for refusal in folder.refusals} == {"short", "text"}
    assert folder.windows == {"a": [0, 20], "b": [0]}


def test_frames_are_scaled_to_what_fits_in_memory_and_keep_their_proportions(tmp_path):
    files.write(tmp_path / "wide.mp4", files.numbered(SHORT, 360, 1280))
    assert next(Folder(tmp_path).subjects(1)).clip.video.shape == (SHORT, 144, 512, 3)
    assert next(Folder(tmp_path, (64, 48)).subjects(1)).clip.video.shape == (SHORT, 64, 48, 3)


# The command


def answer(capsys, *arguments: str | Path) -> dict:
    assert main(["fitness", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def moving(frames: int, seed: int) -> np.ndarray:
    """A smooth picture that drifts to the right: shuffled, it jumps."""
    rows, columns = np.mgrid[0:48, 0:64]
    phase = np.arange(frames)[:, None, None] * 0.35 + seed
    wave = 128 + 60 * np.sin(columns / 9 - phase) + 50 * np.sin(rows / 3 + columns / 4)
    return np.repeat(wave[..., None], 3, -1).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    for number in range(5):
        files.write(folder / f"{number}.mp4", moving(20, number))
    return folder


def test_the_embedded_track_is_measured_as_committed(capsys):
    whole = answer(capsys, "--clips", 4, "--metrics", "fid,psnr,sync_offset,hkv,lpips")
    assert whole["clips"] == 4 and whole["of"]["track"] == "puppet" and whole["rule"] == rule.RULE
    assert {name: metric["key"] for name, metric in whole["metrics"].items()} == {
        name: f"{name}@puppet" for name in ("fid", "psnr", "sync_offset", "hkv")
    }
    assert whole["left_out"] == {"lpips": "track puppet has no perceptual extractor"}
    ladders = {(ladder["damage"], ladder["metric"]): ladder for ladder in whole["ladders"]}
    assert ladders["audio_shift", "sync_offset"]["totals"] == [0, 1, 2, 3, 4]
    still = ladders["hands_stilled", "hkv"]["totals"]
    assert [value / still[0] for value in still] == pytest.approx([1, 0.5625, 0.25, 0.0625, 0], abs=0.05)
    committed = json.loads(FITNESS.read_text(encoding="utf-8"))
    for name, metric in whole["metrics"].items():
        assert metric["protocol_sha256"] == committed["metrics"][name]["protocol_sha256"]


def test_a_folder_without_any_weights_gives_what_needs_none(capsys, videos, tmp_path):
    out = tmp_path / "new" / "fitness.json"
    whole = answer(capsys, "--data", videos, "--assets", tmp_path, "--clips", 5, "--out", out)
    assert json.loads(out.read_text()) == whole
    assert {name for name, metric in whole["metrics"].items()} == {"ssim", "psnr", "motion", "motion_gap"}
    for ladder in whole["ladders"]:
        if ladder["damage"] != "shuffled":  # which depends on what moves
            assert ladder["verdict"] == "fit", ladder
    motion = {ladder["damage"]: ladder for ladder in whole["ladders"] if ladder["metric"] == "motion"}
    assert motion["frozen"]["totals"][-1] == 0 and motion["shuffled"]["totals"][-1] > 1.5
    for name in ("fid", "fvd", "sync_c", "csim", "hkc"):
        assert "halign-bench assets" in whole["left_out"][name]
    assert "known way" in whole["left_out"]["hkv"]
    (row,) = [line for line in markdown(whole).splitlines() if line.startswith("| noise ") and "psnr" in line]
    assert "psnr@pixels ↓" in row and row.rstrip(" |").endswith("fit")


def test_blur_noise_and_frames_out_of_order_are_seen_in_real_clips(capsys, real_clip, tmp_path):
    for name in ("halfbody_man_20s.mp4", "halfbody_woman_10s.mp4", "portrait_guitar_5s.avi"):
        (tmp_path / name).symlink_to(real_clip(name))
    whole = answer(capsys, "--data", tmp_path, "--assets", tmp_path, "--clips", 4, "--size", "128x128")
    verdicts = {(ladder["damage"], ladder["metric"]): ladder["verdict"] for ladder in whole["ladders"]}
    for seen in (("blur", "ssim"), ("noise", "psnr"), ("shuffled", "motion"), ("frozen", "motion_gap")):
        assert verdicts[seen] == "fit"


def test_the_table_says_what_was_found_and_why_the_rest_was_not(capsys, videos):
    assert main(["fitness", "--data", str(videos), "--metrics", "psnr,motion,hkc", "--clips", "2"]) == 0
    out = capsys.readouterr().out
    assert "psnr@pixels ↓" in out and "2 clips were scored at every level, 4 are needed" in out
    assert "not measured: hkc (no weights here; get them with `halign-bench assets fetch yolox-l dwpose-l`" in out
    assert "fit = Spearman's correlation" in out and "unfit: none" in out


def test_an_extractor_with_random_weights_is_measured_like_any_other(capsys, videos, tmp_path):
    from test_lpips import ALEX, LINEAR, backbone

    folder = tmp_path / "assets"
    for name, path in (("lpips-alex", LINEAR / "alex.pth"), ("alexnet", backbone(tmp_path / "net.pth", ALEX))):
        assert main(["assets", "add", name, str(path), "--trust", "--dir", str(folder)]) == 0
    capsys.readouterr()
    whole = answer(capsys, "--data", videos, "--assets", folder, "--metrics", "lpips", "--clips", 4)
    ladders = {ladder["damage"]: ladder for ladder in whole["ladders"]}
    assert set(ladders) == {"blur", "noise"} and all(ladder["clips"] == 4 for ladder in ladders.values())
    assert whole["metrics"]["lpips"]["key"] == "lpips@alex" and ladders["noise"]["totals"][0] == 0
    assert "sha256" in whole["metrics"]["lpips"]["protocol"]


def test_one_file_alone_says_what_it_lacks(capsys, videos):
    whole = answer(capsys, "--data", videos / "0.mp4", "--metrics", "psnr", "--clips", 3)
    assert whole["clips"] == 1 and whole["metrics"]["psnr"]["verdict"] == "not measured"
    assert whole["refusals"] == [{"source": "windows", "reason": "3 were asked for, the videos give 1"}]
    alone = next(Folder(videos / "0.mp4").subjects(1)).other()
    assert alone == Unscorable("needs a clip of somebody else, and the folder has no other file that can be read")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    (
        (["--data", "nowhere"], "--data nowhere: no such file or folder"),
        (["--metrics", "hkx"], "Unknown metric 'hkx'"),
        (["--use", "rtmw"], "--use is for real videos: give a folder of them with --data"),
        (["--data", "{videos}", "--use", "rtmx"], "Unknown extractor 'rtmx'"),
        (["--data", "{videos}", "--size", "big"], "--size big: give width and height"),
        (["--size", "64x64"], "--size is for real videos"),
        (["--clips", "0"], "--clips"),
        (["--clips", "5000"], "--clips 5000: track puppet has 2000 evaluation clips"),
        (["--metrics", "lpips"], "nothing can be measured (track puppet has no perceptual extractor)"),
        (["--out", "{empty}"], "is a folder; give a file"),
        (["--data", "{empty}"], "no video in it"),
        (["--data", "{broken}", "--metrics", "psnr"], "no video that can be used (text"),
    ),
)
def test_a_wrong_request_is_one_sentence(capsys, videos, tmp_path, arguments, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "text.mp4").write_text("no video")
    places = {"videos": videos, "empty": tmp_path / "empty", "broken": tmp_path / "broken"}
    assert main(["fitness", *(argument.format(**places) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("halign-bench: ")]
    assert captured.out == "" and len(lines) == 1 and sentence in lines[0]
