"""`halign-bench prefs label`: serves the page until Ctrl-C."""

from __future__ import annotations

import contextlib
import sys
import threading
import webbrowser
from pathlib import Path

from halign_bench.errors import RequestError
from halign_bench.prefs.answers import AnswerLog
from halign_bench.prefs.server import Server
from halign_bench.prefs.session import Session, read_session
from halign_bench.prefs.sitting import Sitting


def label(folder: Path, annotator: str, port: int, browser: bool) -> int:
    """Prints the page's address on stdout and serves it; returns 0 after Ctrl-C, with all answers on the disk.

    Raises RequestError for what is no whole session, RunLocked where this annotator is labelling there already.
    """
    session = whole_session(folder)
    with AnswerLog.open(folder, annotator) as log:
        sitting = Sitting(session, annotator, log)
        try:
            server = Server(sitting, port)
        except OSError as problem:
            raise RequestError(f"--port {port}: cannot be used ({problem.strerror or problem}); leave it out") from None
        with server:
            print(server.url, flush=True)
            print("open this address, and stop with Ctrl-C; every answer is kept at once", file=sys.stderr)
            if browser:  # beside: one of a terminal does not return before it is closed
                threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
            server.turn.acquire()  # an answer that is being kept is kept whole, and no other one begins
        state = sitting.state()
        rest = "" if state["next"] is None else "; the same command goes on from there"
        print(f"\n{state['answered']} of {state['questions']} answers of {annotator} are kept{rest}", file=sys.stderr)
    return 0


def whole_session(folder: Path) -> Session:
    """Raises RequestError where there is none, or videos of it are missing."""
    session = read_session(folder)
    if missing := session.missing():
        raise RequestError(
            f"{folder}: {len(missing)} of its files are missing, {missing[0]} first; the `halign-bench prefs "
            "sample` that made it makes them again"
        )
    return session


__all__ = ["label", "whole_session"]
