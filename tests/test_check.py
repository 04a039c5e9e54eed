"""`halign-bench check` as CI meets it: what is a regression, what cannot be told, and every form it is said in."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import cell, make_record, score

from halign_bench.checking.margins import parse_margins
from halign_bench.checking.power import Variance, chance, clips_needed, least_margin, seeds_needed
from halign_bench.checking.texts import escaped, workflow_commands
from halign_bench.checking.verdicts import Outcome, verdict
from halign_bench.cli import main
from halign_bench.errors import RequestError
from halign_bench.printing import printable
from halign_bench.results import write_record
from halign_bench.stats import Difference

HOSTILE = 'dpo</testsuite>|`x`<script>alert(1)</script>\n::error::fake\x1b[31m\x00,%0A##[error]"'


@pytest.fixture(autouse=True)
def nowhere_near_github(monkeypatch):
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sides(tmp_path):
    """Two folders; `sides(method, before, now)` adds a method with its gains (None: a failure)."""
    run, baseline = tmp_path / "run" / "records", tmp_path / "baseline" / "records"

    def add(method, before=0.0, now=0.0, seeds=(0,), noise=False, name=None, **changes):
        for seed in seeds:
            for folder, gain, drawn in ((baseline, before, method), (run, now, method + "x" * noise)):
                folder.mkdir(parents=True, exist_ok=True)
                if gain is None:
                    record = make_record(method, seed, status="failed", error="out of memory")
                    write_record(folder / f"{method}-s{seed}.json", record)
                    continue
                record = cell(folder, drawn, seed, gain, **(changes if folder is run else {}))
                record.cell.method = name or method
                write_record(record.source, record)
        return run.parent, baseline.parent

    return add


def check(capsys, run, baseline, *options):
    code = main(["check", str(run), "--against", str(baseline), "--json", *options])
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    return code, {(o["method"], o["metric"]): o for o in document["outcomes"]}, document


def test_the_same_run_again_is_equivalent_and_exits_with_0(sides, capsys):
    sides("base")
    code, outcomes, _ = check(capsys, *sides("sft", seeds=(0, 1)))
    assert code == 0 and {o["verdict"] for o in outcomes.values()} == {"equivalent"}
    # Motion has no better side and speed is no matter of clips: neither is checked.
    assert {key for _, key in outcomes} == {"sync_c@toy", "fid@toy"}


def test_a_loss_beyond_the_margin_is_a_regression_and_a_gain_an_improvement(sides, capsys):
    sides("base")
    sides("worse", 0.5, 0.0)
    code, outcomes, _ = check(capsys, *sides("better", 0.0, 0.5))
    assert code == 1
    assert {m: o["verdict"] for (m, key), o in outcomes.items() if key == "fid@toy"} == {
        "base": "equivalent", "worse": "regression", "better": "improvement",
    }  # fmt: skip
    worse = outcomes["worse", "fid@toy"]
    assert worse["difference"] == pytest.approx(2.0) and worse["difference"] > worse["margin"] > 0
    assert outcomes["worse", "sync_c@toy"]["difference"] == pytest.approx(-0.5)


def test_a_significant_loss_within_the_margin_is_none(sides, capsys):
    code, outcomes, _ = check(capsys, *sides("sft", 0.5, 0.0), "--margin", "fid=3,sync_c=20%")
    assert code == 0 and {o["verdict"] for o in outcomes.values()} == {"equivalent"}
    assert outcomes["sft", "fid@toy"]["p_holm"] < 0.05


def test_too_few_clips_are_said_with_how_many_it_takes_and_may_pass_if_asked(sides, capsys):
    run, baseline = sides("sft", noise=True)
    code, outcomes, _ = check(capsys, run, baseline, "--margin", "sync_c=0.02")
    said = outcomes["sft", "sync_c@toy"]
    assert code == 2 and said["verdict"] == "cannot tell"
    told = r"too few clips for this margin: 48 clips of 12 identities, 1 seed, .* about \d+ clips"
    assert re.search(told, said["reason"])
    assert check(capsys, run, baseline, "--margin", "sync_c=0.02", "--allow-cannot-tell")[0] == 0
    assert check(capsys, run, baseline, "--margin", "sync_c=2,fid=5")[0] == 0


def test_a_regression_fails_even_where_what_cannot_be_told_may_pass(sides, capsys):
    sides("noisy", noise=True)
    code, outcomes, _ = check(capsys, *sides("worse", 0.5, 0.0), "--allow-cannot-tell", "--margin", "sync_c=0.02")
    assert code == 1 and next(iter(outcomes.values()))["verdict"] == "regression"
    assert "cannot tell" in {o["verdict"] for o in outcomes.values()}


@pytest.mark.parametrize(
    ("gain", "ci", "p", "expected"),
    [
        (-2.0, (-3.0, -1.2), 0.001, "regression"), (-2.0, (-3.0, -1.2), 0.06, "cannot tell"),
        (-0.8, (-0.9, -0.7), 0.001, "equivalent"), (-0.8, (-1.4, -0.2), 0.01, "cannot tell"),
        (2.0, (1.2, 3.0), 0.001, "improvement"), (1.5, (-0.9, 3.0), 0.3, "not worse"),
        (0.0, (-1.5, 1.5), 1.0, "cannot tell"), (0.0, None, None, "cannot tell"), (0.0, (0.0, 0.0), 1.0, "equivalent"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("up", [True, False])
def test_verdicts_at_a_margin_of_one(gain, ci, p, expected, up):
    sign = 1 if up else -1
    ends = None if ci is None else tuple(sorted(sign * end for end in ci))
    assert verdict(Difference(sign * gain, ends, p), p, up, 1.0) == expected


def test_a_seed_that_fails_now_is_a_regression_and_the_others_are_compared(sides, capsys):
    sides("sft", seeds=(0, 1))
    code, outcomes, _ = check(capsys, *sides("sft", 0.0, None, seeds=(2,)))
    assert code == 1 and "seed 2 failed: out of memory" in outcomes["sft", None]["reason"]
    assert outcomes["sft", "sync_c@toy"]["n_seeds"] == 2


def test_a_seed_that_failed_in_the_baseline_too_is_only_noted(sides, capsys):
    sides("sft")
    code, _, document = check(capsys, *sides("sft", None, None, seeds=(1,)))
    assert code == 0 and any("seed 1 failed in the baseline" in note for note in document["notes"])


def test_a_score_that_cannot_be_measured_any_more_is_a_regression(sides, capsys):
    run, baseline = sides("sft")
    record = cell(run / "records", "sft")
    record.metrics["fid@toy"] = score(None, None, n=0, reason="no frames", higher_is_better=False)
    write_record(record.source, record)
    code, outcomes, _ = check(capsys, run, baseline)
    assert code == 1 and outcomes["sft", "fid@toy"]["reason"] == "could not be measured any more: no frames"


def test_a_score_that_lost_clips_is_not_passed_on_those_that_are_left(sides, capsys):
    code, outcomes, _ = check(capsys, *sides("sft", missing=tuple(range(12))))
    said = outcomes["sft", "sync_c@toy"]
    assert code == 2 and said["verdict"] == "cannot tell"
    assert said["reason"] == "12 of the 48 clips that the baseline scored have no score now (no face)"


def test_a_leaderboard_json_stands_for_the_records_beside_it(sides, capsys, tmp_path):
    run, baseline = sides("sft")
    table = baseline / "leaderboard.json"
    assert main(["leaderboard", str(baseline), "--format", "json", "--out", str(table)]) == 0
    assert check(capsys, run, table)[0] == 0
    alone = tmp_path / "alone" / "leaderboard.json"
    alone.parent.mkdir()
    alone.write_text(table.read_text())
    assert main(["check", str(run), "--against", str(alone)]) == 2
    assert "has no records beside it" in capsys.readouterr().err


def test_other_protocols_are_refused_with_the_difference(sides, capsys):
    run, baseline = sides("sft")
    record = make_record("sft", protocol={"training": {"samples": 3200}}, metrics={"fid@toy": score(1.0)})
    write_record(run / "records" / "sft-s0.json", record)
    assert main(["check", str(run), "--against", str(baseline)]) == 2
    assert "training.samples is 256 and 3200" in capsys.readouterr().err


def test_records_without_their_companions_are_one_sentence(sides, capsys):
    run, baseline = sides("sft")
    for file in (baseline / "records").glob("*.parquet"):
        file.unlink()
    assert main(["check", str(run), "--against", str(baseline)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "paired differences need the scores of single clips" in told


def test_a_truncated_record_cannot_be_told_and_the_rest_is_checked(sides, capsys):
    sides("base")
    run, baseline = sides("sft")
    broken = run / "records" / "sft-s0.json"
    broken.write_text(broken.read_text()[:100])
    code, outcomes, document = check(capsys, run, baseline)
    assert code == 2 and outcomes["sft-s0.json", None]["verdict"] == "cannot tell"
    assert outcomes["base", "fid@toy"]["verdict"] == "equivalent"
    assert "only in the baseline, not checked: sft" in document["notes"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--margin", "0.5"], ["--margin 0.5", "name the score"]), (["--margin", "fid=x"], ["fid=x", "no margin"]),
        (["--margin", "fid=-1"], ["no margin"]), (["--margin", "fidd=1"], ["'fidd'", "did you mean 'fid'"]),
        (["--margin", "fid=nan%"], ["no margin"]), (["--margin", ""], ["no margin"]),
        (["--junit", "."], ["--junit .", "cannot be written"]), (["--plan", "--github"], ["--plan", "--github"]),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_are_one_sentence_and_exit_code_2(sides, capsys, options, words):
    run, baseline = sides("sft")
    assert main(["check", str(run), "--against", str(baseline), *options]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and all(word in told.err for word in words), told.err


def test_without_a_baseline_one_sentence(sides, capsys):
    assert main(["check", str(sides("sft")[0])]) == 2
    assert "--against BASELINE" in capsys.readouterr().err


def test_hostile_names_are_text_in_every_output(sides, capsys, tmp_path, monkeypatch):
    """They come from records that anybody may send in a pull request."""
    job = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(job))
    sides("base")
    run, baseline = sides("hostile", 0.5, 0.0, name=HOSTILE)
    junit = tmp_path / "check.xml"
    assert main(["check", str(run), "--against", str(baseline), "--junit", str(junit)]) == 1
    lines = capsys.readouterr().out.splitlines()
    pause = lines[0].removeprefix("::stop-commands::")
    resume = lines.index(f"::{pause}::")  # the runner takes nothing between the two for a command
    assert len(pause) == 32 and not any("\x1b" in line or "\x00" in line for line in lines)
    commands = [line for line in lines[resume + 1 :] if line.startswith("::")]
    assert len(lines[resume + 1 :]) == len(commands) == 2 and all(c.startswith("::error title=") for c in commands)
    title, message = re.fullmatch(r"::error title=(.*?)::(.*)", commands[0]).groups()
    assert ":" not in title and "," not in title and "%2C%250A" in title and "sync_c@toy" in message
    root = ET.fromstring(junit.read_text(encoding="utf-8"))
    assert [suite.get("name").count("<script>") for suite in root] == [1, 0]
    text = job.read_text(encoding="utf-8")
    assert "<script>" not in text and r"\<script\>" in text and "\n::" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1  # the pipe in the name makes no cell


def test_junit_counts_are_those_of_its_cases(sides, tmp_path):
    """The structure that both usual schemas ask for: counts, times, and the order of a suite's parts."""
    sides("worse", 0.5, 0.0)
    run, baseline = sides("noisy", noise=True)
    for allowed, tag in ((False, "error"), (True, "skipped")):
        file = tmp_path / f"{tag}.xml"
        options = ["--junit", str(file), "--margin", "sync_c=0.02", *(["--allow-cannot-tell"] if allowed else [])]
        assert main(["check", str(run), "--against", str(baseline), *options]) == 1
        suites = ET.parse(file).getroot()
        assert suites.tag == "testsuites" and [suite.get("name") for suite in suites] == ["worse", "noisy"]
        for suite in suites:
            parts = [part.tag for part in suite]
            cases = suite.findall("testcase")
            assert parts == ["properties", *["testcase"] * len(cases), "system-out", "system-err"]
            assert int(suite.get("tests")) == len(cases) == 2
            for count, name in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
                assert int(suite.get(count)) == len(suite.findall(f"testcase/{name}"))
            assert all(case.get("classname") and case.get("name") and case.get("time") for case in cases)
        assert len(suites.findall(".//failure")) == 2 and len(suites.findall(f".//{tag}")) >= 1


