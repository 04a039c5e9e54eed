"""Sync scores beside the public programs, on the same frames, sound and random weights, in one run.

    python benchmarks/parity/sync.py --joonson FOLDER --video CLIP [--frames 60]

FOLDER is a copy of joonson/syncnet_python; the package syncnet-python 0.2.3 has to be installed here, and ffmpeg
on the PATH or through imageio-ffmpeg. Weights are random, in the published layouts: agreement is of the programs,
and no number here says anything about the clip. A random detector finds no faces, so tracks are made from a given
box (`--face`) in all programs; the detectors run nevertheless, and count in the seconds, and their own boxes are
compared apart. Seconds are of processor time, children included. Exits 1 where a bound is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
import types
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from halign_bench.metrics.sync_c import SyncScores, clip_sync, sync_scores

from halign_bench.extractors.mfcc import pcm16
from halign_bench.extractors.s3fd import FaceDetector
from halign_bench.extractors.sync import SyncExtractor
from halign_bench.extractors.syncnet import SyncEmbedder
from halign_bench.media import read_audio, read_video
from halign_bench.track import Clip, Unscorable

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from sync_nets import s3fd_weights, syncnet_weights

MIN_TRACK = 50  # the package's


def seconds() -> float:
    return sum(os.times()[:4])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing on stdout or stderr, of child processes either."""
    sys.stdout.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(os.devnull, "w") as nothing:
        for number in (1, 2):
            os.dup2(nothing.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    before = seconds()
    with quiet():
        result = work()
    return result, seconds() - before


def write_clip(path: Path, frames: np.ndarray, codec: str, pix_fmt: str) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_sound(path: Path, audio: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(pcm16(audio).tobytes())


def on_cpu() -> None:
    """What the public code calls and this machine lacks: CUDA, torchvision (imported, not used), np.int."""
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign,assignment]
    if not hasattr(np, "int"):
        np.int = int  # type: ignore[attr-defined]
    if importlib.util.find_spec("torchvision") is None:
        sys.modules["torchvision"] = types.ModuleType("torchvision")
        sys.modules["torchvision"].transforms = None  # type: ignore[attr-defined]


class Table:
    def __init__(self) -> None:
        self.broken = False
        heads = f"{'theirs':>12}{'ours':>12}{'difference':>12}{'bound':>10}{'s theirs':>10}{'s ours':>8}{'×':>7}"
        print(f"{'what':46}{heads}")

    def row(self, what: str, theirs: float | None, ours: float | None, bound: float | None = None,
            times: tuple[float, float] | None = None) -> None:  # fmt: skip
        gap = abs(theirs - ours) if theirs is not None and ours is not None else None
        good = bound is None or (gap is not None and gap <= bound)
        self.broken |= not good
        cells = [f"{what:46}"]
        cells += [f"{'' if value is None else format(value, '.6g'):>12}" for value in (theirs, ours)]
        cells.append(f"{'' if gap is None else format(gap, '.2g'):>12}")
        cells.append(f"{'' if bound is None else format(bound, '.2g'):>10}")
        if times:
            cells += [f"{times[0]:>10.2f}{times[1]:>8.2f}{times[0] / times[1]:>7.1f}"]
        print("".join(cells) + ("" if good else "   BROKEN"), flush=True)


def syncnet_rows(table: Table, folder: Path, weights: Path, faces: np.ndarray, audio: np.ndarray) -> None:
    """joonson's `SyncNetInstance.evaluate` on a file, and ours on the pictures and sound that it read from there."""
    import cv2
    from scipy.io import wavfile

    module = importlib.import_module("SyncNetInstance")
    with quiet():
        instance = module.SyncNetInstance()
        instance.loadParameters(str(weights))
    write_clip(folder / "faces_video.avi", faces, "mpeg4", "yuv420p")
    write_sound(folder / "faces.wav", audio)
    os.system(f"cd {folder} && ffmpeg -loglevel error -y -i faces_video.avi -i faces.wav -c copy faces.avi")
    options = types.SimpleNamespace(tmp_dir=str(folder), reference="evaluate", batch_size=20, vshift=15)
    with torch.no_grad():  # theirs keeps what a backward pass would need; not held against it
        (offset, confidence, rows), theirs_s = timed(lambda: instance.evaluate(options, str(folder / "faces.avi")))
    distance = float(np.asarray(rows).mean(0).min())
    pictures = np.stack([cv2.imread(str(path))[..., ::-1] for path in sorted((folder / "evaluate").glob("*.jpg"))])
    rate, sound = wavfile.read(folder / "evaluate" / "audio.wav")
    assert rate == 16_000
    embed = SyncEmbedder(weights)
    found, ours_s = timed(lambda: sync_scores(*embed(pictures, sound / 32768)))
    name = f"SyncNet, {len(pictures)} frames (joonson)"
    table.row(f"{name}: offset", float(offset), found.offset, 0, (theirs_s, ours_s))
    table.row(f"{name}: Sync-C", float(confidence), found.confidence, 1e-3)
    table.row(f"{name}: Sync-D", distance, found.distance, 1e-3)


def detector_rows(table: Table, weights: Path, frames: np.ndarray) -> None:
    module = importlib.import_module("detectors.s3fd")
    module.PATH_WEIGHT = str(weights)
    with quiet():
        theirs_net = module.S3FD(device="cpu")
    ours_net = FaceDetector(weights)
    theirs, theirs_s = timed(
        lambda: [theirs_net.detect_faces(frame, conf_th=0.9, scales=[0.25]) for frame in frames]
    )
    ours, ours_s = timed(lambda: ours_net(list(frames)))
    times = theirs_s / len(frames), ours_s / len(frames)
    boxes = sum(map(len, theirs))
    name = f"S3FD, a frame of {frames.shape[2]}x{frames.shape[1]} (joonson)"
    table.row(f"{name}: boxes", boxes, sum(map(len, ours)), 0, times)
    table.broken |= boxes == 0  # nothing would have been compared
    if [len(some) for some in theirs] == [len(some) for some in ours]:
        gaps = np.abs(np.concatenate(theirs).astype(float) - np.concatenate(ours))
        table.row("S3FD: greatest difference of an edge, pixels", 0, float(gaps[:, :4].max()), 0.01)
        table.row("S3FD: greatest difference of a confidence", 0, float(gaps[:, 4].max()), 1e-4)


def pipeline_rows(table: Table, folder: Path, files: tuple[Path, Path], clip: Clip, face: np.ndarray) -> None:
    """The package's whole pipeline beside both of our modes, the same box given to all."""
    with quiet():
        package = importlib.import_module("syncnet_python.syncnet_pipeline")
        pipe = package.SyncNetPipeline(
            {"s3fd_weights": str(files[1]), "syncnet_weights": str(files[0])}, device="cpu"
        )
    theirs_detect = pipe.s3fd.detect_faces

    def detect_theirs(*args: Any, **options: Any) -> np.ndarray:
        theirs_detect(*args, **options)
        return face.copy()

    pipe.s3fd.detect_faces = detect_theirs
    write_clip(folder / "clip.mkv", clip.video, "ffv1", "bgr0")  # lossless, so that both start from the same pixels
    assert clip.audio is not None
    write_sound(folder / "clip.wav", clip.audio)

    def theirs() -> Any:
        with torch.no_grad():
            return pipe.inference(str(folder / "clip.mkv"), str(folder / "clip.wav"))

    (offsets, confidences, distances, *_), theirs_s = timed(theirs)
    scored: dict[str, tuple[SyncScores, float]] = {}
    for name, mode, every in (("reference", "reference", 1), ("fast", "fast", 5), ("fast, every frame", "fast", 1)):
        extractor = SyncExtractor(*files, mode=mode, every=every, min_track=MIN_TRACK)  # type: ignore[arg-type]
        net = extractor.detect

        def detect(frames: Any, net: Any = net, runs: bool = name != "fast, every frame") -> list[np.ndarray]:
            if runs:  # the third is for the noise alone and need not be timed
                net(frames)
            return [face.copy() for _ in frames]

        extractor.detect = detect
        features, took = timed(lambda extractor=extractor: extractor.features(clip, clip))
        scores = clip_sync(features) if not isinstance(features, Unscorable) else features
        if isinstance(scores, Unscorable):
            raise SystemExit(f"{name}: {scores.reason}")
        scored[name] = scores, took
    plain = scored["fast, every frame"][0]
    noise_c, noise_d = abs(confidences[0] - plain.confidence), abs(distances[0] - plain.distance)
    print("noise of their encodings, by their pipeline against the same crops not encoded: "
          f"Sync-C {noise_c:.2g}, Sync-D {noise_d:.2g}")  # fmt: skip
    for name, bounds in (("reference", (noise_c, noise_d)), ("fast", (None, None))):
        scores, took = scored[name]
        what = f"pipeline, {name} (syncnet-python)"
        table.row(f"{what}: offset", offsets[0], scores.offset, 0 if name == "reference" else None, (theirs_s, took))
        table.row(f"{what}: Sync-C", confidences[0], scores.confidence, bounds[0])
        table.row(f"{what}: Sync-D", distances[0], scores.distance, bounds[1])


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--joonson", type=Path, required=True, help="a copy of joonson/syncnet_python")
    parser.add_argument("--video", type=Path, required=True, help="a clip with sound, e.g. portrait_guitar_5s.avi")
    parser.add_argument("--frames", type=int, default=60, help="how many of it, more than 50")
    parser.add_argument("--region", type=numbers, default=[270, 8, 512, 512], help="x,y,width,height that is kept")
    parser.add_argument("--face", type=numbers, default=[130, 102, 380, 402], help="x0,y0,x1,y1 within the region")
    given = parser.parse_args()
    torch.set_num_threads(1)
    on_cpu()
    sys.path.insert(0, str(given.joonson.resolve()))
    x, y, width, height = given.region
    frames = np.ascontiguousarray(read_video(given.video, frames=given.frames).frames[:, y : y + height, x : x + width])
    sound = read_audio(given.video, given.frames / 25)
    if sound is None:
        parser.error("the clip has no sound")
    clip = Clip(given.video.name, "", frames, frames[0], sound.samples)
    face = np.array([[*given.face, 0.99]], float)
    table = Table()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shutil.which("ffmpeg") is None:
            os.symlink(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe(), folder / "ffmpeg")
            os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
        files = syncnet_weights(folder / "syncnet_v2.model"), s3fd_weights(folder / "sfd_face.pth", frames[0])
        left, top = int(face[0, 0]), int(face[0, 1])
        faces = frames[:30, top : top + 224, left : left + 224]
        syncnet_rows(table, folder, files[0], faces, sound.samples[: 30 * 640])
        detector_rows(table, files[1], frames[:6])
        pipeline_rows(table, folder, files, clip, face)
    return int(table.broken)


if __name__ == "__main__":
    sys.exit(main())
