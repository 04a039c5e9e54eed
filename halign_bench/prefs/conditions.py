"""Prompts as clips: those of the track by their id, those of a preference file from the files it names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from halign_bench.decoding import MediaError
from halign_bench.errors import RequestError, first_line
from halign_bench.media import fit, read_audio
from halign_bench.prefs.lines import Condition
from halign_bench.track import FPS, Clip, SkeletonLayout, Track

if TYPE_CHECKING:
    import numpy as np


class ConditionError(RequestError):
    """What is wrong with `field` of a condition, and what to do."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason


def prompt_places(track: Track, wanted: set[str], known: dict[str, int]) -> dict[str, int]:
    """Place in the track's split `prompts` of each clip that is wanted and there; `known` are tried first."""
    count, found = track.splits().get("prompts", 0), {}
    for name in wanted & known.keys():
        if known[name] < count and track.clip("prompts", known[name]).id == name:
            found[name] = known[name]
    left = wanted - found.keys()
    for index in range(count):
        if not left:
            break
        if (name := track.clip("prompts", index).id) in left:
            found[name] = index
            left.remove(name)
    return found


def own_clip(
    name: str, condition: Condition, folder: Path, frames: int, size: tuple[int, int], layout: SkeletonLayout | None
) -> Clip:
    """A clip with this condition, its video the reference standing still: there is no real one.

    layout  of the track's skeletons, None where it has none
    Raises ConditionError.
    """
    import numpy as np

    reference = _image(folder / condition.reference, size)
    return Clip(
        name, condition.identity or condition.reference, np.repeat(reference[None], frames, axis=0), reference,
        _sound(folder / condition.audio, frames) if condition.audio is not None else None,
        _skeleton(folder / condition.skeleton, frames, layout) if condition.skeleton is not None else None, layout,
    )  # fmt: skip


def _image(path: Path, size: tuple[int, int]) -> np.ndarray:
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return fit(np.asarray(image.convert("RGB")), size)
    except Exception as problem:  # Pillow's readers each raise their own
        known = isinstance(problem, UnidentifiedImageError)
        reason = "is no image that can be read" if known else f"({first_line(problem)})"
        raise ConditionError("reference", f"{path.name} {reason}; give a whole PNG or JPEG") from None


def _sound(path: Path, frames: int) -> np.ndarray:
    seconds = frames / FPS
    try:
        sound = read_audio(path, seconds)
    except MediaError as problem:
        raise ConditionError("audio", f"{path.name} {problem.reason}; give another file") from None
    if sound is None:
        raise ConditionError("audio", f"{path.name} has no sound in its first {seconds:g} s; leave audio out")
    return sound.samples


def _skeleton(path: Path, frames: int, layout: SkeletonLayout | None) -> np.ndarray:
    import numpy as np

    if layout is None:
        raise ConditionError("skeleton", "this track has no skeletons, and so no order of keypoints; leave it out")
    points = max(layout.right_hand.stop, layout.left_hand.stop, len(layout.body))
    try:
        found = np.load(path, allow_pickle=False)
    except Exception as problem:  # as numpy, zipfile and tokenize do
        why = first_line(problem)
        raise ConditionError("skeleton", f"{path.name} is no .npy array ({why}); save it with numpy.save") from None
    if not isinstance(found, np.ndarray) or found.shape[1:] != (points, 3) or len(found) < frames:
        shape = list(found.shape) if isinstance(found, np.ndarray) else "several arrays"
        raise ConditionError("skeleton", f"{path.name} is {shape}; [{frames} or more, {points}, 3] is needed")
    if found.dtype.kind not in "fiu" or not np.isfinite(found[:frames]).all():
        raise ConditionError("skeleton", f"{path.name} has values that are no finite numbers; correct them")
    return found[:frames].astype(np.float32)


__all__ = ["ConditionError", "own_clip", "prompt_places"]
