"""From (split, index) to a clip: the only place where the puppet's random numbers are drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from halign_bench.errors import RequestError
from halign_bench.track import FPS, Clip
from halign_bench.tracks.puppet.body import CANVAS, LAYOUT, Identity, Motion, make_identity, make_motion, skeleton_of
from halign_bench.tracks.puppet.defects import Scene, draw_defects, spoil_scene, spoil_video
from halign_bench.tracks.puppet.render import render
from halign_bench.tracks.puppet.speech import Script, synthesise, write_script

VERSION = 1  # of the renderer: raise it whenever a clip's bytes change


class Split(NamedTuple):
    key: int  # first word of every seed of the split: no two splits share an identity or a clip
    size: int
    clips_per_identity: int
    defects: bool


SPLITS = {
    "pretrain": Split(1, 40_000, 2, True),
    "prompts": Split(2, 4_000, 2, False),
    "eval": Split(3, 2_000, 4, False),
    "evaluator-train": Split(4, 40_000, 8, False),
    "evaluator-test": Split(5, 2_000, 8, False),
    "annotator-train": Split(6, 4_000, 4, False),
}


@dataclass(frozen=True)
class Take:
    """A clip before it is drawn: exact identity, motion and speech are known."""

    id: str
    identity_name: str
    identity: Identity
    motion: Motion
    script: Script
    frames: int
    reference_motion: Motion
    reference_mouth: np.ndarray
    seed: tuple[int, ...]

    @property
    def scene(self) -> Scene:
        return Scene(self.motion, self.script.at_frames(self.frames))

    def rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng((*self.seed, stream))

    def audio(self) -> np.ndarray:
        return synthesise(self.script, self.rng(2), self.frames / FPS, self.identity.pitch, self.identity.tract)

    def draw(self, size: int, defects: tuple[str, ...] = ()) -> np.ndarray:
        """uint8 `[T, size, size, 3]`, spoiled by `defects`."""
        rng = self.rng(3)
        scene = self.scene
        if defects:
            shifted = {k: self.script.at_frames(self.frames, k) for k in (-5, -4, -3, 3, 4, 5)}
            scene = spoil_scene(scene, shifted, defects, rng)
        video = render(self.identity, scene.motion, scene.mouth, size, scene.fingers)
        return spoil_video(video, scene.motion.hands * (size / CANVAS), defects, rng)


def take(split: str, index: int, frames: int) -> Take:
    """Everything about clip `index` of `split` but its pixels and samples."""
    if split not in SPLITS:
        raise RequestError(f"track puppet has no split '{split}'; it has {', '.join(SPLITS)}")
    spec = SPLITS[split]
    if not 0 <= index < spec.size:
        raise RequestError(f"split '{split}' of track puppet has clips 0 to {spec.size - 1}, not {index}")
    person = index // spec.clips_per_identity
    who = make_identity(np.random.default_rng((VERSION, spec.key, person, 0)))
    seed = (VERSION, spec.key, person, 1, index)
    rng = np.random.default_rng((*seed, 1))
    script = write_script(rng, frames / FPS)
    motion = make_motion(rng, frames, script.at_frames(frames)[:, 0])
    pose = replace(make_motion(rng, 1, np.zeros(1)), blink=np.zeros(1))
    mouth = np.array([[rng.uniform(0, 0.3), 0.5]])
    return Take(f"{split}/{index:05d}", f"{split}/{person:05d}", who, motion, script, frames, pose, mouth, seed)


def draw_clip(split: str, index: int, frames: int, size: int) -> Clip:
    """The finished clip: a pure function of its arguments."""
    made = take(split, index, frames)
    defects = draw_defects(made.rng(4)) if SPLITS[split].defects else ()
    reference = render(made.identity, made.reference_motion, made.reference_mouth, size)[0]
    return Clip(
        id=made.id,
        identity=made.identity_name,
        video=made.draw(size, defects),
        reference=reference,
        audio=made.audio(),
        skeleton=skeleton_of(made.motion, made.identity, size / CANVAS),
        layout=LAYOUT,
        defects=defects,
    )
