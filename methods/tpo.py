"""TPO (AlignHuman, arXiv 2506.11144): timestep-segment preference optimisation with two expert adapters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from halign_bench.batch import ClipBatch, PairBatch
from halign_bench.method import AlignmentMethod, Claim, LossOutput, Segment, Stage
from halign_bench.registry import register

from .diffusion_dpo import DPOConfig, dpo

if TYPE_CHECKING:
    from halign_bench.backbone import Backbone, Denoiser

ROUNDING = 1e-9  # a sampler's t may miss t_mid by an ulp
PAPER = "arXiv 2506.11144"


@register
class TPO(AlignmentMethod):
    """Motion is settled at high noise, fidelity at low noise; so each gets an expert of its own [paper].

    Pairs are labelled per criterion, so that one pair of videos may prefer A for motion and B for fidelity
    [paper]. The **motion** expert is a LoRA trained on motion pairs with t in [t_mid, 1] alone, the
    **fidelity** expert one trained on fidelity pairs with t in [0, t_mid] alone. When sampling, each is
    on in its own interval and nowhere else [paper]; the network evaluation at t = t_mid, from which the
    sampler steps down into [0, t_mid], is the fidelity expert's [ours]. Half of the training budget
    each [ours].

    Not public, and so not the paper's: the loss within an interval, which is Diffusion-DPO with t uniform
    on the interval [infer]; t_mid, β, rank and learning rate; how 100 network evaluations become 30.

    `experts` gives the baselines that make the claim testable. They spend the same budget on the same clips:

    - `two`      as above
    - `swapped`  the fidelity pairs train at high noise, the motion pairs at low noise
    - `pooled`   one LoRA for all t, pairs ordered by the mean of the criteria: Diffusion-DPO
    - `both`     one LoRA for all t, on the union of motion pairs and fidelity pairs

    t_mid = 0 leaves the motion expert alone, t_mid = 1 the fidelity expert.
    """

    name = "tpo"
    paper = f"AlignHuman: Improving Motion and Fidelity via Timestep-Segment Preference Optimization ({PAPER})"
    summary = "DPO with two expert LoRAs: motion at high noise, fidelity at low noise"
    separable = True
    claims: tuple[Claim, ...] = (
        Claim("motion_gap", "base", f"{PAPER}, abstract: motion naturalness improves; the metric is ours"),
        Claim("hkc", "base", f"{PAPER}, abstract: fidelity improves; the metric is ours"),
        Claim(
            ("motion_gap", "hkc"), "diffusion-dpo", f"{PAPER}: two experts against one for both; the metrics are ours"
        ),
        Claim(
            tuple(f"{metric}/nfe30" for metric in ("fid", "motion_gap", "hkc", "sync_c")), "base/nfe100",
            f"{PAPER}, abstract: from 100 NFE to 30 with minimal loss; metrics and 5 % ours", times=0.95,
        ),
        Claim("seconds_per_second/nfe30", "base/nfe100", f"{PAPER}, abstract: 3.3 times; 3.2 ours", times=3.2),
    )  # fmt: skip

    class Config(DPOConfig):
        experts: Literal["two", "swapped", "pooled", "both"] = Field(
            default="two", description="two of them [paper], or one of the baselines [ours]"
        )
        t_mid: float = Field(
            default=0.5, ge=0, le=1, description="noise level at which the experts change [ours: not public]"
        )
        motion_nfe_share: float | None = Field(
            default=None, ge=0, lt=1,
            description="of the network evaluations, for t in [t_mid, 1]; 0 is a single step, which skips the "
            "interval; None is even steps over all t [ours: not public]",
        )  # fmt: skip
        motion_guidance: float | None = Field(
            default=None, ge=1, description="CFG for t in [t_mid, 1], 1 is off; None is the protocol's [ours]"
        )
        fidelity_guidance: float | None = Field(
            default=None, ge=1, description="CFG for t in [0, t_mid], 1 is off; None is the protocol's [ours]"
        )

        @model_validator(mode="after")
        def intervals_of_their_own(self) -> TPO.Config:
            if self.divides_sampling and not 0 < self.t_mid < 1:
                raise ValueError("NFE and CFG per interval need two intervals: a t_mid between 0 and 1")
            return self

        @property
        def divides_sampling(self) -> bool:
            return (self.motion_nfe_share, self.motion_guidance, self.fidelity_guidance) != (None, None, None)

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        if self.config.experts != "two":
            self.claims = ()  # the paper makes none for its baselines

    def stages(self) -> Sequence[Stage]:
        if self.config.experts == "pooled":
            return (Stage("tpo", "pairs", "overall"),)
        if self.config.experts == "both":
            return (Stage("tpo", "pairs", "motion+fidelity"),)
        high, low = ("motion", "fidelity") if self.config.experts == "two" else ("fidelity", "motion")
        t_mid = self.config.t_mid
        at_high, at_low = Stage(f"tpo-{high}", "pairs", high), Stage(f"tpo-{low}", "pairs", low)
        if t_mid in (0, 1):
            return (at_high,) if t_mid == 0 else (at_low,)
        return (
            Stage(at_high.adapter, "pairs", high, interval=(t_mid, 1.0), share=0.5),
            Stage(at_low.adapter, "pairs", low, interval=(0.0, t_mid), share=0.5),
        )

    def active_adapters(self, t: float) -> Sequence[str]:
        stages = self.stages()
        stage = stages[0] if t > self.config.t_mid + ROUNDING else stages[-1]  # the same one where there is only one
        return (stage.adapter,)

    def segments(self) -> Sequence[Segment]:
        config = self.config
        if not config.divides_sampling:
            return ()
        share = 1 - config.t_mid if config.motion_nfe_share is None else config.motion_nfe_share
        return (
            Segment(config.t_mid, share, config.motion_guidance),
            Segment(0.0, 1 - share, config.fidelity_guidance),
        )

    def at_start(self, stage: Stage) -> Mapping[str, float]:
        return {"loss": math.log(2)}

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        """-log σ(-β/2 · ((m_θ^w - m_θ^l) - (m_ref^w - m_ref^l))) on the pairs and the noise levels of `stage`."""
        assert isinstance(batch, PairBatch)
        return dpo(self.config, policy, reference, batch, backbone)
