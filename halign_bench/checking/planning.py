"""For each score on record: which margin its clips and seeds tell, and how many of either a margin takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from halign_bench.checking import power
from halign_bench.checking.margins import Margin, Margins
from halign_bench.checking.measuring import pair, records_of
from halign_bench.comparing import ALPHA
from halign_bench.errors import RequestError
from halign_bench.gathering import check_protocols
from halign_bench.pairing import Sample, Scores
from halign_bench.record import SPEED, Record, parse_key

REFERENCE = "base"


@dataclass(frozen=True)
class Needed:
    """What the margin of one score takes. None of `clips` and `seeds`: no number would do, or `reason`.

    clips    with as many seeds, and as many clips to an identity, as on record
    seeds    with the clips on record
    power    probability that the margin is told with what is on record
    both     clips and seeds together, where neither alone would do
    tells    the smallest margin that is told with what is on record, in the score's own unit
    """

    method: str
    metric: str
    margin: float
    margin_given: str
    n: int
    n_identities: int
    n_seeds: int
    power: float | None = None
    tells: float | None = None
    clips: int | None = None
    seeds: int | None = None
    both: tuple[int, int] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Source:
    """A score's paired difference on record, whose variance is planned with."""

    method: str
    key: str
    baseline: float
    margin: Margin
    sample: Sample


def sources(run: Path, baseline: Path | None, margins: Margins) -> list[Source]:
    """Differences of run and baseline; without a baseline, of each method and `base`, on the same clips and noise.

    Raises `RequestError` as `pair` does, and where there is no other method than base.
    """
    if baseline is not None:
        return [Source(m.method, m.key, m.baseline, m.margin, m.sample) for m in pair(run, baseline, margins).scores]
    records = records_of(run, "the run")[0]
    check_protocols(records)
    margins.check(key for record in records for key in record.metrics)
    bases = {r.cell.seed: r for r in records if r.cell.method == REFERENCE and r.status == "done"}
    others = [r for r in records if r.cell.method != REFERENCE and r.status == "done" and r.cell.seed in bases]
    if not others:
        raise RequestError(f"{run}: a plan takes differences on record: a method and base, or --against a baseline")
    scores, found = Scores(), []
    for method in dict.fromkeys(record.cell.method for record in others):
        mine = [record for record in others if record.cell.method == method]
        for key in dict.fromkeys(key for record in mine for key in record.metrics):
            source = _source(method, key, [(r, bases[r.cell.seed]) for r in mine], margins, scores)
            if source is not None:
                found.append(source)
    return found


def _source(
    method: str, key: str, pairs: Sequence[tuple[Record, Record]], margins: Margins, scores: Scores
) -> Source | None:
    given = [r.metrics[key] for r, _ in pairs if key in r.metrics]
    values = [score.value for score in given if score.value is not None]
    if given[0].higher_is_better is None or parse_key(key).name == SPEED or not values:
        return None
    return Source(method, key, sum(values) / len(values), margins.of(key, given[0]), scores.sample(pairs, key))


def planned(found: Sequence[Source]) -> list[Needed]:
    """In the order given. As many checks are corrected for as there are scores."""
    return [_needed(source, len(found)) for source in found]


def _needed(source: Source, checks: int) -> Needed:
    sample, margin = source.sample, source.margin.of(source.baseline)
    known = (source.method, source.key, margin, source.margin.given, sample.clips, sample.identities,
             len(sample.points))  # fmt: skip
    variance = power.variance_of(sample)
    if variance is None:
        return Needed(*known, reason=sample.reason or "no spread on record: equal on every clip")
    now = power.chance(variance, variance.identities, variance.n_seeds, margin, checks)
    tells = power.least_margin(variance, checks)
    if margin == 0:
        return Needed(*known, now, tells, reason="no number of clips tells a margin of 0")
    clips = power.clips_needed(variance, variance.n_seeds, margin, checks)
    seeds = power.seeds_needed(variance, margin, checks)
    both = power.both_needed(variance, margin, checks) if clips is None and seeds is None else None
    return Needed(*known, now, tells, clips, seeds, both)


def document(needed: Sequence[Needed]) -> dict[str, Any]:
    return {
        "schema": "halign-bench/plan/1",
        "power": power.POWER,
        "alpha": ALPHA,
        "checks": len(needed),
        "scores": [asdict(one) for one in needed],
    }


__all__ = ["Needed", "Source", "document", "planned", "sources"]
