"""Real runs in real processes on the tiny track: killed, interrupted, locked, failing, repeated."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from filelock import FileLock
from runs import METHODS, Runs
from safetensors.numpy import load_file

from halign_bench.companions import read_clips, read_replicates
from halign_bench.record import parse_key
from halign_bench.results import read_record


@pytest.fixture(scope="module")
def whole(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, said, progress = runs(out, *METHODS, "--json")
    assert code == 0, progress
    assert json.loads(said) == json.loads((out / "leaderboard.json").read_text())
    return out


def numbers(out: Path, cell: str) -> dict:
    """Everything of a cell that must not depend on how its run went: all but measured times."""
    record = read_record(out / "records" / f"{cell}.json")
    assert record.status == "done", record.error
    weights = {
        file.parent.name: {name: tensor.tobytes() for name, tensor in load_file(file).items()}
        for file in out.glob(f"cells/{cell}-*/train/*/adapters/*/*.safetensors")
    }
    return {
        "metrics": {
            key: score.model_dump() for key, score in record.metrics.items()
            if parse_key(key).name != "seconds_per_second"
        },
        "clips": read_clips(record), "replicates": read_replicates(record), "weights": weights,
        "held_out": record.provenance["held_out"],
    }  # fmt: skip


def assert_same(out: Path, whole: Path, cells: tuple[str, ...] = ("base-s0", "sft-s0", "diffusion-dpo-s0")) -> None:
    for cell in cells:
        assert numbers(out, cell) == numbers(whole, cell), cell


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in folder.rglob("*") if p.is_file() and p.name != ".lock"
    }  # fmt: skip


def test_a_run_leaves_records_and_tables(whole: Path) -> None:
    board = json.loads((whole / "leaderboard.json").read_text())
    assert [row["method"] for row in board["rows"]] == ["base", "sft", "diffusion-dpo"]
    record = read_record(whole / "records" / "sft-s0.json")
    assert record.metrics["fid@tiny/nfe4"].value is not None
    assert record.metrics["fid@tiny/nfe2"].n == 7
    assert record.metrics["fid@tiny/nfe2"].failed == {"a clip that the extractor cannot read": 1}
    assert record.metrics["seconds_per_second@tiny-scored/nfe4"].value > 0
    sync = record.metrics["sync_c@tiny-scored/nfe4"]
    assert sync.value is None and sync.reason == "track tiny-scored has no sync extractor"
    assert record.training is not None and record.training.samples_seen == 32
    assert record.provenance["preferences"]["prompts"] == 8
    # Training must show in the samples, or equal numbers after a kill would mean nothing.
    trained, base = numbers(whole, "sft-s0"), numbers(whole, "base-s0")
    assert trained["clips"]["ssim@tiny-scored/nfe4"] != base["clips"]["ssim@tiny-scored/nfe4"]
    assert not list(whole.rglob("*.npz")) and not list(whole.rglob("*.tmp"))


def test_again_does_nothing_and_touches_nothing(runs: Runs, whole: Path) -> None:
    before = stamps(whole)
    code, said, progress = runs(whole, *METHODS)
    assert code == 0 and "3 of 3 cells are done already" in progress
    assert "train" not in progress and "diffusion-dpo" in said
    assert stamps(whole) == before


@pytest.mark.fault(
    "run: killed just before each kind of file is put in its place, one after the other",
    "the same command goes on; records and adapters equal those of an undisturbed run",
)
def test_killed_beside_every_kind_of_file_and_resumed(runs: Runs, whole: Path, tmp_path: Path) -> None:
    """Killed just before a file appears, one file at a time at first, then in longer and longer strides."""
    cache, out, killed = tmp_path / "cache", tmp_path / "out", 0
    for renames in range(60):
        code, _, progress = runs(out, *METHODS, HALIGN_CACHE=str(cache), KILL_AFTER=str(renames))
        if code == 0:
            break
        assert code == -signal.SIGKILL, progress
        killed += 1
    assert code == 0 and killed >= 6
    assert_same(out, whole)
    assert not list(out.rglob("*.npz")) and not list(out.rglob("*.tmp"))


@pytest.mark.fault(
    "run: killed at random moments (tiny model)",
    "the same command goes on; records and adapters equal those of an undisturbed run",
)
def test_killed_at_random_moments_and_resumed(runs: Runs, whole: Path, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    chance = random.Random(7)
    killed = 0
    for _ in range(4):
        process = runs.start(out, *METHODS, HALIGN_CACHE=str(cache))
        process.join(chance.uniform(0.1, 0.9))
        if process.exitcode is None:
            process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 1
    assert runs(out, *METHODS, HALIGN_CACHE=str(cache))[0] == 0
    assert_same(out, whole)


def wait_for(path: Path, pattern: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not any(p.stat().st_size for p in path.glob(pattern)):
        assert time.monotonic() < end, f"{pattern} did not appear"
        time.sleep(0.02)


@pytest.mark.fault(
    "run: a second run on the folder of one that works; then a kill, then Ctrl-C",
    "the second says so (2); no lock is left behind; interrupted it ends with 130 and goes on from its checkpoint",
)
def test_lock_kill_interrupt_and_resume(runs: Runs, tmp_path: Path) -> None:
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    first = runs.start(out, "--methods", "slow", SLOW="300")
    wait_for(out, "records/sft-s0.json")
    code, said, complaint = runs(out, "--methods", "slow")
    assert code == 2 and said == ""
    assert complaint.count("\n") == 1 and "another run is working there" in complaint

    first.kill()
    first.join()
    second = runs.start(out, "--methods", "slow", SLOW="1.0")  # the lock ended with its process
    wait_for(out, "cells/slow-*/train/*/train.jsonl")
    os.kill(second.pid, signal.SIGINT)
    code, said, progress = runs.finish(second)
    assert code == 130 and said == ""
    assert "the same command goes on from there" in progress and "Traceback" not in progress
    assert list(out.glob("cells/slow-*/train/*/checkpoint.pt"))
    assert not (out / "records" / "slow-s0.json").exists()

    assert runs(out, "--methods", "slow")[0] == 0
    assert runs(undisturbed, "--methods", "slow")[0] == 0
    assert_same(out, undisturbed, ("base-s0", "sft-s0", "slow-s0"))


@pytest.mark.fault("run: another worker holds a cell", "waits, and does not do it again")
def test_a_cell_that_another_worker_has_is_waited_for_and_not_done_again(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    """What is left of a run on a cluster whose driver was killed, for as long as it lives."""
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    for file in ("sft-s0.json", "base-s0.json"):
        (out / "records" / file).rename(tmp_path / file)
    work = next((out / "cells").glob("sft-s0-*"))
    with FileLock(work / ".lock"):
        process = runs.start(out, *METHODS)
        wait_for(out, "records/base-s0.json")
        time.sleep(1)
        assert process.exitcode is None and not (out / "records" / "sft-s0.json").exists()
        (tmp_path / "sft-s0.json").rename(out / "records" / "sft-s0.json")
        before = stamps(out / "records")
    code, _, progress = runs.finish(process)
    assert code == 0, progress
    assert f"{work.name}: waits for another worker that is at it" in progress
    assert "sft seed 0: train" not in progress and stamps(out / "records") == before


@pytest.mark.fault(
    "run: a method raises, another one leaves the finite numbers",
    "a record of each that says why; the other cells are done; the same command tries again",
)
def test_failures_are_records_and_are_tried_again(runs: Runs, whole: Path, tmp_path: Path) -> None:
    methods = ("--methods", "explodes,breaks,diffusion-dpo")
    code, said, progress = runs(tmp_path, *methods, "--json")
    assert code == 1
    rows = {row["method"]: row for row in json.loads(said)["rows"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "base": "done", "sft": "done", "explodes": "diverged", "breaks": "failed", "diffusion-dpo": "done",
    }  # fmt: skip
    assert "a bug in the method" in rows["breaks"]["reason"] and "loss is nan" in rows["explodes"]["reason"]
    assert "Traceback" not in progress
    assert "ZeroDivisionError" in next(tmp_path.glob("cells/breaks-*/traceback.txt")).read_text()
    assert_same(tmp_path, whole)

    done = {name: stamp for name, stamp in stamps(tmp_path / "records").items() if name.startswith(("base", "sft"))}
    code, _, progress = runs(tmp_path, *methods, BREAKS="no")
    assert code == 1 and "breaks seed 0: train" in progress and "explodes seed 0: diverged" in progress
    assert "base seed 0" not in progress
    assert read_record(tmp_path / "records" / "breaks-s0.json").status == "done"
    assert read_record(tmp_path / "records" / "explodes-s0.json").status == "diverged"
    assert done.items() <= stamps(tmp_path / "records").items()


@pytest.mark.fault(
    "run: a method changes the base under it",
    "its cell fails with one sentence; the others get the base as it was",
)
def test_a_failed_self_check_is_one_sentence_and_leaves_the_others_the_base_as_it_was(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    code, _, progress = runs(tmp_path, "--methods", "drifts,diffusion-dpo")
    assert code == 1 and "Traceback" not in progress
    record = read_record(tmp_path / "records" / "drifts-s0.json")
    assert record.status == "failed" and record.metrics == {}
    assert record.error is not None and record.error.startswith("self-check of drifts, stage drifts: the reference has")
    assert "proj_out.weight" in record.error and not list(tmp_path.glob("cells/drifts-*/traceback.txt"))
    assert "the base, which is loaded again" in progress
    assert_same(tmp_path, whole)
    # Again from the start, not from where it had got to.
    code, _, progress = runs(tmp_path, "--methods", "drifts,diffusion-dpo")
    assert code == 1 and "drifts seed 0: failed: self-check" in progress


def test_signs_of_trouble_are_told_once_and_recorded(runs: Runs, tmp_path: Path) -> None:
    code, said, progress = runs(tmp_path, "--methods", "by-heart", SIGN_WINDOW="3")
    assert code == 0
    record = read_record(tmp_path / "records" / "by-heart-s0.json")
    sign = next(sign for sign in record.warnings if sign.name == "implicit accuracy at 1")
    assert sign.step == 3 and sign.text.startswith("stage by-heart, step 3: implicit accuracy has been 1 for 3 steps")
    assert progress.count(sign.text) == 1
    assert sign.text in (tmp_path / "leaderboard.md").read_text()
    row = next(r for r in json.loads((tmp_path / "leaderboard.json").read_text())["rows"] if r["method"] == "by-heart")
    assert f"seed 0: {sign.text}" in row["warnings"]
    assert "Claims of the papers" not in said  # nothing in this run claims anything


def test_neither_order_nor_company_of_cells_matters(runs: Runs, whole: Path, tmp_path: Path) -> None:
    assert runs(tmp_path, "--methods", "slow", "--seeds", "1,0")[0] == 0
    assert runs(tmp_path, "--methods", "sft+diffusion-dpo,diffusion-dpo,diffusion-dpo[criterion=overall]")[0] == 0
    assert_same(tmp_path, whole)
    board = json.loads((tmp_path / "leaderboard.json").read_text())
    assert sorted(row["method"] for row in board["rows"]) == [
        "base", "diffusion-dpo", "sft", "sft+diffusion-dpo", "slow"
    ]  # fmt: skip
    stacked = numbers(tmp_path, "sft+diffusion-dpo-s0")
    assert sorted(stacked["weights"]) == ["diffusion-dpo", "sft"]
    assert stacked["weights"]["sft"] == numbers(tmp_path, "sft-s0")["weights"]["sft"]
    assert stacked["weights"]["diffusion-dpo"] != numbers(tmp_path, "diffusion-dpo-s0")["weights"]["diffusion-dpo"]
    seeds = [numbers(tmp_path, f"base-s{seed}")["clips"]["ssim@tiny-scored/nfe4"] for seed in (0, 1)]
    assert seeds[0] != seeds[1]


def test_experts_train_alike_whatever_their_sampling_and_pooled_they_are_dpo(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    methods = "tpo,tpo[motion_nfe_share=0],tpo[experts=pooled]"
    assert runs(tmp_path, "--methods", methods)[0] == 0
    cells = {read_record(file).cell.method: file.stem for file in (tmp_path / "records").glob("*.json")}
    plain, skipping, pooled = (numbers(tmp_path, cells[method]) for method in methods.split(","))
    assert sorted(plain["weights"]) == ["tpo-fidelity", "tpo-motion"] and plain["weights"] == skipping["weights"]
    assert plain["clips"]["ssim@tiny-scored/nfe4"] != skipping["clips"]["ssim@tiny-scored/nfe4"]
    dpo = numbers(whole, "diffusion-dpo-s0")
    assert pooled["metrics"] == dpo["metrics"] and pooled["clips"] == dpo["clips"]


@pytest.mark.fault(
    "run: a folder of another protocol, with files of somebody else in it",
    "refused with the difference; --fresh deletes what runs made and nothing else",
)
def test_another_protocol_is_refused_and_fresh_replaces_only_its_own(runs: Runs, tmp_path: Path) -> None:
    assert runs(tmp_path, "--methods", "slow")[0] == 0
    foreign = [tmp_path / "mine.txt", tmp_path / "records" / "mine.json", tmp_path / "cells" / "mine.txt"]
    foreign += [next(tmp_path.glob("cells/slow-s0-*")) / "mine.txt"]
    for path in foreign:
        path.write_text("{}")
    before = stamps(tmp_path)

    code, _, complaint = runs(tmp_path, "--methods", "sft", "--nfe", "3")
    assert code == 2 and complaint.splitlines()[-1].startswith("halign-bench: --out")
    assert "evaluation.nfe: [3] now, [4, 2] there" in complaint and "--fresh" in complaint
    assert stamps(tmp_path) == before

    assert runs(tmp_path, "--methods", "sft", "--nfe", "3", "--fresh")[0] == 0
    assert all(path.read_text() == "{}" for path in foreign)
    assert not (tmp_path / "records" / "slow-s0.json").exists()
    assert not list(tmp_path.glob("cells/slow-*/train"))
    record = read_record(tmp_path / "records" / "sft-s0.json")
    assert "ssim@tiny-scored" in record.metrics  # one point is no grid, so no /nfe in the name


@pytest.mark.fault("run: tables of somebody else lie in the folder", "refused, and left as they are")
def test_tables_of_somebody_else_are_not_overwritten(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "leaderboard.md").write_text("mine")
    code, _, complaint = runs(tmp_path, "--methods", "sft", "--fresh")
    assert code == 2 and "was not made by a run here" in complaint
    assert (tmp_path / "leaderboard.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--methods", "sft", "--profile", "smok"), "did you mean smoke?"),
        (("--methods", "sft[dat=clips]"), "did you mean data?"),
        (("--methods", "diffusion-dpo[beta=much]"), "beta=much is refused"),
        (("--methods", "sft", "--set", "diffusion-dpo.beta=5"), "not among the methods of this run"),
        (("--methods", "base+sft"), "trains nothing"),
        (("--methods", "sft", "--device", "cuda:77"), "torch cannot use it here"),
        (("--methods", "sft", "--executor", "rya"), "did you mean ray?"),
        (("--methods", "sft", "--task-gpus", "0.5"), "is for --executor ray"),
    ],
)
def test_wrong_requests_are_one_sentence(runs: Runs, tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    code, said, complaint = runs(tmp_path / "out", *options)
    assert code == 2 and said == "" and sentence in complaint and "Traceback" not in complaint
