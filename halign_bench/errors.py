"""The errors a person is meant to read: one clear sentence, an exit code, no traceback."""

from __future__ import annotations


class HalignError(Exception):
    """What went wrong, with which file, clip or option, and what to do about it."""

    exit_code = 2


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


def first_line(problem: Exception) -> str:
    """What fits into a sentence of what a library says."""
    return (str(problem).strip() or type(problem).__name__).splitlines()[0].strip()[:200]
