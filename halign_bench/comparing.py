"""Who is better than whom: comparisons with base and sft, ranks, and the claims of papers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from halign_bench.pairing import Sample, Scores
from halign_bench.results import ClaimData, MetricKey, Record, metric_key, parse_key
from halign_bench.stats import holm, significance_ranks

REFERENCES = ("base", "sft")
ALPHA = 0.05
SPEED = "seconds_per_second"  # measured once a record, not clip by clip: shown, not tested


@dataclass(frozen=True)
class Cells:
    """The records of a table by method, the scores they have, and the main NFE."""

    methods: Mapping[str, Sequence[Record]]
    keys: tuple[str, ...]
    main: int | None
    scores: Scores

    def done(self, method: str) -> list[Record]:
        return [record for record in self.methods[method] if record.status == "done"]

    def nfe(self, key: str) -> int | None:
        nfe = parse_key(key).nfe
        return self.main if nfe is None else nfe

    def direction(self, key: str) -> bool | None:
        known = (r.metrics[key].higher_is_better for cells in self.methods.values() for r in cells if key in r.metrics)
        return next(known, None)

    def tested(self) -> list[str]:
        return [key for key in self.keys if parse_key(key).name != SPEED]

    def matching(self, text: str) -> list[str]:
        """Keys that a name means: any extractor unless one is named, the main NFE unless one is named."""
        wanted = parse_key(text)
        nfe = self.main if wanted.nfe is None else wanted.nfe
        return [
            key for key in self.keys
            if parse_key(key).name == wanted.name
            and wanted.where in (None, parse_key(key).where)
            and self.nfe(key) == nfe
        ]  # fmt: skip

    def paired(self, method: str, than: str, key: str, other_key: str | None = None) -> Sample:
        """Score of `method` less that of `than`, over the seeds both have."""
        by_seed = {record.cell.seed: record for record in self.done(than)}
        pairs = [(r, by_seed[r.cell.seed]) for r in self.done(method) if r.cell.seed in by_seed]
        return self.scores.sample(pairs, key, other_key)


def comparisons(cells: Cells) -> list[dict[str, Any]]:
    """Every method against base and sft, on every score; Holm within each reference and NFE."""
    found: list[dict[str, Any]] = []
    for than in (name for name in REFERENCES if name in cells.methods):
        families: dict[int | None, list[dict[str, Any]]] = {}
        for method in (name for name in cells.methods if name != than and not (than == "sft" and name == "base")):
            for key in cells.tested():
                described = _described(cells.paired(method, than, key))
                entry = {"method": method, "than": than, "metric": key, **described}
                families.setdefault(cells.nfe(key), []).append(entry)
        for family in families.values():
            for entry, p in zip(family, holm([entry["p"] for entry in family]), strict=True):
                entry["higher_is_better"] = cells.direction(entry["metric"])
                entry["p_holm"] = p
                entry["verdict"] = _verdict(entry["difference"], p, entry["higher_is_better"])
            found += family
    return found


def _described(sample: Sample) -> dict[str, Any]:
    difference = sample.difference()
    return {
        "difference": difference.value, "ci": difference.ci, "p": difference.p, "n": sample.clips,
        "n_seeds": difference.seeds, "n_identities": difference.identities, "reason": difference.reason,
    }  # fmt: skip


def _verdict(difference: float | None, p: float | None, up: bool | None) -> str | None:
    if difference is None or p is None:
        return None
    if p >= ALPHA:
        return "undecided"
    if up is None:
        return "higher" if difference > 0 else "lower"
    return "better" if (difference > 0) == up else "worse"


def ranks(cells: Cells) -> dict[str, dict[str, int | None]]:
    """Score -> method -> rank, from all pairs of methods; Holm over the pairs of a score."""
    names = list(cells.methods)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    found = {}
    for key in cells.tested():
        up = cells.direction(key)
        if up is None:
            continue
        differences = [cells.paired(a, b, key).difference() for a, b in pairs]
        better: dict[tuple[str, str], bool | None] = {}
        for (a, b), difference, p in zip(pairs, differences, holm([d.p for d in differences]), strict=True):
            verdict = _verdict(difference.value, p, up)
            better[a, b] = None if verdict is None else verdict == "better"
            better[b, a] = None if verdict is None else verdict == "worse"
        found[key] = significance_ranks(names, better)
    return found


def claims(cells: Cells) -> list[dict[str, Any]]:
    """Each method's claims on this track: supported, refuted or not enough data."""
    results = []
    for method, records in cells.methods.items():
        stated = {json.dumps(claim.model_dump(), sort_keys=True): claim for r in records for claim in r.claims}
        for claim in stated.values():
            keys = cells.matching(claim.metric)
            judged = [_judged(claim, method, key, cells) for key in keys] or [
                _unknown(None, f"{claim.metric} was not measured")
            ]
            results += [{"method": method, **claim.model_dump(), **verdict} for verdict in judged]
    return results


def _unknown(key: str | None, reason: str | None) -> dict[str, Any]:
    return {"key": key, "verdict": "not enough data", "improvement": None, "ci": None, "reason": reason}


def _judged(claim: ClaimData, method: str, key: str, cells: Cells) -> dict[str, Any]:
    than, _, at = claim.better_than.partition("/nfe")  # "base/nfe100": across the NFE grid
    if than not in cells.methods:
        return _unknown(key, f"{than} is not in this table")
    up = cells.direction(key)
    if up is None:
        return _unknown(key, f"{claim.metric} has no better side")
    other = key
    if at:
        name, where, _ = parse_key(key)
        found = cells.matching(metric_key(*MetricKey(name, where, int(at))))
        if not found:
            return _unknown(key, f"{claim.metric} was not measured at NFE {at}")
        other = found[0]
    difference = cells.paired(method, than, key, other).difference()
    if difference.value is None or difference.ci is None:
        return _unknown(key, difference.reason)
    sign = 1 if up else -1
    low, high = sorted(sign * end for end in difference.ci)
    verdict = "supported" if low > claim.margin else "refuted" if high < claim.margin else "not enough data"
    reason = "the interval includes the margin" if verdict == "not enough data" else None
    return {"key": key, "verdict": verdict, "improvement": sign * difference.value, "ci": (low, high), "reason": reason}
