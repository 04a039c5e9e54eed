"""Skeletons drawn as pictures: what a pose-driven model sees, and what a report overlays."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from halign_bench.track import SkeletonLayout

SUPERSAMPLING = 2
BODY_WIDTH, FINGER_WIDTH = 4.0, 2.2  # of a 64-pixel frame: about as wide as the limb, so that it tells what it covers


def edge_colours(layout: SkeletonLayout) -> list[tuple[int, int, int]]:
    """Grey-blue body; every finger a hue of its own, the two hands of different lightness."""
    colours = []
    for a, b in layout.edges:
        joint = max(a, b)
        for hand, (hand_rows, value) in enumerate(zip(layout.hands, (1.0, 0.62), strict=True)):
            if hand_rows.start <= joint < hand_rows.stop:
                finger = (joint - hand_rows.start - 1) // 4
                r, g, b_ = colorsys.hsv_to_rgb(finger / 5 + 0.03 * hand, 1.0, value)
                colours.append((round(255 * r), round(255 * g), round(255 * b_)))
                break
        else:
            colours.append((120, 140, 190))
    return colours


def draw_skeleton(
    skeleton: np.ndarray, layout: SkeletonLayout, size: tuple[int, int], threshold: float = 0.5
) -> np.ndarray:
    """`[T, K, 3]` (x, y in pixels, visibility) -> uint8 `[T, H, W, 3]` on black.

    A bone is drawn when both its ends have visibility above `threshold`.
    """
    height, across = size
    unit = SUPERSAMPLING
    colours = edge_colours(layout)
    in_hand = [any(hand.start <= max(edge) < hand.stop for hand in layout.hands) for edge in layout.edges]
    widths = [(FINGER_WIDTH if hand else BODY_WIDTH) * unit * height / 64 for hand in in_hand]
    frames = np.empty((len(skeleton), height, across, 3), np.uint8)
    for k, points in enumerate(skeleton):
        image = Image.new("RGB", (across * unit, height * unit))
        pen = ImageDraw.Draw(image)
        scaled = (points[:, :2] * unit).tolist()
        seen = points[:, 2] > threshold
        for (a, b), colour, width in zip(layout.edges, colours, widths, strict=True):
            if seen[a] and seen[b]:
                pen.line((*scaled[a], *scaled[b]), fill=colour, width=max(round(width), 1))
                for x, y in (scaled[a], scaled[b]):
                    pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=colour)
        frames[k] = np.asarray(image.reduce(unit))
    return frames
