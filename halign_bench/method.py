"""The contract of an alignment method: its paper, its numbers, its data, its stages, its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Condition, Denoiser
    from halign_bench.batch import ClipBatch, PairBatch, Trajectory
    from halign_bench.inserts import Insert

DataKind = Literal["none", "pairs", "winners", "candidates", "clips", "online"]
"""pairs: best against worst of a prompt; winners: the best alone; candidates: every scored sample of the
base with its score as a reward; clips: the prompts' real clips; online: steps of the policy's own fresh samples,
scored by the track's annotator as they come."""


class Config(BaseModel):
    """A method's numbers. Every field's description ends with its source: paper, code, or ours."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Rollout:
    """How much an online stage samples before it goes on learning.

    prompts     training prompts of one rollout
    group       samples of each
    steps       of each sample that are learnt from: the K of `Trajectory.log_prob`
    updates     optimiser steps that one rollout serves; None is as many as it has steps for, each used once
    same_start  whether samples of the same prompt begin as the same noise
    """

    prompts: int
    group: int
    steps: int
    updates: int | None = None
    same_start: bool = False


@dataclass(frozen=True)
class Stage:
    """One stretch of training.

    adapter    name of the adapter that trains; everything else is frozen
    data       what it learns from
    criterion  "motion", "fidelity" or "overall": whose labels are used; for pairs also several joined by "+",
               which is the union of their pairs; online those of all of them, and "overall" is every one there is
    interval   (low, high) of t it trains on, within [0, 1]; t = 1 is pure noise
    share      of the method's training budget
    lr         learning rate; None is the profile's, made for a LoRA
    limit      winners only: the best so many by score; None is all. Fewer than asked for is a RequestError
    insert     what the adapter is: a module of the method's own; None is a LoRA
    rollout    online only, and needed there: how it samples. Its samples pass all t, so the interval is (0, 1)
    """

    adapter: str
    data: DataKind
    criterion: str = "overall"
    interval: tuple[float, float] = (0.0, 1.0)
    share: float = 1.0
    lr: float | None = None
    limit: int | None = None
    insert: Insert | None = None
    rollout: Rollout | None = None


@dataclass(frozen=True)
class Segment:
    """One stretch of the sampling path, from where the one before ended (t = 1 for the first) down to `end`.

    end       noise level in [0, 1); 0 for the last segment
    share     of the network evaluations, all segments together 1; a share of 0 is a single step
    guidance  classifier-free guidance within it, 1 is off; None is the protocol's
    """

    end: float
    share: float
    guidance: float | None = None


@dataclass(frozen=True)
class LossOutput:
    """`per_sample` is `[B]`; `logs` are `[B]` tensors whose means are logged.

    Two names in `logs` are watched for signs of trouble: `winner_gap`, the winner's error less the
    reference's, and `implicit_accuracy`, the share of pairs whose winner the policy prefers.
    """

    per_sample: torch.Tensor
    logs: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """What the paper says should happen, as data: `metric` of this method is better than that of another row.

    metric       a score as tables name it, "sync_c", "hkc/nfe30" at an NFE, or several that must all hold
    better_than  a method, a variant, either at an NFE: "base", "ipa[hand_weight=1]", "base/nfe100"; or several,
                 best first, for an order: this method is better than the first, which is better than the second.
                 A variant of this method shares all other numbers with the row that claims; in a pipeline the
                 other stands on top of the same, so that for b in "a+b" base means a
    source       where in the paper
    margin       by how much at least, in the metric's unit; below 0 it says non-inferior: not worse by more
    times        instead of a margin: at least this many times as good, 0.95 for "not worse by more than 5 %"; for
                 seconds_per_second a speed-up. The ratio is taken so that above 1 is better; scores must be > 0
    of           the row it is about where that is not the method itself: "tmm+diffusion-dpo"; the names in
                 `better_than` are then taken as they stand
    """

    metric: str | tuple[str, ...]
    better_than: str | tuple[str, ...]
    source: str
    margin: float = 0.0
    times: float | None = None
    of: str = ""

    def __post_init__(self) -> None:
        if self.times is not None and (self.margin or self.times <= 0):
            raise ValueError(f"claim on {self.metric}: give a margin or times (above 0), not both")


def row(name: str, changed: Mapping[str, object]) -> str:
    """What a method with these numbers, all else at its defaults, is called in a table: "ipa[beta=200,winners=32]"."""

    def plain(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)

    settings = ",".join(f"{key}={plain(changed[key])}" for key in sorted(changed))
    return f"{name}[{settings}]" if settings else name


class AlignmentMethod:
    """One file a method. The loss and what it trains on are here; everything else is the harness's."""

    kind: ClassVar[str] = "method"
    name: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str] = ""
    claims: tuple[Claim, ...] = ()  # of the class, or of one configuration
    shares_noise: ClassVar[bool] = True  # winner and loser of a pair reach the policy with the same noise and t
    separable: ClassVar[bool] = False  # a sample's loss is the same in any batch, so that batches may come in parts

    class Config(Config):
        pass

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else self.Config()

    def stages(self) -> Sequence[Stage]:
        """What trains, on what, in which order. Empty: the base as it is."""
        return ()

    def active_adapters(self, t: float) -> Sequence[str]:
        """Adapters that are on when sampling at noise level t. Default: all that were trained."""
        return tuple(dict.fromkeys(stage.adapter for stage in self.stages()))

    def at_start(self, stage: Stage) -> Mapping[str, float]:
        """Values of "loss", or of a log, that every sample has while policy and reference agree; checked at step 0."""
        return {}

    def segments(self) -> Sequence[Segment]:
        """How sampling spends the protocol's NFE. Empty: even steps, the protocol's guidance throughout."""
        return ()

    def rollout(
        self, stage: Stage, policy: Denoiser, noise: Callable[[int], torch.Tensor], condition: Condition,
        backbone: Backbone,
    ) -> Trajectory:
        """Online stages: samples from the policy, without gradients, and keeps of the way what the loss needs.

        noise(k) is standard normal `[B, C, T, H, W]`, the k-th that these samples use; noise(0) is where they start.
        """
        raise NotImplementedError

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        """Per-sample loss `[B]` of one batch, a `StepBatch` where the stage is online.

        `reference` is the base and never carries gradients.
        """
        raise NotImplementedError
