"""Hands, identity and LPIPS beside the public programs, on the same random weights in the published layouts.

    pip install --no-deps --target PUBLIC rtmlib lpips torchvision
    git clone https://github.com/IDEA-Research/DWPose
    python benchmarks/parity/pose.py PUBLIC --dwpose DWPose [--clip VIDEO]

insightface is compared as it is installed. Prints a table and exits 1 where a bound is broken. The nets are small and
random: this shows that the same numbers come out, not that they are good; the times are of all that surrounds the nets.
Those of CSIM say nothing: insightface embeds every face that it finds, and random nets find hundreds in a frame.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from halign_bench.metrics.csim import cosine_similarity
from halign_bench.metrics.hkc import hand_confidence

from halign_bench.extractors.arcface import ArcFace
from halign_bench.extractors.lpips import LPIPSVGG, LPIPSAlex
from halign_bench.extractors.wholebody import HANDS, RTMW, DWPose, WholeBody
from halign_bench.media import read_video
from halign_bench.track import Clip

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
import onnx_files  # makes the small nets

SEED = 2


class Row(NamedTuple):
    what: str
    theirs: float
    ours: float
    difference: float
    bound: float
    seconds: tuple[float, float]

    @property
    def holds(self) -> bool:
        return self.difference <= self.bound  # False for NaN


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()  # of all threads: other work on the machine does not count
    with contextlib.redirect_stdout(io.StringIO()):
        found = call()
    return found, time.process_time() - started


def largest(boxes: np.ndarray) -> np.ndarray:
    return boxes[(boxes[:, 2:4] - boxes[:, :2]).prod(1).argmax()]


def keypoint_rows(
    name: str, extractor: WholeBody, video: np.ndarray, theirs: Callable[[np.ndarray], tuple[Any, Any, Any]]
) -> list[Row]:
    """`theirs` gives (box or None, keypoints, scores) of the largest person of a frame uint8 `[H, W, 3]`, RGB."""
    boxes = [extractor.people([frame])[0] for frame in extractor_frames(extractor, video)]
    public, seconds = timed(lambda: [theirs(frame) for frame in video])
    pose, our_seconds = timed(lambda: extractor.pose(video))
    seen = np.array([box is not None for box, _, _ in public])
    if not seen.any():
        raise SystemExit(f"{name}: nobody found, so nothing is compared; give another clip")
    agree = float((seen != pose.found).sum())
    rows = [Row(f"{name}: frames with a person", float(seen.sum()), float(pose.found.sum()), agree, 0.0, (0.0, 0.0))]
    if agree:
        return rows
    box, points, scores = (np.stack([np.asarray(one[k]) for one in public if one[0] is not None]) for k in range(3))
    ours = pose.keypoints[seen], pose.confidence[seen]
    everywhere = np.ones((len(scores), 2), bool)
    both = [hand_confidence(np.stack([s[:, hand] for hand in HANDS], 1), everywhere) for s in (scores, ours[1])]
    positive = scores > 0  # elsewhere the public programs move keypoints to a corner
    pairs = (
        ("box, largest difference, px", box, np.stack(boxes)[seen], 1e-2),
        ("133 confidences, largest difference", scores, ours[1], 1e-4),
        ("keypoints, largest difference, px", points[positive], ours[0][positive], 1e-2),
    )
    for what, a, b, bound in pairs:
        rows.append(Row(f"{name}: {what}", float(a.mean()), float(b.mean()), float(abs(a - b).max()), bound, (0, 0)))
    rows.append(Row(f"{name}: HKC", both[0], both[1], abs(both[0] - both[1]), 1e-4, (seconds, our_seconds)))
    return rows


def extractor_frames(extractor: WholeBody, video: np.ndarray) -> np.ndarray:
    """Frames in the order of colours that the extractor's nets get."""
    return video if extractor.convention.channels == "RGB" else np.ascontiguousarray(video[..., ::-1])


def rtmlib_rows(detector: Path, pose: Path, video: np.ndarray) -> list[Row]:
    from rtmlib import YOLOX, RTMPose

    with contextlib.redirect_stdout(io.StringIO()):
        find = YOLOX(str(detector), (640, 640), det_mode="multiclass")
        read = RTMPose(str(pose), (288, 384))

    def theirs(frame: np.ndarray) -> tuple[Any, Any, Any]:
        picture = np.ascontiguousarray(frame[..., ::-1])
        boxes, kinds = find(picture)
        people = boxes[kinds == 0] if len(boxes) else boxes
        if not len(people):
            return None, None, None
        points, scores = read(picture, bboxes=[largest(people)])
        return largest(people), points[0], scores[0]

    return keypoint_rows("rtmlib", RTMW(detector, pose), video, theirs)


def dwpose_rows(folder: Path, detector: Path, pose: Path, video: np.ndarray) -> list[Row]:
    import onnxruntime

    sys.path.insert(0, str(next(folder.rglob("onnxpose.py")).parent))
    from onnxdet import inference_detector
    from onnxpose import inference_pose

    options = onnxruntime.SessionOptions()
    find, read = (
        onnxruntime.InferenceSession(str(p), options, providers=["CPUExecutionProvider"]) for p in (detector, pose)
    )

    def theirs(frame: np.ndarray) -> tuple[Any, Any, Any]:
        people = inference_detector(find, frame)
        if not len(people):
            return None, None, None
        points, scores = inference_pose(read, [largest(people)], frame)
        return largest(people), points[0], scores[0]

    return keypoint_rows("DWPose", DWPose(detector, pose), video, theirs)


