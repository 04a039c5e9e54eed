"""SyncNet: embeddings of mouth and voice in windows of 0.2 s (Chung and Zisserman 2016).

Layout and window arithmetic are those of `syncnet_v2.model` in joonson/syncnet_python. Its convolutions over
time have one output for each window, so they are carried out as convolutions over 5 x 3 channels, with batch
normalisation folded in: the same sums, in less time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from halign_bench.extractors.checkpoint import load_published
from halign_bench.extractors.mfcc import mfcc, pcm16
from halign_bench.track import FPS, SAMPLE_RATE

WINDOW = 5  # frames
MFCC_WINDOW, MFCC_STEP = 20, 4  # cepstra of a window, and from one window to the next
VSHIFT = 15  # frames by which sound and picture are shifted against each other at most
SIDE = 224  # pixels of a face
HOP = SAMPLE_RATE // FPS


def _conv(
    dims: int, channels: tuple[int, int], kernel: tuple[int, ...], stride: int = 1, pad: int = 0
) -> list[nn.Module]:
    """Convolution, normalisation, ReLU; in three dimensions the stride and padding are of space alone."""
    time = (1,) * (dims - 2), (0,) * (dims - 2)
    layer, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
    convolution = layer(*channels, kernel, stride=(*time[0], stride, stride), padding=(*time[1], pad, pad))
    return [convolution, norm(channels[1]), nn.ReLU(inplace=True)]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


class SyncNet(nn.Module):
    """Module names are those of the published state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv(2, (1, 64), (3, 3), pad=1), nn.MaxPool2d(1, 1),
            *_conv(2, (64, 192), (3, 3), pad=1), nn.MaxPool2d(3, (1, 2)),
            *_conv(2, (192, 384), (3, 3), pad=1),
            *_conv(2, (384, 256), (3, 3), pad=1),
            *_conv(2, (256, 256), (3, 3), pad=1), nn.MaxPool2d(3, 2),
            *_conv(2, (256, 512), (5, 4)),
        )  # fmt: skip
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = nn.Sequential(
            *_conv(3, (3, 96), (5, 7, 7), stride=2), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv(3, (96, 256), (1, 5, 5), stride=2, pad=1), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv(3, (256, 256), (1, 3, 3), pad=1),
            *_conv(3, (256, 256), (1, 3, 3), pad=1),
            *_conv(3, (256, 256), (1, 3, 3), pad=1), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv(3, (256, 512), (1, 6, 6)),
        )  # fmt: skip

    def video(self, windows: Tensor) -> Tensor:
        """`[B, 3, 5, 224, 224]` BGR in 0..255 -> `[B, 1024]`."""
        return self.netfclip(self.netcnnlip(windows).flatten(1))

    def audio(self, windows: Tensor) -> Tensor:
        """`[B, 1, 13, 20]` cepstra -> `[B, 1024]`."""
        return self.netfcaud(self.netcnnaud(windows).flatten(1))


def _folded(layers: nn.Sequential) -> nn.Sequential:
    """The same function without batch normalisation, and with convolutions over space alone.

    A kernel over t frames becomes one over t x C channels, frame after frame.
    """
    out: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            fuse = fuse_linear_bn_eval if isinstance(out[-1], nn.Linear) else fuse_conv_bn_eval
            out[-1] = fuse(out[-1], layer)  # type: ignore[operator]
        else:
            out.append(layer)
    return nn.Sequential(*(_flat(layer) for layer in out))


def _flat(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.MaxPool3d):
        kernel, stride, padding = (
            tuple(value)[1:] if isinstance(value, tuple) else value
            for value in (layer.kernel_size, layer.stride, layer.padding)
        )
        return nn.MaxPool2d(kernel, stride, padding)
    if not isinstance(layer, nn.Conv3d):
        return layer
    weight = layer.weight.transpose(1, 2).flatten(1, 2)  # [out, t x C, h, w]
    flat = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], layer.stride[1:], layer.padding[1:])
    flat.weight, flat.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    return flat


class SyncEmbedder:
    """Embeddings of one face and one voice.

    weights   `syncnet_v2.model`
    sha256    of the file
    protocol  what a protocol string says of it
    """

    assets: tuple[str, ...] = ("syncnet-v2",)

    def __init__(self, weights: Path, device: str = "cpu", batch: int = 16) -> None:
        self.device, self.batch = device, batch
        net = SyncNet()
        self.sha256 = load_published(net, weights, "SyncNet")
        self.video = nn.Sequential(_folded(net.netcnnlip), nn.Flatten(), _folded(net.netfclip))
        self.audio = nn.Sequential(_folded(net.netcnnaud), nn.Flatten(), _folded(net.netfcaud))
        for part in (self.video, self.audio):
            part.eval().requires_grad_(False)
            part.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.protocol = (
            f"SyncNet v2, weights sha256 {self.sha256}, windows of {WINDOW} BGR frames in 0..255 and of {MFCC_WINDOW} "
            "MFCC (python_speech_features 0.6, 16-bit samples), min(frames, samples // 640) - 5 windows"
        )

    @torch.inference_mode()
    def __call__(self, faces: np.ndarray, audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 `[T, 224, 224, 3]` RGB and float `[N]` in [-1, 1] at 16 kHz, beginning together
        -> video and audio embeddings, float32 `[W, 1024]`, not normalised.

        W = min(T, N // 640) - 5 as in the published code (one window fewer than would fit), or 0 where that is
        negative. Raises ValueError for faces of another size.
        """
        if faces.dtype != np.uint8 or faces.shape[1:] != (SIDE, SIDE, 3):
            raise ValueError(f"faces are uint8 [T, {SIDE}, {SIDE}, 3], not {faces.dtype} {faces.shape}")
        windows = min(len(faces), len(audio) // HOP) - WINDOW
        if windows <= 0:
            return np.zeros((0, 1024), np.float32), np.zeros((0, 1024), np.float32)
        cepstra = torch.from_numpy(mfcc(pcm16(audio)).astype(np.float32)).to(self.device)
        heard = cepstra.unfold(0, MFCC_WINDOW, MFCC_STEP)[:windows, None]  # [W, 1, 13, 20]
        video, voice = [], []
        for start in range(0, windows, self.batch):
            stop = min(start + self.batch, windows)
            seen = torch.from_numpy(faces[start : stop + WINDOW - 1, :, :, ::-1].copy()).to(self.device).float()
            stacked = torch.cat([seen[frame : frame + stop - start] for frame in range(WINDOW)], -1)
            video.append(self.video(stacked.permute(0, 3, 1, 2)))
            voice.append(self.audio(heard[start:stop].contiguous()))
        return torch.cat(video).cpu().numpy(), torch.cat(voice).cpu().numpy()
