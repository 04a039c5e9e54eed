"""The puppet's body: who it is, how it moves, and where its joints are.

Coordinates are for a 64 x 64 canvas, y down; the renderer scales them. The skeleton is 10 body
points and 21 points a hand in the usual order (wrist, then thumb to little finger, root to tip).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from halign_bench.track import FPS, SkeletonLayout

CANVAS = 64.0

BODY = ("nose", "neck", "left_eye", "right_eye", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
        "left_wrist", "right_wrist")  # fmt: skip
_HAND_EDGES = [(0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1)
               for finger in range(5) for joint in range(4)]  # fmt: skip
LAYOUT = SkeletonLayout(
    body=BODY,
    left_hand=slice(10, 31),
    right_hand=slice(31, 52),
    edges=(
        (0, 1), (2, 0), (3, 0), (1, 4), (1, 5), (4, 6), (5, 7), (6, 8), (7, 9),
        *((10 + a, 10 + b) for a, b in _HAND_EDGES), *((31 + a, 31 + b) for a, b in _HAND_EDGES),
    ),
)  # fmt: skip

# Each finger: angle of its root seen from the wrist, distance of the root, length, bend of the chain.
FINGER_ANGLE = np.array([-1.05, -0.5, -0.14, 0.22, 0.58])
FINGER_ROOT = np.array([4.6, 7.6, 8.0, 7.7, 7.2])
FINGER_LENGTH = np.array([7.4, 9.4, 10.2, 9.6, 8.0])
FINGER_FAN = np.array([-1.25, -0.5, -0.13, 0.24, 0.66])
PHALANX = np.array([0.0, 0.44, 0.76, 1.0])

SKINS = np.array([[250, 220, 196], [240, 194, 158], [222, 168, 124], [190, 132, 92], [156, 104, 72], [118, 76, 54]])
HAIRS = np.array([[34, 26, 24], [88, 54, 34], [150, 96, 48], [214, 176, 98], [150, 150, 156], [170, 64, 40]])
CLOTHES = np.array(
    [[180, 50, 56], [44, 92, 168], [52, 132, 86], [226, 176, 60], [112, 72, 146], [60, 64, 72], [224, 224, 220]]
)
WALLS = np.array([[206, 214, 222], [222, 212, 194], [188, 206, 190], [198, 186, 210], [120, 136, 152], [160, 128, 112]])


@dataclass(frozen=True)
class Identity:
    """What stays the same in every clip of one person."""

    skin: np.ndarray
    hair: np.ndarray
    clothes: np.ndarray
    wall: np.ndarray
    hair_style: int  # 0 bald, 1 short, 2 long, 3 bun, 4 cap
    head_size: tuple[float, float]
    eye_gap: float
    brows: float
    glasses: bool
    beard: bool
    pitch: float
    tract: float


def make_identity(rng: np.random.Generator) -> Identity:
    def shade(palette: np.ndarray, spread: float) -> np.ndarray:
        return np.clip(palette[rng.integers(len(palette))] + rng.uniform(-spread, spread, 3), 12, 248)

    return Identity(
        skin=shade(SKINS, 8), hair=shade(HAIRS, 12), clothes=shade(CLOTHES, 18), wall=shade(WALLS, 14),
        hair_style=int(rng.integers(5)), head_size=(rng.uniform(8.6, 10.4), rng.uniform(10.6, 12.2)),
        eye_gap=rng.uniform(3.4, 4.6), brows=rng.uniform(-0.6, 0.8), glasses=bool(rng.random() < 0.3),
        beard=bool(rng.random() < 0.25), pitch=rng.uniform(95, 220), tract=rng.uniform(0.92, 1.16),
    )  # fmt: skip


@dataclass(frozen=True)
class Motion:
    """Joints of one clip: `head` [T, 3] (x, y, tilt), `hands` [T, 2, 21, 2], arms [T, 2, 3, 2] (shoulder to wrist)."""

    head: np.ndarray
    hands: np.ndarray
    arms: np.ndarray
    blink: np.ndarray

    def take(self, order: np.ndarray) -> Motion:
        """The same motion with its frames in another order (frozen, shuffled)."""
        return Motion(self.head[order], self.hands[order], self.arms[order], self.blink[order])


def _sway(rng: np.random.Generator, frames: int, low: float, high: float, size: tuple[int, ...] = ()) -> np.ndarray:
    """Smooth motion in [-1, 1], `[frames, *size]`: two slow sinusoids a channel."""
    times = np.arange(frames).reshape(-1, *[1] * len(size)) / FPS
    total = np.zeros((frames, *size))
    for weight in (0.65, 0.35):
        total += weight * np.sin(2 * np.pi * rng.uniform(low, high, size) * times + rng.uniform(0, 2 * np.pi, size))
    return total


def _hand(wrist: np.ndarray, angle: np.ndarray, curl: np.ndarray, spread: np.ndarray, mirror: int) -> np.ndarray:
    """21 points `[T, 21, 2]`. A curled finger is foreshortened, as seen from the front."""
    frames = len(wrist)
    points = np.empty((frames, 21, 2))
    points[:, 0] = wrist
    root_angle = angle[:, None] + mirror * FINGER_ANGLE
    root = wrist[:, None] + FINGER_ROOT[:, None] * np.stack([np.sin(root_angle), -np.cos(root_angle)], -1)
    fan = angle[:, None] + mirror * (FINGER_FAN * spread[:, None])
    along = np.stack([np.sin(fan), -np.cos(fan)], -1)
    reach = FINGER_LENGTH * (1 - 0.62 * curl)
    chain = root[:, :, None] + (reach[..., None] * PHALANX)[..., None] * along[:, :, None]
    points[:, 1:] = chain.reshape(frames, 20, 2)
    return points


def make_motion(rng: np.random.Generator, frames: int, loudness: np.ndarray) -> Motion:
    """A clip's motion; `loudness` [T] of the speech makes the head nod a little."""
    sway = _sway(rng, frames, 0.2, 0.7, (3,))
    head = np.stack([
        32 + rng.uniform(-2.5, 2.5) + 1.8 * sway[:, 0],
        18.5 + rng.uniform(-1, 1) + 1.0 * sway[:, 1] + 0.5 * loudness,
        rng.uniform(-0.08, 0.08) + 0.09 * sway[:, 2],
    ], axis=1)  # fmt: skip
    hands, arms = np.empty((frames, 2, 21, 2)), np.empty((frames, 2, 3, 2))
    for side, mirror in enumerate((-1, 1)):  # left on the picture's left: the thumb points inwards
        reach = _sway(rng, frames, 0.25, 0.9, (2,)) * rng.uniform(0.4, 1.0)
        wrist = np.stack([32 + mirror * (18.0 + rng.uniform(-1.5, 1.5)) + 2.6 * reach[:, 0],
                          57 + rng.uniform(-3.0, 2.0) + 3.4 * reach[:, 1]], axis=1)  # fmt: skip
        angle = mirror * rng.uniform(-0.15, 0.3) + 0.2 * _sway(rng, frames, 0.25, 0.8)
        rest = np.where(rng.random(5) < 0.2, rng.uniform(0.55, 0.95, 5), rng.uniform(0.0, 0.2, 5))
        curl = np.clip(rest + 0.16 * _sway(rng, frames, 0.3, 1.0, (5,)), 0, 1)
        spread = rng.uniform(0.85, 1.15) + 0.12 * _sway(rng, frames, 0.2, 0.7)
        hands[:, side] = _hand(wrist, angle, curl, spread, mirror)
        shoulder = np.stack([32 + mirror * 13.0 + 0.3 * (head[:, 0] - 32), np.full(frames, 40.0)], axis=1)
        elbow = np.stack([32 + mirror * 26.0 + 0.2 * reach[:, 0], np.full(frames, 60.0)], axis=1)
        arms[:, side] = np.stack([shoulder, elbow, wrist], axis=1)
    blink = np.zeros(frames)
    if rng.random() < 0.3:
        start = int(rng.integers(0, max(frames - 3, 1)))
        blink[start : start + 3] = 1.0
    return Motion(head, hands, arms, blink)


def head_point(head: np.ndarray, right: float, down: float) -> np.ndarray:
    """A point fixed to the head, `[..., 2]`, offset in the head's own axes."""
    x, y, tilt = head[..., 0], head[..., 1], head[..., 2]
    cos, sin = np.cos(tilt), np.sin(tilt)
    return np.stack([x + cos * right - sin * down, y + sin * right + cos * down], -1)


def skeleton_of(motion: Motion, identity: Identity, scale: float) -> np.ndarray:
    """float32 `[T, 52, 3]`: x and y in pixels, visibility 1 inside the frame and 0 outside."""
    head = motion.head
    gap = identity.eye_gap
    fixed = ((0, 2.0), (0, 13.5), (-gap, -1.0), (gap, -1.0))  # nose, neck, eyes
    body = [head_point(head, right, down) for right, down in fixed]
    joints = [motion.arms[:, side, joint] for joint in range(3) for side in range(2)]
    points = np.concatenate([np.stack([*body, *joints], axis=1), motion.hands[:, 0], motion.hands[:, 1]], axis=1)
    visible = ((points >= 0) & (points < CANVAS)).all(-1, keepdims=True)
    return np.concatenate([points * scale, visible], axis=-1).astype(np.float32)
