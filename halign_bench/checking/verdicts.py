"""What a paired difference says about a margin, and what all of them say together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from halign_bench.checking.measuring import Loss, Measured
from halign_bench.checking.power import clips_needed, variance_of
from halign_bench.comparing import ALPHA
from halign_bench.stats import Difference, holm

Verdict = Literal["regression", "cannot tell", "improvement", "not worse", "equivalent"]
REGRESSION: Verdict = "regression"
UNKNOWN: Verdict = "cannot tell"
VERDICTS: tuple[Verdict, ...] = ("regression", "cannot tell", "improvement", "not worse", "equivalent")

RULES = {
    "difference": "run less baseline, paired on clips and seeds, with its 95 % interval; p after Holm over all scores "
    "of all methods that are checked",
    "regression": "worse by more than the margin, and p < 0.05; also a seed that failed, or a score that could not be "
    "measured, where the baseline's could",
    "improvement": "better by more than the margin, and p < 0.05",
    "equivalent": "the interval lies within the margin on both sides",
    "not worse": "the interval rules out a loss greater than the margin",
    "cannot tell": "none of these: too few clips for this margin, or nothing to pair",
}


@dataclass(frozen=True)
class Outcome:
    """One score of one method, or (`metric` None) the method itself.

    difference  run less baseline in the score's own unit, with `ci` and `p_holm`; None where there is none
    margin      in the same unit, from `margin_given` as written or by the rule
    n           clips behind it, of `n_identities` identities, with `n_seeds` seeds
    """

    method: str
    metric: str | None
    verdict: Verdict
    higher_is_better: bool | None = None
    baseline: float | None = None
    value: float | None = None
    difference: float | None = None
    ci: tuple[float, float] | None = None
    p_holm: float | None = None
    margin: float | None = None
    margin_given: str | None = None
    n: int = 0
    n_seeds: int = 0
    n_identities: int = 0
    reason: str | None = None


def judged(scores: Sequence[Measured], losses: Iterable[Loss] = ()) -> list[Outcome]:
    """An outcome for each score and each loss, the gravest first; Holm over all of the scores."""
    differences = [measured.sample.difference() for measured in scores]
    adjusted = holm([difference.p for difference in differences])
    found = [
        _outcome(measured, difference, p, len(scores))
        for measured, difference, p in zip(scores, differences, adjusted, strict=True)
    ]
    found += [Outcome(x.method, x.key, REGRESSION if x.certain else UNKNOWN, reason=x.reason) for x in losses]
    return sorted(found, key=lambda outcome: VERDICTS.index(outcome.verdict))


def verdict(difference: Difference, p_holm: float | None, higher_is_better: bool, margin: float) -> Verdict:
    """Of one difference. Whether a loss is ruled out needs no correction for how many are checked: to pass a run
    with one true loss, its own interval would have to miss it."""
    if difference.value is None or difference.ci is None or p_holm is None:
        return UNKNOWN
    gain, (low, high) = difference.value, difference.ci
    if not higher_is_better:
        gain, low, high = -gain, -high, -low
    if p_holm < ALPHA and abs(gain) > margin:
        return "improvement" if gain > 0 else REGRESSION
    if low >= -margin:
        return "equivalent" if high <= margin else "not worse"
    return UNKNOWN


def _outcome(measured: Measured, difference: Difference, p_holm: float | None, checks: int) -> Outcome:
    margin = measured.margin.of(measured.baseline)
    said = verdict(difference, p_holm, measured.higher_is_better, margin)
    reason = None
    if measured.lost and said != REGRESSION:
        said, reason = UNKNOWN, measured.lost
    elif said == UNKNOWN:
        reason = difference.reason or _too_few(measured, difference, margin, checks)
    return Outcome(
        measured.method, measured.key, said, measured.higher_is_better, measured.baseline, measured.value,
        difference.value, difference.ci, p_holm, margin, measured.margin.given, measured.sample.clips,
        difference.seeds, difference.identities, reason,
    )  # fmt: skip


def _too_few(measured: Measured, difference: Difference, margin: float, checks: int) -> str:
    """What there is, what it leaves open, and what would do."""
    assert difference.ci is not None
    half = (difference.ci[1] - difference.ci[0]) / 2
    seeds = f"{difference.seeds} seed{'s' if difference.seeds > 1 else ''}"
    clips = f"{measured.sample.clips} clips of {difference.identities} identities"
    found = variance_of(measured.sample)
    needed = clips_needed(found, difference.seeds, margin, checks) if found else None
    if needed is not None and needed <= measured.sample.clips:
        more = "and the difference is near the margin"  # as many would do for most differences
    elif needed is not None:
        more = f"about {needed} clips would tell"
    elif difference.seeds > 1:
        more = "it takes more seeds, or a wider margin"
    else:
        more = "it takes a wider margin"
    return f"too few clips for this margin: {clips}, {seeds}, leave ±{half:.2g} and the margin is {margin:.2g}; {more}"


def exit_code(outcomes: Sequence[Outcome], allow_cannot_tell: bool = False) -> int:
    """0 no regression and everything told; 1 a regression; 2 none, but something could not be told."""
    verdicts = {outcome.verdict for outcome in outcomes}
    if REGRESSION in verdicts:
        return 1
    return 2 if UNKNOWN in verdicts and not allow_cannot_tell else 0


def counts(outcomes: Sequence[Outcome]) -> dict[Verdict, int]:
    return {name: sum(outcome.verdict == name for outcome in outcomes) for name in VERDICTS}


__all__ = ["RULES", "VERDICTS", "Outcome", "Verdict", "counts", "exit_code", "judged", "verdict"]
