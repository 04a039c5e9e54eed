"""Videos and sounds in common containers: probed, decoded, brought to 25 fps and 16 kHz."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from fuzzing.mutating import damaged
from fuzzing.worker import Input

TESTS = Path(__file__).resolve().parents[2] / "tests"
VIDEOS = (
    ("a.mp4", "mpeg4", "aac"), ("a.avi", "mpeg4", "mp3"), ("a.mkv", "mpeg4", "pcm_s16le"), ("a.ts", "mpeg4", "aac"),
    ("b.mp4", "libx264", "aac"), ("a.webm", "libvpx", "libopus"),
)  # fmt: skip
SOUNDS = (("a.wav", "pcm_s16le"), ("a.mp3", "mp3"), ("a.flac", "flac"), ("a.ogg", "libopus"), ("a.mp4", "aac"))
SIDE, LONGEST = 64, 0.8  # of a seed of a real clip: pixels, seconds


class Files:
    def change(self, seeds: list[Input], rng: random.Random) -> Input:
        ((name, content),) = rng.choice(seeds).items()
        return {name: damaged(content, rng, [next(iter(seed.values())) for seed in rng.sample(seeds, 1)])}


class Videos(Files):
    def seeds(self, scratch: Path, clips: Path | None) -> list[Input]:
        import av

        sys.path.insert(0, str(TESTS))
        import media_files

        found: list[Input] = []
        for number, (name, codec, sound_codec) in enumerate(VIDEOS):
            if not {codec, sound_codec} <= av.codec.codecs_available:
                continue
            path = scratch / f"{number}{Path(name).suffix}"
            rate = 48_000 if sound_codec == "libopus" else 44_100
            # Plain writers differ in what they put where: an index at the end, at the start, or none.
            media_files.write(
                path, media_files.textured(10, 32, 48), sound=media_files.tone(0.4, rate), rate=rate, codec=codec,
                sound_codec=sound_codec, options={"movflags": "+faststart"} if number == 0 else {},
            )  # fmt: skip
            found.append({f"clip{path.suffix}": path.read_bytes()})
        for clip in sorted(clips.iterdir()) if clips else ():
            if clip.suffix in (".mp4", ".avi", ".mkv", ".webm", ".ts"):
                small = cut_small(clip, scratch / f"{clip.stem}.mp4")
                found.append({"clip.mp4": small.read_bytes()})
        return found

    def run(self, folder: Path) -> None:
        from halign_bench.media import VideoReader, probe, read_audio, read_video

        (path,) = folder.glob("clip.*")
        refusal = None
        for read in (
            lambda: probe(path), lambda: read_video(path, (32, 32), frames=12), lambda: read_audio(path, 0.5),
            lambda: read_audio(path), lambda: sum(1 for _ in VideoReader(path, (16, 16))),
        ):  # fmt: skip
            refusal = attempt(read, path) or refusal
        if refusal is not None:
            raise refusal


class Sounds(Files):
    def seeds(self, scratch: Path, clips: Path | None) -> list[Input]:
        import av

        sys.path.insert(0, str(TESTS))
        import media_files

        found: list[Input] = []
        for number, (name, codec) in enumerate(SOUNDS):
            if codec in av.codec.codecs_available:
                path = scratch / f"{number}{Path(name).suffix}"
                rate = 48_000 if codec == "libopus" else 44_100
                media_files.write(path, sound=media_files.tone(0.3, rate), rate=rate, sound_codec=codec)
                found.append({f"sound{path.suffix}": path.read_bytes()})
        for clip in sorted(clips.iterdir()) if clips else ():
            if clip.suffix == ".wav":
                with clip.open("rb") as file:
                    data = file.read(20_000)
                found.append({"sound.wav": data})
        return found

    def run(self, folder: Path) -> None:
        from halign_bench.media import probe, read_audio

        (path,) = folder.glob("sound.*")
        refusal = None
        for read in (lambda: probe(path), lambda: read_audio(path), lambda: read_audio(path, 0.25)):
            refusal = attempt(read, path) or refusal
        if refusal is not None:
            raise refusal


def attempt(read: Any, path: Path) -> Any:
    """None, or the refusal; each function is tried on every file."""
    from halign_bench.decoding import MediaError

    try:
        read()
    except MediaError as problem:
        if not str(problem).startswith(f"{path}: "):
            raise AssertionError(f"a refusal that does not name its file: {problem}") from None
        return problem
    return None


def cut_small(path: Path, to: Path) -> Path:
    """The beginning of a real clip, small: decoded, and coded again with its sound."""
    from halign_bench.media import read_audio, read_video, write_video

    frames = read_video(path, (SIDE, SIDE), frames=round(25 * LONGEST)).frames
    sound = read_audio(path, len(frames) / 25)
    write_video(to, frames, sound.samples if sound is not None else None)
    return to


TARGETS = {"video": Videos, "sound": Sounds}
