"""One annotator at work on a session: which question is next, what was answered, how long the rest takes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from halign_bench.prefs.answers import Answer, AnswerLog
from halign_bench.prefs.lines import Label
from halign_bench.prefs.session import Question, Session
from halign_bench.recording import now
from halign_bench.sampling import derived_seed

RECENT = 50  # answers whose median time tells how long the rest takes
LONG = 300.0  # seconds; a longer one had a pause in it


class WrongQuestionError(Exception):
    """The answer is to another question than the one that is asked: of an old page, or sent twice."""


@dataclass
class Sitting:
    """Questions are asked in the session's order, one criterion after the other; an answer is to the next one alone."""

    session: Session
    annotator: str
    log: AnswerLog

    def __post_init__(self) -> None:
        self._count()

    def _count(self) -> None:
        places = {q: n for n, q in enumerate(self.session.questions)}
        rows = self.session.rows
        self._answered = {
            (places[Question(rows[a.clip], a.left, a.right)], a.criterion)
            for a in self.log.answers if a.clip in rows and Question(rows[a.clip], a.left, a.right) in places
        }  # fmt: skip

    def shown(self, number: int) -> tuple[int, int]:
        """Candidates of question `number` on side 1 and side 2: a coin of this annotator and pair alone."""
        question = self.session.questions[number]
        clip = self.session.prompts[question.prompt].clip
        key = "sides", self.session.key, self.annotator, clip, question.left, question.right
        return (question.left, question.right) if derived_seed(*key) % 2 else (question.right, question.left)

    def next(self) -> tuple[int, str] | None:
        """(question, criterion), or None when all are answered."""
        criteria = self.session.criteria
        return next(
            ((n, c) for n in range(len(self.session.questions)) for c in criteria if (n, c) not in self._answered), None
        )

    def answer(self, number: int, criterion: str, side: int, seconds: float) -> None:
        """`side` is 1 or 2, 0 for a tie. Raises WrongQuestionError, and OSError where it cannot be kept."""
        if self.next() != (number, criterion):
            raise WrongQuestionError
        question, shown = self.session.questions[number], self.shown(number)
        better = shown[side - 1] if side else None
        label: Label = "tie" if better is None else "left" if better == question.left else "right"
        clip = self.session.prompts[question.prompt].clip
        self.log.add(Answer(
            clip=clip, left=question.left, right=question.right, criterion=criterion, label=label, shown=shown,
            seconds=round(seconds, 2), time=now(),
        ))  # fmt: skip
        self._answered.add((number, criterion))

    def undo(self) -> None:
        """The last answer is asked again. Raises OSError where that cannot be kept."""
        self.log.undo()
        self._count()

    def state(self) -> dict[str, Any]:
        """What the page shows (JSON-able). `side` of an answer is as in `answer`."""
        total = len(self.session.questions) * len(self.session.criteria)
        state: dict[str, Any] = {
            "annotator": self.annotator, "criteria": self.session.criteria, "pairs": len(self.session.questions),
            "answered": len(self._answered), "questions": total, "seconds_left": self._seconds_left(total),
            "can_undo": bool(self.log.answers), "next": None,
        }  # fmt: skip
        if (following := self.next()) is not None:
            number, criterion = following
            state["next"] = {"pair": number, "criterion": criterion, "given": self._given(number)}
        return state

    def _given(self, number: int) -> dict[str, int]:
        """Criterion -> side, of what is answered of this pair."""
        question, shown = self.session.questions[number], self.shown(number)
        clip = self.session.prompts[question.prompt].clip
        given = {}
        for answer in self.log.answers:
            if (answer.clip, answer.left, answer.right) == (clip, question.left, question.right):
                better = {"left": answer.left, "right": answer.right}.get(answer.label)
                given[answer.criterion] = 0 if better is None else 1 + shown.index(better)
        return given

    def _seconds_left(self, total: int) -> float | None:
        """From the median of recent answers; None before there are three."""
        taken = [answer.seconds for answer in self.log.answers if answer.seconds < LONG][-RECENT:]
        return statistics.median(taken) * (total - len(self._answered)) if len(taken) >= 3 else None


__all__ = ["Sitting", "WrongQuestionError"]
