"""Random batches, and a method's loss on them, for tests of methods."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tiny import TinyBackbone

from halign_bench.adapters import attach, attached
from halign_bench.batch import ClipBatch, PairBatch
from halign_bench.method import AlignmentMethod, LossOutput


def random_clips(count: int = 3, seed: int = 0) -> ClipBatch:
    """Latents, conditions, masks and rewards that `TinyBackbone` takes."""
    generator = torch.Generator().manual_seed(seed)
    shape = (4, 2, 4, 4)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    return ClipBatch(
        x0=draw(count, *shape), noise=draw(count, *shape), t=torch.rand(count, generator=generator),
        condition={
            "reference": draw(count, *shape), "skeleton": torch.rand(count, 1, 2, 4, 4, generator=generator),
            "skeleton_frames": torch.rand(count, 5, 1, 4, 4, generator=generator), "audio": draw(count, 5, 8),
        },
        hand_mask=torch.rand(count, 1, 2, 4, 4, generator=generator), ids=[str(i) for i in range(count)],
        reward=draw(count),
    )  # fmt: skip


def random_pairs(count: int = 3, seed: int = 0) -> PairBatch:
    winner = replace(random_clips(count, seed), reward=None)
    return PairBatch(winner, replace(winner, x0=random_clips(count, seed + 100).x0), torch.ones(count))


def loss_of(method: AlignmentMethod, backbone: Any, batch: ClipBatch | PairBatch, stage: int = 0) -> LossOutput:
    """Of one stage, with its adapter (attached when it is not yet) on for the policy and off for the reference."""
    chosen = method.stages()[stage]
    if chosen.adapter not in attached(backbone.denoiser):
        clips = batch.winner if isinstance(batch, PairBatch) else batch
        for parameter in attach(backbone, chosen, clips.condition, 4, 4, seed=0):
            parameter.requires_grad_(True)

    def reference(x_t: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        with torch.no_grad(), backbone.adapters(()):
            return backbone.denoise(x_t, t, condition)

    with backbone.adapters([chosen.adapter]):
        return method.loss(chosen, backbone.denoise, reference, batch, backbone)


def trained(backbone: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in backbone.denoiser.parameters() if parameter.requires_grad]


def nudge(backbone: Any, size: float = 0.1) -> None:
    """Moves the adapter away from doing nothing."""
    with torch.no_grad():
        for i, parameter in enumerate(trained(backbone)):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)) * size)


def gradient(output: LossOutput, backbone: Any) -> torch.Tensor:
    """Of the sum of the losses, one vector."""
    parameters = trained(backbone)
    for parameter in parameters:
        parameter.grad = None
    output.per_sample.sum().backward()
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def residuals(backbone: Any, clips: ClipBatch, adapters: list[str]) -> np.ndarray:
    """prediction - target in fp64, the noising and the target computed here in numpy: a flow's."""
    x0, noise, t = clips.x0.double().numpy(), clips.noise.double().numpy(), clips.t.double().numpy()
    level = t[:, None, None, None, None]
    x_t = torch.tensor((1 - level) * x0 + level * noise, dtype=torch.float32)
    with torch.no_grad(), backbone.adapters(adapters):
        prediction = backbone.denoise(x_t, clips.t, clips.condition).double().numpy()
    return prediction - (noise - x0)


def mean_squares(values: np.ndarray, weight: np.ndarray | float = 1.0) -> np.ndarray:
    """`[B]`: each sample's mean."""
    return np.array([sample.mean() for sample in values**2 * weight])


def log_sigmoid(z: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -np.asarray(z, np.float64))


def prepared(method: AlignmentMethod, batch: ClipBatch | PairBatch, size: float = 0.1) -> TinyBackbone:
    """A backbone whose adapter for the method's first stage does something."""
    backbone = TinyBackbone()
    loss_of(method, backbone, batch)
    nudge(backbone, size)
    return backbone
