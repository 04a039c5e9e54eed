"""IPA (arXiv 2605.07545): implicit preference alignment, with hand-aware local optimisation (HALO)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from halign_bench.batch import ClipBatch, PairBatch, error, form_weight
from halign_bench.method import AlignmentMethod, Claim, LossOutput, Stage, row
from halign_bench.registry import register

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Denoiser

PAPER = "arXiv 2605.07545"


def ipa_loss(
    policy_error: torch.Tensor, reference_error: torch.Tensor, weight: torch.Tensor, beta: float
) -> torch.Tensor:
    """-log σ(β/2 · weight · (m_ref - m_θ)), `[B]` from three `[B]`; log 2 when policy and reference agree."""
    from torch.nn.functional import logsigmoid

    tensors = (policy_error, reference_error, weight)
    if any(x.shape != weight.shape or x.ndim != 1 for x in tensors):
        raise ValueError(f"errors and weight of shape [B] expected, got {[tuple(x.shape) for x in tensors]}")
    return -logsigmoid(0.5 * beta * weight * (reference_error - policy_error))


def halo_weight(hand_mask: torch.Tensor, hand_weight: float) -> torch.Tensor:
    """What HALO multiplies squared errors by, like the mask `[B, 1, T, H, W]`: 1 + (hand_weight - 1)·mask.

    1 in the first latent frame, which is the reference's slot.
    """
    weight = 1 + (hand_weight - 1) * hand_mask.clamp(0, 1)
    weight[:, :, 0] = 1
    return weight


@register
class IPA(AlignmentMethod):
    """Learns from winners alone, no pairs: L = -log σ((β/2)·(1-t)²·(m_ref - m_θ)) [paper, code].

    The loss falls while the policy denoises good samples better than the reference does, ever more slowly:
    what holds the policy near the base is this saturation, there is no other KL or SFT term [code]. The
    reference is a frozen copy [code], here the same weights with adapters off.

    m is the squared error of the velocity, **mean** over all non-batch axes in fp32 [code]. (1-t)² makes it
    the error of the noise; so on a backbone that predicts the noise the weight is 1, and α(t)² on a v backbone.

    `form=flow` leaves that weight out [ours]: where hands are settled at high noise, as `analyze timesteps` shows
    they are on the embedded track, (1-t)² trains where nothing is left to decide.

    HALO multiplies squared errors by 1 + (hand_weight - 1)·mask before that mean, for policy and reference
    alike, except in the first latent frame [code]. The paper's text writes 1 + λM with λ = 10, which is 11
    on hands [note]; the code gives 10, and so does this. hand_weight = 1 is IPA without HALO, and so is a
    track without skeletons.

    Winners: of each prompt the candidate with the best score; with `winners` only the so many that are
    furthest ahead of the mean of their prompt. The paper chose 93 by hand from four
    candidates for each of its prompts [note].
    """

    name = "ipa"
    paper = f"Implicit Preference Alignment for Human Image Animation ({PAPER})"
    summary = "pair-free alignment to the base's own best samples, hands weighted (HALO)"
    separable = True
    claims: tuple[Claim, ...] = (
        Claim("hkc", "base", f"{PAPER}, abstract: hand quality improves; the metric is ours"),
        Claim("hkc", "sft", "ours: on the same winners"),
        Claim("hkc", "diffusion-dpo", "ours: on the pairs from the same candidates"),
        Claim("hkc", "ipa[hand_weight=1]", f"{PAPER}: HALO against IPA alone; the metric is ours"),
        Claim(
            ("fid", "fvd", "sync_c", "csim"), "ipa[hand_weight=1]",
            f"{PAPER}: HALO lets nothing else get worse; metrics and 5 % ours", times=0.95,
        ),
    )  # fmt: skip

    class Config(AlignmentMethod.Config):
        beta: float = Field(default=600.0, gt=0, description="with mean reduction and the 1/2 outside [code]")
        hand_weight: float = Field(default=10.0, gt=0, description="of squared errors on hands; 1 is off [code]")
        form: Literal["flow", "epsilon"] = Field(
            default="epsilon", description="space of the error: of the noise, hence the weight (1-t)² [paper, code], "
            "or of a flow's velocity, all t alike [ours]",
        )  # fmt: skip
        reduction: Literal["mean"] = Field(default="mean", description="over all non-batch axes [code]")
        half: Literal["outside beta"] = Field(default="outside beta", description="where the 1/2 is [code]")
        criterion: str = Field(default="overall", description="whose scores choose winners [ours]")
        winners: int | None = Field(
            default=None, ge=1, description="only the so many best by score; None is all [ours; 93 in the paper: note]"
        )

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        config = self.config
        changed = config.model_dump(exclude_defaults=True)
        criterion: dict[str, object] = {} if config.criterion == "overall" else {"criterion": config.criterion}
        limit: dict[str, object] = {} if config.winners is None else {"winners": config.winners}
        others = {  # the rows that learn from the same labels as this one
            "sft": row("sft", criterion | limit), "diffusion-dpo": row("diffusion-dpo", criterion),
            "ipa[hand_weight=1]": row("ipa", {**changed, "hand_weight": 1}),
        }  # fmt: skip
        self.claims = tuple(
            replace(claim, better_than=others.get(claim.better_than, claim.better_than))
            for claim in type(self).claims
            if config.hand_weight != 1 or not claim.better_than.startswith("ipa")
        )

    def stages(self) -> Sequence[Stage]:
        return (Stage("ipa", "winners", self.config.criterion, limit=self.config.winners),)

    def at_start(self, stage: Stage) -> Mapping[str, float]:
        return {"loss": math.log(2)}

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        assert isinstance(batch, ClipBatch)
        x_t, target = batch.noised(backbone)
        halo = None if batch.hand_mask is None else halo_weight(batch.hand_mask, self.config.hand_weight)
        policy_error = error(policy(x_t, batch.t, batch.condition), target, halo)
        reference_error = error(reference(x_t, batch.t, batch.condition), target, halo)
        weight = form_weight(self.config.form, batch.t, backbone)  # (1-t)² for the noise of a flow
        loss = ipa_loss(policy_error, reference_error, weight, self.config.beta)
        return LossOutput(loss, {"winner_gap": policy_error - reference_error})
