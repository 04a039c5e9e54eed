"""Small and read-only disks for tests: a tmpfs where one may be mounted."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """A file system of `size` bytes. `leave(n)` fills it until n bytes are free."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ballast = path / ".ballast"

    def leave(self, free: int) -> None:
        self.ballast.unlink(missing_ok=True)
        found = os.statvfs(self.path)
        fill = found.f_bavail * found.f_frsize - free
        if fill > 0:
            with self.ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, fill)

    def mode(self, mode: str) -> None:
        """"ro" or "rw"."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)


@contextlib.contextmanager
def disk(path: Path, mib: int) -> Iterator[Disk]:
    """Skips the test where nothing may be mounted."""
    path.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(path)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip("no tmpfs may be mounted here")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
