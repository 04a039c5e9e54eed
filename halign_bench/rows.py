"""Rows of a table: a method's scores as means over seeds, with intervals, ranks, differences, cost and Pareto front."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from halign_bench.comparing import Cells
from halign_bench.pairing import Scores
from halign_bench.record import SPEED, Record, parse_key
from halign_bench.stats import pareto_front, score_interval

ORDER = (
    "fid", "fvd", "kid", "sync_c", "sync_d", "sync_offset", "hkc", "hkc_coverage", "hkv",
    "ssim_hand", "psnr_hand", "csim", "ssim", "psnr", "lpips", "motion", "motion_gap",
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One cell of the table. `delta` is the difference from base and sft; `n` the clips scored, per seed."""

    value: float | None
    ci: tuple[float, float] | None
    n: int
    n_seeds: int
    unit: str
    higher_is_better: bool | None
    protocol: str
    rank: int | None = None
    delta: dict[str, float] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True)
class Row:
    method: str
    status: str  # done, partial (some seeds failed), diverged, failed, timeout
    n_seeds: int
    seeds: list[int]
    metrics: dict[str, Score]
    cost: dict[str, float | None]
    pareto: bool | None = None
    reason: str | None = None
    warnings: list[str] = field(default_factory=list)


# Rows


def row_of(method: str, cells: Cells) -> Row:
    done = cells.done(method)
    failures = [record for record in cells.methods[method] if record.status != "done"]
    status = "done" if not failures else "partial" if done else failures[0].status
    reason = "; ".join(f"seed {r.cell.seed} {r.status}: {r.error}" for r in failures) or None
    measured = [key for key in cells.keys if any(key in record.metrics for record in done)]
    scores = cells.scores if cells.beside(method) else None
    metrics = {key: _score(done, key, scores) for key in measured}
    warnings = [f"seed {r.cell.seed}: {sign.text}" for r in cells.methods[method] for sign in r.warnings]
    seeds = [record.cell.seed for record in done]
    return Row(method, status, len(done), seeds, metrics, _cost(done), reason=reason, warnings=warnings)


def _score(done: Sequence[Record], key: str, scores: Scores | None) -> Score:
    """`scores` is None where nothing lies beside the records: then several seeds have no interval."""
    given = [record.metrics[key] for record in done if key in record.metrics]
    known = [score for score in given if score.value is not None]
    reasons = sorted({score.reason for score in given if score.value is None and score.reason})
    absent = len(done) - len(known)
    failed: dict[str, int] = {}
    for score in given:
        for cause, count in score.failed.items():
            failed[cause] = failed.get(cause, 0) + count
    about, n = given[0], min((score.n for score in known), default=0)
    value: float | None = None
    ci = known[0].ci if len(known) == 1 else None
    if known:
        value = mean([score.value for score in known if score.value is not None])
    if len(known) > 1 and scores is not None and parse_key(key).name != SPEED:
        sample = scores.sample([(record, None) for record in done if key in record.metrics], key)
        if sample.reason is None and len(sample.points) == len(known):
            ci = score_interval(sample.points, sample.replicates, sample.identities, about.bounds)
    why = "; ".join(reasons) or "not measured"
    reason = why if not known else f"{absent} of {len(done)} seeds without a score: {why}" if absent else None
    return Score(
        value=value, ci=ci, n=n, n_seeds=len(known), unit=about.unit, higher_is_better=about.higher_is_better,
        protocol=about.protocol, failed=failed, reason=reason,
    )  # fmt: skip


def mean(values: Sequence[float]) -> float:
    """Rounded once, so that seeds in another order, or another Python's sum, make no difference where methods tie."""
    return statistics.fmean(values)


def _cost(done: Sequence[Record]) -> dict[str, float | None]:
    def mean_of(read: Callable[[Record], float | None]) -> float | None:
        values = [value for record in done if (value := read(record)) is not None]
        return mean(values) if values else None

    return {
        "train_seconds": mean_of(lambda r: r.timings.train),
        "sample_seconds": mean_of(lambda r: r.timings.sample),
        "score_seconds": mean_of(lambda r: r.timings.score),
        "trained_parameters": mean_of(lambda r: r.training.trained_parameters if r.training else None),
        "samples_seen": mean_of(lambda r: r.training.samples_seen if r.training else None),
        "samples_sampled": mean_of(lambda r: r.training.samples_sampled if r.training else None),
        "peak_memory_bytes": mean_of(lambda r: r.training.peak_memory_bytes if r.training else None),
    }


def stands_for(text: str, key: str) -> bool:
    """Whether a name as it is asked for means this score: "fid" and "fid@puppet" both mean "fid@puppet/nfe20"."""
    wanted, found = parse_key(text), parse_key(key)
    return wanted.name == found.name and wanted.where in (None, found.where) and wanted.nfe in (None, found.nfe)


def ordered(rows: Sequence[Row], order: Sequence[str] = ORDER) -> list[str]:
    def place(key: str) -> tuple:
        name, where, nfe = parse_key(key)
        index = next((i for i, text in enumerate(order) if stands_for(text, key)), len(order))
        return (index, name, where or "", -(nfe or 0))

    return sorted({key for row in rows for key in row.metrics}, key=place)


def with_ranks(rows: list[Row], found: Mapping[str, Mapping[str, int | None]]) -> list[Row]:
    return [
        replace(row, metrics={k: replace(s, rank=found.get(k, {}).get(row.method)) for k, s in row.metrics.items()})
        for row in rows
    ]


def with_deltas(rows: list[Row], comparisons: Sequence[Mapping[str, Any]]) -> list[Row]:
    deltas: dict[tuple[str, str], dict[str, float]] = {}
    for entry in comparisons:
        if entry["difference"] is not None:
            deltas.setdefault((entry["method"], entry["metric"]), {})[entry["than"]] = entry["difference"]
    return [
        replace(row, metrics={k: replace(s, delta=deltas.get((row.method, k), {})) for k, s in row.metrics.items()})
        for row in rows
    ]


def with_front(rows: list[Row], main: int | None, speed: bool = False) -> list[Row]:
    """Which rows are on the Pareto front of their scores at the main NFE, speed among them where it is asked for."""
    keys = [
        key for key in ordered(rows)
        if parse_key(key).nfe in (None, main) and (speed or parse_key(key).name != SPEED)
    ]  # fmt: skip
    directed = {
        key: up for key in keys
        if (up := next((r.metrics[key].higher_is_better for r in rows if key in r.metrics), None)) is not None
    }  # fmt: skip
    # A score that nobody has says nothing about anybody.
    table = {key: [row.metrics[key].value if key in row.metrics else None for row in rows] for key in directed}
    directed = {key: up for key, up in directed.items() if any(value is not None for value in table[key])}
    values = [[table[key][i] for key in directed] for i in range(len(rows))]
    front = pareto_front(values, list(directed.values())) if directed else [None] * len(rows)
    return [replace(row, pareto=on) for row, on in zip(rows, front, strict=True)]


__all__ = [
    "ORDER", "Row", "Score", "ordered", "row_of", "stands_for", "with_deltas", "with_front", "with_ranks",
]  # fmt: skip
