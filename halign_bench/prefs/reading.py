"""Reads a preference file: its lines, the files and sessions that they name, and what they say together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from halign_bench.assets.hashing import sha256_of
from halign_bench.errors import RequestError
from halign_bench.prefs.labels import SIGNS, Judgement, Labels
from halign_bench.prefs.lines import Condition, Pair, Problem, Single, parse, refuse, unit_of
from halign_bench.prefs.session import Session, read_session


@dataclass(frozen=True)
class Video:
    """Where a candidate comes from: a file, or a candidate of a session. `line` and `place` in it first named it."""

    file: Path | None
    session: Path | None
    number: int
    line: int = field(compare=False)
    place: str = field(compare=False)


@dataclass
class Prompt:
    """What the videos of some lines were made for. `name` is the clip's, or made of the condition's files."""

    name: str
    clip: str | None
    condition: Condition | None
    line: int  # that first named it
    identity: str | None = None
    videos: list[Video] = field(default_factory=list)

    def place(self, video: Video) -> int:
        if video not in self.videos:
            self.videos.append(video)
        return self.videos.index(video)


@dataclass(frozen=True)
class PreferenceFile:
    """A file without a fault in what can be told before a video is decoded.

    sha256    of its bytes
    prompts   ordered by the hash of their names, so that who is held out does not depend on the order of lines
    sessions  that it names, by folder
    """

    path: Path
    sha256: str
    prompts: list[Prompt]
    labels: Labels
    sessions: dict[Path, Session]

    @cached_property
    def contents_sha256(self) -> str:
        """sha256 of everything that the file names: videos, conditions, sessions. Raises RequestError."""
        parts = {f"session {session.key}": session.key for session in self.sessions.values()}
        for path in sorted(set(self._files())):
            try:
                parts[path.relative_to(self.path.parent).as_posix()] = sha256_of(path)
            except OSError as problem:
                raise RequestError(f"{path}: cannot be read ({problem.strerror or problem})") from None
        listed = "\n".join(f"{digest} {name}" for name, digest in sorted(parts.items()))
        return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()

    def _files(self) -> list[Path]:
        files = [video.file for prompt in self.prompts for video in prompt.videos if video.file is not None]
        for prompt in self.prompts:
            files += [self.path.parent / name for name in condition_files(prompt.condition).values()]
        return files


def condition_files(condition: Condition | None) -> dict[str, str]:
    """Field of a condition -> the file it names."""
    if condition is None:
        return {}
    named = {"reference": condition.reference, "audio": condition.audio, "skeleton": condition.skeleton}
    return {name: file for name, file in named.items() if file is not None}


def read_preferences(path: Path) -> PreferenceFile:
    """Raises RequestError with everything that is wrong with the file and what it names; decodes no video."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise RequestError(f"--preferences {path}: cannot be read ({problem.strerror or problem})") from None
    lines = parse(path, content)
    reader = _Reader(path)
    for number, line in lines:
        reader.add(number, line)
    if reader.problems:
        refuse(path, reader.problems)
    if len(reader.prompts) < 2:
        raise RequestError(f"{path}: all its lines are of one prompt; at least 2 are needed, one of them held out")
    order = sorted(reader.prompts, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    place = {name: row for row, name in enumerate(order)}
    judgements = [Judgement(place[name], first, second, signs) for name, first, second, signs in reader.judgements]
    prompts = [reader.prompts[name] for name in order]
    labels = Labels(str(path), len(prompts), [prompt.clip is not None for prompt in prompts], judgements)
    return PreferenceFile(path, hashlib.sha256(content).hexdigest(), prompts, labels, reader.sessions)


class _Reader:
    """Puts lines together, and collects what is wrong with them together."""

    def __init__(self, path: Path) -> None:
        self.path, self.unit = path, unit_of(path)
        self.problems: list[Problem] = []
        self.prompts: dict[str, Prompt] = {}
        self.sessions: dict[Path, Session] = {}
        self.judgements: list[tuple[str, int, int | None, dict[str, int]]] = []
        self._said: dict[tuple[object, ...], int] = {}
        self._bad_sessions: dict[Path, str] = {}
        self._bad_files: dict[str, str | None] = {}

    def add(self, number: int, line: Pair | Single) -> None:
        before = len(self.problems)
        session = self._session(number, line) if line.session is not None else None
        videos = [self._video(number, name, video, line, session) for name, video in line.videos.items()]
        for name, file in condition_files(line.condition).items():
            self._file(number, f"condition.{name}", file)
        prompt = self._prompt(number, line)
        if len(self.problems) > before:
            return
        places = [prompt.place(video) for video in videos if video is not None]
        if self._repeated(number, line, prompt, places):
            return
        signs = {name: SIGNS[label] for name, label in line.labels.items()}
        self.judgements.append((prompt.name, places[0], places[1] if len(places) > 1 else None, signs))

    def _prompt(self, number: int, line: Pair | Single) -> Prompt:
        condition = line.condition
        name = line.clip if line.clip is not None else "condition:" + "+".join(condition_files(condition).values())
        identity = condition.identity if condition else None
        prompt = self.prompts.setdefault(name, Prompt(name, line.clip, condition, number, identity))
        if prompt.identity != identity:
            self._wrong(
                number, "condition.identity",
                f"is {identity or 'not given'} and was {prompt.identity or 'not given'} in {self.unit} {prompt.line} "
                "for the same files; make them agree",
            )  # fmt: skip
        return prompt

    def _repeated(self, number: int, line: Pair | Single, prompt: Prompt, places: list[int]) -> bool:
        key = (prompt.name, tuple(sorted(places)), line.annotator)
        first = self._said.setdefault(key, number)
        if first != number:
            what = "the same two videos" if len(places) > 1 else "the same video"
            who = f"by {line.annotator}" if line.annotator else "and no annotator is named"
            self._wrong(
                number, "left" if len(places) > 1 else "video",
                f"{what} as in {self.unit} {first}, {who}; keep one of them, or name who gave which as annotator",
            )  # fmt: skip
        return first != number

    def _session(self, number: int, line: Pair | Single) -> Session | None:
        folder = self.path.parent / str(line.session)
        if folder not in self.sessions and folder not in self._bad_sessions:
            try:
                self.sessions[folder] = read_session(folder)
            except RequestError as problem:
                self._bad_sessions[folder] = str(problem)
            except ValueError:  # a NUL in the name
                self._bad_sessions[folder] = "cannot be the name of a folder"
        if folder in self._bad_sessions:
            self._wrong(number, "session", f"{self._bad_sessions[folder]}")
            return None
        session = self.sessions[folder]
        if line.clip is not None and line.clip not in session.rows:
            self._wrong(number, "clip", f"{line.clip} is none of the {len(session.rows)} clips of {line.session}")
            return None
        return session

    def _video(
        self, number: int, name: str, video: str | int, line: Pair | Single, session: Session | None
    ) -> Video | None:
        if isinstance(video, str):
            found = self._file(number, name, video)
            return Video(found, None, 0, number, name) if found is not None else None
        if session is None or line.clip is None:
            return None  # told already
        count = len(session.prompts[session.rows[line.clip]].candidates)
        if video >= count:
            self._wrong(number, name, f"{video} is no candidate of {line.clip}; it has 0 to {count - 1}")
            return None
        return Video(None, session.folder, video, number, name)

    def _file(self, number: int, name: str, file: str) -> Path | None:
        if file not in self._bad_files:
            self._bad_files[file] = _unusable(self.path.parent, file)
        if (why := self._bad_files[file]) is not None:
            self._wrong(number, name, f"{file} {why}")
            return None
        return self.path.parent / file

    def _wrong(self, number: int, name: str, text: str) -> None:
        self.problems.append(Problem(number, name, text))


def _unusable(folder: Path, file: str) -> str | None:
    """Why this name is no file to read; None where it is."""
    if "://" in file:
        return "is an address; fetch the file, and name it relative to the preference file"
    if Path(file).is_absolute():
        return "is absolute; name it relative to the preference file, so that both can be moved together"
    try:
        path = folder / file
        if path.is_file():
            return None
        return "is not a file" if path.exists() else "does not exist; names are relative to the preference file"
    except (OSError, ValueError) as problem:
        return f"cannot be the name of a file ({problem}); correct it"


__all__ = ["PreferenceFile", "Prompt", "Video", "condition_files", "read_preferences"]
