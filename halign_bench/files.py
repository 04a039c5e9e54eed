"""Which files of a folder are meant."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from halign_bench.track import Refusal


def files_below(folder: Path, suffixes: Collection[str]) -> tuple[list[Path], list[Refusal], int]:
    """Files with one of these extensions (lower case, with the dot) in a folder and all below it, sorted by path.

    Names that begin with a dot are passed over. Besides the files: folders that cannot be read, and how many files
    there are with other extensions.
    """
    from halign_bench.decoding import shown

    found: list[Path] = []
    refusals: list[Refusal] = []
    others = 0

    def unreadable(error: OSError) -> None:
        where = os.path.relpath(error.filename, folder)
        refusals.append(Refusal(shown(where), f"cannot be read: {error.strerror}"))

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                found.append(Path(parent, name))
            else:
                others += 1
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix()), refusals, others


__all__ = ["files_below"]
