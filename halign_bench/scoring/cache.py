"""Features and scores of single clips, kept by what they were computed of.

A key is a hash of everything that an entry depends on (`key_of`), so nothing in the cache is ever out of date, and any
part of its folder may be deleted at any time. Entries appear whole or not at all; one that cannot be read, or that is
not what was written, counts as not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from halign_bench.atomic import atomic_path, atomic_write
from halign_bench.documents import parsed
from halign_bench.sealing import intact, seal
from halign_bench.track import Unscorable

MISSING: Any = object()


def key_of(**parts: Any) -> str:
    """sha256 of JSON-able parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()


class Stored:
    """An array in a file, read when it is looked at: stands for it in sums over more clips than files may be open.

    An index gives what the array's would, and `np.asarray` all of it.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self.ndim = len(shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.load(self.path, allow_pickle=False)
        return whole if dtype is None else whole.astype(dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.array(np.load(self.path, mmap_mode="r", allow_pickle=False)[index])


def released(array: Any) -> Any:
    """What holds no file open, in place of an array that came from the cache; anything else as it is."""
    mapped = array
    while mapped is not None and not isinstance(mapped, np.memmap):
        mapped = getattr(mapped, "base", None)
    if mapped is None:
        return array
    while isinstance(mapped.base, np.memmap):
        mapped = mapped.base
    if mapped.filename is not None and (mapped.shape, mapped.dtype) == (array.shape, array.dtype):
        return Stored(Path(mapped.filename), array.shape, array.dtype)
    return np.array(array)


class Cache:
    """Entries are arrays (read as needed from disk), dicts of arrays and numbers, JSON, or `Unscorable`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hits = self.misses = 0

    def get(self, key: str) -> Any:
        """The entry, or `MISSING`."""
        found = self._read(key)
        self.hits += found is not MISSING
        self.misses += found is MISSING
        return found

    def _read(self, key: str) -> Any:
        with contextlib.suppress(Exception):  # damaged: numpy, zipfile and tokenize each raise their own
            if (path := self._path(key, "npy")).is_file():
                return np.load(path, mmap_mode="r", allow_pickle=False) if intact(path) else MISSING
            if (path := self._path(key, "npz")).is_file() and intact(path):
                with np.load(path, allow_pickle=False) as arrays:
                    return {name: arrays[name] for name in arrays.files}
            if (path := self._path(key, "json")).is_file():
                document = parsed(path.read_text(encoding="utf-8"))
                if document.pop("sha256") == key_of(**document):
                    return Unscorable(document["reason"]) if "reason" in document else document["value"]
        return MISSING

    def put(self, key: str, value: Any) -> None:
        """Raises OSError when the folder cannot be written, TypeError for what is none of the kinds above."""
        if isinstance(value, np.ndarray):
            with atomic_path(self._path(key, "npy")) as temporary:
                with temporary.open("wb") as file:
                    np.save(file, value, allow_pickle=False)
                seal(temporary)
        elif isinstance(value, Mapping) and any(isinstance(one, np.ndarray) for one in value.values()):
            arrays: dict[str, Any] = {name: np.asarray(one) for name, one in value.items()}
            with atomic_path(self._path(key, "npz")) as temporary:
                with temporary.open("wb") as file:
                    np.savez(file, **arrays)
                seal(temporary)
        elif isinstance(value, Unscorable):
            self._put_json(key, {"reason": value.reason})
        else:
            self._put_json(key, {"value": value})

    def _put_json(self, key: str, document: dict[str, Any]) -> None:
        sealed = {**document, "sha256": key_of(**document)}
        atomic_write(self._path(key, "json"), json.dumps(sealed, allow_nan=False) + "\n")

    def _path(self, key: str, kind: str) -> Path:
        return self.folder / key[:2] / f"{key}.{kind}"


__all__ = ["MISSING", "Cache", "Stored", "key_of", "released"]
