"""A thousand cells planned and resumed, a run over a hundred thousand clips: `pytest benchmarks/bench_plan.py`.

Measured on one core of a Xeon, the other one busy: 1,000 cells (20 methods, 50 seeds) are planned in 0.05 s and, when
all are done, found to be so in 0.4 s, each record read once; with 1,000 methods the plan takes 0.1 s. A run of 20
methods over 100,000 clips of 61 kB is open after 9 s and has then held 0.79 GB, torch and diffusers included. What the
tables of 1,000 cells take, 14 s, goes into comparing 20 methods pair by pair over 50 seeds, and is not in this.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parent.parent / "tests" / "many_cells.py"


def measured(what: str, count: int) -> dict:
    command = [sys.executable, str(PROGRAM), what, str(count)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("cells", [100, 1000])
def test_cells_are_planned_and_resumed(benchmark, cells):
    found = benchmark.pedantic(measured, ("resume", cells), rounds=1)
    benchmark.extra_info |= found
    assert found["plan"]["seconds"] + found["done"]["seconds"] < 5


@pytest.mark.parametrize("clips", [1_000, 100_000])
def test_a_run_over_many_clips_is_opened(benchmark, clips):
    found = benchmark.pedantic(measured, ("clips", clips), rounds=1)
    benchmark.extra_info |= found
    assert found["peak_bytes"] < 10**9
