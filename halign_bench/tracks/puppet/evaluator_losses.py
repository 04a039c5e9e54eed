"""Batches and losses of the evaluators, one class a net: `loss(net, rng)` draws a batch and scores it.

Clips are clean; what is spoiled (blur, noise, crumpled or missing fingers, shuffled frames) is spoiled
here, with a known level, so that the nets learn to tell it rather than to be confused by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from halign_bench.fitness.spoiling import frozen, shuffled
from halign_bench.tracks.puppet import nets
from halign_bench.tracks.puppet.evaluator_data import LONG, ROOM

Data = dict[str, np.ndarray]
FRAMES = LONG - 2 * ROOM


def pixels(frames: np.ndarray) -> Tensor:
    """uint8 `[N, H, W, 3]` to float `[N, 3, H, W]` in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `[N, C, H, W]` in pixels, edges reflected."""
    if sigma < 0.1:
        return images
    radius = min(int(np.ceil(3 * sigma)), images.shape[-1] - 1, images.shape[-2] - 1)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    flat = F.pad(images.flatten(0, 1)[:, None], (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(flat, kernel[:, :, None]), kernel[..., None])[:, 0].view_as(images)


def blur_groups(images: Tensor, sigmas: np.ndarray) -> Tensor:
    """Consecutive equal parts of the batch, each with a blur of its own."""
    return torch.cat([blur(part, float(s)) for part, s in zip(images.chunk(len(sigmas)), sigmas, strict=True)])


def tint(images: Tensor, rng: np.random.Generator, size: float, per: int = 1) -> Tensor:
    """Random gain a channel and offset; `per` consecutive images share theirs."""
    groups = len(images) // per
    gain = torch.from_numpy(rng.uniform(1 - size, 1 + size, (groups, 3)).repeat(per, 0)).float()
    shift = torch.from_numpy(rng.uniform(-size / 2, size / 2, (groups, 1)).repeat(per, 0)).float()
    return images * gain[..., None, None] + shift[..., None, None]


def noisy(images: Tensor, level: Tensor) -> Tensor:
    """Adds white noise of `level` `[N]`, on the scale of [0, 1]."""
    return images + torch.randn_like(images) * level.view(-1, 1, 1, 1)


def tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))


class SyncLoss:
    """The published offset rule as a classifier over shifts, and windows against all windows of the batch."""

    def __init__(self, clips: Data, batch: int = 48) -> None:
        self.clips, self.batch = clips, batch

    def __call__(self, net: nets.SyncNet, rng: np.random.Generator) -> Tensor:
        n = self.batch
        rows = rng.choice(len(self.clips["video"]), n, replace=False)
        shift = rng.integers(-nets.VSHIFT, nets.VSHIFT + 1, n)
        start = rng.integers(np.maximum(0, -shift), np.minimum(2 * ROOM, 2 * ROOM - shift) + 1)
        times = start[:, None] + np.arange(FRAMES)
        frames = pixels(self.clips["video"][rows[:, None], times].reshape(-1, nets.SIDE, nets.SIDE, 3))
        joints = tensor(self.clips["skeleton"][rows[:, None], times, :2, :2]).flatten(0, 1)
        centre = nets.mouth_centre(joints[:, 0], joints[:, 1])
        centre = centre + tensor(rng.normal(0, 0.7, (n, 1, 2)) + rng.normal(0, 0.3, (n, FRAMES, 2))).flatten(0, 1)
        zoom = tensor(rng.uniform(0.92, 1.08, n).repeat(FRAMES))
        mouths = nets.crop(frames, centre, nets.MOUTH_SIDE, nets.MOUTH_SIDE, zoom)
        mouths = blur_groups(mouths, np.array([0, 0, rng.uniform(0, 0.7), rng.uniform(0.3, 1.3)]))
        mouths = noisy(
            tint(mouths, rng, 0.15, FRAMES), tensor((rng.uniform(0, 0.06, n) * (rng.random(n) < 0.6)).repeat(FRAMES))
        )
        if rng.random() < 0.5:
            mouths = mouths.flip(-1)
        samples = ((start + shift) * nets.HOP)[:, None] + np.arange(FRAMES * nets.HOP)
        wave = tensor(self.clips["audio"][rows[:, None], samples] * 10 ** rng.uniform(-0.4, 0.2, (n, 1)))
        video = net.video(mouths.view(n, FRAMES, *mouths.shape[1:]))
        audio = net.audio(wave)
        # Audio that starts `shift` frames later holds window w at w - shift: offset = vshift - argmin = shift.
        distances = shifted_distances(video, audio)
        right = torch.from_numpy(nets.VSHIFT - shift)
        loss = F.cross_entropy(-12 * distances, right)
        # Windows: the true partner, where the shifted audio still has it, against every other window.
        windows = video.shape[1]
        partner = np.arange(windows) - shift[:, None]
        inside = (partner >= 0) & (partner < windows)
        target = torch.from_numpy((np.arange(n)[:, None] * windows + partner)[inside])
        similar = 12 * video[torch.from_numpy(inside)] @ audio.flatten(0, 1).T
        return loss + 0.5 * F.cross_entropy(similar, target)


def shifted_distances(video: Tensor, audio: Tensor, vshift: int = nets.VSHIFT) -> Tensor:
    """`[B, 2 vshift + 1]`: mean distance of windows `[B, W, D]` to audio windows up to vshift away, zeros beyond."""
    windows = video.shape[1]
    padded = F.pad(audio, (0, 0, vshift, vshift))
    means = [
        (video - padded[:, s : s + windows]).square().sum(-1).add(1e-6).sqrt().mean(1) for s in range(2 * vshift + 1)
    ]
    return torch.stack(means, 1)


class HandLoss:
    """Cross-entropy with targets as wide as the joint is uncertain; flat where there is no finger."""

    def __init__(self, clips: Data, hands: Data, batch: int = 128) -> None:
        self.clips, self.batch = clips, batch
        self.hands = {key: values.reshape(-1, *values.shape[2:]) for key, values in hands.items()}

    def __call__(self, net: nets.HandNet, rng: np.random.Generator) -> Tensor:
        half = self.batch // 4  # frames; each gives two hands
        rows, times = rng.integers(len(self.clips["video"]), size=half), rng.integers(LONG, size=half)
        clean = self.clips["skeleton"][rows, times, 10:, :2].reshape(half, 2, 21, 2)
        odd = rng.integers(len(self.hands["frame"]), size=half)
        frames = pixels(np.concatenate([self.clips["video"][rows, times], self.hands["frame"][odd]]))
        asked = tensor(np.concatenate([clean, self.hands["asked"][odd]]))
        drawn = tensor(np.concatenate([clean, self.hands["drawn"][odd]]))
        spread = tensor(np.concatenate([np.zeros((half, 2)), self.hands["jitter"][odd]]))
        kept = torch.from_numpy(np.concatenate([np.ones((half, 2, 5), bool), self.hands["kept"][odd]]))
        shown = torch.cat([torch.ones(2 * half, 2, 1, dtype=torch.bool), kept.repeat_interleave(4, 2)], 2).flatten(0, 1)
        centre = (nets.hand_centre(asked) + tensor(rng.uniform(-2, 2, (2 * half, 2, 2)))).flatten(0, 1)
        nothing = torch.from_numpy(rng.random(4 * half) < 0.04)  # crops of face and chest: no hand at all
        centre[nothing] = tensor(np.stack([rng.uniform(20, 44, 4 * half), rng.uniform(8, 24, 4 * half)], 1))[nothing]
        images = nets.crop(frames.repeat_interleave(2, 0), centre, nets.HAND_SIDE, nets.HAND_SIDE)
        joints = drawn.flatten(0, 1) - centre[:, None] + nets.HAND_SIDE / 2
        images[1::2], joints[1::2, :, 0] = images[1::2].flip(-1), nets.HAND_SIDE - joints[1::2, :, 0]
        order = torch.from_numpy(rng.permutation(4 * half))
        images, joints, shown, nothing = images[order], joints[order], shown[order], nothing[order]
        spread = spread.flatten()[order]
        sigmas = np.array([0, 0, 0, 0, *rng.uniform(0, 2.5, 4)])
        images = blur_groups(images, sigmas)
        soft = tensor(sigmas.repeat(len(images) // len(sigmas)))
        width = (nets.HAND_SIGMA**2 + spread**2 + (0.7 * soft) ** 2).sqrt()
        target = self._target(joints, width, shown & ~nothing[:, None])
        # A ghost: two hands over one another, and so two places for each joint.
        ghost = tensor((rng.random(len(images)) < 0.12) * rng.uniform(0.25, 0.5, len(images)))
        images = torch.lerp(images, images.roll(1, 0), ghost.view(-1, 1, 1, 1))
        target = torch.lerp(target, target.roll(1, 0), ghost.view(-1, 1, 1, 1))
        level = tensor(rng.uniform(0, 0.08, len(images)) * (rng.random(len(images)) < 0.4))
        x, y = net(noisy(tint(images, rng, 0.12), level))
        return -(target * torch.stack([x, y], 2)).sum(-1).mean()

    @staticmethod
    def _target(joints: Tensor, width: Tensor, shown: Tensor) -> Tensor:
        """`[N, 21, 2, 56]`: Gaussians around joints inside the crop, flat for the rest."""
        places = (torch.arange(nets.HAND_BINS) + 0.5) * (nets.HAND_SIDE / nets.HAND_BINS)
        bells = torch.exp(-0.5 * ((places - joints[..., None]) / width[:, None, None, None]) ** 2)
        inside = shown & ((joints > 0) & (joints < nets.HAND_SIDE)).all(-1)
        bells = torch.where(inside[..., None, None], bells, torch.ones(()))
        return bells / bells.sum(-1, keepdim=True).clamp(min=1e-6)


class IdentityLoss:
    """Two pictures of a person among those of others (InfoNCE), never in the same clothes before the same wall."""

    PAIRS = np.array([(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])

    def __init__(self, people: Data, batch: int = 160) -> None:
        self.views, self.batch = people["views"], batch

    def __call__(self, net: nets.IdentityNet, rng: np.random.Generator) -> Tensor:
        rows = rng.choice(len(self.views), self.batch, replace=False)
        pair = self.PAIRS[rng.integers(len(self.PAIRS), size=self.batch)]
        vectors = []
        for side in range(2):
            frames = pixels(self.views[rows, pair[:, side]])
            centre = tensor(np.array(nets.HEAD_CENTRE) + rng.normal(0, 0.5, (self.batch, 2)))
            heads = nets.crop(frames, centre, nets.HEAD_SIDE, nets.HEAD_SIDE)
            heads = blur_groups(heads, np.array([0, 0, *rng.uniform(0, 1.4, 2)]))
            order = torch.from_numpy(rng.permutation(self.batch))  # blur must not say who is whose partner
            level = tensor(rng.uniform(0, 0.05, self.batch) * (rng.random(self.batch) < 0.5))
            heads = noisy(tint(heads, rng, 0.04), level)
            vectors.append(net(heads[order])[order.argsort()])
        similar = 12 * vectors[0] @ vectors[1].T
        right = torch.arange(self.batch)
        return (F.cross_entropy(similar, right) + F.cross_entropy(similar.T, right)) / 2


FRAME_TARGETS = 104 + 2 + 23 + 4 + 2


class FrameLoss:
    """Regresses joints, mouth, looks, and how the frame is spoiled: blur, noise, ghost, coarse pixels, bad hands."""

    def __init__(self, clips: Data, hands: Data, batch: int = 160) -> None:
        self.clips, self.batch = clips, batch
        self.hands = {key: values.reshape(-1, *values.shape[2:]) for key, values in hands.items()}

    def __call__(self, net: nets.FrameNet, rng: np.random.Generator) -> Tensor:
        n = self.batch
        odd = n // 4  # of them with bad hands: their looks are not known here, and weigh nothing
        rows, times = rng.integers(len(self.clips["video"]), size=n), rng.integers(LONG, size=n)
        images = self.clips["video"][rows, times]
        bad = rng.integers(len(self.hands["frame"]), size=odd)
        images[:odd] = self.hands["frame"][bad]
        pose = (self.clips["skeleton"][rows, times, :, :2].reshape(n, 104) - 32) / 16
        known = np.concatenate([pose, 2 * self.clips["mouth"][rows, times], 2 * self.clips["traits"][rows]], 1)
        wrecked = np.zeros((n, 2))
        wrecked[:odd] = np.stack([self.hands["jitter"][bad].mean(1), 0.6 * self.hands["gone"][bad].mean(1)], 1)
        order = rng.permutation(n)
        frames, known, wrecked = pixels(images)[torch.from_numpy(order)], known[order], wrecked[order]
        sharp = order >= odd
        ghost = rng.uniform(0.2, 0.5, n) * (rng.random(n) < 0.12)
        frames = torch.lerp(frames, frames.roll(1, 0), tensor(ghost).view(-1, 1, 1, 1))
        sigmas = np.array([0, 0, 0, 0, *rng.uniform(0, 3, 4)])
        coarse = np.array([1, *rng.uniform(1, 4, 1), 1, 1, 1, 1, 1, *rng.uniform(1, 3, 1)])
        parts = []
        for part, factor in zip(blur_groups(frames, sigmas).chunk(len(coarse)), coarse, strict=True):
            side = round(nets.SIDE / factor)
            parts.append(F.interpolate(F.interpolate(part, side, mode="area"), nets.SIDE) if side < nets.SIDE else part)
        level = rng.uniform(0, 0.25, n) * (rng.random(n) < 0.4)
        frames = noisy(torch.cat(parts), tensor(level))
        each = n // len(sigmas)
        spoiled = np.stack(
            [np.log1p(2 * sigmas).repeat(each), np.sqrt(10 * level), 3 * ghost, np.log(coarse).repeat(each)], 1
        )
        target = tensor(np.concatenate([known, spoiled, wrecked], 1))
        weight = torch.ones(n, FRAME_TARGETS)
        weight[:, :129] = tensor(sharp)[:, None] * 0.5
        weight[:, 104:106] *= 4
        weight[:, 129:] = 3.0
        found = net.heads(net.raw(frames))
        return (weight * (found.float() - target).square()).mean()


CLIP_TARGETS = 3 * 104 + 4 + 23 + 3 + 3


class ClipLoss:
    """Regresses pose and its change over time, looks, and what is wrong: order, freezing, haste, blur, noise, shake."""

    def __init__(self, clips: Data, frame_net: nets.FrameNet, batch: int = 128, count: int = 3000) -> None:
        """Frame features once for clean clips and once for spoiled ones (blur, noise or shake of a random level)."""
        rng = np.random.default_rng(81)
        self.clips, self.batch, self.count = clips, batch, min(count, len(clips["video"]))
        clean, spoiled, levels = [], [], []
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for i in range(self.count):
                frames = pixels(clips["video"][i])
                kind, level = int(rng.integers(3)), float(rng.uniform(0, 1))
                worse = frames
                if kind == 0:
                    worse = blur(frames, 3 * level)
                elif kind == 1:
                    worse = frames + 0.2 * level * torch.randn(frames.shape, generator=torch.Generator().manual_seed(i))
                else:
                    worse = nets.crop(frames, 32 + tensor(rng.normal(0, 3 * level, (LONG, 2))), nets.SIDE, nets.SIDE)
                both = frame_net(torch.cat([frames, worse])).float()
                clean.append(both[:LONG])
                spoiled.append(both[LONG:])
                levels.append(level * np.eye(3)[kind])
        self.features = torch.stack([torch.stack(clean), torch.stack(spoiled)])
        self.levels = np.stack([np.zeros((self.count, 3)), np.stack(levels)])
        points = clips["skeleton"][: self.count, :, :, :2].reshape(self.count, LONG, 104)
        self.pose = tensor((points - 32) / 16)
        self.mouth = tensor(clips["mouth"][: self.count])

    def __call__(self, net: nets.ClipNet, rng: np.random.Generator) -> Tensor:
        n = self.batch
        rows = rng.integers(self.count, size=n)
        which = (rng.random(n) < 0.35).astype(int)
        start = rng.integers(0, 2 * ROOM + 1, n)
        order, wrong = zip(*(disorder(rng) for _ in range(n)), strict=True)
        times = torch.from_numpy(start[:, None] + np.stack(order))
        at = torch.from_numpy(rows)[:, None]
        features = self.features[torch.from_numpy(which)[:, None], at, times]
        pose, mouth = self.pose[at, times], 2 * self.mouth[at, times]
        speed = 4 * (pose[:, 1:] - pose[:, :-1]).abs().mean(1)
        looks = 2 * self.clips["traits"][rows]
        target = torch.cat([
            pose.mean(1), 4 * pose.std(1), speed, mouth.mean(1), 2 * mouth.std(1),
            tensor(looks), 3 * tensor(np.stack(wrong)), 3 * tensor(self.levels[which, rows]),
        ], 1)  # fmt: skip
        weight = torch.ones(CLIP_TARGETS)
        weight[-6:] = 10.0
        return (weight * (net.heads(net.raw(features)).float() - target).square()).mean()


def disorder(rng: np.random.Generator, frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """An order of frames and how wrong it is: shares shuffled and frozen, size of random steps in time."""
    kind = int(rng.integers(5))
    level = float(rng.uniform(0, 1))
    if kind == 0:
        return shuffled(frames, level, rng), np.array([level, 0, 0])
    if kind == 1:
        return frozen(frames, level), np.array([0, level, 0])
    if kind == 2:
        steps = np.arange(frames) + np.round(rng.normal(0, 3 * level, frames)).astype(int)
        return steps.clip(0, frames - 1), np.array([0, 0, level])
    return np.arange(frames), np.zeros(3)


__all__ = ["ClipLoss", "FrameLoss", "HandLoss", "IdentityLoss", "SyncLoss"]
