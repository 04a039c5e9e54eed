"""Diffusion-DPO (arXiv 2311.12908): direct preference optimisation of a diffusion or flow model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from halign_bench.batch import ClipBatch, PairBatch, error, form_weight, half_ties
from halign_bench.method import AlignmentMethod, Claim, LossOutput, Stage
from halign_bench.registry import register

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Denoiser


def dpo_loss(
    policy_winner_error: torch.Tensor,
    policy_loser_error: torch.Tensor,
    reference_winner_error: torch.Tensor,
    reference_loser_error: torch.Tensor,
    beta: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss `[B]`, inside `[B]`) of B pairs from four errors `[B]`:

    inside = -β/2 · ((m_θ^w - m_θ^l) - (m_ref^w - m_ref^l)),  loss = -log σ(inside)

    The log-sigmoid is taken for each pair, before any mean. `inside > 0` where the policy prefers the
    winner more than the reference does: the implicit accuracy. log 2 when policy and reference agree.
    """
    from torch.nn.functional import logsigmoid

    errors = (policy_winner_error, policy_loser_error, reference_winner_error, reference_loser_error)
    if any(e.shape != errors[0].shape or e.ndim != 1 for e in errors):
        raise ValueError(f"four errors of shape [B] expected, got {[tuple(e.shape) for e in errors]}")
    winner_gap = policy_winner_error - reference_winner_error
    loser_gap = policy_loser_error - reference_loser_error
    inside = -0.5 * beta * (winner_gap - loser_gap)
    return -logsigmoid(inside), inside


class DPOConfig(AlignmentMethod.Config):
    """β means something only together with three more choices, so they stand here and in every record:
    m is the **mean** over all non-batch axes (fp32), the factor **½ is outside β**, and `form` names
    the space in which m is measured:

    - `flow`: error of the velocity, β constant over t. As in flow_grpo's `train_sd3_dpo.py`, but with t
      uniform (the protocol's) where that code draws it logit-normal.
    - `epsilon`: error of the noise, as in the paper's code. A flow backbone's velocity error times
      (1-t)², a v backbone's times α(t)²; an epsilon backbone's own error. It takes weight away from high
      noise, where motion is settled.
    """

    form: Literal["flow", "epsilon"] | None = Field(
        default=None,
        description="space of the error [code: flow_grpo | code: DiffusionDPO train.py]; None is flow for a flow, "
        "epsilon for any other backbone",
    )
    beta: float | None = Field(
        default=None, gt=0,
        description="None is 1000 for flow [ours, tuned on puppet; 100 in code: flow_grpo], 5000 for epsilon "
        "[code: DiffusionDPO train.py]; all with mean reduction and the factor 1/2 outside",
    )  # fmt: skip
    reduction: Literal["mean"] = Field(default="mean", description="over all non-batch axes [code: both]")
    half: Literal["outside beta"] = Field(default="outside beta", description="where the 1/2 is [code: both]")

    def resolved(self, backbone: Backbone) -> tuple[Literal["flow", "epsilon"], float]:
        """(form, β) on this backbone."""
        form = self.form or ("flow" if backbone.parameterisation == "flow" else "epsilon")
        return form, self.beta or (1000.0 if form == "flow" else 5000.0)


def dpo(config: DPOConfig, policy: Denoiser, reference: Denoiser, batch: PairBatch, backbone: Backbone) -> LossOutput:
    """Diffusion-DPO on pairs whose winner and loser share t and noise; `[B]` each."""
    both = batch.stacked()
    x_t, target = both.noised(backbone)
    form, beta = config.resolved(backbone)
    weight = form_weight(form, both.t, backbone)
    winner, loser = (weight * error(policy(x_t, both.t, both.condition), target)).chunk(2)
    reference_winner, reference_loser = (weight * error(reference(x_t, both.t, both.condition), target)).chunk(2)
    loss, inside = dpo_loss(winner, loser, reference_winner, reference_loser, beta)
    return LossOutput(loss, {
        "implicit_accuracy": half_ties(inside),
        "winner_gap": winner - reference_winner,
        "loser_gap": loser - reference_loser,
    })


@register
class DiffusionDPO(AlignmentMethod):
    """Each pair shares t and noise; the reference is the base, that is the same weights with adapters off."""

    name = "diffusion-dpo"
    paper = "Diffusion Model Alignment Using Direct Preference Optimization (arXiv 2311.12908)"
    summary = "DPO on pairs of the base's samples; flow or epsilon form"
    separable = True
    claims = (Claim("implicit_accuracy@overall", "base", "arXiv 2311.12908: what its objective asks for"),)

    class Config(DPOConfig):
        criterion: str = Field(default="overall", description="whose labels order the pairs [ours]")

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        first = type(self).claims[0]
        self.claims = (replace(first, metric=f"implicit_accuracy@{self.config.criterion}"),)

    def stages(self) -> Sequence[Stage]:
        return (Stage("diffusion-dpo", "pairs", self.config.criterion),)

    def at_start(self, stage: Stage) -> Mapping[str, float]:
        return {"loss": math.log(2)}

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        assert isinstance(batch, PairBatch)
        return dpo(self.config, policy, reference, batch, backbone)
