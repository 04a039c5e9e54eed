"""Which records stand together in a table: of one protocol, one for each method and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from halign_bench.comparing import REFERENCES, Cells
from halign_bench.errors import RequestError
from halign_bench.pairing import Scores
from halign_bench.record import Record, parse_key


def gather(records: Sequence[Record], notes: list[str] | None = None) -> Cells:
    """At least one record, as a table has them: one a cell, by method. Raises as `build`; `notes` gets remarks."""
    check_protocols(records)
    methods = _by_method(one_per_cell(records, [] if notes is None else notes))
    keys = tuple(dict.fromkeys(key for record in records for key in record.metrics))
    return Cells(methods, keys, _main_nfe(records), Scores())


# Which records stand together


def check_protocols(records: Sequence[Record]) -> None:
    """What was trained, sampled and scored is the same; only a metric may be in some of them and not in others."""
    first = records[0]
    for record in records[1:]:
        if record.protocol_hash == first.protocol_hash and record.protocol == first.protocol:
            continue
        ours, theirs = _flat(first.protocol), _flat(record.protocol)
        pairs = {key: (ours.get(key), theirs.get(key)) for key in sorted(ours.keys() | theirs.keys())}
        differing = [
            key for key, (a, b) in pairs.items() if a != b and not (key.startswith("metrics.") and None in (a, b))
        ]
        unexplained = record.protocol == first.protocol and record.protocol_hash != first.protocol_hash
        if differing or unexplained:
            here, there = first.source or first.name, record.source or record.name
            shown = "; ".join(f"{k} is {_short(ours.get(k))} and {_short(theirs.get(k))}" for k in differing[:5])
            more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
            raise RequestError(
                f"{here} and {there} were measured under different protocols and cannot share a table: "
                f"{shown or 'their protocol hashes differ'}{more}"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}.{key}" if prefix else key).items()}


def _short(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def one_per_cell(records: Sequence[Record], notes: list[str]) -> list[Record]:
    """One record for each method and seed: of two, a finished one."""
    cells: dict[tuple[str, int], Record] = {}
    for record in records:
        key = (record.cell.method, record.cell.seed)
        other = cells.setdefault(key, record)
        if other is record:
            continue
        if other.config.effective != record.config.effective:
            raise RequestError(
                f"{other.source or other.name} and {record.source or record.name} are both {record.name}, "
                "but with different settings; leave one out"
            )
        if other.status != "done" and record.status == "done":
            cells[key] = record
        notes.append(f"{record.name} was given twice; {cells[key].source or 'the first'} is used")
    return list(cells.values())


def _by_method(records: Sequence[Record]) -> dict[str, list[Record]]:
    """base and sft first, then as given; each method's records by seed."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.cell.method, []).append(record)
    names = sorted(found, key=lambda name: REFERENCES.index(name) if name in REFERENCES else len(REFERENCES))
    return {name: sorted(found[name], key=lambda r: r.cell.seed) for name in names}


def _main_nfe(records: Sequence[Record]) -> int | None:
    """The first of the protocol's grid; without one, the most network evaluations of any score."""
    protocol = records[0].protocol
    for holder in (protocol.get("evaluation"), protocol):
        grid = holder.get("nfe") if isinstance(holder, Mapping) else None
        if isinstance(grid, int):
            return grid
        if isinstance(grid, list) and grid and isinstance(grid[0], int):
            return grid[0]
    keys = {key for record in records for key in record.metrics}
    return max((nfe for key in keys if (nfe := parse_key(key).nfe) is not None), default=None)


__all__ = ["check_protocols", "gather", "one_per_cell"]
