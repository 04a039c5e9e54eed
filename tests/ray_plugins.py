"""What the machines of a test's cluster have installed: the tiny track and backbone, and a method that bears witness.

`install` makes a folder that, on the module path, is such an installation: entry points, as those of a user's package.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from run_tiny import ScoredTrack, Slow, TinyBackbone, Trains, denoising_error

from halign_bench.method import Config, LossOutput, Stage
from halign_bench.registry import register

__all__ = ["Dies", "ScoredTrack", "Slow", "TinyBackbone", "Witness"]


@register
class Witness(Trains):
    """Writes down who works on it: one line a step and one when it is sampled from, in the file $WITNESS.

    While a file $WITNESS.hold lies beside it, 3 and 4 do not come out of a step.
    """

    name = "witness"

    class Config(Config):
        number: int = 0

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        self._write("step")
        hold = Path(os.environ["WITNESS"] + ".hold")
        while self.config.number >= 3 and hold.exists():
            time.sleep(0.05)
        return LossOutput(denoising_error(policy, batch, backbone))

    def active_adapters(self, t: float) -> Sequence[str]:
        if t == 1.0:
            self._write("sample")
        return super().active_adapters(t)

    def _write(self, what: str) -> None:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        line = {"number": self.config.number, "what": what, "pid": os.getpid(), "at": time.time(), "gpus": gpus}
        with open(os.environ["WITNESS"], "a") as file:  # whole lines: shorter than what the kernel writes at once
            file.write(json.dumps(line) + "\n")


@register
class Dies(Trains):
    """Takes its process with it, as one does that needs more memory than there is."""

    name = "dies"

    def loss(self, stage: Stage, policy: Any, reference: Any, batch: Any, backbone: Any) -> LossOutput:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(stage, policy, reference, batch, backbone)


def install(folder: Path) -> Path:
    """The folder, ready for PYTHONPATH."""
    info = folder / "tiny_plugins-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[halign_bench.tracks]\ntiny-scored = ray_plugins:ScoredTrack\n"
        "[halign_bench.backbones]\ntiny-dit = ray_plugins:TinyBackbone\n"
        "[halign_bench.methods]\nslow = ray_plugins:Slow\nwitness = ray_plugins:Witness\n"
        "dies = ray_plugins:Dies\n"
    )
    return folder


def account(file: Path) -> dict[int, list[dict[str, Any]]]:
    """Lines of each number, in order of time."""
    lines: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in file.read_text().splitlines() if file.exists() else []:
        entry = json.loads(line)
        lines[entry["number"]].append(entry)
    return lines
