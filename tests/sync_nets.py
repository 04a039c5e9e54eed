"""Random weights in the layouts of the published S3FD and SyncNet, and clips with faces whose places are given.

The published weights cannot be had where these tests run, and a random detector finds no faces: the tests of
tracks and scores put given detections in its place, the tests of the detector its own random boxes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from halign_bench.extractors.s3fd import S3FD
from halign_bench.extractors.syncnet import SyncNet
from halign_bench.track import Clip


def syncnet_weights(path: Path, seed: int = 0) -> Path:
    """`syncnet_v2.model` with random weights, and normalisations that do something."""
    torch.manual_seed(seed)
    net = SyncNet()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    torch.save(net.state_dict(), path)
    return path


def s3fd_weights(path: Path, frame: np.ndarray | None = None, seed: int = 0) -> Path:
    """`sfd_face.pth` with random weights; of the boxes of a uint8 `[H, W, 3]` frame, about 1 in 500 is certain."""
    torch.manual_seed(seed)
    net = S3FD().eval()
    with torch.no_grad():
        for name, length in (("L2Norm3_3", 10.0), ("L2Norm4_3", 8.0), ("L2Norm5_3", 5.0)):
            getattr(net, name).weight.fill_(length)
        for module in net.vgg:
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
        if frame is not None:
            _calibrate(net, torch.from_numpy(frame[::4, ::4].copy()).permute(2, 0, 1)[None].float() - 114)
    torch.save(net.state_dict(), path)
    return path


def _calibrate(net: S3FD, picture: torch.Tensor) -> None:
    """Gives each head offsets of about 1, and logits of which the highest 1 in 500 are above 0.9."""
    outputs: dict[torch.nn.Module, torch.Tensor] = {}
    hooks = [head.register_forward_hook(lambda module, _, out: outputs.update({module: out}))
             for head in (*net.loc, *net.conf)]  # fmt: skip
    net(picture)
    for hook in hooks:
        hook.remove()
    for head in net.loc:
        head.weight.div_(outputs[head].std())
        head.bias.div_(outputs[head].std())
    for head in net.conf:
        logits = outputs[head]
        gap = logits[:, -1] - logits[:, :-1].amax(1)
        scale = 2 / gap.std() if gap.numel() > 1 else 1 / gap.abs().max()
        head.weight.mul_(scale)
        head.bias.mul_(scale)
        head.bias[-1] += 2.2 - (gap * scale).quantile(0.998)


def layout(path: Path) -> tuple[int, str]:
    """How many tensors a file has, and a sha256 of their names and shapes; counters do not count."""
    tensors = torch.load(path, weights_only=True)
    lines = [f"{name} {tuple(value.shape)}\n" for name, value in sorted(tensors.items()) if "num_batches" not in name]
    return len(lines), hashlib.sha256("".join(lines).encode()).hexdigest()


def moving_clip(frames: int = 120, height: int = 240, width: int = 320, seed: int = 0) -> Clip:
    """Smooth noise that drifts, with noise for sound."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 16 + 2, width // 16 + 2 + frames // 16 + 1, 3), dtype=np.uint8)
    wide = coarse.repeat(16, 0).repeat(16, 1)
    video = np.stack([wide[:height, number : number + width] for number in range(frames)])
    sound = (0.2 * rng.standard_normal(frames * 640)).clip(-1, 1).astype(np.float32)
    return Clip(f"noise-{seed}", "nobody", video, video[0], sound)


def given(boxes: Callable[[int], np.ndarray]) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """A detector that knows: `boxes(k)` `[n, 5]` on the k-th frame that it is shown, in order."""
    count = [0]

    def detect(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        first, count[0] = count[0], count[0] + len(frames)
        return [np.asarray(boxes(first + number), float).reshape(-1, 5) for number in range(len(frames))]

    return detect


def drifting(frame: int, x: float = 60, y: float = 50, side: float = 120, speed: float = 0.5) -> list[float]:
    """A face at `frame`: x0, y0, x1, y1, confidence."""
    left = x + speed * frame
    return [left, y, left + side, y + 1.1 * side, 0.99]
