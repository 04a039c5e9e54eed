"""Noise levels of published models as the harness counts them: t = 1 is where sampling starts, t = 0 is clean.

Each is read off the scheduler that lies beside the weights. Even steps in t are then the model's own way of sampling:
shifted sigmas for a flow, Karras sigmas for EDM, every (N / steps)-th training step for a discrete schedule, which
diffusers calls the spacing "trailing" (arXiv 2305.08891).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from halign_bench.errors import RequestError

RHO = 7.0  # arXiv 2206.00364, section 3


def check_prediction(scheduler: Any, expected: str, backbone: str) -> None:
    """Raises RequestError where the scheduler is of a model that predicts something else."""
    found = scheduler.config.get("prediction_type", "flow_prediction")
    if found != expected:
        raise RequestError(
            f"backbone {backbone}: the scheduler beside these weights is of a model that predicts {found}, and this "
            f"one predicts {expected}"
        )


def flow_shift(scheduler: Any) -> float:
    """By how much a flow model's sampling is shifted to high noise; 1 is not at all."""
    config = scheduler.config
    return float(config.get("flow_shift") or config.get("shift") or 1.0)


class Discrete:
    """DDPM's steps 0 to N - 1 (arXiv 2006.11239): t in (0, 1] is step ceil(N·t) - 1, so that each is as likely."""

    def __init__(self, scheduler: Any) -> None:
        last = torch.as_tensor(getattr(scheduler, "final_alpha_cumprod", 1.0)).reshape(1)
        table = torch.cat([last.double(), scheduler.alphas_cumprod.double().cpu()])
        self.alpha, self.sigma = table.sqrt().float(), (1 - table).sqrt().float()
        self.steps = len(table) - 1

    def step(self, t: Tensor) -> Tensor:
        """Number of the training step, for the network; long, like t."""
        return (self._row(t) - 1).clamp(min=0)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        rows = self._row(t).cpu()
        return self.alpha[rows].to(t.device), self.sigma[rows].to(t.device)

    def _row(self, t: Tensor) -> Tensor:
        return torch.ceil(t.double() * self.steps - 1e-3).long().clamp(0, self.steps)  # t comes in fp32


class Karras:
    """EDM (arXiv 2206.00364): t divides the sigmas as its sampler does, between sigma_min and sigma_max; 0 at t = 0.

    x is scaled to unit variance: alpha = 1/√(1 + σ²) and σ/√(1 + σ²), which is also what the network is shown.
    """

    def __init__(self, scheduler: Any) -> None:
        config = scheduler.config
        self.low, self.high = (float(config[name]) ** (1 / RHO) for name in ("sigma_min", "sigma_max"))

    def edm_sigma(self, t: Tensor) -> Tensor:
        sigma = (self.low + t.double() * (self.high - self.low)) ** RHO
        return torch.where(t == 0, 0.0, sigma)

    def c_noise(self, t: Tensor) -> Tensor:
        """What the network is told of the noise level."""
        return 0.25 * self.edm_sigma(t).clamp(min=self.low**RHO).log().float()

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.edm_sigma(t)
        alpha = (1 + sigma**2).rsqrt()
        return alpha.float(), (sigma * alpha).float()
