"""How far the annotators of a session agree, with each other and with the track's automatic scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from halign_bench.prefs.answers import Answer
from halign_bench.prefs.kappa import Kappa, cohen_kappa, fleiss_kappa
from halign_bench.prefs.session import Question, Session
from halign_bench.prefs.votes import Votes, majority
from halign_bench.stats import bootstrap_indices, percentile_interval

SCHEMA = "halign-bench/prefs-agreement/1"
REPLICATES = 1000
AUTOMATIC = "automatic scores"


@dataclass(frozen=True)
class Agreement:
    """One κ of one criterion, or why there is none.

    between   names of the annotators, or "majority" and "automatic scores"
    pairs     that count; `left_out` are labelled ones that do not
    observed  share of agreeing labels, in [0, 1]
    ci        95 % bootstrap interval of κ; pairs of one prompt are drawn together. None where nobody disagreed, too
    """

    criterion: str
    between: tuple[str, ...]
    statistic: Literal["cohen", "fleiss"]
    pairs: int
    left_out: int
    observed: float | None
    kappa: float | None
    ci: tuple[float, float] | None
    reason: str | None


def agreement(session: Session, votes: Votes) -> list[Agreement]:
    """For each criterion between all annotators who labelled it, then of their majority with the automatic score.

    Between two annotators those pairs count that both labelled; of more, those with the number of labels that most
    pairs have, whoever gave them, for Fleiss' κ takes the same number for each. With the automatic score those count
    where the majority is no tie and both candidates have a score, for a score is hardly ever equal.
    """
    found = []
    for criterion in session.criteria:
        said = {question: given[criterion] for question, given in votes.items() if criterion in given}
        found.append(_between(session, criterion, said))
        if any(criterion in candidate.scores for prompt in session.prompts for candidate in prompt.candidates):
            found.append(_automatic(session, criterion, said))
    return found


def _between(session: Session, criterion: str, said: dict[Question, dict[str, str]]) -> Agreement:
    names = tuple(sorted({name for given in said.values() for name in given}))
    statistic: Literal["cohen", "fleiss"] = "fleiss" if len(names) > 2 else "cohen"
    if len(names) < 2:
        reason = f"{'one annotator' if names else 'nobody'} labelled it; agreement takes two"
        return Agreement(criterion, names, statistic, 0, len(said), None, None, None, reason)
    several = Counter(len(given) for given in said.values() if len(given) > 1)
    most = max(several, key=lambda labels: (several[labels], labels), default=2)
    shared = {
        question: [given[name] for name in sorted(given)] for question, given in said.items() if len(given) == most
    }
    return _measured(session, criterion, names, statistic, shared, len(said) - len(shared))


def _automatic(session: Session, criterion: str, said: dict[Question, dict[str, str]]) -> Agreement:
    items: dict[Question, list[str]] = {}
    for question, given in said.items():
        most, score = majority(list(given.values())), _by_score(session, question, criterion)
        if most != "tie" and score is not None:
            items[question] = [most, score]
    return _measured(session, criterion, ("majority", AUTOMATIC), "cohen", items, len(said) - len(items))


def _by_score(session: Session, question: Question, criterion: str) -> str | None:
    candidates = session.prompts[question.prompt].candidates
    left, right = (candidates[k].scores.get(criterion) for k in (question.left, question.right))
    if left is None or right is None:
        return None
    return "tie" if left == right else "left" if left > right else "right"


def _measured(
    session: Session, criterion: str, names: tuple[str, ...], statistic: Literal["cohen", "fleiss"],
    items: dict[Question, list[str]], left_out: int,
) -> Agreement:  # fmt: skip
    rows = list(items.values())
    compute: Callable[[Sequence[list[str]]], Kappa] = _cohen if statistic == "cohen" else fleiss_kappa
    whole = compute(rows)
    ci = None
    if whole.value is not None and whole.observed != 1:  # else every resample agrees as well, which tells nothing
        ci = _interval(session, list(items), rows, compute, whole.value)
    return Agreement(criterion, names, statistic, len(rows), left_out, whole.observed, whole.value, ci, whole.reason)


def _cohen(rows: Sequence[list[str]]) -> Kappa:
    return cohen_kappa([row[0] for row in rows], [row[1] for row in rows])


def _interval(
    session: Session, questions: list[Question], rows: list[list[str]],
    compute: Callable[[Sequence[list[str]]], Kappa], estimate: float,
) -> tuple[float, float] | None:  # fmt: skip
    """None where all pairs are of one prompt."""
    clips = [session.prompts[question.prompt].clip for question in questions]
    ids = [f"{clip}#{q.left}-{q.right}" for clip, q in zip(clips, questions, strict=True)]
    values = [compute([rows[i] for i in draw]).value for draw in bootstrap_indices(ids, clips, REPLICATES)]
    replicates = np.array([math.nan if value is None else value for value in values])
    return percentile_interval(estimate, replicates, len(set(clips)), (-1.0, 1.0))


def side_one(answers: Sequence[Answer]) -> tuple[int, int]:
    """In how many answers the video on side 1 was better, and how many were no tie. By chance it is one half."""
    better = [answer for answer in answers if answer.label != "tie"]
    taken = [answer.shown[0] == (answer.left if answer.label == "left" else answer.right) for answer in better]
    return sum(taken), len(taken)


def document(found: Sequence[Agreement], sides: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """JSON-able."""
    return {
        "schema": SCHEMA, "agreement": [{**asdict(one), "between": list(one.between)} for one in found],
        "side_one": {name: {"better": better, "answers": answers} for name, (better, answers) in sides.items()},
    }  # fmt: skip


HEADERS = ("criterion", "between", "pairs", "agree", "κ", "95 % interval", "note")


def rows(found: Sequence[Agreement]) -> list[tuple[str, ...]]:
    """Of a table."""
    return [
        (
            one.criterion, ", ".join(one.between) or "nobody", str(one.pairs),
            "" if one.observed is None else f"{100 * one.observed:.0f} %",
            "" if one.kappa is None else f"{one.kappa:.2f} ({one.statistic.title()})",
            "" if one.ci is None else f"[{one.ci[0]:.2f}, {one.ci[1]:.2f}]", _note(one),
        )
        for one in found
    ]  # fmt: skip


def _note(one: Agreement) -> str:
    if one.reason is not None:
        return one.reason
    notes = ["no interval: nobody disagreed"] if one.observed == 1 else []
    if one.left_out:
        why = "tied or not scored" if AUTOMATIC in one.between else "labelled by fewer or more"
        notes.append(f"{one.left_out} {why}")
    return "; ".join(notes)


__all__ = ["HEADERS", "Agreement", "agreement", "document", "rows", "side_one"]
