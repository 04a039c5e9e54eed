"""MaPO (arXiv 2406.06424): margin-aware preference optimisation, without a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from halign_bench.batch import ClipBatch, PairBatch, error
from halign_bench.method import AlignmentMethod, Claim, LossOutput, Stage
from halign_bench.registry import register

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Denoiser

PAPER = "arXiv 2406.06424"
SMALLEST = 1e-6  # an error of exactly 0 would be 0/0 below


def mapo_score(error: torch.Tensor, scale: float) -> torch.Tensor:
    """s·m / (e^{s·m} - 1), `[B]` in (0, 1]: 1 for no error, falling towards 0."""
    scaled = scale * error.clamp(min=SMALLEST)
    return scaled / scaled.expm1()


def mapo_loss(
    winner_error: torch.Tensor, loser_error: torch.Tensor, beta: float, scale: float, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss `[B]`, margin `[B]`): m^w - β·log σ(T·margin), margin = f(m^w) - f(m^l), f = `mapo_score`."""
    from torch.nn.functional import logsigmoid

    if winner_error.shape != loser_error.shape or winner_error.ndim != 1:
        raise ValueError(f"errors [B] expected, got {tuple(winner_error.shape)} and {tuple(loser_error.shape)}")
    margin = mapo_score(winner_error, scale) - mapo_score(loser_error, scale)
    return winner_error - beta * logsigmoid(steps * margin), margin


@register
class MaPO(AlignmentMethod):
    """SFT on winners, plus a log-sigmoid of how much better the winner is denoised than the loser.

    L = m^w - β·log σ(T·(f(m^w) - f(m^l))), f(m) = s·m / (e^{s·m} - 1). Facts from the code, mapo-t2i/mapo
    `utils.py`, `args.py`. No reference model is run: what keeps the policy a denoiser is the first term. m
    is the error of the backbone's own prediction, **mean** over all non-batch axes, as in the code for
    noise and v alike; of the velocity for a flow backbone [infer]. Winner and loser share t and noise.
    """

    name = "mapo"
    paper = f"Margin-aware Preference Optimization for Aligning Diffusion Models without Reference ({PAPER})"
    summary = "SFT on winners plus a margin over losers, no reference"
    separable = True
    claims = (
        Claim("hkc", "diffusion-dpo", f"{PAPER}, abstract: better than DPO; the metric is ours"),
        Claim("motion_gap", "diffusion-dpo", f"{PAPER}, abstract: better than DPO; the metric is ours"),
    )

    class Config(AlignmentMethod.Config):
        beta: float = Field(default=0.1, ge=0, description="weight of the margin against the SFT term [code]")
        scale: float = Field(default=0.5, gt=0, description="s, called snr_value [code]")
        steps: int = Field(default=1000, ge=1, description="T, training timesteps of the scheduler [code]")
        reduction: Literal["mean"] = Field(default="mean", description="over all non-batch axes [code]")
        criterion: str = Field(default="overall", description="whose labels order the pairs [ours]")

    config: Config

    def stages(self) -> Sequence[Stage]:
        return (Stage("mapo", "pairs", self.config.criterion),)

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        assert isinstance(batch, PairBatch)
        both = batch.stacked()
        x_t, target = both.noised(backbone)
        winner, loser = error(policy(x_t, both.t, both.condition), target).chunk(2)
        loss, margin = mapo_loss(winner, loser, self.config.beta, self.config.scale, self.config.steps)
        return LossOutput(loss, {"winner_error": winner, "loser_error": loser, "margin": margin})
