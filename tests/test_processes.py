"""Several processes of one launch train together, and the run is the one that a single process gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from runs import TESTS, Runs, free_port

from halign_bench.results import read_record

METHODS = "tpo,tmm,flow-grpo,weighs"
OPTIONS = ("--methods", METHODS, "--set", "flow-grpo.prompts=4")
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
DIVIDES = hasattr(torch.cpu.Stream, "record_event")
divides = pytest.mark.skipif(not DIVIDES, reason="this torch divides weights on GPUs alone")
TINY = ("--track", "tiny-scored", "--backbone", "tiny-dit", "--profile", "tiny")


@pytest.fixture(scope="module")
def alone(runs: Runs) -> Path:
    code, _, said = runs(runs.folder / "alone", *OPTIONS)
    assert code == 0, said
    return runs.folder / "alone"


def both(runs: Runs, out: Path, *options: str, **environment: str) -> list[tuple[int, str, str]]:
    return [runs.finish(process) for process in runs.together(out, *options, **environment)]


def launch(*arguments: str, launcher: tuple[str, ...] = ("--multi_gpu",), **environment: str) -> subprocess.Popen:
    """`accelerate launch`; without a GPU its --multi_gpu starts processes on the CPU."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *launcher, "--num_processes", "2"]
    port = ("--main_process_port", free_port())  # which old ones do not find themselves
    return subprocess.Popen(
        [*command, *port, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, start_new_session=True,
    )  # fmt: skip


def losses(out: Path) -> dict[str, list[float]]:
    return {
        file.parent.name: [json.loads(line)["loss"] for line in file.read_text().splitlines()]
        for file in sorted(out.glob("cells/*/train/*/train.jsonl"))
    }


def same_curves(first: Path, second: Path, most: float = 1e-4) -> None:
    one, two = losses(first), losses(second)
    assert one and {name: len(curve) for name, curve in one.items()} == {n: len(curve) for n, curve in two.items()}
    for name, curve in one.items():
        assert curve == pytest.approx(two[name], abs=most), name


def scores(out: Path) -> dict[str, dict[str, Any]]:
    return {
        file.stem: {key: score for key, score in read_record(file).metrics.items() if "seconds_per_second" not in key}
        for file in sorted(out.glob("records/*.json"))
    }


def same_records(first: Path, second: Path) -> None:
    """All but times, the machine, and float noise in what is measured."""
    one, two = scores(first), scores(second)
    assert one.keys() == two.keys()
    for name, of_cell in one.items():
        assert of_cell.keys() == two[name].keys()
        for key, score in of_cell.items():
            value, other = score.value, two[name][key].value
            assert (value is None) == (other is None), (name, key)
            if value is not None:
                assert value == pytest.approx(other, rel=1e-3, abs=1e-5), (name, key)
    for file in first.glob("records/*.json"):
        records = read_record(file), read_record(second / "records" / file.name)
        hashes = {(record.protocol_hash, record.cell_hash, record.status) for record in records}
        counts = {tuple(record.training.model_dump(exclude={"peak_memory_bytes"}).values()) for record in records
                  if record.training is not None}  # fmt: skip
        assert len(hashes) == 1 and len(counts) == 1, file.name


def test_accelerate_launch_gives_the_run_of_one_process(runs: Runs, alone: Path) -> None:
    out = runs.folder / "two"
    command = [str(TESTS / "run_tiny.py"), "run", *TINY, *OPTIONS, "--out", str(out)]
    table, said = (process := launch(*command, HALIGN_CACHE=str(runs.folder / "cache2"))).communicate(timeout=300)
    assert process.returncode == 0, said
    same_curves(alone, out)
    same_records(alone, out)
    assert table.count("Claims of the papers") == 1 and said.count("sft seed 0: train: done") == 1
    hardware = read_record(out / "records" / "sft-s0.json").environment.hardware
    assert (hardware["processes"], hardware["weights_divided"]) == (2, False)
    files = sorted(path.name for path in (runs.folder / "cache2").glob("preferences/*/*"))
    assert files == ["00000.safetensors"]  # made once, by whoever's turn it was


@divides
def test_divided_weights_give_the_run_of_one_process(runs: Runs, alone: Path) -> None:
    out = runs.folder / "divided"
    (code, table, said), (other, nothing, silence) = both(runs, out, *OPTIONS, HALIGN_CACHE=str(out) + "-cache", **FSDP)
    assert (code, other) == (0, 0), said + silence
    assert "Claims of the papers" in table and nothing == "" and silence == ""
    same_curves(alone, out)
    same_records(alone, out)
    (log,) = out.glob("cells/weighs*/train/*/train.jsonl")
    assert [json.loads(line)["held"] for line in log.read_text().splitlines()] == pytest.approx([0.5] * 4)
    # What was saved is whole: one process goes on from it, and finds nothing to do.
    code, table, said = runs(out, *OPTIONS)
    assert code == 0 and "6 of 6 cells are done already" in said


def test_what_goes_wrong_in_one_process_is_a_record_as_ever_and_the_others_go_on(runs: Runs) -> None:
    out = runs.folder / "wrong"
    (code, _, said), (other, _, silence) = both(runs, out, "--methods", "stumbles,bursts,slow")
    assert (code, other) == (1, 0) and silence == ""
    records = {name: read_record(out / "records" / f"{name}-s0.json") for name in ("stumbles", "bursts", "slow")}
    assert {name: record.status for name, record in records.items()} == {
        "stumbles": "failed", "bursts": "diverged", "slow": "done"
    }  # fmt: skip
    assert records["stumbles"].error == "process 1: ZeroDivisionError: a bug in the method"
    assert records["bursts"].error == "stage bursts, step 2: the loss is nan"
    assert "failed: process 1: ZeroDivisionError" in said and "diverged: stage bursts" in said


@divides
def test_one_that_fails_while_the_others_wait_in_the_network_ends_the_run(runs: Runs) -> None:
    out = runs.folder / "trips"
    answers = both(runs, out, "--methods", "trips", ALONE="2", **FSDP)
    assert [code for code, _, _ in answers] == [1, 1]
    for _, _, said in answers:
        assert "halign-bench: process 1 failed alone (ZeroDivisionError: a bug in the method); what is done" in said
        assert f"is kept in {out}, and the same command goes on from there" in said
    assert not list(out.glob("records/trips*"))


def test_a_run_goes_on_with_another_number_of_processes(runs: Runs) -> None:
    """Begun by one process, stopped by Ctrl-C within a training of two, finished by one."""
    whole, out = runs.folder / "whole", runs.folder / "changing"
    assert runs(whole, "--methods", "slow")[0] == 0
    assert runs(out, "--methods", "sft")[0] == 0
    processes = runs.together(out, "--methods", "slow", SLOW="1")
    wait_for(out, "train.jsonl", lines=2, cell="slow")
    for process in processes:
        os.kill(process.pid, signal.SIGINT)  # as the launcher hands it on
    (code, _, said), (_, _, silence) = [runs.finish(process) for process in processes]
    assert "2 of 3 cells are done already" in said
    assert code == 130 and f"what is done is kept in {out}, and the same command goes on from there" in said
    assert "interrupted" not in silence and list(out.glob("cells/slow*/train/*/checkpoint.pt"))
    code, _, said = runs(out, "--methods", "slow")
    assert code == 0, said
    assert "2 of 3 cells are done already" in said
    same_curves(whole, out)
    same_records(whole, out)


RAY = "--executor ray: hands out cells by itself; start it without" if find_spec("ray") else "needs the package ray"


def test_requests_that_several_processes_cannot_answer(runs: Runs) -> None:
    out = runs.folder / "refused"
    for options, environment, sentence in (
        (("--methods", "nonsense"), {}, "nonsense"),
        (("--methods", "sft", "--device", "cuda:1"), {}, "--device cuda:1: the launcher gives each process a GPU;"),
        (("--methods", "sft"), {"ACCELERATE_USE_FSDP": "true"}, "add --fsdp_version 2"),
        (("--methods", "sft", *(["--compile"] if DIVIDES else [])), FSDP,
         "--compile: not with FSDP, which divides the blocks;" if DIVIDES else "divides weights on GPUs alone"),
        (("--methods", "sft", "--executor", "ray"), {}, RAY),
        (("--methods", "sft", "--nonsense"), {}, "No such option"),
    ):
        (code, table, said), (other, nothing, silence) = both(runs, out, *options, **environment)
        assert (code, other, table, nothing) == (2, 0, "", ""), said + silence
        assert sentence in said and said.count("halign-bench:") == 1 and silence == ""
    answers = [runs.finish(p) for p in runs.together(out, "--methods", "diffusion-dpo", world=3)]
    assert [code for code, _, _ in answers] == [2, 0, 0]
    assert "3 processes cannot share the batches of 8 samples, in whole pairs, that profile tiny" in answers[0][2]
    assert "launch 1, 2, 4" in answers[0][2]
    assert not (out / "records").exists()


@pytest.mark.parametrize("killed", (pytest.param(0, marks=pytest.mark.slow), 1))
def test_a_killed_process_ends_the_launch_and_the_run_goes_on(runs: Runs, killed: int) -> None:
    out = runs.folder / f"killed{killed}"
    command = [str(TESTS / "run_tiny.py"), "run", *TINY, "--methods", "slow", "--out", str(out)]
    process = launch(*command, HALIGN_CACHE=str(runs.folder / "cache"), SLOW="1")
    wait_for(out, "train.jsonl", lines=2, cell="slow")
    os.kill(worker(process.pid, killed), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    if killed == 1:
        assert f"what is done is kept in {out}, and the same command goes on from there" in said
        assert list(out.glob("cells/slow*/train/*/checkpoint.pt"))
    assert not list(out.glob("records/slow*"))
    code, _, said = runs(out, "--methods", "slow")
    assert code == 0 and "2 of 3 cells are done already" in said, said


@divides
@pytest.mark.slow
def test_published_networks_can_be_divided(tmp_path: Path) -> None:
    program = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(TESTS / "divided_models.py")]
    done = subprocess.run(
        [sys.executable, *program, str(tmp_path)], env={**os.environ, "OMP_NUM_THREADS": "1", **FSDP},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [model["model"] for model in found] == list(tiny_models.BACKBONE)
    for model in found:
        assert model["prediction"] < 1e-5 and model["gradient"] < 1e-4, model
        assert model["held"] == pytest.approx(0.5, abs=0.02), model


@pytest.mark.slow
@pytest.mark.parametrize("launcher", (
    ("--multi_gpu",), pytest.param(("--use_fsdp", "--fsdp_version", "2"), marks=divides)
), ids=("ddp", "fsdp"))  # fmt: skip
def test_the_embedded_track_in_two_processes(tmp_path: Path, smoke: Path, launcher: tuple[str, ...]) -> None:
    out, options = tmp_path / "run", ("--methods", "tpo", "--profile", "smoke")
    command = ["-m", "halign_bench", "run", *options, "--out", str(out)]
    _, said = (process := launch(*command, launcher=launcher, HALIGN_CACHE=str(tmp_path / "cache"))).communicate()
    assert process.returncode == 0, said
    same_curves(smoke, out)
    same_records(smoke, out)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    command = ["-m", "halign_bench", "run", "--methods", "tpo", "--profile", "smoke", "--out", str(folder / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HALIGN_CACHE": str(folder / "cache")}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def wait_for(out: Path, name: str, lines: int, cell: str) -> None:
    until = time.monotonic() + 200
    while time.monotonic() < until:
        if any(len(file.read_text().splitlines()) >= lines for file in out.glob(f"cells/{cell}*/train/*/{name}")):
            return
        time.sleep(0.05)
    raise AssertionError(f"no {name} of {lines} lines after 200 s")


def worker(launcher: int, rank: int) -> int:
    """The process of this number below the launcher."""
    import psutil

    for child in psutil.Process(launcher).children(recursive=True):
        if child.environ().get("RANK") == str(rank):
            return child.pid
    raise AssertionError(f"no process {rank}")
