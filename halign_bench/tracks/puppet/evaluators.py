"""The embedded track's evaluators: small nets trained here on clean clips, behind the extractor interface.

What each is good for, measured on held-out people, stands in the model card beside the weights. Clips of
another size are resized to 64 x 64 first. The annotator that labels preferences shares nothing with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from halign_bench.documents import parsed
from halign_bench.errors import RequestError
from halign_bench.track import Clip, Extractor, Unscorable
from halign_bench.tracks.puppet import nets

WEIGHTS = Path(__file__).parents[2] / "weights" / "puppet"
NAMES = ("evaluators.safetensors", "evaluators.json")
NETS: dict[str, Callable[[], nn.Module]] = {
    "sync": nets.SyncNet,
    "hands": nets.HandNet,
    "identity": nets.IdentityNet,
    "frame": nets.FrameNet,
    "clip": nets.ClipNet,
}


def frames_of(video: np.ndarray, device: str = "cpu") -> Tensor:
    """uint8 `[T, H, W, 3]` to float `[T, 3, 64, 64]` in [0, 1]; other sizes are resized with antialiasing."""
    frames = torch.from_numpy(np.ascontiguousarray(video)).to(device).permute(0, 3, 1, 2).float() / 255
    if frames.shape[2:] != (nets.SIDE, nets.SIDE):
        frames = F.interpolate(frames, (nets.SIDE, nets.SIDE), mode="bilinear", antialias=True, align_corners=False)
    return frames


def skeleton_of(condition: Clip, frames: int, device: str = "cpu") -> Tensor | Unscorable:
    """The condition's skeleton `[T, K, 3]` on the 64 x 64 canvas, or why there is none."""
    if condition.skeleton is None or condition.layout is None:
        return Unscorable("no skeleton")
    if len(condition.skeleton) < frames:
        return Unscorable(f"skeleton has {len(condition.skeleton)} frames, the clip {frames}")
    height, width = condition.video.shape[1:3]
    scale = np.array([nets.SIDE / width, nets.SIDE / height, 1.0], np.float32)
    return torch.from_numpy(condition.skeleton[:frames] * scale).float().to(device)


def mouth_crops(frames: Tensor, nose: Tensor, neck: Tensor) -> Tensor:
    """`[T, 3, 20, 20]` around the mouth, by the skeleton's nose and neck `[T, 2]`."""
    return nets.crop(frames, nets.mouth_centre(nose, neck), nets.MOUTH_SIDE, nets.MOUTH_SIDE)


def hand_crops(frames: Tensor, centres: Tensor) -> Tensor:
    """`[2 T, 3, 28, 28]`: each frame's left and right, the right one mirrored, around `centres` `[T, 2, 2]`."""
    crops = nets.crop(frames.repeat_interleave(2, 0), centres.flatten(0, 1), nets.HAND_SIDE, nets.HAND_SIDE)
    crops[1::2] = crops[1::2].flip(-1)
    return crops


def head_crops(frames: Tensor) -> Tensor:
    """`[T, 3, 36, 36]`: a fixed area, since the reference picture has no skeleton."""
    centre = torch.tensor(nets.HEAD_CENTRE, device=frames.device).expand(len(frames), 2)
    return nets.crop(frames, centre, nets.HEAD_SIDE, nets.HEAD_SIDE)


class _Puppet:
    """What all extractors share: a name, a protocol string, one clip at a time."""

    name = "puppet"
    recipe = ""

    def __init__(self, modules: dict[str, nn.Module], sha256: str, device: str) -> None:
        self.nets, self.device = modules, device
        self.protocol = (
            f"{self.recipe}; weights sha256 {sha256}; frames resized to {nets.SIDE}x{nets.SIDE}, RGB in [0, 1]"
        )

    @torch.inference_mode()
    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list[Any]:
        return [self.features(clip, condition) for clip, condition in zip(clips, conditions, strict=True)]

    def features(self, clip: Clip, condition: Clip) -> Any:
        raise NotImplementedError


class ImageExtractor(_Puppet):
    """`[T, 64]` features of frames."""

    recipe = "FrameNet"

    def features(self, clip: Clip, condition: Clip) -> Any:
        return self.nets["frame"](frames_of(clip.video, self.device)).cpu().numpy()


class VideoExtractor(_Puppet):
    """`[64]` features of a clip."""

    recipe = "FrameNet, then ClipNet over time"

    def features(self, clip: Clip, condition: Clip) -> Any:
        if len(clip.video) < 2:
            return Unscorable("single frame")
        frames = self.nets["frame"](frames_of(clip.video, self.device))
        return self.nets["clip"](frames[None])[0].cpu().numpy()


