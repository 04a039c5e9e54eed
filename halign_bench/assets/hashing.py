"""sha256 of files, and a memory of it, so that hundreds of megabytes are not read again at each start.

A file is taken as unchanged while its size, modification time and inode are those it had when it was hashed. The
memory lies in the cache folder, also for assets in a folder that cannot be written; losing it costs time alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from halign_bench.documents import parsed

CHUNK = 2**20
SCHEMA = "halign-bench/hashes/1"


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes, read in chunks. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class Memory:
    """Hashes of files by where they lie. `file` is where that is kept."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def known(self, path: Path) -> str | None:
        """The hash that was remembered for exactly this file; None when it was not hashed or has changed since."""
        entry = self._read().get(str(path.resolve()))
        if not isinstance(entry, dict) or entry.get("stat") != _identity(path):
            return None
        found = entry.get("sha256")
        return found if isinstance(found, str) else None

    def sha256(self, path: Path) -> str:
        """The hash of a file, read only if it is not known. Raises OSError."""
        return self.known(path) or self.look(path)

    def look(self, path: Path) -> str:
        """The hash of a file, read in any case, and remembered. Raises OSError."""
        before = _identity(path)
        found = sha256_of(path)
        if _identity(path) == before:  # else somebody is writing it
            self.remember(path, found)
        return found

    def remember(self, path: Path, sha256: str) -> None:
        from halign_bench.atomic import atomic_write

        entries = self._read() | {str(path.resolve()): {"stat": _identity(path), "sha256": sha256}}
        with contextlib.suppress(OSError):  # a cache that cannot be written: it is hashed again next time
            atomic_write(self.file, json.dumps({"schema": SCHEMA, "files": entries}, indent=1) + "\n")

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            document = parsed(self.file.read_text(encoding="utf-8"))
            if isinstance(document, dict) and document.get("schema") == SCHEMA:
                files = document.get("files")
                return files if isinstance(files, dict) else {}
        return {}


def _identity(path: Path) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ino]


__all__ = ["CHUNK", "Memory", "sha256_of"]
