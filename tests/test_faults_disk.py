"""Disks that are full, read-only or somebody else's, and memory that gives out: a sentence, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bad_server as bad
import pytest
from disks import Disk, disk
from media_files import textured, write
from runs import METHODS, Runs
from test_runner import assert_same

import halign_bench
from halign_bench.assets.fetch import fetch
from halign_bench.assets.manifest import Asset
from halign_bench.assets.store import Store
from halign_bench.cli import main
from halign_bench.errors import RequestError
from halign_bench.results import read_record

NOBODY = 65534


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path / "small", 8) as made:
        yield made


def complaint(progress: str) -> str:
    """The one sentence that a command ended with."""
    assert "Traceback" not in progress, progress
    said = [line for line in progress.splitlines() if line.startswith("halign-bench: ")]
    assert len(said) == 1 and progress.splitlines()[-1] == said[0], progress
    return said[0]


def leftovers(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob(".*.tmp")]


# Full


@pytest.mark.fault(
    "run: the disk is full, a little later each time, so that every kind of file meets it",
    "one sentence (2) each time; with room the same command ends like an undisturbed run, nothing half is left",
)
def test_a_disk_that_is_full_at_each_write_in_turn(runs: Runs, whole: Path, small: Disk) -> None:
    out, cache, refused = small.path / "out", small.path / "cache", []
    assert runs(out, "--methods", "base", HALIGN_CACHE=str(cache))[0] == 0
    for kib in (4, 8, 12, 16, 20, 28, 40, 80, 120, 160, 240, 360, 500, 800, 1600, 3200, 7000):
        small.leave(kib << 10)
        code, _, progress = runs(out, *METHODS, HALIGN_CACHE=str(cache))
        if code == 0:
            break
        assert code == 2, progress
        refused.append(complaint(progress))
        print(kib, refused[-1])
        assert "No space left on device" in refused[-1] and str(small.path) in refused[-1]
    assert code == 0 and len(refused) >= 4, refused
    # Preferences, adapters or log, samples, tables or records.
    assert len({Path(sentence.split(": ")[1]).suffix for sentence in refused}) >= 3, refused
    assert_same(out, whole)
    assert leftovers(out, cache) == []


@pytest.mark.fault(
    "run: no file may grow beyond a limit (ulimit -f)", "one sentence (2); without the limit the same command goes on"
)
@pytest.mark.parametrize("kib", [1, 8, 24])
def test_files_that_may_not_grow(runs: Runs, whole: Path, tmp_path: Path, kib: int) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    code, _, progress = runs(out, *METHODS, HALIGN_CACHE=str(cache), FILE_KIB=str(kib))
    assert code == 2 and "File too large" in complaint(progress)
    assert leftovers(out, cache) == []
    assert runs(out, *METHODS, HALIGN_CACHE=str(cache))[0] == 0
    assert_same(out, whole)


@pytest.mark.fault(
    "leaderboard --out, report, figures: the disk is full", "one sentence (2), nothing half is left; with room it works"
)
@pytest.mark.parametrize("command", ["leaderboard", "report", "figures"])
def test_what_is_made_of_records_on_a_full_disk(
    whole: Path, small: Disk, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    out = small.path / ("table.html" if command == "leaderboard" else "made")
    words = [command, str(whole), "--out", str(out), *(["--format", "html"] if command == "leaderboard" else [])]
    small.leave(4096)
    assert main(words) == 2
    assert "No space left on device" in complaint(capsys.readouterr().err)
    assert leftovers(small.path) == []
    small.leave(7 << 20)
    assert main(words) == 0, capsys.readouterr().err
    assert out.exists()


@pytest.mark.fault(
    "score: the disk of its cache, or of its results, is full",
    "one sentence (2); what is done is kept; with room the same command gives the same scores",
)
@pytest.mark.parametrize("full", ["cache", "out"])
def test_score_on_a_full_disk(
    small: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], full: str
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in "ab":
        write(folder / f"{name}.mp4", textured(12))
    places = {"cache": tmp_path / "cache", "out": tmp_path / "out"} | {full: small.path / full}
    monkeypatch.setenv("HALIGN_CACHE", str(places["cache"]))
    monkeypatch.delenv("HALIGN_ASSETS", raising=False)
    words = ["score", str(folder), "--reference", str(folder), "--out", str(places["out"]), "--json"]
    small.leave(8192 if full == "cache" else 4096)
    assert main(words) == 2
    sentence = complaint(capsys.readouterr().err)
    assert "No space left on device" in sentence and str(small.path) in sentence
    assert leftovers(tmp_path) == []
    small.leave(7 << 20)
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["ssim@pixels"]["n"] == 2


@pytest.mark.fault("assets fetch: the disk is full", "one sentence (2); with room it goes on where it stopped")
def test_a_download_onto_a_full_disk(small: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALIGN_CACHE", str(tmp_path / "cache"))
    data = bytes(range(256)) * 4096  # 1 MiB
    asset = Asset(
        name="net", summary="a net", file="net.pth", urls=("https://invalid/net.pth",), size=len(data),
        sha256=hashlib.sha256(data).hexdigest(), sha256_from="publisher", licence="none", metrics=("fid",),
        format="state-dict",
    )  # fmt: skip
    store = Store(small.path / "weights", {"net": asset})
    small.leave(300 << 10)
    with bad.serving() as server:
        server.files["/net.pth"] = data
        with pytest.raises(RequestError, match="No space left on device"):
            fetch(store, "net", mirror=server.url)
        kept = (store.folder / ".net.pth.part").stat().st_size
        small.leave(4 << 20)
        assert fetch(store, "net", mirror=server.url).read_bytes() == data
        assert kept > 0 and server.asked[-1][1] == f"bytes={kept}-"


# Read-only, and somebody else's


@pytest.mark.fault(
    "run, leaderboard --out, report, figures, score: the output lies on a read-only disk",
    "one sentence (2) of each; writable again, run goes on",
)
def test_an_output_that_cannot_be_written(
    runs: Runs, whole: Path, small: Disk, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = small.path / "out"
    shutil.copytree(whole, out)
    (out / "records" / "sft-s0.json").unlink()
    clips = tmp_path / "clips"
    clips.mkdir()
    write(clips / "a.mp4", textured(12))
    monkeypatch.delenv("HALIGN_ASSETS", raising=False)
    small.mode("ro")
    code, _, progress = runs(out, *METHODS)
    assert code == 2 and "Read-only file system" in complaint(progress)
    for words in (
        ("leaderboard", out, "--out", out / "table.md"), ("report", out, "--out", small.path / "report"),
        ("figures", out, "--out", small.path / "figures"),
        ("score", clips, "--reference", clips, "--out", small.path / "scores"),
    ):  # fmt: skip
        assert main([str(word) for word in words]) == 2, words
        assert "Read-only file system" in complaint(capsys.readouterr().err)
    assert main(["leaderboard", str(out)]) == 0  # reading needs no leave to write
    small.mode("rw")
    assert runs(out, *METHODS)[0] == 0
    assert_same(out, whole)


@pytest.mark.fault("run: the cache is read-only and has the preferences", "they are used")
def test_a_read_only_cache_that_has_what_is_needed(runs: Runs, whole: Path, small: Disk, tmp_path: Path) -> None:
    cache = small.path / "cache"
    shutil.copytree(runs.folder / "cache", cache)
    small.mode("ro")
    code, _, progress = runs(tmp_path / "out", *METHODS, HALIGN_CACHE=str(cache))
    assert code == 0, progress
    assert_same(tmp_path / "out", whole)


@pytest.mark.fault("run: the cache, or the output, belongs to another user", "one sentence (2) that names it")
@pytest.mark.parametrize("foreign", ["cache", "out"])
def test_a_folder_of_another_user(runs: Runs, whole: Path, foreign: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may become another user")
    for place in (Path(halign_bench.__file__), Path(sys.prefix) / "x"):
        if closed := [folder for folder in place.resolve().parents if not folder.stat().st_mode & stat.S_IXOTH]:
            pytest.skip(f"another user cannot reach what is installed in {closed[0]}")
    with tempfile.TemporaryDirectory() as name:  # where another user may go, unlike pytest's folders
        top = Path(name)
        top.chmod(0o755)
        for part in ("cache", "out"):
            (top / part).mkdir()
            if part != foreign:
                os.chown(top / part, NOBODY, NOBODY)
        code, _, progress = runs(
            top / "out", *METHODS, HALIGN_CACHE=str(top / "cache"), USER_ID=str(NOBODY), HOME=str(top)
        )
        assert code == 2, progress
        sentence = complaint(progress)
        assert "Permission denied" in sentence and str(top / foreign) in sentence


# Memory


@pytest.mark.fault(
    "run: a method asks for more memory than there is",
    "a failed record that says so; the other cells are done; the same command tries it again",
)
def test_a_cell_without_enough_memory(runs: Runs, whole: Path, tmp_path: Path) -> None:
    words = ("--methods", "hungry,diffusion-dpo")
    code, _, progress = runs(tmp_path, *words)
    assert code == 1 and "Traceback" not in progress
    record = read_record(tmp_path / "records" / "hungry-s0.json")
    assert record.status == "failed" and record.error is not None
    assert record.error.startswith("not enough memory (") and "allocate" in record.error and "\n" not in record.error
    assert_same(tmp_path, whole)
    assert runs(tmp_path, *words, HUNGRY="no")[0] == 0


@pytest.mark.fault(
    "run: memory is limited (ulimit -v), by more and less",
    "a sentence or a failed record that says so; with more the same command ends like an undisturbed run",
)
def test_memory_that_is_limited(runs: Runs, whole: Path, tmp_path: Path) -> None:
    out, cache, codes = tmp_path / "out", tmp_path / "cache", []
    for mib in (1, 8, 24, 28, 48, 64, 160):
        code, _, progress = runs(out, *METHODS, HALIGN_CACHE=str(cache), ROOM_MIB=str(mib))
        codes.append(code)
        assert code in (0, 1, 2) and "Traceback" not in progress, (mib, code, progress)
        if code:
            assert "not enough memory" in progress, (mib, progress)
    assert codes[0] != 0
    code, _, progress = runs(out, *METHODS, HALIGN_CACHE=str(cache))
    assert code == 0, progress
    assert_same(out, whole)
