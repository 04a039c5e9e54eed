"""One table of methods from their records: scores with intervals, ranks, paired comparisons, claims and cost.

Rows are method variants, scores are means over training seeds. What is compared is compared paired: the same clips,
seeds and resamples. A failure is a row with its status and reason.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench import registry
from halign_bench.atomic import atomic_write
from halign_bench.claims import judged
from halign_bench.comparing import Cells, comparisons, ranks
from halign_bench.errors import PluginError, RequestError
from halign_bench.gathering import gather
from halign_bench.record import Record, parse_key
from halign_bench.rows import ORDER, Row, ordered, row_of, with_deltas, with_front, with_ranks
from halign_bench.track import Refusal, Unfit

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = "halign-bench/leaderboard/1"
NO_TIMES = "the records come from different machines: times do not compare"
RULES = {
    "ci": "95 % over clips clustered by identity (recentred bootstrap percentiles), and over seeds where there are "
    "several; with one seed it does not cover how training varies",
    "comparisons": "paired on clips and seeds: t intervals from the bootstrap's variance over clips and the variance "
    "between seeds; Holm over all scores of a table against one reference at one NFE",
    "rank": "1 + number of methods significantly better (paired, Holm over all pairs of a score); methods not told "
    "apart share a rank; none where no two are told apart",
    "pareto": "no other method is at least as good in every score with a better side, and better in one",
    "claims": "each comparison of a claim is supported when the paired 95 % interval of the improvement lies above its "
    "margin, refuted when it lies below; the claim is supported when all of its comparisons are, refuted when one is; "
    "speed is paired on chunks of clips sampled on one machine; not corrected for the number of claims",
}


@dataclass(frozen=True)
class Leaderboard:
    protocol: dict[str, Any]
    protocol_hash: str
    main_nfe: int | None
    rows: list[Row]
    comparisons: list[dict[str, Any]]
    claims: list[dict[str, Any]]
    notes: list[str]
    refused: list[Refusal]
    order: tuple[str, ...] = ORDER
    unfit: dict[str, str] = field(default_factory=dict)  # score -> why it cannot be relied on here

    def document(self) -> dict[str, Any]:
        """What `leaderboard.json` holds."""
        return {
            "schema": SCHEMA,
            "protocol": self.protocol,
            "protocol_hash": self.protocol_hash,
            "main_nfe": self.main_nfe,
            "rows": [asdict(row) for row in self.rows],
            "claims": self.claims,
            "comparisons": self.comparisons,
            "notes": self.notes,
            "refused": [asdict(refusal) for refusal in self.refused],
            "unfit": self.unfit,
            "rules": RULES,
        }

    def scores_at(self, nfe: int | None = None) -> list[str]:
        """Scores at an NFE of the grid (default: the main one), in the order of the table."""
        wanted = self.main_nfe if nfe is None else nfe
        return [key for key in self._keys if self.nfe_of(key) == wanted]

    @cached_property
    def _keys(self) -> list[str]:
        return ordered(self.rows, self.order)

    def measured(self, key: str) -> bool:
        """Whether any row has a value for it."""
        return any(row.metrics[key].value is not None for row in self.rows if key in row.metrics)

    def nfe_of(self, key: str) -> int | None:
        nfe = parse_key(key).nfe
        return self.main_nfe if nfe is None else nfe

    def nfes(self) -> list[int]:
        """The grid, the main one first."""
        found = {nfe for row in self.rows for key in row.metrics if (nfe := self.nfe_of(key)) is not None}
        return sorted(found, key=lambda nfe: (nfe != self.main_nfe, -nfe))

    def to_json(self) -> str:
        return json.dumps(self.document(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        from halign_bench.tables.markdown import markdown

        return markdown(self)

    def to_csv(self) -> str:
        from halign_bench.tables.spreadsheet import csv_text

        return csv_text(self)

    def to_latex(self) -> str:
        from halign_bench.tables.latex import latex

        return latex(self)

    def to_html(self) -> str:
        from halign_bench.tables.page import page

        return page(self)

    def print(self, console: Console | None = None) -> None:
        """To `console`, by default stdout: as wide as the terminal, 100 characters in a file or pipe."""
        from rich.console import Console

        from halign_bench.tables.content import WIDTH
        from halign_bench.tables.terminal import print_tables

        print_tables(self, console or Console(width=None if sys.stdout.isatty() else WIDTH))

    def write_all(self, folder: Path) -> None:
        """`leaderboard.json`, `.md` and `.csv`, each atomically."""
        atomic_write(folder / "leaderboard.json", self.to_json())
        atomic_write(folder / "leaderboard.md", self.to_markdown())
        atomic_write(folder / "leaderboard.csv", self.to_csv())


def build(records: Iterable[Record], refused: Sequence[Refusal] = ()) -> Leaderboard:
    """The table of these records. `refused` are files that `read_records` could not use; they are named below it.

    Raises `RequestError` when there are no records, when their protocols differ, or when two of them contradict
    each other about one cell.
    """
    records, notes = list(records), list[str]()
    if not records:
        named = "; ".join(f"{refusal.source}: {refusal.reason}" for refusal in refused)
        raise RequestError(f"no record to make a table of{f' ({named})' if named else ''}")
    cells = gather(records, notes)
    methods = cells.methods
    compared = comparisons(cells)
    rows = [row_of(name, cells) for name in methods]
    rows = with_front(with_deltas(with_ranks(rows, ranks(cells)), compared), cells.main)
    claimed = judged(cells)
    if alone := cells.alone():
        notes.append(f"nothing lies beside the records of {_first(alone)}: they cannot be compared clip by clip")
    first = records[0]
    notes += _labelled(first.protocol) + _over_optimised(cells, compared) + _machines(records) + cells.scores.problems
    unfit = _unfit(first.protocol, rows)
    return Leaderboard(
        first.protocol, first.protocol_hash, cells.main, rows, compared, claimed, notes, list(refused), unfit=unfit
    )  # fmt: skip


def _first(names: Sequence[str], count: int = 5) -> str:
    more = f" and {len(names) - count} more methods" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _labelled(protocol: Mapping[str, Any]) -> list[str]:
    """Where people said what is better, and not the track's annotator, whoever reads the table must know."""
    preferences = protocol.get("preferences")
    sha256 = preferences.get("file_sha256") if isinstance(preferences, Mapping) else None
    return [f"trained on the labels of people in the file with sha256 {sha256}"] if isinstance(sha256, str) else []


