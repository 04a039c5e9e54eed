"""Is a metric any good here? Puppet clips spoilt by a known amount, some of them drawn anew.

`DAMAGES` and `measure` are what the evaluators' card rests on; `damages` and `subjects` are what the command
`halign-bench fitness` takes: the same damages, and those of any clip besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from halign_bench.errors import RequestError
from halign_bench.fitness import damages as common
from halign_bench.fitness import spoiling
from halign_bench.fitness.damages import FALLS, RISES, Spoilt, Subject
from halign_bench.fitness.measuring import Measurement
from halign_bench.registry import get
from halign_bench.track import Clip, Extractor
from halign_bench.tracks.puppet.body import CANVAS, LAYOUT, make_identity, skeleton_of
from halign_bench.tracks.puppet.clips import SPLITS, VERSION, Take, take
from halign_bench.tracks.puppet.render import ALL_FINGERS, render


class Damage(NamedTuple):
    """On the card; that of any clip has the same unit and levels here."""

    unit: str
    levels: tuple[float, ...]
    metrics: tuple[str, ...]  # those that should follow the level


def _as_common(kind: str, *metrics: str) -> Damage:
    return Damage(common.DAMAGES[kind].unit, common.DAMAGES[kind].levels, metrics)


DAMAGES = {  # in this order: a damage's place is part of its random numbers
    "audio_shift": _as_common("audio_shift", "sync_offset"),
    "finger_jitter": Damage("px, deviation of each joint at 64 x 64", (0, 0.5, 1, 1.5, 2, 3), ("hkc",)),
    "fingers_removed": Damage("fingers of each hand", (0, 1, 2, 3, 4, 5), ("hkc",)),
    "identity_swapped": _as_common("identity_swapped", "csim"),
    "blur": _as_common("blur", "fid"),
    "noise": _as_common("noise", "fid"),
    "shuffled": _as_common("shuffled", "fvd"),
    "frozen": _as_common("frozen", "fvd"),
}


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
        video = spoiling.swapped(video, other, level, rng)
    elif kind == "blur":
        video = spoiling.blurred(video, level)
    elif kind == "noise":
        video = spoiling.noisy(video, level, rng)
    elif kind == "shuffled":
        video = video[spoiling.shuffled(frames, level, rng)]
    else:
        video = video[spoiling.frozen(frames, level)]
    return replace(target, video=video)


# For `halign-bench fitness`


def damages() -> dict[str, common.Damage]:
    """Those of any clip, of which this track draws some anew, and its own."""
    drawn = {
        "audio_shift": common.DAMAGES["audio_shift"].follows,  # the mouth is shifted, the sound stays
        "finger_jitter": {"hkc": FALLS},
        "fingers_removed": {"hkc": FALLS},
        "identity_swapped": common.DAMAGES["identity_swapped"].follows,
    }
    own = {
        kind: common.Damage(
            DAMAGES[kind].unit, DAMAGES[kind].levels, follows, _drawn(kind),
            exact="sync_offset" if kind == "audio_shift" else None,
        ) for kind, follows in drawn.items()
    }  # fmt: skip
    still = common.Damage("share of their motion taken away", (0, 0.25, 0.5, 0.75, 1), {"hkv": FALLS}, _hands_stilled)
    return common.DAMAGES | own | {"hands_stilled": still}


def _drawn(kind: str) -> common.Spoil:
    def spoil(subject: Subject, level: float, rng: np.random.Generator) -> Spoilt:
        return Spoilt(damaged(subject.clip, subject.made, kind, level), subject.clip)

    return spoil


def _hands_stilled(subject: Subject, level: float, rng: np.random.Generator) -> Spoilt:
    """Hands drawn closer to where they are on average: their variance is (1 - level)² of what it was."""
    made: Take = subject.made
    hands = made.motion.hands + level * (made.motion.hands.mean(0, keepdims=True) - made.motion.hands)
    arms = made.motion.arms.copy()
    arms[:, :, 2] = hands[:, :, 0]
    frames, size = subject.clip.video.shape[:2]
    motion = replace(made.motion, hands=hands, arms=arms)
    video = render(made.identity, motion, made.script.at_frames(frames), size)
    return Spoilt(replace(subject.clip, video=video), subject.clip)


def subject_of(split: str, index: int, frames: int = 17, size: int = 64) -> Subject:
    """A clean clip, with the next person's for another voice."""
    target, made = target_of(split, index, frames, size), take(split, index, frames)
    spec = SPLITS[split]
    next_person = (index + spec.clips_per_identity) % spec.size
    return Subject(
        target, target, (VERSION, 79, *made.seed), cache(lambda: target_of(split, next_person, frames, size)), made=made
    )


# For the card


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
    follows = {name: FALLS if cls.higher_is_better else RISES for name, cls in classes.items()}
    damage = common.Damage(DAMAGES[kind].unit, levels, follows, _drawn(kind))
    measurement = Measurement({kind: damage}, classes, extractors)
    count = 0
    for index in indices:
        measurement.add(subject_of(split, index, frames, size), tick)
        count += 1
    results = []
    for (_, name), rungs in measurement.rungs.items():
        values = rungs.totals()
        pairs = [(level, value) for level, value in zip(levels, values, strict=True) if value is not None]
        if classes[name].per_clip:  # of all clips together, so that a card also tells how far clips differ
            pairs = [
                (level, value) for level, metric in zip(levels, rungs.metrics, strict=True) for value in metric.values
            ]
        known = len({value for _, value in pairs}) > 1 and len({level for level, _ in pairs}) > 1
        rank = float(spearmanr([p[0] for p in pairs], [p[1] for p in pairs]).statistic) if known else None
        results.append(Fitness(kind, name, levels, values, rank, count))
    return results
