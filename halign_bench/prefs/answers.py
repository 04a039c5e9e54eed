"""What one annotator answered: a file of JSON lines that is written anew, whole or not at all, after every answer."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from halign_bench.atomic import atomic_write
from halign_bench.errors import RequestError
from halign_bench.locking import locked
from halign_bench.prefs.lines import Criterion, Label

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
FOLDER = "answers"


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


def check_name(name: str) -> str:
    """An annotator's name is a file's name too. Raises RequestError."""
    if not NAME.fullmatch(name):
        raise RequestError(f"--annotator {name}: write a name of small letters, digits, - and _, at most 40")
    return name


def answers_path(session: Path, annotator: str) -> Path:
    return session / FOLDER / f"{annotator}.jsonl"


def read_all(session: Path) -> dict[str, list[Answer]]:
    """Answers of every annotator, by name in order. Raises RequestError for a damaged file."""
    files = sorted((session / FOLDER).glob("*.jsonl"))
    return {file.stem: read_answers(file) for file in files if NAME.fullmatch(file.stem)}


def read_answers(path: Path) -> list[Answer]:
    """In the order they were given. Raises RequestError for a damaged file."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise RequestError(f"{path}: cannot be read ({problem.strerror or problem})") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Answer.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "line"
            raise RequestError(
                f"{path}, line {number}: is damaged ({where}: {first['msg']}); restore the file, or take out the line"
            ) from None
    return found


class AnswerLog:
    """The answers of one annotator, to be added to; get one from `AnswerLog.open`."""

    def __init__(self, path: Path) -> None:
        self.path, self.answers = path, read_answers(path)
        self._open = True

    @classmethod
    @contextmanager
    def open(cls, session: Path, annotator: str) -> Iterator[AnswerLog]:
        """Raises RunLocked when another process writes this annotator's answers, RequestError for a damaged file."""
        path = answers_path(session, check_name(annotator))
        busy = f"{annotator} is labelling there already; go on in that page, or take another --annotator"
        with locked(path.with_name(f".{annotator}.lock"), str(session), busy):
            log = cls(path)
            try:
                yield log
            finally:
                log._open = False  # a page that is still open writes nothing more: the file may be another's by then

    def add(self, answer: Answer) -> None:
        """Raises OSError where it cannot be kept; then everything is as it was."""
        self._write([*self.answers, answer])

    def undo(self) -> None:
        """Withdraws the last answer, if there is one. Raises OSError like `add`."""
        if self.answers:
            self._write(self.answers[:-1])

    def _write(self, answers: list[Answer]) -> None:
        if not self._open:
            raise OSError(errno.EBADF, "the command has ended")
        atomic_write(self.path, "".join(f"{answer.model_dump_json()}\n" for answer in answers))
        self.answers = answers


__all__ = ["Answer", "AnswerLog", "answers_path", "check_name", "read_all", "read_answers"]
