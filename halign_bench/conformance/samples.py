"""What the checks are run on: small clips, features as the tracks' extractors give them, and a toy model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from halign_bench.backbone import Backbone, Condition, Parameterisation
from halign_bench.inserts import Block
from halign_bench.track import FPS, SAMPLE_RATE, Clip, SkeletonLayout

if TYPE_CHECKING:
    import torch

HAND = 21
LAYOUT = SkeletonLayout(
    body=("head", "neck"), left_hand=slice(2, 2 + HAND), right_hand=slice(2 + HAND, 2 + 2 * HAND), edges=((0, 1),)
)
LATENT = (4, 3, 4, 4)  # (C, T, H, W) of the toy model
FRAMES = 1 + 4 * (LATENT[1] - 1)


def sample_clip(index: int, frames: int = FRAMES, size: tuple[int, int] = (32, 32)) -> Clip:
    """A disc that wanders over a gradient, with a tone as loud as the disc is high, and two moving hands."""
    rng = np.random.default_rng((7, index))
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    phase = rng.uniform(0, 2 * np.pi, size=3)
    times = np.arange(frames)
    y = height * (0.5 + 0.25 * np.sin(0.5 * times + phase[0]))
    x = width * (0.5 + 0.25 * np.cos(0.4 * times + phase[1]))
    inside = (rows - y[:, None, None]) ** 2 + (columns - x[:, None, None]) ** 2 < (min(size) / 5) ** 2
    ground = 40 + 120 * ((rows / height)[..., None] * rng.uniform(0.3, 1, 3) + (columns / width)[..., None] * 0.3)
    video = np.where(inside[..., None], rng.uniform(90, 250, 3), ground[None]).clip(0, 255).astype(np.uint8)
    skeleton = np.ones((frames, 2 + 2 * HAND, 3), np.float32)
    spread = rng.uniform(-0.08, 0.08, size=(2 + 2 * HAND, 2))
    skeleton[..., 0] = (x[:, None] + width * spread[:, 0]).clip(0, width - 1)
    skeleton[..., 1] = (y[:, None] + height * spread[:, 1]).clip(0, height - 1)
    loudness = np.repeat(y / height, SAMPLE_RATE // FPS)
    tone = np.sin(2 * np.pi * (180 + 40 * index) * np.arange(len(loudness)) / SAMPLE_RATE)
    audio = (0.9 * loudness * tone).astype(np.float32)
    reference = video[0].copy()
    prompt = "a person talks" if index % 2 else "a person waves"
    return Clip(f"sample/{index}", f"person-{index // 2}", video, reference, audio, skeleton, LAYOUT, prompt=prompt)


def features_of(clip: Clip, key: str | None, index: int) -> Any:
    """Features of a real clip under an extractor key; None where the key has no agreed form."""
    rng = np.random.default_rng((11, index))
    frames = len(clip.video)
    if key is None:
        return None
    if key == "image":
        return rng.normal(size=(frames, 8))
    if key == "video":
        return rng.normal(size=(1, 8))
    if key == "sync":
        embeddings = rng.normal(size=(40, 16))
        return {"video": embeddings, "audio": embeddings + 0.05 * rng.normal(size=embeddings.shape), "vshift": 15}
    if key == "identity":
        reference = rng.normal(size=16)
        return {"embedding": reference + 0.05 * rng.normal(size=(frames, 16)), "reference": reference}
    if key == "perceptual":
        return {"distance": np.zeros(frames)}
    if key == "hands":
        assert clip.skeleton is not None
        points = np.stack([clip.skeleton[:, rows, :2] for rows in LAYOUT.hands], axis=1)
        confidence = 0.9 + 0.05 * rng.uniform(size=(frames, 2, HAND))
        return {"keypoints": points, "confidence": confidence, "expected": np.ones((frames, 2), bool)}
    raise KeyError(key)


def spoilt(clip: Clip, features: Any, key: str | None, index: int) -> tuple[Clip, Any]:
    """The same clip and features, clearly worse in what a metric on `key` measures."""
    rng = np.random.default_rng((13, index))
    noisy = (clip.video.astype(float) + rng.normal(scale=60, size=clip.video.shape)).clip(0, 255).astype(np.uint8)
    spoilt_clip = replace(clip, video=noisy)
    if key in ("image", "video"):
        return spoilt_clip, 3 * features + 4
    if key == "sync":  # late by five windows, and half drowned in noise
        late = np.roll(features["audio"], 5, axis=0)
        return spoilt_clip, {**features, "audio": late + 0.7 * rng.normal(size=late.shape)}
    if key == "identity":
        embedding = features["embedding"]
        return spoilt_clip, {**features, "embedding": embedding + 2 * rng.normal(size=embedding.shape)}
    if key == "perceptual":
        return spoilt_clip, {"distance": features["distance"] + rng.uniform(0.2, 0.6, size=len(clip.video))}
    if key == "hands":
        lost = np.where(rng.uniform(size=(len(clip.video), 2, 1)) < 0.5, 0.1, 0.5)
        jitter = rng.normal(scale=3, size=features["keypoints"].shape)
        spoilt_features = {"confidence": features["confidence"] * lost, "keypoints": features["keypoints"] + jitter}
        return spoilt_clip, {**features, **spoilt_features}
    return spoilt_clip, features


class ToyBackbone(Backbone):
    """The least that a loss needs of a backbone: a few linear layers with the usual names, in any parameterisation."""

    name = "toy"
    summary = "a few linear layers, for conformance checks"
    lora_targets = ("to_q", "to_v")

    def __init__(self, parameterisation: Parameterisation) -> None:
        import torch
        from torch import nn

        self.parameterisation = parameterisation  # type: ignore[misc]  # per instance: each is checked
        self.frames, self.size, self.device, self.base_sha256 = FRAMES, (32, 32), "cpu", "0" * 64
        channels = LATENT[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = {"to_q": nn.Linear(3 * channels + 2, 16), "to_v": nn.Linear(16, channels)}
            layers |= {name: nn.Identity() for name in ("norm", "attention", "feed_forward")}
            self.denoiser = nn.ModuleDict(layers).requires_grad_(False)

    def latent_shape(self) -> tuple[int, int, int, int]:
        return LATENT

    def alpha_sigma(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.parameterisation == "flow":
            return 1 - t, t
        angle = t * (np.pi / 2)
        return angle.cos(), angle.sin()

    def unconditional(self, condition: Condition) -> Condition:
        return {**condition, "audio": condition["audio"] * 0}

    def blocks(self) -> list[Block]:
        norm, attention, feed_forward = (self.denoiser[name] for name in ("norm", "attention", "feed_forward"))  # type: ignore[operator, index]  # a ModuleDict
        return [Block(norm, attention, feed_forward, width=16, heads=2)]

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        import torch

        shape = (len(x_t), 1, *x_t.shape[2:])
        level = t.view(-1, 1, 1, 1, 1).expand(shape)
        loudness = condition["audio"].flatten(1).mean(1).view(-1, 1, 1, 1, 1).expand(shape)
        reference = condition["reference"].expand(-1, -1, x_t.shape[2], -1, -1)
        stacked = torch.cat([x_t, condition["skeleton"], reference, level, loudness], dim=1).movedim(1, -1)
        layers: Any = self.denoiser
        places = torch.tanh(layers["to_q"](stacked))
        hidden = places.flatten(1, 3)  # tokens, frame by frame
        hidden = layers["feed_forward"](hidden + layers["attention"](layers["norm"](hidden)))
        prediction: torch.Tensor = layers["to_v"](hidden.reshape(places.shape)).movedim(-1, 1)
        return prediction
