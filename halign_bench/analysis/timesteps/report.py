"""The analysis as CSV, as JSON, as a table for the terminal, and in sentences."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

from halign_bench.analysis.timesteps.analyse import EARLY, LATE, Analysis, Estimate
from halign_bench.tables import number

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = "halign-bench/timesteps/1"
MEASURES = ("decided", "estimate", "settled", "skipped")


def to_csv(analysis: Analysis) -> str:
    """A line for each criterion and noise level; empty is unknown, and without low and high true by definition."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = ("", "_low", "_high")
    writer.writerow(["criterion", "t", "skip_nfe", *(f"{name}{end}" for name in MEASURES for end in ends)])
    for row in analysis.rows:
        writer.writerow([row.criterion, row.t, row.nfe, *(cell for name in MEASURES for cell in _cells(row, name))])
    return text.getvalue()


def _cells(row: Any, name: str) -> list[float | str]:
    found: Estimate = getattr(row, name)
    low, high = found.ci or ("", "")
    return ["" if found.value is None else found.value, low, high]


def scores_csv(analysis: Analysis) -> str:
    """The score of every sample, so that another rule can be tried without sampling again."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", "identity", "candidate", "criterion", "kind", "t", "score"])
    scores = analysis.scores
    times = {"full": (0.0,), "first": (1.0,)}
    for kind, of in scores.values.items():
        for name, values in of.items():
            for (clip, candidate), given in _each(values):
                for t, score in zip(times.get(kind, scores.levels), given, strict=True):
                    shown = score if math.isfinite(score) else ""
                    writer.writerow([scores.ids[clip], scores.identities[clip], candidate, name, kind, t, shown])
    return text.getvalue()


def _each(values: Any) -> list[tuple[tuple[int, int], list[float]]]:
    """((clip, candidate), its scores at the levels) of `[P, K]` or `[P, K, L]`."""
    clips, candidates = values.shape[:2]
    flat = values.reshape(clips, candidates, -1).tolist()
    return [((p, k), flat[p][k]) for p in range(clips) for k in range(candidates)]


def to_document(analysis: Analysis, source: dict[str, Any]) -> dict[str, Any]:
    """JSON-able; `source` says of which model, data and protocol."""

    def pair(found: Estimate) -> dict[str, Any]:
        return {"value": found.value, "ci": None if found.ci is None else list(found.ci)}

    found = analysis.recommendation
    return {
        "schema": SCHEMA,
        **source,
        "clips": len(analysis.scores.ids),
        "identities": len(set(analysis.scores.identities)),
        "levels": list(analysis.scores.levels),
        "criteria": [vars(criterion) for criterion in analysis.criteria],
        "rows": [
            {"criterion": row.criterion, "t": row.t, "skip_nfe": row.nfe}
            | {name: pair(getattr(row, name)) for name in MEASURES}
            for row in analysis.rows
        ],
        "recommendation": None if found is None else {
            "verdict": found.verdict, "early": EARLY, "late": LATE, "t_mid": found.t_mid,
            "interval": None if found.interval is None else list(found.interval),
            "differences": [
                {"t": t, "value": gap.value, "ci": None if gap.ci is None else list(gap.ci), "p_holm": p}
                for t, gap, p in zip(analysis.scores.levels, found.gaps, found.p, strict=True)
            ],
        },
        "conclusions": sentences(analysis),
        "notes": analysis.notes,
    }  # fmt: skip


def to_table(analysis: Analysis) -> Table:
    """A line for each noise level, from noise to clean."""
    from rich import box
    from rich.table import Table

    names = [criterion.name for criterion in analysis.criteria]
    shown = [measure for measure in MEASURES if measure != "settled"]  # in the files; a share of `estimate`
    table = Table("t", "NFE", box=box.SIMPLE_HEAD, pad_edge=False)
    for measure in shown:
        for name in names:
            table.add_column(f"{measure}\n{name}", justify="right")
    for t in dict.fromkeys(row.t for row in analysis.rows):
        rows = [analysis.row(name, t) for name in names]
        cells = [_text(getattr(row, measure)) for measure in shown for row in rows]
        table.add_row(f"{t:.4g}", str(rows[0].nfe), *cells)
    return table


LEGEND = (
    "decided: correlation of a sample's score with that of its remake from noise level t, 0 nothing, 1 all; "
    "estimate: clean estimate at t less finished sample; skipped: path without its part above t less whole path, "
    "both in standard deviations of finished samples; NFE: evaluations of the path that skips; "
    "± half of the 95 % interval"
)


def _text(found: Estimate) -> str:
    if found.ci is None:
        return number(found.value)
    half = (found.ci[1] - found.ci[0]) / 2
    return f"{number(found.value, half)} ±{number(half, half)}"


def sentences(analysis: Analysis) -> list[str]:
    """What the numbers say on t_mid, and what skipping there costs."""
    found = analysis.recommendation
    if found is None:
        return []
    if found.at is None:
        return [f"cannot tell: {EARLY} and {LATE} were not both measured"]
    index = analysis.scores.levels.index(found.at)
    gap, p = found.gaps[index], found.p[index]
    early, late = analysis.row(EARLY, found.at), analysis.row(LATE, found.at)
    interval = "" if gap.ci is None else f" [{gap.ci[0]:.2f}, {gap.ci[1]:.2f}]"
    chance = "" if p is None else f", p {p:.2g} after Holm"
    difference = f"{gap.value:.2f}{interval}{chance}"
    decided = f"{EARLY} {early.decided.value:.2f}, {LATE} {late.decided.value:.2f}"
    if found.verdict == "early first":
        place = "" if found.interval is None else f" [{found.interval[0]:.4g}, {found.interval[1]:.4g}]"
        said = [f"recommended t_mid {found.t_mid:.4g}{place}: there is decided of {decided}; difference {difference}"]
        said.append(
            f"skipping t > {found.at:.4g} with one step (NFE {early.nfe} instead of {analysis.nfe}) changes "
            f"{EARLY} by {_text(early.skipped)} and {LATE} by {_text(late.skipped)} standard deviations"
        )
        return [*said, f'to train with it: halign-bench run --methods "tpo[t_mid={found.t_mid:.4g}]"']
    if found.verdict == "late first":
        return [
            f"no t_mid: {LATE} is decided before {EARLY}, most clearly at t = {found.at:.4g} ({decided}; difference "
            f"{difference}), so the paper's order does not hold for this model on this track"
        ]
    why = "no interval" if gap.ci is None else difference
    times = "" if found.times is None else f"; if it stays as large, about {found.times:.1f} times the clips would tell"
    return [
        f"cannot tell: at no noise level is {EARLY} decided ahead of {LATE} beyond chance; the largest difference is "
        f"at t = {found.at:.4g} ({why}){times}"
    ]
