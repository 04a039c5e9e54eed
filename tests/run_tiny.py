"""The real command line with the tiny track and backbone, and methods that misbehave: a program for tests to start.

    python tests/run_tiny.py run --methods sft --track tiny-scored --backbone tiny-dit --profile tiny …
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tiny import TinyBackbone, TinyTrack

from halign_bench import processes, protocol, signs
from halign_bench.batch import error
from halign_bench.method import AlignmentMethod, LossOutput, Stage
from halign_bench.processes import here
from halign_bench.registry import register
from halign_bench.track import Clip, Unscorable

TINY = protocol.Profile(
    name="tiny", summary="for tests", prompts=8, candidates=2, preference_nfe=2, samples=32, batch_size=8,
    learning_rate=3e-2, rank=4, eval_clips=8, nfe=(4, 2), replicates=50, chunk=4,
)  # fmt: skip
protocol.PROFILES["tiny"] = TINY  # type: ignore[index]


class Pixels:
    name = "tiny"
    protocol = "mean colours of quadrants"

    def __init__(self, per_frame: bool) -> None:
        self.per_frame = per_frame
        self.seen: list[str] = []

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list[Any]:
        self.seen += [clip.id for clip in clips]
        return [self.features(clip) for clip in clips]

    def features(self, clip: Clip) -> Any:
        if self.per_frame and clip.id.endswith("3"):
            return Unscorable("a clip that the extractor cannot read")
        frames, height, width, _ = clip.video.shape
        quadrants = clip.video.reshape(frames, 2, height // 2, 2, width // 2, 3).mean(axis=(2, 4)).reshape(frames, 12)
        return quadrants / 255 if self.per_frame else quadrants.mean(axis=0, keepdims=True) / 255


@register
class ScoredTrack(TinyTrack):
    """The tiny track with two extractors, so that scores of sets are measured too."""

    name = "tiny-scored"

    def extractors(self, device: str = "cpu") -> Mapping[str, Any]:
        self.made = {"image": Pixels(per_frame=True), "video": Pixels(per_frame=False)}
        return self.made


def denoising_error(policy: Any, batch: Any, backbone: Any) -> Any:
    x_t, target = batch.noised(backbone)
    return error(policy(x_t, batch.t, batch.condition), target)


class Trains(AlignmentMethod):
    paper = "none"

    def stages(self) -> Sequence[Stage]:
        return (Stage(self.name, "winners"),)


@register
class Explodes(Trains):
    """Its loss leaves the finite numbers."""

    name = "explodes"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        return LossOutput(denoising_error(policy, batch, backbone) * float("nan"))


@register
class Slow(Trains):
    """Takes SLOW seconds a step."""

    name = "slow"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        time.sleep(float(os.environ.get("SLOW", "0")))
        return LossOutput(denoising_error(policy, batch, backbone))


@register
class Breaks(Trains):
    """Raises, as a method with a bug does; not when the variable BREAKS is "no"."""

    name = "breaks"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        if os.environ.get("BREAKS") != "no":
            raise ZeroDivisionError("a bug in the method")
        return LossOutput(denoising_error(policy, batch, backbone))


@register
class Drifts(Trains):
    """Moves the base a little at each step, as an optimiser does that was given too many weights."""

    name = "drifts"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        backbone.denoiser.proj_out.weight.data.mul_(1.01)
        return LossOutput(denoising_error(policy, batch, backbone))


@register
class ByHeart(Trains):
    """Has nothing to learn from the start: it tells every winner."""

    name = "by-heart"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        return LossOutput(denoising_error(policy, batch, backbone), {"implicit_accuracy": batch.t * 0 + 1})


class InProcessOne(Trains):
    """Something goes wrong in the second process of a launch alone, at the second step."""

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        self.steps = getattr(self, "steps", 0) + 1
        loss = denoising_error(policy, batch, backbone)
        return self.wrong(loss) if here().rank == 1 and self.steps == 2 else LossOutput(loss)

    def wrong(self, loss: Any) -> LossOutput:
        raise NotImplementedError


@register
class Stumbles(InProcessOne):
    """Raises there."""

    name = "stumbles"

    def wrong(self, loss: Any) -> LossOutput:
        raise ZeroDivisionError("a bug in the method")


@register
class Trips(Trains):
    """Raises there before it goes through the network, in which the others wait for it where weights are divided."""

    name = "trips"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        self.steps = getattr(self, "steps", 0) + 1
        if here().rank == 1 and self.steps == 2:
            raise ZeroDivisionError("a bug in the method")
        return LossOutput(denoising_error(policy, batch, backbone))


@register
class Bursts(InProcessOne):
    """Leaves the finite numbers there."""

    name = "bursts"

    def wrong(self, loss: Any) -> LossOutput:
        return LossOutput(loss * float("nan"))


@register
class Weighs(Trains):
    """Logs which share of the base's weights the processes hold, on the average."""

    name = "weighs"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        loss = denoising_error(policy, batch, backbone)
        base = [p for name, p in backbone.denoiser.named_parameters() if "lora" not in name]
        held = sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in base) / sum(p.numel() for p in base)
        return LossOutput(loss, {"held": batch.t * 0 + held})


@register
class Hungry(Trains):
    """Asks for more memory than any machine has; not when the variable HUNGRY is "no"."""

    name = "hungry"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        if os.environ.get("HUNGRY") != "no":
            import torch

            torch.empty(2**50)
        return LossOutput(denoising_error(policy, batch, backbone))


def limit() -> None:
    """FILE_KIB=n: no file may grow beyond that. ROOM_MIB=n: so much memory beyond what is in use. USER_ID=n."""
    if kib := os.environ.get("FILE_KIB"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(kib) << 10,) * 2)
    if mib := os.environ.get("ROOM_MIB"):
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (int(mib) << 20),) * 2)
    if user := os.environ.get("USER_ID"):
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))


def watch_for_kill() -> None:
    """KILL_AFTER=n: SIGKILL to this process when it is about to rename the n+1st file into place.

    KILL_UPLOAD=n: likewise of files that are moved into place under a file:// URL.
    """
    for variable, name in (("KILL_AFTER", "replace"), ("KILL_UPLOAD", "rename")):
        if variable in os.environ:
            setattr(os, name, deadly(getattr(os, name), int(os.environ[variable])))


def deadly(rename: Any, left: int) -> Any:
    def counted(*arguments: Any, **named: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        rename(*arguments, **named)

    return counted


register(TinyBackbone)



def child(arguments: Sequence[str], environment: Mapping[str, str], said: str) -> None:
    """Runs the command line in this process, with its output in the files `said`.out and .err."""
    from halign_bench.cli import main

    os.environ.update(environment)
    if "PARTS" in environment:  # a module with more of them
        importlib.import_module(environment["PARTS"])
    tempfile.tempdir = None  # found out before the fork
    for number, suffix in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    processes.ALONE = float(environment.get("ALONE", processes.ALONE))
    signs.WINDOW = int(environment.get("SIGN_WINDOW", signs.WINDOW))  # a tiny training has four steps
    watch_for_kill()
    limit()
    code = main(list(arguments))
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    from halign_bench.cli import main

    watch_for_kill()
    sys.exit(main(sys.argv[1:]))
