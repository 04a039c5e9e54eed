"""A run whose folder is a URL: what is there is what a folder would hold, killed at any moment and gone on with."""

from __future__ import annotations

import importlib.util
import json
import signal
from pathlib import Path

import pytest
from runs import METHODS, Runs

from halign_bench.companions import read_clips, read_replicates
from halign_bench.record import parse_key
from halign_bench.results import read_record

CELLS = ("base-s0", "diffusion-dpo-s0", "sft-s0")


def numbers(out: Path, cell: str) -> dict:
    record = read_record(out / "records" / f"{cell}.json")
    assert record.status == "done", record.error
    scores = {key: s.model_dump() for key, s in record.metrics.items() if parse_key(key).name != "seconds_per_second"}
    return {"metrics": scores, "clips": read_clips(record), "replicates": read_replicates(record)}


def files(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != ".lock"}


@pytest.mark.fault(
    "run --out URL: killed between its uploads",
    "the same command goes on; the store holds what a folder holds",
)
def test_killed_between_its_uploads_it_goes_on_and_holds_what_a_folder_holds(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bucket" / "run"
    url = out.as_uri()
    # run.json, four files of the base, and some of the five of sft before its record.
    (scratch := tmp_path / "scratch").mkdir()
    code, _, said = runs(url, *METHODS, KILL_UPLOAD="8", TMPDIR=str(scratch))
    assert code == -signal.SIGKILL, said
    assert [file.name for file in (out / "records").glob("*.json")] == ["base-s0.json"]
    first = read_record(out / "records" / "base-s0.json")
    assert read_clips(first) and read_replicates(first)
    assert len(list(scratch.glob("halign-run-*"))) == 1
    code, _, said = runs(url, *METHODS, TMPDIR=str(scratch))
    assert code == 0, said
    assert not list(scratch.glob("halign-run-*")), "what the killed process left is not swept up"
    assert "1 of 3 cells are done already" in said
    for cell in CELLS:
        assert numbers(out, cell) == numbers(whole, cell)
    assert read_record(out / "records" / "base-s0.json").finished == first.finished
    assert set(files(whole)) <= set(files(out)) | {f"cells/{p.name}" for p in (whole / "cells").iterdir()}
    assert json.loads((out / "leaderboard.json").read_text())["rows"]
    before = files(out)
    code, _, said = runs(url, *METHODS)
    assert code == 0 and "3 of 3 cells are done already" in said
    assert files(out) == before


@pytest.mark.fault("run --out URL: a store that cannot be reached or used", "one sentence (2)")
@pytest.mark.parametrize(
    ("url", "options", "sentence"),
    [
        ("nowhere://bucket/run", (), "--out nowhere://bucket/run: Protocol not known: nowhere"),
        ("gs://bucket/run", (), "gcsfs"),
        ("file:///proc/none/run", (), "--out file:///proc/none/run: "),
        ("file:///proc/none/run", ("--fresh",), "is not cleared from here"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_sentence(
    runs: Runs, url: str, options: tuple[str, ...], sentence: str
) -> None:
    if "gs:" in url and importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed here")
    code, _, said = runs(url, *METHODS, *options)
    assert code == 2 and sentence in said and "Traceback" not in said and said.count("\n") == 1
