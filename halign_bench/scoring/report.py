"""What `score` prints and writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.atomic import atomic_write
from halign_bench.companions import write_clips
from halign_bench.environment import capture_environment
from halign_bench.printing import print_table

if TYPE_CHECKING:
    from halign_bench.record import MetricValue
    from halign_bench.scoring.inputs import Inputs
    from halign_bench.scoring.scorer import Scores

SCHEMA = "halign-bench/score/1"
PROBLEMS_SHOWN = 20


def document(scores: Scores, inputs: Inputs, decoding: str) -> dict[str, Any]:
    """JSON-able: totals with their protocols, what was left out, and what became of each file."""
    return {
        "schema": SCHEMA,
        "metrics": {key: value.model_dump(mode="json") for key, value in scores.metrics.items()},
        "left_out": scores.left_out,
        "clips": [asdict(report) for report in scores.reports],
        "refusals": [{"source": refusal.source, "reason": refusal.reason} for refusal in inputs.refusals],
        "ignored_files": inputs.ignored,
        "unused_references": inputs.unused,
        "decoding": decoding,
        "bootstrap": scores.bootstrap.model_dump(mode="json"),
        "environment": capture_environment().model_dump(mode="json"),
    }


def write(folder: Path, scores: Scores, whole: dict[str, Any]) -> None:
    """`clips.parquet`, then `score.json`, each whole or not at all."""
    write_clips(folder / "clips.parquet", scores.clips)
    atomic_write(folder / "score.json", json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def show(scores: Scores, inputs: Inputs, folder: Path) -> None:
    """The table, what is missing from it and why, and which files had something amiss."""
    rows = [(_label(key, value), *_cells(value, len(scores.reports))) for key, value in scores.metrics.items()]
    header = ("score", "value", "95 % interval", "clips", "not scored, and why")
    print_table(header, rows, bad=[value.value is None for value in scores.metrics.values()])
    if scores.left_out:
        print("Left out:")
        by_reason: dict[str, list[str]] = {}
        for name, reason in scores.left_out.items():
            by_reason.setdefault(reason, []).append(name)
        for reason, names in by_reason.items():
            print(f"  {', '.join(names)}: {reason}")
    amiss = [f"{report.name}: {note}" for report in scores.reports for note in (*_error(report.error), *report.notes)]
    amiss += [f"{refusal.source}: {refusal.reason}" for refusal in inputs.refusals]
    if amiss:
        print("Files:")
        for line in amiss[:PROBLEMS_SHOWN]:
            print(f"  {line}")
        if len(amiss) > PROBLEMS_SHOWN:
            print(f"  and {len(amiss) - PROBLEMS_SHOWN} more in {folder / 'score.json'}")
    if inputs.ignored or inputs.unused:
        parts = [f"{inputs.ignored} files are no videos"] * bool(inputs.ignored)
        parts += [f"{inputs.unused} references were not asked for"] * bool(inputs.unused)
        print(f"Passed over: {', '.join(parts)}.")
    print(f"{folder / 'score.json'} has the protocols, {folder / 'clips.parquet'} the scores of single clips.")


def _error(error: str | None) -> list[str]:
    return [error] if error is not None else []


def _label(key: str, value: MetricValue) -> str:
    side = {True: " ↑", False: " ↓", None: ""}[value.higher_is_better]
    return f"{key}{side}"


def _cells(value: MetricValue, clips: int) -> tuple[str, str, str, str]:
    failed = "; ".join(f"{count}: {reason}" for reason, count in sorted(value.failed.items()))
    if value.value is None:
        return "-", "", f"0 of {clips}", failed or value.reason or ""
    interval = f"{value.ci[0]:.4g} to {value.ci[1]:.4g}" if value.ci is not None else "-"
    return f"{value.value:.4g}", interval, f"{value.n} of {clips}", failed


__all__ = ["SCHEMA", "document", "show", "write"]
