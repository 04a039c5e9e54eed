"""What the page says in tables and sentences, as plain data: the template escapes every text of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from halign_bench.figures.labels import parted
from halign_bench.figures.source import Source
from halign_bench.leaderboard import RULES, Leaderboard
from halign_bench.record import Record
from halign_bench.rows import Row
from halign_bench.tables.cells import (
    ABSENT,
    UNFIT,
    Cells,
    direction,
    key_at,
    keys_shown,
    number,
    speed,
)
from halign_bench.tables.content import cost_columns, failures, seeds, unfit_lines
from halign_bench.tables.judgements import outcome, rivals_not_run


@dataclass(frozen=True)
class Column:
    """sort   None is text, True a number whose better side, or first side, is the highest
    where  what stands small below the name: whose features a score rests on
    """

    name: str
    sort: bool | None = None
    where: str = ""
    about: str = ""
    score: bool = False


@dataclass(frozen=True)
class Cell:
    """value  what is sorted by, None for text and for what was not measured; rank's place 1 or 2 where it has one"""

    text: str
    value: float | None = None
    half: str = ""
    mark: str = ""
    rank: int | None = None
    place: int | None = None
    about: str = ""


@dataclass(frozen=True)
class Line:
    """A method at one NFE of the grid."""

    method: str
    nfe: int | None
    status: str
    on_front: bool
    cells: list[Cell]


# Leaderboard


def columns(board: Leaderboard) -> list[Column]:
    """Of every line's cells: scores, then cost."""
    found = []
    for key in keys_shown(board):
        name, where = parted(key, direction(board, key))
        mark = f" {UNFIT}" if key in board.unfit else ""
        found.append(Column(name + mark, direction(board, key) or False, where, _protocol(board, key), score=True))
    return [*found, *(Column(name, False) for name in _cost(board))]


def lines(board: Leaderboard) -> list[Line]:
    """Every method at every NFE, the main one first; a method without scores has one line."""
    shown, keys, cost = Cells(board), keys_shown(board), cost_columns(board)
    found = []
    grid: list[int | None] = [*board.nfes()] or [None]
    for nfe in grid:
        for number_of, row in enumerate(board.rows):
            if not row.metrics and nfe != board.main_nfe:
                continue
            cells = [_cell(shown, row, key_at(board, key, nfe)) for key in keys]
            for name in _cost(board):
                took = speed(board, row, nfe)
                text = number(took) if name == "s/s" else cost[name][number_of]
                cells.append(Cell(text, _value(text)))
            found.append(Line(row.method, nfe, row.status, bool(row.pareto) and nfe == board.main_nfe, cells))
    return found


def _cost(board: Leaderboard) -> list[str]:
    return [name for name in cost_columns(board) if name not in ("status", "NFE")]


def _value(text: str) -> float | None:
    return None if text == ABSENT else float(text.replace(",", ""))


def _cell(cells: Cells, row: Row, key: str | None) -> Cell:
    found = cells.at(row, key)
    score = row.metrics.get(key) if key is not None else None
    if found is None:
        return Cell(ABSENT, about=(score.reason if score is not None else None) or "not measured")
    half = "" if found.half is None else f"±{number(found.half, found.half)}"
    mark = {"better": "+", "worse": "!"}.get(found.verdict or "", "")
    assert score is not None
    return Cell(number(found.value, found.half), found.value, half, mark, found.rank, found.place, score.reason or "")


def _protocol(board: Leaderboard, key: str) -> str:
    return next((row.metrics[key].protocol for row in board.rows if key in row.metrics), "")


# Claims


def claims(board: Leaderboard) -> list[dict[str, Any]]:
    """Each with the text of its comparisons."""
    return [
        {
            "method": claim["method"], "text": claim["text"], "source": claim["source"], "verdict": claim["verdict"],
            "comparisons": [
                {"what": f"{part['key'] or 'a score'}: {part['method']} over {part['than']}", "found": outcome(part),
                 "verdict": part["verdict"]}
                for part in claim["comparisons"]
            ],
        }
        for claim in board.claims
    ]  # fmt: skip


# Where it comes from


@dataclass(frozen=True)
class Place:
    """An environment, and the cells that ran in it."""

    cells: list[str]
    facts: list[tuple[str, str]]


def places(records: Sequence[Record]) -> list[Place]:
    """Environments that differ, those with the most cells first."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.environment.model_dump_json(), []).append(record)
    ordered = sorted(found.values(), key=len, reverse=True)
    return [Place([record.name for record in group], _facts(group[0])) for group in ordered]


def _facts(record: Record) -> list[tuple[str, str]]:
    environment = record.environment
    commit = environment.git_commit or "unknown"
    changed = {True: ", with uncommitted changes", False: "", None: ""}[environment.git_dirty]
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    hardware = [(f"hardware: {name}", _text(value)) for name, value in environment.hardware.items()]
    return [("Python", environment.python), ("git commit", commit + changed), ("packages", packages), *hardware]


def protocol(board: Leaderboard) -> list[tuple[str, str]]:
    """Everything that was held equal, as dotted names."""
    return list(_flat(board.protocol))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Any:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _text(inner)


def _text(value: Any) -> str:
    if value in ([], {}):
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# The page


def context(source: Source) -> dict[str, Any]:
    """Everything that the template shows, beside figures and gallery."""
    board = source.table
    records = [record for cells in source.records.methods.values() for record in cells]
    first = records[0]
    return {
        "track": first.cell.track,
        "backbone": first.cell.backbone,
        "protocol_hash": board.protocol_hash[:12],
        "facts": [
            ("Methods", str(len(board.rows))),
            ("Cells", f"{len(records)}, of which {sum(r.status == 'done' for r in records)} finished"),
            ("Main NFE", str(board.main_nfe) if board.main_nfe is not None else "not stated"),
            ("Base", f"{first.base.name}, sha256 {first.base.sha256[:12]}"),
            ("Protocol", board.protocol_hash[:12]),
        ],
        "seeds": seeds(board),
        "unfit": unfit_lines(board),
        "columns": columns(board),
        "lines": lines(board),
        "nfes": board.nfes(),
        "main_nfe": board.main_nfe,
        "claims": claims(board),
        "not_run": rivals_not_run(board),
        "differences": _differences(board),
        "failures": failures(board),
        "signs": [f"{row.method}, {warning}" for row in board.rows for warning in row.warnings],
        "places": places(records),
        "protocol": protocol(board),
        "evaluators": sorted(first.evaluators.items()),
        "rules": RULES,
    }


def _differences(board: Leaderboard) -> list[dict[str, Any]]:
    """Paired differences from base and sft, at every NFE."""
    found = []
    for entry in board.comparisons:
        if entry["difference"] is None:
            continue
        half = (entry["ci"][1] - entry["ci"][0]) / 2 if entry["ci"] else None
        found.append({
            "method": entry["method"], "than": entry["than"], "score": entry["metric"], "n": entry["n"],
            "n_seeds": entry["n_seeds"], "difference": Cell(number(entry["difference"], half), entry["difference"]),
            "ci": " to ".join(number(end, half) for end in entry["ci"]) if entry["ci"] else ABSENT,
            "p": Cell(ABSENT if entry["p_holm"] is None else f"{entry['p_holm']:.2g}", entry["p_holm"]),
            "verdict": entry["verdict"] or entry["reason"] or ABSENT,
        })  # fmt: skip
    return found


__all__ = ["Cell", "Column", "Line", "Place", "columns", "context", "lines"]
