"""A file as a clip: decoded when first looked at, once, and held on disk."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from halign_bench.errors import first_line
from halign_bench.media import MediaError, VideoReader, read_audio, shown
from halign_bench.spool import Frames, Spool
from halign_bench.track import FPS, SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np

DECODING = (
    f"{FPS} frames a second, nearest source frame; {SAMPLE_RATE} Hz mono sound from the first frame on; clips that "
    "differ in length are compared pixel by pixel over the frames that both have"
)


class Footage:
    """A video file, to be looked at as a `Clip`.

    path   the file
    size   (height, width) to scale and crop to; None keeps its own
    sound  where its sound is from; None is the file itself

    Frames are read from a spool as they are asked for, so that memory is not what limits the length.
    Raises MediaError where something is looked at that cannot be decoded; `notes` tells what else is amiss.
    """

    skeleton = None
    layout = None
    reference = None
    defects: tuple[str, ...] = ()

    def __init__(self, name: str, path: Path, size: tuple[int, int] | None = None, sound: Path | None = None) -> None:
        self.id = self.identity = name
        self.path, self.size, self.sound = path, size, sound or path
        self.notes: list[str] = []

    @cached_property
    def video(self) -> np.ndarray:
        """uint8 `[T, H, W, 3]`, RGB, 25 fps: `Frames`."""
        import numpy as np

        reader, spool = VideoReader(self.path, self.size), Spool()
        shape: tuple[int, ...] = ()
        for picture in reader:
            spool.append(np.ascontiguousarray(picture).data, of=shown(self.path))
            shape = picture.shape
        if not reader.emitted:
            raise MediaError(self.path, "gives no frame at 25 fps")
        self.notes += reader.notes
        height, width, colours = shape
        return cast("np.ndarray", Frames(spool, 0, (reader.emitted, height, width, colours)))

    @cached_property
    def audio(self) -> np.ndarray | None:
        """float32 `[samples]` in [-1, 1], mono 16 kHz, as long as the video; None where there is none to be had."""
        try:
            sound = read_audio(self.sound, len(self.video) / FPS)
        except MediaError as problem:
            self.notes.append(f"sound: {problem.reason}")
            return None
        if sound is None:
            return None
        self.notes += sound.notes
        return sound.samples


class Condition:
    """What a generated clip was asked to follow: pictures of the real clip, the sound and the person's picture.

    clip   the generated one; its sound is what it followed
    real   the real one; None stands for the clip itself
    image  file of the person's picture; None is the real clip's first frame, where there is one
    """

    skeleton = None
    layout = None
    defects: tuple[str, ...] = ()

    def __init__(self, clip: Footage, real: Footage | None, image: Path | None) -> None:
        self.id = self.identity = clip.id
        self.clip, self.real, self.image = clip, real, image

    @property
    def video(self) -> np.ndarray:
        return (self.real or self.clip).video

    @property
    def audio(self) -> np.ndarray | None:
        return self.clip.audio

    @cached_property
    def reference(self) -> np.ndarray | None:
        """uint8 `[H, W, 3]`; None where no picture is to be had."""
        if self.image is not None:
            return read_picture(self.image)
        return None if self.real is None else self.real.video[0]


def read_picture(path: Path) -> np.ndarray:
    """uint8 `[H, W, 3]` RGB, upright. Raises MediaError."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as problem:
        raise MediaError(path, f"is no picture that can be read ({first_line(problem)})") from None


__all__ = ["DECODING", "Condition", "Footage", "read_picture"]
