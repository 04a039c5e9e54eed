"""Is a metric any good here? Clips spoiled by a known amount, and whether the score follows the amount.

Each kind of damage has levels from none to severe. `measure` scores clean-to-severe with the very metrics of a
run and gives Spearman's rank correlation of score against level: a metric that does not follow is unfit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from halign_bench.errors import RequestError
from halign_bench.metric import Metric, Scored
from halign_bench.registry import get
from halign_bench.track import Clip, Extractor
from halign_bench.tracks.puppet.body import CANVAS, LAYOUT, make_identity, skeleton_of
from halign_bench.tracks.puppet.clips import VERSION, Take, take
from halign_bench.tracks.puppet.render import ALL_FINGERS, render


class Damage(NamedTuple):
    unit: str
    levels: tuple[float, ...]
    metrics: tuple[str, ...]  # those that should follow the level


DAMAGES = {
    "audio_shift": Damage("frames", (0, 1, 2, 3, 4), ("sync_offset",)),
    "finger_jitter": Damage("px, deviation of each joint at 64 x 64", (0, 0.5, 1, 1.5, 2, 3), ("hkc",)),
    "fingers_removed": Damage("fingers of each hand", (0, 1, 2, 3, 4, 5), ("hkc",)),
    "identity_swapped": Damage("share of frames", (0, 0.25, 0.5, 0.75, 1), ("csim",)),
    "blur": Damage("px, sigma at 64 x 64", (0, 0.5, 1, 1.5, 2, 3), ("fid",)),
    "noise": Damage("grey levels of 255, sigma", (0, 5, 10, 20, 40), ("fid",)),
    "shuffled": Damage("share of frames", (0, 0.25, 0.5, 0.75, 1), ("fvd",)),
    "frozen": Damage("share of frames", (0, 0.25, 0.5, 0.75, 1), ("fvd",)),
}


def shuffled(frames: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """An order in which `share` of the frames have changed places among themselves."""
    order = np.arange(frames)
    chosen = rng.choice(frames, round(share * frames), replace=False)
    order[np.sort(chosen)] = chosen
    return order


def frozen(frames: int, share: float) -> np.ndarray:
    """An order that stands still for the last `share` of the frames."""
    return np.minimum(np.arange(frames), frames - 1 - round(share * (frames - 1)))


def target_of(split: str, index: int, frames: int = 17, size: int = 64) -> Clip:
    """The clean clip, whatever defects its split has."""
    made = take(split, index, frames)
    return Clip(
        id=made.id, identity=made.identity_name, video=made.draw(size),
        reference=render(made.identity, made.reference_motion, made.reference_mouth, size)[0],
        audio=made.audio(), skeleton=skeleton_of(made.motion, made.identity, size / CANVAS), layout=LAYOUT,
    )  # fmt: skip


def damaged(target: Clip, made: Take, kind: str, level: float) -> Clip:
    """`target` with its video spoiled. One clip's random numbers are the same at all levels."""
    if kind not in DAMAGES:
        raise RequestError(f"no kind of damage is called '{kind}'; there are {', '.join(DAMAGES)}")
    rng = np.random.default_rng((VERSION, 73, *made.seed, list(DAMAGES).index(kind)))
    frames, size = target.video.shape[:2]
    if level == 0:
        return target
    if kind in ("audio_shift", "finger_jitter", "fingers_removed"):
        mouth, motion, fingers = made.script.at_frames(frames), made.motion, ALL_FINGERS
        if kind == "audio_shift":
            mouth = made.script.at_frames(frames, float(level) * rng.choice([-1, 1]))
        elif kind == "finger_jitter":
            motion = replace(motion, hands=motion.hands + level * rng.standard_normal((1, 2, 21, 2)))
        else:
            order = [rng.permutation(5)[int(level) :].tolist() for _ in range(2)]
            fingers = (tuple(sorted(order[0])), tuple(sorted(order[1])))  # type: ignore[assignment]
        return replace(target, video=render(made.identity, motion, mouth, size, fingers))
    video = target.video
    if kind == "identity_swapped":
        other = render(make_identity(rng), made.motion, made.script.at_frames(frames), size)
        video = np.where((rng.permutation(frames) < level * frames)[:, None, None, None], other, video)
    elif kind == "blur":
        from scipy.ndimage import gaussian_filter

        sigma = level * size / CANVAS
        video = gaussian_filter(video.astype(np.float32), (0, sigma, sigma, 0)).round().astype(np.uint8)
    elif kind == "noise":
        video = (video + level * rng.standard_normal(video.shape)).clip(0, 255).round().astype(np.uint8)
    elif kind == "shuffled":
        video = video[shuffled(frames, level, rng)]
    else:
        video = video[frozen(frames, level)]
    return replace(target, video=video)


@dataclass(frozen=True)
class Fitness:
    """Scores of one metric at each level, and Spearman's correlation with it (set metrics: of totals)."""

    kind: str
    metric: str
    levels: tuple[float, ...]
    values: tuple[float | None, ...]
    spearman: float | None
    clips: int

    @property
    def follows(self) -> bool:
        """Whether the score falls (or rises, where lower is better) at every step of the level."""
        if any(value is None for value in self.values):
            return False
        steps = np.diff(np.array(self.values, float))
        return bool((steps < 0).all() if _metric(self.metric).higher_is_better else (steps > 0).all())


def _metric(name: str) -> Any:
    return get("metric", name)


def measure(
    kind: str,
    extractors: Mapping[str, Extractor],
    indices: Iterable[int],
    split: str = "eval",
    frames: int = 17,
    size: int = 64,
    tick: Callable[[], None] = lambda: None,
) -> list[Fitness]:
    """Every metric that should follow `kind`, over the same clips at each of its levels."""
    from scipy.stats import spearmanr

    levels, names = DAMAGES[kind].levels, DAMAGES[kind].metrics
    classes = {name: _metric(name) for name in names}
    tables: dict[str, list[Metric]] = {
        name: [cls(extractors[cls.feature] if cls.feature else None) for _ in levels] for name, cls in classes.items()
    }
    features = {cls.feature for cls in classes.values() if cls.feature}
    count = 0
    for index in indices:
        target, made = target_of(split, index, frames, size), take(split, index, frames)
        true = {feature: extractors[feature]([target], [target])[0] for feature in features}
        for at, level in enumerate(levels):
            clip = damaged(target, made, kind, level)
            found = {feature: extractors[feature]([clip], [target])[0] for feature in features}
            for name, cls in classes.items():
                given, asked = found.get(cls.feature), true.get(cls.feature)
                tables[name][at].update(Scored(clip, target, given, asked))
        count += 1
        tick()
    results = []
    for name, row in tables.items():
        values = tuple(metric.compute() for metric in row)
        pairs = [(level, value) for level, value in zip(levels, values, strict=True) if value is not None]
        if classes[name].per_clip:
            pairs = [
                (level, value)
                for level, metric in zip(levels, row, strict=True)
                for value in metric.values
                if isinstance(value, float)
            ]
        known = len({value for _, value in pairs}) > 1 and len({level for level, _ in pairs}) > 1
        rank = float(spearmanr([p[0] for p in pairs], [p[1] for p in pairs]).statistic) if known else None
        results.append(Fitness(kind, name, levels, values, rank, count))
    return results
