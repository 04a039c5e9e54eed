"""What the evaluators learn from and are measured on: clean clips, and re-renderings with perturbed geometry.

Training reads the split `evaluator-train` alone, measuring `evaluator-test` alone: other people, other
clips. Rendered once into chunk files, each written atomically, so that an interrupted rendering goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from halign_bench.atomic import atomic_path
from halign_bench.tracks.puppet.body import Identity, Motion, make_identity, skeleton_of
from halign_bench.tracks.puppet.clips import SPLITS, VERSION, Take, take
from halign_bench.tracks.puppet.nets import SIDE
from halign_bench.tracks.puppet.render import render

CHUNK = 250
LONG = 23  # frames: 17 and three on either side, so that voice and mouth can be shifted without an edge
ROOM = (LONG - 17) // 2
JITTER_LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)  # pixels, standard deviation of each joint's displacement


def spread(split: str, i: int) -> int:
    """The i-th clip when every person is visited once before anyone twice."""
    spec = SPLITS[split]
    people = spec.size // spec.clips_per_identity
    return spec.clips_per_identity * (i % people) + i // people


def traits(who: Identity) -> np.ndarray:
    """What identifies a person, `[23]`, each about in [0, 1]."""
    style = np.eye(5)[who.hair_style]
    colours = np.concatenate([who.skin, who.hair, who.clothes, who.wall]) / 255
    head = [(who.head_size[0] - 8.6) / 1.8, (who.head_size[1] - 10.6) / 1.6, who.eye_gap - 3.6, who.brows / 1.4]
    return np.concatenate([colours, style, head, [float(who.glasses), float(who.beard)]]).astype(np.float32)


def long_clip(split: str, i: int) -> dict[str, np.ndarray]:
    made = take(split, spread(split, i), LONG)
    return {
        "video": made.draw(SIDE),
        "audio": made.audio().astype(np.float16),
        "skeleton": skeleton_of(made.motion, made.identity, 1.0).astype(np.float32),
        "mouth": made.script.at_frames(LONG).astype(np.float32),
        "traits": traits(made.identity),
        "person": np.array(int(made.identity_name.split("/")[1])),
    }


def perturbed_frame(
    made: Take, frame: int, rng: np.random.Generator, jitter: tuple[float, float], gone: tuple[int, int]
) -> dict[str, np.ndarray]:
    """One frame whose hands have joints displaced by `jitter` pixels and `gone` fingers not drawn, a hand each."""
    motion = made.motion.take(np.array([frame]))
    noise = rng.standard_normal((1, 2, 21, 2)) * np.array(jitter)[None, :, None, None]
    drawn = motion.hands + noise
    kept = [tuple(sorted(rng.choice(5, 5 - g, replace=False).tolist())) for g in gone]
    video = render(
        made.identity,
        replace(motion, hands=drawn),
        made.script.at_frames(made.frames)[[frame]],
        SIDE,
        (kept[0], kept[1]),
    )
    return {
        "frame": video[0],
        "asked": motion.hands[0].astype(np.float32),
        "drawn": drawn[0].astype(np.float32),
        "kept": np.array([[f in k for f in range(5)] for k in kept]),
        "jitter": np.array(jitter, np.float32),
        "gone": np.array(gone),
    }


def hand_frames(split: str, i: int) -> dict[str, np.ndarray]:
    """Six perturbed frames of a clip: crumpled, fingers missing, both."""
    made = take(split, spread(split, i), LONG)
    rng = np.random.default_rng((VERSION, 71, i))
    rows = []
    for k in range(6):
        crumpled, cut = k % 3 != 1, k % 3 != 0
        jitter = tuple(float(rng.uniform(0, 3.2)) * crumpled for _ in range(2))
        gone = tuple(int(rng.integers(0, 6)) * cut for _ in range(2))
        rows.append(perturbed_frame(made, int(rng.integers(LONG)), rng, (jitter[0], jitter[1]), (gone[0], gone[1])))
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def portraits(split: str, person: int) -> dict[str, np.ndarray]:
    """Four pictures of one person: two as they are, two with other clothes and another wall."""
    spec = SPLITS[split]
    rng = np.random.default_rng((VERSION, 72, spec.key, person))
    views = []
    for k in range(4):
        made = take(split, spec.clips_per_identity * person + k, 1)
        other = make_identity(rng)
        who = made.identity if k < 2 else replace(made.identity, clothes=other.clothes, wall=other.wall)
        motion: Motion = made.reference_motion if k % 2 else made.motion
        mouth = made.reference_mouth if k % 2 else made.script.at_frames(1)
        views.append(render(who, motion, mouth, SIDE)[0])
    return {"views": np.stack(views), "person": np.array(person)}


MAKERS: dict[str, Callable[[str, int], dict[str, np.ndarray]]] = {
    "clips": long_clip, "hands": hand_frames, "people": portraits,
}  # fmt: skip


def chunks(split: str, kind: str, count: int, folder: Path) -> Iterator[Path]:
    """Renders what is missing, a chunk file at a time."""
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        path = folder / f"v{VERSION}-{split}-{kind}-{start:05d}-{stop:05d}.npz"
        if not path.exists():
            rows = [MAKERS[kind](split, i) for i in range(start, stop)]
            arrays: dict[str, Any] = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
            with atomic_path(path) as temporary, temporary.open("wb") as stream:
                np.savez(stream, **arrays)
        yield path


def load(
    split: str, kind: str, count: int, folder: Path, tick: Callable[[int], None] = lambda n: None
) -> dict[str, np.ndarray]:
    """All arrays of `count` items, `[count, ...]` by name."""
    whole: dict[str, np.ndarray] = {}
    at = 0
    for path in chunks(split, kind, count, folder):
        with np.load(path, allow_pickle=False) as part:
            size = 0
            for key in part.files:
                rows = part[key]
                size = len(rows)
                whole.setdefault(key, np.empty((count, *rows.shape[1:]), rows.dtype))[at : at + size] = rows
        at += size
        tick(size)
    return whole
