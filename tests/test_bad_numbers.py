"""Numbers gone wrong, through real runs of the command line: each ends as a status and a reason, never as a number
that looks fine, never in a traceback; what is written is JSON that any reader takes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from runs import Runs

from halign_bench.cli import main
from halign_bench.record import Record
from halign_bench.results import read_record

COMMAND = ("--track", "tiny-bad", "--backbone", "tiny-bad-dit", "--profile", "tiny")
SETS = ("fid@tiny", "kid@tiny", "fvd@tiny")


class Ended:
    """A run that ended, and what it left."""

    def __init__(self, runs: Runs, out: Path, bad: str, methods: str, *more: str) -> None:
        self.out = out
        words = "run", *COMMAND, "--methods", methods, "--out", str(out), *more
        started = runs.command(*words, BAD=bad, HALIGN_CACHE=str(out.parent / "cache"), PARTS="bad_parts")
        self.code, self.said, self.told = runs.finish(started)

        assert self.code in (0, 1, 2) and "Traceback" not in self.told, self.told
        self.is_json()

    def is_json(self) -> None:
        for file in (*self.out.rglob("*.json"), *self.out.rglob("*.jsonl")):
            for line in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
                json.loads(line, parse_constant=no_json)

    def record(self, method: str) -> Record:
        return read_record(self.out / "records" / f"{method}-s0.json")

    def readers(self) -> None:
        """What reads a run reads this one too: tables in each form, checks, figures, a report. None has a NaN."""
        run = str(self.out)
        said = {form: command("leaderboard", run, "--format", form) for form in ("json", "table", "md", "csv", "latex")}
        assert all(code == 0 for code, _, _ in said.values())
        json.loads(said["json"][1], parse_constant=no_json)
        for line in csv.DictReader(io.StringIO(said["csv"][1])):
            numbers = [line[name] for name in ("value", "ci_low", "ci_high", "delta_base", "p_holm") if line[name]]
            assert all(math.isfinite(float(number)) for number in numbers) and (line["value"] or line["reason"])
        assert command("validate", run)[0] in (0, 1)
        assert command("check", run, "--against", run)[0] in (0, 2)

    def drawn(self) -> None:
        """Figures and a report of it, too."""
        run = str(self.out)
        assert command("figures", run, "--out", str(self.out / "figures"), "--format", "svg")[0] in (0, 2)
        code, _, told = command("report", run, "--out", str(self.out / "report"), "--clips", "0")
        assert code == 0, told
        self.is_json()


def command(*words: str) -> tuple[int, str, str]:
    """Code, stdout and stderr of a command in this process; an exception fails the test."""
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        code = main(list(words))
    return code, said.getvalue(), told.getvalue()


def no_json(name: str) -> Any:
    raise AssertionError(f"a file holds {name}, which is no JSON")


def nulls(record: Record, *keys: str) -> list[str]:
    """Reasons of scores that must be null at both NFEs, without interval."""
    found = []
    for key in keys:
        for nfe in (4, 2):
            score = record.metrics[f"{key}/nfe{nfe}"]
            assert score.value is None and score.ci is None and score.reason, (key, score)
            found.append(score.reason)
    return found


@pytest.mark.fault("run: a loss that is NaN, infinite later on, or has a gradient that is not finite",
                   "`diverged` with stage and step; the base and the other methods are done")  # fmt: skip
def test_losses_and_gradients(runs: Runs, tmp_path: Path) -> None:
    ended = Ended(runs, tmp_path / "out", "", "explodes,bad-afterwards,bad-gradients,sft")
    assert ended.code == 1, ended.told
    said = {"explodes": "step 1: the loss is nan", "bad-afterwards": "step 3: the loss is inf",
            "bad-gradients": "step 1: the gradient norm is nan"}  # fmt: skip
    for method, sentence in said.items():
        record = ended.record(method)
        assert record.status == "diverged" and sentence in str(record.error) and not record.metrics
    assert ended.record("base").status == ended.record("sft").status == "done"
    ended.readers()
    ended.drawn()


@pytest.mark.fault("run: a method logs NaN and infinity", "its log holds null; it trains on")
def test_logs(runs: Runs, tmp_path: Path) -> None:
    ended = Ended(runs, tmp_path / "out", "", "bad-logs")
    assert ended.code == 0 and ended.record("bad-logs").status == "done"
    (log,) = (tmp_path / "out").glob("cells/bad-logs-*/train/*/train.jsonl")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(entries) == 4 and all(e["winner_gap"] is e["implicit_accuracy"] is None for e in entries)
    ended.readers()


def rarely(*which: str) -> list[Any]:
    """The first in every run of the tests, the others where there is time."""
    return [which[0], *(pytest.param(one, marks=pytest.mark.slow) for one in which[1:])]


@pytest.mark.parametrize("bad", rarely("nan features", "infinite features", "huge features", "no features"))
@pytest.mark.fault("run: features are NaN, infinite, so large that their squares are, or absent, for all clips",
                   "null with a reason, no interval, no rank; other scores are measured")  # fmt: skip
def test_features(runs: Runs, tmp_path: Path, bad: str) -> None:
    ended = Ended(runs, tmp_path / "out", bad, "sft")
    assert ended.code == 0, ended.told
    for method in ("base", "sft"):
        record = ended.record(method)
        reasons = nulls(record, *SETS)
        assert any(word in reasons[0] for word in ("not finite", "nobody is to be seen", "infinite")), reasons
        assert record.metrics["ssim@tiny-bad/nfe4"].value is not None
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    for row in board["rows"]:
        assert row["metrics"]["fid@tiny/nfe4"]["rank"] is None
    ended.readers()


@pytest.mark.slow
@pytest.mark.fault("run: features of one clip are NaN", "that clip is counted with its reason; the others are scored")
def test_features_of_one_clip(runs: Runs, tmp_path: Path) -> None:
    ended = Ended(runs, tmp_path / "out", "nan features of one clip", "sft")
    score = ended.record("base").metrics["fid@tiny/nfe4"]
    assert score.value is not None and score.n == 7
    assert score.failed == {"score or features are not finite": 1}
    ended.readers()


@pytest.mark.parametrize("bad", rarely("constant features", "constant real features"))
@pytest.mark.fault("run: an extractor that gives every clip the same features", "null with a reason, never a distance")
def test_constant_features(runs: Runs, tmp_path: Path, bad: str) -> None:
    ended = Ended(runs, tmp_path / "out", bad, "sft")
    assert ended.code == 0, ended.told
    for reason in nulls(ended.record("base"), *SETS):
        assert "same features" in reason
    ended.readers()


@pytest.mark.parametrize(
    ("bad", "why"), [("constant sync", "do not change"), pytest.param("nan sync", "not finite", marks=pytest.mark.slow)]
)
@pytest.mark.fault("run: mouth and voice embeddings that never change, or are NaN", "null with a reason")
def test_sync(runs: Runs, tmp_path: Path, bad: str, why: str) -> None:
    ended = Ended(runs, tmp_path / "out", bad, "sft")
    for reason in nulls(ended.record("base"), "sync_c@tiny", "sync_d@tiny", "sync_offset@tiny"):
        assert why in reason
    ended.readers()


@pytest.mark.parametrize("bad", rarely("annotator of nan", "annotator of infinity", "annotator without an eye"))
@pytest.mark.fault("run: an annotator that gives NaN or infinity only, or the same to winner and loser",
                   "`failed`: no pair is there to learn from; the base is measured")  # fmt: skip
def test_no_preferences(runs: Runs, tmp_path: Path, bad: str) -> None:
    ended = Ended(runs, tmp_path / "out", bad, "diffusion-dpo")
    assert ended.code == 1
    assert ended.record("base").status == "done"
    record = ended.record("diffusion-dpo")
    assert record.status == "failed" and "no " in str(record.error) and not record.metrics, record.error
    assert ended.record("sft").status in ("failed", "done")
    ended.readers()


@pytest.mark.slow
@pytest.mark.fault("run: an annotator gives NaN for one prompt", "that prompt makes no pair, and is counted")
def test_annotator_of_nan_for_one_prompt(runs: Runs, tmp_path: Path) -> None:
    ended = Ended(runs, tmp_path / "out", "annotator of nan for one prompt", "diffusion-dpo")
    assert ended.code == 0, ended.told
    record = ended.record("diffusion-dpo")
    assert record.status == "done" and record.provenance["preferences"]["unscored"] == 2  # its two candidates
    ended.readers()


@pytest.mark.fault("run: samples of the evaluation hold NaN", "`diverged` with the clip; nothing is scored")
def test_samples(runs: Runs, tmp_path: Path) -> None:
    ended = Ended(runs, tmp_path / "out", "nan samples", "sft")
    assert ended.code == 1
    for method in ("base", "sft"):
        record = ended.record(method)
        assert record.status == "diverged" and not record.metrics
        assert "tiny/eval/000" in str(record.error) or "held-out pairs are not finite" in str(record.error)
    ended.readers()


@pytest.mark.fault("run: samples that preferences are made of hold NaN", "they are not scored, and counted")
def test_candidates(runs: Runs, tmp_path: Path) -> None:
    ended = Ended(runs, tmp_path / "out", "nan candidates", "diffusion-dpo")
    for method in ("base", "diffusion-dpo"):  # evaluated, the same base is of no use either, and says so
        record = ended.record(method)
        assert record.status == "diverged" and "not finite" in str(record.error) and not record.metrics
    assert record.provenance["preferences"]["unscored"] > 0
    ended.readers()


@pytest.mark.fault("run: one evaluation clip", "refused: two are needed")
def test_one_clip(runs: Runs, tmp_path: Path) -> None:
    ended = Ended(runs, tmp_path / "out", "one clip", "sft")
    assert ended.code == 2 and "1 evaluation clips; give it at least 2" in ended.told


@pytest.mark.fault("run: all evaluation clips of one person, one seed", "no interval, no rank, no verdict")
def test_one_person_and_one_seed(runs: Runs, tmp_path: Path) -> None:
    ended = Ended(runs, tmp_path / "out", "two clips of one person", "sft")
    assert ended.code == 0, ended.told
    for key, score in ended.record("sft").metrics.items():
        if key.startswith("implicit_accuracy"):
            continue  # of pairs of the training prompts
        assert score.ci is None and (score.value is not None or score.reason)
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert all(score["rank"] is None for row in board["rows"] for score in row["metrics"].values())
    assert all(entry["verdict"] not in ("better", "worse") for entry in board["comparisons"])
    ended.readers()


@pytest.mark.slow
@pytest.mark.fault("run: the sound of real clips is NaN", "a status and a reason")
def test_sound_of_real_clips(runs: Runs, tmp_path: Path) -> None:
    ended = Ended(runs, tmp_path / "out", "nan in real clips' audio", "sft")
    record = ended.record("base")
    assert record.status != "done" and record.error
    ended.readers()
