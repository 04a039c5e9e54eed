"""What papers claim, judged from records: supported, refuted or not enough data, with the paired interval.

A claim is taken apart into comparisons: one for each of its scores and, in an order, for each two neighbours. It is
supported when all of them are, refuted when one is.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from halign_bench.comparing import Cells
from halign_bench.errors import HalignError
from halign_bench.pairing import Sample
from halign_bench.record import SPEED, ClaimData, metric_key, parse_key
from halign_bench.stats import Difference, spread

Verdict = Literal["supported", "refuted", "not enough data"]
UNKNOWN: Verdict = "not enough data"
HOPELESS = 100  # times as much data: nobody will run that, so the two count as alike


@dataclass(frozen=True)
class Comparison:
    """One score of a row, `method` at `key`, against that of another, `than` at `than_key`.

    ratio        the improvement is a ratio (above 1 is better), else a difference (above 0 is better)
    threshold    what it has to be above
    improvement  with `ci` the 95 % interval; None where they could not be compared
    n            clips behind it (chunks of clips for a speed), with `n_seeds` and `n_identities`
    """

    method: str
    key: str | None
    than: str
    than_key: str | None
    ratio: bool
    threshold: float
    improvement: float | None = None
    ci: tuple[float, float] | None = None
    n: int = 0
    n_seeds: int = 0
    n_identities: int = 0
    verdict: Verdict = UNKNOWN
    reason: str | None = None


def judged(cells: Cells) -> list[dict[str, Any]]:
    """Every claim of every row of the table, once: as stated, in words, with its comparisons and its verdict."""
    found: dict[str, dict[str, Any]] = {}
    for method, records in cells.methods.items():
        for claim in (claim for record in records for claim in record.claims):
            row = canonical(claim.of) if claim.of else method
            stated = claim.model_dump(mode="json")
            key = json.dumps([row, stated], sort_keys=True)
            if key in found:
                continue
            rivals = [_rival(text, row, bool(claim.of)) for text in named(claim.better_than)]
            if (row, None) in rivals:
                continue  # the variant that the method is compared with does not claim to be better than itself
            parts = [part for metric in named(claim.metric) for part in _compared(claim, row, rivals, metric, cells)]
            found[key] = {"method": row, "text": words(claim), **stated, **_together(parts)}
    return list(found.values())


def named(given: str | Sequence[str]) -> tuple[str, ...]:
    """A claim's metrics or rivals, whether it names one or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def split_nfe(text: str) -> tuple[str, int | None]:
    """ "base/nfe100" -> ("base", 100), "base" -> ("base", None)."""
    match = re.fullmatch(r"(.+?)(?:/nfe([0-9]+))?", text)
    assert match is not None, "a name is never empty"
    return match[1], int(match[2]) if match[2] else None


def canonical(text: str) -> str:
    """The label under which a table has this variant; the text itself where its method is not installed here."""
    from halign_bench.plan import variant_named

    try:
        return variant_named(text).label
    except HalignError:
        return text


def words(claim: ClaimData) -> str:
    """The claim as a sentence without its subject: "hkc at NFE 30 not worse than base at NFE 100 by more than 0.1"."""
    metrics, rivals = list(named(claim.metric)), [_at_nfe(text) for text in named(claim.better_than)]
    shared = {split_nfe(metric)[1] for metric in metrics}
    if len(shared) == 1:
        where = _at_nfe(metrics[-1]).removeprefix(split_nfe(metrics[-1])[0])
        scores = _listed([split_nfe(metric)[0] for metric in metrics]) + where
    else:
        scores = _listed([_at_nfe(metric) for metric in metrics])
    if claim.times is not None:
        good = "fast" if {parse_key(metric).name for metric in metrics} == {SPEED} else "good"
        said = f"{scores} at least {claim.times:g} times as {good} as {rivals[0]}"
    elif claim.margin < 0:
        said = f"{scores} not worse than {rivals[0]} by more than {-claim.margin:g}"
    else:
        said = f"{scores} better than {rivals[0]}" + (f" by {claim.margin:g}" if claim.margin else "")
    return said + "".join(f", and that than {rival}" for rival in rivals[1:])


def _at_nfe(text: str) -> str:
    name, nfe = split_nfe(text)
    return name if nfe is None else f"{name} at NFE {nfe}"


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _rival(text: str, row: str, as_it_stands: bool) -> tuple[str, int | None]:
    """The row that a claim of `row` means by `text`, and at which NFE.

    Only what the claim names may differ between the two: a variant of the same method keeps the row's other
    numbers, and in a pipeline the other method stands on top of the same.
    """
    from halign_bench.grammar import parse_methods

    name, nfe = split_nfe(text)
    try:
        (*below, own), (*others, other) = parse_methods(row)[0], parse_methods(name)[0]
    except HalignError:
        return name, nfe
    method, settings = other
    if as_it_stands or others or method in {part for part, _ in below}:
        return canonical(name), nfe
    if method == own[0]:
        settings = {**own[1], **settings}
    parts = below if below and method == "base" else [*below, (method, settings)]
    return canonical("+".join(_written(*part) for part in parts)), nfe


def _written(method: str, settings: Mapping[str, str]) -> str:
    return f"{method}[{','.join(f'{key}={value}' for key, value in settings.items())}]" if settings else method


# The comparisons of a claim


