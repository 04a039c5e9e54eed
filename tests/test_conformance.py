"""The suite itself: our plug-ins pass it, and each break of a contract is noticed by the check that is for it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import Field
from tiny import TinyBackbone, TinyTrack

from halign_bench import registry
from halign_bench.batch import ClipBatch, StepBatch, Trajectory, error
from halign_bench.conformance import check_class, check_plugin
from halign_bench.errors import RequestError
from halign_bench.method import AlignmentMethod, Claim, Config, LossOutput, Rollout, Segment, Stage
from halign_bench.metric import PerClipMetric, Scored


def failed(kind: registry.Kind, cls: type) -> set[str]:
    return {check.name for check in check_class(kind, cls) if check.status == "failed"}


# By origin: other test files register plug-ins of their own in this process.
OURS = [(kind, e.name) for kind in registry.KINDS for e in registry.entries(kind) if e.origin == "halign-bench"]


@pytest.mark.parametrize(("kind", "name"), OURS, ids=[name for _, name in OURS])
def test_our_plugins_conform(kind, name):
    if getattr(registry.get(kind, name), "needs_model", False):  # test_published_backbones has some
        with pytest.raises(RequestError, match="say which with --model"):
            check_plugin(kind, name)
        return
    checks = check_plugin(kind, name)
    assert [check for check in checks if check.status == "failed"] == []
    assert sum(check.status == "passed" for check in checks) >= 6


def test_the_tiny_backbone_and_track_of_these_tests_conform():
    assert failed("backbone", TinyBackbone) == set()
    assert failed("track", TinyTrack) == set()


class GoodMethod(AlignmentMethod):
    """Denoising loss."""

    name = "good"
    paper = "none: for a test"
    summary = "denoising loss"

    def stages(self) -> Sequence[Stage]:
        return (Stage("good", "winners"),)

    def loss(self, stage, policy, reference, batch, backbone) -> LossOutput:
        assert isinstance(batch, ClipBatch)
        x_t, target = batch.noised(backbone)
        return LossOutput(self.measure(policy(x_t, batch.t, batch.condition), target, reference, batch))

    def measure(self, made, target, reference, batch):
        return error(made, target)


def test_a_good_method_passes():
    assert failed("method", GoodMethod) == set()


def test_every_form_of_a_claim_and_a_loss_known_at_the_start_conform():
    nothing = lambda self, made, target, reference, batch: error(made, target) * 0 + 2  # noqa: E731
    claims = (
        Claim(("hkc", "fid/nfe30"), "base/nfe100", "figure 3", times=0.95),
        Claim("sync_c", ("diffusion-dpo[beta=2]", "diffusion-dpo[beta=1]"), "table 2", of="sft+diffusion-dpo"),
    )
    stated = {"claims": claims, "at_start": lambda self, stage: {"loss": 2.0}, "measure": nothing}
    assert failed("method", broken_method(**stated)) == {"only the adapter of the stage gets gradients"}


def broken_method(**attributes) -> type:
    return type("BrokenMethod", (GoodMethod,), {"__doc__": "Broken on purpose.", **attributes})


class NoSource(Config):
    beta: float = Field(default=1.0, description="how strong")


class Required(Config):
    beta: float = Field(description="no default [ours]")


def in_place(self, made, target, reference, batch):
    batch.x0.mul_(0.5)
    return error(made, target)


def random_loss(self, made, target, reference, batch):
    return error(made, target) * float(np.random.default_rng().uniform(1, 2))


def changes_the_base(self, stage, policy, reference, batch, backbone):
    for layer in backbone.denoiser.modules():
        if isinstance(getattr(layer, "weight", None), object) and hasattr(layer, "in_features"):
            layer.weight.data.mul_(1.01)
    return GoodMethod.loss(self, stage, policy, reference, batch, backbone)


@pytest.mark.parametrize(
    ("attributes", "check"),
    [
        ({"__doc__": None}, "says what it is"),
        ({"summary": ""}, "says what it is"),
        ({"paper": " "}, "names its paper"),
        ({"Config": NoSource}, "every number has a source"),
        ({"Config": Required}, "config has defaults and is strict"),
        ({"stages": lambda self: (Stage("good", "winners", interval=(0.5, 0.5)),)}, "stages are sound"),
        ({"stages": lambda self: (Stage("good", "winners", share=0.5),)}, "stages are sound"),
        ({"stages": lambda self: (Stage("good", "gossip"),)}, "stages are sound"),
        ({"active_adapters": lambda self, t: ()}, "samples with the adapters that it trains"),
        ({"active_adapters": lambda self, t: ("good", "other")}, "samples with the adapters that it trains"),
        ({"segments": lambda self: (Segment(0.5, 0.5), Segment(0.2, 0.5))}, "divides the sampling path soundly"),
        ({"segments": lambda self: (Segment(0.5, 0.5), Segment(0.0, 0.6))}, "divides the sampling path soundly"),
        ({"segments": lambda self: (Segment(0.0, 0.5), Segment(0.5, 0.5))}, "divides the sampling path soundly"),
        ({"claims": (Claim("hkc", "nobody", "figure 3"),)}, "claims can be tested"),
        ({"claims": (Claim("hkc", "nobody[t=1]", "figure 3"),)}, "claims can be tested"),
        ({"claims": (Claim("hkc", ("base", "sft[dat=clips]"), "figure 3"),)}, "claims can be tested"),
        ({"claims": (Claim("hkc", "base", "figure 3", of="sft+nobody"),)}, "claims can be tested"),
        ({"claims": (Claim("h k c", "base", "figure 3"),)}, "claims can be tested"),
        ({"at_start": lambda self, stage: {"loss": 0.5}}, "loss at the start is what it states"),
        ({"at_start": lambda self, stage: {"ratio": 1.0}}, "loss at the start is what it states"),
        ({"measure": lambda self, made, target, reference, batch: (made - target).pow(2).mean()},
         "loss is one finite number a sample"),
        ({"measure": lambda self, made, target, reference, batch: error(made, target) * float("nan")},
         "loss is one finite number a sample"),
        ({"measure": lambda self, made, target, reference, batch: error(made.detach(), target)},
         "only the adapter of the stage gets gradients"),
        ({"measure": in_place}, "loss is deterministic and leaves its batch alone"),
        ({"measure": random_loss}, "loss is deterministic and leaves its batch alone"),
        ({"separable": True, "measure": lambda self, made, target, reference, batch: error(made, target) - error(
            made, target).mean()}, "a separable loss is the same in parts"),
        ({"measure": lambda self, made, target, reference, batch: error(made, target, batch.hand_mask + 1)},
         "works or says why not without a skeleton"),
        ({"loss": changes_the_base}, "leaves the model as it was"),
    ],
)  # fmt: skip
def test_each_break_of_a_methods_contract_is_noticed(attributes, check):
    assert check in failed("method", broken_method(**attributes))


class GoodOnline(AlignmentMethod):
    """Imitates the better half of its own samples, from one step down."""

    name = "good-online"
    paper = "none: for a test"
    summary = "imitation of its own better samples"
    levels = (1.0, 0.5, 0.0)

    def stages(self) -> Sequence[Stage]:
        return (Stage("good-online", "online", rollout=Rollout(prompts=1, group=4, steps=1)),)

    def rollout(self, stage, policy, noise, condition, backbone) -> Trajectory:
        way = [noise(0)]
        for now, after in itertools.pairwise(self.levels):
            way.append(way[-1] + (after - now) * policy(way[-1], way[-1].new_full((len(way[-1]),), now), condition))
        return Trajectory(torch.stack(way, 1), torch.tensor(self.levels), torch.zeros(len(way[0]), 1))

    def loss(self, stage, policy, reference, batch, backbone) -> LossOutput:
        assert isinstance(batch, StepBatch)
        x_t, target = batch.noised(backbone)
        return LossOutput(error(policy(x_t, batch.t, batch.condition), target) * (batch.rewards.sum((1, 2)) + 9))


def test_a_good_online_method_passes():
    assert failed("method", GoodOnline) == set()


def starts_elsewhere(self, stage, policy, noise, condition, backbone):
    return GoodOnline.rollout(self, stage, policy, lambda k: noise(k) + 1, condition, backbone)


def random_samples(self, stage, policy, noise, condition, backbone):
    way = GoodOnline.rollout(self, stage, policy, noise, condition, backbone)
    way.x[:, 1:] += float(np.random.default_rng().uniform())
    return way


def a_step_too_few(self, stage, policy, noise, condition, backbone):
    way = GoodOnline.rollout(self, stage, policy, noise, condition, backbone)
    return replace(way, log_prob=way.log_prob[:, :0])


def no_probability(self, stage, policy, noise, condition, backbone):
    way = GoodOnline.rollout(self, stage, policy, noise, condition, backbone)
    return replace(way, log_prob=way.log_prob - float("inf"))


def staged(**changes):
    return lambda self: (replace(GoodOnline.stages(self)[0], **changes),)


@pytest.mark.parametrize(
    ("attributes", "check"),
    [
        ({"stages": staged(rollout=None)}, "stages are sound"),
        ({"stages": staged(interval=(0.5, 1.0))}, "stages are sound"),
        ({"stages": staged(rollout=Rollout(prompts=1, group=1, steps=1))}, "stages are sound"),
        ({"stages": staged(data="clips")}, "stages are sound"),
        ({"levels": (1.0, 0.5, 0.1)}, "rollouts lead from noise to samples"),
        ({"levels": (1.0, 1.0, 0.0)}, "rollouts lead from noise to samples"),
        ({"rollout": starts_elsewhere}, "rollouts lead from noise to samples"),
        ({"rollout": random_samples}, "rollouts lead from noise to samples"),
        ({"rollout": a_step_too_few}, "rollouts lead from noise to samples"),
        ({"rollout": no_probability}, "rollouts lead from noise to samples"),
        ({"rollout": AlignmentMethod.rollout}, "rollouts lead from noise to samples"),
    ],
)  # fmt: skip
def test_each_break_of_an_online_methods_contract_is_noticed(attributes, check):
    assert check in failed("method", type("BrokenOnline", (GoodOnline,), {"__doc__": "Broken.", **attributes}))


class GoodMetric(PerClipMetric):
    """Distance of mean brightness."""

    name = "good_metric"
    unit = "grey levels"
    higher_is_better = False
    bounds = (0, None)
    summary = "distance of mean brightness"
    recipe = "absolute difference of means"

    def measure(self, scored: Scored) -> float:
        return float(abs(scored.clip.video.astype(float) - scored.target.video).mean())


def test_a_good_metric_passes():
    assert failed("metric", GoodMetric) == set()


class OrderDependent(GoodMetric):
    """The last clip alone."""

    def compute(self, indices=None):
        chosen = self.values if indices is None else [self.values[i] for i in indices]
        return next((value for value in reversed(chosen) if isinstance(value, float)), None)


class ZeroForNothing(GoodMetric):
    """0.0 where nothing was scored."""

    def compute(self, indices=None):
        value = super().compute(indices)
        return 0.0 if value is None else value


class CountsFailuresAsZero(GoodMetric):
    """A clip that cannot be scored pulls the mean down."""

    def update(self, scored):
        super().update(scored)
        self.values[-1] = self.values[-1] if isinstance(self.values[-1], float) else 0.0


class Remembers(GoodMetric):
    """`reset` forgets to forget."""

    def reset(self):
        if not hasattr(self, "values"):
            super().reset()


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (type("WrongWay", (GoodMetric,), {"__doc__": "Wrong.", "higher_is_better": True}),
         "prefers clips that equal their targets"),
        (type("OutOfBounds", (GoodMetric,), {"__doc__": "Wrong.", "bounds": (0, 1e-9)}), "stays within its bounds"),
        (type("NoRecipe", (GoodMetric,), {"__doc__": "Wrong.", "recipe": ""}), "states direction unit and recipe"),
        (type("OddNeeds", (GoodMetric,), {"__doc__": "Wrong.", "needs": frozenset({"sound"})}),
         "states direction unit and recipe"),
        (OrderDependent, "does not depend on the order of clips"),
        (ZeroForNothing, "gives none for nothing"),
        (ZeroForNothing, "counts what cannot be scored and gives none"),
        (CountsFailuresAsZero, "leaves unscorable clips out of the score"),
        (Remembers, "reset forgets everything"),
    ],
)  # fmt: skip
def test_each_break_of_a_metrics_contract_is_noticed(cls, check):
    assert check in failed("metric", cls)


class Restless(TinyTrack):
    """Depends on what was asked before."""

    asked = 0

    def clip(self, split, index):
        self.asked += 1
        clip = super().clip(split, index)
        return replace(clip, reference=np.full_like(clip.reference, self.asked))


class Leaky(TinyTrack):
    """Evaluates on its prompts."""

    def clip(self, split, index):
        return replace(super().clip("prompts", index), id=f"{split}/{index}")


class Loud(TinyTrack):
    """Audio as 64-bit floats beyond 1."""

    def clip(self, split, index):
        clip = super().clip(split, index)
        return replace(clip, audio=clip.audio.astype(np.float64) * 3)


class Processed(TinyTrack):
    """Differs from process to process, as whatever comes from `hash` of a text or an `id` does."""

    def clip(self, split, index):
        return replace(super().clip(split, index), identity=f"{split}-person-{os.getpid()}")


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (Restless, "the same bytes again and in any order"), (Leaky, "splits are disjoint"),
        (Loud, "clips have the stated form"),
    ],
)  # fmt: skip
def test_each_break_of_a_tracks_contract_is_noticed(cls, check):
    assert check in failed("track", cls)


def test_a_track_that_differs_between_processes_is_noticed(monkeypatch):
    monkeypatch.setattr(Processed, "__module__", "test_conformance")  # as the other process will import it
    monkeypatch.syspath_prepend(str(__import__("pathlib").Path(__file__).parent))
    assert "the same bytes in another process" in failed("track", Processed)


class Dropout(TinyBackbone):
    """Still in training mode."""

    def predict(self, x_t, t, condition):
        import torch

        return super().predict(x_t, t, condition) + 0.1 * torch.randn_like(x_t)


class BatchNormed(TinyBackbone):
    """A sample depends on its neighbours."""

    def predict(self, x_t, t, condition):
        made = super().predict(x_t, t, condition)
        return made - made.mean(dim=0, keepdim=True)


class Deaf(TinyBackbone):
    """Ignores what it is told."""

    def predict(self, x_t, t, condition):
        return super().predict(x_t, t, {name: tensor * 0 for name, tensor in condition.items()})


class Trainable(TinyBackbone):
    """The base itself can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.denoiser.requires_grad_(True)


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (Dropout, "predicts like its input"), (BatchNormed, "treats each sample by itself"),
        (Deaf, "listens to its condition and to t"), (Trainable, "loads its base"),
        (type("NoLayers", (TinyBackbone,), {"__doc__": "Names no layer.", "lora_targets": ("nowhere",)}),
         "adapters train and switched off leave the reference"),
    ],
)  # fmt: skip
def test_each_break_of_a_backbones_contract_is_noticed(cls, check):
    assert check in failed("backbone", cls)
