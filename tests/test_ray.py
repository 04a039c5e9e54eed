"""Runs on a real Ray cluster of two nodes on this machine: workers killed, a node removed, the driver killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from media_files import textured, write
from ray_plugins import account, install

pytest.importorskip("ray", reason="the package ray is not installed")
pytestmark = pytest.mark.slow
TESTS = Path(__file__).parent
METHODS = ",".join(f"witness[number={number}]" for number in range(1, 5))
CELLS = 6  # base and sft too
STEPS = 4
HOST_AND_TIME = ("timings", "environment", "started", "finished", "sha256")  # the last is of all the others too


class Cluster:
    """Two nodes of one processor each, the second with a GPU that Ray is told of; and the command line with them."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster as Nodes

        self.folder = folder
        self.witness = folder / "witness"
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(install(folder / "installed")), str(TESTS)]),
            "HALIGN_CACHE": str(folder / "cache"), "WITNESS": str(self.witness), "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{(port := free_port())}", "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        self.store_port = port
        self.count = 0
        with pytest.MonkeyPatch.context() as patch:  # nodes and their workers have what is set when they start
            for name, value in self.environment.items():
                patch.setenv(name, value)
            self.nodes = Nodes(initialize_head=True, head_node_args=self.size)
        self.second = self.add()

    @property
    def size(self) -> dict[str, Any]:
        return {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}

    def add(self) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return self.nodes.add_node(num_cpus=1, num_gpus=1, object_store_memory=80 * 2**20)

    def hold(self) -> None:
        """From now on 3 and 4 stay where they are, in their first step."""
        Path(f"{self.witness}.hold").touch()

    def release(self) -> None:
        Path(f"{self.witness}.hold").unlink(missing_ok=True)

    def start(self, out: Path | str, *options: str, methods: str = METHODS) -> None:
        self.command(
            "run", "--track", "tiny-scored", "--backbone", "tiny-dit", "--profile", "tiny", "--methods", methods,
            "--out", str(out), *options,
        )  # fmt: skip

    def command(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "halign_bench", *arguments]
        self.count += 1
        self.said = [self.folder / f"{self.count}.{stream}" for stream in ("out", "err")]
        with self.said[0].open("w") as out_file, self.said[1].open("w") as err_file:
            self.process = subprocess.Popen(command, env=self.environment, stdout=out_file, stderr=err_file)

    @property
    def options(self) -> tuple[str, ...]:
        return "--executor", "ray", "--ray-address", self.nodes.address, "--device", "cpu"

    def on_ray(self, out: Path | str, *options: str, **named: str) -> None:
        self.start(out, *self.options, *options, **named)


    def finish(self) -> tuple[int, str, str]:
        """Exit code of the command that was started last, and what it said."""
        self.process.wait(timeout=400)
        return self.process.returncode, self.said[0].read_text(), self.said[1].read_text()

    def wait_until(self, holds: Callable[[], Any], seconds: float = 300) -> Any:
        """What `holds` gives, once it gives something, while the command works."""
        end = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < end and self.process.poll() is None, self.said[1].read_text()
            time.sleep(0.05)
        return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.process.kill()
    made.nodes.shutdown()


