"""Has the benchmark room? On each axis the base must lie between clean clips and the axis' defect.

`python -m halign_bench.tracks.puppet.headroom OUT` scores the evaluation clips three times over with
one and the same code: as they are, as the base makes them, and drawn with the defect. Both gaps are
paired over clips and clustered by identity. Where an interval includes zero, a method could neither
win nor lose anything that the benchmark would see.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from halign_bench.atomic import atomic_write
from halign_bench.progress import Progress, Stop
from halign_bench.stats import Difference, bootstrap_indices, paired_difference, resample_counts, weighted_means
from halign_bench.tracks.puppet import PuppetTrack
from halign_bench.tracks.puppet.clips import take

if TYPE_CHECKING:
    from halign_bench.backbone import Backbone
    from halign_bench.evaluation import Evaluation, Evaluator

AXES: dict[str, tuple[str, tuple[str, ...]]] = {
    "sync": ("sync_c", ("frozen",)),  # not shifted_audio: Sync-C tolerates a shift, by design
    "motion": ("motion_gap", ("frozen",)),
    "hands": ("hkc", ("missing_fingers", "smeared_hands")),
    "image": ("fid", ("blur",)),
}
"""axis -> (metric, defects of its extreme)"""


@dataclass(frozen=True)
class Axis:
    """One row of the table; `above` and `below` are the gaps, positive when the base lies between."""

    axis: str
    metric: str
    clean: float | None
    base: float | None
    extreme: float | None
    above: Difference
    below: Difference

    @property
    def has_room(self) -> bool:
        return all(gap.ci is not None and gap.ci[0] > 0 for gap in (self.above, self.below))


def measure(backbone: Backbone, clips: int = 128, nfe: int = 30, seed: int = 0) -> list[Axis]:
    """Samples `clips` evaluation clips from the base and scores them beside the clean and the spoiled ones."""
    from rich.console import Console

    from halign_bench.evaluation import Evaluator
    from halign_bench.protocol import profile_named

    profile = profile_named("default", (nfe,)).model_copy(update={"eval_clips": clips})
    track = PuppetTrack(frames=backbone.frames, size=backbone.size)
    evaluator = Evaluator(backbone, track, profile)
    progress = Progress(Console(stderr=True), Stop())

    def drawn(defects: tuple[str, ...]) -> Callable[[int], np.ndarray]:
        return lambda index: take("eval", index, backbone.frames).draw(backbone.size[0], defects)

    def scored(label: str, video: Callable[[int], np.ndarray] | None) -> Evaluation:
        with tempfile.TemporaryDirectory() as folder:
            if video is not None:
                evaluator.provide(Path(folder), nfe, seed, video)
            return evaluator.evaluate(lambda t: (), seed, Path(folder), progress, label)

    clean, base = scored("clean", drawn(())), scored("base", None)
    axes = []
    for axis, (metric, defects) in AXES.items():
        extreme = scored(" + ".join(defects), drawn(defects))
        key = f"{metric}@{track.name}"
        sign = 1.0 if base.metrics[key].higher_is_better else -1.0
        above, below = (_gap(evaluator, better, worse, key, sign) for better, worse in ((clean, base), (base, extreme)))
        good, ours, bad = (result.metrics[key].value for result in (clean, base, extreme))
        axes.append(Axis(axis, key, good, ours, bad, above, below))
    return axes


def _gap(evaluator: Evaluator, better: Evaluation, worse: Evaluation, key: str, sign: float) -> Difference:
    """Paired difference better - worse, turned so that positive means better."""
    clusters = len(set(evaluator.identities))
    ours, theirs = better.metrics[key].value, worse.metrics[key].value
    if ours is None or theirs is None:
        return Difference(None, reason=better.metrics[key].reason or worse.metrics[key].reason)
    if key in better.replicates:
        draws = np.array(better.replicates[key], float) - np.array(worse.replicates[key], float)
        return paired_difference(np.array([sign * (ours - theirs)]), sign * draws[None], clusters)
    first, second = (
        {score.clip: score.value for score in result.clips if score.metric == key} for result in (better, worse)
    )
    pairs = [(first[name], second[name]) for name in evaluator.ids]
    rows = [None if a is None or b is None else sign * (a - b) for a, b in pairs]
    bootstrap = evaluator.bootstrap()
    indices = bootstrap_indices(evaluator.ids, evaluator.identities, bootstrap.replicates, bootstrap.seed)
    draws = weighted_means(rows, resample_counts(indices, len(rows)))
    found = [row for row in rows if row is not None]
    return paired_difference(np.array([np.mean(found)]), draws[None], clusters)


def table(axes: list[Axis]) -> str:
    """Markdown."""

    def shown(gap: Difference) -> str:
        if gap.ci is None or gap.value is None:
            return str(gap.reason)
        return f"{gap.value:.3g} [{gap.ci[0]:.3g}, {gap.ci[1]:.3g}]"

    head = ("axis", "metric", "clean", "base", "defect", "clean to base [95 %]", "base to defect [95 %]", "room")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in axes:
        numbers = " | ".join("–" if v is None else f"{v:.4g}" for v in (row.clean, row.base, row.extreme))
        room = "yes" if row.has_room else "no"
        lines.append(f"| {row.axis} | {row.metric} | {numbers} | {shown(row.above)} | {shown(row.below)} | {room} |")
    return "\n".join(lines) + "\n"


def as_json(axes: list[Axis], base_sha256: str) -> dict[str, Any]:
    def gap(found: Difference) -> dict[str, Any]:
        return {"value": found.value, "ci": list(found.ci) if found.ci else None, "p": found.p}

    return {
        "base_sha256": base_sha256,
        "axes": [
            {"axis": a.axis, "metric": a.metric, "clean": a.clean, "base": a.base, "defect": a.extreme,
             "clean_to_base": gap(a.above), "base_to_defect": gap(a.below), "room": a.has_room} for a in axes
        ],
    }  # fmt: skip


def main(out: Path) -> int:
    """Writes `headroom.md` and `headroom.json` into `out`; 1 where an axis has no room."""
    from halign_bench.backbones.puppet_dit import PuppetDiT

    backbone = PuppetDiT.load()
    axes = measure(backbone)
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "headroom.md", table(axes))
    atomic_write(out / "headroom.json", json.dumps(as_json(axes, backbone.base_sha256), indent=2) + "\n")
    print(table(axes), end="")
    return 0 if all(axis.has_room for axis in axes) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "leaderboards/puppet")))
