"""Samples what the analysis scores: whole paths, clean estimates on them, remakes, and paths without their start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from halign_bench.chunks import read_chunk, write_chunk
from halign_bench.errors import RequestError
from halign_bench.loading import annotator_of
from halign_bench.protocol import sha256_of
from halign_bench.sampling import Progress, Step, advance, initial_noise, path, walk

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Condition
    from halign_bench.track import Annotator, Clip, Track

FORMAT = "halign-bench/timesteps-scores/1"
SPLIT = "prompts"
LEVELS = 7  # how many are measured where none are asked for
CLIPS = 64  # likewise, as far as the track has them
KINDS = ("full", "first", "estimate", "remade", "skipped")
UNLABELLED = ("nothing says how good motion or fidelity of a sample are", "choose another track")


class Spec(BaseModel):
    """What to measure. Part of the cache key, so a change of any field samples anew."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clips: int | None = Field(default=None, ge=2, description=f"of the split {SPLIT}; None is {CLIPS} or all there are")
    candidates: int = Field(default=2, ge=2, description="samples of the base for each clip")
    nfe: int = Field(default=16, ge=2, description="network evaluations of a whole path")
    guidance: float = Field(default=1.0, ge=1.0, description="classifier-free; 1 is off, the command takes the model's")
    levels: tuple[float, ...] | None = Field(
        default=None, description=f"noise levels, taken where the sampler steps; None is about {LEVELS} even ones"
    )
    seed: int = 0
    chunk: int = Field(default=16, ge=1, description="clips sampled together and written as one file")


@dataclass(frozen=True)
class Scores:
    """Annotator's scores of P clips, K candidates, L levels from high to low; NaN where it could not tell.

    values     by kind, then criterion: "full" finished candidates `[P, K]`, "first" clean estimates at t = 1
               `[P, K, 1]`, "estimate" those at the levels, "remade" and "skipped" finished from the levels `[P, K, L]`
    skip_nfe   network evaluations of a path whose part above each level is skipped
    """

    ids: list[str]
    identities: list[str]
    criteria: tuple[str, ...]
    levels: tuple[float, ...]
    skip_nfe: tuple[int, ...]
    values: dict[str, dict[str, np.ndarray]]


def choose_levels(steps: Sequence[Step], asked: Sequence[float] | None) -> tuple[float, ...]:
    """Noise levels from high to low at which the path takes a step: about even ones, or the nearest to `asked`.

    t = 1 is none of them. Raises RequestError where the path has a single step.
    """
    within = [step.now for step in steps[1:]]
    if not within:
        raise RequestError("the sampler takes a single step, so there is no noise level within its path; raise --nfe")
    if asked is not None:
        return tuple(sorted({min(within, key=lambda now: abs(now - t)) for t in asked}, reverse=True))
    count = min(LEVELS, len(within))
    return tuple(within[round((n + 1) * (len(within) + 1) / (count + 1)) - 1] for n in range(count))


def measure(
    backbone: Backbone, track: Track, spec: Spec, cache_dir: Path, progress: Progress | None = None
) -> Scores:
    """Samples and scores, chunk by chunk, each kept in the cache: a killed analysis goes on where it was.

    `progress` counts network evaluations. Raises RequestError for more clips than the track has, a track without
    an annotator, and a path too short.
    """
    annotator = annotator_of(track, *UNLABELLED)
    steps = path(spec.nfe, spec.guidance, shift=backbone.shift)
    levels = choose_levels(steps, spec.levels)
    count = _clips(track, spec)
    criteria = tuple(annotator.criteria)
    key = sha256_of({
        "format": FORMAT, "spec": spec.model_dump(mode="json"), "levels": levels, "clips": count,
        "backbone": backbone.name, "base_sha256": backbone.base_sha256, "precision": backbone.precision,
        "track": track.fingerprint(), "annotator": annotator.protocol,
    })  # fmt: skip
    folder = cache_dir / "timesteps" / key[:32]
    chunks = [range(start, min(start + spec.chunk, count)) for start in range(0, count, spec.chunk)]
    rests = {level: [step for step in steps if step.now <= level] for level in levels}
    costs = [spec.candidates * _cost(part) for part in (steps, *rests.values(), *rests.values())]
    found = [read_chunk(folder / f"{number:05d}.safetensors", key) for number in range(len(chunks))]
    done = sum(costs) * sum(len(part) for part, chunk in zip(chunks, found, strict=True) if chunk is not None)

    def advanced(evaluations: int) -> None:
        nonlocal done
        done += evaluations
        if progress is not None:
            progress(done, sum(costs) * count)

    advanced(0)
    for number, part in enumerate(chunks):
        if found[number] is not None:
            continue
        clips = [track.clip(SPLIT, index) for index in part]
        tensors = _measure_chunk(backbone, annotator, clips, spec, steps, rests, advanced)
        found[number] = {
            "tensors": tensors, "ids": [clip.id for clip in clips], "identities": [clip.identity for clip in clips],
        }  # fmt: skip
        write_chunk(folder / f"{number:05d}.safetensors", key, found[number] or {})
    whole = [chunk for chunk in found if chunk is not None]
    joined = {kind: np.concatenate([chunk["tensors"][kind].numpy() for chunk in whole]) for kind in KINDS}
    return Scores(
        ids=[name for chunk in whole for name in chunk["ids"]],
        identities=[name for chunk in whole for name in chunk["identities"]],
        criteria=criteria,
        levels=levels,
        skip_nfe=tuple(steps[0].cost + _cost(rests[level]) for level in levels),
        values={kind: {name: joined[kind][..., c] for c, name in enumerate(criteria)} for kind in KINDS},
    )


