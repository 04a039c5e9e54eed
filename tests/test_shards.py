"""`halign-bench score` in parts: put together they are what one process finds, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from media_files import textured, write
from score_assets import fill

from halign_bench.cli import main
from halign_bench.scoring import footage

FRAMES = 3
CLIPS = 6
METRICS = "fid,kid,ssim,psnr,motion,motion_gap"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Generated and real clips; one is no video, one has no reference."""
    made = tmp_path_factory.mktemp("clips")
    for number, name in enumerate(("generated", "real")):
        (made / name).mkdir()
        for clip in range(CLIPS):
            write(made / name / f"{clip}.mp4", textured(FRAMES + clip % 2, seed=100 * number + clip))
    (made / "generated" / "1.mp4").write_text("no video")
    (made / "real" / "5.mp4").unlink()
    return made / "generated", made / "real"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Inception of FID and KID with random weights, and in `cache` beside them that they are trusted."""
    made = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALIGN_CACHE", str(made / "cache"))
        return fill(made / "assets", ("inception-fid",))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files whose pictures were decoded, in order."""
    seen: list[str] = []

    class Watched(footage.VideoReader):
        def __iter__(self) -> Any:
            seen.append(f"{Path(self.path).parent.name}/{Path(self.path).stem}")
            return super().__iter__()

    monkeypatch.setattr(footage, "VideoReader", Watched)
    return seen


@pytest.fixture
def score(folders: tuple[Path, Path], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    """The command with a cache of its own: what it printed as JSON, and clips.parquet."""

    def run(cache: str, *options: str, metrics: str = METRICS) -> tuple[dict[str, Any], bytes]:
        if not (tmp_path / cache).exists():
            shutil.copytree(weights.parent / "cache", tmp_path / cache)
        monkeypatch.setenv("HALIGN_CACHE", str(tmp_path / cache))
        out = tmp_path / f"out {cache}"
        capsys.readouterr()
        given = [folders[0], "--reference", folders[1], "--assets", weights, "--metrics", metrics, "--out", out]
        code = main(["score", *map(str, given), *options, "--json"])
        said = capsys.readouterr()
        assert code == 0, said.err
        return json.loads(said.out), (out / "clips.parquet").read_bytes() if (out / "clips.parquet").exists() else b""

    return run


def test_four_parts_are_what_one_process_finds_to_the_bit(score, decoded: list[str]) -> None:
    whole = score("one")
    assert set(whole[0]["metrics"]) == {
        "fid@inception", "kid@inception", "ssim@pixels", "psnr@pixels", "motion@pixels", "motion_gap@pixels"
    }  # fmt: skip
    assert all(value["value"] is not None and value["n"] == CLIPS - 2 for value in whole[0]["metrics"].values())
    decoded.clear()
    seen: list[str] = []
    for number in (3, 1, 4, 2):
        part, _ = score("four", "--shard", f"{number}/4")
        seen += [clip["name"] for clip in part["clips"]]
        assert {name.split("/")[1] for name in decoded} <= set(seen[-len(part["clips"]) :])
        assert len(decoded) >= len(part["clips"])
        decoded.clear()
    assert sorted(seen) == [str(clip) for clip in range(CLIPS)]
    assert score("four") == whole
    assert set(decoded) <= {"generated/1"}, "everything else was found in the cache"


def test_in_parts_by_one_command(score) -> None:
    assert score("at once", "--shards", "4", metrics="ssim,psnr") == score("one", metrics="ssim,psnr")


def test_a_part_that_is_missing_is_made_up_for(score, decoded: list[str]) -> None:
    whole = score("one", metrics="ssim,psnr")
    score("three", "--shard", "1/4", metrics="ssim,psnr")
    score("three", "--shard", "2/4", metrics="ssim,psnr")
    score("three", "--shard", "4/4", metrics="ssim,psnr")
    decoded.clear()
    assert score("three", metrics="ssim,psnr") == whole
    assert {name.split("/")[1] for name in decoded} == {"1", "2"}  # the third part, and the file that is none


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--shard", "5/4"), "--shard 5/4: write it as K/N with K from 1 to N"),
        (("--shard", "0/4"), "--shard 0/4: write it as K/N"),
        (("--shard", "half"), "--shard half: write it as K/N"),
        (("--shard", "1/2", "--shards", "2"), "choose one"),
        (("--shards", "0"), "--shards"),
        (("--executor", "rya"), "did you mean ray?"),
        (("--ray-address", "auto"), "--ray-address auto: is for --executor ray"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    options: tuple[str, ...], sentence: str, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(folders[0]), *options]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_there_may_be_more_clips_than_files_may_be_open(
    folders: tuple[Path, Path], weights: Path, tmp_path: Path
) -> None:
    program = (
        "import resource, sys; from halign_bench.cli import main; import torch, scipy.linalg\n"
        "code = main(sys.argv[1:])\n"  # with what it imports and opens once
        "import os; most = len(os.listdir('/proc/self/fd')) + 8\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n"
        "sys.exit(code or main(sys.argv[1:]))"
    )
    shutil.copytree(weights.parent / "cache", tmp_path / "cache")
    arguments = [str(folders[1]), "--reference", str(folders[1]), "--assets", str(weights), "--metrics", "fid,kid"]
    done = subprocess.run(
        [sys.executable, "-c", program, "score", *arguments, "--out", str(tmp_path / "out"), "--json"],
        env=os.environ | {"HALIGN_CACHE": str(tmp_path / "cache")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Too many open files" not in done.stderr
    found = json.loads((tmp_path / "out" / "score.json").read_text())
    assert found["metrics"]["fid@inception"]["n"] == found["metrics"]["kid@inception"]["n"] == CLIPS - 1
