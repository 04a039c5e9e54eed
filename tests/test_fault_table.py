"""The table of faults says what became of the tests, and nothing that did not happen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
CASES = '''
import pytest

@pytest.mark.fault("b: pulled | out", "holds")
def test_holds(): pass

@pytest.mark.fault("a: bent", "straight again")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_bends(n): assert n != 2

@pytest.mark.fault("c: drowned", "swims")
def test_swims(): pytest.skip("no water here")

@pytest.mark.parametrize("n", [
    pytest.param(1, marks=pytest.mark.fault("e: one", "is one")),
    pytest.param(2, marks=pytest.mark.fault("f: two", "is two")),
])
def test_apart(n): pass

def test_unmarked(): pass
'''


def made(folder: Path, cases: str) -> tuple[int, str, str]:
    (folder / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = fault: a fault\n")
    (folder / "test_cases.py").write_text(cases)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--faults-table", "table.md", "."]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    table = folder / "table.md"
    return done.returncode, table.read_text() if table.exists() else "", done.stdout + done.stderr


def test_each_fault_is_a_row_with_the_worst_of_its_outcomes_and_the_test(tmp_path):
    code, text, said = made(tmp_path, CASES)
    assert code == 1, said
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| a: bent", "| b: pulled \\| out", "| c: drowned", "| e: one", "| f: two"
    ]  # fmt: skip
    assert "| a: bent | straight again | failed (1 of 3 cases) | [test_bends](../tests/test_cases.py) |" in rows
    assert "| c: drowned | swims | skipped: no water here | [test_swims](../tests/test_cases.py) |" in rows
    assert "| e: one | is one | passed | [test_apart](../tests/test_cases.py) |" in rows
    assert "5 faults: 3 passed, 1 skipped, 1 failed." in text


def test_a_mark_of_another_form_is_refused(tmp_path):
    code, text, said = made(tmp_path, 'import pytest\n@pytest.mark.fault("only one")\ndef test_x(): pass\n')
    assert code == 4 and text == "" and "fault('what was done', 'what must come of it')" in said