class SyncExtractor(_Puppet):
    """Unit vectors of the same windows of 5 frames: dict(video [W, 96], audio [W, 96], vshift=5)."""

    recipe = "SyncNet, windows of 5 frames and 200 ms of 40 log mel bands, mouth by the skeleton's nose and neck"

    def features(self, clip: Clip, condition: Clip) -> Any:
        total = len(clip.video)
        if condition.audio is None:
            return Unscorable("no audio")
        if total < nets.SYNC_WINDOW:
            return Unscorable(f"shorter than one sync window of {nets.SYNC_WINDOW} frames")
        skeleton = skeleton_of(condition, total, self.device)
        if isinstance(skeleton, Unscorable):
            return skeleton
        body = condition.layout.body if condition.layout else ()
        if "nose" not in body or "neck" not in body:
            return Unscorable("skeleton has no nose and neck")
        nose, neck = (skeleton[:, body.index(joint), :2] for joint in ("nose", "neck"))
        wave = np.zeros(total * nets.HOP, np.float32)
        heard = condition.audio[: len(wave)]
        wave[: len(heard)] = heard
        net = self.nets["sync"]
        crops = mouth_crops(frames_of(clip.video, self.device), nose, neck)
        video = net.video(crops[None])[0]  # type: ignore[operator]
        audio = net.audio(torch.from_numpy(wave).to(self.device)[None])[0]  # type: ignore[operator]
        return {"video": video.cpu().numpy(), "audio": audio.cpu().numpy(), "vshift": nets.VSHIFT}


class HandExtractor(_Puppet):
    """dict(keypoints [T, 2, 21, 2] pixels of the clip, confidence [T, 2, 21] in [0, 1], expected bool [T, 2])."""

    recipe = (
        "HandNet, 28x28 around the hand's box in the condition's skeleton; confidence = lesser of both axes' "
        "largest SimCC bin over that of a clean joint's target; expected = half of the joints visible"
    )

    def features(self, clip: Clip, condition: Clip) -> Any:
        total = len(clip.video)
        skeleton = skeleton_of(condition, total, self.device)
        if isinstance(skeleton, Unscorable):
            return skeleton
        assert condition.layout is not None
        hands = torch.stack([skeleton[:, rows] for rows in condition.layout.hands], 1)  # [T, 2, 21, 3]
        centres = nets.hand_centre(hands[..., :2])
        joints, confidence = nets.read_hands(
            *self.nets["hands"](hand_crops(frames_of(clip.video, self.device), centres))
        )
        joints, confidence = joints.view(total, 2, 21, 2), confidence.view(total, 2, 21)
        joints[:, 1, :, 0] = nets.HAND_SIDE - joints[:, 1, :, 0]
        height, width = clip.video.shape[1:3]
        scale = torch.tensor([width, height], device=self.device) / nets.SIDE
        joints = (joints + centres[:, :, None] - nets.HAND_SIDE / 2) * scale
        expected = (hands[..., 2] > 0.5).float().mean(-1) >= 0.5
        return {
            "keypoints": joints.cpu().numpy(),
            "confidence": confidence.cpu().numpy(),
            "expected": expected.cpu().numpy(),
        }


class IdentityExtractor(_Puppet):
    """dict(embedding [T, 64] of the clip's frames, reference [64] of the condition's reference picture)."""

    recipe = "IdentityNet, fixed 36x36 area around (32, 18.5)"

    def features(self, clip: Clip, condition: Clip) -> Any:
        pictures = [frames_of(clip.video, self.device), frames_of(condition.reference[None], self.device)]
        vectors = self.nets["identity"](head_crops(torch.cat(pictures))).cpu().numpy()
        return {"embedding": vectors[:-1], "reference": vectors[-1]}


EXTRACTORS: dict[str, type[_Puppet]] = {
    "image": ImageExtractor,
    "video": VideoExtractor,
    "sync": SyncExtractor,
    "hands": HandExtractor,
    "identity": IdentityExtractor,
}


def wrap(modules: dict[str, nn.Module], sha256: str, device: str = "cpu") -> dict[str, Extractor]:
    """Extractors around nets that are in memory."""
    for module in modules.values():
        module.to(device).eval().requires_grad_(False)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a CPU
    return {key: make(modules, sha256, device) for key, make in EXTRACTORS.items()}


def load(device: str = "cpu", folder: Path = WEIGHTS) -> dict[str, Extractor]:
    """The shipped evaluators by feature: image, video, sync, hands, identity.

    Raises RequestError when the weights are missing or are not the ones that the model card describes.
    """
    from safetensors.torch import load as read_tensors

    weights, card = (folder / name for name in NAMES)
    try:
        content, stated = weights.read_bytes(), parsed(card.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(
            f"evaluator weights cannot be read from {folder}: {error}; reinstall halign-bench"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != stated:
        raise RequestError(
            f"evaluator weights {weights} were changed: sha256 {found[:12]}…, but {card.name} states {stated[:12]}…; "
            "reinstall halign-bench, or train them again with python -m halign_bench.tracks.puppet.train_evaluators"
        )
    tensors = read_tensors(content)
    modules = {}
    for key, make in NETS.items():
        module = make()
        own = {name[len(key) + 1 :]: value.float() for name, value in tensors.items() if name.startswith(key + ".")}
        missing = [name for name in module.load_state_dict(own, strict=False).missing_keys if not _training_only(name)]
        if missing:
            raise RequestError(f"evaluator weights {weights} lack {key}.{missing[0]}; reinstall halign-bench")
        modules[key] = module
    return wrap(modules, found, device)


def _training_only(name: str) -> bool:
    return name.startswith("heads.") or name.endswith("num_batches_tracked")


def pack(modules: dict[str, nn.Module]) -> bytes:
    """Half-precision safetensors of what the extractors need."""
    from safetensors.torch import save

    return save({
        f"{key}.{name}": value.half().contiguous()
        for key, module in modules.items()
        for name, value in module.state_dict().items()
        if not _training_only(name)
    })  # fmt: skip
