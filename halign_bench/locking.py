"""One process at a time, by a lock of the kernel's: it ends with its process, however that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from halign_bench.errors import RequestError, RunLocked


@contextmanager
def locked(file: Path, place: str, busy: str) -> Iterator[None]:
    """Holds the lock of this file, which is made together with its folder.

    Raises `RunLocked` that says "place: busy" where another process holds it, `RequestError` where it cannot be made:
    nothing could be written there either.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunLocked(f"{place}: {busy}") from None
    except OSError as problem:
        raise RequestError(f"{place}: cannot be written ({problem.strerror or problem})") from None
    try:
        yield
    finally:
        lock.release()


__all__ = ["locked"]
