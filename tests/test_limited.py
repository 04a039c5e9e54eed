"""Under a limit of memory a crash of native code ends as a sentence, and the process is otherwise as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
LIMIT_KIB = 8 << 20
PROGRAM = """
import os, signal, sys, time
from halign_bench.limited import survived
def act():
    print(os.getpid(), flush=True)
    {act}
sys.exit(survived(act))
"""


def started(act: str, limit: bool = True) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PROGRAM.format(act=act)]
    if limit:
        words = ["sh", "-c", f'ulimit -v {LIMIT_KIB}; exec "$@"', "sh", *words]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(pid: int) -> bool:
    """Whether there is no such process any more, or only until its new parent asks for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.fault(
    "any command: a library in C crashes where memory is limited (ulimit -v)", "one sentence (1); what is done is kept"
)
@pytest.mark.parametrize(("name", "act"), [
    ("SIGSEGV", "os.kill(os.getpid(), signal.SIGSEGV)"), ("SIGABRT", "os.abort()"), ("exit code 127", "os._exit(127)"),
])  # fmt: skip
def test_a_crash_under_a_limit_is_a_sentence(name: str, act: str) -> None:
    process = started(act)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith(f"halign-bench: not enough memory (a library ended the program with {name} under a limit")
    assert "8.0 GiB" in said and said.count("\n") == 1


@pytest.mark.parametrize("code", [0, 2, 130])
def test_the_exit_code_is_passed_on(code: int) -> None:
    process = started(f"return {code}")
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (code, "")


def test_without_a_limit_there_is_no_second_process() -> None:
    process = started("return 3", limit=False)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (3, f"{process.pid}\n")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_waiting_process_reaches_the_command(sent: signal.Signals) -> None:
    act = f"signal.signal({sent.value}, lambda *_: sys.exit(7)); print('ready', flush=True); time.sleep(60)"
    process = started(act)
    assert process.stdout is not None
    assert int(process.stdout.readline()) != process.pid and process.stdout.readline() == "ready\n"
    process.send_signal(sent)
    process.communicate(timeout=60)
    assert process.returncode == 7


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_neither_process_outlives_the_other(sent: signal.Signals) -> None:
    for waiting in (True, False):
        process = started("time.sleep(60)")
        assert process.stdout is not None
        child = int(process.stdout.readline())
        os.kill(process.pid if waiting else child, sent)
        process.communicate(timeout=60)
        assert process.returncode == -sent
        until = time.monotonic() + 20
        while not ended(child):
            assert time.monotonic() < until, "the command goes on alone"
            time.sleep(0.05)
