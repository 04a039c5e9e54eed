"""What the machine refuses, in whatever class of error it arrives: memory, and room or leave to write."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from halign_bench.errors import first_line

# Full, over quota, too large a file, read-only, broken, too many files open.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
MEMORY = re.compile(  # torch on a processor and on a GPU, the dynamic linker, C++, threads that get no stack
    r"can(?:'|no)t allocate memory|not enough memory|out of memory|failed to allocate|failed to map segment|bad_alloc"
    r"|can't start new thread|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
    r"|could not create a (?:primitive|memory)(?! desc)",  # oneDNN
    re.IGNORECASE,
)


def out_of_memory(problem: BaseException) -> bool:
    """Whether this is a lack of memory, of the processor's or of a GPU's."""
    if isinstance(problem, MemoryError) or (isinstance(problem, OSError) and problem.errno == errno.ENOMEM):
        return True
    return isinstance(problem, RuntimeError | ImportError | OSError) and bool(MEMORY.search(str(problem)))


def memory_sentence(problem: BaseException) -> str:
    """
    >>> memory_sentence(MemoryError())
    'not enough memory (MemoryError)'
    """
    said = re.sub(r"^\[enforce fail at [^\]]*\]\s*\.?\s*", "", first_line(problem))
    return f"not enough memory ({said})"


def disk_refusal(problem: BaseException, *folders: Path) -> OSError | None:
    """The error, if it says that nothing can be written, at all or (for lack of leave) in one of these folders."""
    if not isinstance(problem, OSError):
        return None
    if problem.errno in DISK:
        return problem
    if problem.errno in (errno.EACCES, errno.EPERM) and isinstance(problem.filename, str):
        inside = any(Path(problem.filename).absolute().is_relative_to(folder.absolute()) for folder in folders)
        return problem if inside else None
    return None


__all__ = ["DISK", "disk_refusal", "memory_sentence", "out_of_memory"]