def identity_rows(folder: Path, video: np.ndarray) -> list[Row]:
    from insightface.app import FaceAnalysis

    clip = Clip("clip", "person", video, video[0])
    extractor = ArcFace(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        analysis = FaceAnalysis(str(folder), providers=["CPUExecutionProvider"])
        analysis.prepare(0, det_size=(640, 640))

    def embedding(frame: np.ndarray) -> np.ndarray | None:
        faces = analysis.get(np.ascontiguousarray(frame[..., ::-1]))
        areas = [float((face.bbox[2:] - face.bbox[:2]).prod()) for face in faces]
        return faces[int(np.argmax(areas))].normed_embedding if faces else None

    def theirs() -> tuple[float, int]:
        reference = embedding(video[0])
        found = [vector for vector in map(embedding, video) if vector is not None]
        return float(np.mean([vector @ reference for vector in found])), len(found)

    (score, count), seconds = timed(theirs)
    (features,), our_seconds = timed(lambda: extractor([clip], [clip]))
    ours = cosine_similarity(features["embedding"], features["reference"])
    assert ours is not None
    missed = abs(count - int(features["found"].sum()))
    return [
        Row("insightface: frames with a face", count, float(features["found"].sum()), missed, 0.0, (0.0, 0.0)),
        Row("insightface: CSIM", score, ours, abs(score - ours), 1e-4, (seconds, our_seconds)),
    ]


def import_lpips() -> Any:
    """lpips, which takes its backbones from torchvision, and that does not load beside a torch of another build."""
    try:
        import lpips
    except RuntimeError:  # its compiled operators are missing; LPIPS needs none of them
        for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "lpips")]:
            del sys.modules[name]
        global _operators
        _operators = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            _operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import lpips
    return lpips


def lpips_rows(folder: Path, video: np.ndarray) -> list[Row]:
    lpips, rows = import_lpips(), []
    rng = np.random.default_rng(SEED)
    spoilt = np.clip(video + rng.normal(0, 40, video.shape), 0, 255).astype(np.uint8)
    for name, ours, side, count in (("alex", LPIPSAlex, 160, 6), ("vgg", LPIPSVGG, 96, 2)):
        torch.manual_seed(SEED)
        linear = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{name}.pth"
        made, _ = timed(lambda n=name, p=linear: lpips.LPIPS(net=n, pnet_rand=True, model_path=str(p), verbose=False))
        state = {f"features.{key.split('.', 1)[1]}": value for key, value in made.net.state_dict().items()}
        torch.save(state, folder / f"{name}-backbone.pth")
        extractor = ours(linear, folder / f"{name}-backbone.pth")
        x, y = (v[:count, :side, :side] for v in (video, spoilt))
        clip, target = (Clip("clip", "person", v, v[0]) for v in (x, y))
        a, b = (torch.from_numpy(v.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1 for v in (x, y))
        with torch.inference_mode():
            theirs, seconds = timed(lambda m=made, a=a, b=b: m(a, b).flatten().numpy())
        (found,), our_seconds = timed(lambda e=extractor, c=clip, t=target: e([c], [t]))
        difference = float(abs(theirs - found["distance"]).max())
        rows.append(Row(
            f"lpips: {name}, mean over {count} frames (difference: largest of a frame)", float(theirs.mean()),
            float(found["distance"].mean()), difference, 1e-5, (seconds, our_seconds),
        ))  # fmt: skip
    return rows


def frames(clip: Path | None) -> np.ndarray:
    """Six frames of the clip, or blocks of colours that move."""
    if clip is not None:
        return read_video(clip, frames=6).frames
    rng = np.random.default_rng(SEED)
    blocks = rng.integers(0, 255, (6, 12, 18, 3), dtype=np.uint8).repeat(32, 1).repeat(32, 2)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 5) for frame in blocks])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("public", type=Path, help="folder with rtmlib, lpips and torchvision, put before all others")
    parser.add_argument("--dwpose", type=Path, required=True, help="checkout of IDEA-Research/DWPose")
    parser.add_argument("--clip", type=Path, help="a video; else frames are made up")
    given = parser.parse_args()
    sys.path.insert(0, str(given.public.absolute()))
    video = frames(given.clip)
    print(f"{len(video)} frames of {video.shape[2]}x{video.shape[1]}, random weights")
    print(f"{'what':64} {'theirs':>12} {'ours':>12} {'difference':>11} {'bound':>7} {'cpu s theirs':>12} {'ours':>7}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        detector, pose = onnx_files.yolox(folder / "yolox_l.onnx", SEED), onnx_files.simcc(folder / "pose.onnx", SEED)
        held = [
            *shown(rtmlib_rows(detector, pose, video)), *shown(dwpose_rows(given.dwpose, detector, pose, video)),
            *shown(identity_rows(onnx_files.buffalo_l(folder / "buffalo_l", SEED), video)),
            *shown(lpips_rows(folder, video)),
        ]  # fmt: skip
    return 0 if all(held) else 1


def shown(rows: list[Row]) -> list[bool]:
    """Prints rows and returns which bounds hold."""
    for row in rows:
        seconds = f"{row.seconds[0]:12.2f} {row.seconds[1]:7.2f}" if any(row.seconds) else ""
        print(
            f"{row.what:64} {row.theirs:12.6f} {row.ours:12.6f} {row.difference:11.2g} {row.bound:7.0e} {seconds}"
            + ("" if row.holds else "  BROKEN"), flush=True,
        )  # fmt: skip
    return [row.holds for row in rows]


if __name__ == "__main__":
    sys.exit(main())
