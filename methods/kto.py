"""Diffusion-KTO (arXiv 2404.04465): expected human utility of single liked and disliked samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from halign_bench.batch import ClipBatch, PairBatch, epsilon_weight, error, half_ties
from halign_bench.method import AlignmentMethod, Claim, LossOutput, Stage
from halign_bench.registry import register

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Denoiser

PAPER = "arXiv 2404.04465"


def kto_loss(
    gain: torch.Tensor, liked: torch.Tensor, beta: float, liked_weight: float = 1.0, disliked_weight: float = 1.0
) -> torch.Tensor:
    """λ·(1 - σ(s·β·(g - KL))), `[B]`: s = 1 and λ = liked_weight where liked (bool `[B]`), else -1 and the other.

    gain  g = m_ref - m_θ, `[B]`; KL is its mean over the batch, not below 0 and without gradient

    λ/2 when policy and reference agree.
    """
    import torch

    if gain.shape != liked.shape or gain.ndim != 1:
        raise ValueError(f"gain and labels of shape [B] expected, got {tuple(gain.shape)} and {tuple(liked.shape)}")
    kl = gain.mean().detach().clamp(min=0)
    sign = torch.where(liked, 1.0, -1.0).to(gain)
    weight = torch.where(liked, liked_weight, disliked_weight).to(gain)
    return weight * (1 - torch.sigmoid(sign * beta * (gain - kl)))


@register
class KTO(AlignmentMethod):
    """One sample, one label, no pairs. Facts from the code, jacklishufan/diffusion-kto `train_kto_sd_v1.5.py`.

    g = m_ref - m_θ says how much better the policy denoises a sample than the reference does. A liked sample
    should have g above the batch's average KL, a disliked one below; the sigmoid is the Kahneman-Tversky
    utility (`--halo sigmoid`). m is the squared error of the noise, **mean** over all non-batch axes; there
    is no 1/2 in front of β. A flow backbone's velocity error is weighted by (1-t)² to be one.

    Liked is every candidate that scores above the mean of its prompt [ours; in the code: an image that won
    at least one comparison]. Samples come as they are, about half of them liked [ours], where the code's
    example draws a liked one with probability 0.8.
    """

    name = "kto"
    paper = f"Aligning Diffusion Models by Optimizing Human Utility ({PAPER})"
    summary = "Diffusion-KTO: utility of single liked and disliked samples, no pairs"
    claims = (
        Claim("implicit_accuracy@overall", "base", f"{PAPER}: what its objective asks for"),
        Claim("hkc", "sft", f"{PAPER}, abstract: better than SFT; the metric is ours"),
        Claim("hkc", "diffusion-dpo", f"{PAPER}, abstract: better than Diffusion-DPO; the metric is ours"),
    )

    class Config(AlignmentMethod.Config):
        beta: float = Field(default=1000.0, gt=0, description="on errors of the noise, no 1/2 beside it [code]")
        liked_weight: float = Field(default=1.0, ge=0, description="λ of liked samples [code]")
        disliked_weight: float = Field(default=1.0, ge=0, description="λ of disliked samples [code]")
        reduction: Literal["mean"] = Field(default="mean", description="over all non-batch axes [code]")
        criterion: str = Field(default="overall", description="whose scores are the labels [ours]")

    config: Config

    def stages(self) -> Sequence[Stage]:
        return (Stage("kto", "candidates", self.config.criterion),)

    def at_start(self, stage: Stage) -> Mapping[str, float]:
        return {"gain": 0.0}

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        assert isinstance(batch, ClipBatch) and batch.reward is not None
        config = self.config
        x_t, target = batch.noised(backbone)
        weight = epsilon_weight(batch.t, backbone)
        policy_error = weight * error(policy(x_t, batch.t, batch.condition), target)
        reference_error = weight * error(reference(x_t, batch.t, batch.condition), target)
        gain, liked = reference_error - policy_error, batch.reward > 0
        loss = kto_loss(gain, liked, config.beta, config.liked_weight, config.disliked_weight)
        agrees = half_ties(gain * batch.reward)
        return LossOutput(loss, {"agreement": agrees, "gain": gain})