def test_the_summary_of_a_job_is_appended_and_a_file_replaced(sides, tmp_path, monkeypatch):
    run, baseline = sides("sft")
    job, file = tmp_path / "job.md", tmp_path / "mine.md"
    job.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(job))
    for _ in range(2):
        assert main(["check", str(run), "--against", str(baseline)]) == 0
    assert main(["check", str(run), "--against", str(baseline), "--summary", str(file)]) == 0
    assert job.read_text().startswith("before\n") and job.read_text().count("2 equivalent") == 2
    assert file.read_text().count("2 equivalent") == 1


# Margins


def test_the_closest_name_gives_the_margin_and_the_rule_those_that_nobody_named():
    margins = parse_margins(["10%", "fid=1,fid@toy/nfe10=3,fid@toy=2"])
    fid, psnr = score(10.0), score(20.0, unit="dB")
    assert [margins.of(key, fid).amount for key in ("fid@other", "fid@toy", "fid@toy/nfe10")] == [1, 2, 3]
    assert margins.of("psnr@toy", psnr).of(-20.0) == pytest.approx(2.0)
    rule = parse_margins([])
    assert rule.of("psnr@toy", psnr).of(20.0) == 0.2
    assert rule.of("ssim@toy", score(0.8, bounds=(-1, 1))).of(0.8) == 0.02
    assert rule.of("fid@toy", score(8.0, bounds=(0, None))).of(8.0) == pytest.approx(0.4)


