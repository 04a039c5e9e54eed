"""The process that runs cases: makes the seeds of a target once, changes one for each case, and says what happened."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import sys
import tempfile
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from fuzzing.guarding import Guard, bounded
from halign_bench import registry

Input = dict[str, bytes]  # file name below the case's folder -> content
MODULES = {
    "grammar": "options", "records": "tables", "table": "tables", "preferences": "labels", "manifest": "assets",
    "trusted": "assets", "weights": "checkpoints", "video": "media", "sound": "media",
}  # fmt: skip
NAMES = tuple(MODULES)


class Target(Protocol):
    """A part of the harness that reads what others made.

    seeds   whole inputs, made in `scratch`; `clips` is a folder of real ones where there is one
    change  one of them, damaged; the same for the same generator
    run     hands it to the harness: returns, or raises a HalignError
    """

    def seeds(self, scratch: Path, clips: Path | None) -> list[Input]: ...

    def change(self, seeds: list[Input], rng: random.Random) -> Input: ...

    def run(self, folder: Path) -> None: ...


def serve(line: Connection, scratch: Path, clips: Path | None, seed: int) -> None:
    """Answers (target, case, folder to run instead or None) with an Outcome's fields until nobody asks any more."""
    sys.dont_write_bytecode = True
    bounded()
    case = scratch / "case"
    os.environ |= {"HALIGN_CACHE": str(case / "cache"), "HALIGN_ASSETS": str(case / "assets")}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tempfile.tempdir = str(case)
    case.mkdir(exist_ok=True)
    registry.entry_points = cache(registry.entry_points)  # other packages stay the same while this runs
    targets: dict[str, tuple[Any, list[Input]]] = {}
    guard = Guard()
    while True:
        try:
            name, index, replay = line.recv()
        except EOFError:
            return
        if name not in targets:
            made = scratch / f"seeds-{name}"
            made.mkdir(exist_ok=True)
            target: Target = importlib.import_module(f"fuzzing.{MODULES[name]}").TARGETS[name]()
            targets[name] = target, target.seeds(made, clips)
        target, seeds = targets[name]
        if index is None:
            line.send(("accepted", f"{len(seeds)} seeds", 0.0))
            continue
        shutil.rmtree(case, ignore_errors=True)
        if replay is not None:
            shutil.copytree(replay, case, symlinks=True)
        else:
            for file, content in target.change(seeds, random.Random(f"{seed}/{name}/{index}")).items():
                path = case / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        case.mkdir(exist_ok=True)
        found = guard.run(lambda target=target: target.run(case), case)
        line.send((found.kind, found.text, found.megabytes))
