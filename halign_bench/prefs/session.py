"""The folder of a labelling session: session.json, videos/, answers/. Everything else is read from there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from halign_bench.errors import RequestError
from halign_bench.prefs.lines import Criterion

SCHEMA: Literal["halign-bench/prefs-session/1"] = "halign-bench/prefs-session/1"
MANIFEST = "session.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Noise(_Part):
    """What a candidate began as: `sampling.initial_noise` of this name and seed."""

    name: str
    seed: int


class Candidate(_Part):
    """One sample of the base. `scores` are the track's annotator's, higher is better; null where it gave none."""

    video: Annotated[str, Field(pattern=r"^videos/[0-9]+-[0-9]+\.mp4$")]
    noise: Noise
    scores: dict[str, float | None]


class Prompt(_Part):
    """A training prompt of the track, the image of who is to be seen, and what the base made of it."""

    clip: str
    identity: str
    index: int = Field(ge=0, description="place in the track's split `prompts`")
    reference: Annotated[str, Field(pattern=r"^videos/[0-9]+\.png$")]
    candidates: list[Candidate] = Field(min_length=2)

    def files(self) -> Iterator[str]:
        """Names of its reference and videos in the session's folder."""
        yield self.reference
        yield from (candidate.video for candidate in self.candidates)


class Question(NamedTuple):
    """Which of two candidates of a prompt is better? `left` is the lower of their numbers."""

    prompt: int
    left: int
    right: int


class Session(_Part):
    """The manifest.

    key      sha256 of `sources`: of everything that the candidates depend on
    sources  what was sampled: spec, backbone and base, precision, track, annotator
    criteria that people are asked about
    folder   where it lies, which the manifest does not say
    """

    schema_: Literal["halign-bench/prefs-session/1"] = Field(default=SCHEMA, alias="schema")
    key: str
    sources: dict[str, Any]
    criteria: list[Criterion] = Field(min_length=1)
    prompts: list[Prompt] = Field(min_length=1)
    folder: Path = Field(default=Path(), exclude=True)

    @cached_property
    def questions(self) -> list[Question]:
        """Every pair of candidates of a prompt; a first pair of each prompt before any second, so that one may stop."""
        turns = [list(combinations(range(len(prompt.candidates)), 2)) for prompt in self.prompts]
        return [
            Question(row, *pairs[turn])
            for turn in range(max(map(len, turns))) for row, pairs in enumerate(turns) if turn < len(pairs)
        ]  # fmt: skip

    @cached_property
    def rows(self) -> dict[str, int]:
        """Clip id -> its place in `prompts`."""
        return {prompt.clip: row for row, prompt in enumerate(self.prompts)}

    def video(self, prompt: int, candidate: int) -> Path:
        return self.folder / self.prompts[prompt].candidates[candidate].video

    def file(self, name: str) -> Path | None:
        """None where it is not there; a link that leads out of the folder counts as nothing."""
        path = self.folder / name
        return path if path.is_file() and path.resolve().is_relative_to(self.folder.resolve()) else None

    def missing(self) -> list[str]:
        return [name for prompt in self.prompts for name in prompt.files() if self.file(name) is None]


def read_session(folder: Path) -> Session:
    """Raises RequestError where the folder holds no session, or a damaged one."""
    path = folder / MANIFEST
    try:
        session = Session.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise RequestError(
            f"{folder}: holds no {MANIFEST}, so it is no session; `halign-bench prefs sample` makes one"
        ) from None
    except OSError as problem:
        raise RequestError(f"{path}: cannot be read ({problem.strerror or problem})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "document"
        raise RequestError(
            f"{path}: is no session of this version ({where}: {first['msg']}); make it again with "
            "`halign-bench prefs sample`"
        ) from None
    return session.model_copy(update={"folder": folder})


__all__ = ["MANIFEST", "SCHEMA", "Candidate", "Noise", "Prompt", "Question", "Session", "read_session"]
