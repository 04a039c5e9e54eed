"""Damaged inputs in small numbers, through the program that tries many: see benchmarks/fuzz.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parent.parent / "benchmarks" / "fuzz.py"


def fuzz(*words: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, words)], capture_output=True, text=True, timeout=900, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("target", "cases"), [
    ("grammar", 300), ("records", 100), ("table", 100), ("preferences", 150), ("manifest", 200), ("trusted", 200),
    ("weights", 150), ("video", 120), ("sound", 150),
])  # fmt: skip
@pytest.mark.fault(
    "fuzzing: options, records, tables, preference files, manifests and archives, trust lists, weights, videos and "
    "sounds, damaged at random",
    "each is taken, or refused in one sentence: no other exception, no crash, no time-out, nothing written elsewhere",
)
def test_damaged_input_is_taken_or_refused_in_a_sentence(tmp_path, target, cases):
    code, said, told = fuzz(target, "--cases", cases, "--seed", 7, "--findings", tmp_path / "findings")
    assert code == 0, said + told
    counts = dict(zip(said.splitlines()[0].split(), said.splitlines()[1].split(), strict=False))
    assert counts["target"] == target and int(counts["cases"]) == cases and counts["findings"] == "0"
    assert int(counts["accepted"]) + int(counts["refused"]) == cases and not (tmp_path / "findings").exists()


@pytest.mark.parametrize("target", ["grammar", "records", "preferences", "manifest"])
@pytest.mark.fault(
    "fuzzing led by coverage: options, records, preference files and manifests as text",
    "each is taken, or refused in printable sentences",
)
def test_inputs_led_by_coverage_are_taken_or_refused(tmp_path: Path, target: str) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed")
    program = PROGRAM.with_name("fuzz_guided.py")
    done = subprocess.run(
        [sys.executable, str(program), target, "--cases", "3000"], cwd=tmp_path, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 and "Done 3000 runs" in done.stderr, done.stderr[-2000:]


TRAP = """
import sys
sys.path.insert(0, {benchmarks!r})
import fuzzing.options as options
def run(self, folder):
    import os, time
    which = (folder / "options.json").stat().st_size % 5
    if which == 0:
        raise KeyError("a bug")
    if which == 1:
        os.kill(os.getpid(), 11)
    if which == 2:
        time.sleep(60)
    if which == 3:
        open({elsewhere!r}, "w")
    from halign_bench.errors import RequestError
    raise RequestError("fine")
options.Options.run = run
"""


def test_what_must_not_happen_is_found_and_kept(tmp_path):
    """The same program on a part that has bugs: exceptions, a signal, a time-out, a file elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "sitecustomize.py").write_text(TRAP.format(benchmarks=str(PROGRAM.parent), elsewhere=str(elsewhere)))
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "grammar", "--cases", "12", "--seconds-per-case", "3", "--findings",
         str(tmp_path / "findings")], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = [json.loads(path.read_text())["finding"] for path in (tmp_path / "findings").glob("*/finding.json")]
    for word in ("KeyError", "a signal", "not done after 3 s", "open outside of its folder"):
        assert any(word in text for text in found), (word, found)
    assert not elsewhere.exists()
    assert all((path / "options.json").exists() for path in (tmp_path / "findings").iterdir())
