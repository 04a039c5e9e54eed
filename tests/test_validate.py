"""What `validate` finds in records: the committed ones as they are, and each changed in one place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from halign_bench.cli import main
from halign_bench.protocol import sha256_of

COMMITTED = Path(__file__).resolve().parent.parent / "leaderboards" / "puppet" / "puppet-dit" / "records"
NAME = "sft-s0"


def copied(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for file in COMMITTED.glob(f"{name}.*"):
            shutil.copy(file, folder)
    return folder / f"{names[0]}.json"


@pytest.fixture
def record(tmp_path) -> Path:
    return copied(tmp_path / "records", NAME)


def findings(capsys, *paths: Path) -> list[dict]:
    code = main(["validate", *map(str, paths), "--json"])
    found = json.loads(capsys.readouterr().out)["findings"]
    assert code == (1 if found else 0)
    return found


def set_in(path: Path, where: str, value: object) -> None:
    """`where`: keys divided by blanks, as keys hold points and slashes."""
    document = json.loads(path.read_text())
    *way, last = where.split()
    inner = document
    for key in way:
        inner = inner[int(key) if isinstance(inner, list) else key]
    if value is ...:
        del inner[last]
    else:
        inner[int(last) if isinstance(inner, list) else last] = value
    path.write_text(json.dumps(document))


def set_rows(path: Path, kind: str, change) -> None:
    file = path.with_name(f"{path.stem}.{kind}.parquet")
    table = pd.read_parquet(file)
    change(table).to_parquet(file)


def test_the_committed_records_pass(capsys):
    assert main(["validate", str(COMMITTED.parent.parent.parent)]) == 0
    count = len(list(COMMITTED.parent.parent.glob("*/records/*.json")))
    assert capsys.readouterr().out.startswith(f"{count} records checked, nothing found wrong")


@pytest.mark.parametrize(
    ("where", "value", "field", "said"),
    [
        ("schema", "halign-bench/record/9", "schema", "'halign-bench/record/1' or 'halign-bench/record/2'"),
        ("cell seed", -1, "cell.seed", "greater than or equal to 0"),
        ("surprise", 1, "surprise", "extra inputs"),
        ("protocol training samples", 3200, "protocol_hash", "not the sha256 of the protocol"),
        ("protocol_hash", "0" * 64, "protocol_hash", "not the sha256 of the protocol"),
        ("protocol evaluation nfe", ..., "protocol.evaluation.nfe", "field required"),
        ("cell_hash", None, "cell_hash", "missing"),
        ("config effective 0 config criterion", "motion", "cell_hash", "does not follow"),
        ("base sha256", "0" * 64, "base.sha256", "another checkpoint"),
        ("bootstrap sha256", "0" * 64, "bootstrap", "not the bootstrap of protocol.evaluation"),
        ("cell backbone", "puppet-unet", "cell.backbone", "'puppet-unet', and the protocol is of 'puppet-dit'"),
        ("cell method", "ipa", "cell.method", "config.effective is of ['sft']"),
        ("cell method", "<script>", "cell.method", "no method as --methods takes it"),
        ("files clips", "../../secret.parquet", "files.clips", "in the same folder"),
        ("files clips", ..., "files.clips", "missing"),
        ("files bootstrap", "absent.parquet", "files.bootstrap", "not there"),
        ("training", None, "training", "missing"),
        ("training samples_seen", 99_999, "training.samples_seen", "above the budget of 1600"),
        ("timings train", 0.0, "timings.train", "after 100 steps"),
        ("timings sample", 1.0, "timings.sample", "add up to 48.2"),
        ("timings chunks 20 0", 0.0, "timings.chunks.20", "times above 0"),
        ("finished", "2020-01-01T00:00:00+00:00", "finished", "no span of time"),
        ("metrics fid@puppet/nfe10", ..., "metrics.fid@puppet/nfe10", "is missing, and the protocol lists it"),
        ("metrics seconds_per_second@puppet/nfe20 value", 0.1, "metrics.seconds_per_second@puppet/nfe20.value",
         "timings.chunks.20 make it 0.49"),
        ("metrics ssim@puppet/nfe20 value", 0.9, "metrics.ssim@puppet/nfe20.value", "mean over the clips is 0.8"),
        ("metrics ssim@puppet/nfe20 value", 1.5, "metrics.ssim@puppet/nfe20.value", "outside of the bounds"),
        ("metrics ssim@puppet/nfe20 higher_is_better", False, "metrics.ssim@puppet/nfe20", "higher_is_better"),
        ("metrics fid@puppet/nfe20 value", 3.0, "metrics.fid@puppet/nfe20.ci", "does not hold the value"),
        ("metrics ssim@puppet/nfe20 ci", [0.8, 0.9], "metrics.ssim@puppet/nfe20.ci", "not what the resamples give"),
        ("metrics fid@puppet/nfe20 ci", None, "metrics.fid@puppet/nfe20.ci", "resamples give ("),
        ("metrics fid@puppet/nfe20 n", 90, "metrics.fid@puppet/nfe20.n", "are not the 96 of the protocol"),
        ("metrics ssim@puppet/nfe20 failed", {"no face": 1}, "metrics.ssim@puppet/nfe20.n", "96 clips scored and 1"),
        ("metrics ssim@puppet/nfe20 protocol", "mine", "metrics.ssim@puppet/nfe20.protocol", "protocol.metrics"),
    ],
)  # fmt: skip
def test_one_changed_field_is_found_and_named(record, capsys, where, value, field, said):
    set_in(record, where, value)
    found = findings(capsys, record)
    assert {entry["file"] for entry in found} == {str(record)}
    assert any(entry["field"] == field and said in entry["finding"] for entry in found), found


@pytest.mark.parametrize(
    ("kind", "change", "field", "said"),
    [
        ("clips", lambda t: t[t["clip"] != t["clip"][0]], "files.clips", "clips are not those of protocol"),
        ("clips", lambda t: t.assign(identity=t.identity[::-1].values), "files.clips", "identities of the clips"),
        ("clips", lambda t: pd.concat([t, t[:1]]), "files.clips", "a clip stands there twice"),
        ("clips", lambda t: t.assign(metric=t.metric.replace("ssim@puppet/nfe20", "x@y")), "files.clips", "has x@y"),
        ("clips", lambda t: t.assign(value=np.where(t.index == 7, np.inf, t.value)), "metrics.", "NaN or infinite"),
        ("clips", lambda t: t.assign(reason=t.reason.where(t.index != 7, "odd")), "metrics.", "both a score and a"),
        ("clips", lambda t: t.drop(columns="identity"), "files.clips", "cannot be read"),
        ("bootstrap", lambda t: t[t.replicate != 5], "files.bootstrap", "has 999 replicates, and needs 0 to 999"),
        ("bootstrap", lambda t: t.assign(value=t.value * 3), "metrics.fid@puppet/nfe20.ci", "not what the resamples"),
        ("bootstrap", lambda t: t[t.metric != "fid@puppet/nfe20"], "metrics.fid@puppet/nfe20", "neither scores of"),
    ],
)  # fmt: skip
def test_a_changed_file_beside_the_record_is_found(record, capsys, kind, change, field, said):
    set_rows(record, kind, change)
    found = findings(capsys, record)
    assert any(entry["field"].startswith(field) and said in entry["finding"] for entry in found), found


def test_a_speed_up_that_its_nfe_does_not_explain_is_found(record, capsys):
    document = json.loads(record.read_text())
    fast = [seconds / 10 for seconds in document["timings"]["chunks"]["10"]]
    set_in(record, "timings chunks 10", fast)
    set_in(record, "metrics seconds_per_second@puppet/nfe10 value", sum(fast) / (96 * 17 / 25))
    set_in(record, "timings sample", sum(fast) + sum(document["timings"]["chunks"]["20"]))
    (found,) = findings(capsys, record)
    assert found["field"] == "timings.chunks.10" and "20.2 times as fast as NFE 20" in found["finding"]


def test_truncated_files_and_numbers_that_are_none_are_found(record, capsys):
    text = record.read_text()
    for broken, said in ((text[:500], "no JSON document"), (text.replace("1600", "NaN", 1), "NaN"), ("", "no JSON")):
        record.write_text(broken)
        (found,) = findings(capsys, record)
        assert found["field"] == "file" and said in found["finding"]


def test_another_methods_scores_under_a_new_name_are_found(tmp_path, capsys):
    """A record that is consistent in itself, and a copy."""
    copied(tmp_path / "a", NAME)
    copy = copied(tmp_path / "b", NAME)
    set_in(copy, "cell seed", 7)
    document = json.loads(copy.read_text())
    cell = {"protocol": document["protocol_hash"], "pipeline": document["config"]["effective"], "seed": 7}
    set_in(copy, "cell_hash", sha256_of(cell))
    assert findings(capsys, copy) == []
    (found,) = findings(capsys, tmp_path / "a", copy)
    assert found["file"] == str(copy) and "more scores that it has in" in found["finding"]
    assert "(sft seed 0)" in found["finding"]


def test_a_base_that_scores_otherwise_is_found_and_the_same_again_is_not(tmp_path, capsys):
    copied(tmp_path / "a", "base-s0")
    theirs = copied(tmp_path / "b", "base-s0")
    assert findings(capsys, tmp_path / "a", tmp_path / "b") == []
    value = json.loads(theirs.read_text())["metrics"]["fid@puppet/nfe20"]["value"]
    set_in(theirs, "metrics fid@puppet/nfe20 value", value + 0.5)
    found = findings(capsys, tmp_path / "a", tmp_path / "b")
    assert any("for the same base, seed and clips" in entry["finding"] for entry in found)


def test_a_method_given_twice_is_found(tmp_path, capsys):
    for folder in "ab":
        copied(tmp_path / folder, "diffusion-dpo-s0")
    (found,) = findings(capsys, tmp_path / "a", tmp_path / "b")
    assert found["field"] == "cell" and "given twice" in found["finding"]


def test_a_failure_is_a_valid_record_and_text_is_one_sentence_a_line(record, capsys):
    for where, value in (
        ("status", "failed"), ("error", "out of memory"), ("metrics", {}), ("bootstrap", None), ("files", {}),
        ("training", None), ("timings", {}),
    ):  # fmt: skip
        set_in(record, where, value)
    assert main(["validate", str(record)]) == 0
    set_in(record, "cell_hash", None)
    assert main(["validate", str(record)]) == 1
    assert f"{record}: cell_hash: is missing\n1 records checked, 1 finding\n" in capsys.readouterr().out


def test_nothing_to_check_is_a_wrong_request(tmp_path, capsys):
    assert main(["validate", str(tmp_path / "absent")]) == 2
    assert main(["validate", str(tmp_path)]) == 2
    assert "holds no records" in capsys.readouterr().err
