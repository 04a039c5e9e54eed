"""The contract of an alignment method: its paper, its numbers, its data, its stages, its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Denoiser
    from halign_bench.batch import ClipBatch, PairBatch

DataKind = Literal["none", "pairs", "winners", "candidates", "clips"]
"""pairs: best against worst of a prompt; winners: the best alone; candidates: every scored sample of the
base with its score as a reward; clips: the prompts' real clips."""


class Config(BaseModel):
    """A method's numbers. Every field's description ends with its source: paper, code, or ours."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Stage:
    """One stretch of training.

    adapter    name of the LoRA that trains; everything else is frozen
    data       what it learns from
    criterion  "motion", "fidelity" or "overall": whose labels are used; for pairs also several joined by "+",
               which is the union of their pairs
    interval   (low, high) of t it trains on, within [0, 1]; t = 1 is pure noise
    share      of the method's training budget
    limit      winners only: the best so many by score; None is all. Fewer than asked for is a RequestError
    """

    adapter: str
    data: DataKind
    criterion: str = "overall"
    interval: tuple[float, float] = (0.0, 1.0)
    share: float = 1.0
    limit: int | None = None


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
    """`per_sample` is `[B]`; `logs` are `[B]` tensors whose means are logged."""

    per_sample: torch.Tensor
    logs: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """What the paper says should happen, as data: `metric` of this method is better than that of `than`."""

    metric: str
    better_than: str
    source: str
    margin: float = 0.0


def row(name: str, changed: Mapping[str, object]) -> str:
    """What a method with these numbers, all else at its defaults, is called in a table: "ipa[beta=200,winners=32]"."""

    def plain(value: object) -> str:
        return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)

    settings = ",".join(f"{key}={plain(changed[key])}" for key in sorted(changed))
    return f"{name}[{settings}]" if settings else name


class AlignmentMethod:
    """One file a method. The loss and what it trains on are here; everything else is the harness's."""

    kind: ClassVar[str] = "method"
    name: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str] = ""
    claims: ClassVar[tuple[Claim, ...]] = ()

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

    def segments(self) -> Sequence[Segment]:
        """How sampling spends the protocol's NFE. Empty: even steps, the protocol's guidance throughout."""
        return ()

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        """Per-sample loss `[B]` of one batch. `reference` is the base and never carries gradients."""
        raise NotImplementedError
