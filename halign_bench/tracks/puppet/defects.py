"""What can be wrong with a clip of the pretraining corpus, as web data has it.

Motion defects change when things happen; fidelity defects change how they look. The skeleton and
the audio of a defective clip stay those of the clean one: they are what was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from halign_bench.tracks.puppet.body import Motion
from halign_bench.tracks.puppet.render import ALL_FINGERS

MOTION_DEFECTS = ("shifted_audio", "frozen", "jitter")
FIDELITY_DEFECTS = ("missing_fingers", "smeared_hands", "blur")

# Shares of the pretraining corpus; at most one motion and one fidelity defect a clip.
MOTION_SHARES = (0.16, 0.10, 0.10)
FIDELITY_SHARES = (0.18, 0.10, 0.10)


@dataclass(frozen=True)
class Scene:
    """What the renderer is given; defects are changes of it."""

    motion: Motion
    mouth: np.ndarray  # [T, 2]
    fingers: tuple[tuple[int, ...], tuple[int, ...]] = ALL_FINGERS


def draw_defects(rng: np.random.Generator) -> tuple[str, ...]:
    """Which defects a corpus clip has, at the stated shares."""
    chosen = []
    for names, shares in ((MOTION_DEFECTS, MOTION_SHARES), (FIDELITY_DEFECTS, FIDELITY_SHARES)):
        at = int(np.searchsorted(np.cumsum(shares), rng.random(), side="right"))
        if at < len(names):
            chosen.append(names[at])
    return tuple(chosen)


def spoil_scene(
    scene: Scene, mouth_at: dict[int, np.ndarray], defects: tuple[str, ...], rng: np.random.Generator
) -> Scene:
    """Defects of the scene itself. `mouth_at[k]` is the mouth as it is k frames later."""
    frames = len(scene.mouth)
    if "shifted_audio" in defects:
        shift = int(rng.choice([-5, -4, -3, 3, 4, 5]))
        scene = replace(scene, mouth=mouth_at[shift])
    if "frozen" in defects:
        start = int(rng.integers(0, frames // 3))
        order = np.minimum(np.arange(frames), start)
        scene = replace(scene, motion=scene.motion.take(order), mouth=scene.mouth[order])
    if "jitter" in defects:
        size = rng.uniform(1.2, 2.0)
        shake = size * rng.standard_normal((frames, 3, 2))
        motion = scene.motion
        head = motion.head + np.concatenate([shake[:, 0], 0.05 * rng.standard_normal((frames, 1))], axis=1)
        moved = shake[:, 1:, None]
        arms = motion.arms.copy()
        arms[:, :, 2] += shake[:, 1:]
        scene = replace(scene, motion=replace(motion, head=head, hands=motion.hands + moved, arms=arms))
    if "missing_fingers" in defects:
        kept = []
        for _ in range(2):
            gone = rng.choice(5, size=int(rng.integers(1, 4)), replace=False)
            kept.append(tuple(f for f in range(5) if f not in gone))
        scene = replace(scene, fingers=(kept[0], kept[1]))
    return scene


def spoil_video(video: np.ndarray, hands: np.ndarray, defects: tuple[str, ...], rng: np.random.Generator) -> np.ndarray:
    """Defects of the finished frames. `hands` is `[T, 2, 21, 2]` in pixels of the video."""
    if "blur" in defects:
        sigma = rng.uniform(1.0, 1.8) * video.shape[1] / 64
        video = np.stack([np.asarray(Image.fromarray(f).filter(ImageFilter.GaussianBlur(sigma))) for f in video])
    if "smeared_hands" in defects:
        video = video.copy()
        height, width = video.shape[1:3]
        sigma = rng.uniform(1.6, 2.4) * height / 64
        for k in range(len(video)):
            soft = None
            for points in hands[k]:
                low = np.clip(np.floor(points.min(0) - 2), 0, [width, height]).astype(int)
                high = np.clip(np.ceil(points.max(0) + 3), 0, [width, height]).astype(int)
                if (high > low).all():
                    if soft is None:
                        soft = np.asarray(Image.fromarray(video[k]).filter(ImageFilter.GaussianBlur(sigma)))
                    box = slice(low[1], high[1]), slice(low[0], high[0])
                    video[k][box] = soft[box]
    return video
