"""A task in a worker process of Ray, and what it tells the driver while it works."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from halign_bench.errors import HalignError
from halign_bench.executors.work import Open, Task, Work
from halign_bench.progress import Phase, Progress

TELL_EVERY = 1.0  # seconds between two reports of how far a task is
PREPARATION = Task("", "preparation")


@dataclass(frozen=True)
class Answer:
    """What became of a task: its value, or in words why the whole work cannot go on."""

    value: Any = None
    refusal: str | None = None


@dataclass(frozen=True)
class Reached:
    """How far a task is: `units` of its weight, and `done` of `total` steps of what it is at."""

    units: float
    done: float
    total: int


class Listener:
    """An actor that keeps what workers tell until the driver asks for it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.reached: dict[str, Reached] = {}

    def hear(self, text: str) -> None:
        self.said.append(text)

    def see(self, task: str, reached: Reached) -> None:
        self.reached[task] = reached

    def news(self) -> tuple[list[str], dict[str, Reached]]:
        """Lines since the last time, and how far each task is."""
        said, self.said = self.said, []
        return said, self.reached


class Told(Progress):
    """Progress of a worker: told to the driver, shown there. Told, not asked: a listener that is gone is no matter."""

    def __init__(self, listener: Any) -> None:
        from rich.console import Console

        super().__init__(Console(stderr=True))
        self.listener = listener
        self.begin(PREPARATION)

    def begin(self, task: Task) -> None:
        self.task, self.units_done, self.last_line = task, 0.0, 0.0

    @contextlib.contextmanager
    def phase(self, label: str, total: int, weight: float = 0.0) -> Iterator[Phase]:
        yield (phase := Phase(self, label, total, weight))
        self.units_done += weight
        self.last_line = 0.0
        self.show(phase)

    def show(self, phase: Phase) -> None:
        if time.monotonic() - self.last_line < TELL_EVERY:
            return
        self.last_line = time.monotonic()
        within = phase.weight * phase.done / phase.total
        self.listener.see.remote(self.task.name, Reached(self.units_done + within, phase.done, phase.total))

    def say(self, text: str) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):  # waited for, or the task might end before it is heard
            ray.get(self.listener.hear.remote(text), timeout=10)


@dataclass
class _Opened:
    work: Work
    told: Told


_opened: _Opened | None = None  # what this process has open: a worker process of Ray belongs to one driver


def prepare(open_: Open, listener: Any) -> Answer:
    """`Work.prepare` in a worker; the value is its tasks."""
    return _answered(open_, listener, PREPARATION, lambda work: list(work.prepare()))


def do(open_: Open, listener: Any, task: Task) -> Answer:
    """`Work.do` in a worker; the value is whether it ended well."""
    return _answered(open_, listener, task, lambda work: work.do(task))


def _answered(open_: Open, listener: Any, task: Task, act: Callable[[Work], Any]) -> Answer:
    global _opened
    try:
        if _opened is None:
            told = Told(listener)
            _opened = _Opened(open_(told), told)
        _opened.told.begin(task)
        return Answer(act(_opened.work))
    except HalignError as problem:
        return Answer(refusal=str(problem))
    except OSError as problem:
        what = f"{problem.filename}: " if problem.filename else ""
        return Answer(refusal=f"{what}{problem.strerror or problem}")


__all__ = ["PREPARATION", "Answer", "Listener", "Reached", "Told", "do", "prepare"]
