"""A checksum behind a file's content, for formats that have none of their own and whose readers pass over what follows.

So do torch's and numpy's. A changed bit would otherwise be a number like any other: `torch.load` does not look at the
checksums of its archive.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

MARK = b"\nsha256 "
CHUNK = 2**20


def seal(path: Path) -> None:
    """Appends the sha256 of what is there. Raises OSError."""
    with path.open("r+b") as file:
        seal_of = _sha256(file, path.stat().st_size)
        file.write(MARK + seal_of)


def intact(path: Path) -> bool:
    """Whether a file is sealed and its content is what was sealed. Raises OSError."""
    size = path.stat().st_size - len(MARK) - hashlib.sha256().digest_size
    with path.open("rb") as file:
        return size >= 0 and MARK + _sha256(file, size) == file.read()


def _sha256(file: IO[bytes], size: int) -> bytes:
    """Of the next bytes."""
    digest = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(CHUNK, size))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.digest()


__all__ = ["intact", "seal"]
