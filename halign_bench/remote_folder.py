"""The folder of a run under an fsspec URL (`s3://bucket/run`): worked on in scratch folders, kept there."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.errors import RequestError
from halign_bench.folder import TABLES, RunFolder

if TYPE_CHECKING:
    from halign_bench.leaderboard import Leaderboard
    from halign_bench.protocol import Protocol


SCRATCH = "halign-run-"


def run_folder(out: Path | str) -> RunFolder:
    """Raises RequestError for a URL that nothing here can open."""
    return UrlFolder(out) if isinstance(out, str) and "://" in out else RunFolder(Path(out))


class UrlFolder(RunFolder):
    """Every process works in a scratch folder of its own; what is finished is put under the URL, file by file, whole.

    What is not finished is lost with its process. An object store has no locks: nothing keeps a second run off.
    """

    def __init__(self, url: str) -> None:
        _sweep_scratch()
        self._scratch = tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-")
        super().__init__(Path(self._scratch.name), url)
        self._there: dict[str, list[str]] = {}  # versions of what was fetched, by name below the URL
        self._here: dict[str, tuple[int, int]] = {}  # and what the files here were when they were the same
        try:
            import fsspec

            self.fs, root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as problem:
            raise RequestError(f"--out {url}: {problem}") from None
        self.root = str(root).rstrip("/")

    def __reduce__(self) -> tuple[type[UrlFolder], tuple[str]]:
        """Another process opens it for itself."""
        return UrlFolder, (self.name,)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """No lock, but the mark by which workers know that they see the same place."""
        top = self.root.partition("/")[0]  # a bucket; a path of a file system begins with /
        with self._told():
            if top and not self.fs.exists(top):
                raise FileNotFoundError(f"there is no {top}")  # which `makedirs` would make
            self.fs.makedirs(self.root, exist_ok=True)
            self.fs.pipe_file(f"{self.root}/.lock", b"")
        for name in ("run.json", *TABLES):
            self.fetch(name)
        yield

    def join(self) -> None:
        with self._told():
            self.fs.invalidate_cache()
            seen = self.fs.exists(f"{self.root}/.lock")
        if not seen:
            raise RequestError(f"--out {self.name}: a worker does not see what the run wrote there")
        self.fetch("run.json")
        self.fetch("preferences/*/*.safetensors")

    def claim(self, protocol: Protocol) -> None:
        super().claim(protocol)
        self.publish("run.json")

    def write_tables(self) -> Leaderboard:
        self.fetch("records/*")
        board = super().write_tables()
        for name in TABLES:
            self.publish(name)
        return board

    def fetch(self, pattern: str) -> None:
        """What is there and not the same here; all of it at once, as one request after the other takes long."""
        with self._told():
            self.fs.invalidate_cache()
            found = self.fs.glob(f"{self.root}/{pattern}", detail=True)
            names = {path: path[len(self.root) + 1 :] for path, info in found.items() if info["type"] == "file"}
            names = {path: name for path, name in names.items() if not name.endswith(".tmp")}
            versions = {path: _version(found[path]) for path in names}
            wanted = [path for path, name in names.items() if self._there.get(name) != versions[path]]
            for path in wanted:
                (self.path / names[path]).parent.mkdir(parents=True, exist_ok=True)
            if wanted:
                self.fs.get(wanted, [str(self.path / names[path]) for path in wanted])
            for path in wanted:
                self._there[names[path]] = versions[path]
                self._here[names[path]] = _state(self.path / names[path])

    def publish(self, pattern: str) -> None:
        """Each file under a name of its own first, then moved: whoever sees it sees all of it."""
        for file in sorted(self.path.glob(pattern)):
            below = file.relative_to(self.path)
            name = below.as_posix()
            if any(part.startswith(".") for part in below.parts) or not file.is_file():
                continue
            if self._here.get(name) == _state(file):
                continue
            target = f"{self.root}/{name}"
            parent, _, last = target.rpartition("/")
            temporary = f"{parent}/.{last}.{secrets.token_hex(4)}.tmp"
            with self._told():
                self.fs.makedirs(parent, exist_ok=True)
                self.fs.put_file(str(file), temporary)
                self.fs.mv(temporary, target)
            self._here[name] = _state(file)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever a store and its client raise is the user's to mend: keys, network, a bucket that is not there."""
        try:
            yield
        except Exception as problem:
            reason = (str(problem).strip().splitlines() or [""])[0]
            raise RequestError(f"--out {self.name}: {type(problem).__name__}: {reason}") from None


def _sweep_scratch() -> None:
    """Deletes what processes left that were killed, as Ray ends its workers."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*-*"):
        owner = folder.name.removeprefix(SCRATCH).partition("-")[0]
        try:
            os.kill(int(owner), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (OSError, ValueError):
            continue  # somebody else's


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _version(info: dict[str, Any]) -> list[str]:
    """Changes when a file does, as far as its store can tell."""
    return [str(info.get(key)) for key in ("size", "ETag", "etag", "md5", "mtime", "LastModified", "ino")]


__all__ = ["UrlFolder", "run_folder"]
