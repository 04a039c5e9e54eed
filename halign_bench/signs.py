"""Signs of trouble: in what is logged while a method trains, and in its samples. Each is told once, and recorded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from halign_bench.companions import ClipScore
from halign_bench.record import Sign, parse_key

if TYPE_CHECKING:
    import numpy as np

# All thresholds are ours. A warning stops nothing, so they are set where a person would want to look.
WINDOW = 20  # steps that a sign must hold over
SURE = 3.0  # standard errors by which the winner's error must be above the reference's
NORM = 1.25  # times the size of the reference's prediction, or one over it
WHITE = 250  # of 255: blown out
EXPOSED = 0.1  # more of a sample than of its target is white
FROZEN = 0.1  # of the target's motion
SHARE = 0.1  # of the samples, from which on it is a sign


class TrainingSigns:
    """Reads the training log line by line and gives each sign once a stage.

    It rests on the log alone, so that a resumed training comes to the same signs. From a method's own logs it takes
    `winner_gap` (winner's error, policy less reference) and `implicit_accuracy`, where the method gives them.
    """

    def __init__(self) -> None:
        self.stage: str | None = None
        self.windows: dict[str, deque[float]] = {}
        self.told: set[str] = set()

    def see(self, entry: Mapping[str, Any]) -> list[Sign]:
        """New signs after this line of the log."""
        if entry["stage"] != self.stage:
            self.stage, self.windows, self.told = entry["stage"], {}, set()
        found = []
        if names := entry.get("unreached"):
            text = f"{len(names)} parameters of the adapter have had no gradient yet ({names[0]} among them)"
            found.append(("unreached parameters", float(len(names)), text))
        if (gap := self._window("winner_gap", entry.get("winner_gap"))) is not None:
            mean = sum(gap) / len(gap)
            error = math.sqrt(sum((value - mean) ** 2 for value in gap) / (len(gap) - 1) / len(gap))
            if mean > SURE * error and mean > 0:
                text = f"the winner's error is {mean:.3g} above the reference's over the last {WINDOW} steps"
                found.append(("winner error rising", mean, f"{text}: the policy is unlearning what it should prefer"))
        accuracy = self._window("implicit_accuracy", entry.get("implicit_accuracy"))
        if accuracy is not None and min(accuracy) >= 1:
            text = f"implicit accuracy has been 1 for {WINDOW} steps: these pairs teach nothing more"
            found.append(("implicit accuracy at 1", 1.0, text))
        ratios = entry.get("norm_ratio") or []
        for place, ratio in enumerate(ratios):
            if (window := self._window(f"norm_ratio {place}", ratio)) is None:
                continue
            mean = sum(window) / len(window)
            if not 1 / NORM <= mean <= NORM:
                where = f"t in [{place / len(ratios):g}, {(place + 1) / len(ratios):g}]"
                text = f"predictions for {where} are {mean:.2f} times as large as the reference's"
                found.append(("prediction size", mean, text))
        new = {name: (value, text) for name, value, text in found if name not in self.told}
        self.told |= new.keys()
        return [
            Sign(name=name, step=entry["step"], value=value, text=f"stage {self.stage}, step {entry['step']}: {text}")
            for name, (value, text) in new.items()
        ]

    def _window(self, name: str, value: float | None) -> list[float] | None:
        """The last values once there are enough; None while there are not."""
        if value is None or not math.isfinite(value):
            return None
        window = self.windows.setdefault(name, deque(maxlen=WINDOW))
        window.append(value)
        return list(window) if len(window) == WINDOW else None


def over_exposed(video: np.ndarray, target: np.ndarray) -> bool:
    """Whether far more of a sample than of its target is blown out to white. Both uint8 `[T, H, W, 3]`."""
    return float((video >= WHITE).mean()) > float((target >= WHITE).mean()) + EXPOSED


def in_samples(nfe: int, exposed: int, clips: Sequence[ClipScore]) -> list[Sign]:
    """From the scores of the clips sampled at one NFE, of which `exposed` are over-exposed.

    Frozen clips are known by the metric `motion`, a multiple of the target's; without it nothing is said of them.
    """
    total = len({clip.clip for clip in clips})
    motion = [clip.value for clip in clips if parse_key(clip.metric).name == "motion" and clip.value is not None]
    still = sum(value < FROZEN for value in motion)
    signs = []
    if total and exposed / total > SHARE:
        text = f"at NFE {nfe}, {exposed} of {total} samples are over-exposed: far more white than in their targets"
        signs.append(Sign(name="over-exposed samples", value=exposed / total, text=text))
    if motion and still / len(motion) > SHARE:
        text = f"at NFE {nfe}, {still} of {len(motion)} samples are frozen: less than a tenth of their targets' motion"
        signs.append(Sign(name="frozen samples", value=still / len(motion), text=text))
    return signs


__all__ = ["TrainingSigns", "in_samples", "over_exposed"]
