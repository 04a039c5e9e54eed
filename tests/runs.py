"""The command line with the tiny track, in processes that may be killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
METHODS = ("--methods", "diffusion-dpo")
HEAVY = (
    "torch", "diffusers.models.transformers.transformer_wan", "peft", "accelerate", "scipy.stats", "pyarrow.parquet",
    "rich.progress", "run_tiny", "halign_bench.cli", "halign_bench.runner", "halign_bench.evaluation",
)  # fmt: skip


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


class Runs:
    """Starts the command line in processes of their own, forked from one that has imported torch already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(HEAVY))

    def start(self, out: Path | str, *options: str, **environment: str) -> multiprocessing.Process:
        profile = "--track", "tiny-scored", "--backbone", "tiny-dit", "--profile", "tiny"
        return self.command("run", *profile, "--out", str(out), *options, **environment)

    def command(self, *arguments: str, **environment: str) -> multiprocessing.Process:
        from run_tiny import child

        self.count += 1
        said = str(self.folder / f"run{self.count}")
        environment = {"HALIGN_CACHE": str(self.folder / "cache"), **environment}
        process = self.context.Process(target=child, args=(arguments, environment, said))
        process.start()
        process.said = said  # type: ignore[attr-defined]
        return process

    def together(
        self, out: Path | str, *options: str, world: int = 2, **environment: str
    ) -> list[multiprocessing.Process]:
        """As a launcher starts them, with the variables that it sets, but nobody to end them."""
        launch = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
        launch["MASTER_PORT"] = free_port()
        return [
            self.start(out, *options, RANK=str(n), LOCAL_RANK=str(n), **launch, **environment)
            for n in range(world)
        ]

    def finish(self, process: multiprocessing.Process) -> tuple[int, str, str]:
        process.join(300)
        assert process.exitcode is not None, "still running after five minutes"
        said = [Path(f"{process.said}.{suffix}").read_text() for suffix in ("out", "err")]  # type: ignore[attr-defined]
        return process.exitcode, said[0], said[1]

    def __call__(self, out: Path | str, *options: str, **environment: str) -> tuple[int, str, str]:
        return self.finish(self.start(out, *options, **environment))


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Runs]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *([before] if before else [])])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    yield Runs(folder)
    os.environ.pop("PYTHONPATH") if before is None else os.environ.__setitem__("PYTHONPATH", before)
