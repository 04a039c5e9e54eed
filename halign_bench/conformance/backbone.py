"""The contract of a backbone, on the checkpoint that it loads by itself, or on one that is named."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from typing import get_args

import numpy as np
import torch

from halign_bench.adapters import active_adapters, attach_lora, remove_adapters
from halign_bench.backbone import Backbone, Condition, Parameterisation
from halign_bench.conformance import Skipped, require
from halign_bench.conformance.samples import sample_clip
from halign_bench.errors import RequestError
from halign_bench.inserts import Addition, Additions, Insert, attach_insert
from halign_bench.model_choice import ModelChoice
from halign_bench.track import Clip

BATCH = 2


class Subject:
    def __init__(self, cls: type[Backbone], choice: ModelChoice | None = None) -> None:
        """Raises RequestError for a choice of a person's that cannot be loaded: that is no fault of the class."""
        self.cls, self.choice = cls, choice or ModelChoice()
        if choice is not None or cls.needs_model:
            try:
                self.backbone  # noqa: B018  # it is kept
            except RequestError:
                raise
            except Exception:  # the first check says so
                pass

    @cached_property
    def backbone(self) -> Backbone:
        return self.choice.load(self.cls, "cpu")

    @cached_property
    def clips(self) -> list[Clip]:
        return [sample_clip(index, self.backbone.frames, self.backbone.size) for index in range(BATCH)]

    @cached_property
    def videos(self) -> np.ndarray:
        return np.stack([clip.video for clip in self.clips])

    @cached_property
    def condition(self) -> Condition:
        return self.backbone.condition(self.clips)

    @cached_property
    def noise(self) -> torch.Tensor:
        noise = torch.randn(BATCH, *self.backbone.latent_shape(), generator=torch.Generator().manual_seed(0))
        return noise.to(self.backbone.device)

    @cached_property
    def t(self) -> torch.Tensor:
        return torch.linspace(0.3, 0.8, BATCH, device=self.backbone.device)

    def predict(self) -> torch.Tensor:
        with torch.no_grad():
            return self.backbone.predict(self.noise, self.t, self.condition)


def loads_its_base(subject: Subject) -> str:
    backbone = subject.backbone
    require(backbone.parameterisation in get_args(Parameterisation), f"parameterisation {backbone.parameterisation!r}")
    require(backbone.frames % 4 == 1, f"{backbone.frames} frames are not 1 + 4n")
    require(bool(re.fullmatch(r"[0-9a-f]{64}", backbone.base_sha256)), "`base_sha256` is not a sha256 in hex")
    frozen = not any(parameter.requires_grad for parameter in backbone.denoiser.parameters())
    require(frozen, "parameters of the base require gradients: freeze them in `load`")
    height, width = backbone.size
    return f"{backbone.frames} frames of {height}x{width}, {backbone.parameterisation}"


