"""Parts that give numbers gone wrong, for the command line of run_tiny.py: what goes wrong is in the variable BAD."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from run_tiny import Pixels, ScoredTrack, Trains, denoising_error
from tiny import TinyAnnotator, TinyBackbone

from halign_bench.method import LossOutput, Stage
from halign_bench.registry import register
from halign_bench.track import Clip, Unscorable


def bad() -> str:
    return os.environ.get("BAD", "")


class BadFeatures(Pixels):
    def features(self, clip: Clip) -> Any:
        found = Pixels(per_frame=False).features(clip).repeat(len(clip.video) if self.per_frame else 1, axis=0)
        generated = "real" not in bad() or clip.skeleton is not None  # samples have no skeleton of their own
        if bad() == "nan features" or (bad() == "nan features of one clip" and clip.id.endswith("3")):
            return found * np.nan
        if bad() == "infinite features":
            return found / 0.0
        if bad() == "huge features":
            return found * 1e200
        if bad() == "constant features" or (bad() == "constant real features" and generated):
            return found * 0 + 0.5
        if bad() == "no features":
            return Unscorable("nobody is to be seen")
        return found


class BadSync(Pixels):
    """A voice and a mouth that never change; where they do, one that follows the other."""

    def features(self, clip: Clip) -> Any:
        rng = np.random.default_rng(0)
        voice = rng.normal(size=(40, 8))
        if bad() == "constant sync":
            return {"video": voice[:1].repeat(40, 0), "audio": voice[:1].repeat(40, 0) + 1, "vshift": 3}
        return {"video": voice, "audio": voice * (np.nan if bad() == "nan sync" else 1), "vshift": 3}


class BadAnnotator(TinyAnnotator):
    def __call__(self, video: np.ndarray, target: Clip) -> dict[str, float]:
        found = super().__call__(video, target)
        if bad() == "annotator of nan" or (bad() == "annotator of nan for one prompt" and target.id.endswith("3")):
            return dict.fromkeys(found, float("nan"))
        if bad() == "annotator of infinity":
            return {"motion": float("inf"), "fidelity": float("-inf")}
        if bad() == "annotator without an eye":
            return dict.fromkeys(found, 0.25)
        return found


@register
class BadTrack(ScoredTrack):
    name = "tiny-bad"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if bad() in ("one clip", "two clips of one person"):
            self.counts = {**self.counts, "eval": 1 if bad() == "one clip" else 2}

    def extractors(self, device: str = "cpu") -> Mapping[str, Any]:
        return {"image": BadFeatures(per_frame=True), "video": BadFeatures(per_frame=False), "sync": BadSync(False)}

    def annotator(self) -> TinyAnnotator:
        return BadAnnotator()

    def clip(self, split: str, index: int) -> Clip:
        from dataclasses import replace

        clip = super().clip(split, index)
        if bad() == "nan in real clips' audio" and split == "eval" and clip.audio is not None:
            return replace(clip, audio=clip.audio * np.float32("nan"))
        return clip


@register
class BadBackbone(TinyBackbone):
    """One of each batch of its samples is not finite: of the evaluation clips, or of candidates for preferences."""

    name = "tiny-bad-dit"
    evaluates = False

    def condition(self, clips: Sequence[Clip]) -> Any:
        self.evaluates = any("/eval/" in clip.id for clip in clips)  # and not candidates of training prompts
        return super().condition(clips)

    def predict(self, x_t: Any, t: Any, condition: Any) -> Any:
        import torch

        found = super().predict(x_t, t, condition)
        spoilt = self.evaluates if bad() == "nan samples" else bad() == "nan candidates" and float(t[0]) > 0.95
        if spoilt and not torch.is_grad_enabled():  # at the first step of sampling
            found[0] = float("nan")
        return found


@register
class BadGradients(Trains):
    """A loss that is finite while its gradient is not."""

    name = "bad-gradients"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        found = denoising_error(policy, batch, backbone)
        spoilt = found.clone()
        spoilt.register_hook(lambda gradient: gradient * float("nan"))
        return LossOutput(spoilt)


@register
class BadAfterwards(Trains):
    """Its loss becomes infinite at the third batch."""

    name = "bad-afterwards"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        self.seen = getattr(self, "seen", 0) + 1
        return LossOutput(denoising_error(policy, batch, backbone) * (float("inf") if self.seen > 2 else 1.0))


@register
class BadLogs(Trains):
    """Trains as it should, and logs what is no number."""

    name = "bad-logs"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        found = denoising_error(policy, batch, backbone)
        return LossOutput(found, {"winner_gap": found * float("nan"), "implicit_accuracy": found / 0.0})