@pytest.fixture(autouse=True)
def unhurried(request: pytest.FixtureRequest) -> None:
    if "cluster" in request.fixturenames:
        made = request.getfixturevalue("cluster")
        made.release()
        made.witness.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def alone(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without Ray."""
    cluster.release()
    out = tmp_path_factory.mktemp("alone") / "out"
    cluster.start(out)
    code, _, progress = cluster.finish()
    assert code == 0, progress
    return out


def comparable(out: Path) -> dict[str, Any]:
    """Every record without times and host, and the companions beside it, byte by byte."""
    found: dict[str, Any] = {}
    for file in sorted((out / "records").glob("*.json")):
        document = json.loads(file.read_text())
        for key in HOST_AND_TIME:
            del document[key]
        if document["training"] is not None:
            del document["training"]["peak_memory_bytes"]
        for key in [key for key in document["metrics"] if key.startswith("seconds_per_second")]:
            del document["metrics"][key]
        assert document["status"] == "done", document["error"]
        beside = [file.with_name(f"{file.stem}.{kind}.parquet").read_bytes() for kind in ("clips", "bootstrap")]
        found[file.stem] = document, beside
    return found


def assert_equal(out: Path, alone: Path) -> None:
    theirs, ours = comparable(alone), comparable(out)
    assert len(theirs) == CELLS and ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name] == theirs[name], name


def steps(lines: list[dict[str, Any]]) -> list[int]:
    """Who did each step."""
    return [line["pid"] for line in lines if line["what"] == "step"]


def assert_none_twice(cluster: Cluster, disturbed: int = 0) -> None:
    """Every number was trained to its end once; those that were not disturbed without a step too many."""
    seen = account(cluster.witness)
    assert sorted(seen) == [1, 2, 3, 4]
    again = 0
    for number, lines in seen.items():
        assert lines == sorted(lines, key=lambda line: line["at"])
        workers = list(dict.fromkeys(line["pid"] for line in lines))
        again += len(workers) - 1
        for before, after in pairwise(workers):  # one after the other, never both
            assert max(x["at"] for x in lines if x["pid"] == before) < min(x["at"] for x in lines if x["pid"] == after)
        own = steps(lines)
        assert own.count(workers[-1]) == STEPS, number
        assert all(own.count(worker) < STEPS for worker in workers[:-1]), number
    assert again == disturbed


def at_work(cluster: Cluster, raylet: int | None = None) -> dict[str, Any] | None:
    """The last line of a worker, on one node where it is given, that is held in a training."""
    for number, lines in account(cluster.witness).items():
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(lines[-1]["pid"]).ppid()
            if number >= 3 and (raylet is None or parent == raylet):
                return lines[-1]
    return None


@pytest.mark.fault(
    "run --executor ray: a worker is killed in its training",
    "another one goes on; records equal those of one process; no cell is done twice",
)
def test_a_worker_killed_in_its_training_costs_nothing_but_time(
    cluster: Cluster, alone: Path, tmp_path: Path
) -> None:
    cluster.hold()
    cluster.on_ray(tmp_path / "out", "--json")
    victim = cluster.wait_until(lambda: at_work(cluster))
    os.kill(victim["pid"], signal.SIGKILL)
    number = victim["number"]
    cluster.wait_until(lambda: account(cluster.witness)[number][-1]["pid"] != victim["pid"])
    cluster.release()
    code, said, progress = cluster.finish()
    assert code == 0, progress
    assert "its worker is lost" in progress and f"{CELLS} of {CELLS}" in progress and "Traceback" not in progress
    assert [row["method"] for row in json.loads(said)["rows"]][:2] == ["base", "sft"]
    assert_equal(tmp_path / "out", alone)
    assert_none_twice(cluster, disturbed=1)


@pytest.mark.fault(
    "run --executor ray: a node is lost",
    "its cells go on elsewhere; records equal those of one process",
)
def test_a_node_that_is_lost_costs_nothing_but_time(cluster: Cluster, alone: Path, tmp_path: Path) -> None:
    cluster.hold()
    cluster.on_ray(tmp_path / "out")
    raylet = cluster.second.all_processes["raylet"][0].process.pid
    victim = cluster.wait_until(lambda: at_work(cluster, raylet))
    cluster.nodes.remove_node(cluster.second, allow_graceful=False)
    try:
        cluster.wait_until(lambda: not psutil.pid_exists(victim["pid"]))  # a worker outlives its node by a moment
        cluster.release()
        code, _, progress = cluster.finish()
    finally:
        cluster.second = cluster.add()
    assert code == 0, progress
    assert "its worker is lost" in progress
    assert_equal(tmp_path / "out", alone)
    assert_none_twice(cluster, disturbed=1)


@pytest.mark.fault(
    "run --executor ray: the driver is killed",
    "the same command finds what is done; no cell is done twice",
)
def test_a_driver_that_is_killed_is_started_again_and_finds_what_is_done(
    cluster: Cluster, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    cluster.hold()
    cluster.on_ray(out)
    cluster.wait_until(lambda: len(list((out / "records").glob("witness*.json"))) == 2 and at_work(cluster))
    cluster.process.kill()
    cluster.process.wait()
    done = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in (out / "records").iterdir()}
    cluster.release()
    cluster.on_ray(out)
    code, _, progress = cluster.finish()
    assert code == 0, progress
    assert "cells are done already" in progress
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in done} == done
    assert_equal(out, alone)
    interrupted = sum(len({line["pid"] for line in lines}) - 1 for lines in account(cluster.witness).values())
    assert interrupted >= 1
    assert_none_twice(cluster, disturbed=interrupted)
    # Once more: nothing is left to be done.
    before = cluster.witness.read_bytes()
    cluster.on_ray(out)
    code, _, progress = cluster.finish()
    assert code == 0 and f"{CELLS} of {CELLS} cells are done already" in progress
    assert cluster.witness.read_bytes() == before


def test_an_interrupted_run_leaves_checkpoints_and_goes_on_from_them(
    cluster: Cluster, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    cluster.hold()
    cluster.on_ray(out)
    cluster.wait_until(lambda: at_work(cluster))
    cluster.process.send_signal(signal.SIGINT)
    code, said, progress = cluster.finish()
    assert code == 130 and said == ""
    assert "the same command goes on from there" in progress and "Traceback" not in progress
    assert list(out.glob("cells/witness*/train/*/checkpoint.pt"))
    cluster.release()
    cluster.on_ray(out)
    code, _, progress = cluster.finish()
    assert code == 0, progress
    assert_equal(out, alone)
    # What a checkpoint holds is not done again; the step within which the stop came is.
    assert all(STEPS <= len(steps(lines)) <= STEPS + 1 for lines in account(cluster.witness).values())


def test_half_a_gpu_lets_two_cells_share_one(cluster: Cluster, tmp_path: Path) -> None:
    """Ray is only told of the GPU: what is shown is that the cells are where it is, two at a time, and see it."""
    cluster.hold()
    cluster.on_ray(tmp_path, "--task-gpus", "0.5", "--task-cpus", "0.5", methods="witness[number=3],witness[number=4]")
    together = cluster.wait_until(lambda: (seen := account(cluster.witness)) and len(seen) == 2 and seen)
    raylet = cluster.second.all_processes["raylet"][0].process.pid
    workers = [lines[-1]["pid"] for lines in together.values()]
    assert [psutil.Process(pid).ppid() for pid in workers] == [raylet, raylet]
    cluster.release()
    code, _, progress = cluster.finish()
    assert code == 0, progress
    first, second = account(cluster.witness).values()
    assert min(first[-1]["at"], second[-1]["at"]) > max(first[0]["at"], second[0]["at"])
    assert {line["gpus"] for line in (*first, *second)} == {"0"}


@pytest.mark.fault("run --executor ray: a cell kills every worker that takes it", "given up; the others are done")
def test_a_cell_that_kills_every_worker_is_given_up_and_the_others_are_done(cluster: Cluster, tmp_path: Path) -> None:
    cluster.on_ray(tmp_path, methods="dies,witness[number=1]")
    code, said, progress = cluster.finish()
    assert code == 1 and "Traceback" not in progress
    assert progress.count("dies seed 0: its worker is lost") == 4 and "dies seed 0: given up" in progress
    assert "witness[number=1]" in said
    done = {file.stem.partition("-s0")[0].partition("-")[0] for file in (tmp_path / "records").glob("*.json")}
    assert done == {"base", "sft", "witness_number_1"}


def test_what_a_worker_refuses_is_one_sentence(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    cluster.on_ray(tmp_path / "out")
    code, said, complaint = cluster.finish()
    assert (code, said) == (2, "") and complaint.count("\n") == 1 and "not a run of halign-bench" in complaint
    cluster.on_ray(tmp_path / "gpu", "--device", "cuda")
    code, said, complaint = cluster.finish()
    assert (code, said) == (2, "") and "Traceback" not in complaint
    assert "--device cuda: torch cannot use it here" in complaint.splitlines()[-1]
    assert complaint.splitlines()[-1].endswith("(on a worker)")


@pytest.fixture
def bucket(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 server with a bucket `bench`, and s3fs to look into it."""
    server = pytest.importorskip("moto.server", reason="the package moto[server] is not installed")
    s3fs = pytest.importorskip("s3fs", reason="the package s3fs is not installed")
    for name, value in cluster.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    running = server.ThreadedMotoServer(port=cluster.store_port)
    running.start()
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.mkdir("bench")
    yield store
    running.stop()


def test_the_folder_may_be_an_object_store(cluster: Cluster, alone: Path, bucket: Any, tmp_path: Path) -> None:
    cluster.hold()
    cluster.on_ray("s3://bench/run")
    victim = cluster.wait_until(lambda: at_work(cluster))
    os.kill(victim["pid"], signal.SIGKILL)
    cluster.wait_until(lambda: account(cluster.witness)[victim["number"]][-1]["pid"] != victim["pid"])
    cluster.release()
    code, _, progress = cluster.finish()
    assert code == 0, progress
    assert "its worker is lost" in progress
    bucket.invalidate_cache()
    bucket.get("bench/run/", str(tmp_path / "run"), recursive=True)
    assert_equal(tmp_path / "run", alone)
    assert_none_twice(cluster, disturbed=1)
    assert not [name for name in bucket.find("bench/run") if name.endswith(".tmp")]
    for record in (tmp_path / "run" / "records").glob("witness*.json"):
        adapters = record.parent / json.loads(record.read_text())["files"]["adapters"]
        assert list(adapters.glob("*/adapters/*/*.safetensors")), adapters
    # Once more from another machine, which knows nothing: nothing is left to be done.
    before = cluster.witness.read_bytes()
    cluster.on_ray("s3://bench/run")
    code, _, progress = cluster.finish()
    assert code == 0 and f"{CELLS} of {CELLS} cells are done already" in progress
    assert cluster.witness.read_bytes() == before
    cluster.on_ray("s3://no-such-bucket/run")
    code, _, complaint = cluster.finish()
    assert code == 2 and complaint.startswith("halign-bench: --out s3://no-such-bucket/run: ")
    assert complaint.count("\n") == 1


def test_scores_in_parts_on_two_nodes_are_those_of_one_process(cluster: Cluster, tmp_path: Path) -> None:
    for seed, name in enumerate(("generated", "real")):
        (tmp_path / name).mkdir()
        for clip in range(6):
            write(tmp_path / name / f"{clip}.mp4", textured(20, seed=10 * seed + clip))
    score = "score", str(tmp_path / "generated"), "--reference", str(tmp_path / "real"), "--json", "--out"
    cluster.command(*score, str(tmp_path / "parts"), "--shards", "4", *cluster.options)
    code, in_parts, progress = cluster.finish()
    assert code == 0, progress
    assert "shard 4/4: done" in progress and "4 of 4" in progress
    cache = Path(cluster.environment["HALIGN_CACHE"])
    shutil.rmtree(cache / "score")
    cluster.command(*score, str(tmp_path / "one"))
    assert cluster.finish()[:2] == (0, in_parts)
    assert (tmp_path / "parts" / "clips.parquet").read_bytes() == (tmp_path / "one" / "clips.parquet").read_bytes()
