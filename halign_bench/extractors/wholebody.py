"""Hands of the largest person, by whole-body keypoints: DWPose and RTMW."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from halign_bench.errors import RequestError
from halign_bench.extractors.memo import Memo
from halign_bench.extractors.person import OVERLAP, PersonDetector
from halign_bench.extractors.simcc import DECODERS, KEYPOINTS, Decoder, KeypointNet
from halign_bench.track import Clip, Unscorable

HANDS = (slice(91, 112), slice(112, 133))  # left and right, of COCO-WholeBody
WRISTS = [9, 10]  # left and right, of the body's keypoints
SEEN = 0.3  # a wrist with more confidence is seen
BATCH = 8


class Pose(NamedTuple):
    """Of the largest person of each frame: keypoints `[T, 133, 2]` in pixels (NaN for nobody), confidence `[T, 133]`
    (0 for nobody), found bool `[T]`."""

    keypoints: np.ndarray
    confidence: np.ndarray
    found: np.ndarray


@dataclass(frozen=True)
class Convention:
    """What the public program of a decoder does besides decoding.

    channels   order in which both nets get colours; the files do not say
    threshold  a person scores more
    """

    channels: Literal["RGB", "BGR"]
    threshold: float


# DWPose's annotator hands on pictures as they come, which is RGB wherever this field calls it; rtmlib reads by OpenCV.
CONVENTIONS: dict[Decoder, Convention] = {"dwpose": Convention("RGB", 0.3), "rtmlib": Convention("BGR", 0.7)}


def expected_hands(reference: Pose, frames: int, size: tuple[int, int]) -> np.ndarray:
    """bool `[frames, 2]`: where the reference's own wrist is seen (confidence above 0.3) inside a frame of `size`.

    `size` is (height, width) of the reference clip. Beyond its end no hand is expected.
    """
    wrists = reference.keypoints[:, WRISTS]
    with np.errstate(invalid="ignore"):
        inside = ((wrists >= 0) & (wrists < (size[1], size[0]))).all(-1)
    seen = (inside & (reference.confidence[:, WRISTS] > SEEN))[:frames]
    return np.concatenate([seen, np.zeros((frames - len(seen), 2), bool)])


class WholeBody:
    """Features for HKC, its coverage, HKV, SSIM-Hand and PSNR-Hand of clips in which a person is seen.

    dict(keypoints `[T, 2, 21, 2]` pixels of the clip, confidence `[T, 2, 21]`, expected bool `[T, 2]`, found bool
    `[T]`). `found` says in which frames there is a person at all; without one keypoints are NaN and confidence is 0,
    so that a hand that the reference shows and the clip does not is a missed one. Pose is computed once for each clip,
    also where it is the reference of another one. A reference in which nobody is found makes a clip unscorable.
    """

    assets: ClassVar[tuple[str, ...]] = ()  # the constructor's files, in this order
    name: str = "wholebody"
    decoder: ClassVar[Decoder] = "rtmlib"

    def __init__(self, detector: Path, pose: Path, device: str = "cpu", decoder: Decoder | None = None) -> None:
        """From the ONNX files of a person detector and of a whole-body SimCC net. Raises RequestError."""
        chosen = decoder or self.decoder
        if chosen not in DECODERS:
            raise RequestError(f"keypoints are decoded as one of {', '.join(DECODERS)}, not '{chosen}'")
        self.convention = CONVENTIONS[chosen]
        self.people = PersonDetector(detector, device, self.convention.threshold)
        self.keypoints = KeypointNet(pose, device, chosen)
        self._poses: Memo[Pose] = Memo()
        combined = "lesser" if chosen == "dwpose" else "mean"
        self.protocol = (
            f"YOLOX {self.people.net.path.name} sha256 {self.people.net.sha256}, every frame, "
            f"person above {self.convention.threshold}, suppression {OVERLAP}, the largest, nobody is nobody; "
            f"keypoints {self.keypoints.net.path.name} sha256 {self.keypoints.net.sha256}, "
            f"{KEYPOINTS} of COCO-WholeBody, {self.convention.channels}; "
            f"decoder {chosen}: confidence = {combined} of both axes' largest SimCC bin, not normalised; "
            f"a hand is expected where its wrist is seen (confidence > {SEEN}) inside the frame of the reference clip, "
            "of the clip itself where there is none, and not beyond the reference's end; "
            "no person where a hand is expected = confidence 0"
        )

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list[Any]:
        return [self.features(clip, condition) for clip, condition in zip(clips, conditions, strict=True)]

    def features(self, clip: Clip, condition: Clip) -> dict[str, np.ndarray] | Unscorable:
        """Features of one clip; `condition` is its reference clip, or the clip itself."""
        pose = self.pose(clip.video)
        alone = condition.video is clip.video
        reference = pose if alone else self.pose(condition.video)
        if not reference.found.any():
            whose = "" if alone else " of the reference clip"
            return Unscorable(f"nobody found in the {len(reference.found)} frames{whose}")
        height, width = condition.video.shape[1:3]
        return {
            "keypoints": np.stack([pose.keypoints[:, rows] for rows in HANDS], 1),
            "confidence": np.stack([pose.confidence[:, rows] for rows in HANDS], 1),
            "expected": expected_hands(reference, len(clip.video), (height, width)),
            "found": pose.found,
        }

    def pose(self, video: np.ndarray) -> Pose:
        """Whole-body pose of uint8 RGB `[T, H, W, 3]`, remembered."""
        return self._poses.of(video, lambda: self._pose(video))

    def _pose(self, video: np.ndarray) -> Pose:
        keypoints = np.full((len(video), KEYPOINTS, 2), np.nan, np.float32)
        confidence = np.zeros((len(video), KEYPOINTS), np.float32)
        found = np.zeros(len(video), bool)
        for start in range(0, len(video), BATCH):
            frames = video[start : start + BATCH]
            if self.convention.channels == "BGR":
                frames = np.ascontiguousarray(frames[..., ::-1])
            boxes = self.people(list(frames))
            rows = np.flatnonzero(np.isfinite(boxes).all(1))
            if rows.size:
                points, scores = self.keypoints([frames[row] for row in rows], boxes[rows])
                at = start + rows
                keypoints[at], confidence[at], found[at] = points, scores, True
        return Pose(keypoints, confidence, found)


class DWPose(WholeBody):
    """`yolox_l.onnx` and `dw-ll_ucoco_384.onnx` (Yang et al. 2023, arXiv 2307.15880)."""

    name = "dwpose"
    assets = ("yolox-l", "dwpose-l")
    decoder = "dwpose"


class RTMW(WholeBody):
    """`yolox_l.onnx` and RTMW-L 384x288 (Jiang et al. 2024, arXiv 2407.08634), as rtmlib runs them."""

    name = "rtmw"
    assets = ("yolox-l", "rtmw-l")
    decoder = "rtmlib"
