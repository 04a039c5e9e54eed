"""Reading and writing video files: any container and frame rate in, 25 fps RGB and 16 kHz mono out.

One timeline for picture and sound: time 0 is the presentation time of the file's first whole video
frame. Output frame k is the source frame nearest to k / 25 s (the earlier one on a tie); sample s of
the sound is what is heard at s / 16000 s. So a file keeps its lip sync at any frame rate, and with
any start time of its streams.

Files are not trusted. Only common containers are opened, and nothing but the file itself
(no playlists, no network); frame size, frame rate and length are bounded. Of a damaged file, what
lies before the first damage is used and a note says so; corrupt frames are never passed on.

Everything that is wrong with a file is a `MediaError`: one sentence that begins with its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.atomic import atomic_path
from halign_bench.decoding import (
    MediaError,
    TimedFrames,
    audio_stream,
    checked_video,
    first_frame_time,
    nearest_frames,
    open_media,
    pixel_aspect,
    resampled_sound,
    shown,
    video_stream,
    whole_frames,
)
from halign_bench.track import FPS, SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np

VIDEO_SUFFIXES = frozenset(
    (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm",
     ".wmv")
)  # fmt: skip
MAX_SECONDS = 3600
MAX_BYTES = 2**31  # of decoded frames held in memory at once
HEADROOM = 0.15  # share of what is cropped off in height that is taken from above


@dataclass(frozen=True)
class MediaInfo:
    """What a file says of itself; None where it does not say, or has no such stream.

    Width and height are as shown: rotated, and with square pixels. `rotation` is in degrees counter-clockwise.
    """

    seconds: float | None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frames: int | None = None
    rotation: int = 0
    video_codec: str | None = None
    audio_codec: str | None = None
    audio_rate: int | None = None
    audio_channels: int | None = None


@dataclass(frozen=True)
class Video:
    """frames: uint8 `[T, H, W, 3]` RGB at 25 fps. `distinct` of them differ in their source frame."""

    frames: np.ndarray
    distinct: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sound:
    """samples: float32 `[N]` in [-1, 1], mono 16 kHz; outside of `[first, last)` the file has none and they are 0."""

    samples: np.ndarray
    first: int
    last: int
    notes: tuple[str, ...] = ()


def probe(path: str | os.PathLike[str]) -> MediaInfo:
    """Reads headers and one frame. Raises MediaError when there is neither picture nor sound that can be decoded."""
    with open_media(path) as container:
        video, audio = video_stream(container), audio_stream(container)
        found: dict[str, Any] = {"seconds": container.duration / 1e6 if container.duration else None}
        if audio is not None and audio.codec_context is not None:
            context = audio.codec_context
            found |= {
                "audio_codec": context.name, "audio_rate": context.sample_rate, "audio_channels": context.channels,
            }  # fmt: skip
        if video is None:
            if audio is None:
                raise MediaError(path, "has neither a video nor an audio stream")
            return MediaInfo(**found)
        frame = next(whole_frames(container, checked_video(video, path), []), None)
        if frame is None:
            raise MediaError(path, "has not a single whole frame")
        height, width = _upright(frame, pixel_aspect(video), None, path).shape[:2]
        rate = video.average_rate
        return MediaInfo(
            width=width, height=height, fps=float(rate) if rate else None, frames=video.frames or None,
            rotation=frame.rotation, video_codec=video.codec_context.name, **found,
        )  # fmt: skip


@dataclass
class VideoReader:
    """Iterate to get the frames of a file at 25 fps, uint8 `[H, W, 3]`, one at a time.

    size    (height, width) to scale and crop to, see `fit`; None keeps the file's own
    start   first output frame wanted; the file is decoded from its beginning nevertheless, so that
            frame k is the same picture whatever `start` is
    frames  at most so many; None reads to the end. Nothing behind what is needed is decoded.

    After an iteration `emitted`, `distinct` and `notes` tell what came out. Raises MediaError.
    """

    path: str | os.PathLike[str]
    size: tuple[int, int] | None = None
    start: int = 0
    frames: int | None = None
    emitted: int = field(default=0, init=False)
    distinct: int = field(default=0, init=False)
    notes: list[str] = field(default_factory=list, init=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        self.emitted, self.distinct, self.notes = 0, 0, []
        damage: list[str] = []
        size, shown_frame, picture = self.size, None, None
        with open_media(self.path) as container:
            stream = checked_video(video_stream(container), self.path)
            aspect = pixel_aspect(stream)
            timed = TimedFrames(whole_frames(container, stream, damage), stream, self.path)
            for index, frame in enumerate(nearest_frames(timed)):
                if index >= MAX_SECONDS * FPS:
                    raise MediaError(self.path, f"is longer than {MAX_SECONDS} s; cut it into shorter files")
                if index >= self.start:
                    if picture is None or frame is not shown_frame:
                        shown_frame, picture = frame, _upright(frame, aspect, size, self.path)
                        size = picture.shape[0], picture.shape[1]  # of later frames too, should the stream change it
                        self.distinct += 1
                    self.emitted += 1
                    yield picture
                    if self.emitted == self.frames:  # before anything more is decoded
                        return
            if not timed.decoded:
                raise MediaError(self.path, "has not a single whole frame" + (f" ({damage[0]})" if damage else ""))
            lasts, declared = float(timed.end), _declared_seconds(container, stream)
            if damage:
                self.notes.append(f"damaged or cut off after {lasts:.2f} s ({timed.decoded} whole frames)")
            elif lasts + 0.2 < declared:
                self.notes.append(f"ends at {lasts:.2f} s, its header says {declared:.2f} s")


def read_video(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    start: int = 0,
    frames: int | None = None,
    least: int = 1,
) -> Video:
    """Frames `[start, start + frames)` of a file at 25 fps, in memory; arguments as of `VideoReader`.

    Raises MediaError when there are fewer than `least`, or more than 2 GiB of them.
    """
    import numpy as np

    reader = VideoReader(path, size, start, frames)
    kept: list[np.ndarray] = []
    for picture in reader:
        kept.append(picture)
        if len(kept) * picture.nbytes > MAX_BYTES:
            raise MediaError(path, f"needs more than {MAX_BYTES >> 30} GiB of memory; ask for smaller or fewer frames")
    if len(kept) < max(least, 1):
        why = f"; {reader.notes[0]}" if reader.notes else ""
        after = f" after frame {start}" if start else ""
        raise MediaError(path, f"gives {len(kept)} frames at {FPS} fps{after}, {max(least, 1)} are needed{why}")
    return Video(np.stack(kept), reader.distinct, tuple(reader.notes))


def read_audio(path: str | os.PathLike[str], seconds: float | None = None) -> Sound | None:
    """The first `seconds` of a file's sound (None: all of it), or None when the file has no sound.

    Counted from the file's first video frame, or from its first sample when it has no video. Where
    the sound begins later or ends earlier than asked for it is silence, and a note says how much.
    Several channels are mixed by FFmpeg's standard weights. Raises MediaError.
    """
    import numpy as np

    wanted = None if seconds is None else round(seconds * SAMPLE_RATE)
    limit = MAX_SECONDS * SAMPLE_RATE if wanted is None else wanted
    origin = first_frame_time(path)
    damage: list[str] = []
    pieces: list[tuple[int, np.ndarray]] = []
    with open_media(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return None
        if stream.codec_context is None:
            raise MediaError(path, "has sound in a format that this build of FFmpeg cannot decode")
        frames = whole_frames(container, stream, damage)
        for position, samples in resampled_sound(frames, stream, origin, damage):
            if position >= limit:
                break
            pieces.append((position, samples))
    ends = [position + len(samples) for position, samples in pieces]
    if wanted is None and max(ends, default=0) > limit:
        raise MediaError(path, f"is longer than {MAX_SECONDS} s; cut it into shorter files")
    length = max(ends, default=0) if wanted is None else wanted
    out = np.zeros(max(length, 0), np.float32)
    for position, samples in pieces:
        inside = samples[max(-position, 0) : max(length - position, 0)]
        out[max(position, 0) : max(position, 0) + len(inside)] = inside
    if not np.isfinite(out).all():
        raise MediaError(path, "has sound with samples that are not finite numbers")
    first = min((max(position, 0) for position, _ in pieces), default=length)
    last = min(max(ends, default=0), length)
    if last <= first:  # nothing, or nothing in the time asked for
        return None
    notes = ["sound damaged or cut off: what comes before the damage is used"] if damage else []
    if first > 0:
        notes.append(f"sound begins {first / SAMPLE_RATE:.3f} s after the video: silence before it")
    if last < length:
        notes.append(f"sound ends {(length - last) / SAMPLE_RATE:.3f} s before the video: silence after it")
    return Sound(np.clip(out, -1, 1), first, last, tuple(notes))


def fit(picture: np.ndarray, size: tuple[int, int], pixel_aspect: Fraction = Fraction(1)) -> np.ndarray:
    """Scales and crops uint8 `[H, W, 3]` to `size` = (height, width), filling it.

    In width the centre is kept. In height 15 % of the excess goes from above and 85 % from below,
    because in portrait video the head is in the upper part. Shrinks by averaging areas, enlarges
    bicubically. `pixel_aspect` is the width of a pixel over its height.
    """
    import numpy as np
    from PIL import Image

    (height, width), (out_height, out_width) = picture.shape[:2], size
    if (height, width) == (out_height, out_width) and pixel_aspect == 1:
        return np.ascontiguousarray(picture)
    wanted = float(Fraction(out_width, out_height) / pixel_aspect)  # aspect in stored pixels
    box_height, box_width = min(height, width / wanted), min(width, height * wanted)
    left, top = (width - box_width) / 2, (height - box_height) * HEADROOM
    box = (left, top, min(left + box_width, width), min(top + box_height, height))
    shrinks = box_height >= out_height and box_width >= out_width
    filtering = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((out_width, out_height), filtering, box=box))


def write_video(
    path: str | os.PathLike[str], frames: np.ndarray, audio: np.ndarray | None = None, fps: int = FPS
) -> None:
    """Writes uint8 `[T, H, W, 3]` RGB, and float32 `[samples]` mono 16 kHz where given, as an mp4.

    H.264 where this PyAV has an encoder for it, else MPEG-4 part 2; AAC sound. These need even sides:
    an odd one is extended by repeating its last row or column. The file appears whole or not at all,
    its folder with it.
    """
    import av
    import numpy as np

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames are uint8 [T, H, W, 3] with nothing empty, not {frames.dtype} {frames.shape}")
    if audio is not None and (audio.ndim != 1 or not np.isfinite(audio).all()):
        raise ValueError(f"audio is finite [samples], not {audio.shape}")
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    target = Path(path)
    try:
        with (
            atomic_path(target) as temporary,
            av.open(str(temporary.absolute()), "w", format="mp4", options={"movflags": "+faststart"}) as container,
        ):
            video: Any
            if "libx264" in av.codec.codecs_available:
                video = container.add_stream("libx264", rate=fps, options={"crf": "16", "threads": "1"})
            else:
                video = container.add_stream("mpeg4", rate=fps, options={"qscale": "2"})
                video.bit_rate = 8_000_000
            video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
            sound: Any = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if audio is not None else None
            for number, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            if audio is not None:
                for at in range(0, len(audio), 1024):
                    samples = np.clip(audio[at : at + 1024], -1, 1).astype(np.float32)[None]
                    chunk = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                    chunk.sample_rate, chunk.pts, chunk.time_base = SAMPLE_RATE, at, Fraction(1, SAMPLE_RATE)
                    container.mux(sound.encode(chunk))
                container.mux(sound.encode(None))
    except OSError as error:
        raise MediaError(target, f"cannot be written: {error.strerror or error}") from None


def _declared_seconds(container: Any, stream: Any) -> float:
    """Length of the video by the file's header; 0 where it does not say."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else 0.0


