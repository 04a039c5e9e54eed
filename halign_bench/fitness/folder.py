"""Real clips to spoil: windows of the videos in a folder, read as `score` reads them.

A window has up to 125 frames (5 s at 25 fps), which published sync scores need. Its first 16 frames, which are what
FVD sees, are what damage to pictures is done to. Frames are scaled so that the longer side has at most 512 pixels,
and one window is in memory at a time, with at most one of another file. The first window of each file comes first,
then the second of each, and so on.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from halign_bench.fitness.damages import Subject
from halign_bench.media import MediaError, probe, read_audio, read_video, shown
from halign_bench.scoring.inputs import Item, find_inputs
from halign_bench.track import FPS, SAMPLE_RATE, Clip, Refusal, Unscorable

if TYPE_CHECKING:
    import numpy as np

LONG, SHORT = 125, 16  # frames
SIDE = 512  # pixels
HOP = SAMPLE_RATE // FPS
SPARE = 1.0  # seconds of sound read beyond a window, for shifts


@dataclass
class Folder:
    """Windows of the videos of `data`, which is a folder or one file. Raises RequestError when it has no video.

    size      (height, width) to scale and crop to; None keeps each file's proportions
    refusals  files that could not be used, with the reason, complete once `subjects` has ended
    windows   first frames of the windows that were given out, by file
    """

    data: Path
    size: tuple[int, int] | None = None
    refusals: list[Refusal] = field(default_factory=list)
    windows: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = find_inputs(self.data)
        self.items = found.items
        self.refusals += found.refusals

    def estimate(self, most: int) -> int:
        """About how many windows `subjects` will give, by the files' headers."""
        total = 0
        for item in self.items:
            try:
                total += max(1, int((probe(item.generated).seconds or 0) * FPS) // LONG)
            except MediaError:
                continue
        return min(most, max(total, 1))

    def subjects(self, most: int) -> Iterator[Subject]:
        """At most so many windows, each with everything that is needed to spoil it."""
        given, turn = 0, 0
        left = list(self.items)
        while left:
            for item in list(left):
                if given >= most:
                    return
                try:
                    subject = self._subject(item, turn)
                except MediaError as problem:
                    left.remove(item)
                    if turn == 0:
                        self.refusals.append(Refusal(shown(item.name), problem.reason))
                    continue
                self.windows.setdefault(item.name, []).append(turn * LONG)
                given += 1
                yield subject
            turn += 1

    def _subject(self, item: Item, turn: int) -> Subject:
        start, size = turn * LONG, self.size or _scaled(item.generated)
        video = read_video(item.generated, size, start, LONG, least=LONG if turn else SHORT).frames
        reference = video[0] if start == 0 else read_video(item.generated, size, 0, 1).frames[0]
        sound_at = self._sound(item, start, len(video))
        long = Clip(f"{item.name}@{start:05d}", item.name, video, reference, sound_at(0))
        short = replace(
            long, video=video[:SHORT], audio=None if long.audio is None else long.audio[: SHORT * HOP]
        ) if len(video) > SHORT else long  # fmt: skip
        return Subject(
            short, long, (zlib.crc32(item.name.encode()), turn), cache(lambda: self._other(item, size)), sound_at
        )

    def _sound(self, item: Item, start: int, frames: int) -> Callable[[int], np.ndarray | None]:
        """Sound of a window from some frames later on; without any where it cannot be read."""
        import numpy as np

        try:
            sound = read_audio(item.audio or item.generated, (start + frames) / FPS + SPARE)
        except MediaError as problem:
            if start == 0:
                self.refusals.append(Refusal(shown(item.name), f"sound: {problem.reason}"))
            sound = None
        samples = sound.samples if sound is not None else None

        def at(later: int) -> np.ndarray | None:
            if samples is None:
                return None
            first, out = (start + later) * HOP, np.zeros(frames * HOP, np.float32)
            part = samples[max(first, 0) : max(first + len(out), 0)]
            out[max(-first, 0) : max(-first, 0) + len(part)] = part
            return out

        return at

    def _other(self, item: Item, size: tuple[int, int]) -> Clip | Unscorable:
        """The beginning of the next file that can be read, taken to be of somebody else."""
        at = self.items.index(item)
        for other in (*self.items[at + 1 :], *self.items[:at]):
            try:
                video = read_video(other.generated, size, 0, LONG, least=SHORT).frames
            except MediaError:
                continue
            return Clip(other.name, other.name, video, video[0], self._sound(other, 0, len(video))(0))
        return Unscorable("needs a clip of somebody else, and the folder has no other file that can be read")


def _scaled(path: Path) -> tuple[int, int]:
    """(height, width) as shown, or less, so that the longer side has at most `SIDE` pixels. Raises MediaError."""
    info = probe(path)
    if info.height is None or info.width is None:
        raise MediaError(path, "has no picture")
    shrink = min(1.0, SIDE / max(info.height, info.width))
    return max(1, round(info.height * shrink)), max(1, round(info.width * shrink))


__all__ = ["LONG", "SHORT", "SIDE", "Folder"]
