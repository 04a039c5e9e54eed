"""Memory limited by ulimit -v: libraries in C crash where they get none, and then there must still be a sentence.

Under such a limit a command runs in a child of this process, which waits, passes signals on and tells how it ended.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
LOADER = 127  # exit code of glibc's loader where a thread finds no room for its variables; no command ends with it
PASSED_ON = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
FROM_KERNEL = 0x80  # SI_KERNEL: a key of the terminal


def survived(act: Callable[[], int]) -> int:
    """The exit code of `act`; 1, with a sentence on stderr, where it crashed for lack of memory under a limit."""
    limit = _limit()
    if limit is None:
        return act()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _die_with_parent()
        sys.exit(act())
    try:
        code = os.waitstatus_to_exitcode(_wait(child))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if code >= 0 and code != LOADER:
        return code
    if code < 0 and -code not in CRASHES:  # whoever ended it means this process too
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    print(
        f"halign-bench: not enough memory (a library ended the program with {end} under a limit of "
        f"{limit / 2**30:.1f} GiB, ulimit -v); what is done is kept, and the same command goes on once there "
        "is more",
        file=sys.stderr,
    )
    return 1


def _limit() -> int | None:
    """Bytes of address space that this process may have; None without a limit, and where the system has no such."""
    if sys.platform != "linux":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _wait(child: int) -> int:
    """The child's status. A terminal's Ctrl-C reaches both, what is sent to this process alone is passed on."""
    while True:
        info = signal.sigwaitinfo(PASSED_ON | {signal.SIGCHLD})
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if info.si_signo in PASSED_ON and info.si_code != FROM_KERNEL:
            os.kill(child, info.si_signo)


__all__ = ["survived"]
