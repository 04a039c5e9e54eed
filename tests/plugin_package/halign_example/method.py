"""A method of a third party: named by its entry point, and it need not use the decorator."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from halign_bench.batch import error
from halign_bench.method import AlignmentMethod, Config, LossOutput, Stage


class ExampleSFT(AlignmentMethod):
    """Denoising loss on winners, times a number."""

    name = "example-sft"
    paper = "none: an example"
    summary = "denoising loss on winners, times a number"

    class Config(Config):
        scale: float = Field(default=1.0, gt=0, description="of the loss [ours]")

    config: Config

    def stages(self) -> Sequence[Stage]:
        return (Stage("example-sft", "winners"),)

    def loss(self, stage, policy, reference, batch, backbone) -> LossOutput:
        x_t, target = batch.noised(backbone)
        return LossOutput(self.config.scale * error(policy(x_t, batch.t, batch.condition), target))
