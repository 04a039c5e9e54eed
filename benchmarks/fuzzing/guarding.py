"""One case, watched: what it raised, what it wrote where, what it ran, and how much memory it took."""

from __future__ import annotations

import os
import resource
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIGABYTES = 1.5  # above what the process held before the case; a case that takes more is a finding
LONGEST = 6000  # characters of a refusal, all lines together
_WRITES = frozenset({
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "os.chown",
    "shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.make_archive",
})  # fmt: skip
_RUNS = frozenset({
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn",
    "socket.connect", "socket.bind", "socket.getaddrinfo", "pickle.find_class", "urllib.Request", "webbrowser.open",
})  # fmt: skip


class Escaped(BaseException):
    """Code under attack did what it must not; not an Exception, so that nobody takes it for a bad file."""


@dataclass(frozen=True)
class Outcome:
    """kind: accepted, refused or finding; text: the sentence, or what went wrong; megabytes more than before."""

    kind: str
    text: str = ""
    megabytes: float = 0.0


class Guard:
    """Watches the process it is made in, from then on; only while a case runs."""

    def __init__(self) -> None:
        self.folders: tuple[str, ...] | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def run(self, case: Callable[[], object], folder: Path) -> Outcome:
        """`folder` is where the case may write, and nowhere else."""
        from halign_bench.errors import HalignError

        before = _peak(reset=True)
        self.seen = []
        self.folders = (str(folder.resolve()), os.devnull)
        try:
            case()
            found = Outcome("accepted")
        except HalignError as refusal:
            found = _refused(refusal)
        except Escaped as escape:
            found = Outcome("finding", str(escape))
        except BaseException:
            found = Outcome("finding", traceback.format_exc())
        finally:
            self.folders = None
        more = (_peak() - before) / 2**20
        if self.seen:
            found = Outcome("finding", "; ".join(self.seen[:5]))
        if more > GIGABYTES * 1024:
            found = Outcome("finding", f"took {more:.0f} MB of memory ({found.kind}: {found.text[:2000]})")
        return Outcome(found.kind, found.text, more)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folders is None:
            return
        if event in _RUNS:
            self._escape(f"{event} {arguments!r:.300}")
        elif event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._check("open", path)
        elif event in _WRITES:
            for path in arguments[:2] if event in ("os.rename", "shutil.move", "os.link") else arguments[:1]:
                if isinstance(path, str | bytes | os.PathLike):
                    self._check(event, path)

    def _check(self, event: str, path: Any) -> None:
        folders, self.folders = self.folders, None  # what is asked here is nobody's doing
        try:
            real = os.path.realpath(os.fsdecode(path))
        except ValueError:
            return
        finally:
            self.folders = folders
        if not any(real == folder or real.startswith(folder + os.sep) for folder in folders or ()):
            self._escape(f"{event} outside of its folder: {real!r:.300}")

    def _escape(self, text: str) -> None:
        self.seen.append(text)
        raise Escaped(text)


def bounded(gigabytes: float = 24.0) -> None:
    """What is beyond any finding ends the process and not the machine; address space, of which torch maps much."""
    resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 2**30), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def unfit(text: str) -> str | None:
    """Why this is no sentence to put before a person; None where it is one."""
    if not text.strip():
        return "is empty"
    if not text.isprintable():
        return "holds line breaks or control characters"
    return f"has {len(text)} characters" if len(text) > LONGEST else None


def _refused(refusal: Any) -> Outcome:
    """Every part of a refusal is one printable line; most have one part."""
    lines = [str(part) for part in refusal.args]
    for line in lines:
        if wrong := unfit(line):
            return Outcome("finding", f"{type(refusal).__name__} that {wrong}: {str(refusal)!r:.600}")
    return Outcome("refused", str(refusal))


def _peak(reset: bool = False) -> int:
    """Most bytes of memory that this process held since the last reset."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
