"""One table of methods from their records: scores with intervals, ranks, paired comparisons, claims and cost.

Rows are method variants, scores are means over training seeds. What is compared is compared paired: the same clips,
seeds and resamples. A failure is a row with its status and reason.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench import registry
from halign_bench.atomic import atomic_write
from halign_bench.claims import judged
from halign_bench.comparing import REFERENCES, Cells, comparisons, ranks
from halign_bench.errors import PluginError, RequestError
from halign_bench.pairing import Scores
from halign_bench.results import SPEED, Record, parse_key
from halign_bench.stats import pareto_front, score_interval
from halign_bench.track import Refusal, Unfit

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = "halign-bench/leaderboard/1"
ORDER = (
    "fid", "fvd", "kid", "sync_c", "sync_d", "sync_offset", "hkc", "hkc_coverage", "hkv",
    "ssim_hand", "psnr_hand", "csim", "ssim", "psnr", "lpips", "motion", "motion_gap",
)  # fmt: skip

NO_TIMES = "the records come from different machines: times do not compare"
RULES = {
    "ci": "95 % over clips clustered by identity (recentred bootstrap percentiles), and over seeds where there are "
    "several; with one seed it does not cover how training varies",
    "comparisons": "paired on clips and seeds, t with bootstrap standard error; Holm over all scores of a table "
    "against one reference at one NFE",
    "rank": "1 + number of methods significantly better (paired, Holm over all pairs of a score); methods not told "
    "apart share a rank; none where no two are told apart",
    "pareto": "no other method is at least as good in every score with a better side, and better in one",
    "claims": "each comparison of a claim is supported when the paired 95 % interval of the improvement lies above its "
    "margin, refuted when it lies below; the claim is supported when all of its comparisons are, refuted when one is; "
    "speed is paired on chunks of clips sampled on one machine; not corrected for the number of claims",
}


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
        return _ordered(self.rows, self.order)

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
    rows = [_row(name, cells) for name in methods]
    rows = with_front(_with_deltas(_with_ranks(rows, ranks(cells)), compared), cells.main)
    claimed = judged(cells)
    if alone := cells.alone():
        notes.append(f"nothing lies beside the records of {_first(alone)}: they cannot be compared clip by clip")
    notes += _over_optimised(cells, compared) + _machines(records) + cells.scores.problems
    first = records[0]
    unfit = _unfit(first.protocol, rows)
    return Leaderboard(
        first.protocol, first.protocol_hash, cells.main, rows, compared, claimed, notes, list(refused), unfit=unfit
    )  # fmt: skip


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


def _first(names: Sequence[str], count: int = 5) -> str:
    more = f" and {len(names) - count} more methods" if len(names) > count else ""
    return ", ".join(names[:count]) + more


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


# Rows


def _row(method: str, cells: Cells) -> Row:
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
        value = sum(score.value for score in known if score.value is not None) / len(known)
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


def _cost(done: Sequence[Record]) -> dict[str, float | None]:
    def mean(read: Callable[[Record], float | None]) -> float | None:
        values = [value for record in done if (value := read(record)) is not None]
        return sum(values) / len(values) if values else None

    return {
        "train_seconds": mean(lambda r: r.timings.train),
        "sample_seconds": mean(lambda r: r.timings.sample),
        "score_seconds": mean(lambda r: r.timings.score),
        "trained_parameters": mean(lambda r: r.training.trained_parameters if r.training else None),
        "samples_seen": mean(lambda r: r.training.samples_seen if r.training else None),
        "samples_sampled": mean(lambda r: r.training.samples_sampled if r.training else None),
        "peak_memory_bytes": mean(lambda r: r.training.peak_memory_bytes if r.training else None),
    }


def stands_for(text: str, key: str) -> bool:
    """Whether a name as it is asked for means this score: "fid" and "fid@puppet" both mean "fid@puppet/nfe20"."""
    wanted, found = parse_key(text), parse_key(key)
    return wanted.name == found.name and wanted.where in (None, found.where) and wanted.nfe in (None, found.nfe)


def _ordered(rows: Sequence[Row], order: Sequence[str] = ORDER) -> list[str]:
    def place(key: str) -> tuple:
        name, where, nfe = parse_key(key)
        index = next((i for i, text in enumerate(order) if stands_for(text, key)), len(order))
        return (index, name, where or "", -(nfe or 0))

    return sorted({key for row in rows for key in row.metrics}, key=place)


def _with_ranks(rows: list[Row], found: Mapping[str, Mapping[str, int | None]]) -> list[Row]:
    return [
        replace(row, metrics={k: replace(s, rank=found.get(k, {}).get(row.method)) for k, s in row.metrics.items()})
        for row in rows
    ]


def _with_deltas(rows: list[Row], comparisons: Sequence[Mapping[str, Any]]) -> list[Row]:
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
        key for key in _ordered(rows)
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
