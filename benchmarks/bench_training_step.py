"""What a DPO step costs beside the passes it is made of, and beside a script that copies its reference.

    pytest benchmarks/bench_training_step.py      ratios in extra_info
    python benchmarks/bench_training_step.py      one table; on a GPU also that of methods, in bf16 with checkpointing

Contestants compute the same loss and gradients of the same batches, which is checked at every step:

- `train`   an optimiser step of `halign_bench.training.train`, from one call of its `progress` to the next
- `bare`    the network and nothing else: policy forward and backward, reference forward, winners and losers in one
            batch that lies ready. Two networks, so that nothing is switched; no clipping, no optimiser
- `common`  as scripts are commonly written: a deep copy as the reference, winners and losers in passes of their own,
            layers of diffusers and peft as they are, clipping and AdamW. Its batches lie ready too
- `train compiled`  as `train`, with `--compile`; its first step compiles, from an empty cache: it is told in seconds of
            a clock, and is in no ratio

Times are processor seconds of one thread, taken in turns in one process; a ratio is the median over turns. Memory is
the largest resident size while training less what the process had before it built any network, each contestant in a
process of its own; of what is compiled after its first step, the compiler's libraries included.
"""

from __future__ import annotations

import copy
import ctypes
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from training_scenes import ON_GPU, SCENES, Scene

from halign_bench.batch import PairBatch, error
from halign_bench.feeding import Feed
from halign_bench.registry import get
from halign_bench.training import TrainingSpec, train

NAME, BETA, SEED = "diffusion-dpo", 1.0, 0  # a large β would only enlarge the rounding of errors
WARMUP, TURNS = 1, 11
MEMORY_STEPS = 4
AGREE = 1e-4  # relative, in the norm of all gradients: fp32, summed in another order


class Network:
    """A backbone whose policy has a LoRA, in layers of diffusers and peft or in the harness's own."""

    def __init__(self, scene: Scene, own_layers: bool, device: str = "cpu") -> None:
        self.backbone = scene.backbone(device)
        if not own_layers:
            self.backbone.denoiser = plain(self.backbone.denoiser)
        self.reference = copy.deepcopy(self.backbone.denoiser)
        module, spec = self.backbone.denoiser, TrainingSpec(samples=1)
        if own_layers:
            from halign_bench.adapters import attach_lora

            attach_lora(module, NAME, self.backbone.lora_targets, spec.rank, float(spec.rank), SEED)
            self.active = self.backbone.adapters([NAME])
            self.active.__enter__()  # for good
        else:
            from peft import LoraConfig

            config = LoraConfig(r=spec.rank, lora_alpha=spec.rank, target_modules=list(self.backbone.lora_targets))
            module.add_adapter(config, adapter_name=NAME)
        self.parameters = {key: p for key, p in module.named_parameters() if p.requires_grad}
        self.policy = module

    def predict(self, network: Any, x_t: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        self.backbone.denoiser = network
        return self.backbone.predict(x_t, t, condition)

    def errors(self, network: Any, shown: tuple[Any, ...]) -> torch.Tensor:
        x_t, t, condition, target = shown
        return error(self.predict(network, x_t, t, condition), target)


def plain(network: Any) -> Any:
    """The same network in layers of diffusers."""
    twin = type(network).from_config(network.config)
    twin.load_state_dict({key: value.clone() for key, value in network.state_dict().items()}, assign=True)
    return twin.eval().requires_grad_(False)


def loss_of(policy: list[torch.Tensor], reference: list[torch.Tensor]) -> torch.Tensor:
    """Of errors of (winners, losers)."""
    inside = -0.5 * BETA * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
    return -torch.nn.functional.logsigmoid(inside).mean()


def shown(batch: Any, backbone: Any) -> tuple[Any, ...]:
    x_t, target = batch.noised(backbone)
    return x_t, batch.t, batch.condition, target


class Bare(Network):
    def ready(self, batch: PairBatch) -> None:
        self.both = shown(batch.stacked(), self.backbone)

    def step(self) -> float:
        for parameter in self.parameters.values():
            parameter.grad = None
        policy = self.errors(self.policy, self.both)
        with torch.no_grad():
            reference = self.errors(self.reference, self.both)
        loss = loss_of(list(policy.chunk(2)), list(reference.chunk(2)))
        loss.backward()
        return float(loss.detach())


class Common(Network):
    def __init__(self, scene: Scene, device: str = "cpu") -> None:
        super().__init__(scene, own_layers=False, device=device)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=1e-4, weight_decay=0.0)

    def ready(self, batch: PairBatch) -> None:
        self.winner, self.loser = (shown(clips, self.backbone) for clips in (batch.winner, batch.loser))

    def step(self) -> float:
        self.optimizer.zero_grad()
        policy = [self.errors(self.policy, clips) for clips in (self.winner, self.loser)]
        with torch.no_grad():
            reference = [self.errors(self.reference, clips) for clips in (self.winner, self.loser)]
        loss = loss_of(policy, reference)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        return float(loss.detach())


