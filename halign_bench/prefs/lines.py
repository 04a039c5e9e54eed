"""The lines of a preference file, and everything that can be wrong with one taken by itself (docs/preferences.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from halign_bench.errors import RequestError
from halign_bench.prefs.formats import HELP, Fault, documents
from halign_bench.registry import nearest

SHOWN = 10  # problems that are told one by one

CRITERION = r"^[a-z][a-z0-9_-]{0,39}$"  # of names of criteria
Criterion = Annotated[str, Field(pattern=CRITERION)]
Label = Literal["left", "right", "tie"]
Text = Annotated[StrictStr, Field(min_length=1)]
Video = Annotated[StrictInt, Field(ge=0)] | Text
"""A file, relative to the preference file; or the number of a candidate of the line's session."""


class Condition(BaseModel):
    """What the model is told, where it is not a clip of the track; files relative to the preference file.

    reference  image of the person
    audio      sound file, of which the beginning is used; silence unless given
    skeleton   .npy, `[T, K, 3]` as `Clip.skeleton`, with the track's keypoints
    identity   who it is; the reference's name unless given
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: Text
    audio: Text | None = None
    skeleton: Text | None = None
    identity: Text | None = None


class Line(BaseModel):
    """What pairs and single videos have in common: exactly one of `clip` and `condition`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip: Text | None = None
    condition: Condition | None = None
    session: Text | None = None
    annotator: Text | None = None


class Pair(Line):
    """Two videos made for the same prompt, compared on each criterion."""

    left: Video
    right: Video
    labels: dict[Criterion, Label] = Field(min_length=1)

    @property
    def videos(self) -> dict[str, str | int]:
        return {"left": self.left, "right": self.right}


class Single(Line):
    """One video, judged on each criterion."""

    video: Video
    labels: dict[Criterion, Literal["good", "bad"]] = Field(min_length=1)

    @property
    def videos(self) -> dict[str, str | int]:
        return {"video": self.video}


@dataclass(frozen=True)
class Problem:
    """What is wrong with which field of which line, and what to do; `line` counts from 1."""

    line: int
    field: str
    text: str


def refuse(path: Path, problems: list[Problem]) -> NoReturn:
    """One RequestError with all of them, or the first few and how many more; what several lines share is told once."""
    lines: dict[tuple[str, str], list[int]] = {}
    for problem in sorted(problems, key=lambda problem: problem.line):
        lines.setdefault((problem.field, problem.text), []).append(problem.line)
    told = [
        f"{unit_of(path)}{_listed(numbers)}, {field[:60]}: {text}"
        for (field, text), numbers in lines.items()
    ]
    if len(told) == 1:
        raise RequestError(f"{path}, {told[0]} (nothing of the file was used)")
    if len(told) > SHOWN:
        told[SHOWN:] = [f"and {len(told) - SHOWN} more"]
    raise RequestError(f"{path}: {len(problems)} problems, and nothing of the file was used", *told)


def _listed(lines: list[int], most: int = 5) -> str:
    """ " 3", "s 3, 4 and 8", "s 3, 4, 8, 9, 11 and 20 more"."""
    if len(lines) == 1:
        return f" {lines[0]}"
    kept = lines[:most] if len(lines) > most else lines[:-1]
    last = f"{len(lines) - most} more" if len(lines) > most else str(lines[-1])
    return f"s {', '.join(map(str, kept))} and {last}"


def unit_of(path: Path) -> str:
    return "row" if path.suffix.lower() == ".parquet" else "line"


def parse(path: Path, content: bytes) -> list[tuple[int, Pair | Single]]:
    """Lines of a preference file with their numbers, from 1. Raises RequestError with everything that is wrong."""
    problems: list[Problem] = []
    lines: list[tuple[int, Pair | Single]] = []
    for number, document in documents(path, content):
        line, wrong = parse_line(document)
        problems += [Problem(number, field, text) for field, text in wrong]
        if line is not None:
            lines.append((number, line))
    if problems:
        refuse(path, problems)
    if not lines:
        raise RequestError(f"{path}: has no {unit_of(path)} with a label; {HELP}")
    return lines


