"""Trains a method's adapters on the base, within one budget, so that a kill at any moment loses only time."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from halign_bench.batch import ClipBatch, PairBatch
from halign_bench.checkpoints import Checkpoints, State
from halign_bench.errors import Diverged, HalignError, Interrupted, RequestError, SelfCheckFailed
from halign_bench.gradients import forget_peak, gradients
from halign_bench.implicit import HeldOut, implicit_accuracy
from halign_bench.parts import in_parts
from halign_bench.processes import here
from halign_bench.record import Sign
from halign_bench.sampling import Progress, derived_seed
from halign_bench.selfcheck import SelfCheck
from halign_bench.signs import TrainingSigns

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Condition
    from halign_bench.feeding import Feed
    from halign_bench.method import AlignmentMethod, Stage
    from halign_bench.online import OnlineFeed
    from halign_bench.preferences import PreferenceSet

BLOW_UP = 10.0  # times the target's RMS: no useful prediction is that large

Adapters = Callable[[float], Sequence[str]]


class TrainingSpec(BaseModel):
    """The numbers held equal for every method.

    The budget counts samples that pass the policy with gradients: a pair is two, the reference's own
    pass is free, and samples that an online method draws to learn from are counted beside it. Constant
    learning rate after a linear warm-up, AdamW, gradients clipped by norm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(ge=1, description="budget, over all stages of a method")
    batch_size: int = Field(default=16, ge=1, description="samples in an optimiser step; a pair is two")
    accumulate: int = Field(default=1, ge=1, description="parts that a batch is put through in, at least")
    lr: float = Field(default=1e-4, gt=0)
    warmup: int = Field(default=10, ge=0, description="steps of each stage")
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0, description="norm that gradients are clipped to")
    rank: int = Field(default=16, ge=1, description="of every LoRA")
    alpha: float | None = Field(default=None, gt=0, description="of every LoRA; None is its rank")


class TrainingResult(BaseModel):
    """What came of a training; the record of its cell carries it.

    samples_seen       through the policy with gradients
    samples_sampled    drawn from the policy and scored to learn from (online methods), beside the budget
    sampling_passes    samples through the network, without gradients, for that
    seconds            spent training, over all resumed runs, with what is sampled to learn from and without evaluation
    peak_memory_bytes  CUDA: most allocated; CPU: largest resident size of the process, seen between the
                       forward and the backward pass of each step; of the first one where a launch has several
    heldout            implicit accuracy by criterion after training; empty where there are no held-out pairs
    warnings           signs of trouble, in the order in which they were seen
    """

    model_config = ConfigDict(frozen=True)

    status: Literal["done", "diverged"]
    error: str | None = None
    samples_seen: int = 0
    samples_sampled: int = 0
    sampling_passes: int = 0
    steps: int = 0
    trained_parameters: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int | None = None
    adapters_dir: Path | None = None
    log_path: Path | None = None
    heldout: list[HeldOut] = Field(default_factory=list)
    warnings: list[Sign] = Field(default_factory=list)


