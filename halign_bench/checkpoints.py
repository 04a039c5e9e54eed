"""What a training leaves on disk while it runs and when it is done, so that a kill at any moment loses only time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.atomic import atomic_path, atomic_write
from halign_bench.documents import parsed
from halign_bench.machine import out_of_memory
from halign_bench.sealing import intact, seal

if TYPE_CHECKING:
    import torch


@dataclass
class State:
    """Where a training stands; what a checkpoint holds besides weights and optimiser."""

    stage: int = 0
    step: int = 0  # done in this stage
    steps: int = 0
    samples: int = 0
    sampled: int = 0
    passes: int = 0
    seconds: float = 0.0
    peak: int = 0


class Checkpoints:
    """The files of one training in `folder`. Each appears whole or not at all, and is used by its own request alone.

    checkpoint.pt  weights, optimiser and `State`; gone once there is a result
    train.jsonl    one line a step, never ahead of what a resumed training will write
    result.json    how it ended
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.log_path = folder / "train.jsonl"

    def save(
        self, module: torch.nn.Module, names: Sequence[str], optimizer: torch.optim.Optimizer, state: State
    ) -> None:
        import torch

        from halign_bench.adapters import adapter_parameters

        content = {
            "fingerprint": self.fingerprint, "state": dict(vars(state)), "optimizer": optimizer.state_dict(),
            "adapters": {
                name: {key: p.detach().cpu() for key, p in adapter_parameters(module, name).items()} for name in names
            },
        }
        with atomic_path(self.folder / "checkpoint.pt") as temporary:
            torch.save(content, temporary)
            seal(temporary)

    def load(self) -> dict[str, Any] | None:
        """None when there is none, or it or the log of its steps is damaged, or it is of another request."""
        from halign_bench.extractors.checkpoint import opened

        file = self.folder / "checkpoint.pt"
        try:
            if not intact(file):
                return None
            saved = opened(file.read_bytes())
            if saved["fingerprint"] != self.fingerprint or len(self.log()) < saved["state"]["steps"]:
                return None
        except Exception as problem:  # absent or damaged, of which torch has many
            if out_of_memory(problem):
                raise  # what is there is not lost for it
            return None
        return dict(saved)

    @staticmethod
    def restore(saved: dict[str, Any], module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        import torch

        from halign_bench.adapters import adapter_parameters

        with torch.no_grad():
            for name, stored in saved["adapters"].items():
                for key, parameter in adapter_parameters(module, name).items():
                    parameter.copy_(stored[key])
        optimizer.load_state_dict(saved["optimizer"])

    def keep_log_lines(self, count: int) -> None:
        """Lines of steps after the checkpoint will be written again."""
        lines = self.log_path.read_text(encoding="utf-8").splitlines(keepends=True) if self.log_path.exists() else []
        if len(lines) != count:
            atomic_write(self.log_path, "".join(lines[:count]))

    def log(self) -> list[dict[str, Any]]:
        """Lines of the steps that need not be done again."""
        if not self.log_path.exists():
            return []
        return [parsed(line) for line in self.log_path.read_text(encoding="utf-8").splitlines()]

    def discard(self) -> None:
        """There is nothing in this training to go on from."""
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)

    def write_result(self, result: dict[str, Any]) -> None:
        content = {"fingerprint": self.fingerprint, "result": result, "sha256": _sha256(result)}
        atomic_write(self.folder / "result.json", json.dumps(content))
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)

    def read_result(self) -> dict[str, Any] | None:
        """None when there is none, or it is damaged or of another request."""
        try:
            content = parsed((self.folder / "result.json").read_text(encoding="utf-8"))
            own = content["fingerprint"] == self.fingerprint and content["sha256"] == _sha256(content["result"])
            return dict(content["result"]) if own else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _sha256(result: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


__all__ = ["Checkpoints", "State"]
