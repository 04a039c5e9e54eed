"""The encodings that the published sync pipeline puts between a video and its score, through PyAV and OpenCV.

They are: MPEG-4 at quality 2 (`video.avi`), JPEG at quality 2 (`pyframes`), faces as XVID (`pycrop`), and JPEG
of FFmpeg's default bit rate. Not the same as its ffmpeg calls:
- a clip is RGB at 25 fps already; the published pipeline takes YUV pictures from the file's own decoder, and
  doubles or drops frames by FFmpeg's rule where the file is not at 25 fps;
- the sound is a clip's 16 kHz mono, cut to 16 bits; joonson's AVI keeps it as MP3 on the way (syncnet-python's does
  not);
- bit rates are steered by the FFmpeg version that PyAV and OpenCV bring.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from halign_bench.errors import RequestError
from halign_bench.extractors.opencv import opencv
from halign_bench.extractors.scene_cuts import content_changes
from halign_bench.track import FPS

QUALITY = 2  # of `-qscale:v 2`, in the encoders' steps from 1 (best) to 31
LAMBDA = 118  # FF_QP2LAMBDA: FFmpeg's unit of quality in a codec's context
DEFAULT_BIT_RATE = 200_000  # of FFmpeg, where nothing is asked for


def _encoder(codec: str, pix_fmt: str, width: int, height: int, quality: int | None) -> Any:
    import av

    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = width, height, pix_fmt
    context.time_base, context.framerate = Fraction(1, FPS), Fraction(FPS)
    context.bit_rate, context.thread_count = DEFAULT_BIT_RATE, 1
    if quality is not None:
        context.options = {"flags": "+qscale", "global_quality": str(quality * LAMBDA)}
    return context


def mpeg4(frames: Iterable[np.ndarray], quality: int = QUALITY) -> Iterator[Any]:
    """Pictures (PyAV, yuv420p) of uint8 `[H, W, 3]` RGB frames, encoded as MPEG-4 part 2 and decoded."""
    import av

    encoder: Any = None
    decoder: Any = av.CodecContext.create("mpeg4", "r")
    decoder.thread_count = 1
    for number, frame in enumerate(frames):
        height, width = frame.shape[:2]
        if encoder is None:
            encoder = _encoder("mpeg4", "yuv420p", width, height, quality)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(format="yuv420p", interpolation="BICUBIC")
        picture.pts, picture.time_base = number, Fraction(1, FPS)
        for packet in encoder.encode(picture):
            yield from decoder.decode(packet)
    if encoder is not None:
        for packet in encoder.encode(None):
            yield from decoder.decode(packet)
        yield from decoder.decode(None)


class JpegEncoder:
    """JPEG files of PyAV pictures by FFmpeg's encoder; without `quality` steered by its default bit rate."""

    def __init__(self, quality: int | None = None) -> None:
        self.quality = quality
        self._context: Any = None

    def __call__(self, picture: Any) -> bytes:
        if self._context is None:
            self._context = _encoder("mjpeg", "yuvj420p", picture.width, picture.height, self.quality)
        full = picture.reformat(format="yuvj420p", interpolation="BICUBIC")
        full.pts, full.time_base = picture.pts, Fraction(1, FPS)
        (packet,) = self._context.encode(full)
        return bytes(packet)


def read_jpeg(content: bytes) -> np.ndarray:
    """uint8 `[H, W, 3]` RGB."""
    cv2 = opencv()
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


class ReencodedFrames:
    """A clip's frames as the published pipeline sees them: indexed, uint8 `[H, W, 3]` RGB, decoded when asked for.

    Held as JPEG files, so that a long clip does not lie in memory twice. `changes` are `content_changes` of
    the MPEG-4 video before JPEG, which is where the published pipeline looks for cuts.
    """

    def __init__(self, frames: Iterable[np.ndarray]) -> None:
        self._files: list[bytes] = []
        self.changes = content_changes(self._kept(frames))

    def _kept(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        encode = JpegEncoder(QUALITY)
        for picture in mpeg4(frames):
            self._files.append(encode(picture))
            yield picture.to_ndarray(format="rgb24", interpolation="BICUBIC")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_jpeg(self._files[index])


def reencode_faces(faces: np.ndarray) -> np.ndarray:
    """uint8 `[n, 224, 224, 3]` RGB faces as SyncNet is shown them: written as XVID, then as JPEG, and read again.

    Raises RequestError when this OpenCV cannot write XVID.
    """
    import av

    cv2 = opencv()
    encode = JpegEncoder()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "face.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"XVID"), FPS, (faces.shape[2], faces.shape[1]))
        if not writer.isOpened():
            raise RequestError("this OpenCV cannot write XVID, which the mode 'reference' needs; use the mode 'fast'")
        for face in faces:
            writer.write(cv2.cvtColor(face, cv2.COLOR_RGB2BGR))
        writer.release()
        with path.open("rb") as file, av.open(file) as container:
            return np.stack([read_jpeg(encode(picture)) for picture in container.decode(video=0)])
