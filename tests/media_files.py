"""Makes small real video files, whole and broken, for the tests of decoding."""

from __future__ import annotations

import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

LEVEL = 6  # of brightness, between frame k and frame k + 1


def numbered(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Grey frames whose brightness says which frame it is: frame k is k * LEVEL (k below 42)."""
    levels = (np.arange(count) * LEVEL).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3))


def number_of(frame: np.ndarray) -> int:
    return round(float(frame.mean()) / LEVEL)


def textured(count: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Blocks of colour that change in every frame: a file of some size, all frames different."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 255, (count, height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)[:, :height, :width]


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(
    path: Path,
    frames: np.ndarray | None = None,
    fps: int = 25,
    sound: np.ndarray | None = None,
    rate: int = 44_100,
    layout: str = "mono",
    codec: str = "mpeg4",
    sound_codec: str = "aac",
    format: str | None = None,
    options: dict[str, str] | None = None,
    video_start: float = 0.0,
    sound_time: Callable[[float], float] = lambda seconds: seconds,
    prepare: Callable[[Any], None] = lambda stream: None,
) -> Path:
    """A file with the given frames and sound (the same in each channel). `sound_time` moves its timestamps."""
    format = format or {".mkv": "matroska", ".ts": "mpegts"}.get(path.suffix, path.suffix[1:])
    with path.open("wb") as file, av.open(file, "w", format=format, options=options or {}) as container:
        video: Any = None
        audio: Any = None
        if frames is not None:
            video = container.add_stream(codec, rate=fps)
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = "yuv420p"
            video.codec_context.thread_count = 1
            if codec == "mpeg4":
                video.bit_rate = 4_000_000
            prepare(video)
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=rate, layout=layout)
        for number, picture in enumerate(frames if frames is not None else []):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number + round(video_start * fps), Fraction(1, fps)
            container.mux(video.encode(frame))
        for at in range(0, 0 if sound is None else len(sound), 1024):
            channels = np.repeat(sound[None, at : at + 1024], len(av.AudioLayout(layout).channels), 0)
            chunk = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), format="fltp", layout=layout)
            chunk.sample_rate, chunk.time_base = rate, Fraction(1, rate)
            chunk.pts = round(sound_time(at / rate) * rate)
            container.mux(audio.encode(chunk))
        for stream in (video, audio):
            if stream is not None:
                container.mux(stream.encode(None))
    return path


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def cut(path: Path, share: float, to: Path) -> Path:
    data = path.read_bytes()
    to.write_bytes(data[: int(len(data) * share)])
    return to


def turn_clockwise(path: Path, height: int) -> Path:
    """Writes into an mp4's header that it is to be shown turned by 90 degrees clockwise, as telephones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # past version, times and ids, reserved, layer and volume
    matrix = (0, 1 << 16, 0, -(1 << 16), 0, 0, height << 16, 0, 1 << 30)
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    return path
