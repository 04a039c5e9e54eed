"""Taking named files out of a zip archive that is not trusted to be a harmless one.

Nothing of an archive is written under a name that the archive chose: the manifest says which files are wanted, and
they are found by their last name, in whichever folder of the archive. An archive with a path that leads elsewhere,
with a link or with more than it should hold is refused as a whole, since nobody packs weights like that.
"""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from halign_bench.errors import RequestError, first_line

MAX_ENTRIES = 1000
MAX_BYTES = 2**32  # of one file, unpacked


@contextmanager
def opened(path: Path) -> Iterator[Zip]:
    """The archive at `path`. Raises `RequestError`, also within the block, when it is damaged or not harmless."""
    try:
        with zipfile.ZipFile(path) as file:
            yield Zip(path, file)
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError, RuntimeError
    ) as problem:
        raise RequestError(f"{path}: not a whole zip archive ({first_line(problem)})") from None


class Zip:
    """An archive whose list of contents was found harmless."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path, self.file = path, file
        entries = file.infolist()
        if len(entries) > MAX_ENTRIES:
            raise RequestError(f"{path}: holds {len(entries)} entries, more than the {MAX_ENTRIES} allowed")
        for entry in entries:
            if reason := _objection(entry):
                raise RequestError(f"{path}: {entry.filename!r} {reason}; nothing was unpacked")
        self.entries = [entry for entry in entries if not entry.is_dir()]

    @contextmanager
    def member(self, name: str, size: int | None) -> Iterator[IO[bytes]]:
        """The contents of the file `name` in any folder. Raises `RequestError` if it is not there exactly once."""
        found = [entry for entry in self.entries if entry.filename.rsplit("/", 1)[-1] == name]
        if len(found) != 1:
            raise RequestError(f"{self.path}: holds {len(found) or 'no'} files {name}, not one")
        (entry,) = found
        if size is not None and entry.file_size != size:
            raise RequestError(f"{self.path}: {name} has {entry.file_size} bytes there, not {size}")
        with self.file.open(entry) as stream:  # yields no more bytes than the entry states, and checks its CRC
            yield stream

    def names(self) -> Sequence[str]:
        return [entry.filename for entry in self.entries]


def _objection(entry: zipfile.ZipInfo) -> str | None:
    """What is wrong with an entry; None if it is an ordinary file or folder below the archive's root.

    >>> _objection(zipfile.ZipInfo("buffalo_l/det_10g.onnx")), _objection(zipfile.ZipInfo("../det_10g.onnx"))
    (None, 'leads out of the archive')
    """
    raw = entry.orig_filename
    if raw.startswith(("/", "\\")) or raw[1:2] == ":":
        return "is an absolute path"
    if ".." in raw.replace("\\", "/").split("/"):
        return "leads out of the archive"
    if not entry.filename:
        return "is no name"
    if (kind := stat.S_IFMT(entry.external_attr >> 16)) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if kind == stat.S_IFLNK else "is neither a file nor a folder"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.file_size > MAX_BYTES:
        return f"unpacks to {entry.file_size} bytes, more than the {MAX_BYTES} allowed"
    return None


__all__ = ["MAX_BYTES", "Zip", "opened"]
