"""Plans of a thousand cells and of a hundred thousand clips, with what they took: a program for tests and benchmarks.

    python tests/many_cells.py resume 1000     plans so many cells, finds them done, then half of them; prints JSON
    python tests/many_cells.py clips 100000    opens a run of 20 methods over so many evaluation clips; prints JSON

Work is counted: files that are read, clips that are made, samples that pass the network. Seconds and the peak of the
memory are told beside it.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import run_tiny
from rich.console import Console
from tiny import LAYOUT, TinyBackbone

from halign_bench import protocol
from halign_bench.executors.work import Task
from halign_bench.folder import RunFolder
from halign_bench.plan import Plan, RunRequest, plan
from halign_bench.progress import Progress
from halign_bench.registry import register
from halign_bench.results import read_record, write_record
from halign_bench.runner import Run
from halign_bench.track import Clip

METHODS = 20  # with base and sft
SIDE = 64  # of the evaluation clips of the track `many`: 61 kB each
opened: Counter[str] = Counter()  # files, by kind


@register
class Many(run_tiny.ScoredTrack):
    """Like the tiny track, with as many evaluation clips as the profile asks for, of a size that tells in memory."""

    name = "many"
    made = 0

    def __init__(self, data: Path | None = None, frames: int = 5, size: tuple[int, int] = (16, 16)) -> None:
        super().__init__(data, frames, size)
        self.first = super().clip("eval", 0)
        self.counts = {"prompts": 12, "eval": 10**9}

    def clip(self, split: str, index: int) -> Clip:
        if split != "eval":
            return super().clip(split, index)
        type(self).made += 1
        video = np.full((5, SIDE, SIDE, 3), index % 256, np.uint8)
        return Clip(f"many/{index:06d}", f"person{index // 2}", video, self.first.reference, layout=LAYOUT)


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        path = os.fspath(arguments[0])
        if path.endswith("entry_points.txt"):
            opened["entry points"] += 1
        elif "/records/" in path:
            opened["records" if path.endswith(".json") else "companions"] += 1


def measured(act: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `act` gives, and what it took."""
    opened.clear()
    clips, forwards, started = Many.made, TinyBackbone.passed, time.perf_counter()
    found = act()
    seconds = time.perf_counter() - started
    counts = {"clips": Many.made - clips, "samples": TinyBackbone.passed - forwards}
    return found, {"seconds": round(seconds, 3), **counts, **opened}


def request(out: Path, cells: int, track: str) -> RunRequest:
    betas = ",".join(f"diffusion-dpo[beta={beta}]" for beta in range(1, METHODS - 1))
    seeds = range(cells // METHODS)
    return RunRequest([betas], track=track, backbone="tiny-dit", profile="tiny", seeds=tuple(seeds), out=out)


def finish_all(run: Run) -> None:
    """Does one cell and gives every other a copy of what that left."""
    first, *others = run.cells.values()
    assert run.do(Task(first.name, first.name))
    records = run.folder.path / "records"
    record = read_record(records / f"{first.name}.json")
    for cell in others:
        files = {kind: f"{cell.name}.{kind}.parquet" for kind in ("clips", "bootstrap")}
        for kind, name in files.items():
            os.link(records / record.files[kind], records / name)
        identity = record.cell.model_copy(update={"method": cell.variant.label, "seed": cell.seed})
        own = {"cell": identity, "cell_hash": cell.sha256(run.protocol_hash), "files": files}
        write_record(records / f"{cell.name}.json", record.model_copy(update=own))


def resume(cells: int, out: Path) -> dict[str, Any]:
    asked = request(out, cells, "tiny-scored")
    plan(request(out, METHODS, "tiny-scored"))  # imports are not the plan's
    found: tuple[Plan, dict] = measured(lambda: plan(asked))
    folder = RunFolder(out)
    with folder.locked():
        run = Run(asked, folder, Progress(Console(file=io.StringIO())))
        run.prepare()
        finish_all(run)
        nothing, done = measured(run.prepare)
        for cell in list(run.cells)[::2]:
            (out / "records" / f"{cell}.json").unlink()
        half, missing = measured(run.prepare)
    return {
        "cells": len(found[0].cells), "plan": found[1], "done": {"left": len(nothing), **done},
        "half": {"left": len(half), **missing},
    }  # fmt: skip


def clips(count: int, out: Path) -> dict[str, Any]:
    tiny = protocol.PROFILES["tiny"].model_copy(update={"eval_clips": count, "replicates": 1000})
    protocol.PROFILES["tiny"] = tiny  # type: ignore[index]
    folder = RunFolder(out)
    with folder.locked():
        asked = request(out, METHODS, "many")
        run, took = measured(lambda: Run(asked, folder, Progress(Console(file=io.StringIO()))))
        tasks = run.prepare()
    status = Path("/proc/self/status").read_text()  # not ru_maxrss, which begins with what the parent had
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return {"clips": len(run.evaluator.ids), "cells": len(tasks), "took": took, "peak_bytes": peak}


if __name__ == "__main__":
    sys.addaudithook(watch)
    what, count = {"resume": resume, "clips": clips}[sys.argv[1]], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HALIGN_CACHE"] = f"{temporary}/cache"
        print(json.dumps(what(count, Path(temporary, "out")), indent=2))