def ours(
    scene: Scene, steps: int, progress: Any = None, device: str = "cpu", name: str = NAME, compiled: bool = False
) -> Any:
    """Trains so many steps; gives (backbone, method, data) to whoever makes `progress`, by its attribute `given`."""
    from halign_bench.preferences import PreferenceSet

    backbone = scene.backbone(device)
    backbone.compiled = compiled
    data: PreferenceSet = scene.data(backbone)
    cls = get("method", name)
    method = cls(cls.Config(form="flow", beta=BETA) if name == NAME else None)
    if progress is not None:
        progress.given = (backbone, method, data)
    spec = TrainingSpec(samples=steps * scene.clips, batch_size=scene.clips)
    with tempfile.TemporaryDirectory() as folder:
        result = train(method, backbone, data, spec, SEED, Path(folder), progress, checkpoint_seconds=1e9)
        assert result.status == "done", result.error
        return [json.loads(line)["loss"] for line in (Path(folder) / "train.jsonl").read_text().splitlines()]


class Turns:
    """`progress` of our training: after each of its steps the others take theirs, from the same weights."""

    def __init__(self, scene: Scene, others: dict[str, Bare | Common]) -> None:
        self.scene, self.others, self.step = scene, others, -1
        self.took: list[dict[str, float]] = []
        self.losses: list[dict[str, float]] = []
        self.apart = self.first = 0.0

    def own(self) -> dict[str, torch.nn.Parameter]:
        from halign_bench.adapters import adapter_parameters

        return adapter_parameters(self.given[0].denoiser, NAME)  # type: ignore[attr-defined]

    def __call__(self, samples: int, budget: int) -> None:
        now = time.process_time()
        if self.step == 0:
            self.first = time.perf_counter() - self.clock
        if self.step >= 0:
            self.turn(now - self.started)
        if own := self.own():
            self.before = {key: p.detach().clone() for key, p in own.items()}
        self.step += 1
        self.started, self.clock = time.process_time(), time.perf_counter()

    def turn(self, seconds: float) -> None:
        backbone, method, data = self.given  # type: ignore[attr-defined]
        gradients = {key: p.grad.clone() for key, p in self.own().items()}
        batch = Feed(data, method.stages()[0], 0, self.scene.clips, SEED, backbone.device).batch(self.step)
        took, losses = {"train": seconds}, {}
        for name, other in self.others.items():
            if self.step > 0:
                with torch.no_grad():
                    for key, parameter in other.parameters.items():
                        parameter.copy_(self.before[key])
            other.ready(batch)
            started = time.process_time()
            losses[name] = other.step()
            took[name] = time.process_time() - started
            if self.step > 0:
                if isinstance(other, Bare):
                    torch.nn.utils.clip_grad_norm_(other.parameters.values(), 1.0)
                self.apart = max(self.apart, distance({k: p.grad for k, p in other.parameters.items()}, gradients))
        self.losses.append(losses)
        self.took.append(took)


