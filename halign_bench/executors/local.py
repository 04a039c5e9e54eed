"""One task after the other, in this process."""

from __future__ import annotations

from halign_bench.executors.work import Open, Task
from halign_bench.progress import Progress


def local(open_: Open, progress: Progress) -> list[Task]:
    work = open_(progress)
    return [task for task in work.prepare() if not work.do(task)]


__all__ = ["local"]
