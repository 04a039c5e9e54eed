"""The same command gives the same records: byte for byte on one machine, within tolerances with more threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import TESTS

from halign_bench.companions import read_clips
from halign_bench.record import parse_key
from halign_bench.results import read_record

OF_TIME = ("timings", "started", "finished")
TINY = ("--track", "tiny-scored", "--backbone", "tiny-dit", "--profile", "tiny")
# Of a value of the size of 1: what another order of additions has been seen to make of a smoke run, and ten times that.
THREADS = {"loss": 1e-4, "score": 1e-3}


def command(out: Path, *options: str, program: tuple[str, ...], threads: int = 1) -> None:
    done = subprocess.run(
        [sys.executable, *program, "run", "--out", str(out), "--device", "cpu", *options],
        env=os.environ | {"HALIGN_CACHE": str(out.parent / "cache"), "OMP_NUM_THREADS": str(threads)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def tiny(out: Path, *options: str) -> Path:
    command(out, *TINY, *options, program=(str(TESTS / "run_tiny.py"),))
    return out


def smoke(out: Path, *options: str, threads: int) -> Path:
    command(out, "--profile", "smoke", *options, program=("-m", "halign_bench"), threads=threads)
    return out


def without_time(value: Any) -> Any:
    """A record but for its times: seconds, when it was made, and how much memory was seen."""
    if isinstance(value, list):
        return [without_time(item) for item in value]
    if not isinstance(value, dict):
        return value
    left = {key: item for key, item in value.items() if key not in (*OF_TIME, "peak_memory_bytes")}
    return {key: without_time(item) for key, item in left.items() if not key.startswith("seconds_per_second")}


def files(out: Path) -> dict[str, Any]:
    """What a run leaves that others read, but for times."""
    found: dict[str, Any] = {}
    for path in sorted((out / "records").glob("*.json")):
        document = json.loads(path.read_text())
        del document["sha256"]  # of its own text, times and all
        found[path.name] = without_time(document)
    for path in sorted([*(out / "records").glob("*.parquet"), *out.glob("cells/**/adapters/*/*")]):
        found[str(path.relative_to(out))] = path.read_bytes()
    for path in sorted(out.glob("cells/**/train.jsonl")):
        found[str(path.relative_to(out))] = path.read_text()
    return found


def test_the_same_command_gives_the_same_bytes_but_for_times(tmp_path: Path) -> None:
    """Each in a process and with a cache of its own."""
    methods = ("--methods", "tpo,ipa,tmm", "--seeds", "2")
    once, again = (files(tiny(tmp_path / name / "out", *methods)) for name in ("once", "again"))
    assert list(once) == list(again) and sum(name.endswith(".json") and "/" not in name for name in once) == 10
    for name in once:
        assert once[name] == again[name], name


def losses(out: Path) -> np.ndarray:
    """Of every step of every training, in order of their files."""
    logs = sorted(out.glob("cells/**/train.jsonl"))
    return np.array([json.loads(line)["loss"] for log in logs for line in log.read_text().splitlines()])


@pytest.mark.slow
def test_with_two_threads_as_with_one_within_tolerances(tmp_path: Path) -> None:
    one, two = (
        smoke(tmp_path / f"threads{n}" / "out", "--methods", "diffusion-dpo", threads=n) for n in (1, 2)
    )
    far = np.abs(losses(one) - losses(two)) / np.maximum(np.abs(losses(one)), 1)
    print(f"losses differ by {far.max():.2g} at most")
    assert far.max() <= THREADS["loss"]
    worst = ("", 0.0)
    for path in sorted((one / "records").glob("*.json")):
        mine, other = read_record(path), read_record(two / "records" / path.name)
        assert mine.protocol_hash == other.protocol_hash and mine.metrics.keys() == other.metrics.keys()
        for key, score in mine.metrics.items():
            its = other.metrics[key]
            if score.value is None or its.value is None:
                assert score.value is its.value and score.reason == its.reason
            elif parse_key(key).name != "seconds_per_second":
                apart = abs(score.value - its.value) / max(abs(score.value), 1)
                worst = max(worst, (f"{path.stem} {key}", apart), key=lambda pair: pair[1])
        assert read_clips(mine).keys() == read_clips(other).keys()
    print(f"scores differ by {worst[1]:.2g} at most ({worst[0]})")
    assert worst[1] <= THREADS["score"], worst[0]
