"""Skeletons drawn as published pose-driven models were trained on them: OpenPose's picture of a body with its hands.

Colours and proportions are those of OpenPose as DWPose draws it (github.com/IDEA-Research/DWPose): limbs dimmed to
60 %, joints on top at full brightness, each bone of a hand in a hue of its own with blue joints. Sizes there are for
frames of about 512 pixels, and here in proportion.
"""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from halign_bench.track import SkeletonLayout

Colour = tuple[int, int, int]

SIDE = 512  # pixels of the frames that the sizes below are for
LIMB_WIDTH, JOINT_RADIUS, HAND_WIDTH, DIMMED = 8, 4, 2, 0.6
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


def draw_openpose(
    skeleton: np.ndarray, layout: SkeletonLayout, size: tuple[int, int], threshold: float = 0.3
) -> np.ndarray:
    """`[T, K, 3]` (x, y in pixels, visibility) -> uint8 `[T, H, W, 3]` on black.

    Body joints are known by their names in `layout`, others than OpenPose's are left out. What has a visibility
    below `threshold` (DWPose's own is 0.3) is not drawn.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    scale = min(size) / SIDE
    limb, thin = max(1, round(LIMB_WIDTH * scale)), max(1, round(HAND_WIDTH * scale))
    radius = JOINT_RADIUS * scale
    rows = {name: row for row, name in enumerate(layout.body)}
    hands = [[(a, b) for a, b in layout.edges if rows.start <= min(a, b) < rows.stop] for rows in layout.hands]
    frames = np.empty((len(skeleton), *size, 3), np.uint8)
    for number, points in enumerate(skeleton):
        seen = points[:, 2] >= threshold
        places = [(float(x), float(y)) for x, y, _ in points]
        picture = Image.new("RGB", (size[1], size[0]))
        pen = ImageDraw.Draw(picture)

        def dot(row: int, colour: Colour, pen: ImageDraw.ImageDraw = pen, places: list = places) -> None:
            x, y = places[row]
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

        for (first, second), colour in zip(LIMBS, PALETTE, strict=False):
            ends = [rows[name] for name in (first, second) if name in rows]
            if len(ends) == 2 and seen[ends].all():
                dimmed = tuple(round(DIMMED * channel) for channel in colour)
                pen.line([places[row] for row in ends], fill=dimmed, width=limb)
        for name, colour in zip(JOINTS, PALETTE, strict=True):
            if name in rows and seen[rows[name]]:
                dot(rows[name], colour)
        for edges in hands:
            for bone, (a, b) in enumerate(edges):
                if seen[a] and seen[b]:
                    red, green, blue = colorsys.hsv_to_rgb(bone / len(edges), 1.0, 1.0)
                    colour = (round(255 * red), round(255 * green), round(255 * blue))
                    pen.line([places[a], places[b]], fill=colour, width=thin)
        for hand in layout.hands:
            for row in range(hand.start, hand.stop):
                if seen[row]:
                    dot(row, (0, 0, 255))
        frames[number] = np.asarray(picture)
    return frames


__all__ = ["draw_openpose"]
