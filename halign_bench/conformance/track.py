"""The contract of a track, on the first clips of its splits. A track that reads a folder gets one of sample videos."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from halign_bench.conformance import Skipped, require
from halign_bench.track import FPS, SAMPLE_RATE, Clip, Track, Unscorable

CLIPS = 4  # of each split


class Subject:
    def __init__(self, cls: type[Track]) -> None:
        self.cls = cls

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        folder = tempfile.TemporaryDirectory(prefix="halign-conformance-")
        write_sample_videos(Path(folder.name))
        return folder

    def new(self) -> Track:
        return self.cls(Path(self._folder.name)) if self.cls.needs_data else self.cls()

    @cached_property
    def track(self) -> Track:
        return self.new()

    @cached_property
    def clips(self) -> dict[tuple[str, int], Clip]:
        return {place: self.track.clip(*place) for place in places(self.track)}

    @cached_property
    def evaluation(self) -> list[Clip]:
        return [clip for (split, _), clip in self.clips.items() if split == "eval"]


def write_sample_videos(folder: Path) -> None:
    """Four short videos with sound, of different people as far as a track can tell."""
    from halign_bench.conformance.samples import sample_clip
    from halign_bench.media import write_video

    for index in range(4):
        clip = sample_clip(2 * index, frames=2 * FPS + 1, size=(96, 96))
        write_video(folder / f"person{index}.mp4", clip.video, clip.audio)


def places(track: Track) -> list[tuple[str, int]]:
    return [(split, index) for split, count in track.splits().items() for index in range(min(count, CLIPS))]


def digest(clip: Clip) -> str:
    """Of everything in a clip, bytes and all."""
    total = hashlib.sha256(repr((clip.id, clip.identity, clip.defects)).encode())
    for array in (clip.video, clip.reference, clip.audio, clip.skeleton):
        total.update(b"none" if array is None else repr((array.dtype, array.shape)).encode() + array.tobytes())
    return total.hexdigest()


def has_the_splits_that_a_run_needs(subject: Subject) -> str:
    splits = subject.track.splits()
    for split in ("prompts", "eval"):
        require(splits.get(split, 0) >= 2, f"split '{split}' has {splits.get(split, 0)} clips; a run needs at least 2")
    return ", ".join(f"{name} {count}" for name, count in splits.items())


def clips_have_the_stated_form(subject: Subject) -> str:
    track = subject.track
    for (split, index), clip in subject.clips.items():
        problem = form_problem(clip, track)
        require(problem is None, f"{split} {index}: {problem}")
    some = next(iter(subject.clips.values()))
    absent = [name for name in ("audio", "skeleton") if getattr(some, name) is None]
    return f"{some.video.shape}, {some.video.dtype}" + (f", without {' and '.join(absent)}" if absent else "")


def form_problem(clip: Clip, track: Track) -> str | None:
    """What is wrong with the types, shapes or ranges of a clip."""
    frames, size = track.frames, tuple(track.size)
    video, reference, audio, skeleton = clip.video, clip.reference, clip.audio, clip.skeleton
    if not clip.id or not clip.identity:
        return "id or identity is empty"
    if video.dtype != np.uint8 or video.shape != (frames, *size, 3):
        return f"video is {video.dtype} {video.shape}, not uint8 {(frames, *size, 3)}"
    if frames % 4 != 1:
        return f"{frames} frames are not 1 + 4n"
    if reference.dtype != np.uint8 or reference.shape != (*size, 3):
        return f"reference is {reference.dtype} {reference.shape}, not uint8 {(*size, 3)}"
    if audio is not None:
        expected = frames * SAMPLE_RATE // FPS
        if audio.dtype != np.float32 or audio.shape != (expected,):
            return f"audio is {audio.dtype} {audio.shape}, not float32 ({expected},)"
        if not np.isfinite(audio).all() or np.abs(audio).max() > 1:
            return "audio is not finite or leaves [-1, 1]"
    if skeleton is not None:
        if clip.layout is None:
            return "there is a skeleton without a layout"
        if skeleton.dtype != np.float32 or skeleton.ndim != 3 or skeleton.shape[::2] != (frames, 3):
            return f"skeleton is {skeleton.dtype} {skeleton.shape}, not float32 ({frames}, K, 3)"
        if any(skeleton[:, hand].shape[1] != 21 for hand in clip.layout.hands):
            return "a hand of the layout does not have 21 keypoints"
        if max(max(edge) for edge in clip.layout.edges) >= skeleton.shape[1]:
            return "an edge of the layout names a keypoint that is not there"
        visibility = skeleton[..., 2]
        if not np.isfinite(skeleton).all() or visibility.min() < 0 or visibility.max() > 1:
            return "the skeleton is not finite, or its visibility leaves [0, 1]"
    return None


def splits_are_disjoint(subject: Subject) -> None:
    ids = [clip.id for clip in subject.clips.values()]
    require(len(set(ids)) == len(ids), f"clip ids occur twice: {sorted({i for i in ids if ids.count(i) > 1})[:3]}")
    contents: dict[bytes, tuple[str, int]] = {}
    for place, clip in subject.clips.items():
        twin = contents.setdefault(hashlib.sha256(clip.video.tobytes()).digest(), place)
        require(twin[0] == place[0], f"{place[0]} {place[1]} and {twin[0]} {twin[1]} show the same video")


def the_same_bytes_again_and_in_any_order(subject: Subject) -> None:
    before = {place: digest(clip) for place, clip in subject.clips.items()}
    again = subject.new()
    for place in reversed(list(before)):
        require(digest(again.clip(*place)) == before[place], f"{place[0]} {place[1]} differs on a second reading")


def the_same_bytes_in_another_process(subject: Subject) -> None:
    cls = subject.cls
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise Skipped("the class cannot be imported elsewhere")
    where = repr(subject._folder.name) if cls.needs_data else "None"
    code = (
        f"import importlib, pathlib; from halign_bench.conformance.track import digest, places\n"
        f"cls = importlib.import_module({cls.__module__!r})\n"
        f"for part in {cls.__qualname__!r}.split('.'): cls = getattr(cls, part)\n"
        f"track = cls() if {where} is None else cls(pathlib.Path({where}))\n"
        f"print('digests', *[digest(track.clip(*place)) for place in places(track)])"
    )
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    require(result.returncode == 0, f"another process cannot read it: {result.stderr.strip().splitlines()[-1:]}")
    theirs = result.stdout.split("digests", 1)[1].split()
    differing = [
        place for place, other in zip(subject.clips, theirs, strict=True) if digest(subject.clips[place]) != other
    ]
    require(not differing, f"clips differ in another process: {differing[:3]}")


def fingerprint_identifies_the_data(subject: Subject) -> str:
    text = json.dumps(subject.track.fingerprint(), sort_keys=True)
    require(
        json.dumps(subject.new().fingerprint(), sort_keys=True) == text, "a second instance has another fingerprint"
    )
    return text if len(text) < 100 else text[:97] + "..."


def names_what_it_leaves_out(subject: Subject) -> str:
    refusals = subject.track.refusals()
    require(all(refusal.source and refusal.reason for refusal in refusals), "a refusal without source or reason")
    return f"{len(refusals)} refused"


def extractors_give_one_result_a_clip(subject: Subject) -> str:
    extractors = subject.track.extractors()
    if not extractors:
        raise Skipped("it has none")
    clips = subject.evaluation[:2]
    for key, extractor in extractors.items():
        require(bool(extractor.name and extractor.protocol), f"extractor '{key}' has no name or no protocol string")
        both = extractor(clips, clips)
        require(len(both) == len(clips), f"extractor '{key}' gives {len(both)} results for {len(clips)} clips")
        alone = [extractor([clip], [clip])[0] for clip in clips]
        require(_close(both, alone), f"extractor '{key}': a clip's features depend on the batch it is in")
    return ", ".join(f"{key}@{extractor.name}" for key, extractor in extractors.items())


def annotator_labels_every_criterion(subject: Subject) -> str:
    try:
        annotator = subject.track.annotator()
    except NotImplementedError:
        raise Skipped("it has no annotator") from None
    require(bool(annotator.criteria and annotator.protocol), "the annotator has no criteria or no protocol string")
    clip = subject.clips["prompts", 0]
    scores = annotator(clip.video, clip)
    require(set(annotator.criteria) <= set(scores), f"it scores {sorted(scores)}, not {sorted(annotator.criteria)}")
    finite = all(isinstance(value, float) and np.isfinite(value) for value in scores.values())
    require(finite, f"scores must be finite floats, not {scores}")
    require(annotator(clip.video, clip) == scores, "the annotator is not deterministic")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, size=clip.video.shape, dtype=np.uint8)
    worse = annotator(noise, clip)
    beaten = [name for name in annotator.criteria if worse[name] >= scores[name]]
    require(not beaten, f"noise scores at least as well as the clip itself in {', '.join(beaten)}")
    return ", ".join(annotator.criteria)


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(_close(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Unscorable) or isinstance(b, Unscorable):
        return bool(a == b)
    x, y = np.asarray(a, float), np.asarray(b, float)
    return x.shape == y.shape and bool(np.allclose(x, y, rtol=1e-3, atol=1e-4))


CHECKS = (
    has_the_splits_that_a_run_needs, clips_have_the_stated_form, splits_are_disjoint,
    the_same_bytes_again_and_in_any_order, the_same_bytes_in_another_process, fingerprint_identifies_the_data,
    names_what_it_leaves_out, extractors_give_one_result_a_clip, annotator_labels_every_criterion,
)  # fmt: skip