@given(st.text(max_size=30))
def test_any_text_is_a_margin_or_one_sentence(text):
    try:
        margins = parse_margins([text])
    except RequestError as error:
        assert "\n" not in str(error) or "\n" in text
        return
    every = [margins.everywhere, *margins.named.values()]
    assert all(margin is None or 0 <= margin.amount < float("inf") for margin in every)


# Texts


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_name_stays_on_its_line_and_in_its_command(method, reason):
    assert printable(method).isprintable()
    assert not re.search(r"(?<!\\)(\\\\)*[<>`\[]", escaped(method))
    (line,) = workflow_commands([Outcome(method, None, "regression", reason=reason)])
    assert "\n" not in line and "\r" not in line
    assert re.fullmatch(r"::error title=[^:,]*::.*", line, re.DOTALL)


# Power


def test_a_plan_says_clips_and_seeds_for_each_score(sides, capsys):
    sides("base", seeds=(0, 1, 2))
    run, _ = sides("sft", seeds=(0, 1, 2))
    assert main(["check", str(run), "--plan", "--json", "--margin", "sync_c=0.3"]) == 0
    document = json.loads(capsys.readouterr().out)
    (mine,) = (one for one in document["scores"] if one["metric"] == "sync_c@toy")
    assert document["power"] == 0.9 and (mine["n"], mine["n_seeds"]) == (48, 3) and mine["margin"] == 0.3
    assert mine["power"] >= 0.9 and mine["clips"] <= 48 and mine["tells"] < 0.3
    assert main(["check", str(run), "--plan"]) == 0
    assert "sync_c@toy" in capsys.readouterr().out


