"""The errors a person is meant to read: one clear sentence, an exit code, no traceback."""

from __future__ import annotations

import re

from halign_bench.printing import printable

LONGEST = 2000  # characters of a sentence; what is quoted in it may be a file's contents


class HalignError(Exception):
    """What went wrong, with which file, clip or option, and what to do about it.

    One sentence, and where several things are to be told each on a line of its own below it. What it quotes may come
    from anywhere, so `one_line` is made of each.
    """

    exit_code = 2

    def __init__(self, *lines: object) -> None:
        told = [one_line(str(line)) for line in lines]
        super().__init__(*(line if len(line) <= LONGEST else line[: LONGEST - 1] + "…" for line in told))

    def __str__(self) -> str:
        return "\n  ".join(self.args)


class RequestError(HalignError):
    """The request is wrong or cannot be answered: bad option, unreadable input, too little data."""


class PluginError(HalignError):
    """A plug-in is unknown, collides with another one, or does not import."""


class RunLocked(HalignError):
    """Another process is working on the same output folder."""


class Diverged(HalignError):
    """Training left the finite numbers; the cell is recorded as `diverged`."""

    exit_code = 1


class SelfCheckFailed(HalignError):
    """A training is not what its method means it to be; the cell is recorded as `failed`, the others go on."""

    exit_code = 1


class Interrupted(HalignError):
    """The user stopped the run; what is done is kept and `run` again continues."""

    exit_code = 130


class LaunchBroken(Interrupted):
    """Of the processes that were launched together one is gone; what is done is kept and `run` again continues."""

    exit_code = 1


def one_line(text: str) -> str:
    r"""A sentence, whatever was quoted in it: no line ends and nothing that moves a terminal's cursor.

    >>> one_line("a.json: not valid:\n  line 2 \x1b[2J")
    'a.json: not valid: line 2 \\x1b[2J'
    """
    joined = re.sub(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*", " ", text).strip()
    return printable(joined)


def first_line(problem: BaseException) -> str:
    """What fits into a sentence of what a library says."""
    return (str(problem).strip() or type(problem).__name__).splitlines()[0].strip()[:200]
