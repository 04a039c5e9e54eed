"""The folder of a report: replaced at once, and nothing removed from it that a report did not put there.

`index.html` names the folder that its files lie in, which is called by their contents. So a reader has either the old
report or the new one, whenever the writing is killed, and the same records give the same files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from halign_bench.atomic import atomic_write
from halign_bench.documents import parsed
from halign_bench.errors import RequestError, RunLocked

SCHEMA = "halign-bench/report/1"
INDEX, MANIFEST, LOCK, PARTIAL = "index.html", "report.json", ".lock", ".partial"


def script(name: str, value: Any) -> str:
    """A file that gives `value` to the page, which cannot fetch from disk. It stays one script whatever is in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f"halign.receive({json.dumps(name)},{text.replace('<', chr(92) + 'u003c')});\n"


class Files:
    """What a report is made of, while it is made."""

    index: Callable[[str], str]  # name of the folder that they will lie in -> the text of index.html

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where to write the file of this name ("gallery/00/real.mp4"); its folder is there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, name: str, text: str) -> None:
        self.path(name).write_text(text, encoding="utf-8")

    def names(self) -> list[str]:
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())

    def version(self) -> str:
        """A name that only these contents have."""
        digest = hashlib.sha256()
        for name in self.names():
            content = (self.folder / name).read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return f"files-{digest.hexdigest()[:12]}"


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Files]:
    """Files written within the context become the report when it ends well; else the folder stays as it was.

    Whoever writes them sets their `index`.
    Raises RequestError where `out` is not a folder of reports or cannot be written, RunLocked where one is being made.
    """
    from filelock import FileLock, Timeout

    _check(out)
    was_there = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    partial = out / PARTIAL
    try:
        with FileLock(out / LOCK, timeout=0):
            _clear(partial)  # of one that was killed
            try:
                files = Files(partial)
                yield files
                version = files.version()
                _publish(out, files, version, files.index(version))
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                if not (out / MANIFEST).exists():  # the first one, and it came to nothing
                    (out / LOCK).unlink()
                    if not was_there:
                        with contextlib.suppress(OSError):
                            out.rmdir()
    except Timeout:
        raise RunLocked(f"--out {out}: another report is being made there; wait for it") from None


def _check(out: Path) -> None:
    """Raises RequestError where something else lies there."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out}: is a file; give a folder")
    if (out / MANIFEST).exists():
        _listed(out)
    elif out.is_dir() and any(path.name not in (LOCK, PARTIAL) for path in out.iterdir()):
        raise RequestError(f"--out {out}: is not empty and holds no report; choose another folder")


def _listed(out: Path) -> list[str]:
    try:
        document = parsed((out / MANIFEST).read_text(encoding="utf-8"))
        names = document["files"] if document["schema"] == SCHEMA else None
    except OSError as problem:
        raise RequestError(f"{out / MANIFEST}: cannot be read ({problem.strerror or problem})") from None
    except (ValueError, KeyError, TypeError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and _inside(name) for name in names):
        raise RequestError(f"{out / MANIFEST}: was not written by halign-bench report; choose another --out")
    return names


def _clear(partial: Path) -> None:
    """Raises OSError where somebody put something there that would be written through."""
    if partial.is_symlink():
        partial.unlink()
    shutil.rmtree(partial, ignore_errors=True)


def _lies_in(out: Path, name: str) -> bool:
    """Whether the folder of a listed file is one of the report's own, and no link to somewhere else."""
    return (out / name).parent.resolve().is_relative_to(out.resolve())


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _publish(out: Path, files: Files, version: str, index: str) -> None:
    old = _listed(out) if (out / MANIFEST).exists() else []
    new = [*(f"{version}/{name}" for name in files.names()), INDEX]
    _list(out, sorted({*old, *new}))  # before any of them is there: what is killed now is cleared next time
    if (out / version).is_symlink():
        (out / version).unlink()
    for name in files.names():
        target = out / version / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(files.folder / name, target)
    atomic_write(out / INDEX, index)
    for name in sorted({*old} - {*new}):
        if not _lies_in(out, name):
            continue
        (out / name).unlink(missing_ok=True)
        for folder in PurePosixPath(name).parents:
            with contextlib.suppress(OSError):  # not empty
                (out / folder).rmdir()
    _list(out, new)


def _list(out: Path, names: Sequence[str]) -> None:
    atomic_write(out / MANIFEST, json.dumps({"schema": SCHEMA, "files": list(names)}, indent=2) + "\n")


__all__ = ["Files", "replacing", "script"]