def _compared(
    claim: ClaimData, row: str, rivals: Sequence[tuple[str, int | None]], metric: str, cells: Cells
) -> list[Comparison]:
    """Of one score, under every extractor that measured it, between neighbours of the order that starts with `row`."""
    ratio = claim.times is not None
    threshold = claim.times if claim.times is not None else claim.margin
    wanted = parse_key(metric)
    chain = [(row, wanted.nfe), *((name, wanted.nfe if nfe is None else nfe) for name, nfe in rivals)]
    measured = sorted({
        key.where or "" for key in map(parse_key, cells.keys)
        if key.name == wanted.name and wanted.where in (None, key.where)
    })  # fmt: skip
    wheres: Sequence[str | None] = measured or (None,)
    found = []
    for (better, better_nfe), (worse, worse_nfe) in itertools.pairwise(chain):
        for where in wheres:
            key, than_key = (_key_at(cells, wanted.name, where, nfe) for nfe in (better_nfe, worse_nfe))
            part = Comparison(better, key, worse, than_key, ratio, threshold)
            reason = _absent(cells, ((better, key, better_nfe), (worse, than_key, worse_nfe)), wanted.name)
            if reason is None and key is not None:
                part = _judge(part, cells.paired(better, worse, key, than_key, ratio), cells.direction(key))
            found.append(part if reason is None else replace(part, reason=reason))
    return found


def _key_at(cells: Cells, name: str, where: str | None, nfe: int | None) -> str | None:
    """The name that a score has at an NFE of the grid (None: the main one); None where it was not measured."""
    return next(iter(cells.matching(metric_key(name, where or None, nfe))), None) if where is not None else None


def _absent(cells: Cells, sides: Sequence[tuple[str, str | None, int | None]], metric: str) -> str | None:
    """Why two rows cannot be compared at all; None when they can."""
    for row, _, _ in sides:
        if row not in cells.methods:
            return f"{row} was not run: add it to --methods"
        if not cells.done(row):
            return f"{row} has no finished seed ({cells.methods[row][0].status})"
    grid = sorted({n for key in cells.keys if (n := cells.nfe(key)) is not None}, reverse=True)
    if absent := sorted({nfe for _, key, nfe in sides if key is None and nfe is not None} - set(grid)):
        asked = ",".join(map(str, [*grid, *absent]))
        return f"nothing was sampled at NFE {' and '.join(map(str, absent))}: run with --nfe {asked}"
    for row, key, _ in sides:
        if key is None:
            return f"{metric} was not measured"
        scores = [record.metrics[key] for record in cells.done(row) if key in record.metrics]
        if not any(score.value is not None for score in scores):
            return f"{row}: {scores[0].reason}" if scores else f"{row} has no {key}"
    if not set.intersection(*({record.cell.seed for record in cells.done(row)} for row, _, _ in sides)):
        return f"{sides[0][0]} and {sides[1][0]} have no seed in common"
    return None


def _judge(part: Comparison, sample: Sample, up: bool | None) -> Comparison:
    difference = sample.difference()
    part = replace(part, n=sample.clips, n_seeds=difference.seeds, n_identities=difference.identities)
    if up is None:
        return replace(part, reason=f"{part.key} has no better side")
    if difference.value is None or difference.ci is None:
        return replace(part, reason=difference.reason)
    sign = 1 if up else -1
    improvement, (low, high) = sign * difference.value, sorted(sign * end for end in difference.ci)
    threshold = math.log(part.threshold) if part.ratio else part.threshold
    verdict: Verdict = "supported" if low > threshold else "refuted" if high < threshold else UNKNOWN
    reason = _short_of(sample, difference, abs(improvement - threshold), part.key or "") if verdict == UNKNOWN else None
    shown = math.exp if part.ratio else float
    return replace(part, improvement=shown(improvement), ci=(shown(low), shown(high)), verdict=verdict, reason=reason)


def _short_of(sample: Sample, difference: Difference, distance: float, key: str) -> str:
    """What keeps the interval from deciding, and how much more of it would, were the difference to stay as it is."""
    assert difference.ci is not None
    what = "chunks" if parse_key(key).name == SPEED else "clips"
    seeds = f"{difference.seeds} seed{'s' if difference.seeds > 1 else ''}"
    given = f"{sample.clips} {what}{'' if what == 'chunks' else f' of {difference.identities} identities'}, {seeds}"
    half = (difference.ci[1] - difference.ci[0]) / 2
    if half == 0:
        return f"no resample of {given} differs from the margin"
    if half >= distance * math.sqrt(HOPELESS):
        return f"undecided with {given}: too close to what is claimed to tell"
    parts = spread(sample.points, sample.replicates, difference.identities)
    short = "seeds" if parts is not None and parts.own > parts.clips else what
    return f"undecided with {given}: it would take about {(half / distance) ** 2:.1f} times the {short}"


def _together(parts: Sequence[Comparison]) -> dict[str, Any]:
    """The verdict on all of a claim's comparisons, with the reason of the first that leaves it open."""
    verdicts = [part.verdict for part in parts]
    verdict = "refuted" if "refuted" in verdicts else UNKNOWN if UNKNOWN in verdicts else "supported"
    reason = next((part.reason for part in parts if part.verdict == UNKNOWN), None) if verdict == UNKNOWN else None
    return {"verdict": verdict, "reason": reason, "comparisons": [asdict(part) for part in parts]}


__all__ = ["Comparison", "canonical", "judged", "named", "split_nfe", "words"]
