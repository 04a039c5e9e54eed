"""What one annotator answered: a file of lines that only grows, each on the disk before the page is told.

An answer or its withdrawal is one line. A last line without its end is of a write that was cut short: whoever gave
it was never told that it is kept, and it is taken away before anything is appended.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from halign_bench.errors import RequestError, RunLocked
from halign_bench.prefs.lines import Criterion

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
FOLDER = "answers"
Label = Literal["left", "right", "tie"]


class Answer(BaseModel):
    """One criterion of one pair.

    left, right  the candidates of `clip`, left the lower number
    label        which of them is better
    shown        the candidates as the annotator saw them: on side 1, on side 2
    seconds      from when the question was shown
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip: str
    left: Annotated[int, Field(ge=0)]
    right: Annotated[int, Field(ge=0)]
    criterion: Criterion
    label: Label
    shown: tuple[int, int]
    seconds: Annotated[float, Field(ge=0, le=1e6)]
    time: str


class Undo(BaseModel):
    """Withdraws the last answer that stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    undo: Literal[True]
    time: str


def check_name(name: str) -> str:
    """An annotator's name is a file's name too. Raises RequestError."""
    if not NAME.fullmatch(name):
        raise RequestError(f"--annotator {name}: write a name of small letters, digits, - and _, at most 40")
    return name


def answers_path(session: Path, annotator: str) -> Path:
    return session / FOLDER / f"{annotator}.jsonl"


def read_all(session: Path) -> dict[str, list[Answer]]:
    """Standing answers of every annotator, by name in order. Raises RequestError for a damaged file."""
    files = sorted((session / FOLDER).glob("*.jsonl"))
    return {file.stem: standing(file)[0] for file in files if NAME.fullmatch(file.stem)}


def standing(path: Path) -> tuple[list[Answer], int]:
    """Answers that were not withdrawn, in their order, and how many bytes of the file are whole lines."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as problem:
        raise RequestError(f"{path}: cannot be read ({problem.strerror or problem})") from None
    whole = content.rfind(b"\n") + 1
    found: list[Answer] = []
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            entry: Answer | Undo = (
                Undo.model_validate_json(line) if b'"undo"' in line[:20] else Answer.model_validate_json(line)
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "line"
            raise RequestError(
                f"{path}, line {number}: is damaged ({where}: {first['msg']}); restore the file, or take out the line"
            ) from None
        if isinstance(entry, Answer):
            found.append(entry)
        elif found:
            found.pop()
    return found, whole


class AnswerLog:
    """The answers of one annotator, to be added to; get one from `AnswerLog.open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers, whole = standing(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, whole)
        _sync_folder(path.parent)

    @classmethod
    @contextmanager
    def open(cls, session: Path, annotator: str) -> Iterator[AnswerLog]:
        """Raises RunLocked when another process writes this annotator's answers, RequestError for a damaged file."""
        from filelock import FileLock, Timeout

        path = answers_path(session, check_name(annotator))
        try:
            path.parent.mkdir(exist_ok=True)
            lock = FileLock(path.with_name(f".{annotator}.lock"))
            lock.acquire(timeout=0)
        except Timeout:
            raise RunLocked(
                f"{session}: {annotator} is labelling there already; go on in that page, or take another --annotator"
            ) from None
        except OSError as problem:
            raise RequestError(f"{path.parent}: cannot be written ({problem.strerror or problem})") from None
        try:
            log = cls(path)
            try:
                yield log
            finally:
                os.close(log._file)
                log._file = -1  # a page that is still open is told so, and writes into no other file
        finally:
            lock.release()

    def add(self, answer: Answer) -> None:
        """Raises OSError where it cannot be kept; then the file is as it was."""
        self._append(answer.model_dump_json())
        self.answers.append(answer)

    def undo(self) -> Answer | None:
        """Withdraws the last answer, and returns it; None when there is none. Raises OSError like `add`."""
        if not self.answers:
            return None
        self._append(Undo(undo=True, time=now()).model_dump_json())
        return self.answers.pop()

    def _append(self, line: str) -> None:
        content, size = f"{line}\n".encode(), os.fstat(self._file).st_size
        try:
            written = os.write(self._file, content)
            if written != len(content):
                raise OSError(28, f"only {written} of {len(content)} bytes could be written")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _sync_folder(folder: Path) -> None:
    """So that a new file is there after a power cut too; not every system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


__all__ = ["Answer", "AnswerLog", "Label", "answers_path", "check_name", "now", "read_all", "standing"]
