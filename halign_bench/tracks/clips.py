"""Track `clips`: any folder of real videos, cut into windows. What a folder lacks is absent, never invented.

Rules, so that two people get the same clips of the same folder:

files     All with a video's extension, in all subfolders, in order of their path; names that begin
          with a dot and every other file are ignored. At most 1000. A second file of the same name
          but for its extension, or with the same bytes, is left out.
sound     `name.wav` beside `name.mp4` where there is one, because that is how this field ships it;
          else the file's own. Without either the clip has none.
prompt    `name.txt` beside `name.mp4`, UTF-8, where there is one, as captions are shipped: for models that read.
windows   Of T = 1 + 4n frames at 25 fps, one after the other, the first 32 of each file. Frame 0 of
          the file is the reference and in no window, unless the file has T frames exactly.
identity  One a file: its name without extension (with its folders, where a name comes twice).
splits    Of the usable files in order, every third from the second on is `eval`, the others are
          `prompts`; windows are dealt out in turns, so that few of them show many people. A lone
          file is divided by time: its first windows are prompts, one is left out, the last third
          (at least one) is eval; with two windows the gap is what is left over between them.
silence   Where a file's sound ends too early (or begins too late) a window is filled up with zeros;
          a window without any sound has `audio` None.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from halign_bench.errors import RequestError
from halign_bench.files import files_below
from halign_bench.registry import register
from halign_bench.spool import Spool
from halign_bench.track import FPS, SAMPLE_RATE, Annotator, Clip, Refusal, Track

if TYPE_CHECKING:
    import numpy as np

    from halign_bench.media import Sound

VERSION = 1  # of the rules above and of decoding: raise it whenever a clip's bytes change
WINDOWS_PER_FILE = 32
MAX_FILES = 1000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS


@dataclass
class Source:
    """One usable file: what is known of it, and where its decoded bytes lie in the spool."""

    name: str  # path below the folder, printable
    stem: str  # the same without extension
    sha256: str
    frames: int
    starts: list[int]  # first frame of each window
    video_at: int
    audio_at: int | None = None
    heard: tuple[int, int] = (0, 0)  # first and last sample that the file really has
    sound: str | None = None  # where the sound is from
    sound_sha256: str | None = None
    prompt: str = ""
    notes: list[str] = field(default_factory=list)
    identity: str = ""


class Window(NamedTuple):
    source: Source
    start: int


@register
class ClipsTrack(Track):
    """Windows of the videos in a folder, at 25 fps, with their sound and their first frame as reference.

    Every file is decoded once, at the first use, into an unnamed temporary file of raw frames at the
    target size (7 MB for a file of 22 s at 64x64), so memory stays small. Raises RequestError when
    the folder gives fewer than two windows.
    """

    name = "clips"
    summary = "any folder of real videos, cut into windows; no skeleton, so no pose metrics"
    needs_data = True

    def __init__(self, data: Path | None = None, frames: int = 17, size: tuple[int, int] = (64, 64)) -> None:
        if data is None:
            raise RequestError("track clips reads a folder of videos: say which with --data DIR")
        if frames < 5 or frames % 4 != 1:
            raise RequestError(f"track clips cuts windows of 1 + 4n frames (5, 9, 13, 17, …), not {frames}")
        if min(size) < 1:
            raise RequestError(f"track clips cannot scale frames to {size[0]}x{size[1]}")
        super().__init__(Path(data), frames, size)
        self.ignored = 0  # files that are not videos by their extension, once the folder was read

    def splits(self) -> Mapping[str, int]:
        return {name: len(windows) for name, windows in self._divided[0].items()}

    def clip(self, split: str, index: int) -> Clip:
        windows = self._divided[0].get(split)
        if windows is None:
            raise RequestError(f"track clips has no split '{split}'; it has {', '.join(self._divided[0])}")
        if not 0 <= index < len(windows):
            raise RequestError(f"split '{split}' of {self._folder} has clips 0 to {len(windows) - 1}, not {index}")
        source, start = windows[index]
        return Clip(
            id=f"{source.stem}@{start:05d}",
            identity=source.identity,
            video=self._pictures(source, start, self.frames),
            reference=self._pictures(source, 0, 1)[0],
            audio=self._samples(source, start),
            prompt=source.prompt,
        )

    def refusals(self) -> list[Refusal]:
        return list(self._read[1])

    def annotator(self) -> Annotator:
        from halign_bench.tracks._pixel_annotator import PixelAnnotator

        return PixelAnnotator()

    def fingerprint(self) -> dict[str, Any]:
        """Contents, not places: files that are not used, and where the folder lies, do not change it."""
        parts, division = self._divided
        splits = {window.source.name: split for split, windows in parts.items() for window in windows}
        files = {
            source.name: {
                "sha256": source.sha256, "frames": source.frames, "windows": len(source.starts),
                "split": splits[source.name] if len(self._read[0]) > 1 else "both",
                "sound": source.sound, "sound_sha256": source.sound_sha256, "notes": source.notes,
                **({"prompt": source.prompt} if source.prompt else {}),
            }
            for source in self._read[0]
        }  # fmt: skip
        return {
            "track": self.name, "version": VERSION, "frames": self.frames, "size": list(self.size), "fps": FPS,
            "sample_rate": SAMPLE_RATE, "windows_per_file": WINDOWS_PER_FILE, "division": division, "files": files,
        }  # fmt: skip

    @property
    def _folder(self) -> str:
        from halign_bench.media import shown

        return shown(self.data or "")

    @cached_property
    def _spool(self) -> Spool:
        return Spool()

    @cached_property
    def _read(self) -> tuple[list[Source], list[Refusal]]:
        """Usable files in order, and those that are not, each with its reason."""
        from halign_bench.media import MediaError, shown

        paths, refusals = self._find()
        sources: list[Source] = []
        for number, path in enumerate(paths):
            name = shown(path.relative_to(self.data or ""))
            if number >= MAX_FILES:
                refusals.append(Refusal(name, f"comes after the first {MAX_FILES} video files, which is the limit"))
                continue
            same = next((source for source in sources if source.stem == _stem(name)), None)
            if same is not None:
                refusals.append(Refusal(name, f"has the name of {same.name}, which is taken instead"))
                continue
            try:
                digest = _sha256(path)
                same = next((source for source in sources if source.sha256 == digest), None)
                if same is not None:
                    refusals.append(Refusal(name, f"has the same bytes as {same.name}"))
                    continue
                source = self._decode(path, name, digest, refusals)
            except MediaError as error:
                refusals.append(Refusal(name, error.reason))
                continue
            sources.append(source)
        times = Counter(Path(source.stem).name for source in sources)
        for source in sources:
            short = Path(source.stem).name
            source.identity = short if times[short] == 1 else source.stem
        if sum(len(source.starts) for source in sources) < 2:
            raise RequestError(self._too_little(sources, refusals))
        return sources, refusals

    def _find(self) -> tuple[list[Path], list[Refusal]]:
        """Video files below the folder, sorted by path."""
        from halign_bench.media import VIDEO_SUFFIXES

        folder = self.data
        assert folder is not None
        if not folder.is_dir():
            what = "is not a folder; give the folder that holds the videos" if folder.exists() else "no such folder"
            raise RequestError(f"--data {self._folder}: {what}")
        paths, refusals, self.ignored = files_below(folder, VIDEO_SUFFIXES)
        return paths, refusals

    def _decode(self, path: Path, name: str, digest: str, refusals: list[Refusal]) -> Source:
        """Writes a file's frames and sound into the spool. Raises MediaError when it gives not one window."""
        from halign_bench.media import MediaError, VideoReader

        spool, need = self._spool, self.frames
        at = spool.size
        reader = VideoReader(path, self.size, frames=1 + WINDOWS_PER_FILE * need)
        for picture in reader:
            spool.append(picture.tobytes(), of=self._folder)
        count = reader.emitted
        if count < need:
            why = f" ({reader.notes[0]})" if reader.notes else ""
            raise MediaError(path, f"gives {count} frames at {FPS} fps, a window needs {need}{why}")
        if 2 * reader.distinct < count:
            raise MediaError(path, f"has {reader.distinct} different frames for {count} at {FPS} fps: too few a second")
        lead = 1 if count > need else 0
        starts = [lead + need * number for number in range((count - lead) // need)]
        source = Source(name, _stem(name), digest, count, starts, at, notes=list(reader.notes))
        if lead == 0:
            source.notes.append("the reference is the first frame of the only window")
        sound = self._sound(path, source, refusals)
        if sound is not None:
            source.audio_at = spool.append(sound.samples.tobytes(), of=self._folder)
            source.heard = sound.first, sound.last
            source.notes += sound.notes
        try:
            source.prompt = " ".join(path.with_suffix(".txt").read_text(encoding="utf-8").split())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as problem:
            refusals.append(Refusal(f"{source.stem}.txt", f"cannot be read: {problem}; taken without a prompt"))
        return source

    def _sound(self, path: Path, source: Source, refusals: list[Refusal]) -> Sound | None:
        """The sound beside the file, else in it; what cannot be decoded is reported and counts as none."""
        from halign_bench.media import MediaError, read_audio, shown

        beside = sorted(
            other for other in path.parent.iterdir() if other.stem == path.stem and other.suffix.lower() == ".wav"
        )
        for candidate in (*beside, path):
            name = shown(candidate.relative_to(self.data or ""))
            try:
                sound = read_audio(candidate, source.frames / FPS)
                if sound is not None:
                    source.sound = name
                    source.sound_sha256 = source.sha256 if candidate == path else _sha256(candidate)
                    return sound
            except MediaError as error:
                instead = f"the sound in {source.name} is used, if any" if candidate != path else "taken without sound"
                refusals.append(Refusal(name, f"{error.reason}; {instead}"))
        return None

    def _too_little(self, sources: list[Source], refusals: list[Refusal]) -> str:
        found = sum(len(source.starts) for source in sources)
        reasons = "; ".join(f"{refusal.source} {refusal.reason}" for refusal in refusals[:3])
        more = f"; and {len(refusals) - 3} more" if len(refusals) > 3 else ""
        left_out = f" ({reasons}{more})" if refusals else f" ({self.ignored} files without a video's extension)"
        what = "no usable video" if not sources else f"only {found} window"
        return (
            f"--data {self._folder}: {what}; a run needs two windows of {self.frames} frames at {FPS} fps"
            + (left_out if refusals or not sources else "")
        )  # fmt: skip

    @cached_property
    def _divided(self) -> tuple[dict[str, list[Window]], str]:
        """Windows by split, and how they were divided, in words."""
        sources = self._read[0]
        if len(sources) > 1:
            parts = {
                "prompts": [source for number, source in enumerate(sources) if number % 3 != 1],
                "eval": [source for number, source in enumerate(sources) if number % 3 == 1],
            }
            return {split: _in_turns(members) for split, members in parts.items()}, "by file"
        source, starts = sources[0], sources[0].starts
        if len(starts) == 2:
            second = source.frames - self.frames
            first, last = starts[:1], [second]
        else:
            evaluation = max(1, len(starts) // 3)
            first, last = starts[: len(starts) - evaluation - 1], starts[-evaluation:]
        gap = last[0] - first[-1] - self.frames
        windows = {"prompts": [Window(source, s) for s in first], "eval": [Window(source, s) for s in last]}
        return windows, f"one file by time, {gap} frames apart: the same person is in both"

    def _pictures(self, source: Source, start: int, count: int) -> np.ndarray:
        one = self.size[0] * self.size[1] * 3
        return self._spool.read(source.video_at + start * one, (count, *self.size, 3))

    def _samples(self, source: Source, start: int) -> np.ndarray | None:
        import numpy as np

        first, last = start * SAMPLES_PER_FRAME, (start + self.frames) * SAMPLES_PER_FRAME
        if source.audio_at is None or last <= source.heard[0] or first >= source.heard[1]:
            return None
        return self._spool.read(source.audio_at + 4 * first, (4 * (last - first),)).view(np.float32)


def _in_turns(sources: list[Source]) -> list[Window]:
    """The first window of each file, then the second of each, …"""
    most = max(len(source.starts) for source in sources)
    return [Window(s, s.starts[turn]) for turn in range(most) for s in sources if turn < len(s.starts)]


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _sha256(path: Path) -> str:
    """Of a file's bytes. Raises MediaError when it cannot be read."""
    from halign_bench.media import MediaError

    digest = hashlib.sha256()
    try:
        if not path.is_file():
            raise MediaError(path, "is not a file")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise MediaError(path, f"cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()
