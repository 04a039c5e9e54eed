"""The record of a cell: what was asked, what was used, what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from halign_bench.evaluation import Evaluation
    from halign_bench.plan import Cell
    from halign_bench.record import Record, Status
    from halign_bench.runner import Run
    from halign_bench.training import TrainingResult


def make_record(
    run: Run, cell: Cell, started: str, status: Status, error: str | None, trained: Sequence[TrainingResult],
    scores: Evaluation | None = None,
) -> Record:  # fmt: skip
    """`trained` are the results of the cell's parts in order, as far as it came; `scores` only where it is done."""
    from halign_bench.environment import capture_environment
    from halign_bench.record import Base, CellIdentity, ClaimData, ConfigUsed, Record, Timings, Training

    peaks = [result.peak_memory_bytes for result in trained if result.peak_memory_bytes]
    provenance: dict[str, Any] = {"precision": run.backbone.precision}
    if run.backbone.compiled:
        provenance["compiled"] = True
    if run.collected is not None:
        provenance["preferences"] = plain(run.collected.provenance)
    if trained:
        provenance["held_out"] = [
            report.model_dump(mode="json", exclude={"ids", "identities", "values", "rewards"})
            for report in trained[-1].heldout
        ]
    variant = cell.variant
    return Record(
        cell=CellIdentity(method=variant.label, seed=cell.seed, track=run.track.name, backbone=run.backbone.name),
        cell_hash=cell.sha256(run.protocol_hash), status=status, error=error,
        config=ConfigUsed(
            given={"methods": list(run.request.methods), "set": list(run.request.overrides)},
            effective=plain(variant.config),
        ),
        protocol=run.protocol.model_dump(mode="json"), protocol_hash=run.protocol_hash,
        base=Base(name=run.backbone.name, sha256=run.backbone.base_sha256),
        evaluators={name: extractor.protocol for name, extractor in run.evaluator.extractors.items()},
        environment=capture_environment(),
        timings=Timings(
            train=sum(result.seconds for result in trained) if trained else None,
            sample=scores.sample_seconds if scores else None, score=scores.score_seconds if scores else None,
            chunks=scores.chunk_seconds if scores else {},
        ),
        training=Training(
            samples_seen=sum(result.samples_seen for result in trained), steps=sum(r.steps for r in trained),
            samples_sampled=sum(r.samples_sampled for r in trained),
            sampling_passes=sum(r.sampling_passes for r in trained),
            trained_parameters=sum(r.trained_parameters for r in trained),
            peak_memory_bytes=max(peaks, default=None),
        ) if trained else None,
        provenance=provenance, metrics=dict(scores.metrics) if scores else {},
        bootstrap=run.evaluator.bootstrap() if scores else None,
        warnings=[*(sign for result in trained for sign in result.warnings), *(scores.signs if scores else [])],
        claims=[ClaimData(**asdict(claim)) for claim in variant.parts[-1].method.claims],
        started=started, finished=now(),
    )  # fmt: skip


def add_heldout(scores: Evaluation, trained: TrainingResult) -> None:
    """Implicit accuracy on held-out pairs as a score of its own, pair by pair, so that methods are compared on it."""
    from halign_bench.companions import ClipScore
    from halign_bench.record import MetricValue, metric_key

    for report in trained.heldout:
        key = metric_key("implicit_accuracy", report.criterion)
        scores.metrics[key] = MetricValue(
            value=report.accuracy, ci=report.ci, n=report.pairs, unit="share of held-out pairs", higher_is_better=True,
            bounds=(0, 1), protocol="share of held-out pairs whose winner the model prefers more than the base does, "
            f"ties one half; mean over fixed noise levels {', '.join(f'{level.t:g}' for level in report.levels)}",
        )  # fmt: skip
        for clip, identity, value in zip(report.ids, report.identities, report.values, strict=True):
            scores.clips.append(ClipScore(clip, identity, key, value))


def plain(value: Any) -> Any:
    """As it will be read back: tuples as lists, keys as text. Raises TypeError for what JSON cannot hold."""
    return json.loads(json.dumps(value, allow_nan=False))


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


__all__ = ["add_heldout", "make_record", "now", "plain"]
