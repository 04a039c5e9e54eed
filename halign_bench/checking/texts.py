"""Outcomes and plans as rows, JSON, Markdown and annotations of GitHub.

Names of methods and scores, and reasons, come from records that anybody may have written. They are text in every
output: no control characters, no markup, no commands to the runner.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from halign_bench.checking.planning import Needed
from halign_bench.checking.power import MOST_SEEDS, MOST_TIMES, POWER
from halign_bench.checking.verdicts import RULES, VERDICTS, Outcome, counts
from halign_bench.printing import printable
from halign_bench.tables.cells import ABSENT, number
from halign_bench.tables.markdown import pipes

SCHEMA = "halign-bench/check/1"
HEADERS = ["verdict", "method", "score", "baseline", "difference [95 %]", "margin", "Holm p", "why"]
PLAN_HEADERS = ["method", "score", "margin", "on record", "power", "tells", "clips", "seeds", "both"]
PLAN_LEGEND = (
    f"power: probability that the margin is told with the clips and seeds on record; tells: the margin that they tell "
    f"with {POWER:.0%}; clips: needed with these seeds; seeds: needed with these clips; both: where neither is enough "
    f"alone; {ABSENT} none up to {MOST_TIMES:,} times the clips or {MOST_SEEDS} seeds, or seeds unknown from one"
)
ANNOTATIONS = {"regression": "error", "cannot tell": "warning", "improvement": "notice"}


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    return [
        [
            one.verdict, printable(one.method), printable(one.metric or ABSENT), number(one.baseline, _half(one)),
            _difference(one), number(one.margin), ABSENT if one.p_holm is None else f"{one.p_holm:.2g}",
            printable(one.reason or ""),
        ]
        for one in outcomes
    ]  # fmt: skip


def _half(one: Outcome) -> float | None:
    return (one.ci[1] - one.ci[0]) / 2 if one.ci else None


def _difference(one: Outcome) -> str:
    if one.difference is None:
        return ABSENT
    half = _half(one)
    ends = f" [{number(one.ci[0], half)}, {number(one.ci[1], half)}]" if one.ci else ""
    return number(one.difference, half) + ends


def total(outcomes: Sequence[Outcome]) -> str:
    """ "1 regression, 2 cannot tell, 30 equivalent"."""
    found = counts(outcomes)
    return ", ".join(f"{found[name]} {name}" for name in VERDICTS if found[name])


def document(outcomes: Sequence[Outcome], notes: Sequence[str], code: int) -> dict[str, Any]:
    """What `check --json` prints."""
    return {
        "schema": SCHEMA,
        "exit_code": code,
        "counts": counts(outcomes),
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "notes": list(notes),
        "rules": RULES,
    }


def markdown(outcomes: Sequence[Outcome], notes: Sequence[str]) -> str:
    """A summary: what changed or could not be told as a table, and the rest folded away."""
    told = ("equivalent", "not worse")
    parts = [f"## halign-bench check: {total(outcomes) or 'nothing checked'}", ""]
    if loud := [one for one in outcomes if one.verdict not in told]:
        parts += [*_table(loud), ""]
    if quiet := [one for one in outcomes if one.verdict in told]:
        parts += [f"<details><summary>{len(quiet)} without a loss</summary>", "", *_table(quiet), "", "</details>", ""]
    parts += [f"- {escaped(note)}" for note in notes]
    return "\n".join(parts) + "\n"


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    return pipes(HEADERS, [[escaped(text) for text in row] for row in rows(outcomes)])


def escaped(text: str) -> str:
    r"""As text in Markdown; pipes are left to `pipes`. "a_b<c>" -> "a\_b\<c\>"."""
    return re.sub(r"([\\`*_{}\[\]()<>#!.:&~@$])", r"\\\1", printable(text))


def workflow_commands(outcomes: Sequence[Outcome]) -> list[str]:
    """Workflow commands, one for each outcome that somebody has to see."""
    lines = []
    for one in outcomes:
        if one.verdict in ANNOTATIONS:
            title = _property(printable(f"{one.verdict}: {one.method} {one.metric or ''}".rstrip()))
            lines.append(f"::{ANNOTATIONS[one.verdict]} title={title}::{_data(printable(sentence(one)))}")
    return lines


def sentence(one: Outcome) -> str:
    """ "fid@puppet 10.5, 1.5 [0.9, 2.1] from the baseline; margin 0.5 (5 %), Holm p 0.001"."""
    if one.difference is None or one.margin is None:
        return f"{one.metric}: {one.reason}" if one.metric else f"{one.reason}"
    p = f", Holm p {one.p_holm:.2g}" if one.p_holm is not None else ""
    why = f"; {one.reason}" if one.reason else ""
    told = f"{_difference(one)} from the baseline's {number(one.baseline, _half(one))}"
    return f"{one.metric}: {told}; margin {number(one.margin)} ({one.margin_given}){p}{why}"


def _data(text: str) -> str:
    return text.replace("%", "%25")  # line breaks, the other two that a command cannot hold, are spelt out already


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def plan_rows(needed: Sequence[Needed]) -> list[list[str]]:
    return [
        [
            printable(one.method), printable(one.metric), f"{number(one.margin)} ({one.margin_given})",
            f"{one.n} clips, {one.n_seeds} seed{'s' if one.n_seeds != 1 else ''}",
            *(
                [printable(one.reason), "", "", "", ""] if one.reason else
                [f"{one.power:.0%}", number(one.tells), _count(one.clips), _count(one.seeds), _both(one)]
            ),
        ]
        for one in needed
    ]  # fmt: skip


def _both(one: Needed) -> str:
    return "" if one.both is None else f"{one.both[0]:,} clips, {one.both[1]} seeds"


def _count(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"


__all__ = [
    "HEADERS", "PLAN_HEADERS", "PLAN_LEGEND", "document", "escaped", "markdown", "plan_rows",
    "rows", "sentence", "total", "workflow_commands",
]
