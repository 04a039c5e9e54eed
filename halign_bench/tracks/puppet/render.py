"""Draws the puppet: painter's algorithm, four-fold supersampling, Pillow's integer rasteriser."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from halign_bench.tracks.puppet.body import CANVAS, Identity, Motion, head_point

SUPERSAMPLING = 3
FINGER_WIDTH = 2.2
OUTLINE = 0.8
PALM_LIGHT = 1.14  # palms are lighter than faces

Colour = tuple[int, int, int]


def _colour(rgb: np.ndarray, gain: float = 1.0) -> Colour:
    r, g, b = np.clip(np.asarray(rgb) * gain, 0, 255).astype(int)
    return int(r), int(g), int(b)


class Pen:
    """Shapes in canvas units on a supersampled image."""

    def __init__(self, image: Image.Image, unit: float) -> None:
        self.draw, self.unit = ImageDraw.Draw(image), unit

    def disc(
        self, centre: Iterable[float], radius_x: float, radius_y: float | None = None, fill: Colour = (0, 0, 0)
    ) -> None:
        x, y = (c * self.unit for c in centre)
        rx, ry = radius_x * self.unit, (radius_y or radius_x) * self.unit
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def polygon(self, points: np.ndarray, fill: Colour) -> None:
        self.draw.polygon([(x, y) for x, y in (points * self.unit).tolist()], fill=fill)

    def limb(self, points: np.ndarray, width: float, fill: Colour) -> None:
        """A polyline with round joints and ends."""
        scaled = (points * self.unit).tolist()
        half = width * self.unit / 2
        for start, end in pairwise(scaled):
            self.draw.line((*start, *end), fill=fill, width=max(round(2 * half), 1))
        for x, y in scaled:
            self.draw.ellipse((x - half, y - half, x + half, y + half), fill=fill)


_RING = np.stack([np.cos(np.linspace(0, 2 * np.pi, 25)), np.sin(np.linspace(0, 2 * np.pi, 25))], -1)


def _head_oval(head: np.ndarray, right: float, down: float, rx: float, ry: float) -> np.ndarray:
    """An ellipse that tilts with the head, as a polygon."""
    cos, sin = np.cos(head[2]), np.sin(head[2])
    centre = head_point(head, right, down)
    x, y = _RING[:, 0] * rx, _RING[:, 1] * ry
    return np.stack([centre[0] + cos * x - sin * y, centre[1] + sin * x + cos * y], -1)


def _backdrop(who: Identity, unit: float) -> Image.Image:
    side = round(CANVAS * unit)
    ramp = np.linspace(1.06, 0.84, side)[:, None, None] * who.wall
    return Image.fromarray(np.broadcast_to(np.clip(ramp, 0, 255), (side, side, 3)).astype(np.uint8))


def _draw_body(pen: Pen, who: Identity, head: np.ndarray, arms: np.ndarray) -> None:
    shirt, shade = _colour(who.clothes), _colour(who.clothes, 0.72)
    if who.hair_style == 2:
        pen.polygon(_head_oval(head, 0, 4.0, who.head_size[0] + 2.2, who.head_size[1] + 2.6), _colour(who.hair, 0.85))
    neck = head_point(head, 0, 13.5)
    left, right = arms[0, 0], arms[1, 0]
    pen.limb(np.stack([head_point(head, 0, 6), neck + [0, 3]]), 6.5, _colour(who.skin, 0.82))
    torso = [left + [-3, 2], left + [2, -3], neck + [-4, 1], neck + [4, 1], right + [-2, -3], right + [3, 2]]
    pen.polygon(np.array([*torso, [right[0] + 2, 66], [left[0] - 2, 66]]), shirt)
    for side in range(2):
        pen.limb(arms[side], 6.8, shade)
        pen.limb(arms[side][1:], 5.6, shirt)


def _draw_head(pen: Pen, who: Identity, head: np.ndarray, mouth: np.ndarray, blink: float) -> None:
    rx, ry = who.head_size
    skin, dark = _colour(who.skin), _colour(who.skin, 0.62)
    hair = _colour(who.hair)
    if who.hair_style == 3:
        pen.disc(head_point(head, 0, -ry - 1.0), 3.6, fill=hair)
    if who.hair_style:
        pen.polygon(_head_oval(head, 0, -1.4, rx + 1.2, ry + 1.2), hair)
    for side in (-1, 1):
        pen.disc(head_point(head, side * rx, 0.8), 1.7, 2.2, fill=_colour(who.skin, 0.88))
    pen.polygon(_head_oval(head, 0, 0.6, rx, ry), skin)
    if who.beard:
        pen.polygon(_head_oval(head, 0, 6.4, rx * 0.78, ry * 0.52), _colour(who.hair, 1.1))
    if who.hair_style in (1, 2, 3):
        pen.polygon(_head_oval(head, 0, -ry * 0.72, rx * 0.86, ry * 0.34), hair)
    if who.hair_style == 4:
        pen.polygon(_head_oval(head, 0, -ry * 0.74, rx + 1.0, ry * 0.38), _colour(who.clothes, 0.8))
    for side in (-1, 1):
        eye = head_point(head, side * who.eye_gap, -1.2)
        if blink:
            pen.limb(np.stack([head_point(head, side * who.eye_gap + d, -1.0) for d in (-1.7, 1.7)]), 0.7, dark)
        else:
            pen.disc(eye, 2.0, 1.6, fill=(248, 248, 248))
            pen.disc(eye, 1.0, 1.2, fill=(30, 28, 34))
        ends = ((-1.8, who.brows), (1.8, -who.brows))
        brow = [head_point(head, side * (who.eye_gap + d), -4.2 + drop) for d, drop in ends]
        pen.limb(np.stack(brow), 0.9, _colour(who.hair, 0.8))
        if who.glasses:
            ring = np.stack([head_point(head, side * who.eye_gap + 2.8 * x, -1.2 + 2.4 * y) for x, y in _RING[::3]])
            pen.limb(ring, 0.55, (40, 40, 48))
    pen.limb(np.stack([head_point(head, 0, 0.4), head_point(head, 0.5, 2.6)]), 1.1, _colour(who.skin, 0.8))
    opening, width = float(mouth[0]), float(mouth[1])
    half, height = 2.3 + 2.3 * width, 0.5 + 3.4 * opening
    pen.polygon(_head_oval(head, 0, 6.4, half + 0.8, height + 0.8), _colour(who.skin * [0.78, 0.5, 0.5]))
    pen.polygon(_head_oval(head, 0, 6.4, half, height), (56, 14, 20))
    if opening > 0.3:
        pen.polygon(_head_oval(head, 0, 6.4 - height * 0.66, half * 0.66, height * 0.24), (240, 238, 232))


def _draw_hand(pen: Pen, who: Identity, points: np.ndarray, fingers: Iterable[int]) -> None:
    skin, line = _colour(who.skin, PALM_LIGHT), _colour(who.skin, 0.36)
    palm = points[[0, 1, 5, 9, 13, 17]]
    centre = palm.mean(0)
    grown = centre + (palm - centre) * 1.22
    for grow, fill in ((OUTLINE, line), (0.0, skin)):
        pen.polygon(centre + (grown - centre) * (1 + grow / 4), fill)
        pen.limb(palm[[2, 3, 4, 5, 0, 2]], 2.4 + 2 * grow, fill)
    for finger in fingers:
        chain = points[4 * finger + 1 : 4 * finger + 5]
        pen.limb(chain, FINGER_WIDTH + 2 * OUTLINE, line)
        pen.limb(chain, FINGER_WIDTH, skin)
    # The palm covers the finger roots' outlines again.
    pen.polygon(centre + (palm - centre) * 1.02, skin)


ALL_FINGERS = ((0, 1, 2, 3, 4), (0, 1, 2, 3, 4))


def render(
    who: Identity,
    motion: Motion,
    mouth: np.ndarray,
    size: int,
    fingers: tuple[tuple[int, ...], tuple[int, ...]] = ALL_FINGERS,
) -> np.ndarray:
    """uint8 `[T, size, size, 3]`. `mouth` is `[T, 2]` (opening, width); `fingers` says which are drawn."""
    unit = size * SUPERSAMPLING / CANVAS
    backdrop = _backdrop(who, unit)
    frames = np.empty((len(mouth), size, size, 3), np.uint8)
    for k in range(len(mouth)):
        image = backdrop.copy()
        pen = Pen(image, unit)
        _draw_body(pen, who, motion.head[k], motion.arms[k])
        _draw_head(pen, who, motion.head[k], mouth[k], motion.blink[k])
        for side in range(2):
            _draw_hand(pen, who, motion.hands[k, side], fingers[side])
        frames[k] = np.asarray(image.reduce(SUPERSAMPLING))
    return frames
