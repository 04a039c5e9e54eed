"""Runs a plan: one backbone and one track, shared preferences, then cell after cell, then the leaderboard."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench import registry
from halign_bench.errors import HalignError, Interrupted, RequestError
from halign_bench.folder import RunFolder, cache_dir, clear_cell
from halign_bench.plan import Cell, Plan, RunRequest, plan
from halign_bench.progress import Progress, Stop
from halign_bench.protocol import Protocol

if TYPE_CHECKING:
    from rich.console import Console

    from halign_bench.backbone import Backbone
    from halign_bench.evaluation import Evaluation
    from halign_bench.preferences import PreferenceSet
    from halign_bench.results import Record
    from halign_bench.track import Track
    from halign_bench.training import TrainingResult

TRAIN_WEIGHT = 4.0  # of one trained sample, in network evaluations: policy forward and backward, reference forward


def run(request: RunRequest, console: Console | None = None) -> int:
    """Finishes what is missing in `request.out` and prints the leaderboard last.

    Returns 0, or 1 when a cell failed or diverged (its record says why, the others are done). Raises
    `RequestError` for a request that cannot be answered, `RunLocked` when another process works on the
    same folder, `Interrupted` on Ctrl-C; the same request then goes on where it was.
    console  for progress, by default on stderr; the table, or with `json` the document, goes to stdout
    """
    steps = plan(request)
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    folder = RunFolder(request.out)
    with Stop().listening() as stop, folder.locked():
        try:
            # Whatever plug-ins and libraries print must not end up in the table or the JSON document.
            with contextlib.redirect_stdout(sys.stderr):
                if request.fresh:
                    folder.clear()
                folder.check_own()
                failed = Run(request, steps, folder, console, stop).work()
                board = folder.write_tables()
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(
                f"interrupted; what is done is kept in {request.out}, and the same command goes on from there"
            ) from None
    if request.json:
        print(board.to_json(), end="")
    else:
        from rich.console import Console

        board.print(Console())
    return 1 if failed else 0


class Run:
    """One run in this process: what its cells share, and the loop over them."""

    def __init__(self, request: RunRequest, steps: Plan, folder: RunFolder, console: Console, stop: Stop) -> None:
        from halign_bench.evaluation import Evaluator
        from halign_bench.preferences import PreferenceSpec
        from halign_bench.training import TrainingSpec

        self.request, self.steps, self.folder = request, steps, folder
        self.progress = Progress(console, stop)
        profile = steps.profile
        with self.progress.phase(f"load {request.backbone} and {request.track}", 1):
            backbone: Any = registry.get("backbone", request.backbone)
            track: Any = registry.get("track", request.track)
            self.backbone: Backbone = backbone.load(device=resolve_device(request.device))
            self.track: Track = track(data=request.data, frames=self.backbone.frames, size=self.backbone.size)
            self.evaluator = Evaluator(self.backbone, self.track, profile)
        for refusal in self.track.refusals():
            self.progress.say(f"left out {refusal.source}: {refusal.reason}")
        for problem in self.evaluator.broken:
            self.progress.say(f"left out: {problem}")
        stop.check()
        self.preference_spec = PreferenceSpec(
            prompts=profile.prompts, candidates=profile.candidates, nfe=profile.preference_nfe,
            guidance=profile.guidance,
        )  # fmt: skip
        self.training_spec = TrainingSpec(
            samples=profile.samples, batch_size=profile.batch_size, lr=profile.learning_rate, rank=profile.rank
        )
        self.protocol = self._protocol()
        self.protocol_hash = self.protocol.sha256
        self._preferences: PreferenceSet | None = None
        self._no_preferences: Exception | None = None

    def _protocol(self) -> Protocol:
        try:
            annotator = self.track.annotator().protocol
        except NotImplementedError:
            annotator = "none"
        backbone = self.backbone
        return Protocol(
            profile=self.steps.profile.name,
            track={"name": self.track.name, **_plain(self.track.fingerprint())},
            backbone={
                "name": backbone.name, "base_sha256": backbone.base_sha256, "frames": backbone.frames,
                "size": list(backbone.size), "parameterisation": backbone.parameterisation,
                "lora_targets": list(backbone.lora_targets),
            },
            preferences={**self.preference_spec.model_dump(mode="json"), "annotator": annotator},
            training=self.training_spec.model_dump(mode="json"),
            evaluation=self.evaluator.specification(),
            metrics=self.evaluator.protocols(),
        )  # fmt: skip

    def work(self) -> list[Cell]:
        """Does every cell that has no finished record; returns those that have none afterwards."""
        self.folder.claim(self.protocol)
        hashes = {cell: cell.sha256(self.protocol_hash) for cell in self.steps.cells}
        records = {cell: self.folder.record(cell, hashes[cell]) for cell in self.steps.cells}
        missing = [cell for cell, record in records.items() if record is None or record.status != "done"]
        for cell in self.steps.cells:
            if cell not in missing:  # a kill may have come between the record and the end of its samples
                self.evaluator.remove(self.folder.work(cell, hashes[cell]) / "eval")
        if len(missing) < len(self.steps.cells):
            count = len(self.steps.cells)
            self.progress.say(f"{count - len(missing)} of {count} cells are done already")
        self.progress.plan = self._plan_weight(missing)
        failed = []
        for number, cell in enumerate(missing, 1):
            self.progress.stop.check()
            before, work = records[cell], self.folder.work(cell, hashes[cell])
            if before is not None and before.status == "diverged":
                clear_cell(work, "train")  # the same training again, not its remembered end
            label = f"[{number}/{len(missing)}] {cell.variant.label} seed {cell.seed}"
            if not self._cell(cell, hashes[cell], work, label):
                failed.append(cell)
        return failed

    def _plan_weight(self, cells: Sequence[Cell]) -> float:
        weight = sum(self._train_weight(cell) + self.evaluator.weight for cell in cells)
        return weight + (self._preference_weight if any(cell.variant.needs_data() for cell in cells) else 0.0)

    @property
    def _preference_weight(self) -> float:
        spec = self.preference_spec
        return min(spec.prompts, self.track.splits().get("prompts", 0)) * spec.candidates * spec.nfe

    def _train_weight(self, cell: Cell) -> float:
        trained = sum(bool(part.method.stages()) for part in cell.variant.parts)
        return trained * self.training_spec.samples * TRAIN_WEIGHT

    # One cell

    def _cell(self, cell: Cell, cell_hash: str, work: Path, label: str) -> bool:
        """Trains, evaluates and records one cell; whether it is done. A failure is a record, not the end of the run."""
        started = _now()
        trained: list[TrainingResult] = []
        try:
            preferences = self.preferences(cell)
            trained = self._train(cell, preferences, work / "train", label)
            if trained[-1].status == "diverged":
                record = self._record(cell, cell_hash, "diverged", trained[-1].error, trained)
                self._write(cell, record, started)
                self.progress.say(f"{label}: diverged: {trained[-1].error}")
                return False
            scores = self.evaluator.evaluate(
                cell.variant.active_adapters, cell.seed, work / "eval", self.progress, label
            )
            add_heldout(scores, trained[-1])
            record = self._record(cell, cell_hash, "done", None, trained, scores)
            if trained[-1].adapters_dir is not None:
                record.files["adapters"] = f"../{(work / 'train').relative_to(self.folder.path).as_posix()}"
            self._write(cell, record, started, scores)
            self.evaluator.remove(work / "eval")
            return True
        except Interrupted:
            raise
        except Exception as problem:
            sentence = str(problem) if isinstance(problem, HalignError) else f"{type(problem).__name__}: {problem}"
            if not isinstance(problem, HalignError):
                work.mkdir(parents=True, exist_ok=True)
                (work / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
                sentence += f" (traceback in {(work / 'traceback.txt').relative_to(self.folder.path).as_posix()})"
            self._write(cell, self._record(cell, cell_hash, "failed", sentence, trained), started)
            self.progress.say(f"{label}: failed: {sentence}")
            return False

    def preferences(self, cell: Cell) -> PreferenceSet | None:
        """Collected once a run. Where that failed, methods that learn from data fail, and the base goes on without."""
        if self._preferences is None and self._no_preferences is None:
            try:
                self._preferences = self._collect()
            except Interrupted:
                raise
            except Exception as problem:
                self._no_preferences = problem
        if self._no_preferences is not None and cell.variant.needs_data():
            raise self._no_preferences
        return self._preferences

    def _collect(self) -> PreferenceSet | None:
        from halign_bench.adapters import remove_adapters
        from halign_bench.preferences import collect

        if not any(variant.needs_data() for variant in self.steps.variants):
            return None
        remove_adapters(self.backbone.denoiser)
        weight, spec = self._preference_weight, self.preference_spec
        with self.progress.phase("preferences: sample and label candidates", round(weight / spec.nfe), weight) as phase:
            return collect(self.backbone, self.track, spec, cache_dir(), phase)

    def _train(self, cell: Cell, preferences: PreferenceSet | None, work: Path, label: str) -> list[TrainingResult]:
        """One part after the other, each on top of those before; stops at the first that diverges."""
        from halign_bench.training import train

        results: list[TrainingResult] = []
        parts = cell.variant.parts
        for number, part in enumerate(parts):
            earlier: Callable[[float], Sequence[str]] = replace(cell.variant, parts=parts[:number]).active_adapters
            where, spec = work / f"{number}-{part.method.name}", self.training_spec
            weight = self.training_spec.samples * TRAIN_WEIGHT if part.method.stages() else 0.0
            if not weight:
                results.append(train(part.method, self.backbone, preferences, spec, cell.seed, where, earlier=earlier))
                continue
            what = f"{label}: train" if len(parts) == 1 else f"{label}: train {part.label}"
            with self.progress.phase(what, spec.samples, weight) as phase:
                results.append(
                    train(part.method, self.backbone, preferences, spec, cell.seed, where, phase, earlier=earlier)
                )
            if results[-1].status != "done":
                break
        return results

    def _record(
        self, cell: Cell, cell_hash: str, status: Any, error: str | None, trained: Sequence[TrainingResult],
        scores: Evaluation | None = None,
    ) -> Record:  # fmt: skip
        from halign_bench.environment import capture_environment
        from halign_bench.results import Base, CellIdentity, ClaimData, ConfigUsed, Record, Timings, Training

        peaks = [result.peak_memory_bytes for result in trained if result.peak_memory_bytes]
        provenance: dict[str, Any] = {}
        if self._preferences is not None:
            provenance["preferences"] = _plain(self._preferences.provenance)
        if trained:
            provenance["held_out"] = [
                report.model_dump(mode="json", exclude={"ids", "identities", "values", "rewards"})
                for report in trained[-1].heldout
            ]
        variant = cell.variant
        return Record(
            cell=CellIdentity(
                method=variant.label, seed=cell.seed, track=self.track.name, backbone=self.backbone.name
            ),
            cell_hash=cell_hash, status=status, error=error,
            config=ConfigUsed(
                given={"methods": list(self.request.methods), "set": list(self.request.overrides)},
                effective=_plain(variant.config),
            ),
            protocol=self.protocol.model_dump(mode="json"), protocol_hash=self.protocol_hash,
            base=Base(name=self.backbone.name, sha256=self.backbone.base_sha256),
            evaluators={name: extractor.protocol for name, extractor in self.evaluator.extractors.items()},
            environment=capture_environment(),
            timings=Timings(
                train=sum(result.seconds for result in trained) if trained else None,
                sample=scores.sample_seconds if scores else None, score=scores.score_seconds if scores else None,
            ),
            training=Training(
                samples_seen=sum(result.samples_seen for result in trained), steps=sum(r.steps for r in trained),
                trained_parameters=sum(r.trained_parameters for r in trained),
                peak_memory_bytes=max(peaks, default=None),
            ) if trained else None,
            provenance=provenance, metrics=dict(scores.metrics) if scores else {},
            bootstrap=self.evaluator.bootstrap() if scores else None,
            claims=[
                ClaimData(metric=c.metric, better_than=c.better_than, source=c.source, margin=c.margin)
                for c in variant.parts[-1].method.claims
            ],
        )  # fmt: skip

    def _write(self, cell: Cell, record: Record, started: str, scores: Evaluation | None = None) -> None:
        from halign_bench.results import write_record

        record.started, record.finished = started, _now()
        path = self.folder.record_path(cell)
        if scores is None:
            write_record(path, record)
        else:
            write_record(path, record, scores.clips, scores.replicates)


def add_heldout(scores: Evaluation, trained: TrainingResult) -> None:
    """Implicit accuracy on held-out pairs as a score of its own, pair by pair, so that methods are compared on it."""
    from halign_bench.results import ClipScore, MetricValue, metric_key

    for report in trained.heldout:
        key = metric_key("implicit_accuracy", report.criterion)
        scores.metrics[key] = MetricValue(
            value=report.accuracy, ci=report.ci, n=report.pairs, unit="share of held-out pairs", higher_is_better=True,
            bounds=(0, 1), protocol="share of held-out pairs whose winner the model prefers more than the base does, "
            f"ties one half; mean over fixed noise levels {', '.join(f'{level.t:g}' for level in report.levels)}",
        )  # fmt: skip
        for clip, identity, value in zip(report.ids, report.identities, report.values, strict=True):
            scores.clips.append(ClipScore(clip, identity, key, value))


def resolve_device(name: str) -> str:
    """ "auto" is the first GPU where torch sees one, else the CPU. Raises `RequestError` for one that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError):
        raise RequestError(f"--device {name}: torch cannot use it here; --device auto takes what there is") from None
    return name


def _plain(value: Any) -> Any:
    """As it will be read back: tuples as lists, keys as text. Raises TypeError for what JSON cannot hold."""
    return json.loads(json.dumps(value, allow_nan=False))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


__all__ = ["Run", "RunRequest", "resolve_device", "run"]