def distance(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Norm of the difference over the norm, of all tensors together."""
    assert found.keys() == expected.keys()
    squares = [((found[k] - expected[k]).double().square().sum(), expected[k].double().square().sum()) for k in found]
    return float((sum(a for a, _ in squares) / sum(b for _, b in squares)) ** 0.5)


def times(scene: Scene, turns: int = TURNS, compiled: bool = False) -> dict[str, Any]:
    """Milliseconds of a step (medians), and ratios. Raises AssertionError where contestants do not agree."""
    own = "train compiled" if compiled else "train"
    others = {"bare": Bare(scene, True), "bare, plain layers": Bare(scene, False), "common": Common(scene)}
    progress = Turns(scene, others)
    losses = ours(scene, WARMUP + turns, progress, compiled=compiled)
    for step in range(1, len(losses)):
        for name, loss in progress.losses[step].items():
            assert abs(loss - losses[step]) <= AGREE * abs(losses[step]), (name, step, loss, losses[step])
    assert progress.apart <= AGREE, f"gradients differ by {progress.apart:.2g}"
    rows = progress.took[WARMUP:]

    def ratio(a: str, b: str) -> float:
        return statistics.median(row[a] / row[b] for row in rows)

    ms = {name: round(1000 * statistics.median(row[name] for row in rows), 1) for name in rows[0]}
    found = {
        "gradients_apart": progress.apart, "ms": {own if name == "train" else name: ms[name] for name in ms},
        f"{own}/bare": ratio("train", "bare"), f"{own}/bare, plain layers": ratio("train", "bare, plain layers"),
        f"common/{own}": ratio("common", "train"),
    }
    if compiled:
        return {f"compiled: {name}" if own not in name else name: found[name] for name in found} | {
            "compiled: first step, s": progress.first
        }
    return {**scene.about(progress.given[0]), **found}  # type: ignore[attr-defined]


def compiles(scene: Scene) -> bool:
    """Whether its time is not all in weights, so that compiling saves some."""
    return scene.name == "puppet-dit"


def times_compiled(scene: Scene) -> dict[str, Any]:
    """Nothing of a scene that is not worth it."""
    if not compiles(scene):
        return {}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", folder)
        return times(scene, compiled=True)


# Memory: each contestant in a process of its own.


def status(field: str) -> int:
    """Bytes, of this process: VmRSS or VmHWM."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def memory_here(scene: Scene, contestant: str) -> int:
    """Bytes at the most while training, above what the process had with all libraries loaded."""
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    from diffusers import WanTransformer3DModel  # noqa: F401

    backbone = scene.backbone()
    data = scene.data(backbone)  # the same for all
    del backbone
    import gc

    torch.randn(512, 512) @ torch.randn(512, 512)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free and still resident would be counted to no contestant
    before = status("VmRSS")
    if contestant in ("train", "train compiled"):
        compiled = contestant == "train compiled"

        def progress(samples: int, budget: int) -> None:
            if samples == (scene.clips if compiled else 0):  # the first step compiles
                Path("/proc/self/clear_refs").write_text("5")  # VmHWM from here on

        object.__setattr__(scene, "data", lambda backbone: data)
        ours(scene, MEMORY_STEPS, progress, compiled=compiled)
        return status("VmHWM") - before
    other = Common(scene) if contestant == "common" else Bare(scene, True)
    Path("/proc/self/clear_refs").write_text("5")
    feed = Feed(data, get("method", NAME)().stages()[0], 0, scene.clips, SEED, "cpu")
    for step in range(MEMORY_STEPS):
        other.ready(feed.batch(step))
        other.step()
    return status("VmHWM") - before


def memory(scene: Scene) -> dict[str, Any]:
    found = {}
    for contestant in ("train", "train compiled", "bare", "common"):
        if contestant == "train compiled" and not compiles(scene):
            continue
        command = [sys.executable, __file__, "--memory", scene.name, contestant]
        found[contestant] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "MiB": {name: round(value / 2**20) for name, value in found.items()},
        **{f"memory, common/{name}": found["common"] / found[name] for name in found if "train" in name},
    }


# Methods on a GPU, or anywhere: the scene is the caller's.


class Clock:
    """`progress` that keeps when each step ended."""

    def __init__(self, device: str) -> None:
        self.device, self.ends = device, list[float]()

    def __call__(self, samples: int, budget: int) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def peak_rate(device: str, size: int = 8192) -> float:
    """Multiplications and additions a second of a square product, in the precision that is trained in."""
    x = torch.randn(size, size, device=device, dtype=torch.bfloat16 if device != "cpu" else torch.float32)
    clock = Clock(device)
    for _ in range(8):
        clock(0, 0)
        x @ x
    clock(0, 0)
    return 2 * size**3 / min(b - a for a, b in itertools.pairwise(clock.ends))


def of_methods(scene: Scene, device: str, names: Sequence[str] = ("diffusion-dpo", "tpo", "ipa", "tmm")) -> None:
    """One line for each: ms of a step, its share of the fastest product's rate, and memory allocated at the most."""
    from torch.utils.flop_counter import FlopCounterMode

    fastest = peak_rate(device, 8192 if device != "cpu" else 1024)
    for name in names:
        with FlopCounterMode(display=False) as counted:
            ours(scene, 2, None, device, name)
        once = counted.get_total_flops()
        with FlopCounterMode(display=False) as counted:
            ours(scene, 4, None, device, name)
        flops = (counted.get_total_flops() - once) / 2  # of a step, without what comes before and after training
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        clock = Clock(device)
        ours(scene, WARMUP + TURNS, clock, device, name)
        seconds = statistics.median(b - a for a, b in itertools.pairwise(clock.ends[WARMUP:]))
        peak = torch.cuda.max_memory_allocated() / 2**30 if device != "cpu" else float("nan")
        print(
            f"{name:14} {1000 * seconds:8.0f} ms  {flops / seconds / 1e12:7.2f} TFLOP/s  "
            f"{flops / seconds / fastest:4.0%} of a product's  {peak:.1f} GiB"
        )


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_dpo_step(benchmark, scene):
    torch.set_num_threads(1)
    found = benchmark.pedantic(lambda: times(scene), rounds=1)
    benchmark.extra_info.update(found, **times_compiled(scene), **memory(scene))


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--memory"]:
        scene = next(scene for scene in SCENES if scene.name == sys.argv[2])
        print(memory_here(scene, sys.argv[3]))
        return
    for scene in SCENES:
        if sys.argv[1:] and scene.name not in sys.argv[1:]:
            continue
        for name, value in {**times(scene), **times_compiled(scene), **memory(scene)}.items():
            print(f"{scene.name:12} {name:28} {value:.4g}" if isinstance(value, float) else
                  f"{scene.name:12} {name:28} {value}")
    if torch.cuda.is_available():
        of_methods(ON_GPU, "cuda")


if __name__ == "__main__":
    main()