def _machines(records: Sequence[Record]) -> list[str]:
    first = records[0].environment.hardware
    differ = any(record.environment.hardware != first for record in records)
    return [NO_TIMES] if differ else []


def _over_optimised(cells: Cells, comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Methods that tell all their training pairs apart while their samples are worse than the base's."""
    notes = []
    for method in cells.methods:
        signs = [s for record in cells.done(method) for s in record.warnings if s.name == "implicit accuracy at 1"]
        worse = [
            entry["metric"] for entry in comparisons
            if entry["method"] == method and entry["than"] == "base" and entry["verdict"] == "worse"
            and cells.nfe(entry["metric"]) == cells.main
        ]  # fmt: skip
        if signs and worse:
            notes.append(
                f"{method} has learnt more than its pairs can teach: implicit accuracy at 1 by step {signs[0].step}, "
                f"and its samples are worse than base's in {', '.join(worse)}"
            )
    return notes


def _unfit(protocol: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, str]:
    """Scores whose metric, with the very protocol that they were measured by, fails the track's degradation tests.

    It is the installed track that says so, and not the records: a metric may be found out after it was used.
    """
    track = protocol.get("track")
    name = track.get("name") if isinstance(track, Mapping) else None
    if not isinstance(name, str):
        return {}
    try:
        cls: Any = registry.get("track", name)
        failing: Mapping[str, Unfit] = cls.unfit()
    except PluginError:  # a table can be made where its track is not installed
        return {}
    found = {}
    for row in rows:
        for key, score in row.metrics.items():
            metric = failing.get(parse_key(key).name)
            if metric and hashlib.sha256(score.protocol.encode()).hexdigest() == metric.protocol_sha256:
                found[key] = metric.reason
    return found