def encodes_to_its_latent_shape(subject: Subject) -> str:
    shape = subject.backbone.latent_shape()
    latents = subject.backbone.encode(subject.videos)
    require(tuple(latents.shape) == (BATCH, *shape), f"latents are {tuple(latents.shape)}, not {(BATCH, *shape)}")
    frames, own = subject.backbone.frames, shape[1] - subject.backbone.slots
    require(own in (1 + (frames - 1) // 4, frames), f"{own} latent frames are neither 1 + (T - 1)/4 nor T = {frames}")
    require(latents.dtype == torch.float32 and not latents.requires_grad, "latents must be float32 without gradients")
    require(bool(latents.isfinite().all()), "latents are not finite")
    require(torch.equal(latents, subject.backbone.encode(subject.videos)), "encoding twice differs")
    return f"{tuple(shape)}, standard deviation {float(latents.std()):.2f}"


def decodes_to_video(subject: Subject) -> str:
    made = subject.backbone.decode(subject.backbone.encode(subject.videos))
    require(isinstance(made, np.ndarray) and made.dtype == np.uint8, "decoded videos must be uint8 numpy arrays")
    require(made.shape == subject.videos.shape, f"decoded shape {made.shape}, given {subject.videos.shape}")
    first, second = ((made[0].astype(float) - video) for video in subject.videos)
    require(
        float((first**2).mean()) < float((second**2).mean()),
        "a decoded clip is no nearer to itself than to another one",
    )
    return f"error {float(np.sqrt((first**2).mean())):.1f} grey levels after encoding"


def conditions_put_the_batch_first(subject: Subject) -> str:
    condition = subject.condition
    for name, tensor in condition.items():
        require(isinstance(tensor, torch.Tensor) and len(tensor) == BATCH, f"condition '{name}' is not batch first")
    empty = subject.backbone.unconditional(condition)
    shapes = {name: tuple(tensor.shape) for name, tensor in condition.items()}
    require({name: tuple(t.shape) for name, t in empty.items()} == shapes, "`unconditional` changes names or shapes")
    return ", ".join(condition)


def takes_clips_without_audio_or_skeleton(subject: Subject) -> None:
    bare = [replace(clip, audio=None, skeleton=None, layout=None) for clip in subject.clips]
    condition = subject.backbone.condition(bare)
    shapes = {name: tuple(tensor.shape) for name, tensor in subject.condition.items()}
    found = {name: tuple(tensor.shape) for name, tensor in condition.items()}
    require(found == shapes, f"conditions are {found} where clips lack audio and skeleton, {shapes} otherwise")
    with torch.no_grad():
        made = subject.backbone.predict(subject.noise, subject.t, condition)
    require(bool(made.isfinite().all()), "the prediction is not finite without audio and skeleton")


def predicts_like_its_input(subject: Subject) -> None:
    made = subject.predict()
    require(made.shape == subject.noise.shape, f"prediction {tuple(made.shape)} for {tuple(subject.noise.shape)}")
    require(bool(made.isfinite().all()), "the prediction is not finite")
    require(torch.equal(made, subject.predict()), "predicting twice differs: is dropout on?")


def listens_to_its_condition_and_to_t(subject: Subject) -> None:
    made = subject.predict()
    with torch.no_grad():
        swapped = {name: tensor.flip(0) for name, tensor in subject.condition.items()}
        require(
            not torch.equal(made, subject.backbone.predict(subject.noise, subject.t, swapped)),
            "another condition gives the same prediction",
        )
        require(
            not torch.equal(made, subject.backbone.predict(subject.noise, subject.t.flip(0), subject.condition)),
            "another t gives the same prediction",
        )


def treats_each_sample_by_itself(subject: Subject) -> None:
    made = subject.predict()
    for index in range(BATCH):
        one = slice(index, index + 1)
        with torch.no_grad():
            condition = {name: tensor[one] for name, tensor in subject.condition.items()}
            alone = subject.backbone.predict(subject.noise[one], subject.t[one], condition)
        gap = float((alone - made[one]).abs().max())
        require(gap < 1e-3, f"a sample's prediction changes by {gap:.2g} with the batch it is in")


def adapters_train_and_switched_off_leave_the_reference(subject: Subject) -> str:
    backbone = subject.backbone
    before = subject.predict()
    parameters = attach_lora(backbone.denoiser, "conformance", backbone.lora_targets, rank=2, alpha=2, seed=0)
    try:
        require(
            torch.equal(before, subject.predict()), "attaching an adapter that is not active changes the prediction"
        )
        with active_adapters(backbone.denoiser, ["conformance"]):
            backbone.predict(subject.noise, subject.t, subject.condition).pow(2).mean().backward()
        require(any(p.grad is not None and bool(p.grad.any()) for p in parameters), "no gradient reaches the adapter")
        own = {id(parameter) for parameter in parameters}
        reached = [name for name, p in backbone.denoiser.named_parameters() if p.grad is not None and id(p) not in own]
        require(not reached, f"the base gets gradients too: {', '.join(reached[:3])}")
        for parameter in parameters:
            parameter.data += 0.1
        with active_adapters(backbone.denoiser, ["conformance"]):
            require(not torch.equal(before, subject.predict()), "an active adapter changes nothing")
        require(
            torch.equal(before, subject.predict()), "with adapters off the prediction is not the base's, bit for bit"
        )
    finally:
        remove_adapters(backbone.denoiser, ["conformance"])
    return f"{sum(parameter.numel() for parameter in parameters):,} parameters at rank 2"


def blocks_can_be_added_to(subject: Subject) -> str:
    backbone = subject.backbone
    blocks = backbone.blocks()
    if not blocks:
        raise Skipped("it states no blocks, so methods that add a module to them refuse it")
    before, reached = subject.predict(), set[tuple[str, int]]()

    def addition(place: str, scale: torch.nn.Module) -> Addition:
        def add(number: int, tokens: torch.Tensor) -> torch.Tensor:
            block, (_, frames, height, width) = blocks[number], backbone.latent_shape()
            frames -= backbone.slots
            count = (height // block.stride) * (width // block.stride)
            wanted = (BATCH, frames, count, block.width)
            found = tuple(tokens.shape)
            require(found == wanted, f"block {number} has tokens {found}; its width and stride say {wanted}")
            reached.add((place, number))
            return tokens.flip(-1) * scale.weight

        return add

    def add(scale: torch.nn.Module, _: object, condition: Condition) -> Additions:
        return Additions(addition("stream", scale), addition("feed-forward", scale))

    insert = Insert(lambda *_: torch.nn.Linear(1, 1, bias=False), add)
    (scale,) = attach_insert(backbone.denoiser, "conformance", insert, blocks, subject.condition, seed=0)

    def predicted(by: float) -> torch.Tensor:
        with torch.no_grad(), active_adapters(backbone.denoiser, ["conformance"]):
            scale.fill_(by)
            return backbone.denoise(subject.noise, subject.t, subject.condition)

    try:
        require(torch.equal(before, predicted(0.0)), "adding nothing to its blocks changes the prediction")
        require(len(reached) == 2 * len(blocks), f"only {len(reached)} of 2·{len(blocks)} places are passed through")
        require(not torch.equal(before, predicted(0.5)), "what is added to its blocks changes nothing")
    finally:
        remove_adapters(backbone.denoiser, ["conformance"])
    require(torch.equal(before, subject.predict()), "without the module the prediction is not the base's, bit for bit")
    return f"{len(blocks)} of them"


def noising_is_consistent_with_its_parameterisation(subject: Subject) -> None:
    backbone, x0, noise = subject.backbone, subject.noise.flip(0), subject.noise
    ends = torch.tensor([0.0, 1.0], device=x0.device)
    noised = backbone.add_noise(x0, noise, ends)
    off = [float((noised[row] - pure[row]).square().mean().sqrt()) for row, pure in enumerate((x0, noise))]
    require(off[0] < 0.15, "t = 0 is not (nearly) the clean latent")
    require(off[1] < 0.15, "t = 1 is not (nearly) pure noise")
    require(backbone.target(x0, noise, subject.t).shape == x0.shape, "the target is not shaped like the latents")


CHECKS = (
    loads_its_base, encodes_to_its_latent_shape, decodes_to_video, conditions_put_the_batch_first,
    takes_clips_without_audio_or_skeleton, predicts_like_its_input, listens_to_its_condition_and_to_t,
    treats_each_sample_by_itself, adapters_train_and_switched_off_leave_the_reference,
    blocks_can_be_added_to, noising_is_consistent_with_its_parameterisation,
)  # fmt: skip
