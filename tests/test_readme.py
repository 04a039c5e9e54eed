"""What the README says works: its method, word for word, keeps the contract and trains."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture
def site(tmp_path):
    """The README's method as somebody's installed package."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 40
    (tmp_path / "hinge.py").write_text(code)
    info = tmp_path / "hinge-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hinge\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[halign_bench.methods]\nhinge = hinge:Hinge\n")
    return tmp_path


def test_the_method_of_the_readme_conforms(site):
    command = [sys.executable, "-m", "halign_bench", "conformance", "hinge", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(site)})
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "passed" in json.dumps(json.loads(answer.stdout))


def test_the_commands_of_the_readme_are_those_of_ci():
    text = README.read_text()
    assert "python -m pip install tox && tox\n" in text
    script = README.parent / ".ci" / "run"
    assert "python -m pip install tox && tox\n" in script.read_text()
