"""Cells one after another in one process leave nothing behind in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parent.parent / "benchmarks" / "long_run.py"


@pytest.mark.slow
def test_cells_leave_no_memory_files_threads_or_temporary_space(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--cells", "30", "--out", str(tmp_path / "grown")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    slopes = found["slopes"]
    assert found["cells"] == 30 and {path.suffix for path in tmp_path.iterdir()} == {".csv", ".png"}
    for name in ("files", "threads", "temporary"):
        assert slopes[name]["low"] == slopes[name]["high"] == 0, name
    # A thousand such cells would not be 200 MB; one LoRA that stayed behind would be 0.6 MB a cell.
    assert slopes["resident"]["high"] < 0.2
