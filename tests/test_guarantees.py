"""What the documents promise names tests that there are, and errors are one line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from halign_bench.cli import main
from halign_bench.errors import RequestError

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("document", ["docs/guarantees.md", "SECURITY.md"])
def test_every_named_test_exists_and_every_promise_names_one(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = NAMED.findall(text)
    assert len(named) > 10
    missing = [f"{file}::{name}" for file, name in named if name not in functions(TESTS / file)]
    assert not missing
    for promise in re.findall(r"^- \*\*.*?(?=^- |^\n|^#|\Z)", text, re.MULTILINE | re.DOTALL):
        assert NAMED.search(promise), promise


def test_rows_of_the_table_of_faults_are_of_tests_that_there_are() -> None:
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| (passed|failed|skipped)[^|]*\| \[(test_\w+)\]\(\.\./tests/(test_\w+\.py)\) \|$", text, re.M)
    assert len(rows) > 30 and len(rows) == sum(line.startswith("| ") for line in text.splitlines()) - 1
    for outcome, name, file in rows:
        assert name in functions(TESTS / file), name
        assert outcome != "failed", name


@pytest.mark.fault("any command: what an error quotes has line ends and codes for the terminal in it", "one line")
def test_a_complaint_is_one_line_whatever_it_quotes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("two\nlines", "clear\x1b[2Jed", "back\rover", "odd\u2028break"):
        assert main(["leaderboard", str(tmp_path / name)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and said.rstrip("\n").isprintable() and "Traceback" not in said
    assert "\n" not in str(RequestError("not valid:\n  line 3\r\n"))
