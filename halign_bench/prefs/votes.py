"""What the annotators of a session said of each pair, and what most of them said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from halign_bench.prefs.answers import Answer
from halign_bench.prefs.session import Question, Session

Votes = dict[Question, dict[str, dict[str, str]]]
"""Pair -> criterion -> annotator -> "left", "right" or "tie"."""


def votes(session: Session, answers: Mapping[str, Sequence[Answer]]) -> Votes:
    """In the session's order of pairs; answers to what it does not ask are passed over."""
    found: Votes = {question: {} for question in session.questions}
    for annotator, given in answers.items():
        for answer in given:
            row = session.rows.get(answer.clip)
            question = Question(-1 if row is None else row, answer.left, answer.right)
            if question in found and answer.criterion in session.criteria:
                found[question].setdefault(answer.criterion, {})[annotator] = answer.label
    return found


def majority(labels: Sequence[str]) -> str:
    """The label that more annotators gave than any other; a tie where there is none such.

    >>> majority(["left", "left", "right"]), majority(["left", "right"]), majority(["left", "tie"])
    ('left', 'tie', 'tie')
    """
    (first, count), *rest = Counter(labels).most_common(2)
    return "tie" if rest and rest[0][1] == count else first


__all__ = ["Votes", "majority", "votes"]
