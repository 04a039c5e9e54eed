"""What the given folders hold: records with the table made of them, their trainings, and analyses of noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from halign_bench.comparing import Cells
from halign_bench.documents import parsed
from halign_bench.errors import RequestError
from halign_bench.gathering import gather
from halign_bench.leaderboard import Leaderboard, build
from halign_bench.record import SPEED, Record, parse_key
from halign_bench.report.resample import Origin
from halign_bench.results import read_records

Row = dict[str, Any]  # one line of a figure's CSV
HEADLINE = ("fid", "fvd", "sync_c", "hkc", "csim", "motion_gap")  # one of each kind; what else there is fills up
TIMESTEPS = "timesteps.json"


class NoData(Exception):
    """The records do not hold what a figure shows; the message is one sentence that says what is missing."""


@dataclass(frozen=True)
class Source:
    """board, cells  the table and its records; None where only analyses were given
    analyses  documents of `analyze timesteps`
    origin    where the clips and the weights are that the runs were given, to sample again
    """

    board: Leaderboard | None = None
    cells: Cells | None = None
    analyses: list[dict[str, Any]] = field(default_factory=list)
    origin: Origin = field(default_factory=Origin)

    @property
    def table(self) -> Leaderboard:
        if self.board is None:
            raise NoData("no records were given")
        return self.board

    @property
    def records(self) -> Cells:
        if self.cells is None:
            raise NoData("no records were given")
        return self.cells

    @property
    def methods(self) -> tuple[str, ...]:
        """base and sft first, then methods as they are, then those with settings in brackets."""
        names = [row.method for row in self.board.rows] if self.board is not None else []
        return tuple(sorted(names, key=lambda name: "[" in name))

    def remarks(self) -> list[str]:
        """What holds for every figure of the table: its protocol, seeds, and what was left out of it."""
        if self.board is None:
            return []
        seeds: dict[int, list[str]] = {}
        for row in self.board.rows:
            seeds.setdefault(row.n_seeds, []).append(row.method)
        counts = "; ".join(f"{count} of {', '.join(methods)}" for count, methods in sorted(seeds.items()))
        refused = [f"{refusal.source}: left out, {refusal.reason}" for refusal in self.board.refused]
        said = "an interval of one seed does not cover how training varies"
        return [
            f"Protocol `{self.board.protocol_hash[:12]}`, main NFE {self.board.main_nfe}.",
            f"Seeds: {counts}{f' ({said})' if 1 in seeds else ''}.", *refused, *self.board.notes,
        ]  # fmt: skip


def read(paths: Sequence[Path]) -> Source:
    """Raises `RequestError` for what does not exist, holds neither records nor an analysis, or shares no protocol."""
    analyses = [path for path in paths if path.name == TIMESTEPS or (path / TIMESTEPS).is_file()]
    documents = [_analysis(path if path.is_file() else path / TIMESTEPS) for path in analyses]
    others = [path for path in paths if path not in analyses or (path / "records").is_dir()]
    if not others:
        return Source(analyses=documents)
    records, refused = read_records(others)
    board = build(records, refused)
    return Source(board, gather(records), documents)


def _analysis(path: Path) -> dict[str, Any]:
    from halign_bench.analysis.timesteps.report import SCHEMA

    try:
        document = parsed(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise RequestError(f"{path}: cannot be read ({problem.strerror or problem})") from None
    except ValueError as problem:
        raise RequestError(f"{path}: no JSON ({problem})") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise RequestError(f"{path}: not an analysis of noise levels; halign-bench analyze timesteps writes them")
    return document


# What several figures ask of a table


def headline(board: Leaderboard, wanted: Sequence[str] = HEADLINE, most: int | None = None) -> list[str]:
    """Up to `most` scores at the main NFE that have a better side: those of `wanted`, then what else there is."""
    keys = [
        key for key in board.scores_at()
        if direction(board, key) is not None and board.measured(key)
        and parse_key(key).name not in (SPEED, "implicit_accuracy")
    ]  # fmt: skip
    names = [parse_key(key).name for key in keys]
    first = [keys[i] for name in wanted for i in range(len(keys)) if names[i] == name]
    return [*first, *(key for key in keys if key not in first)][: most or len(wanted)]


def direction(board: Leaderboard, key: str) -> bool | None:
    return next((row.metrics[key].higher_is_better for row in board.rows if key in row.metrics), None)


def unit(board: Leaderboard, key: str) -> str:
    return next((row.metrics[key].unit for row in board.rows if key in row.metrics), "")


def at_nfe(board: Leaderboard, key: str, nfe: int) -> str | None:
    """The name that the same score has at another NFE of the grid; None where it was not measured there."""
    name, where, _ = parse_key(key)
    return next((k for k in board.scores_at(nfe) if parse_key(k)[:2] == (name, where)), None)


def against_base(board: Leaderboard) -> dict[tuple[str, str], dict[str, Any]]:
    """(method, score) -> the paired comparison with base, where there is one with an interval.

    Raises NoData where base is not in the table.
    """
    if not any(row.method == "base" and row.metrics for row in board.rows):
        raise NoData("base is not among the finished records, and methods are shown against it")
    return {
        (entry["method"], entry["metric"]): entry
        for entry in board.comparisons if entry["than"] == "base" and entry["ci"] is not None
    }  # fmt: skip


def effective(record: Record) -> list[dict[str, Any]]:
    """Methods of a record's pipeline with their numbers; empty where a third party's record keeps them otherwise."""
    parts = record.config.effective
    if not isinstance(parts, list):
        return []
    return [part for part in parts if isinstance(part, dict) and isinstance(part.get("config"), dict)]  # type: ignore


__all__ = ["NoData", "Row", "Source", "against_base", "at_nfe", "direction", "effective", "headline", "read", "unit"]
