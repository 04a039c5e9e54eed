"""Decoded videos on disk instead of in memory: a spool that is gone when nobody uses it, and frames read from it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from halign_bench.errors import RequestError

if TYPE_CHECKING:
    import numpy as np


class Spool:
    """A file without a name in the temporary folder, to append to and read from anywhere."""

    def __init__(self) -> None:
        self._file: Any = tempfile.TemporaryFile(prefix="halign-")  # noqa: SIM115 (closed when nobody reads any more)
        self.size = 0

    def append(self, data: bytes | memoryview, of: str) -> int:
        """Where `data` begins. Raises RequestError, which begins with `of`, when there is no room for it."""
        try:
            at = self.size
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise RequestError(
                f"{of}: no room for decoded frames in {tempfile.gettempdir()} ({error.strerror}); "
                "free some, or set TMPDIR to another folder"
            ) from None
        self.size = at + len(memoryview(data).cast("B"))
        return at

    def read(self, at: int, shape: tuple[int, ...]) -> np.ndarray:
        """uint8 array of this shape from byte `at` on."""
        import numpy as np

        out = np.empty(shape, np.uint8)
        view, done = memoryview(out.data).cast("B") if out.size else memoryview(b""), 0
        while done < len(view):
            count = os.preadv(self._file.fileno(), [view[done:]], at + done)
            if not count:
                raise EOFError(f"{len(view)} bytes from {at} on were never written")
            done += count
        return out


class Frames:
    """uint8 `[T, H, W, 3]` in a spool, read as it is asked for: stands for the array wherever that is gone through.

    An index gives what the array's would: a frame for a number, an array for a slice or a list of numbers. `np.asarray`
    reads all of it.
    """

    ndim = 4

    def __init__(self, spool: Spool, at: int, shape: tuple[int, int, int, int]) -> None:
        import numpy as np

        self._spool, self._at, self.shape, self.dtype = spool, at, shape, np.dtype(np.uint8)
        self._one = shape[1] * shape[2] * shape[3]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        return len(self) * self._one

    def __getitem__(self, index: Any) -> np.ndarray:
        import numpy as np

        if isinstance(index, tuple):
            within = index[1:]
            if isinstance(index[0], slice | list | np.ndarray):
                within = (slice(None), *within)
            return self[index[0]][within]
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._read(start, max(stop - start, 0))
            return self._picked(list(range(start, stop, step)))
        if isinstance(index, list | np.ndarray):
            numbers = np.asarray(index)
            return self._picked((np.flatnonzero(numbers) if numbers.dtype == bool else numbers).tolist())
        number = int(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"frame {number} of {len(self)}")
        return self._read(number % len(self), 1)[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self._read(0, len(self))
        return whole if dtype is None else whole.astype(dtype)

    def _read(self, first: int, count: int) -> np.ndarray:
        return self._spool.read(self._at + first * self._one, (count, *self.shape[1:]))

    def _picked(self, numbers: list[int]) -> np.ndarray:
        import numpy as np

        return np.stack([self[number] for number in numbers]) if numbers else np.empty((0, *self.shape[1:]), np.uint8)


__all__ = ["Frames", "Spool"]