def parse_line(document: Any) -> tuple[Pair | Single | None, list[tuple[str, str]]]:
    """The line, or what is wrong with it as (field, sentence)."""
    if isinstance(document, Fault):
        return None, [(document.field, document.text)]
    document = _without_nulls(document)
    if not isinstance(document, dict):
        return None, [("line", "is no JSON object; write one object a line, in braces")]
    if "video" in document and ("left" in document or "right" in document):
        return None, [("video", "stands beside left or right; give a pair (left, right) or a single video, not both")]
    if not {"video", "left", "right"} & set(document):
        return None, [("left", "is missing; name the videos of a pair as left and right, a single one as video")]
    model: type[Pair] | type[Single] = Single if "video" in document else Pair
    try:
        line = model.model_validate(document)
    except ValidationError as error:
        # A union's members complain one by one; once is enough.
        return None, list(dict.fromkeys(_in_words(model, found) for found in error.errors()))
    wrong = list(_contradictions(line))
    return (None, wrong) if wrong else (line, [])


def _contradictions(line: Pair | Single) -> Iterator[tuple[str, str]]:
    if line.clip is None and line.condition is None:
        yield "clip", "is missing; name the clip of the track, or give a condition with a reference image"
    if line.clip is not None and line.condition is not None:
        yield "condition", "stands beside clip; leave one of them out"
    for field, video in line.videos.items():
        if isinstance(video, int):
            if line.session is None:
                yield field, f"{video} is a candidate's number, and no session is named; name it, or a video file"
            elif line.clip is None:
                yield "clip", "is missing; a candidate is told by its session, its clip and its number"
    if isinstance(line, Pair) and line.left == line.right:
        yield "right", f"is the same video as left ({line.right}); a pair has two"


def _in_words(model: type[Line], found: Any) -> tuple[str, str]:
    """One of pydantic's findings as (field, what is wrong and what to do)."""
    # A union's member stands in the place too, by its type's name: "left.int".
    place = [str(part) for part in found["loc"]]
    field = ".".join(part for part in place if "[" not in part and part not in ("int", "str")) or "line"
    given, kind, first = found["input"], found["type"], place[0] if place else ""
    if kind == "missing":
        return field, "is missing; add it"
    if kind == "extra_forbidden":
        known = [*(Condition if first == "condition" and len(place) > 1 else model).model_fields]
        near = nearest(place[-1], known)
        hint = f"did you mean {near}?" if near else "leave it out"
        return field, f"is no field here, which are {', '.join(known)}; {hint}"
    if kind == "literal_error":
        return field, f"{_shown(given)} is no label; write {found['ctx']['expected']}"
    if first in ("left", "right", "video"):
        return first, f"{_shown(given)} names no video; write a file's name, or a candidate's number from 0"
    if kind == "string_pattern_mismatch":
        return "labels", f"{_shown(given)} is no name of a criterion; write at most 40 small letters, digits, - and _"
    if kind == "too_short" and first == "labels":
        return field, "is empty; give at least one criterion its label, or leave the line out"
    if kind == "string_too_short":
        return field, "is empty; name something, or leave the field out"
    message = found["msg"]
    return field, f"{_shown(given)} cannot be used; {message[:1].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=True, default=str)
    except (ValueError, RecursionError):
        text = "this value"
    return text if len(text) <= 60 else text[:57] + "..."


def _without_nulls(value: Any) -> Any:
    """A field that is null is one that is absent: a table has all fields in every row."""
    if not isinstance(value, dict):
        return value
    kept = {key: inner for key, inner in value.items() if inner is not None}
    for key in ("labels", "condition"):
        if isinstance(kept.get(key), dict):
            kept[key] = {name: inner for name, inner in kept[key].items() if inner is not None}
    if kept.get("condition") == {}:
        del kept["condition"]
    return kept


__all__ = ["Condition", "Line", "Pair", "Problem", "Single", "parse", "parse_line", "refuse", "unit_of"]
