"""Claims: every form that one can be stated in, judged on records whose truth is known; and why one stays open."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import numpy as np
import pytest
from records import DRAWS, IDS, PEOPLE, cell, make_record, score
from rich.console import Console
from scipy import stats as scipy_stats

from halign_bench.claims import words
from halign_bench.companions import read_clips
from halign_bench.environment import Environment
from halign_bench.leaderboard import build
from halign_bench.method import Claim
from halign_bench.record import ClaimData, Timings
from halign_bench.results import read_record
from halign_bench.tables.judgements import claim_rows

TOLD = 0.5  # a gain that 48 clips tell from none, as methods differ by 0.3 a clip


def claim(metric="sync_c", than="base", **more) -> ClaimData:
    """As a method file states it and a record carries it."""
    return ClaimData(**asdict(Claim(metric, than, "table 2", **more)))


def table(folder, rows: dict[str, float], *claims: ClaimData, by: str = "tuned", nfes=(), seeds=(0,)):
    """Rows with their gains; those called `by` make the claims."""
    return build([
        cell(folder, row, seed, gain, nfes=nfes, claims=claims if row == by else ())
        for row, gain in rows.items() for seed in seeds
    ])  # fmt: skip


def only(board) -> dict:
    (judged,) = board.claims
    return judged


def test_a_claim_survives_its_record(tmp_path):
    stated = claim(("hkc", "sync_c/nfe30"), ("base", "sft/nfe100"), times=0.95, of="a+b")
    record = cell(tmp_path, "tuned", claims=(stated, claim(margin=-0.5)))
    assert read_record(record.source).claims == [stated, claim(margin=-0.5)]
    assert json.loads(record.source.read_text())["claims"][0]["metric"] == ["hkc", "sync_c/nfe30"]
    with pytest.raises(ValueError, match="not both"):
        Claim("fid", "base", "table 2", margin=1.0, times=2.0)


@pytest.mark.parametrize("wrong", [
    {"metric": "f i d"}, {"metric": ()}, {"than": ()}, {"than": ""}, {"margin": float("nan")},
])  # fmt: skip
def test_a_record_with_a_claim_that_says_nothing_is_refused(wrong):
    with pytest.raises(ValueError):
        claim(**wrong)


@pytest.mark.parametrize(
    ("margin", "gain", "verdict"),
    [
        (-1.0, 0.0, "supported"), (-0.25, -TOLD, "refuted"), (-0.45, -TOLD, "not enough data"),
        (-0.8, -TOLD, "supported"),
    ],
)
def test_non_inferior_with_a_stated_margin(tmp_path, margin, gain, verdict):
    judged = only(table(tmp_path, {"base": 0, "tuned": gain}, claim(margin=margin)))
    assert judged["verdict"] == verdict
    assert judged["text"] == f"sync_c not worse than base by more than {-margin:g}"
    assert judged["comparisons"][0]["ci"][0] < gain < judged["comparisons"][0]["ci"][1]


def test_one_nfe_against_another(tmp_path):
    """A score loses 5/NFE, so at 30 it is 0.12 below what it is at 100, and at 5 it is 0.95 below."""
    claims = [claim(f"sync_c/nfe{nfe}", "base/nfe100", margin=-0.4) for nfe in (30, 5)]
    board = table(tmp_path, {"base": 0, "tuned": 0}, *claims, nfes=(30, 100, 5))
    assert [judged["verdict"] for judged in board.claims] == ["supported", "refuted"]
    part = board.claims[0]["comparisons"][0]
    assert (part["key"], part["than_key"]) == ("sync_c@toy/nfe30", "sync_c@toy/nfe100")
    assert part["improvement"] == pytest.approx(5 / 100 - 5 / 30, abs=0.1)
    assert board.claims[0]["text"] == "sync_c at NFE 30 not worse than base at NFE 100 by more than 0.4"


def test_a_method_against_itself_at_another_nfe(tmp_path):
    stated = claim("seconds_per_second/nfe30", "sft/nfe100", times=3.2), claim("sync_c/nfe30", "sft/nfe100")
    board = table(tmp_path, {"base": 0, "sft": 0}, *stated, by="sft", nfes=(100, 30, 5))
    assert [judged["comparisons"][0]["than"] for judged in board.claims] == ["sft", "sft"]
    assert board.claims[0]["verdict"] == "supported"


def test_an_nfe_that_was_not_sampled_is_asked_for(tmp_path):
    judged = only(table(tmp_path, {"base": 0, "tuned": 0}, claim("sync_c/nfe30", "base/nfe100"), nfes=(30, 10)))
    assert judged["verdict"] == "not enough data"
    assert judged["reason"] == "nothing was sampled at NFE 100: run with --nfe 30,10,100"
    judged = only(table(tmp_path, {"base": 0, "tuned": 0}, claim("sync_c/nfe50", "base/nfe100"), nfes=(30, 10)))
    assert judged["reason"] == "nothing was sampled at NFE 50 and 100: run with --nfe 30,10,50,100"


def test_what_keeps_all_comparisons_of_a_claim_from_being_made_is_said_once(tmp_path):
    stated = claim(("sync_c", "hkc"), "absent")
    board = table(tmp_path, {"base": 0, "tuned": 0}, stated)
    assert len(board.claims[0]["comparisons"]) == 2
    assert claim_rows(board) == [["tuned", words(stated), "absent was not run: add it to --methods", "not enough data"]]


def test_against_a_variant_by_whatever_name(tmp_path):
    """What differs from no default is the method itself, and numbers are written in one way."""
    rows = {"base": 0, "tuned": TOLD, "diffusion-dpo": 0, "diffusion-dpo[beta=500]": 0}
    claims = [claim(than=than) for than in ("diffusion-dpo[criterion=overall]", "diffusion-dpo[beta=500.0]")]
    board = table(tmp_path, rows, *claims)
    assert [judged["verdict"] for judged in board.claims] == ["supported"] * 2
    assert [judged["comparisons"][0]["than"] for judged in board.claims] == ["diffusion-dpo", "diffusion-dpo[beta=500]"]


def test_a_variant_of_the_same_method_keeps_the_other_numbers(tmp_path):
    mine, other = "diffusion-dpo[beta=7]", "diffusion-dpo[beta=7,criterion=motion]"
    stated = claim(than="diffusion-dpo[criterion=motion]")
    rows = {"base": 0, mine: TOLD, "diffusion-dpo[criterion=motion]": 0}
    judged = only(table(tmp_path, rows, stated, by=mine))
    assert judged["reason"] == f"{other} was not run: add it to --methods"
    judged = only(table(tmp_path, {**rows, other: 0}, stated, by=mine))
    assert judged["verdict"] == "supported" and judged["comparisons"][0]["than"] == other


def test_in_a_pipeline_the_other_stands_on_the_same(tmp_path):
    rows = {"base": 2 * TOLD, "sft": 0, "sft[data=clips]": 0, "sft+diffusion-dpo": TOLD}
    board = table(tmp_path, rows, claim(than="base"), claim(than="sft"), by="sft+diffusion-dpo")
    assert [judged["comparisons"][0]["than"] for judged in board.claims] == ["sft", "sft"]
    assert [judged["verdict"] for judged in board.claims] == ["supported"] * 2
    judged = only(table(tmp_path, rows, claim(than="diffusion-dpo[beta=3]"), by="sft+diffusion-dpo"))
    assert judged["reason"] == "sft+diffusion-dpo[beta=3] was not run: add it to --methods"


def test_a_claim_about_another_row(tmp_path):
    about = claim(than="sft", of="sft+diffusion-dpo")
    board = table(tmp_path, {"base": 0, "sft": 0, "sft[data=clips]": 0}, about, by="sft[data=clips]")
    assert only(board)["reason"] == "sft+diffusion-dpo was not run: add it to --methods"
    rows = {"base": 0, "sft": 0, "sft+diffusion-dpo": TOLD, "tuned": 0}
    judged = only(table(tmp_path, rows, about, by="tuned"))
    assert judged["method"] == "sft+diffusion-dpo" and judged["verdict"] == "supported"


@pytest.mark.parametrize(
    ("metrics", "gain", "verdict"),
    [
        (("sync_c", "fid"), TOLD, "supported"), (("sync_c", "fid"), -TOLD, "refuted"),
        (("sync_c", "hkc"), TOLD, "not enough data"), (("sync_c", "hkc"), -TOLD, "refuted"),
        (("fid", "sync_c"), 0.0, "not enough data"),
    ],
)  # fmt: skip
def test_several_scores_together(tmp_path, metrics, gain, verdict):
    """All must hold; one that fails is enough; one that is not known leaves it open, and says so."""
    judged = only(table(tmp_path, {"base": 0, "tuned": gain}, claim(metrics)))
    assert judged["verdict"] == verdict and len(judged["comparisons"]) == 2
    if "hkc" in metrics and gain > 0:
        assert judged["reason"] == "hkc was not measured"


def test_one_score_of_two_that_fails_refutes(tmp_path):
    """Better in sync_c by 0.5 and in fid by 2, of which the claim asks for 3."""
    judged = only(table(tmp_path, {"base": 0, "tuned": TOLD}, claim(("sync_c", "fid"), margin=1.0)))
    assert [part["verdict"] for part in judged["comparisons"]] == ["refuted", "supported"]
    assert judged["verdict"] == "refuted"


CHAIN = "diffusion-dpo[beta=2]", "diffusion-dpo[beta=1]"


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((1.0, 0.5, 0.0), "supported"), ((1.0, 0.0, 0.5), "refuted"), ((0.5, 1.0, 0.0), "refuted"),
        ((0.5, 0.5, 0.0), "not enough data"),
    ],
)  # fmt: skip
def test_an_order_over_variants(tmp_path, gains, verdict):
    whole, half, none = gains
    rows = {"base": 0, "diffusion-dpo": whole, CHAIN[0]: half, CHAIN[1]: none}
    ordered = claim(than=CHAIN)
    board = build([cell(tmp_path, row, 0, gain, claims=() if row == "base" else (ordered,))
                   for row, gain in rows.items()])  # fmt: skip
    judged = only(board)  # its variants carry the claim too, and do not claim to be better than themselves
    assert judged["method"] == "diffusion-dpo" and judged["verdict"] == verdict
    assert [(part["method"], part["than"]) for part in judged["comparisons"]] == [("diffusion-dpo", CHAIN[0]), CHAIN]
    assert f"sync_c@toy, {CHAIN[0]} over {CHAIN[1]} " in board.to_markdown()
    assert judged["text"] == "sync_c better than diffusion-dpo[beta=2], and that than diffusion-dpo[beta=1]"


@pytest.mark.parametrize(("times", "verdict"), [(3.2, "supported"), (3.5, "refuted"), (100 / 30, "not enough data")])
def test_a_speed_up_is_measured_on_chunks(tmp_path, times, verdict):
    stated = claim("seconds_per_second/nfe30", "base/nfe100", times=times)
    judged = only(table(tmp_path, {"base": 0, "tuned": 0}, stated, nfes=(100, 30)))
    (part,) = judged["comparisons"]
    assert judged["verdict"] == verdict and part["ratio"] and part["n"] == 6
    assert part["improvement"] == pytest.approx(100 / 30) and part["ci"][0] < 100 / 30 < part["ci"][1]
    assert "at least" in judged["text"] and "as fast as base at NFE 100" in judged["text"]


def test_the_interval_of_a_speed_up_is_that_of_chunks_resampled(tmp_path):
    from halign_bench.stats import bootstrap_indices

    records = [cell(tmp_path, row, nfes=(100, 30)) for row in ("base", "tuned")]
    records[1].claims = [claim("seconds_per_second/nfe30", "base/nfe100", times=3.0)]
    (part,) = only(build(records))["comparisons"]
    slow, fast = np.array(records[0].timings.chunks["100"]), np.array(records[1].timings.chunks["30"])
    names = [str(number) for number in range(6)]
    draws = [
        np.log((fast[d].sum() / fast.sum() * 3.0) / (slow[d].sum() / slow.sum() * 10.0))
        for d in bootstrap_indices(names, names, len(DRAWS), 0)
    ]
    reach = scipy_stats.t.ppf(0.975, 5) * np.std(draws, ddof=1) * np.sqrt(6 / 5)
    assert np.log(part["ci"]) == pytest.approx([np.log(10 / 3) - reach, np.log(10 / 3) + reach], abs=1e-6)


def test_a_speed_that_cannot_be_judged(tmp_path):
    stated = claim("seconds_per_second/nfe30", "base/nfe100", times=3.2)
    untimed = [cell(tmp_path, row, nfes=(100, 30), claims=(stated,) if row == "tuned" else (), timings=Timings())
               for row in ("base", "tuned")]  # fmt: skip
    assert "fewer than two chunks" in only(build(untimed))["reason"]
    elsewhere = Environment(python="3.11", packages={}, hardware={"cores": 64})
    records = [cell(tmp_path, "base", nfes=(100, 30)),
               cell(tmp_path, "tuned", nfes=(100, 30), claims=(stated,), environment=elsewhere)]  # fmt: skip
    assert "different machines" in only(build(records))["reason"]


@pytest.mark.parametrize("metric", ["sync_c", "fid"])
def test_times_as_good_equals_a_computation_from_its_definition(tmp_path, metric):
    records = [cell(tmp_path, "base", missing=(3,)), cell(tmp_path, "tuned", gain=TOLD, missing=(5,))]
    records[1].claims = [claim(metric, times=1.02)]
    judged = only(build(records))
    (part,) = judged["comparisons"]
    if metric == "sync_c":
        base, tuned = ([read_clips(r)["sync_c@toy"][i][1] for i in IDS] for r in records)
        both = [i for i in range(len(IDS)) if base[i] is not None and tuned[i] is not None]
        assert part["n"] == len(IDS) - 2 == len(both)
        mean = np.mean([tuned[i] for i in both]) / np.mean([base[i] for i in both])
        assert part["improvement"] == pytest.approx(mean, rel=1e-9)
    else:
        assert part["improvement"] == pytest.approx(
            records[0].metrics["fid@toy"].value / records[1].metrics["fid@toy"].value
        )
    assert part["ci"][0] < part["improvement"] < part["ci"][1] and judged["verdict"] == "supported"
    records[1].claims = [claim(metric, times=2.0)]
    assert only(build(records))["verdict"] == "refuted"


def test_the_interval_of_a_ratio_is_students_on_its_logarithm(tmp_path):
    records = [cell(tmp_path, "base"), cell(tmp_path, "tuned", gain=TOLD)]
    records[1].claims = [claim(times=0.95)]
    (part,) = only(build(records))["comparisons"]
    base, tuned = (np.array([read_clips(r)["sync_c@toy"][i][1] for i in sorted(IDS)]) for r in records)
    centre = np.log(tuned.mean() / base.mean())
    draws = [np.log(tuned[draw].mean() / base[draw].mean()) for draw in DRAWS]
    reach = scipy_stats.t.ppf(0.975, PEOPLE - 1) * np.std(draws, ddof=1) * np.sqrt(PEOPLE / (PEOPLE - 1))
    assert np.log(part["ci"]) == pytest.approx([centre - reach, centre + reach], abs=1e-6)


def test_a_ratio_of_scores_that_may_be_negative_is_none(tmp_path):
    board = build([
        make_record("base", metrics={"kid@toy": score(-0.1, higher_is_better=False)}),
        make_record("tuned", metrics={"kid@toy": score(0.2, higher_is_better=False)}, claims=[claim("kid", times=0.9)]),
    ])  # fmt: skip
    assert "resampled" in only(board)["reason"]  # no replicates beside these records
    records = [cell(tmp_path, "base", gain=-20.0), cell(tmp_path, "tuned", claims=(claim(times=0.9),))]
    assert only(build(records))["reason"] == "a ratio needs scores above 0"


def test_why_a_claim_stays_open(tmp_path):
    def reason(records) -> str:
        judged = only(build(records))
        assert judged["verdict"] == "not enough data" and all(part["ci"] is None for part in judged["comparisons"])
        return judged["reason"]

    mine = cell(tmp_path, "tuned", claims=(claim(than="sft"),))
    base = cell(tmp_path, "base")
    assert reason([base, mine]) == "sft was not run: add it to --methods"
    failed = make_record("sft", status="diverged", error="the loss is nan")
    assert reason([base, mine, failed]) == "sft has no finished seed (diverged)"
    assert reason([base, mine, cell(tmp_path, "sft", 4)]) == "tuned and sft have no seed in common"
    unscored = make_record("sft", metrics={"sync_c@toy": score(None, n=0, reason="no sound")})
    assert reason([base, mine, unscored]) == "sft: no sound"
    mine.claims = [claim("motion")]
    assert reason([base, mine]) == "motion@toy has no better side"
    mine.claims = [claim("beauty")]
    assert reason([base, mine]) == "beauty was not measured"


def test_an_undecided_claim_says_how_much_is_missing(tmp_path):
    """Asked for 0.05 less than was measured, which the interval of 48 clips does not tell."""
    board = table(tmp_path, {"base": 0, "tuned": TOLD}, claim(margin=0.45))
    low, high = board.claims[0]["comparisons"][0]["ci"]
    measured = board.claims[0]["comparisons"][0]["improvement"]
    stated = claim(margin=measured - (high - low) / 4)  # a quarter of the interval away: four times the clips
    reason = only(table(tmp_path, {"base": 0, "tuned": TOLD}, stated))["reason"]
    assert reason == "undecided with 48 clips of 12 identities, 1 seed: it would take about 4.0 times the clips"
    alike = only(table(tmp_path, {"base": 0, "tuned": TOLD}, claim(margin=measured)))
    assert alike["reason"].endswith("too close to what is claimed to tell")


def test_where_seeds_differ_more_than_clips_seeds_are_short(tmp_path):
    gains = {0: 0.2, 1: 1.4, 2: 0.6}
    records = [cell(tmp_path, "base", seed) for seed in gains]
    records += [cell(tmp_path, "tuned", seed, gain, claims=(claim(),)) for seed, gain in gains.items()]
    reason = only(build(records))["reason"]
    assert "3 seeds" in reason and reason.endswith("times the seeds")


@pytest.mark.parametrize(
    ("stated", "text"),
    [
        (claim(), "sync_c better than base"), (claim(margin=0.2), "sync_c better than base by 0.2"),
        (claim(("hkc", "fid"), times=0.95), "hkc and fid at least 0.95 times as good as base"),
        (claim(("hkc/nfe30", "fid/nfe30"), "base/nfe100"), "hkc and fid at NFE 30 better than base at NFE 100"),
        (claim(("a", "b/nfe5", "c")), "a, b at NFE 5 and c better than base"),
    ],
)  # fmt: skip
def test_a_claim_in_words(stated, text):
    assert words(stated) == text


def test_the_table_of_claims_comes_last_and_shows_each_comparison(tmp_path):
    stated = claim(("sync_c", "fid")), claim(than="tpo")
    board = table(tmp_path, {"base": 0, "tuned": TOLD}, *stated)
    console = Console(file=io.StringIO(), width=100)
    board.print(console)
    text = console.file.getvalue()
    last = text[text.index("Claims of the papers") :]
    assert "Scores" not in last and "supported" in last and "tpo was not run" in " ".join(last.split())
    assert "sync_c@toy over base" in last and "fid@toy over base" in last
    assert max(map(len, last.splitlines())) <= 100
    markdown = board.to_markdown()
    assert "sync_c and fid better than base" in markdown and "2 comparisons" in markdown
    assert json.loads(board.to_json())["claims"][0]["comparisons"][1]["key"] == "fid@toy"
