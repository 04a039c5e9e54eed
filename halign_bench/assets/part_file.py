"""A file on its way: its bytes on disk, and their hash so far."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from halign_bench.assets.hashing import CHUNK
from halign_bench.errors import RequestError


class PartFile:
    """Appends to what an earlier process left at `path`. Unbuffered, so that a killed process loses nothing.

    size    bytes that are there
    pieced  whether they came in more than one transfer
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest = hashlib.sha256()
        self.size = 0
        self.pieced = False

    def __enter__(self) -> PartFile:
        with self._disk():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "a+b", buffering=0)
            self.file.seek(0)
            while chunk := self.file.read(CHUNK):
                self.digest.update(chunk)
                self.size += len(chunk)
        self.pieced = self.size > 0
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        with self._disk():
            os.fsync(self.file.fileno())
            self.file.close()

    def write(self, chunk: bytes) -> None:
        with self._disk():
            rest = memoryview(chunk)
            while rest:
                rest = rest[self.file.write(rest) :]
        self.digest.update(chunk)
        self.size += len(chunk)

    def restart(self) -> None:
        """Drops everything."""
        with self._disk():
            self.file.truncate(0)
        self.digest, self.size, self.pieced = hashlib.sha256(), 0, False

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """A full or vanished disk is no reason to ask the network again."""
        try:
            yield
        except OSError as problem:
            raise RequestError(f"{self.path}: cannot be written ({problem.strerror or problem})") from None


__all__ = ["PartFile"]
