"""Skeletons drawn as published pose-driven models were trained on them: OpenPose's picture of a body with its hands.

Colours are those of OpenPose as DWPose draws it (github.com/IDEA-Research/DWPose): limbs dimmed to 60 %, joints on top
at full brightness, each bone of a hand in a hue of its own with blue joints. How broad the lines are is a model's own.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from halign_bench.track import SkeletonLayout

Colour = tuple[int, int, int]

DIMMED = 0.6
PALETTE: tuple[Colour, ...] = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255),
    (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
JOINTS = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
LIMBS = (
    ("neck", "right_shoulder"), ("neck", "left_shoulder"), ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("neck", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"), ("neck", "left_hip"),
    ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("neck", "nose"), ("nose", "right_eye"),
    ("right_eye", "right_ear"), ("nose", "left_eye"), ("left_eye", "left_ear"),
)  # fmt: skip


@dataclass(frozen=True)
class Brush:
    """Width of limbs, radius of joints, width of the bones of a hand, radius of its joints, all in pixels.

    threshold  of visibility, below which nothing is drawn
    """

    limb: int
    joint: float
    bone: int
    knuckle: float
    threshold: float


def dwpose_brush(size: tuple[int, int]) -> Brush:
    """DWPose's, which is for frames of about 512 pixels, and here in proportion."""
    scale = min(size) / 512
    return Brush(max(1, round(8 * scale)), 4 * scale, max(1, round(2 * scale)), 4 * scale, threshold=0.3)


def animate_brush(size: tuple[int, int]) -> Brush:
    """Wan-Animate's, thinner (github.com/Wan-Video/Wan2.2, what its preprocessing calls "v2")."""
    stick = max(min(size) // 200 - 1, 1)
    hand = max(stick // 2, 1)
    return Brush(2 * stick, stick, hand, hand, threshold=0.6)


def draw_openpose(skeleton: np.ndarray, layout: SkeletonLayout, size: tuple[int, int], brush: Brush) -> np.ndarray:
    """`[T, K, 3]` (x, y in pixels, visibility) -> uint8 `[T, H, W, 3]` on black.

    Body joints are known by their names in `layout`, others than OpenPose's are left out.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    rows = {name: row for row, name in enumerate(layout.body)}
    hands = [[(a, b) for a, b in layout.edges if rows.start <= min(a, b) < rows.stop] for rows in layout.hands]
    frames = np.empty((len(skeleton), *size, 3), np.uint8)
    for number, points in enumerate(skeleton):
        seen = points[:, 2] >= brush.threshold
        places = [(float(x), float(y)) for x, y, _ in points]
        picture = Image.new("RGB", (size[1], size[0]))
        pen = ImageDraw.Draw(picture)

        def dot(
            row: int, radius: float, colour: Colour, pen: ImageDraw.ImageDraw = pen, places: list = places
        ) -> None:
            x, y = places[row]
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

        for (first, second), colour in zip(LIMBS, PALETTE, strict=False):
            ends = [rows[name] for name in (first, second) if name in rows]
            if len(ends) == 2 and seen[ends].all():
                dimmed = tuple(round(DIMMED * channel) for channel in colour)
                pen.line([places[row] for row in ends], fill=dimmed, width=brush.limb)
        for name, colour in zip(JOINTS, PALETTE, strict=True):
            if name in rows and seen[rows[name]]:
                dot(rows[name], brush.joint, colour)
        for edges in hands:
            for bone, (a, b) in enumerate(edges):
                if seen[a] and seen[b]:
                    red, green, blue = colorsys.hsv_to_rgb(bone / len(edges), 1.0, 1.0)
                    colour = (round(255 * red), round(255 * green), round(255 * blue))
                    pen.line([places[a], places[b]], fill=colour, width=brush.bone)
        for hand in layout.hands:
            for row in range(hand.start, hand.stop):
                if seen[row]:
                    dot(row, brush.knuckle, (0, 0, 255))
        frames[number] = np.asarray(picture)
    return frames


__all__ = ["Brush", "animate_brush", "draw_openpose", "dwpose_brush"]
