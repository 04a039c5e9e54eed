"""An executor by its name. Asking for one imports nothing heavy; a wrong request is answered at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from halign_bench import registry
from halign_bench.errors import RequestError
from halign_bench.executors.work import Executor

NAMES = ("local", "ray")


@dataclass(frozen=True)
class Where:
    """Where tasks are worked on.

    address    of a Ray cluster, as `ray.init` takes it; None is $RAY_ADDRESS, the cluster on this machine, or a new one
    task_cpus  processors that Ray sets aside for a task
    task_gpus  GPUs, also parts of one; None is one where the cluster has any and the device is not the CPU
    """

    executor: str = "local"
    address: str | None = None
    task_cpus: float | None = None
    task_gpus: float | None = None

    def check(self, device: str = "auto") -> None:
        """Raises RequestError, without importing Ray."""
        if self.executor not in NAMES:
            near = registry.nearest(self.executor, NAMES)
            hint = f", did you mean {near}?" if near else ""
            raise RequestError(f"--executor {self.executor}: there are {' and '.join(NAMES)}{hint}")
        if self.executor == "local":
            given = {
                "--ray-address": self.address, "--task-cpus": self.task_cpus, "--task-gpus": self.task_gpus
            }  # fmt: skip
            for option, value in given.items():
                if value is not None:
                    raise RequestError(f"{option} {value}: is for --executor ray, and this is the local one")
            return
        if find_spec("ray") is None:
            raise RequestError('--executor ray needs the package ray: python -m pip install "halign-bench[ray]"')
        for option, number in (("--task-cpus", self.task_cpus), ("--task-gpus", self.task_gpus)):
            if number is not None and not (number >= 0 and (number < 1 or number == int(number))):
                raise RequestError(f"{option} {number:g}: Ray gives out whole ones and parts of one, such as 2 or 0.5")
        if ":" in device:
            raise RequestError(
                f"--device {device}: a worker of Ray sees only the GPU that it was given; leave it at auto, cpu or cuda"
            )


LOCAL = Where()


def executor(where: Where, device: str = "auto") -> Executor:
    """Raises RequestError for one that there is not or that cannot be had like that."""
    where.check(device)
    if where.executor == "local":
        from halign_bench.executors.local import local

        return local
    from halign_bench.executors.on_ray import on_ray

    gpus = 0.0 if device == "cpu" and where.task_gpus is None else where.task_gpus
    cpus = 1.0 if where.task_cpus is None else where.task_cpus
    return partial(on_ray, address=where.address, cpus=cpus, gpus=gpus)


__all__ = ["LOCAL", "NAMES", "Where", "executor"]
