"""`halign-bench prefs sample`: candidates of a base as a session folder, with sound, noise seeds and scores."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.atomic import atomic_path, atomic_write
from halign_bench.errors import Interrupted, RequestError
from halign_bench.folder import cache_dir
from halign_bench.locking import locked
from halign_bench.model_choice import ModelChoice
from halign_bench.preferences import (
    OVERALL,
    PreferenceSet,
    PreferenceSpec,
    collect_candidates,
    key_of,
    noise_name,
    sources_of,
)
from halign_bench.prefs.session import MANIFEST, Candidate, Noise, Prompt, Session, read_session
from halign_bench.progress import Progress, Stop

if TYPE_CHECKING:
    from rich.console import Console

    from halign_bench.backbone import Backbone
    from halign_bench.track import Track

BUSY = "another command is sampling there; wait for it or choose another"


@dataclass(frozen=True)
class Request:
    """What was asked for; `criteria` None are the annotator's."""

    out: Path
    spec: PreferenceSpec
    criteria: tuple[str, ...] | None = None
    track: str = "puppet"
    backbone: str = "puppet-dit"
    data: Path | None = None
    device: str = "auto"
    model: ModelChoice = field(default_factory=ModelChoice)


def sample(request: Request, console: Console | None = None) -> Session:
    """Writes the session, or finishes it. What the cache has is not sampled again, what is there not written again.

    Raises RequestError for what cannot be answered, Interrupted on Ctrl-C; the same request then goes on.
    console  for progress, by default on stderr
    """
    from halign_bench.loading import annotator_if_any, load_backbone, load_track

    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    with Stop().listening() as stop, locked(request.out / ".lock", f"--out {request.out}", BUSY):
        progress = Progress(console, stop)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # whatever plug-ins and libraries print
                with progress.phase(f"load {request.backbone} and {request.track}", 1):
                    backbone = load_backbone(request.backbone, request.device, request.model)
                    track = load_track(request.track, request.data, backbone)
                for refusal in track.refusals():
                    progress.say(f"left out {refusal.source}: {refusal.reason}")
                annotator = annotator_if_any(track)
                sources = sources_of(backbone, track, annotator, request.spec)
                criteria = request.criteria or (tuple(annotator.criteria) if annotator is not None else (OVERALL,))
                _check(request.out, key_of(sources), criteria)
                stop.gentle = True
                with progress.phase("sample and score candidates", 1) as phase:
                    data = collect_candidates(backbone, track, annotator, request.spec, cache_dir(), phase)
                session = session_of(data, sources, request.spec, criteria, request.out)
                atomic_write(request.out / MANIFEST, session.model_dump_json(indent=2, by_alias=True) + "\n")
                _write_files(session, data, backbone, track, progress)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(
                f"interrupted; what is done is kept, and the same command finishes {request.out}"
            ) from None
        except OSError as problem:
            where = problem.filename or request.out
            raise RequestError(f"{where}: {problem.strerror or problem}; the same command goes on from there") from None
    return session


def _check(folder: Path, key: str, criteria: Sequence[str]) -> None:
    """Raises RequestError where the folder holds another session: its answers are to other videos or questions."""
    if not (folder / MANIFEST).exists():
        return
    there = read_session(folder)
    if there.key != key or there.criteria != list(criteria):
        what = "candidates" if there.key != key else f"criteria ({', '.join(there.criteria)})"
        raise RequestError(f"--out {folder}: holds a session with other {what}; choose another folder")


def session_of(
    data: PreferenceSet, sources: dict[str, Any], spec: PreferenceSpec, criteria: Sequence[str], folder: Path
) -> Session:
    """The manifest of these candidates."""
    prompts = []
    for row, (clip, identity) in enumerate(zip(data.ids, data.identities, strict=True)):
        candidates = []
        for k in range(data.latents.shape[1]):
            given = {name: float(data.scores[row, k, column]) for column, name in enumerate(data.criteria)}
            candidates.append(Candidate(
                video=f"videos/{row:05d}-{k}.mp4", noise=Noise(name=noise_name(clip, k), seed=spec.seed),
                scores={name: value if math.isfinite(value) else None for name, value in given.items()},
            ))  # fmt: skip
        prompts.append(Prompt(
            clip=clip, identity=identity, index=row, reference=f"videos/{row:05d}.png", candidates=candidates,
        ))  # fmt: skip
    return Session(key=key_of(sources), sources=sources, criteria=list(criteria), prompts=prompts, folder=folder)


def _write_files(session: Session, data: PreferenceSet, backbone: Backbone, track: Track, progress: Progress) -> None:
    from PIL import Image

    from halign_bench.media import write_video

    missing = set(session.missing())
    with progress.phase("write videos", len(session.prompts)) as phase:
        for row, prompt in enumerate(session.prompts):
            if not missing.isdisjoint(prompt.files()):
                clip = track.clip("prompts", prompt.index)
                for k, frames in enumerate(backbone.decode(data.latents[row])):
                    write_video(session.video(row, k), frames, clip.audio)
                with atomic_path(session.folder / prompt.reference) as temporary:
                    Image.fromarray(clip.reference).save(temporary, format="PNG")
            phase.advance()


__all__ = ["Request", "sample", "session_of"]
