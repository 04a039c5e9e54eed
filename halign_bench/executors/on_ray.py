"""Tasks on the machines of a Ray cluster, once more where a worker or a machine was lost.

The driver only hands out names of tasks and shows what it hears; it holds no results, so that nothing is lost with it.
Ray ends the workers of a driver that died.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from halign_bench.errors import RequestError, first_line
from halign_bench.executors import ray_worker
from halign_bench.executors.ray_worker import PREPARATION, Answer, Reached
from halign_bench.executors.work import Open, Task
from halign_bench.progress import Progress

POLL = 0.5  # seconds between two looks at what has ended
ATTEMPTS = 5  # of a task whose worker dies, before it is given up
GRACE = 30.0  # seconds that workers have to leave their checkpoints when the run is stopped


def on_ray(open_: Open, progress: Progress, *, address: str | None, cpus: float, gpus: float | None) -> list[Task]:
    """See `Executor`.

    address  as `ray.init` takes it
    cpus     processors that Ray sets aside for a task, `gpus` likewise; None is one where the cluster has any
    """
    with _connected(address):
        driver = _Driver(open_, progress, cpus, gpus)
        progress.stop.gentle = True
        tasks = driver.prepared()
        return driver.done(tasks) if tasks else []


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
    _knock(address or os.environ.get("RAY_ADDRESS", ""))
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as problem:
        where = f"--ray-address {address}" if address is not None else "--executor ray"
        raise RequestError(f"{where}: no Ray cluster that can be used ({first_line(problem)})") from None
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself tries for minutes, and complains of each."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # auto, local, none, or something that Ray refuses at once
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as problem:
        raise RequestError(f"--ray-address {address}: no Ray cluster answers there ({problem})") from None


class _Driver:
    """Hands out tasks, hears of them, and hands out once more what was lost with its worker."""

    def __init__(self, open_: Open, progress: Progress, cpus: float, gpus: float | None) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        self.progress = progress
        self.open_ = ray.put(open_)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        listener: Any = ray.remote(ray_worker.Listener)
        self.listener = listener.options(num_cpus=0, scheduling_strategy=here).remote()
        self.reached: dict[str, Reached] = {}
        self.asked: Any = None  # what the listener has not answered yet
        # Tried again by the driver instead, which says so.
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}
        self._prepare: Any = ray.remote(ray_worker.prepare).options(**options)
        self._do: Any = ray.remote(ray_worker.do).options(**options)
        needs = {"CPU": cpus, "GPU": gpus}
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(machine.get(name, 0) >= need for name, need in needs.items()) for machine in machines):
            progress.say(f"no machine of the cluster has {cpus:g} CPUs and {gpus:g} GPUs: waiting for one that has")

    def prepared(self) -> list[Task]:
        """What one worker found to be done, after it did what the tasks share."""
        with self.progress.phase("prepare", 1) as phase:

            def show() -> None:
                if (at := self.reached.get(PREPARATION.name)) is not None:
                    phase(round(at.done), at.total)

            ((_, answer),) = self._ended([PREPARATION], show)
        if answer.value is None:
            raise RequestError("--executor ray: the tasks could not be prepared, as no worker lived through it")
        return list(answer.value)

    def done(self, tasks: list[Task]) -> list[Task]:
        """Those that did not end well."""
        failed: list[Task] = []
        ended: dict[str, float] = {}
        whole = sum(task.weight for task in tasks)
        with self.progress.phase(f"{len(tasks)} tasks, in percent", 100) as phase:

            def show() -> None:
                units = ended | {name: at.units for name, at in self.reached.items() if name not in ended}
                phase.update(int(100 * sum(units.values()) / whole))

            for task, answer in self._ended(tasks, show):
                ended[task.name] = task.weight
                if not answer.value:
                    failed.append(task)
                what = "done" if answer.value else "not done"
                self.progress.say(f"{task.label}: {what}, {len(ended)} of {len(tasks)}")
        return failed

    def _ended(self, tasks: list[Task], show: Callable[[], None]) -> Iterator[tuple[Task, Answer]]:
        """Each task when it has ended. Raises RequestError where one refuses, and what `show` raises to stop."""
        import ray

        attempts: Counter[str] = Counter()
        running: dict[Any, Task] = {self._start(task): task for task in tasks}
        try:
            while running:
                ready, _ = ray.wait(list(running), num_returns=1, timeout=POLL)
                self._hear()
                show()
                self.progress.stop.check()
                for reference in ready:
                    task = running.pop(reference)
                    try:
                        answer: Answer = ray.get(reference)
                    except (ray.exceptions.RayTaskError, ray.exceptions.TaskCancelledError):
                        raise  # the worker lives: it is the program's mistake
                    except ray.exceptions.RayError as lost:
                        attempts[task.name] += 1
                        if attempts[task.name] < ATTEMPTS:
                            self.progress.say(f"{task.label}: its worker is lost ({first_line(lost)}); once more")
                            running[self._start(task)] = task
                            continue
                        self.progress.say(f"{task.label}: given up, its worker was lost {ATTEMPTS} times")
                        answer = Answer()
                    if answer.refusal is not None:
                        raise RequestError(f"{answer.refusal} (on a worker)")
                    yield task, answer
            self._hear()  # what came while the last one ended
        finally:
            if running:
                for reference in running:
                    ray.cancel(reference)
                ray.wait(list(running), num_returns=len(running), timeout=GRACE)

    def _start(self, task: Task) -> Any:
        if task is PREPARATION:
            return self._prepare.remote(self.open_, self.listener)
        return self._do.remote(self.open_, self.listener, task)

    def _hear(self) -> None:
        import ray

        if self.asked is None:
            self.asked = self.listener.news.remote()
        try:
            said, self.reached = ray.get(self.asked, timeout=10 * POLL)
        except ray.exceptions.GetTimeoutError:
            return  # what it will answer is told once: it is waited for again
        except ray.exceptions.RayError:  # gone: then there is nothing to show
            said = []
        self.asked = None
        for text in said:
            self.progress.say(text)


__all__ = ["on_ray"]
