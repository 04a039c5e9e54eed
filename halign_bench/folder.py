"""The folder of a run: its lock, its protocol, its records, and what `--fresh` may delete."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from halign_bench.documents import parsed
from halign_bench.errors import RequestError
from halign_bench.locking import locked

if TYPE_CHECKING:  # results and its models are imported where they are needed: a wrong request is answered without
    from halign_bench.leaderboard import Leaderboard
    from halign_bench.plan import Cell
    from halign_bench.progress import Progress
    from halign_bench.protocol import Protocol
    from halign_bench.record import Record

SCHEMA = "halign-bench/run/1"
TABLES = ("leaderboard.json", "leaderboard.md", "leaderboard.csv")
MADE_IN_CELLS = (  # by training and evaluation, relative to a cell's folder; * spans folders
    "train/*/train.jsonl", "train/*/result.json", "train/*/checkpoint.pt", "train/*/.*.partial*", "train/*/.*.tmp",
    "train/*/adapters/*/pytorch_lora_weights.safetensors", "train/*/adapters/*/insert.safetensors",
    "train/*/adapters/*/insert.json",
    "eval/nfe*-*.npz", "eval/.nfe*.tmp", "traceback.txt", ".lock",
)  # fmt: skip


def cache_dir() -> Path:
    """Where runs share what is addressed by its content: $HALIGN_CACHE, or the user's cache folder."""
    if given := os.environ.get("HALIGN_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "halign-bench"


class RunFolder:
    """OUT: run.json (the protocol), records/, cells/ (training, samples), leaderboard.{json,md,csv}.

    Of a run on several machines it also holds `preferences/`, which they share; `name` is what a person calls it.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path, self.name = path, name or str(path)
        self.manifest = path / "run.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second run off this folder."""
        busy = "another run is working there; wait for it or choose another folder"
        with locked(self.path / ".lock", f"--out {self.name}", busy):
            self._sweep()
            yield

    def join(self) -> None:
        """For whoever works here for a run that holds the lock. Raises `RequestError` where this is another folder."""
        if not (self.path / ".lock").exists():
            raise RequestError(
                f"--out {self.name}: a worker sees another folder of this name, or none; give one that all machines "
                "share, or a URL"
            )

    @contextlib.contextmanager
    def held(self, work: Path, progress: Progress) -> Iterator[None]:
        """Keeps a second worker off a cell: waits until the first has let go of it, or died."""
        from filelock import FileLock, Timeout

        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.say(f"{work.name}: waits for another worker that is at it")
            while not lock.is_locked:
                progress.stop.check()
                with contextlib.suppress(Timeout):
                    lock.acquire(timeout=1)
        try:
            yield
        finally:
            lock.release()

    def fetch(self, pattern: str) -> None:
        """Brings files that other machines left. In a shared folder they are here."""

    def publish(self, pattern: str) -> None:
        """Puts files where other machines find them. In a shared folder they do."""

    def _sweep(self) -> None:
        """Deletes half-written files that killed runs left; under the lock nobody else can be writing them."""
        tops = (".run.json*", ".leaderboard.*", "records/.*", "preferences/*/.*")
        for pattern in (*tops, *(f"cells/*-s*-*/{made}" for made in ("eval/.nfe*", "train/*/.*"))):
            for path in self.path.glob(f"{pattern}.tmp"):
                path.unlink(missing_ok=True)

    # The protocol of the folder

    def check_own(self) -> None:
        """Refuses a folder whose tables somebody else made: they would be overwritten."""
        if self.manifest.exists():
            self._read_manifest()
            return
        for name in TABLES:
            if (self.path / name).exists():
                raise RequestError(f"--out {self.name}: its {name} was not made by a run here; choose another folder")

    def claim(self, protocol: Protocol) -> None:
        """Ties the folder to this protocol. Raises `RequestError` when it is tied to another one."""
        from halign_bench.atomic import atomic_write

        self.check_claim(protocol)
        if not self.manifest.exists():
            document = {
                "schema": SCHEMA, "protocol_hash": protocol.sha256, "protocol": protocol.model_dump(mode="json")
            }  # fmt: skip
            atomic_write(self.manifest, json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def check_claim(self, protocol: Protocol) -> None:
        """Raises `RequestError` when the folder is tied to another protocol."""
        document = self._read_manifest() if self.manifest.exists() else None
        if document is not None and document["protocol_hash"] != protocol.sha256:
            differing = protocol.differences(document["protocol"])
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise RequestError(
                f"--out {self.name} holds a run under another protocol ({'; '.join(differing[:3])}{more}): choose "
                "another folder, or --fresh to replace it"
            )

    def _read_manifest(self) -> dict:
        try:
            document = parsed(self.manifest.read_text(encoding="utf-8"))
            if document["schema"] == SCHEMA and document["protocol_hash"] and isinstance(document["protocol"], dict):
                return dict(document)
        except OSError as problem:
            raise RequestError(f"{self.manifest}: cannot be read ({problem.strerror or problem})") from None
        except (ValueError, KeyError, TypeError):
            pass
        raise RequestError(f"{self.manifest}: not a run of halign-bench; choose another --out")

    # Cells

    def record_path(self, cell: Cell) -> Path:
        return self.path / "records" / f"{cell.name}.json"

    def work(self, cell: Cell, cell_hash: str) -> Path:
        """Of this cell with exactly this protocol and these numbers."""
        return self.path / "cells" / f"{cell.name}-{cell_hash[:8]}"

    def record(self, cell: Cell, cell_hash: str) -> Record | None:
        """The record of this cell, done or failed; None when absent, damaged, or of other numbers."""
        from halign_bench.companions import companions_intact
        from halign_bench.results import read_record

        path = self.record_path(cell)
        if not path.exists():
            return None
        try:
            record = read_record(path)
        except RequestError:
            return None
        return record if record.cell_hash == cell_hash and companions_intact(record) else None

    def publish_cell(self, cell: Cell, work: Path) -> None:
        """What is kept of a cell that has ended; its record last, as that says that the rest is there."""
        own = f"cells/{work.name}"
        for pattern in (f"{own}/train/**/*", f"{own}/traceback.txt", f"records/{cell.name}.*.parquet"):
            self.publish(pattern)
        self.publish(f"records/{cell.name}.json")

    # Tables

    def write_tables(self) -> Leaderboard:
        """From every record in the folder, also of methods that an earlier run added."""
        from halign_bench.leaderboard import build
        from halign_bench.results import read_records

        board = build(*read_records([self.path]))
        current = self.path / "leaderboard.json"
        if any(not (self.path / name).exists() for name in TABLES) or current.read_text("utf-8") != board.to_json():
            board.write_all(self.path)
        return board

    # --fresh

    def clear(self) -> None:
        """Deletes what runs made here, file by file, and nothing else; the shared cache stays."""
        from halign_bench.results import read_record

        if not self.manifest.exists():
            return
        self._read_manifest()
        for path in (self.path / "records").glob("*.json"):
            with contextlib.suppress(RequestError):
                read_record(path)  # a file that is no record is somebody else's
                for name in (path.name, f"{path.stem}.clips.parquet", f"{path.stem}.bootstrap.parquet"):
                    path.with_name(name).unlink(missing_ok=True)
        for cell in (self.path / "cells").glob("*-s*-*"):
            clear_cell(cell)
        for name in TABLES:
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path / "cells", self.path / "records"):
            with contextlib.suppress(OSError):  # not empty: something of the user's is in it
                folder.rmdir()
        self.manifest.unlink()  # last, so that a kill on the way leaves a folder that is known to be ours


def clear_cell(folder: Path, under: str = "") -> None:
    """Deletes what training and evaluation made in a cell's folder (or only in `under` there), then empty folders."""
    for root, _, files in os.walk(folder / under, topdown=False):
        for name in files:
            path = Path(root, name)
            if any(fnmatch.fnmatch(path.relative_to(folder).as_posix(), pattern) for pattern in MADE_IN_CELLS):
                path.unlink()
        with contextlib.suppress(OSError):
            os.rmdir(root)


__all__ = ["TABLES", "RunFolder", "cache_dir", "clear_cell"]
