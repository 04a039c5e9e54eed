"""Progress of a long run on stderr: a bar on a terminal, plain lines elsewhere; and stopping when asked to."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from halign_bench.errors import Interrupted
from halign_bench.printing import printable

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY = 10.0  # seconds between plain lines within a phase


def duration(seconds: float) -> str:
    """Seconds as people say them: "8 s", "3 min 05 s", "2 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Stop:
    """Turns the first Ctrl-C into a request that the work answers at its next safe point.

    A second Ctrl-C stops at once: everything on disk is written atomically, so that is safe too,
    it only loses the work since the last checkpoint. So does the first one until `gentle` is set: while
    models and clips are loaded there is nothing to lose and nowhere to ask. Outside the main thread
    signals are left alone.
    """

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent
        self.requested = False
        self.gentle = False

    def check(self) -> None:
        """Raises `Interrupted` once the user asked to stop."""
        if self.requested:
            raise Interrupted("stopped")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self.gentle:
            raise KeyboardInterrupt
        self.requested = True
        if self.silent:
            return
        # write(2), not print: a handler may interrupt another write to the same stream.
        with contextlib.suppress(OSError, ValueError):
            os.write(2, b"\nstopping after this step (Ctrl-C again: at once) ...\n")

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)


class Phase:
    """One stretch of work of `total` steps. Each report of a step is also a place where the run may stop."""

    def __init__(self, owner: Progress, label: str, total: int, weight: float) -> None:
        self.owner, self.label, self.total, self.weight = owner, label, max(total, 1), weight
        self.done = 0
        self.reported = False
        self.skipped = 0  # steps found done already: they say nothing about speed
        self.started = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """The form in which training and sampling report; the first report says what an earlier run left done."""
        self.total = max(total, 1)
        if not self.reported:
            self.already(min(done, self.total))
        self.update(done)

    def advance(self, steps: int = 1) -> None:
        self.update(self.done + steps)

    def update(self, done: int) -> None:
        self.reported = True
        self.done = min(done, self.total)
        self.owner.show(self)
        self.owner.stop.check()

    def already(self, done: int) -> None:
        """Counts `done` steps as found from an earlier run."""
        self.skipped += done - self.done
        self.done = done

    def check(self) -> None:
        """A place to stop without a step being done."""
        self.owner.stop.check()

    def seconds_left(self) -> float | None:
        worked = self.done - self.skipped
        if worked <= 0:
            return None
        return (time.monotonic() - self.started) / worked * (self.total - self.done)


class Progress:
    """Phases one after the other, with the time left in the phase and over all.

    `plan` is the work ahead in units that take about equally long (network evaluations); each phase
    takes its `weight` out of it. The overall estimate is the measured seconds a unit times what is left.
    """

    def __init__(self, console: Console, stop: Stop | None = None, plan: float = 0.0) -> None:
        self.console = console
        self.stop = stop or Stop()
        self.plan = plan
        self.units_done = 0.0  # of the plan, whether worked now or found done
        self.units_worked = 0.0  # in this process, in `seconds_worked`
        self.seconds_worked = 0.0
        self.last_line = 0.0
        self._bar: Any = None
        self._task: Any = None

    @property
    def live(self) -> bool:
        return bool(self.console.is_terminal)

    @contextlib.contextmanager
    def phase(self, label: str, total: int, weight: float = 0.0) -> Iterator[Phase]:
        """Announces a phase; leaves a line with what it took."""
        phase = Phase(self, label, total, weight)
        with self._bar_for(phase):
            if not self.live:
                self.say(f"{label} ...")
            self.last_line = time.monotonic()
            yield phase
        took = time.monotonic() - phase.started
        worked = weight * (phase.done - phase.skipped) / phase.total
        self.units_done += weight
        if worked > 0:
            self.seconds_worked += took
            self.units_worked += worked
        self.say(f"{label}: done in {duration(took)}")

    def say(self, text: str) -> None:
        """One plain line on stderr."""
        self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def seconds_left(self, phase: Phase) -> float | None:
        """Over all phases; None until something has been measured."""
        worked = self.units_worked + phase.weight * (phase.done - phase.skipped) / phase.total
        spent = self.seconds_worked + time.monotonic() - phase.started
        if worked <= 0 or self.plan <= 0:
            return None
        left = self.plan - self.units_done - phase.weight * phase.done / phase.total
        return max(0.0, left) * spent / worked

    def show(self, phase: Phase) -> None:
        left, overall = phase.seconds_left(), self.seconds_left(phase)
        if self._bar is not None:
            self._bar.update(self._task, completed=phase.done, total=phase.total, left=self._left(left, overall))
        elif time.monotonic() - self.last_line >= LINE_EVERY and phase.done < phase.total:
            self.last_line = time.monotonic()
            self.say(f"{phase.label}: {phase.done}/{phase.total}, {self._left(left, overall)}")

    @staticmethod
    def _left(left: float | None, overall: float | None) -> str:
        if left is None:
            return ""
        return f"{duration(left)} left" + (f", {duration(overall)} in all" if overall is not None else "")

    @contextlib.contextmanager
    def _bar_for(self, phase: Phase) -> Iterator[None]:
        if not self.live:
            yield
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}")
        with RichProgress(*columns, console=self.console, transient=True) as self._bar:
            self._task = self._bar.add_task(phase.label, total=phase.total, left="")
            try:
                yield
            finally:
                self._bar = None


__all__ = ["Phase", "Progress", "Stop", "duration"]