def _upright(frame: Any, aspect: Fraction, size: tuple[int, int] | None, path: str | os.PathLike[str]) -> np.ndarray:
    """RGB of a decoded frame as it is meant to be shown, scaled and cropped to `size`."""
    import av
    import numpy as np

    options: dict[str, Any] = {}
    if size is not None and min(frame.width, frame.height) >= 4 * max(size) and not (frame.width | frame.height) % 2:
        # Much larger than needed: halved by areas on the way to RGB, four times as fast.
        options = {"width": frame.width // 2, "height": frame.height // 2, "interpolation": "AREA"}
    try:
        picture = frame.to_ndarray(format="rgb24", **options)
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(path, f"has pictures that cannot be turned into RGB ({error})") from None
    turns = round(frame.rotation / 90) % 4
    picture = np.rot90(picture, turns)  # counter-clockwise, as FFmpeg's angle is
    aspect = 1 / aspect if turns % 2 else aspect
    height, width = picture.shape[:2]
    return fit(picture, size or (height, max(1, round(width * aspect))), aspect)


__all__ = [
    "VIDEO_SUFFIXES", "MediaError", "MediaInfo", "Sound", "Video", "VideoReader", "fit", "probe", "read_audio",
    "read_video", "shown", "write_video",
]  # fmt: skip
