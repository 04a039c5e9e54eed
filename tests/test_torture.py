"""benchmarks/torture.py with few kills: it hits, it compares, and it notices what is not as it should be."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parent.parent / "benchmarks" / "torture.py"


@pytest.fixture(scope="module")
def torture() -> Any:
    spec = importlib.util.spec_from_file_location("torture", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = sys.modules["torture"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fine(torture: Any, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    code = torture.main([*words, "--json"])
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert code == 0 and found["fine"] and found["differences"] == [], err
    assert found["kills"] == sum(sum(outcomes.values()) for outcomes in found["by_phase"].values()) > 0
    assert all(set(outcomes) == {"whole"} for outcomes in found["by_phase"].values())


@pytest.mark.fault(
    "assets fetch: the process group is killed at random moments of every phase",
    "files under their names are always whole; the same command ends like an undisturbed one",
)
def test_fetch(torture: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fine(torture, capsys, "fetch", "--kills", "4", "--seed", "1")


@pytest.mark.slow
@pytest.mark.fault(
    "score: the process group is killed at random moments of every phase",
    "files under their names are always whole; scores equal those of an undisturbed run, nothing half is left",
)
def test_score(torture: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fine(torture, capsys, "score", "--kills", "8", "--seed", "1")


@pytest.mark.slow
@pytest.mark.fault(
    "pretrain: the process group is killed at random moments of every phase",
    "files under their names are always whole; the weights equal those of an undisturbed run, bit for bit",
)
def test_pretrain(torture: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fine(torture, capsys, "pretrain", "--kills", "5", "--seed", "1")


@pytest.mark.slow
@pytest.mark.fault(
    "run: the process group is killed at random moments of every phase (smoke profile, embedded track)",
    "no record is ever torn; records and adapters equal those of an undisturbed run, nothing half is left",
)
def test_run(torture: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fine(torture, capsys, "run", "--kills", "6", "--seed", "1")


FORGETFUL = """
import random, sys, time
from pathlib import Path
out = Path(sys.argv[1])
out.mkdir(exist_ok=True)
begun = out / "begun"
print("work ...", file=sys.stderr, flush=True)
if begun.exists():
    (out / ".late.tmp").touch()  # what a worse program would leave
begun.touch()
time.sleep(0.5)
(out / "result").write_text("again" if (out / ".late.tmp").exists() else "once")
"""


def test_a_program_that_does_not_resume_is_found_out(torture: Any, tmp_path: Path) -> None:
    trial = torture.Trial(
        "forgetful", lambda out: [sys.executable, "-c", FORGETFUL, str(out)],
        lambda line: "work" if line.startswith("work") else None, lambda out: None,
        lambda out: {"result": (out / "result").read_text()},
    )  # fmt: skip
    report = torture.torment(trial, 3, 0, tmp_path, lambda text: None)
    assert len(report.kills) == 3 and not report.fine
    assert any("result differs" in problem for problem in report.differences)
    assert any(".late.tmp is left" in problem for problem in report.differences)
    assert "work" in report.table()
