"""Labels candidates by ground truth: the puppet's exact pose and mouth are known, so no net is needed.

It therefore shares no weights, no clips and no seeds with the evaluators. Per criterion, higher is
better:

motion    how well what moves follows what was asked: the frame-to-frame change of the mouth area
          correlated with that of the true clip (lip sync), minus the excess or lack of movement in
          head and hands (frozen, jittered).
fidelity  how well it looks: edges and colours in the hand boxes, and edges over the whole frame,
          against the true clip (missing fingers, smears, blur).

The terms are put on one scale by their spread over defective clips of the split `annotator-train`
(constants below, made by `calibrate`).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from halign_bench.masks import mouth_place
from halign_bench.track import Clip

# Mean and standard deviation of each raw term over the first 100 clips of `annotator-train`, spoiled.
SCALE = {
    "lips": (0.3617, 0.4238),
    "lip_motion": (-0.081, 0.0575),
    "movement": (-1.4038, 1.1268),
    "edges": (-0.0372, 0.011),
    "hands": (-0.1969, 0.0524),
}


def _gradients(frames: np.ndarray) -> np.ndarray:
    """Vertical and horizontal differences of `[..., H, W, 3]`, cropped alike and stacked last."""
    dy = frames[..., 1:, :-1, :] - frames[..., :-1, :-1, :]
    dx = frames[..., :-1, 1:, :] - frames[..., :-1, :-1, :]
    return np.concatenate([dy, dx], axis=-1)


def _box(points: np.ndarray, margin: float, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns around points `[N, 2]`, at least two pixels each way."""
    height, width = size
    low = np.clip(np.floor(points.min(0) - margin), 0, [width - 2, height - 2]).astype(int)
    high = np.clip(np.ceil(points.max(0) + margin), low + 2, [width, height]).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _mouth_boxes(target: Clip, size: tuple[int, int]) -> list[tuple[slice, slice]]:
    unit, place = size[0] / 64, mouth_place(target)
    assert place is not None, "the puppet has a nose and a neck"
    return [_box(centre[None], 5.5 * unit, size) for centre in place[0]]


def raw_terms(video: np.ndarray, target: Clip) -> dict[str, float]:
    """The separate measurements of a candidate uint8 `[T, H, W, 3]`, each higher = better."""
    if target.skeleton is None or target.layout is None:
        raise ValueError(f"clip {target.id} has no skeleton; the puppet annotator needs one")
    made, true = video.astype(np.float32) / 255, target.video.astype(np.float32) / 255
    size = true.shape[1:3]
    mouth = _mouth_boxes(target, size)
    dark = [np.array([frame[box].mean() for frame, box in zip(v, mouth, strict=True)]) for v in (made, true)]
    dark = [curve - curve.mean() for curve in dark]
    spread = np.sqrt((dark[0] ** 2).sum() * (dark[1] ** 2).sum())
    change = np.diff(made, axis=0) - np.diff(true, axis=0)
    lips = np.mean([np.abs(change[k][mouth[k]]).mean() for k in range(len(change))])
    moved = [np.abs(np.diff(v, axis=0)).mean((1, 2, 3)) for v in (made, true)]
    edges = _gradients(made), _gradients(true)
    hands = []
    for rows in target.layout.hands:
        for k in range(len(made)):
            seen = target.skeleton[k, rows]
            seen = seen[seen[:, 2] > 0.5][:, :2]
            if len(seen) >= 5:
                box = _box(seen, 2.0, (size[0] - 1, size[1] - 1))
                outlines = np.abs(edges[0][k][box] - edges[1][k][box]).mean()
                hands.append(outlines + np.abs(made[k][box] - true[k][box]).mean())
    terms = {
        "lips": float((dark[0] * dark[1]).sum() / (spread + 1e-4)),
        "lip_motion": -float(lips),
        "movement": -float(np.abs(moved[0] - moved[1]).mean() / (moved[1].mean() + 1e-3)),
        "edges": -float(np.abs(edges[0] - edges[1]).mean()),
    }
    if hands:
        terms["hands"] = -float(np.mean(hands))
    return terms


class PuppetAnnotator:
    """Scores a candidate per criterion: the mean of the criterion's terms, each standardised by `SCALE`."""

    criteria = ("motion", "fidelity")
    terms: ClassVar[dict[str, tuple[str, ...]]] = {
        "motion": ("lips", "lip_motion", "movement"),
        "fidelity": ("hands", "edges"),
    }
    protocol = "puppet ground truth 1: motion = lips, lip_motion, movement; fidelity = hands, edges; standardised"

    def __call__(self, video: np.ndarray, target: Clip) -> dict[str, float]:
        if video.shape != target.video.shape:
            raise ValueError(f"a candidate of shape {video.shape} does not fit a clip of {target.video.shape}")
        raw = raw_terms(video, target)
        scores = {}
        for criterion, names in self.terms.items():
            found = [(raw[name] - SCALE[name][0]) / SCALE[name][1] for name in names if name in raw]
            scores[criterion] = float(np.mean(found))
        return scores


def calibrate(clips: int = 100) -> dict[str, tuple[float, float]]:
    """Mean and spread of each term over defective renderings of `annotator-train`: how `SCALE` was made."""
    from halign_bench.tracks.puppet.clips import draw_clip, take
    from halign_bench.tracks.puppet.defects import FIDELITY_DEFECTS, MOTION_DEFECTS

    found: dict[str, list[float]] = {}
    for index in range(clips):
        target = draw_clip("annotator-train", index, 17, 64)
        rng = np.random.default_rng((6, index))
        defects = str(rng.choice(MOTION_DEFECTS)), str(rng.choice(FIDELITY_DEFECTS))
        spoiled = take("annotator-train", index, 17).draw(64, defects)
        for name, value in raw_terms(spoiled, target).items():
            found.setdefault(name, []).append(value)
    return {name: (round(float(np.mean(v)), 4), round(float(np.std(v)), 4)) for name, v in found.items()}
