"""Commands at work at the same time, in processes of their own: a lock that says so, or what each would give alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from media_files import textured, write
from runs import METHODS, Runs
from test_runner import assert_same

from halign_bench.atomic import atomic_write
from halign_bench.results import read_records


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(16):
        write(folder / f"{number}.mp4", textured(40, 96, 96, seed=number))
    return folder


def until(happened: Callable[[], object], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def scores(out: Path) -> tuple[dict, bytes]:
    return json.loads((out / "score.json").read_text())["metrics"], (out / "clips.parquet").read_bytes()


@pytest.mark.fault("run: two share an empty cache", "both end as each would alone; nothing half is left in the cache")
def test_two_runs_on_one_cache(runs: Runs, whole: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    both = [runs.start(tmp_path / name, *METHODS, HALIGN_CACHE=cache) for name in ("one", "two")]
    for process in both:
        code, _, progress = runs.finish(process)
        assert code == 0, progress
    for name in ("one", "two"):
        assert_same(tmp_path / name, whole)
        assert not list((tmp_path / name).rglob(".*.tmp"))
    assert list(Path(cache).rglob("*.safetensors")) and not list(Path(cache).rglob(".*.tmp"))


@pytest.mark.fault("score: two on one output", "the second says so (2) and leaves it alone; the lock ends with a kill")
def test_two_scores_on_one_output(runs: Runs, clips: Path, tmp_path: Path) -> None:
    words = ("score", str(clips), "--reference", str(clips), "--out", str(tmp_path / "out"))
    environment = {"HALIGN_CACHE": str(tmp_path / "cache"), "HALIGN_ASSETS": str(tmp_path / "none")}
    first = runs.command(*words, **environment)
    until(lambda: list((tmp_path / "cache").rglob("*.json")))
    code, said, complaint = runs.finish(runs.command(*words, **environment))
    assert code == 2 and said == ""
    assert complaint.count("\n") == 1 and "another score is working there" in complaint, complaint
    first.kill()
    first.join()
    code, _, progress = runs.finish(runs.command(*words, **environment))
    assert code == 0, progress
    assert not list(tmp_path.rglob(".*.tmp"))
    alone = {**environment, "HALIGN_CACHE": str(tmp_path / "another")}
    assert runs.finish(runs.command(*words[:-1], str(tmp_path / "alone"), **alone))[0] == 0
    assert scores(tmp_path / "out") == scores(tmp_path / "alone")


@pytest.mark.fault(
    "score: two on one cache, with outputs of their own, while run works on it too", "all end as each would alone"
)
def test_scores_and_a_run_on_one_cache(runs: Runs, whole: Path, clips: Path, tmp_path: Path) -> None:
    environment = {"HALIGN_CACHE": str(tmp_path / "cache"), "HALIGN_ASSETS": str(tmp_path / "none")}
    words = ("score", str(clips), "--reference", str(clips), "--out")
    at_work = [runs.command(*words, str(tmp_path / name), **environment) for name in ("one", "two")]
    at_work.append(runs.start(tmp_path / "run", *METHODS, **environment))
    for process in at_work:
        code, _, progress = runs.finish(process)
        assert code == 0, progress
    assert scores(tmp_path / "one") == scores(tmp_path / "two")
    assert_same(tmp_path / "run", whole)
    assert not list(tmp_path.rglob(".*.tmp"))


@pytest.mark.fault(
    "leaderboard, report, figures: the run writes meanwhile", "what is finished is shown, whole; nothing is disturbed"
)
def test_tables_of_a_run_at_work(runs: Runs, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = runs.start(out, *METHODS, HALIGN_CACHE=str(tmp_path / "cache"))
    until(lambda: list((out / "records").glob("*.json")))
    looked = 0
    while process.is_alive() or not looked:
        for words in (
            ("leaderboard", out, "--format", "json"), ("report", out, "--out", tmp_path / "report", "--clips", "0"),
            ("figures", out, "--out", tmp_path / "figures"),
        ):  # fmt: skip
            code, _, complaint = runs.finish(runs.command(*map(str, words)))
            assert code == 0, complaint
            assert f"{out / 'records'}" not in complaint  # none was refused
            looked += 1
        records, refused = read_records([out])
        assert records and not refused
    code, _, progress = runs.finish(process)
    assert code == 0, progress
    assert_same(out, whole)


@pytest.mark.fault("pretrain: two on one folder", "the second says so (2)")
def test_two_pretrainings_on_one_folder(runs: Runs, tmp_path: Path) -> None:
    words = ("pretrain", "--out", str(tmp_path / "base"), "--stage", "codec")
    first = runs.command(*words)
    until(lambda: (tmp_path / "base" / "work" / "recipe.json").exists())
    code, _, complaint = runs.finish(runs.command(*words))
    assert code == 2 and complaint.count("\n") == 1 and "another pretraining is at work there" in complaint
    first.kill()
    first.join()


WRITER = """
import sys
from pathlib import Path
from halign_bench.atomic import atomic_path
name, letter = Path(sys.argv[1]), sys.argv[2]
for _ in range(150):
    with atomic_path(name) as temporary:
        temporary.write_text(letter * 200_000)
"""


@pytest.mark.fault("files: four processes write the same one again and again", "it is always whole, and of one of them")
def test_many_writers_of_one_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    atomic_write(file, "0" * 200_000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), letter]) for letter in "abcd"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        text = file.read_text()
        assert len(text) == 200_000 and len(set(text)) == 1
        seen.add(text[0])
    assert [writer.returncode for writer in writers] == [0] * 4 and len(seen) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.fault(
    "files: a link or another user's file lies where a temporary file would", "neither is written to; the file is"
)
def test_a_trap_at_the_place_of_the_temporary_file(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".soft.tmp").symlink_to(victim)
    (tmp_path / ".hard.tmp").hardlink_to(victim)
    for name in ("soft", "hard"):
        atomic_write(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new" and not (tmp_path / name).is_symlink()
    assert victim.read_text() == "precious"
