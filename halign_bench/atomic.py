"""Files that appear whole or not at all, whenever the process is killed.

A file is written as `.NAME.tmp` beside its place, under a lock of the kernel's, and moved there when it is whole. The
lock ends with its process: what a killed one left is taken over by whoever next writes the same file, so that nothing
piles up, and a second writer waits for the first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROBE = 2**20  # bytes


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends well, and goes away otherwise.

    The block writes to the file that is there, empty. Raises OSError, with `path` in it, where it could not be
    written, whatever class of error the library that wrote it has for that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, handle = _opened(path)
    try:
        yield temporary
        os.fsync(handle)
        os.replace(temporary, path)
    except Exception as problem:
        told = isinstance(problem, OSError) and problem.errno is not None
        # On a full disk safetensors and torch raise what is no OSError, and numpy one that does not say why.
        refused = problem if told else _refused(handle)
        if not isinstance(refused, OSError):
            raise
        raise _about(path, refused, temporary) from problem
    finally:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(temporary), os.fstat(handle)):  # else it is in its place, or somebody else's
                os.unlink(temporary)
        os.close(handle)


def _opened(path: Path) -> tuple[Path, int]:
    """The temporary file of `path`, empty and locked."""
    temporary, flags = path.with_name(f".{path.name}.tmp"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    while True:
        try:
            handle = os.open(temporary, flags, 0o666)
        except OSError as problem:
            if problem.errno not in (errno.EACCES, errno.EPERM, errno.ELOOP):
                raise
            return _own(path)
        if not _plain(handle):
            os.close(handle)
            return _own(path)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                # Whoever had it has not moved it to its place meanwhile.
                if os.path.samestat(os.stat(temporary), os.fstat(handle)):
                    os.ftruncate(handle, 0)
                    return temporary, handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _own(path: Path) -> tuple[Path, int]:
    """Under a name that nobody else has, as what lies at the usual one is another user's, or a trap."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _plain(handle: int) -> bool:
    """Whether writing to it touches no other name: an ordinary file with one name."""
    found = os.fstat(handle)
    return stat.S_ISREG(found.st_mode) and found.st_nlink <= 1


def _refused(handle: int) -> OSError | None:
    """Why no more can be written to a file, if so."""
    try:
        os.pwrite(handle, bytes(PROBE), os.fstat(handle).st_size)
    except OSError as problem:
        return problem
    return None


def _about(path: Path, problem: OSError, temporary: Path) -> OSError:
    """The same error, of the file that a reader knows."""
    if problem.filename not in (None, str(temporary)):
        return problem
    assert problem.errno is not None
    return OSError(problem.errno, os.strerror(problem.errno), str(path))


def atomic_write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


__all__ = ["atomic_path", "atomic_write"]
