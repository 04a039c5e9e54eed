"""What FFmpeg does with one file, through PyAV: opened safely, decoded up to the first damage, put in time.

`halign_bench.media` is what the rest of the harness uses; this is its ground floor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.errors import RequestError
from halign_bench.printing import printable
from halign_bench.track import FPS, SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np

CONTAINERS = "mov,avi,matroska,webm,mpegts,mpeg,flv,asf,ogg,wav,mp3,aac,flac"  # demuxers, by FFmpeg's names
MAX_PIXELS = 2**25  # of one frame: a little over 7680 x 4320
MAX_DECODED_PIXELS = 2 * 10**11  # of one reading: more than an hour of 1920 x 1080 at 25 fps
MAX_RATE = 300  # frames a second
ROUNDING = Fraction(1, 200)  # s; containers round timestamps to 1 ms or worse
JUMP = Fraction(1, 50)  # s; sound whose timestamps are off by more is put where they say


class MediaError(RequestError):
    """A file that cannot be used, `path`. `reason` is the sentence without the file's name."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{shown(path)}: {reason}")
        self.path = Path(os.fsdecode(path))
        self.reason = reason


def shown(path: str | os.PathLike[str]) -> str:
    """A file name that can be printed and stored: undecodable bytes and control characters are escaped."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


@contextmanager
def open_media(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An open container. FFmpeg is given an open file and never a name, which it would read as a URL."""
    import av

    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise MediaError(path, "is not a file")
        if status.st_size == 0:
            raise MediaError(path, "is empty (0 bytes)")
        handle = open(path, "rb")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        raise MediaError(path, "no such file") from None
    except (OSError, ValueError) as error:
        raise MediaError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    with handle:
        head = handle.read(12)
        handle.seek(0)
        try:
            container = av.open(handle, options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"})
        except (av.error.FFmpegError, OSError, ValueError):
            if head[4:8] == b"ftyp":
                raise MediaError(path, "is cut off or damaged: an mp4 without a readable index") from None
            raise MediaError(path, "is not a video file that can be read") from None
        with container:
            if not container.streams:
                raise MediaError(path, "is cut off or damaged: it has a video file's header and nothing else")
            yield container


def video_stream(container: Any) -> Any:
    """The first stream of moving pictures, or None; cover pictures of sound files do not count."""
    import av

    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def audio_stream(container: Any) -> Any:
    return next(iter(container.streams.audio), None)


def checked_video(stream: Any, path: str | os.PathLike[str]) -> Any:
    """A video stream that may be decoded."""
    if stream is None:
        raise MediaError(path, "has no video stream")
    context = stream.codec_context
    if context is None:
        raise MediaError(path, "has video that cannot be decoded here: an unknown format or a damaged header")
    if context.width * context.height > MAX_PIXELS:
        raise MediaError(path, f"has frames of {context.width}x{context.height}, over {MAX_PIXELS} pixels")
    context.options = {"max_pixels": str(MAX_PIXELS)}  # a stream may change its size later on
    return stream


def pixel_aspect(stream: Any) -> Fraction:
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and Fraction(1, 8) <= aspect <= 8 else Fraction(1)


def whole_frames(container: Any, stream: Any, damage: list[str]) -> Iterator[Any]:
    """Decoded frames up to the first damage, which is then named in `damage`.

    Behind it a decoder patches holes with pictures of its own making. Damage before the first
    whole frame is passed over: recordings of broadcasts begin anywhere.
    """
    import av

    packets = container.demux(stream)
    found, failures, last = False, 0, None
    while failures < 100:
        problem = ""
        frames: list[Any] = []
        try:
            packet = next(packets, None)
            if packet is None:
                return
            if packet.is_corrupt:
                problem = "a packet is incomplete"
            else:
                frames = packet.decode()
        except (av.error.FFmpegError, ValueError, OSError, EOFError, IndexError) as error:
            # IndexError: of PyAV, where a stream appears that the file's header did not name
            problem = getattr(error, "strerror", None) or str(error)
        for frame in frames:
            if not frame.is_corrupt:
                found, last = True, frame.pts
                yield frame
            elif found:
                problem = "a frame is incomplete"
                break
        if problem and found:
            damage.append(problem)
            yield from _left_in(stream, last)
            return
        failures += bool(problem)
    damage.append("nothing in it decodes")


def _left_in(stream: Any, last: int | None) -> Iterator[Any]:
    """Whole frames that the decoder still holds, as long as none is missing since timestamp `last`."""
    import av

    if stream.type != "video":  # sound is not reordered, so nothing is held back
        return
    step = 1 / ((stream.average_rate or FPS) * stream.time_base)
    try:
        frames = stream.codec_context.decode(None)
    except (av.error.FFmpegError, ValueError, OSError, EOFError):
        return
    for frame in frames:
        if frame.is_corrupt or frame.pts is None or last is None or frame.pts - last > step * Fraction(3, 2):
            return
        last = frame.pts
        yield frame


class TimedFrames:
    """Iterate for (frame, seconds since the first); a frame that goes back in time is left out.

    `decoded` counts the frames so far and `end` is when the last one of them ends, in s. Raises
    MediaError when there are more of them than a video can have.
    """

    def __init__(self, frames: Iterable[Any], stream: Any, path: str | os.PathLike[str]) -> None:
        self.frames, self.stream, self.path = frames, stream, path
        self.decoded = 0
        self.end = Fraction(0)

    def __iter__(self) -> Iterator[tuple[Any, Fraction]]:
        usual = Fraction(1) / (self.stream.average_rate or FPS)
        origin: Fraction | None = None
        last = Fraction(-1)
        pixels = 0
        for frame in self.frames:
            self.decoded += 1
            pixels += frame.width * frame.height
            if self.decoded > MAX_RATE * (self.end + 1):
                raise MediaError(self.path, f"has more than {MAX_RATE} frames a second")
            if pixels > MAX_DECODED_PIXELS:
                raise MediaError(self.path, "is too long for its frame size; scale it down or cut it into pieces")
            stamp = None if frame.pts is None else frame.pts * self.stream.time_base
            if origin is None:
                origin = stamp or Fraction(0)
            time = self.end if stamp is None else stamp - origin
            if time <= last:
                continue
            duration = (frame.duration or 0) * self.stream.time_base
            last, self.end = time, time + (duration if duration > 0 else usual)
            yield frame, time


def nearest_frames(timed: TimedFrames) -> Iterator[Any]:
    """For k = 0, 1, … the frame nearest to k / 25 s, the earlier one on a tie, until the last frame ends."""
    held: Any = None
    held_time = Fraction(0)
    index = 0
    for frame, time in timed:
        while held is not None and Fraction(index, FPS) <= (held_time + time) / 2:
            yield held
            index += 1
        held, held_time = frame, time
    while held is not None and (index == 0 or Fraction(index, FPS) < timed.end - ROUNDING):
        yield held
        index += 1


def first_frame_time(path: str | os.PathLike[str]) -> Fraction | None:
    """Presentation time in s of the first whole video frame; None when there is no video."""
    with open_media(path) as container:
        stream = video_stream(container)
        if stream is None or stream.codec_context is None:
            return None
        frame = next(whole_frames(container, checked_video(stream, path), []), None)
        return None if frame is None or frame.pts is None else frame.pts * stream.time_base


def resampled_sound(
    frames: Iterable[Any], stream: Any, origin: Fraction | None, damage: list[str]
) -> Iterator[tuple[int, np.ndarray]]:
    """(position in samples from `origin`, float32 samples at 16 kHz), up to damage, which is then named in `damage`.

    A stretch of sound with steady timestamps is resampled in one go; a jump in them, or a change of
    the sound's format, begins another one at the place its timestamps say.
    """
    import av
    import numpy as np

    resampler: Any = None
    layout: tuple[Any, ...] = ()
    begun, heard, position = Fraction(0), 0, 0  # of this stretch: its time, samples put in, where its next ones go

    def push(frame: Any) -> Iterator[tuple[int, np.ndarray]]:
        nonlocal position
        try:
            pieces = resampler.resample(frame)
        except av.error.FFmpegError as error:  # a layout or rate that no sound has
            damage.append(f"sound that cannot be converted ({error.strerror})")
            return
        for piece in pieces:
            if piece is not None and piece.samples:
                samples = np.array(piece.to_ndarray().reshape(-1), np.float32)
                yield position, samples
                position += len(samples)

    for frame in frames:
        if not frame.samples or not frame.sample_rate:
            continue
        expected = begun + Fraction(heard, frame.sample_rate)
        time = expected if frame.pts is None else frame.pts * stream.time_base
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or kind != layout or abs(time - expected) > JUMP:
            if resampler is not None:
                yield from push(None)
            origin = time if origin is None else origin
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            layout, begun, heard = kind, time, 0
            position = round((time - origin) * SAMPLE_RATE)
        heard += frame.samples
        frame.pts = None  # places are counted here
        yield from push(frame)
        if damage:
            return
    if resampler is not None:
        yield from push(None)
