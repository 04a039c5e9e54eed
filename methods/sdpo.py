"""Diffusion-SDPO (arXiv 2511.03317): DPO whose loser gradient is scaled so that the winner's error cannot rise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from halign_bench.batch import ClipBatch, PairBatch, error, form_weight, half_ties
from halign_bench.method import AlignmentMethod, Claim, LossOutput, Stage
from halign_bench.registry import register

from .diffusion_dpo import DPOConfig, dpo_loss

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Denoiser

PAPER = "arXiv 2511.03317"


def loser_scale(winner_residual: torch.Tensor, loser_residual: torch.Tensor, mu: float) -> torch.Tensor:
    """λ in [0, 1], a number without gradient, from residuals (prediction - target) of the policy, `[B, …]` each.

    A step along -∇m^w + λ·∇m^l changes m^w by its product with ∇m^w, to first order. In the space of
    outputs ∇m is proportional to the residual r, so that it falls by at least μ·|∇m^w|² if

        λ ≤ (1 - μ)·|r^w|² / (r^w · r^l)    where r^w · r^l > 0, and whatever λ is elsewhere.
    """
    import torch

    winner, loser = winner_residual.detach().float().flatten(), loser_residual.detach().float().flatten()
    overlap = winner @ loser
    bound = (1 - mu) * (winner @ winner) / overlap.clamp(min=torch.finfo(overlap.dtype).tiny)
    return torch.where(overlap > 0, bound, 1.0).clamp(0, 1)


@register
class SDPO(AlignmentMethod):
    """Diffusion-DPO with a safeguard. Facts from the code, AIDC-AI/Diffusion-SDPO `train.py`.

    DPO widens the margin between winner and loser even where both are denoised worse than before. Here the
    loser's error keeps its value in the loss, while its gradient is multiplied by one λ for the batch,
    computed from the policy's outputs (`loser_scale`). The bound holds for the sum over the batch and for
    outputs, not for parameters, and not pair by pair [code].
    """

    name = "sdpo"
    paper = f"Diffusion-SDPO: Safeguarded Direct Preference Optimization for Diffusion Models ({PAPER})"
    summary = "DPO with the loser's gradient scaled so that the winner's error cannot rise"
    claims = (
        Claim("implicit_accuracy@overall", "base", f"{PAPER}: what its objective asks for"),
        Claim("hkc", "diffusion-dpo", f"{PAPER}, abstract: gains over DPO; the metric is ours"),
        Claim("motion_gap", "diffusion-dpo", f"{PAPER}, abstract: gains over DPO; the metric is ours"),
    )

    class Config(DPOConfig):
        mu: float = Field(
            default=0.9, ge=0, le=1, description="share of the winner's descent kept [code: 0.9 SD 1.5, 0.6 SDXL]"
        )
        criterion: str = Field(default="overall", description="whose labels order the pairs [ours]")

    config: Config

    def stages(self) -> Sequence[Stage]:
        return (Stage("sdpo", "pairs", self.config.criterion),)

    def at_start(self, stage: Stage) -> Mapping[str, float]:
        return {"loss": math.log(2)}

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        assert isinstance(batch, PairBatch)
        both = batch.stacked()
        x_t, target = both.noised(backbone)
        form, beta = self.config.resolved(backbone)
        weight = form_weight(form, both.t, backbone)
        prediction = policy(x_t, both.t, both.condition)
        winner, loser = (weight * error(prediction, target)).chunk(2)
        reference_winner, reference_loser = (weight * error(reference(x_t, both.t, both.condition), target)).chunk(2)

        residual = weight.sqrt().view(-1, 1, 1, 1, 1) * (prediction.float() - target.float())
        winner_residual, loser_residual = residual.chunk(2)
        scale = loser_scale(winner_residual, loser_residual, self.config.mu)
        scaled_loser = loser.detach() + scale * (loser - loser.detach())  # the value as it was, λ times the gradient
        loss, inside = dpo_loss(winner, scaled_loser, reference_winner, reference_loser, beta)
        return LossOutput(loss, {
            "implicit_accuracy": half_ties(inside),
            "winner_gap": winner - reference_winner,
            "loser_gap": loser - reference_loser,
            "loser_scale": scale.expand(len(batch)),
        })
