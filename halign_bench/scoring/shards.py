"""A scoring in parts. A part leaves features and scores of its clips in the cache, where the whole then finds them.

So there is nothing to merge: totals and intervals are computed of all clips, of what would have been computed anyway.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from halign_bench.errors import RequestError
from halign_bench.executors.choice import Where, executor
from halign_bench.executors.work import Task
from halign_bench.scoring.choices import code_sha256
from halign_bench.scoring.opening import ScoreRequest, Scoring, open_scoring

if TYPE_CHECKING:
    from halign_bench.progress import Progress
    from halign_bench.scoring.inputs import Item
    from halign_bench.scoring.scorer import Scorer


def part(items: Sequence[Item], number: int, count: int) -> Sequence[Item]:
    """The `number`-th (from 1) of `count` parts; every item is in one of them, and neighbours are in different ones."""
    return items[number - 1 :: count]


def add_all(scorer: Scorer, items: Sequence[Item], progress: Progress, label: str, weight: float = 0.0) -> None:
    with progress.phase(label, len(items), weight) as phase:
        for item in items:
            scorer.add(item)
            phase.advance()


@dataclass(frozen=True)
class Sender:
    """What a worker must have like the process that sent it, or its work would not be found.

    mark        a file in the cache folder
    extractors  what each computes, by feature (`LazyExtractor.sha256`)
    code        `code_sha256`
    """

    mark: Path
    extractors: dict[str, str]
    code: str

    def check(self, scoring: Scoring) -> None:
        """Raises RequestError."""
        if not self.mark.exists():
            raise RequestError(
                f"{self.mark.parent}: a worker sees another cache folder of this name, or none; set HALIGN_CACHE to a "
                "folder that all machines share"
            )
        if code_sha256() != self.code:
            raise RequestError("a worker has another version of halign-bench; install the same everywhere")
        for feature, sha256 in self.extractors.items():
            if feature not in scoring.extractors:
                raise RequestError(f"a worker cannot extract {feature} features: {scoring.reasons[feature]}")
            if scoring.extractors[feature].sha256 != sha256:
                raise RequestError(f"a worker has other weights or packages for {feature} features; give it the same")


class Shards:
    """A scoring as tasks (`executors.work.Work`)."""

    def __init__(self, request: ScoreRequest, count: int, sender: Sender, progress: Progress) -> None:
        self.scoring, self.count, self.progress = open_scoring(request), count, progress
        sender.check(self.scoring)
        progress.stop.gentle = True

    def prepare(self) -> list[Task]:
        """All that there are: what is done in one is found in the cache."""
        items = self.scoring.inputs.items
        sizes = {number: len(part(items, number, self.count)) for number in range(1, self.count + 1)}
        return [
            Task(str(number), f"shard {number}/{self.count}", size) for number, size in sizes.items() if size
        ]  # fmt: skip

    def do(self, task: Task) -> bool:
        items = part(self.scoring.inputs.items, int(task.name), self.count)
        add_all(self.scoring.scorer(), items, self.progress, task.label, task.weight)
        return True


def on_shards(scoring: Scoring, count: int, where: Where, progress: Progress) -> None:
    """Fills the cache, part by part. Raises as `Executor`."""
    request = scoring.request
    given = {name: getattr(request, name) for name in ("generated", "reference", "audio", "images", "assets", "cache")}
    # Workers have another current folder.
    request = replace(request, **{name: path.absolute() for name, path in given.items() if path is not None})
    mark = request.cache / f".{secrets.token_hex(8)}.shards"
    sender = Sender(mark, {name: found.sha256 for name, found in scoring.extractors.items()}, code_sha256())
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        left = executor(where, request.device)(partial(Shards, request, count, sender), progress)
    finally:
        mark.unlink(missing_ok=True)
    for task in left:
        progress.say(f"{task.label} was not done; its clips are scored here")


__all__ = ["Sender", "Shards", "add_all", "on_shards", "part"]
