"""A thousand cells and a hundred thousand clips: planning and resuming do each thing once, and hold little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("many_cells.py")


def measured(*arguments: str) -> dict:
    done = subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_thousand_cells_are_planned_and_resumed_without_doing_anything_twice() -> None:
    few, many = measured("resume", "40"), measured("resume", "1000")
    assert (few["cells"], many["cells"]) == (40, 1000)
    # Twenty-five times the cells need no more looks at what is installed.
    assert many["plan"]["entry points"] == few["plan"]["entry points"]
    for found in (few, many):
        assert found["done"]["left"] == 0 and found["half"]["left"] == found["cells"] // 2
        assert found["done"]["records"] == found["cells"] and found["half"]["records"] == found["cells"] // 2
        for part in ("plan", "done", "half"):
            assert found[part]["clips"] == found[part]["samples"] == 0
        # Scores of single clips are the tables' matter: these files are read once each for their checksums alone.
        assert "companions" not in found["plan"]
        assert [found[part]["companions"] for part in ("done", "half")] == [2 * found["cells"], found["cells"]]
        assert "entry points" not in found["done"] and "entry points" not in found["half"]


def test_a_plan_of_twenty_methods_over_a_hundred_thousand_clips_fits_in_a_gigabyte() -> None:
    few, found = measured("clips", "100"), measured("clips", "100000")
    assert (found["clips"], found["cells"]) == (100_000, 20)
    assert found["took"]["clips"] == 100_000, "each clip is made once to know its name"
    assert found["took"]["samples"] == 0
    # 0.3 GB of 6 GB of clips. The libraries alone hold 0.5 GB, those with torch for CUDA 1 GB.
    assert found["peak_bytes"] - few["peak_bytes"] < 5 * 10**8
