"""Several records: cells given twice, scores that were copied, and one base that is measured in two ways."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from halign_bench.comparing import REFERENCES
from halign_bench.record import SPEED, Record, parse_key
from halign_bench.validation.companions import Scored
from halign_bench.validation.finding import Finding

DRIFT = 0.1  # of half the interval: as far as another machine may move the base's scores
FASTER = 5.0  # than the base, with the same backbone on one machine: no method of this kind is


@dataclass(frozen=True)
class Checked:
    """A record, and for each of its scores a hash of what every clip got, where that is telling."""

    source: str
    record: Record
    prints: dict[str, Hashable]


def fingerprints(clips: dict[str, Scored]) -> dict[str, Hashable]:
    """Only of scores that differ from clip to clip: shares and offsets of two methods may well agree."""
    return {
        key: hash((rows.clips, rows.values))
        for key, rows in clips.items()
        if len(set(rows.values)) > len(rows.values) / 2
    }


def findings(checked: Sequence[Checked]) -> Iterator[Finding]:
    """Each is said of the later of two records."""
    yield from _twice(checked)
    yield from _copied(checked)
    yield from _definitions(checked)
    yield from _too_fast(checked)


def _cell(entry: Checked) -> tuple[str, str, int]:
    return entry.record.protocol_hash, entry.record.cell.method, entry.record.cell.seed


def _twice(checked: Sequence[Checked]) -> Iterator[Finding]:
    first: dict[tuple, Checked] = {}
    for entry in checked:
        other = first.setdefault(_cell(entry), entry)
        if other is entry:
            continue
        if entry.record.cell.method not in REFERENCES:
            yield Finding(entry.source, "cell", f"{entry.record.name} is given twice; {other.source} holds it too")
            continue
        # Every run brings base and sft along. The base is the same everywhere; training may differ by machine.
        for key, score in entry.record.metrics.items() if entry.record.cell.method == "base" else ():
            theirs = other.record.metrics.get(key)
            if theirs is None or None in (score.value, theirs.value) or parse_key(key).name == SPEED:
                continue
            ours, before = float(score.value or 0), float(theirs.value or 0)
            allowed = DRIFT * (theirs.ci[1] - theirs.ci[0]) / 2 if theirs.ci else 0.0
            if abs(ours - before) > allowed + 1e-6 * abs(before):
                text = f"is {ours:g}, and {before:g} in {other.source}, for the same base, seed and clips"
                yield Finding(entry.source, f"metrics.{key}.value", text)


def _copied(checked: Sequence[Checked]) -> Iterator[Finding]:
    first: dict[tuple, Checked] = {}
    for entry in checked:
        alike: dict[str, list[str]] = {}
        for key, print_ in entry.prints.items():
            other = first.setdefault((entry.record.protocol_hash, key, print_), entry)
            if _cell(other) != _cell(entry):
                alike.setdefault(f"{other.source} ({other.record.name})", []).append(key)
        for source, keys in alike.items():
            more = f" and {len(keys) - 1} more scores" if len(keys) > 1 else ""
            yield Finding(entry.source, "files.clips", f"every clip has the {keys[0]}{more} that it has in {source}")


def _definitions(checked: Sequence[Checked]) -> Iterator[Finding]:
    first: dict[tuple[str, str], tuple[str, tuple]] = {}
    for entry in checked:
        for key, score in entry.record.metrics.items():
            stated = score.unit, score.higher_is_better, score.bounds
            source, before = first.setdefault((entry.record.protocol_hash, key), (entry.source, stated))
            if before != stated:
                text = f"unit, higher_is_better or bounds differ from those in {source}"
                yield Finding(entry.source, f"metrics.{key}", text)


def _too_fast(checked: Sequence[Checked]) -> Iterator[Finding]:
    base: dict[tuple, float] = {}
    for entry in checked:
        if entry.record.cell.method == "base":
            for key, where, value in _speeds(entry):
                base[where, key] = min(value, base.get((where, key), value))
    for entry in checked:
        for key, where, value in _speeds(entry):
            slowest = base.get((where, key))
            if slowest is not None and value * FASTER < slowest:
                text = f"is {slowest / value:.3g} times as fast as the base on the same machine"
                yield Finding(entry.source, f"metrics.{key}.value", text)


def _speeds(entry: Checked) -> Iterator[tuple[str, tuple[str, str], float]]:
    machine = json.dumps(entry.record.environment.hardware, sort_keys=True)
    for key, score in entry.record.metrics.items():
        if parse_key(key).name == SPEED and score.value:
            yield key, (entry.record.protocol_hash, machine), score.value


__all__ = ["Checked", "findings", "fingerprints"]