def _clips(track: Track, spec: Spec) -> int:
    available = track.splits().get(SPLIT, 0)
    if available < 2:
        raise RequestError(f"track {track.name} has {available} clips in its split {SPLIT}; at least 2 are needed")
    if spec.clips is not None and spec.clips > available:
        raise RequestError(
            f"--clips {spec.clips}: track {track.name} has {available} clips in its split {SPLIT}; ask for at most that"
        )
    return min(CLIPS, available) if spec.clips is None else spec.clips


def _cost(steps: Sequence[Step]) -> int:
    return sum(step.cost for step in steps)


def _measure_chunk(
    backbone: Backbone, annotator: Annotator, clips: Sequence[Clip], spec: Spec, steps: Sequence[Step],
    rests: dict[float, list[Step]], advanced: Callable[[int], None],
) -> dict[str, torch.Tensor]:
    """fp64 scores `[B, K, criteria]` of "full" and `[B, K, levels, criteria]` of the other kinds."""
    import torch

    condition: Condition = backbone.condition(clips)

    def score(latents: torch.Tensor) -> torch.Tensor:
        given = [annotator(video, clip) for video, clip in zip(backbone.decode(latents), clips, strict=True)]
        return torch.tensor([[float(row[name]) for name in annotator.criteria] for row in given], dtype=torch.float64)

    def finish(x: torch.Tensor, rest: Sequence[Step]) -> torch.Tensor:
        for step, (_, after) in zip(rest, walk(backbone, condition, x, rest), strict=True):
            x = after
            advanced(len(x) * step.cost)
        return x

    made: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for candidate in range(spec.candidates):
        names = [f"{clip.id}#candidate{candidate}" for clip in clips]  # as preferences call them: the same noise
        noise = initial_noise(backbone, names, spec.seed)
        fresh = initial_noise(backbone, [f"{name}#remade" for name in names], spec.seed)
        with torch.no_grad():
            x, estimates, first = noise, {}, noise
            for step, (prediction, after) in zip(steps, walk(backbone, condition, noise, steps), strict=True):
                if step is steps[0]:
                    first = prediction
                if step is steps[0] or step.now in rests:
                    estimates[step.now] = score(advance(backbone, x, prediction, step.now, 0.0))
                x = after
                advanced(len(x) * step.cost)
            remade, skipped = [], []
            for level, rest in rests.items():
                t = torch.full((len(x),), level, device=x.device)
                remade.append(score(finish(backbone.add_noise(x, fresh, t), rest)))
                skipped.append(score(finish(advance(backbone, noise, first, steps[0].now, level), rest)))
        made["full"].append(score(x))
        made["first"].append(torch.stack([estimates[steps[0].now]], 1))
        made["estimate"].append(torch.stack([estimates[level] for level in rests], 1))
        made["remade"].append(torch.stack(remade, 1))
        made["skipped"].append(torch.stack(skipped, 1))
    return {kind: torch.stack(parts, 1) for kind, parts in made.items()}


__all__ = ["CLIPS", "KINDS", "SPLIT", "UNLABELLED", "Scores", "Spec", "choose_levels", "measure"]