def train(
    method: AlignmentMethod,
    backbone: Backbone,
    data: PreferenceSet | None,
    spec: TrainingSpec,
    seed: int,
    workdir: Path,
    progress: Progress | None = None,
    *,
    earlier: Adapters | None = None,
    checkpoint_seconds: float = 30.0,
    warn: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Trains every stage of `method` and leaves its adapters attached to the backbone, none of them active.

    Calling it again with the same `workdir` goes on from the last checkpoint, to the same weights bit for
    bit; once finished it only loads them. A checkpoint of another request is not used. Non-finite loss
    or gradients, or predictions above 10 times the target's RMS, end as status "diverged".

    earlier             noise level -> adapters of methods that this one is trained on top of; they must be
                        attached, stay on, and are frozen. All others are taken off the backbone first
    progress            told (samples, budget) after each step; it may raise to stop here, resumably
    checkpoint_seconds  how much work a kill may cost; no effect on the result. Online stages lose a rollout more:
                        they go on from the start of one, after an interrupt too
    warn                told each sign of trouble, in a sentence, when it is first seen

    The processes of a launch that have met (`halign_bench.processes.join`, before anything is loaded) each put their
    share of every batch through, and all of them have the same adapters; the first one writes.

    Raises RequestError where the data gives nothing to learn from, SelfCheckFailed where the training is
    not what the method means (`halign_bench.selfcheck`), KeyboardInterrupt and Interrupted as they come,
    with a checkpoint left behind.
    """
    return _Training(method, backbone, data, spec, seed, workdir, progress, earlier, checkpoint_seconds, warn).run()


class _Training:
    def __init__(
        self, method: AlignmentMethod, backbone: Backbone, data: PreferenceSet | None, spec: TrainingSpec, seed: int,
        workdir: Path, progress: Progress | None, earlier: Adapters | None, checkpoint_seconds: float,
        warn: Callable[[str], None] | None,
    ) -> None:
        self.method, self.backbone, self.data, self.spec, self.seed = method, backbone, data, spec, seed
        self.asked = spec  # of `spec` a stage changes how many parts its batches come in
        self.progress, self.checkpoint_seconds, self.warn = progress, checkpoint_seconds, warn
        self.signs, self.warnings = TrainingSigns(), list[Sign]()
        self.earlier: Adapters = earlier or (lambda t: ())
        self.stages = list(method.stages())
        if sum(stage.share for stage in self.stages) > 1 + 1e-6:
            raise RequestError(f"{method.name}: the shares of its stages add up to more than the whole budget")
        self.plan = [max(1, round(spec.samples * stage.share / spec.batch_size)) for stage in self.stages]
        self.processes = here()
        self.state = State()
        self.optimizer: Any = None
        self.check: SelfCheck | None = None  # of the stage that trains
        self.feed: Feed | OnlineFeed | None = None  # likewise
        self.whole = True  # False while an optimiser step is half done: no state to keep
        self.workdir, self.adapters_dir = workdir, workdir / "adapters"
        self.files = Checkpoints(workdir, self._fingerprint())

    def _fingerprint(self) -> str:
        kept = {
            "method": self.method.name, "config": self.method.config.model_dump(mode="json"),
            "spec": self.spec.model_dump(mode="json"), "seed": self.seed, "base": self.backbone.base_sha256,
            "backbone": self.backbone.name, "precision": self.backbone.precision,
            "data": self.data.provenance.get("key") if self.data else None,
            "earlier": sorted({name for i in range(17) for name in self.earlier(i / 16)}),
            **({"compiled": True} if self.backbone.compiled else {}),  # the same bits need the same code
        }
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    # The whole of it.

    def run(self) -> TrainingResult:
        from halign_bench.adapters import attached, remove_adapters

        module = self.backbone.denoiser
        below = {name for i in range(17) for name in self.earlier(i / 16)}
        remove_adapters(module, [name for name in attached(module) if name not in below])
        if clash := sorted(below & {stage.adapter for stage in self.stages}):
            raise RequestError(f"{self.method.name} on top of itself: both would train the adapter {clash[0]}")
        if not self.stages:
            return TrainingResult(status="done", heldout=self._heldout())
        if self.data is None:
            raise RequestError(f"{self.method.name} learns from data and none was given")
        if (finished := self._finished()) is not None:
            return finished

        parts = self.spec.accumulate * self.processes.world
        pair = 2 if any(stage.data == "pairs" for stage in self.stages) else 1
        if self.spec.batch_size % (parts * pair):
            raise RequestError(
                f"batch size {self.spec.batch_size} does not divide into {parts} parts"
                + (" of whole pairs" if pair == 2 else "") + "; choose another "
                + ("number of processes" if self.processes.world > 1 else "batch size or accumulation")
            )
        self.workdir.mkdir(parents=True, exist_ok=True)
        if (saved := self.files.load()) is not None:
            self.state = State(**saved["state"])
        if self.processes.from_main(lambda: self.state.steps) != self.state.steps:
            raise HalignError(f"{self.workdir}: the processes of this launch see different files; give them one folder")
        if self.processes.main:
            self.files.keep_log_lines(self.state.steps)
            self.warnings = [sign for entry in self.files.log() for sign in self.signs.see(entry)]
        try:
            with self.processes.settled():
                self._report()
                forget_peak(self.backbone.device)
                for index in range(self.state.stage, len(self.stages)):
                    self._train_stage(index, saved)
                    saved = None
        except Diverged as problem:
            result = TrainingResult(status="diverged", error=str(problem), **self._numbers())
            remove_adapters(module, self._own())
            return self._finish(result)
        except SelfCheckFailed:
            if self.processes.main:
                self.files.discard()
            raise
        except (KeyboardInterrupt, Interrupted):
            self._save_checkpoint()
            raise
        return self._done()

    def _done(self) -> TrainingResult:
        from halign_bench.adapters import save_adapters

        self.backbone.denoiser.requires_grad_(False)
        if self.processes.main:
            save_adapters(
                self.backbone.denoiser, self._own(), self.adapters_dir, self.backbone.component, self._about
            )
        result = TrainingResult(
            status="done", adapters_dir=self.adapters_dir, heldout=self._heldout(), **self._numbers()
        )
        return self._finish(result)

    def _about(self, adapter: str) -> dict[str, Any]:
        """What a method's own module is made of, for `halign_bench.at_home`."""
        assert self.data is not None
        return {
            "method": self.method.name, "config": self.method.config.model_dump(mode="json"), "adapter": adapter,
            "backbone": self.backbone.name,
            "condition": {name: list(value.shape[1:]) for name, value in self.data.condition.items()},
        }  # fmt: skip

    def _own(self) -> list[str]:
        """This method's adapters, as far as they exist yet."""
        from halign_bench.adapters import attached

        there = attached(self.backbone.denoiser)
        return [name for name in dict.fromkeys(stage.adapter for stage in self.stages) if name in there]

    def _numbers(self) -> dict[str, Any]:
        from halign_bench.adapters import adapter_parameters

        count = sum(p.numel() for n in self._own() for p in adapter_parameters(self.backbone.denoiser, n).values())
        return {
            "samples_seen": self.state.samples, "samples_sampled": self.state.sampled,
            "sampling_passes": self.state.passes, "steps": self.state.steps, "trained_parameters": count,
            "seconds": self.state.seconds, "peak_memory_bytes": self.state.peak or None,
            "log_path": self.files.log_path, "warnings": self.warnings,
        }

    def _heldout(self) -> list[HeldOut]:
        if self.data is None:
            return []
        return implicit_accuracy(self.method, self.backbone, self.data, self.earlier, self.spec.batch_size)

    def _report(self) -> None:
        if self.progress is not None:
            with self.processes.settled():  # where one of them is stopped, all stop
                self.progress(self.state.samples, sum(self.plan) * self.spec.batch_size)

    # One stage.

    def _train_stage(self, index: int, saved: dict[str, Any] | None) -> None:
        import torch

        stage, self.optimizer, self.check = self.stages[index], None, None
        rows = self.asked.batch_size // (2 if stage.data == "pairs" else 1) // self.processes.world
        more = in_parts(self.method, stage, self.backbone, rows, self.asked.accumulate)
        self.spec = self.asked.model_copy(update={"accumulate": more})
        feed = self.feed = self._feed(index)
        parameters = self._attach(index)
        self.optimizer = torch.optim.AdamW(parameters, lr=self.spec.lr, weight_decay=self.spec.weight_decay)
        if saved is not None:
            self.files.restore(saved, self.backbone.denoiser, self.optimizer)
        else:
            self.state.stage, self.state.step = index, 0
        active, below = self._active(stage)
        check = self.check = SelfCheck(self.method, stage, self.backbone, active, below, self.plan[index])
        if self.state.step == 0:
            started = time.monotonic()
            check.adapter_starts_as_nothing(feed.batch(0))
            self.state.seconds += time.monotonic() - started
        last_checkpoint = time.monotonic()
        path = self.files.log_path
        with self.backbone.adapters(active), self._lean(stage, active), path.open("a", encoding="utf-8") as log:
            while self.state.step < self.plan[index]:
                started = time.monotonic()
                entry = self._step(stage, feed, parameters, below, check)
                self.state.seconds += time.monotonic() - started
                if self.processes.main:
                    log.write(json.dumps(_finite(entry), allow_nan=False) + "\n")
                    log.flush()
                    for sign in self.signs.see(entry):
                        self.warnings.append(sign)
                        if self.warn is not None:
                            self.warn(sign.text)
                    due = time.monotonic() - last_checkpoint >= self.checkpoint_seconds
                    if due and feed.resumable(self.state.step):
                        check.reference_has_not_moved()  # what resumes from here could not tell any more
                        self._write_checkpoint()
                        last_checkpoint = time.monotonic()
                self._report()
        check.reference_has_not_moved()

    @contextmanager
    def _lean(self, stage: Stage, active: Sequence[str]) -> Iterator[None]:
        """Within the context this stage takes as little of memory and time as it can."""
        from halign_bench.compiling import compiled
        from halign_bench.inserts import inserts
        from halign_bench.recompute import recomputing

        with ExitStack() as stack:
            if stage.data != "online":  # whose samples are decoded
                stack.enter_context(self.backbone.without_encoders())
            if self.backbone.checkpointing:
                stack.enter_context(recomputing(self.backbone.denoiser))
            if self.backbone.compiled:
                # Samples are drawn in batches of other sizes, and an insert hooks blocks anew for each pass.
                if stage.data != "online" and not set(active) & set(inserts(self.backbone.denoiser)):
                    stack.enter_context(compiled(self.backbone.denoiser, self.backbone.device))
                elif self.warn is not None:
                    self.warn(f"{stage.adapter} trains without --compile, which is for LoRAs and given data alone")
            yield

    def _feed(self, index: int) -> Feed | OnlineFeed:
        import torch

        from halign_bench.feeding import Feed
        from halign_bench.online import OnlineFeed

        assert self.data is not None
        stage, size = self.stages[index], self.spec.batch_size
        if stage.data != "online":
            return Feed(self.data, stage, index, size, self.seed, self.backbone.device)

        def policy(x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
            with torch.no_grad(), self.backbone.adapters(self._active(stage)[0]):
                return self.backbone.denoise(x_t, t, condition)

        return OnlineFeed(
            self.method, self.data, stage, index, size, self.seed, self.backbone, policy, self.processes
        )

    def _attach(self, index: int) -> list[torch.nn.Parameter]:
        """Attaches the adapters of all stages up to this one; the parameters of this one's, which alone train."""
        from halign_bench.adapters import adapter_parameters, attached

        module = self.backbone.denoiser
        for stage in self.stages[: index + 1]:
            if stage.adapter not in attached(module):
                self._attach_adapter(stage.adapter)
        module.requires_grad_(False)
        for parameter in module.parameters():
            parameter.grad = None
        parameters = list(adapter_parameters(module, self.stages[index].adapter).values())
        for parameter in parameters:
            parameter.requires_grad_(True)
        return parameters

    def _attach_adapter(self, name: str) -> None:
        from halign_bench.adapters import attach, attached

        spec, stage = self.spec, next(stage for stage in self.stages if stage.adapter == name)
        assert self.data is not None
        alpha = spec.alpha if spec.alpha is not None else float(spec.rank)
        # By place, not by name: methods start from the same weights, and stacked adapters from others.
        seed = derived_seed("lora", self.seed, len(attached(self.backbone.denoiser)))
        some = {name: value[:1] for name, value in self.data.condition.items()}
        attach(self.backbone, stage, some, spec.rank, alpha, seed)

    def _active(self, stage: Stage) -> tuple[list[str], list[str]]:
        """(policy's, reference's) adapters: what is on when sampling at the stage's t, as far as it exists yet."""
        low, high = stage.interval
        inside = [low + (high - low) * (i + 0.5) / 16 for i in range(16)]
        below = {tuple(self.earlier(t)) for t in inside}
        if len(below) > 1:
            raise RequestError(
                f"{self.method.name} cannot be trained on top of a method whose adapters change with t "
                f"within {low:g} to {high:g}"
            )
        earlier = list(below.pop())
        own = [name for name in self.method.active_adapters(inside[8]) if name in self._own()]
        return list(dict.fromkeys([*earlier, *own, stage.adapter])), earlier

    def _step(
        self, stage: Stage, feed: Feed | OnlineFeed, parameters: list[torch.nn.Parameter], below: list[str],
        check: SelfCheck,
    ) -> dict[str, Any]:
        """One optimiser step. Everything random in it depends on (seed, stage, step)."""
        import torch

        batch, news = feed.batch(self.state.step), feed.news(self.state.step)
        seen = gradients(
            self.method, stage, self.backbone, batch, parameters, below, self.spec.accumulate, self.processes,
            check if self.state.step == 0 else None,
        )  # fmt: skip
        self.state.peak = max(self.state.peak, seen.memory)
        unreached = check.gradients_reach_the_adapter_alone(self.state.step)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.spec.clip))
        self._check(stage, seen.means["loss"], norm, seen.watch.relative_rms())
        rate = (stage.lr or self.spec.lr) * min(1.0, (self.state.step + 1) / max(1, self.spec.warmup))
        self.whole = False
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.state.step += 1
        self.state.steps += 1
        self.state.samples += self.spec.batch_size
        self.state.sampled += news.get("sampled", 0)
        self.state.passes += news.get("sampling_passes", 0)
        self.whole = True
        return {
            "stage": stage.adapter, "step": self.state.step, "samples": self.state.samples, **seen.means,
            "grad_norm": norm, "lr": rate, "norm_ratio": seen.watch.norm_ratio(), **news,
            **({"unreached": unreached} if unreached else {}),
        }

    def _check(self, stage: Stage, loss: float, norm: float, relative: float) -> None:
        where = f"stage {stage.adapter}, step {self.state.step + 1}"
        if not math.isfinite(loss):
            raise Diverged(f"{where}: the loss is {loss}")
        if not math.isfinite(norm):
            raise Diverged(f"{where}: the gradient norm is {norm}")
        if not relative <= BLOW_UP:
            raise Diverged(f"{where}: predictions are {relative:.1f} times their target's size (limit {BLOW_UP:g})")

    def _save_checkpoint(self) -> None:
        """Where there is something that may be gone on from."""
        if self.check is None or self.feed is None or self.check.moved():
            return
        if self.feed.resumable(self.state.step):
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        if self.whole and self.optimizer is not None and self.processes.main:
            self.files.save(self.backbone.denoiser, self._own(), self.optimizer, self.state)

    def _finish(self, result: TrainingResult) -> TrainingResult:
        if self.processes.main:
            self.files.write_result(result.model_dump(mode="json"))
        self.processes.settle()
        return result

    def _finished(self) -> TrainingResult | None:
        """The result of an earlier run of the same request, its adapters attached; None when there is none."""
        from halign_bench.adapters import load_adapters, remove_adapters

        if (stored := self.processes.from_main(self.files.read_result)) is None:
            return None
        # Paths as they are now: the folder may have been moved.
        result = TrainingResult.model_validate({**stored, "log_path": self.files.log_path})
        if result.status == "diverged":
            return result
        try:
            load_adapters(self.backbone.denoiser, self.adapters_dir, self._attach_adapter)
        except RequestError:  # gone or damaged: train again
            remove_adapters(self.backbone.denoiser, self._own())
            return None
        return result.model_copy(update={"adapters_dir": self.adapters_dir})


def _finite(value: Any) -> Any:
    """The same with None for what is no number: JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = ["ClipBatch", "PairBatch", "TrainingResult", "TrainingSpec", "train"]