def test_a_plan_of_base_alone_is_refused(sides, capsys):
    assert main(["check", str(sides("base")[0]), "--plan"]) == 2
    assert "a method and base" in capsys.readouterr().err


def test_more_clips_and_wider_margins_never_tell_less():
    found = Variance(shared=1.0, residual=0.5, seeds=None, clips=96, identities=24, n_seeds=1)
    by_clips = [chance(found, identities, 1, 3.0, 20) for identities in (6, 12, 24, 48, 96)]
    by_margin = [chance(found, 24, 1, margin, 20) for margin in (0.5, 1, 2, 4, 8)]
    assert by_clips == sorted(by_clips) and by_margin == sorted(by_margin) and by_margin[-1] > 0.99 > by_margin[0]
    tells = least_margin(found, 20)
    assert chance(found, 24, 1, tells, 20) >= 0.9 > chance(found, 24, 1, 0.95 * tells, 20)
    needed = clips_needed(found, 1, tells / 2, 20)
    assert 3 * 96 < needed < 6 * 96  # four times as many, were there no degrees of freedom
    assert seeds_needed(found, tells, 20) is None


def test_where_seeds_vary_no_number_of_clips_does_but_seeds_do():
    found = Variance(shared=0.1, residual=0.1, seeds=3.0, clips=96, identities=24, n_seeds=3)
    assert clips_needed(found, 3, 1.5) is None
    assert 10 < seeds_needed(found, 1.5) < 40


def test_the_plan_of_one_seed_is_the_textbook_sample_size():
    """(z of 97.5 % + z of the 92 % that is aimed at)² variances, for many clips and one check."""
    found = Variance(shared=1.0, residual=0.0, seeds=None, clips=200, identities=200, n_seeds=1)
    assert clips_needed(found, 1, 1.0) == pytest.approx(200 * (1.96 + 1.405) ** 2, rel=0.05)
