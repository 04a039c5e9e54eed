"""Agreement of a session: who is compared with whom, over which pairs, and why there sometimes is no κ."""

from __future__ import annotations

import doctest
from collections.abc import Mapping

import pytest

from halign_bench.prefs import votes as voting
from halign_bench.prefs.agreement import HEADERS, agreement, document, rows, side_one
from halign_bench.prefs.answers import Answer
from halign_bench.prefs.kappa import cohen_kappa, fleiss_kappa
from halign_bench.prefs.session import Candidate, Noise, Prompt, Session
from halign_bench.prefs.votes import majority, votes

LONG = {"l": "left", "r": "right", "t": "tie"}


def session(prompts: int, candidates: int = 2, scores: Mapping[str, list[float | None]] | None = None) -> Session:
    """`scores` are by criterion, of the candidates of every prompt alike."""
    made = [
        Prompt(clip=f"clip{row}", identity="x", index=row, reference=f"videos/{row}.png", candidates=[
            Candidate(video=f"videos/{row}-{k}.mp4", noise=Noise(name="n", seed=0),
                      scores={name: values[k] for name, values in (scores or {}).items()})
            for k in range(candidates)
        ])
        for row in range(prompts)
    ]  # fmt: skip
    return Session(key="k", sources={}, criteria=["motion"], prompts=made)


def said(**labels: str) -> dict[str, list[Answer]]:
    """kim="lr-t": of clip0 left, of clip1 right, of clip2 nothing, of clip3 a tie."""
    return {
        name: [
            Answer(clip=f"clip{row}", left=0, right=1, criterion="motion", label=LONG[letter], shown=(0, 1), seconds=1,
                   time="now")
            for row, letter in enumerate(letters) if letter != "-"
        ]
        for name, letters in labels.items()
    }  # fmt: skip


def between(prompts: int = 8, **labels: str):
    of = session(prompts)
    (found,) = agreement(of, votes(of, said(**labels)))
    return found


def test_two_annotators_are_compared_by_cohen_on_what_both_labelled():
    found = between(kim="llrrtl-r", lee="llrltlr-")
    expected = cohen_kappa("llrrtl", "llrltl")
    assert (found.statistic, found.between, found.pairs, found.left_out) == ("cohen", ("kim", "lee"), 6, 2)
    assert (found.kappa, found.observed) == (expected.value, expected.observed) and found.reason is None
    assert -1 <= found.ci[0] < found.kappa < found.ci[1] <= 1
    assert between(kim="llrrtl-r", lee="llrltlr-") == found  # the bootstrap has a seed


def test_more_are_compared_by_fleiss():
    found = between(kim="llrr", lee="llrr", max="llr-")
    assert (found.statistic, found.pairs, found.left_out, found.kappa) == ("fleiss", 3, 1, 1.0)
    assert found.ci is None  # of which no resample would say anything else
    assert "no interval: nobody disagreed; 1 labelled by fewer or more" in rows([found])[0]


def test_where_each_pair_was_labelled_by_some_of_the_annotators_fleiss_takes_the_usual_number_of_labels():
    found = between(kim="lrlr----", lee="lrl-lr--", max="---rrrl-")  # of two each but for clip6
    assert (found.between, found.statistic) == (("kim", "lee", "max"), "fleiss")
    assert (found.pairs, found.left_out) == (6, 1)
    assert found.kappa == fleiss_kappa(["ll", "rr", "ll", "rr", "lr", "rr"]).value


def test_how_often_the_video_on_side_1_was_better_is_counted():
    answers = [
        answer.model_copy(update={"shown": shown})
        for answer, shown in zip(said(kim="llrrt")["kim"], [(0, 1), (1, 0), (0, 1), (1, 0), (0, 1)], strict=True)
    ]
    assert side_one(answers) == (2, 4) and side_one([]) == (0, 0)
    assert document([], {"kim": (2, 4)})["side_one"] == {"kim": {"better": 2, "answers": 4}}


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({}, "nobody labelled it; agreement takes two"),
        ({"kim": "lr"}, "one annotator labelled it; agreement takes two"),
        ({"kim": "lr--", "lee": "--lr"}, "no pairs to compare; at least 2 are needed"),
        ({"kim": "l", "lee": "l"}, "1 pair to compare; at least 2 are needed"),
        ({"kim": "llll", "lee": "llll"}, "everybody gave the same label throughout, so chance explains all of it"),
    ],
)
def test_where_there_is_no_kappa_there_is_a_reason_and_not_a_0(labels, reason):
    found = between(**labels)
    assert (found.kappa, found.ci, found.reason) == (None, None, reason)
    assert reason in rows([found])[0] and len(rows([found])[0]) == len(HEADERS)
    assert document([found], {})["agreement"][0]["kappa"] is None


def test_the_majority_is_compared_with_the_automatic_score_where_both_have_a_side():
    of = session(6, scores={"motion": [0.9, 0.1]})  # the score says left throughout
    one, automatic = agreement(of, votes(of, said(kim="llrlrt", lee="llrrrl", max="lrlll-")))
    assert one.between == ("kim", "lee", "max")
    assert automatic.between == ("majority", "automatic scores") and automatic.statistic == "cohen"
    # Majorities: l l r l r, and of clip5 a tie, which does not count.
    assert (automatic.pairs, automatic.left_out) == (5, 1) and automatic.observed == pytest.approx(3 / 5)
    assert automatic.kappa == pytest.approx(0.0)  # a score that never varies tells nothing beyond chance
    of = session(3, scores={"motion": [0.9, None]})
    _, unscored = agreement(of, votes(of, said(kim="lll")))
    assert (unscored.pairs, unscored.left_out, unscored.kappa) == (0, 3, None)


def test_pairs_of_one_prompt_are_drawn_together():
    labels = {"kim": "lrlrlrlrlrlr", "lee": "lrlrlrlrlrrl"}

    def measured(prompts: int, candidates: int):
        of = session(prompts, candidates)
        given = {
            name: [
                Answer(clip=f"clip{q.prompt}", left=q.left, right=q.right, criterion="motion", label=LONG[letter],
                       shown=(q.left, q.right), seconds=1, time="now")
                for q, letter in zip(of.questions, letters, strict=False)
            ]
            for name, letters in labels.items()
        }  # fmt: skip
        return agreement(of, votes(of, given))[0]

    few, many, one = measured(2, 4), measured(12, 2), measured(1, 4)
    assert few.pairs == many.pairs == 12 and few.kappa == many.kappa and few.ci != many.ci
    assert one.kappa == 1.0 and one.ci is None  # of one prompt alone nobody can tell how prompts differ


def test_a_majority_needs_more_votes_than_any_other_label():
    assert doctest.testmod(voting).failed == 0
    assert majority(["left"]) == "left" and majority(["right", "tie", "tie"]) == "tie"
    assert majority(["left", "right", "tie"]) == "tie" and majority(["left", "left", "right", "right"]) == "tie"


def test_answers_to_what_the_session_does_not_ask_are_passed_over():
    of = session(2)
    foreign = [answer.model_copy(update=change) for answer in said(kim="l")["kim"]
               for change in ({"clip": "other"}, {"right": 3}, {"criterion": "beauty"})]  # fmt: skip
    assert not any(votes(of, {"kim": foreign}).values())
