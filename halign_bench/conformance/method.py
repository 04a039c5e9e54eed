"""The contract of an alignment method, on a toy model and on every stage."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import get_args

import torch
from pydantic import BaseModel, ValidationError

from halign_bench.adapters import active_adapters, attach, remove_adapters
from halign_bench.backbone import Condition, Parameterisation
from halign_bench.batch import ClipBatch, PairBatch, StepBatch, Trajectory
from halign_bench.claims import named, split_nfe
from halign_bench.conformance import Broken, Skipped, require
from halign_bench.conformance.samples import FRAMES, LATENT, ToyBackbone
from halign_bench.errors import HalignError
from halign_bench.method import AlignmentMethod, DataKind, LossOutput, Stage
from halign_bench.online import check_trajectory, steps_of
from halign_bench.plan import variant_named
from halign_bench.record import parse_key
from halign_bench.sampling import path

BATCH = 3
SOURCE = re.compile(r"\b(paper|code|ours|note|infer)\b", re.IGNORECASE)


class Subject:
    def __init__(self, cls: type[AlignmentMethod]) -> None:
        self.cls = cls

    @cached_property
    def method(self) -> AlignmentMethod:
        return self.cls()

    def cases(self) -> Iterator[tuple[str, Trial]]:
        """Each trained stage in each parameterisation that the method takes."""
        stages = [stage for stage in self.method.stages() if stage.data != "none"]
        if not stages:
            raise Skipped("it trains nothing")
        tried = refused = 0
        for parameterisation in get_args(Parameterisation):
            for stage in stages:
                tried += 1
                try:
                    trial = Trial(self.method, stage, parameterisation)
                    trial.loss()
                except HalignError:  # it says in a sentence that it does not take this parameterisation
                    refused += 1
                    continue
                yield f"stage {stage.adapter}, {parameterisation}", trial
        require(refused < tried, "it refuses every parameterisation: flow, epsilon and v")


class Trial:
    """One stage of a method on the toy model, with every adapter a little (`moved`) away from zero."""

    def __init__(
        self, method: AlignmentMethod, stage: Stage, parameterisation: Parameterisation, moved: float = 0.05
    ) -> None:
        self.method, self.stage = method, stage
        self.backbone = ToyBackbone(parameterisation)
        self.batch = make_batch(stage, self.backbone)
        clips = self.batch.winner if isinstance(self.batch, PairBatch) else self.batch
        trained = {each.adapter: each for each in method.stages()}
        self.adapters = {
            name: attach(self.backbone, each, clips.condition, rank=2, alpha=2, seed=place)
            for place, (name, each) in enumerate(trained.items())
        }
        generator = torch.Generator().manual_seed(3)
        for parameters in self.adapters.values():
            for parameter in parameters:
                parameter.data += moved * torch.randn(parameter.shape, generator=generator)
                parameter.requires_grad_(False)
        for parameter in self.adapters[stage.adapter]:
            parameter.requires_grad_(True)
        if stage.data == "online":
            self.batch = self.steps(self.batch)

    def policy(self, x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        with active_adapters(self.backbone.denoiser, list(self.adapters)):
            return self.backbone.denoise(x_t, t, condition)

    def reference(self, x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        with torch.no_grad(), active_adapters(self.backbone.denoiser, []):
            return self.backbone.denoise(x_t, t, condition)

    def rollout(self) -> Trajectory:
        """A group of samples for one prompt."""
        if self.stage.rollout is None:
            raise Broken(f"stage {self.stage.adapter} learns online and has no `rollout`")
        group = self.stage.rollout.group
        assert isinstance(self.batch, ClipBatch)
        condition = {name: torch.cat([value[:1]] * group) for name, value in self.batch.condition.items()}
        with torch.no_grad():
            way = self.method.rollout(self.stage, self.policy, lambda k: noise(group, k), condition, self.backbone)
        try:
            check_trajectory(self.method, self.stage, way, (group, *LATENT))
        except HalignError as problem:
            raise Broken(str(problem)) from problem
        return way

    def steps(self, clips: ClipBatch | PairBatch) -> StepBatch:
        """Steps of the policy's own samples, as an online stage learns from them, with made-up rewards."""
        way, spec = self.rollout(), self.stage.rollout
        assert isinstance(clips, ClipBatch) and spec is not None
        rewards = torch.randn(1, spec.group, 2, generator=torch.Generator().manual_seed(6))
        chosen = [(place % spec.group, place % spec.steps) for place in range(BATCH)]
        condition = {name: torch.cat([value[:1]] * BATCH) for name, value in clips.condition.items()}
        return steps_of(way, rewards, chosen, condition, clips.hand_mask, clips.ids, "cpu")

    def loss(self, batch: ClipBatch | PairBatch | None = None) -> LossOutput:
        """With torch's own generator in a known state: a method may draw from it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return self.method.loss(
                self.stage, self.policy, self.reference, self.batch if batch is None else batch, self.backbone
            )


def noise(count: int, k: int) -> torch.Tensor:
    return torch.randn(count, *LATENT, generator=torch.Generator().manual_seed(100 + k))


def make_batch(stage: Stage, backbone: ToyBackbone) -> ClipBatch | PairBatch:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    low, high = stage.interval
    channels, _, height, width = LATENT
    clips = ClipBatch(
        x0=draw(BATCH, *LATENT), noise=draw(BATCH, *LATENT),
        t=low + (high - low) * torch.linspace(0.1, 0.9, BATCH),
        condition={
            "reference": draw(BATCH, channels, 1, height, width), "skeleton": draw(BATCH, *LATENT),
            "skeleton_frames": draw(BATCH, FRAMES, channels, height, width), "audio": draw(BATCH, FRAMES, 6),
        },
        hand_mask=torch.rand(BATCH, 1, *LATENT[1:], generator=generator),
        ids=[f"sample/{index}" for index in range(BATCH)],
    )  # fmt: skip
    if stage.data in ("winners", "candidates"):
        clips = replace(clips, reward=torch.linspace(-1.0, 1.5, BATCH))
    if stage.data != "pairs":
        return clips
    return PairBatch(clips, replace(clips, x0=draw(BATCH, *LATENT)), margin=torch.linspace(0.5, 1.5, BATCH))


def without_hand_mask(batch: ClipBatch | PairBatch) -> ClipBatch | PairBatch:
    if isinstance(batch, ClipBatch):
        return replace(batch, hand_mask=None)
    winner, loser = (replace(clips, hand_mask=None) for clips in (batch.winner, batch.loser))
    return replace(batch, winner=winner, loser=loser)


def tensors(batch: ClipBatch | PairBatch) -> list[torch.Tensor]:
    if isinstance(batch, PairBatch):
        return [*tensors(batch.winner), *tensors(batch.loser), batch.margin]
    values = (*vars(batch).values(), *batch.condition.values())
    return [value for value in values if isinstance(value, torch.Tensor)]


def names_its_paper(subject: Subject) -> str:
    require(bool(subject.cls.paper.strip()), '`paper` is empty; say "none: …" where there is none')
    return subject.cls.paper


def every_number_has_a_source(subject: Subject) -> str:
    fields = subject.cls.Config.model_fields
    for key, field in fields.items():
        require(bool(field.description), f"Config.{key} has no description")
        require(bool(SOURCE.search(field.description or "")), f"Config.{key} does not say: paper, code or ours")
    return ", ".join(fields)


def config_has_defaults_and_is_strict(subject: Subject) -> None:
    config = subject.cls.Config
    require(issubclass(config, BaseModel), "Config is no pydantic model")
    given = config()
    again = config.model_validate_json(given.model_dump_json())
    require(again == given, "Config does not survive JSON: it could not be written into a record")
    try:
        config.model_validate({"no_such_number": 1})
    except ValidationError:
        return
    require(False, "Config takes a key that it does not have: derive it from halign_bench.method.Config")


def stages_are_sound(subject: Subject) -> str:
    stages = list(subject.method.stages())
    for stage in stages:
        low, high = stage.interval
        require(stage.data in get_args(DataKind), f"stage {stage.adapter}: data {stage.data!r}")
        require(0 <= low < high <= 1, f"stage {stage.adapter}: interval {stage.interval} is not within [0, 1]")
        require(bool(re.fullmatch(r"[a-z0-9_-]+", stage.adapter)), f"{stage.adapter!r} does not name an adapter")
        require(stage.share > 0, f"stage {stage.adapter}: share {stage.share}")
        online = stage.data == "online"
        require(online == (stage.rollout is not None), f"stage {stage.adapter}: `rollout` is for online stages alone")
        if stage.rollout is not None:
            require((low, high) == (0, 1), f"stage {stage.adapter}: its samples pass all t, not {stage.interval} alone")
            numbers = (stage.rollout.prompts, stage.rollout.group - 1, stage.rollout.steps)
            require(min(numbers) > 0, f"stage {stage.adapter}: {stage.rollout} compares no two samples of a prompt")
    total = sum(stage.share for stage in stages)
    require(not stages or abs(total - 1) < 1e-6, f"the stages' shares of the budget sum to {total}, not 1")
    return f"{len(stages)} of them" if stages else "none: it trains nothing"


def samples_with_the_adapters_that_it_trains(subject: Subject) -> None:
    trained = {stage.adapter for stage in subject.method.stages()}
    used: set[str] = set()
    for step in range(101):
        active = set(subject.method.active_adapters(step / 100))
        require(active <= trained, f"at t = {step / 100} it wants {sorted(active - trained)}, which no stage trains")
        used |= active
    require(used == trained, f"{sorted(trained - used)} trains and is never active when sampling")


def divides_the_sampling_path_soundly(subject: Subject) -> str:
    segments = list(subject.method.segments())
    if not segments:
        return "evenly, as the protocol does"
    ends = [segment.end for segment in segments]
    downwards = all(a > b for a, b in itertools.pairwise([1.0, *ends]))
    require(downwards, f"its segments end at {ends}: not downwards from 1")
    require(ends[-1] == 0, f"its last segment ends at t = {ends[-1]}, not at 0")
    total = sum(segment.share for segment in segments)
    require(all(segment.share >= 0 for segment in segments) and abs(total - 1) < 1e-6, f"its shares sum to {total}")
    spent = sum(step.cost for step in path(40, 1.0, segments))
    require(spent == 40, f"40 network evaluations are asked for and it spends {spent}")
    return f"{len(segments)} segments"


def claims_can_be_tested(subject: Subject) -> str:
    for claim in subject.method.claims:
        require(bool(claim.metric and claim.source), "a claim needs a metric and the place in the paper that makes it")
        require(bool(named(claim.better_than)), f"claim on {claim.metric}: it does not say better than what")
        try:
            for metric in named(claim.metric):
                parse_key(metric)
            for text in (*named(claim.better_than), *([claim.of] if claim.of else [])):
                variant_named(split_nfe(text)[0])
        except HalignError as problem:
            require(False, f"claim on {claim.metric}: {problem}")
    return f"{len(subject.method.claims)} of them"


def rollouts_lead_from_noise_to_samples(subject: Subject) -> str:
    if all(stage.data != "online" for stage in subject.method.stages()):
        raise Skipped("no stage of it learns online")
    done = []
    for label, trial in subject.cases():
        if trial.stage.data != "online":
            continue
        way, again = trial.rollout(), trial.rollout()
        require(torch.equal(way.x[:, 0], noise(len(way.x), 0)), f"{label}: its samples do not start at noise(0)")
        downwards = bool((way.t[1:] < way.t[:-1]).all()) and (float(way.t[0]), float(way.t[-1])) == (1, 0)
        require(downwards, f"{label}: its noise levels {way.t.tolist()} do not go down from 1 to 0")
        finite = bool(way.x.isfinite().all()) and bool(way.log_prob.isfinite().all())
        require(finite, f"{label}: a sample or a log-probability is not finite")
        same = torch.equal(way.x, again.x) and torch.equal(way.log_prob, again.log_prob)
        require(same, f"{label}: the same noise gives one trajectory, then another")
        done.append(label)
    return "; ".join(done)


def loss_is_one_finite_number_a_sample(subject: Subject) -> str:
    done = []
    for label, trial in subject.cases():
        output = trial.loss()
        for name, values in {"per_sample": output.per_sample, **output.logs}.items():
            require(tuple(values.shape) == (BATCH,), f"{label}: {name} has shape {tuple(values.shape)}, not [B]")
            require(bool(values.isfinite().all()), f"{label}: {name} is not finite")
        done.append(label)
    return "; ".join(done)


def loss_at_the_start_is_what_it_states(subject: Subject) -> str:
    stated: list[str] = []
    for label, trial in subject.cases():
        values = subject.method.at_start(trial.stage)
        output = Trial(subject.method, trial.stage, trial.backbone.parameterisation, moved=0.0).loss()
        for name, expected in values.items():
            require(name == "loss" or name in output.logs, f"{label}: it states {name} at the start and logs none")
            found = output.per_sample if name == "loss" else output.logs[name]
            close = torch.allclose(found.float(), torch.full_like(found.float(), expected), rtol=1e-4, atol=1e-4)
            require(close, f"{label}: {name} is {found.tolist()} where policy and reference agree, not {expected:g}")
            stated.append(f"{name} {expected:g}")
    return ", ".join(dict.fromkeys(stated)) or "it states none"


def only_the_adapter_of_the_stage_gets_gradients(subject: Subject) -> None:
    for label, trial in subject.cases():
        trial.loss().per_sample.mean().backward()
        for name, parameters in trial.adapters.items():
            grads = [parameter.grad for parameter in parameters]
            if name == trial.stage.adapter:
                reached = all(g is not None and bool(g.isfinite().all()) and bool(g.any()) for g in grads)
                require(reached, f"{label}: its adapter gets no gradient, or one that is not finite")
            else:
                require(all(g is None for g in grads), f"{label}: adapter {name} gets gradients too")
        own = {id(p) for parameters in trial.adapters.values() for p in parameters}
        base = [p for p in trial.backbone.denoiser.parameters() if id(p) not in own]
        require(all(p.grad is None for p in base), f"{label}: the base gets gradients")


def loss_is_deterministic_and_leaves_its_batch_alone(subject: Subject) -> None:
    for label, trial in subject.cases():
        before = [tensor.clone() for tensor in tensors(trial.batch)]
        first, second = trial.loss().per_sample, trial.loss().per_sample
        require(torch.equal(first, second), f"{label}: the same batch gives {first.tolist()}, then {second.tolist()}")
        same = all(torch.equal(a, b) for a, b in zip(before, tensors(trial.batch), strict=True))
        require(same, f"{label}: the loss changes its batch in place")


def a_separable_loss_is_the_same_in_parts(subject: Subject) -> str:
    if not subject.cls.separable:
        raise Skipped("it does not say that a sample's loss is the same in any batch")
    done = []
    for label, trial in subject.cases():
        whole = trial.loss().per_sample
        apart = torch.cat([trial.loss(trial.batch[row : row + 1]).per_sample for row in range(BATCH)])
        close = torch.allclose(whole, apart, rtol=1e-3, atol=1e-4)
        require(close, f"{label}: it is {whole.tolist()} of a batch and {apart.tolist()} of its samples one by one")
        done.append(label)
    return "; ".join(done)


def works_or_says_why_not_without_a_skeleton(subject: Subject) -> str:
    words = "works"
    for label, trial in subject.cases():
        try:
            finite = bool(trial.loss(without_hand_mask(trial.batch)).per_sample.isfinite().all())
        except HalignError as refusal:
            words = f"refuses: {refusal}"
            continue
        require(finite, f"{label}: without a hand mask the loss is not finite")
    return words


def leaves_the_model_as_it_was(subject: Subject) -> None:
    for label, trial in subject.cases():
        x_t, t = torch.ones(1, *LATENT), torch.full((1,), 0.5)
        clips = trial.batch.winner if isinstance(trial.batch, PairBatch) else trial.batch
        condition = {key: value[:1] for key, value in clips.condition.items()}
        untouched = ToyBackbone(trial.backbone.parameterisation).predict(x_t, t, condition)
        trial.loss().per_sample.mean().backward()
        remove_adapters(trial.backbone.denoiser)
        require(torch.equal(trial.backbone.predict(x_t, t, condition), untouched), f"{label}: it changes the base")


CHECKS = (
    names_its_paper, every_number_has_a_source, config_has_defaults_and_is_strict, stages_are_sound,
    samples_with_the_adapters_that_it_trains, divides_the_sampling_path_soundly, claims_can_be_tested,
    rollouts_lead_from_noise_to_samples, loss_is_one_finite_number_a_sample, loss_at_the_start_is_what_it_states,
    only_the_adapter_of_the_stage_gets_gradients, loss_is_deterministic_and_leaves_its_batch_alone,
    a_separable_loss_is_the_same_in_parts,
    works_or_says_why_not_without_a_skeleton, leaves_the_model_as_it_was,
)  # fmt: skip
