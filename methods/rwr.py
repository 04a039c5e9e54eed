"""Flow-RWR (VideoAlign, arXiv 2501.13918): reward-weighted regression on the base's own samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from halign_bench.batch import ClipBatch, PairBatch, error
from halign_bench.method import AlignmentMethod, Claim, LossOutput, Stage
from halign_bench.registry import register

if TYPE_CHECKING:
    from halign_bench.backbone import Backbone, Denoiser

PAPER = "arXiv 2501.13918"


@register
class RWR(AlignmentMethod):
    """L = exp(r/τ)·m_θ: the denoising loss on every sample of the base, weighted by its reward, no reference.

    [note] for the loss, which is written without τ there; no code of it is public. The reward r is the
    annotator's score in standard deviations from the mean of its prompt [ours]. m is the squared error of the
    backbone's own prediction, **mean** over all non-batch axes, as in SFT. The smaller τ, the fewer samples
    count; for τ → ∞ good and bad are imitated alike.
    """

    name = "rwr"
    paper = f"Improving Video Generation with Human Feedback ({PAPER}): Flow-RWR"
    summary = "denoising loss on all samples of the base, weighted by exp(reward)"
    separable = True
    claims = (
        Claim("hkc", "base", "ours: what its objective asks for"),
        Claim("motion_gap", "base", "ours: what its objective asks for"),
    )

    class Config(AlignmentMethod.Config):
        temperature: float = Field(default=1.0, gt=0, description="τ, in standard deviations of the reward [ours]")
        criterion: str = Field(default="overall", description="whose scores are the reward [ours]")

    config: Config

    def stages(self) -> Sequence[Stage]:
        return (Stage("rwr", "candidates", self.config.criterion),)

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        assert isinstance(batch, ClipBatch) and batch.reward is not None
        x_t, target = batch.noised(backbone)
        denoising = error(policy(x_t, batch.t, batch.condition), target)
        weight = (batch.reward / self.config.temperature).exp()
        return LossOutput(weight * denoising, {"denoising": denoising, "weight": weight})
