"""Who is better than whom: comparisons with base and sft, and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from halign_bench.companions import COMPANIONS
from halign_bench.pairing import Pair, Sample, Scores, nothing
from halign_bench.record import SPEED, Record, parse_key
from halign_bench.stats import holm, significance_ranks

REFERENCES = ("base", "sft")
ALPHA = 0.05


@dataclass(frozen=True)
class Cells:
    """The records of a table by method, the scores they have, and the main NFE."""

    methods: Mapping[str, Sequence[Record]]
    keys: tuple[str, ...]
    main: int | None
    scores: Scores
    _with_files: dict[str, bool] = field(default_factory=dict)

    def done(self, method: str) -> list[Record]:
        return [record for record in self.methods[method] if record.status == "done"]

    def nfe(self, key: str) -> int | None:
        nfe = parse_key(key).nfe
        return self.main if nfe is None else nfe

    def direction(self, key: str) -> bool | None:
        known = (r.metrics[key].higher_is_better for cells in self.methods.values() for r in cells if key in r.metrics)
        return next(known, None)

    def beside(self, method: str) -> bool:
        """Whether any record of a method has files beside it; without, there is nothing to pair seed by seed."""
        if method not in self._with_files:
            self._with_files[method] = any(record.files.keys() & COMPANIONS for record in self.done(method))
        return self._with_files[method]

    def alone(self) -> list[str]:
        """Methods that have scores, and nothing beside their records to compare them by."""
        return [method for method in self.methods if self.done(method) and not self.beside(method)]

    def tested(self) -> list[str]:
        """All but speed, which is shown and claimed, not compared method by method."""
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

    def paired(
        self, method: str, than: str, key: str, other_key: str | None = None, ratio: bool = False
    ) -> Sample:
        """Score of `method` less that of `than`, over the seeds both have; the log of their ratio with `ratio`."""
        if parse_key(key).name != SPEED and not (self.beside(method) and self.beside(than)):
            return nothing("no resampled scores beside the records")
        return self.scores.sample(self._pairs(method, than), key, other_key, ratio)

    def wins(self, method: str, than: str, key: str) -> Sample:
        """Share of clips on which `method` scores better than `than`; the score must have a better side."""
        return self.scores.wins(self._pairs(method, than), key, bool(self.direction(key)))

    def _pairs(self, method: str, than: str) -> list[Pair]:
        by_seed = {record.cell.seed: record for record in self.done(than)}
        return [(r, by_seed[r.cell.seed]) for r in self.done(method) if r.cell.seed in by_seed]


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
    alone = set(cells.alone())
    pairable = [name for name in names if name not in alone]
    pairs = [(a, b) for i, a in enumerate(pairable) for b in pairable[i + 1 :]]
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
