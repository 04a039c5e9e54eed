"""Supervised fine-tuning on winners: imitate the base's own best samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from halign_bench.batch import ClipBatch, PairBatch, error
from halign_bench.method import AlignmentMethod, LossOutput, Stage
from halign_bench.registry import register

if TYPE_CHECKING:
    from halign_bench.backbone import Backbone, Denoiser


@register
class SFT(AlignmentMethod):
    """L = m_θ(winner): the backbone's own denoising loss on the preferred samples, no reference in it.

    m is the squared error of the prediction, the mean over all non-batch axes, in fp32.
    """

    name = "sft"
    paper = "none: the standard denoising loss, on winners"
    summary = "denoising loss on the preferred samples of the base"
    separable = True

    class Config(AlignmentMethod.Config):
        data: Literal["winners", "clips"] = Field(
            default="winners", description="the base's preferred samples, or the prompts' real clips [ours]"
        )
        criterion: str = Field(default="overall", description="whose labels choose the winners [ours]")
        winners: int | None = Field(
            default=None, ge=1, description="only the so many best by score; None is all [ours: data efficiency]"
        )

        @model_validator(mode="after")
        def only_winners_are_ranked(self) -> SFT.Config:
            if self.winners is not None and self.data != "winners":
                raise ValueError(f"it chooses among winners and data={self.data} has none; leave one of them out")
            return self

    config: Config

    def stages(self) -> Sequence[Stage]:
        return (Stage("sft", self.config.data, self.config.criterion, limit=self.config.winners),)

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        assert isinstance(batch, ClipBatch)
        x_t, target = batch.noised(backbone)
        return LossOutput(error(policy(x_t, batch.t, batch.condition), target))
