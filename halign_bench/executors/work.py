"""What is divided into tasks, and what works on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from halign_bench.progress import Progress


@dataclass(frozen=True)
class Task:
    """A part of a work that can be done by itself.

    name    distinct within its work; it is all that a worker needs to know
    label   for people
    weight  how long it takes beside the others, in any unit
    """

    name: str
    label: str
    weight: float = 1.0


class Work(Protocol):
    """Something divided into tasks, as one process has it open. What is found and what is left lies on disk."""

    def prepare(self) -> Sequence[Task]:
        """Does what the tasks share, once and before any of them; returns those that are not done yet."""

    def do(self, task: Task) -> bool:
        """Does a task, unless another process has done it meanwhile; whether it ended well.

        What went wrong is told and recorded. Raises HalignError where the other tasks would fail on it too.
        """


Open = Callable[[Progress], Work]  # for another process it is pickled


class Executor(Protocol):
    def __call__(self, open_: Open, progress: Progress) -> list[Task]:
        """Does every task; returns those that did not end well.

        Raises what `Work` raises, `RequestError` where tasks cannot be worked on as asked, and `Interrupted`.
        """


__all__ = ["Executor", "Open", "Task", "Work"]
