"""`halign-bench prefs export`: the answers of a session as a preference file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from halign_bench.atomic import atomic_write
from halign_bench.errors import RequestError
from halign_bench.prefs.answers import read_all
from halign_bench.prefs.session import Session, read_session
from halign_bench.prefs.votes import majority, votes

NAME = "preferences.jsonl"


def export(folder: Path, out: Path | None, ties: bool, videos: bool) -> tuple[Path, int]:
    """Writes one line for each answered pair, by majority; returns the file and the number of lines.

    ties    False leaves tied criteria out, and pairs that have no other
    videos  name the video files, not the session's candidates

    Raises RequestError where nothing was answered, or the file cannot be written.
    """
    session = read_session(folder)
    path = out or folder / NAME
    if path.suffix.lower() != ".jsonl":
        raise RequestError(f"--out {path}: the lines are JSON; give it the extension .jsonl")
    lines = list(_lines(session, path.parent, ties, videos))
    if not lines:
        what = "answers" if ties else "answers but ties"
        raise RequestError(f"{folder}: has no {what} yet; `halign-bench prefs label` asks for them")
    try:
        atomic_write(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    except OSError as problem:
        raise RequestError(f"--out {path}: cannot be written ({problem.strerror or problem})") from None
    return path, len(lines)


def _lines(session: Session, beside: Path, ties: bool, videos: bool) -> Iterator[dict[str, Any]]:
    here = os.path.relpath(session.folder, beside)
    for question, said in votes(session, read_all(session.folder)).items():
        labels = {name: majority(list(said[name].values())) for name in session.criteria if name in said}
        labels = {name: label for name, label in labels.items() if ties or label != "tie"}
        if not labels:
            continue
        prompt = session.prompts[question.prompt]
        if videos:
            left, right = (
                Path(here, prompt.candidates[k].video).as_posix() for k in (question.left, question.right)
            )
            yield {"clip": prompt.clip, "left": left, "right": right, "labels": labels}
        else:
            candidates = {"left": question.left, "right": question.right}
            yield {"session": Path(here).as_posix(), "clip": prompt.clip, **candidates, "labels": labels}


__all__ = ["export"]
