"""From scores to what is reported: rows by criterion and noise level, a recommendation, and what was left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from halign_bench.analysis.timesteps.curves import Curve, Recommendation, change, decided, recommend, settled
from halign_bench.analysis.timesteps.measure import Scores
from halign_bench.stats import bootstrap_indices, resample_counts

EARLY, LATE = "motion", "fidelity"  # what TPO's experts are called, and the order that the paper found
REPLICATES = 2000


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; without an interval it is so by definition, or too few clips were scored."""

    value: float | None = None
    ci: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """One criterion at one noise level; the package's docstring says what each number is.

    nfe  network evaluations of a path that skips everything above t, its own start included
    """

    criterion: str
    t: float
    nfe: int
    decided: Estimate = field(default_factory=Estimate)
    estimate: Estimate = field(default_factory=Estimate)
    settled: Estimate = field(default_factory=Estimate)
    skipped: Estimate = field(default_factory=Estimate)


@dataclass(frozen=True)
class Criterion:
    """Of the finished candidates of the clips that could be scored: mean and standard deviation, in its own unit."""

    name: str
    clips: int
    identities: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Analysis:
    """Rows from t = 1 down to 0 for one criterion after the other; the ends are true by definition or measured too."""

    scores: Scores
    nfe: int
    criteria: list[Criterion]
    rows: list[Row]
    recommendation: Recommendation | None
    notes: list[str]

    def row(self, criterion: str, t: float) -> Row:
        return next(row for row in self.rows if row.criterion == criterion and row.t == t)


def analyse(scores: Scores, nfe: int, step_cost: int = 1, replicates: int = REPLICATES) -> Analysis:
    """Everything that is reported of `scores`; `nfe` are the evaluations of a whole path, `step_cost` those of a step.

    There is no recommendation where the annotator has no criterion named motion or fidelity; the notes say so.
    """
    counts = resample_counts(bootstrap_indices(scores.ids, scores.identities, replicates), len(scores.ids))
    criteria, rows, notes = [], [], []
    curves: dict[str, tuple[Curve, np.ndarray]] = {}
    for name in scores.criteria:
        known = np.all([np.isfinite(of[name].reshape(len(scores.ids), -1)).all(1) for of in scores.values.values()], 0)
        note = _left_out(name, int(known.sum()), len(known))
        if note:
            notes.append(note)
        full = np.where(known[:, None], scores.values["full"][name], np.nan)
        enough = int(known.sum()) >= 2
        criteria.append(Criterion(
            name, int(known.sum()), len(_people(scores, known)),
            float(full[known].mean()) if enough else None, float(full[known].std()) if enough else None,
        ))  # fmt: skip
        if not enough:
            full = np.full_like(full, np.nan)
        clusters = len(_people(scores, known))
        fixed = decided(full, scores.values["remade"][name], counts)
        changes = {kind: change(full, scores.values[kind][name], counts) for kind in ("first", "estimate", "skipped")}
        share = settled(changes["estimate"], changes["first"], clusters)
        if enough and not np.isfinite(fixed.values).any():
            notes.append(f"{name}: the candidates of each clip all score the same, so nothing is there to be decided")
        curves[name] = fixed, known
        rows += _rows(name, scores, fixed, changes, share, clusters, nfe, step_cost)
    recommendation = None
    if absent := [name for name in (EARLY, LATE) if name not in curves]:
        notes.append(f"no t_mid: the track's annotator has no criterion named {' or '.join(absent)}")
    else:
        (early, one), (late, other) = curves[EARLY], curves[LATE]
        recommendation = recommend(scores.levels, early, late, len(_people(scores, one & other)))
    return Analysis(scores, nfe, criteria, rows, recommendation, notes)


def _people(scores: Scores, known: np.ndarray) -> set[str]:
    return {identity for identity, is_known in zip(scores.identities, known, strict=True) if is_known}


def _left_out(name: str, known: int, clips: int) -> str | None:
    if known == clips:
        return None
    if known < 2:
        return f"{name}: the annotator scored all samples of {known} of {clips} clips, which is too few to measure it"
    return f"{name}: {clips - known} of {clips} clips are left out: the annotator could not score all of their samples"


def _rows(
    name: str, scores: Scores, fixed: Curve, changes: dict[str, Curve], share: Curve, clusters: int, nfe: int,
    step_cost: int,
) -> list[Row]:
    def estimates(curve: Curve, bounds: tuple[float | None, float | None] = (None, None)) -> list[Estimate]:
        found = zip(curve.values, curve.intervals(clusters, bounds), strict=True)
        return [Estimate(float(value), ci) if math.isfinite(value) else Estimate() for value, ci in found]

    (first,) = estimates(changes["first"])
    measured = [
        estimates(fixed, (-1, 1)), estimates(changes["estimate"]), estimates(share), estimates(changes["skipped"]),
    ]  # fmt: skip

    def true(value: float, because: list[Estimate]) -> Estimate:
        """By definition, where the curve exists at all."""
        return Estimate(value) if any(one.value is not None for one in because) else Estimate()

    return [
        Row(name, 1.0, nfe, true(0.0, measured[0]), first, true(0.0, measured[2]), true(0.0, measured[3])),
        *(Row(name, *numbers) for numbers in zip(scores.levels, scores.skip_nfe, *measured, strict=True)),
        Row(name, 0.0, step_cost, true(1.0, measured[0]), true(0.0, measured[1]), true(1.0, measured[2]), first),
    ]
