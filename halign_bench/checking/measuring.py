"""What two sets of records have in common: paired differences of every score of every method, and what was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from halign_bench.checking.margins import Margin, Margins
from halign_bench.documents import parsed
from halign_bench.errors import RequestError
from halign_bench.gathering import check_protocols, one_per_cell
from halign_bench.pairing import Sample, Scores
from halign_bench.record import SPEED, Record, parse_key
from halign_bench.results import read_records

LOST = 0.05  # of the baseline's clips, without a score now: the difference of the others says too little


@dataclass(frozen=True)
class Measured:
    """One score of one method on both sides, `sample` run less baseline; `lost` says which clips that leaves out."""

    method: str
    key: str
    higher_is_better: bool
    baseline: float
    value: float
    margin: Margin
    sample: Sample
    lost: str | None = None


@dataclass(frozen=True)
class Loss:
    """What the baseline has and the run has no more, or (`certain` false) may have."""

    method: str
    key: str | None
    reason: str
    certain: bool = True


@dataclass
class Pairing:
    """All that can be said of two sets of records, before anything is judged."""

    scores: list[Measured] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def records_of(path: Path, what: str) -> tuple[list[Record], list[Loss], list[str]]:
    """Records, files that are none, notes. `path` is what `read_records` takes, or a leaderboard.json beside records.

    Raises `RequestError` where there are none.
    """
    folder = path.parent if _is_leaderboard(path) else path
    try:
        records, refused = read_records([folder])
    except RequestError:
        if folder == path:
            raise
        raise RequestError(f"{path}: has no records beside it; differences are taken clip by clip, so give the "
                           "folder that holds records/ with it") from None  # fmt: skip
    broken = [Loss(Path(r.source).name, None, f"in {what}, left out: {r.reason}", certain=False) for r in refused]
    if not records:
        raise RequestError(f"{path}: no record can be used ({broken[0].reason})")
    notes: list[str] = []
    records = one_per_cell(records, notes)
    return records, broken, notes


def _is_leaderboard(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        document = parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # read_records says what is wrong with it
    return isinstance(document, dict) and str(document.get("schema", "")).startswith("halign-bench/leaderboard/")


def pair(run: Path, baseline: Path, margins: Margins) -> Pairing:
    """Both sides brought together.

    Raises `RequestError` when either cannot be read, when their protocols differ, when they have no method in common
    or when there is nothing to pair: scores of clips or resamples beside the records.
    """
    ours, broken, notes = records_of(run, "the run")
    theirs, broken_theirs, notes_theirs = records_of(baseline, "the baseline")
    check_protocols([*theirs, *ours])
    found = Pairing(losses=broken + broken_theirs, notes=notes + notes_theirs)
    methods = {record.cell.method: None for record in theirs}
    common = [m for m in methods if any(record.cell.method == m for record in ours)]
    if not common:
        raise RequestError(f"{run} and {baseline} have no method in common")
    for where, others in (("baseline", methods), ("run", {record.cell.method: None for record in ours})):
        alone = [method for method in others if method not in common]
        if alone:
            found.notes.append(f"only in the {where}, not checked: {', '.join(alone)}")
    margins.check(key for record in theirs for key in record.metrics)
    scores = Scores()
    for method in common:
        _pair_method(method, [r for r in ours if r.cell.method == method],
                     [r for r in theirs if r.cell.method == method], margins, scores, found)  # fmt: skip
    if found.scores and all(measured.sample.reason for measured in found.scores) and scores.problems:
        raise RequestError(
            f"{scores.problems[0]}; paired differences need the scores of single clips and the resamples of both sides"
        )
    found.notes += scores.problems
    return found


def _pair_method(
    method: str, ours: Sequence[Record], theirs: Sequence[Record], margins: Margins, scores: Scores, found: Pairing
) -> None:
    by_seed = {record.cell.seed: record for record in theirs}
    shared = [(record, by_seed[record.cell.seed]) for record in ours if record.cell.seed in by_seed]
    unshared = sorted({r.cell.seed for r in ours} ^ by_seed.keys())
    if unshared:
        found.notes.append(f"{method}: seed {', '.join(map(str, unshared))} only on one side, not checked")
    if any(a.config.effective != b.config.effective for a, b in shared):
        found.notes.append(f"{method}: its settings are not those of the baseline")
    for a, b in shared:
        if a.status != "done" and b.status == "done":
            found.losses.append(Loss(method, None, f"seed {a.cell.seed} {a.status}: {a.error}"))
        elif b.status != "done":
            found.notes.append(f"{method}: seed {b.cell.seed} {b.status} in the baseline, not checked")
    pairs = [(a, b) for a, b in shared if a.status == b.status == "done"]
    for key in dict.fromkeys(key for _, b in pairs for key in b.metrics):
        _pair_score(method, key, pairs, margins, scores, found)


def _pair_score(
    method: str, key: str, pairs: Sequence[tuple[Record, Record]], margins: Margins, scores: Scores, found: Pairing
) -> None:
    score = next(b.metrics[key] for _, b in pairs if key in b.metrics)
    if score.higher_is_better is None or parse_key(key).name == SPEED:
        return
    before = [(a, b) for a, b in pairs if _has(b, key)]
    pairs = [(a, b) for a, b in before if _has(a, key)]
    if len(pairs) < len(before):
        gone = [a for a, _ in before if not _has(a, key)]
        asked = [a for a in gone if key in a.metrics]
        why = f"could not be measured any more: {asked[0].metrics[key].reason}" if asked else "was not measured"
        found.losses.append(Loss(method, key, why, certain=bool(asked)))
    if not pairs:
        return
    then, now = _mean([b for _, b in pairs], key), _mean([a for a, _ in pairs], key)
    margin, sample = margins.of(key, score), scores.sample(pairs, key)
    found.scores.append(Measured(method, key, score.higher_is_better, then, now, margin, sample, _lost(pairs, key)))


def _has(record: Record, key: str) -> bool:
    return key in record.metrics and record.metrics[key].value is not None


def _mean(records: Sequence[Record], key: str) -> float:
    values = [value for record in records if (value := record.metrics[key].value) is not None]
    return sum(values) / len(values)


def _lost(pairs: Sequence[tuple[Record, Record]], key: str) -> str | None:
    now, then = (sum(pair[side].metrics[key].n for pair in pairs) for side in (0, 1))
    if now >= (1 - LOST) * then:
        return None
    causes = {cause for a, _ in pairs for cause in a.metrics[key].failed}
    why = f" ({', '.join(sorted(causes))})" if causes else ""
    return f"{then - now} of the {then} clips that the baseline scored have no score now{why}"


__all__ = ["Loss", "Measured", "Pairing", "pair", "records_of"]
