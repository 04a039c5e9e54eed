"""Hundreds of cells in one process: does it grow? Memory, open files, threads and temporary space after each cell.

    python benchmarks/long_run.py --cells 200 --out long_run

Writes `long_run.csv`, one row a cell, and `long_run.png`. Prints for each quantity its slope per cell, with a 95 %
interval, over the cells after the first tenth, which fill what is filled once. The slope is the median of those between
all pairs of cells (Theil and Sen), which a single peak does not move.

A cell is a real one, of the embedded track and base: `sft` with one seed after another, trained, sampled, scored and
recorded, only with little of each.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import ctypes
import gc
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from halign_bench import protocol

BRIEF = protocol.PROFILES["smoke"].model_copy(
    update={
        "name": "brief", "prompts": 4, "samples": 16, "batch_size": 8, "eval_clips": 4, "nfe": (2,), "replicates": 50,
        "preference_nfe": 2,
    }
)
QUANTITIES = {"resident": "MB", "files": "open files", "threads": "threads", "temporary": "MB of temporary files"}


def now(temporary: Path) -> dict[str, float]:
    """What this process holds, once what is waiting to be collected is gone and free memory is given back."""
    import psutil

    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps what was freed, now more and now less of it
        ctypes.CDLL(None).malloc_trim(0)
    process = psutil.Process()
    return {
        "resident": process.memory_info().rss / 1e6,
        "files": process.num_fds(),
        "threads": threading.active_count(),
        "temporary": sum(file.stat().st_size for file in temporary.rglob("*") if file.is_file()) / 1e6,
    }


def measured(cells: int, folder: Path) -> list[dict[str, float]]:
    """One row a cell, of a run of so many cells in this process."""
    from halign_bench import runner
    from halign_bench.plan import RunRequest

    (temporary := folder / "tmp").mkdir()
    tempfile.tempdir = str(temporary)
    os.environ["HALIGN_CACHE"] = str(folder / "cache")
    protocol.PROFILES["brief"] = BRIEF  # type: ignore[index]
    rows: list[dict[str, float]] = []

    class Watched(runner.Run):
        def do(self, task: Any) -> bool:
            ended_well = super().do(task)
            rows.append({"cell": len(rows) + 1, **now(temporary)})
            return ended_well

    runner.Run = Watched  # type: ignore[misc]
    seeds = tuple(range(-(-cells // 2)))  # base and sft
    with contextlib.redirect_stdout(sys.stderr):
        failed = runner.run(RunRequest(["sft"], profile="brief", seeds=seeds, out=folder / "out"))
    if failed:
        raise SystemExit("a cell failed")
    return rows


def slopes(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Growth of each quantity per cell, with its 95 % interval."""
    from scipy.stats import theilslopes

    settled = rows[len(rows) // 10 :]
    found = {}
    for name in QUANTITIES:
        slope, _, low, high = theilslopes([row[name] for row in settled], [row["cell"] for row in settled], alpha=0.95)
        found[name] = {"per cell": float(slope), "low": float(low), "high": float(high), "last": settled[-1][name]}
    return found


def draw(rows: list[dict[str, float]], grown: dict[str, dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.9, 3.6), layout="constrained")
    for axis, (name, unit) in zip(figure.subplots(2, 2).ravel(), QUANTITIES.items(), strict=True):
        slope = grown[name]
        axis.plot([row["cell"] for row in rows], [row[name] for row in rows], color="black", linewidth=0.8)
        axis.set_title(f"{slope['per cell']:.2g} a cell [{slope['low']:.2g}, {slope['high']:.2g}]", fontsize=8)
        axis.set_xlabel("cells done", fontsize=8)
        axis.set_ylabel(unit, fontsize=8)
        axis.set_ylim(0, 1.2 * max(1, *(row[name] for row in rows)))
        axis.tick_params(labelsize=7)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--out", type=Path, help="path of the table and the picture, without their endings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(options.cells, Path(folder))
        grown = slopes(rows)
    if options.out is not None:
        with options.out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows({name: round(value, 3) for name, value in row.items()} for row in rows)
        draw(rows, grown, options.out.with_suffix(".png"))
    print(json.dumps({"cells": len(rows), "slopes": grown}))


if __name__ == "__main__":
    main()
