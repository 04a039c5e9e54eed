"""`halign-bench score` as a user types it: on awkward folders, from the cache, interrupted, and without any weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from media_files import cut, numbered, textured, tone, turn_clockwise, write, write_wav

from halign_bench.cli import main
from halign_bench.errors import RequestError
from halign_bench.scoring import footage
from halign_bench.scoring.inputs import find_inputs

FRAMES = 12
PIXEL_METRICS = {"motion@pixels", "motion_gap@pixels", "psnr@pixels", "ssim@pixels"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and no weights."""
    monkeypatch.setenv("HALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HALIGN_ASSETS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose pictures were decoded, in order."""
    seen: list[Path] = []

    class Watched(footage.VideoReader):
        def __iter__(self) -> Any:
            seen.append(Path(self.path))
            return super().__iter__()

    monkeypatch.setattr(footage, "VideoReader", Watched)
    return seen


def score(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    code = main(["score", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, err


def videos(folder: Path, *names: str, seed: int = 0, frames: int = FRAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        write(folder / f"{name}.mp4", textured(frames, seed=seed + number))
    return folder


# Whatever lies in the folder


def awkward(folder: Path) -> Path:
    """The files that a scorer meets sooner or later, made with real encoders."""
    folder.mkdir()
    write(folder / "no sound.mp4", textured(FRAMES))
    write(folder / "still.mp4", np.repeat(textured(1), FRAMES, 0))
    write(folder / "five frames.mp4", textured(5))
    write(folder / "thirty.mp4", textured(15), fps=30)
    turn_clockwise(write(folder / "portrait.mp4", textured(FRAMES)), 48)
    write(folder / "telephone.mkv", textured(FRAMES), sound=tone(0.48, 8000), rate=8000, sound_codec="libopus")
    loud = tone(0.48, 48_000)
    write(folder / "cinema.mkv", textured(FRAMES), sound=loud, rate=48_000, layout="5.1", sound_codec="ac3")
    write(folder / "long sound.mp4", textured(FRAMES), sound=tone(3.0, 44_100))
    write(folder / "it's \"quoted\" & spaced.mp4", textured(FRAMES))
    cut(write(folder / "whole.avi", textured(40)), 0.5, folder / "truncated.avi")
    cut(write(folder / "index.mp4", textured(40)), 0.5, folder / "no index.mp4")
    (folder / "text.mp4").write_text("I am no video.\n")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "readme.txt").write_text("nor am I\n")
    (folder / ".hidden.mp4").write_bytes(b"")
    return folder


@pytest.mark.fault(
    "score: files that are empty, cut off, text, without sound or of other sizes",
    "each is counted with its reason; the others are scored",
)
def test_everything_in_an_awkward_folder_is_accounted_for(capsys, cache, tmp_path):
    folder = awkward(tmp_path / "it's my folder")
    code, found, _ = score(capsys, folder, "--reference", folder, "--out", tmp_path / "out")
    assert code == 0
    clips = {clip["name"]: clip for clip in found["clips"]}
    assert len(clips) == 15 and found["ignored_files"] == 2
    for value in found["metrics"].values():
        assert value["n"] + sum(value["failed"].values()) == 15, value
    broken = {name: clip["error"] for name, clip in clips.items() if clip["error"]}
    assert broken == {
        "text": "is not a video file that can be read",
        "empty": "is empty (0 bytes)",
        "no index": "is cut off or damaged: an mp4 without a readable index",
    }
    assert any("damaged or cut off" in note for note in clips["truncated"]["notes"])
    assert clips["thirty"]["frames"]["generated"] == [FRAMES + 1, 48, 64]  # half a second at 25 frames a second
    assert clips["portrait"]["frames"]["generated"] == [FRAMES, 64, 48]
    assert found["metrics"]["motion@pixels"]["failed"]["target does not move"] == 1
    assert found["metrics"]["ssim@pixels"]["value"] == pytest.approx(1)  # each was compared with itself
    assert found["metrics"]["psnr@pixels"]["value"] == 100
    rows = pq.read_table(tmp_path / "out" / "clips.parquet").to_pylist()
    assert {row["clip"] for row in rows} == set(clips)
    assert all((row["value"] is None) != (row["reason"] is None) for row in rows)
    assert json.loads((tmp_path / "out" / "score.json").read_text()) == found


def test_without_any_weights_the_rest_is_scored_and_what_is_left_out_says_how_to_get_it(capsys, cache, tmp_path):
    folder = videos(tmp_path / "a", "one", "two")
    code, found, _ = score(capsys, folder, "--reference", folder)
    assert code == 0 and set(found["metrics"]) == PIXEL_METRICS
    assert "halign-bench assets fetch inception-fid" in found["left_out"]["fid"]
    assert "halign-bench assets fetch syncnet-v2 s3fd" in found["left_out"]["sync_c"]
    assert main(["score", str(folder), "--reference", str(folder)]) == 0
    table = capsys.readouterr().out
    assert "fid, kid: no weights here" in table and "2 of 2" in table


def test_alone_there_is_nothing_to_compare_with_and_it_says_so(capsys, cache, tmp_path):
    assert main(["score", str(videos(tmp_path / "a", "one"))]) == 2
    message = capsys.readouterr().err
    assert "nothing can be measured" in message and "--reference is not given" in message


@pytest.mark.fault("score: a broken reference", "costs its own clip alone")
def test_a_broken_reference_costs_only_its_own_clip(capsys, cache, tmp_path):
    generated, real = videos(tmp_path / "a", "one", "two", "three"), videos(tmp_path / "b", "one", "two", seed=9)
    (real / "two.mp4").write_text("no video")
    code, found, _ = score(capsys, generated, "--reference", real)
    assert code == 0
    psnr = found["metrics"]["psnr@pixels"]
    assert psnr["n"] == 1
    assert psnr["failed"] == {"reference is not a video file that can be read": 1, "no reference clip": 1}


def test_clips_of_other_sizes_are_compared_when_a_size_is_given_and_of_other_lengths_always(capsys, cache, tmp_path):
    generated, real = tmp_path / "a", tmp_path / "b"
    generated.mkdir(), real.mkdir()
    write(generated / "x.mp4", numbered(FRAMES, 48, 64))
    write(real / "x.mp4", numbered(FRAMES - 3, 96, 128))
    _, found, _ = score(capsys, generated, "--reference", real)
    assert found["metrics"]["psnr@pixels"]["failed"] == {"frame sizes differ from the target's: 64x48 and 128x96": 1}
    _, found, _ = score(capsys, generated, "--reference", real, "--size", "64x48")
    assert found["metrics"]["psnr@pixels"]["value"] > 40
    assert found["clips"][0]["notes"] == [f"{FRAMES} frames, its reference has {FRAMES - 3}"]
    assert "64x48" in found["decoding"]


# Nothing twice


def test_a_clip_is_decoded_once_for_all_metrics_and_not_at_all_the_second_time(capsys, cache, decoded, tmp_path):
    generated, real = videos(tmp_path / "a", "one", "two"), videos(tmp_path / "b", "one", "two", seed=5)
    _, first, _ = score(capsys, generated, "--reference", real)
    assert sorted(decoded) == sorted([*generated.iterdir(), *real.iterdir()])
    decoded.clear()
    _, again, _ = score(capsys, generated, "--reference", real)
    assert not decoded
    assert again == first
    write(generated / "three.mp4", textured(FRAMES, seed=20)), write(real / "three.mp4", textured(FRAMES, seed=21))
    _, more, _ = score(capsys, generated, "--reference", real)
    assert {path.stem for path in decoded} == {"three"} and len(decoded) == 2
    assert more["metrics"]["psnr@pixels"]["n"] == 3


def test_a_file_that_changes_under_its_name_is_scored_anew(capsys, cache, tmp_path):
    generated, real = videos(tmp_path / "a", "one"), videos(tmp_path / "b", "one")
    _, found, _ = score(capsys, generated, "--reference", real)
    assert found["metrics"]["psnr@pixels"]["value"] == 100
    videos(generated, "one", seed=3)
    _, found, _ = score(capsys, generated, "--reference", real)
    assert found["metrics"]["psnr@pixels"]["value"] < 30


@pytest.mark.fault("score: entries of the cache end too early", "made again, to the same scores")
def test_a_torn_entry_of_the_cache_is_made_again(capsys, cache, tmp_path):
    generated, real = videos(tmp_path / "a", "one"), videos(tmp_path / "b", "one", seed=2)
    _, first, _ = score(capsys, generated, "--reference", real)
    entries = [path for path in (cache / "score").rglob("*.json")]
    assert entries
    for path in entries:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, again, _ = score(capsys, generated, "--reference", real)
    assert again == first


def test_memory_does_not_grow_with_the_number_of_clips(cache, tmp_path):
    def peak(count: int) -> int:
        folder = tmp_path / f"of {count}"
        folder.mkdir()
        clip = write(folder / "0.mp4", textured(60, 320, 320))  # 18 MiB decoded
        for number in range(1, count):
            os.link(clip, folder / f"{number}.mp4")
        program = (
            "import resource, sys; from halign_bench.cli import main; "
            f"code = main(['score', {str(folder)!r}, '--reference', {str(folder)!r}, '--metrics', 'motion']); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
        )
        environment = os.environ | {"HALIGN_CACHE": str(tmp_path / f"cache {count}")}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return int(done.stderr.split()[-1])

    assert peak(12) - peak(2) < 60 * 1024, "12 clips are 180 MiB more than 2"


@pytest.mark.fault("score: Ctrl-C", "ends with 130; the same command goes on")
def test_interrupted_it_ends_with_130_and_the_same_command_goes_on(cache, tmp_path):
    folder = videos(tmp_path / "a", *(f"clip{number}" for number in range(60)), frames=40)
    command = [sys.executable, "-m", "halign_bench", "score", str(folder), "--reference", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list((cache / "score").rglob("*.json")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "the same command goes on" in err and "Traceback" not in err
    kept = len(list((cache / "score").rglob("*.json")))
    assert 0 < kept < 60 * len(PIXEL_METRICS)
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert json.loads(done.stdout)["metrics"]["ssim@pixels"]["n"] == 60


# Which files belong together


def test_files_are_paired_by_their_place_below_the_folder_then_by_name_alone(tmp_path):
    generated = videos(tmp_path / "g" / "seed0", "a", "b").parent
    real = tmp_path / "r"
    videos(real / "seed0", "a"), videos(real / "others", "b", "c")
    sounds = tmp_path / "s"
    sounds.mkdir()
    write_wav(sounds / "a.wav", tone(0.5, 16_000))
    found = find_inputs(generated, real, sounds)
    assert [(item.name, item.reference, item.audio) for item in found.items] == [
        ("seed0/a", real / "seed0" / "a.mp4", sounds / "a.wav"),
        ("seed0/b", real / "others" / "b.mp4", None),
    ]
    assert found.unused == 1


def test_sound_beside_a_file_is_its_sound_unless_other_sound_is_given(tmp_path):
    folder = videos(tmp_path / "g", "a")
    beside = write_wav(folder / "a.wav", tone(0.5, 16_000))
    assert find_inputs(folder).items[0].audio == beside
    one = write_wav(tmp_path / "speech.wav", tone(0.5, 16_000))
    assert find_inputs(folder, audio=one).items[0].audio == one


def test_single_files_go_together_whatever_their_names(tmp_path):
    videos(tmp_path, "result", "truth")
    (item,) = find_inputs(tmp_path / "result.mp4", tmp_path / "truth.mp4").items
    assert item.reference == tmp_path / "truth.mp4"


def test_of_two_files_with_one_name_the_second_is_refused(tmp_path):
    folder = videos(tmp_path / "g", "a")
    write(folder / "a.mkv", textured(3))
    found = find_inputs(folder)
    assert len(found.items) == 1 and found.refusals[0].source == "a.mp4"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "no such file or folder"),
        (["g", "--reference", "nowhere"], "--reference nowhere: no such file or folder"),
        (["g", "--reference", "other"], "files are paired by name (here: z; generated: a)"),
        (["void"], "no video in it (1 other files)"),
        (["g", "--metrics", "fidd"], "did you mean 'fid'"),
        (["g", "--use", "inceptions"], "did you mean 'inception'"),
        (["g", "--use", "i3d,i3d-videogpt"], "choose one"),
        (["g", "--size", "big"], "for example 512x512"),
        (["g", "--device", "cuda:99", "--reference", "g"], "--device cuda:99: torch cannot use it here"),
        (["g", "--reference", "g", "--metrics", "psnr", "--out", "void/x.txt"], "--out void/x.txt: cannot be written"),
    ],
)
def test_a_wrong_request_is_one_sentence(capsys, cache, tmp_path, monkeypatch, arguments, message):
    videos(tmp_path / "g", "a"), videos(tmp_path / "other", "z")
    (tmp_path / "void").mkdir()
    (tmp_path / "void" / "x.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert main(["score", *arguments]) == 2
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in err, err


def test_a_generated_folder_where_nothing_can_be_read_answers_no(capsys, cache, tmp_path):
    folder = tmp_path / "g"
    folder.mkdir()
    (folder / "a.mp4").write_text("text")
    code, found, _ = score(capsys, folder, "--reference", folder)
    assert code == 1
    assert all(value["value"] is None and value["reason"] for value in found["metrics"].values())


def test_find_inputs_refuses_a_folder_without_videos(tmp_path):
    with pytest.raises(RequestError, match="no video in it"):
        find_inputs(tmp_path)
