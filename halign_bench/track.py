"""The contract of a track: where clips come from, and who scores and labels them there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np

FPS = 25
SAMPLE_RATE = 16_000
LARGEST = 1e100  # of a score or a feature: what is larger counts as infinite, as its square would soon be


@dataclass(frozen=True)
class SkeletonLayout:
    """Which rows of a skeleton `[T, K, 3]` are what; `edges` are pairs of rows joined by a bone."""

    body: tuple[str, ...]
    left_hand: slice
    right_hand: slice
    edges: tuple[tuple[int, int], ...]

    @property
    def hands(self) -> tuple[slice, slice]:
        return self.left_hand, self.right_hand


@dataclass(frozen=True)
class Clip:
    """One clip with its conditions.

    video      uint8 `[T, H, W, 3]`, RGB, 25 fps, T = 1 + 4n
    reference  uint8 `[H, W, 3]`, one image of the same person
    audio      float32 `[samples]` in [-1, 1], mono 16 kHz, as long as the video; None when absent
    skeleton   float32 `[T, K, 3]`: x, y in pixels of this video and visibility in [0, 1]; None when absent
    defects    names of what is wrong with the clip on purpose (embedded corpus only)
    prompt     what a person would write to get such a clip, for models that read; empty when there is none
    """

    id: str
    identity: str
    video: np.ndarray
    reference: np.ndarray
    audio: np.ndarray | None = None
    skeleton: np.ndarray | None = None
    layout: SkeletonLayout | None = None
    defects: tuple[str, ...] = ()
    prompt: str = ""


@dataclass(frozen=True)
class Unscorable:
    """Why a clip has no score. Never 0.0, never silently dropped."""

    reason: str


class Extractor(Protocol):
    """Turns clips into features, once, for all metrics that share them.

    name      what stands after the `@` in a metric key, e.g. "puppet"
    protocol  net, sha256 of its weights, preprocessing
    """

    name: str
    protocol: str

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list[Any]:
        """Features of each clip (arrays, or a dict of arrays), or `Unscorable`.

        `clips` are what is scored (generated or real); `conditions` are the clips whose audio
        and skeleton they were asked to follow (for a real clip: itself).
        """


class Annotator(Protocol):
    """Labels candidates for preferences. Shares no weights, clips or seeds with the extractors."""

    @property
    def criteria(self) -> tuple[str, ...]: ...

    @property
    def protocol(self) -> str: ...

    def __call__(self, video: np.ndarray, target: Clip) -> dict[str, float]:
        """Score per criterion (higher is better) of a candidate uint8 `[T, H, W, 3]` for a prompt."""


@dataclass(frozen=True)
class Refusal:
    """An input that was left out, and why, in words for a person."""

    source: str
    reason: str


@dataclass(frozen=True)
class Unfit:
    """Why a metric failed a track's degradation tests, and the sha256 of the protocol string that it failed with."""

    reason: str
    protocol_sha256: str


class Track:
    """Yields clips with conditions, by split, deterministically.

    Splits that a run needs: `prompts` (conditions to sample candidates for; their clips are also
    the plain training clips) and `eval` (clean clips to compare with). Others are the track's own.
    """

    kind: ClassVar[str] = "track"
    name: ClassVar[str]
    summary: ClassVar[str] = ""
    needs_data: ClassVar[bool] = False

    def __init__(self, data: Path | None = None, frames: int = 17, size: tuple[int, int] = (64, 64)) -> None:
        self.data = data
        self.frames = frames
        self.size = size

    def splits(self) -> Mapping[str, int]:
        """Number of clips available in each split."""
        raise NotImplementedError

    def clip(self, split: str, index: int) -> Clip:
        """Clip `index` of `split`: the same bytes in any process and any order."""
        raise NotImplementedError

    def refusals(self) -> list[Refusal]:
        """Inputs that were left out."""
        return []

    def extractors(self, device: str = "cpu") -> Mapping[str, Extractor]:
        """Extractors by the feature they give: image, video, sync, hands, identity, perceptual."""
        return {}

    def annotator(self) -> Annotator:
        raise NotImplementedError

    @classmethod
    def unfit(cls) -> Mapping[str, Unfit]:
        """Metrics by name that do not follow damage of known size here (`halign-bench fitness`); tables mark them."""
        return {}

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data of this track in a record (JSON-able)."""
        raise NotImplementedError


__all__ = [
    "FPS", "SAMPLE_RATE", "Annotator", "Clip", "Extractor", "Refusal", "SkeletonLayout", "Track", "Unfit",
    "Unscorable",
]
