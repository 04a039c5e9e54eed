"""Kinds of damage with their levels, and which metric each should move which way.

Those here need nothing but a clip, another clip of somebody else, and what the extractors found in the clean clip;
a track that draws its clips has more of its own (`halign_bench.tracks.puppet.fitness`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from halign_bench.fitness import spoiling
from halign_bench.track import Clip, Extractor, Unscorable

if TYPE_CHECKING:
    import numpy as np

RISES, FALLS = 1, -1


class Spoilt(NamedTuple):
    """A damaged clip, and the clip that it was asked to follow (whose sound may be the damaged part)."""

    clip: Clip
    condition: Clip


@dataclass
class Subject:
    """A clean clip with what is needed to spoil it.

    clip     for damage to pictures
    long     for damage to sound, which published sync scores need more frames for; the same clip where there is one
    seed     of everything random: the same numbers at all levels of a damage
    other    another person's clip of the same frame size and at least as long, or why there is none
    sound_at the sound of `long` from k frames later on (before the beginning and after the end it is silence)
    made     how it was made, for damage that is drawn anew
    """

    clip: Clip
    long: Clip
    seed: tuple[int, ...]
    other: Callable[[], Clip | Unscorable]
    sound_at: Callable[[int], np.ndarray | None] = lambda frames: None
    made: Any = None
    extractors: Mapping[str, Extractor] = field(default_factory=dict)
    _known: dict[tuple[str, bool], Any] = field(default_factory=dict)

    def clean(self, feature: str, long: bool = False) -> Any:
        """Features of the clean clip, extracted once for all damages."""
        long = long and self.long is not self.clip
        if (feature, long) not in self._known:
            clip = self.long if long else self.clip
            self._known[feature, long] = self.extractors[feature]([clip], [clip])[0]
        return self._known[feature, long]

    def rng(self, kind: str) -> np.random.Generator:
        import numpy as np

        return np.random.default_rng((*self.seed, zlib.crc32(kind.encode())))


Spoil = Callable[[Subject, float, "np.random.Generator"], "Spoilt | Unscorable"]


@dataclass(frozen=True)
class Damage:
    """One kind of damage.

    levels   from 0, which is none, to severe
    follows  metric -> RISES or FALLS: what its score should do from level to level
    spoil    makes a subject's damaged clip at a level above 0, or says why it cannot
    sound    whether it is the sound that is damaged
    exact    a metric that should move by exactly the level
    """

    unit: str
    levels: tuple[float, ...]
    follows: Mapping[str, int]
    spoil: Spoil
    sound: bool = False
    exact: str | None = None


# Pictures


def of_pictures(change: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]) -> Spoil:
    """Damage that needs nothing but the video."""

    def spoil(subject: Subject, level: float, rng: np.random.Generator) -> Spoilt:
        return Spoilt(replace(subject.clip, video=change(subject.clip.video, level, rng)), subject.clip)

    return spoil


def _swap(subject: Subject, level: float, rng: np.random.Generator) -> Spoilt | Unscorable:
    other = subject.other()
    if isinstance(other, Unscorable):
        return other
    count = len(subject.clip.video)
    if len(other.video) < count:
        return Unscorable(f"the other clip has {len(other.video)} frames, {count} are needed")
    video = spoiling.swapped(subject.clip.video, other.video[:count], level, rng)
    return Spoilt(replace(subject.clip, video=video), subject.clip)


# Hands


def _hands(subject: Subject) -> list[tuple[int, np.ndarray]] | Unscorable:
    from halign_bench.metric import Scored
    from halign_bench.metrics._hand_boxes import target_boxes

    found = subject.clean("hands")
    return found if isinstance(found, Unscorable) else target_boxes(Scored(subject.clip, subject.clip, found, found))


def _blur_hands(subject: Subject, level: float, rng: np.random.Generator) -> Spoilt | Unscorable:
    boxes = _hands(subject)
    if isinstance(boxes, Unscorable):
        return boxes
    return Spoilt(replace(subject.clip, video=spoiling.boxes_blurred(subject.clip.video, boxes, level)), subject.clip)


def _remove_hands(subject: Subject, level: float, rng: np.random.Generator) -> Spoilt | Unscorable:
    boxes = _hands(subject)
    if isinstance(boxes, Unscorable):
        return boxes
    gone = spoiling.chosen_frames(len(subject.clip.video), level, rng)
    video = spoiling.boxes_removed(subject.clip.video, [(frame, box) for frame, box in boxes if gone[frame]])
    return Spoilt(replace(subject.clip, video=video), subject.clip)


# Sound


def _shift_sound(subject: Subject, level: float, rng: np.random.Generator) -> Spoilt | Unscorable:
    """Further the way that the clip is off already, so that the absolute offset grows by the level."""
    from halign_bench.metrics.sync_c import clip_sync

    found = subject.clean("sync", long=True)
    if isinstance(found, Unscorable):
        return found
    scores = clip_sync(found)
    late = not isinstance(scores, Unscorable) and scores.offset < 0
    sound = subject.sound_at(-int(level) if late else int(level))
    if sound is None:
        return Unscorable("no audio")
    return Spoilt(subject.long, replace(subject.long, audio=sound))


def _wrong_sound(subject: Subject, level: float, rng: np.random.Generator) -> Spoilt | Unscorable:
    if subject.long.audio is None:
        return Unscorable("no audio")
    other = subject.other()
    if isinstance(other, Unscorable):
        return other
    if other.audio is None:
        return Unscorable("the other clip has no audio")
    sound = spoiling.sound_replaced(subject.long.audio, other.audio, level)
    return Spoilt(subject.long, replace(subject.long, audio=sound))


_SHARES = (0, 0.25, 0.5, 0.75, 1)
_FRAMES = {"fid": RISES, "kid": RISES, "lpips": RISES, "ssim": FALLS, "psnr": FALLS}
DAMAGES: dict[str, Damage] = {
    "blur": Damage(
        "px, sigma at 64 x 64", (0, 0.5, 1, 1.5, 2, 3), _FRAMES,
        of_pictures(lambda video, level, rng: spoiling.blurred(video, level)),
    ),
    "noise": Damage("grey levels of 255, sigma", (0, 5, 10, 20, 40), _FRAMES, of_pictures(spoiling.noisy)),
    "shuffled": Damage(
        "share of frames", _SHARES, {"fvd": RISES, "motion": RISES, "motion_gap": RISES},
        of_pictures(lambda video, level, rng: video[spoiling.shuffled(len(video), level, rng)]),
    ),
    "frozen": Damage(
        "share of frames", _SHARES, {"fvd": RISES, "motion": FALLS, "motion_gap": RISES},
        of_pictures(lambda video, level, rng: video[spoiling.frozen(len(video), level)]),
    ),
    "identity_swapped": Damage("share of frames", _SHARES, {"csim": FALLS}, _swap),
    "hands_blurred": Damage(
        "of the hand box's longer side, sigma", (0, 0.05, 0.1, 0.15, 0.2, 0.3),
        {"hkc": FALLS, "ssim_hand": FALLS, "psnr_hand": FALLS}, _blur_hands,
    ),
    "hands_removed": Damage(
        "share of frames", _SHARES, {"hkc": FALLS, "hkc_coverage": FALLS, "ssim_hand": FALLS, "psnr_hand": FALLS},
        _remove_hands,
    ),
    "audio_shift": Damage(
        "frames", (0, 1, 2, 3, 4), {"sync_offset": RISES, "sync_c": FALLS, "sync_d": RISES}, _shift_sound,
        sound=True, exact="sync_offset",
    ),
    "wrong_sound": Damage("share of the sound", _SHARES, {"sync_c": FALLS, "sync_d": RISES}, _wrong_sound, sound=True),
}  # fmt: skip
"""Of any clip."""


__all__ = ["DAMAGES", "FALLS", "RISES", "Damage", "Spoilt", "Subject", "of_pictures"]
