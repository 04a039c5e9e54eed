"""Records: what they refuse, how they are written and read, and what the environment says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from records import make_record, score

from halign_bench.atomic import atomic_path, atomic_write
from halign_bench.companions import ClipScore, read_clips, read_replicates
from halign_bench.environment import capture_environment, git_state
from halign_bench.errors import RequestError
from halign_bench.protocol import sha256_of
from halign_bench.record import MetricKey, metric_key, parse_key, record_schema, write_schema
from halign_bench.results import read_record, read_records, write_record

word = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=12)


@settings(deadline=None)
@given(word, st.none() | word, st.none() | st.integers(1, 999))
def test_metric_keys_come_apart_as_they_were_put_together(name, where, nfe):
    assert parse_key(metric_key(name, where, nfe)) == MetricKey(name, where, nfe)


@pytest.mark.parametrize("text", ["", "@puppet", "fid@", "fid@puppet/nfe", "fid@puppet/30", "f id", "fid/nfe3/nfe4"])
def test_other_texts_are_no_metric_keys(text):
    with pytest.raises(RequestError, match="does not name a score"):
        parse_key(text)


def test_round_trip(tmp_path):
    record = make_record(
        "dpo", 3, metrics={"fid@toy": score(12.5, (11.0, 14.0)), "hkc@toy": score(None, reason="no hands")}
    )
    clips = [ClipScore("a", "x", "psnr@toy", 20.5), ClipScore("b", "y", "psnr@toy", None, "size differs")]
    write_record(tmp_path / "records" / "dpo-s3.json", record, clips, {"fid@toy": [12.0, None, 13.0]})
    (again,), refused = read_records([tmp_path])
    assert refused == [] and again.model_dump() == record.model_dump()
    assert again.source == tmp_path / "records" / "dpo-s3.json"
    assert read_clips(again) == {"psnr@toy": {"a": ("x", 20.5), "b": ("y", None)}}
    assert read_replicates(again) == {"fid@toy": [12.0, None, 13.0]}
    assert json.loads(again.source.read_text())["schema"] == "halign-bench/record/2"
    assert sorted(p.name for p in again.source.parent.iterdir()) == [
        "dpo-s3.bootstrap.parquet", "dpo-s3.clips.parquet", "dpo-s3.json",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_never_get_into_a_record(tmp_path, number):
    with pytest.raises(ValidationError):
        score(number)
    with pytest.raises(ValidationError):
        score(1.0, (0.0, number))
    record = make_record(metrics={"fid@toy": score(1.0)})
    record.metrics["fid@toy"].value = number  # past the model's checks
    with pytest.raises(ValueError):
        write_record(tmp_path / "a.json", record)
    with pytest.raises(ValueError):
        write_record(tmp_path / "a.json", make_record(provenance={"margin": number}))
    with pytest.raises(ValueError, match="NaN or infinity"):
        write_record(tmp_path / "a.json", make_record(), [ClipScore("a", "x", "psnr@toy", number)])
    assert list(tmp_path.iterdir()) == []


def test_what_a_record_must_explain():
    with pytest.raises(ValidationError, match="needs a reason"):
        score(None)
    with pytest.raises(ValidationError, match="needs its error"):
        make_record(status="failed")
    with pytest.raises(ValidationError, match="does not name a score"):
        make_record(metrics={"fid @ toy": score(1.0)})
    with pytest.raises(ValidationError, match="wrong order"):
        score(1.0, (2.0, 0.0))


@pytest.mark.fault(
    "records: a record is no JSON, lacks a field or has one too many",
    "named with the reason; the others are read",
)
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda t: t.replace('"value": 1.5', '"value": NaN'), "NaN"),
        (lambda t: t.replace('"value": 1.5', '"value": 1e999'), "metrics.fid@toy.value"),
        (lambda t: t[: len(t) // 2], "not a valid record"),
        (lambda t: "", "not a valid record"),
        (lambda t: "[" * 100_000, "not a valid record"),
        (lambda t: t.replace("record/2", "record/9"), "update halign-bench"),
        (lambda t: t.replace('"seed": 0', '"seed": -1'), "cell.seed"),
        (lambda t: t.replace('"status"', '"state"'), "status"),
    ],
)  # fmt: skip
def test_bad_files_are_named_and_the_rest_is_read(tmp_path, change, word):
    folder = tmp_path / "records"
    write_record(folder / "good.json", make_record())
    write_record(folder / "bad.json", make_record("sft", metrics={"fid@toy": score(1.5)}))
    (folder / "bad.json").write_text(change((folder / "bad.json").read_text()))
    records, refused = read_records([tmp_path])
    assert [r.cell.method for r in records] == ["base"]
    assert len(refused) == 1 and refused[0].source.endswith("bad.json") and word in refused[0].reason
    assert "\n" not in refused[0].reason
    with pytest.raises(RequestError, match=r"bad\.json"):
        read_record(folder / "bad.json")


def test_a_nan_in_a_free_form_part_is_refused_and_the_word_in_a_text_is_not(tmp_path):
    write_record(tmp_path / "a.json", make_record(provenance={"note": "NaN, Infinity", "margin": 0.125}))
    assert read_record(tmp_path / "a.json").provenance["note"] == "NaN, Infinity"
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text.replace("0.125", "-Infinity"))
    with pytest.raises(RequestError, match="it contains -Infinity"):
        read_record(tmp_path / "a.json")


def test_what_records_say_alike_is_kept_once_and_what_differs_is_not(tmp_path):
    for number, samples in enumerate((256, 256, 512)):
        record = make_record("m", number, protocol={"training": {"samples": samples}})
        record.protocol_hash = "0" * 64  # a hash that is not the protocol's must not hide a difference
        write_record(tmp_path / f"{number}.json", record)
    first, second, third = read_records([tmp_path])[0]
    assert first.protocol is second.protocol and first.environment is third.environment
    assert third.protocol == {"training": {"samples": 512}} and first.cell.seed != second.cell.seed


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe\x00")
    _, refused = read_records([tmp_path / "bad.json"])
    assert len(refused) == 1


def test_a_folder_of_tables_beside_records_is_no_trouble_and_an_empty_one_is_named(tmp_path):
    write_record(tmp_path / "a.json", make_record())
    (tmp_path / "leaderboard.json").write_text('{"schema": "halign-bench/leaderboard/1"}')
    records, refused = read_records([tmp_path])
    assert len(records) == 1 and not refused
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="holds no records"):
        read_records([tmp_path / "empty"])
    with pytest.raises(RequestError, match="no such file"):
        read_records([tmp_path / "absent"])


def test_clip_scores_need_exactly_one_of_value_and_reason(tmp_path):
    with pytest.raises(ValueError, match="either a value or a reason"):
        write_record(tmp_path / "a.json", make_record(), [ClipScore("a", "x", "psnr@toy", None)])


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    atomic_write(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.fault("records: killed while one is written", "what was there is there, and no half record")
def test_a_killed_write_leaves_what_was_there_and_no_record(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from halign_bench.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as t:\n    t.write_text('half'); os.kill(os.getpid(), 9)"
    )
    folder = tmp_path / "records"
    write_record(folder / "a.json", make_record())
    before = (folder / "a.json").read_bytes()
    assert subprocess.run([sys.executable, "-c", code, str(folder / "a.json")]).returncode == -9
    assert (folder / "a.json").read_bytes() == before
    assert len(read_records([tmp_path])[0]) == 1  # what the killed process left is not taken for a record


def test_hashes_depend_on_values_not_on_order():
    assert (
        sha256_of({"a": 1, "b": [1, 2]}) == sha256_of({"b": [1, 2], "a": 1}) != sha256_of({"a": 1, "b": [2, 1]})
    )
    with pytest.raises(ValueError):
        sha256_of({"a": float("nan")})


def test_published_schema_is_up_to_date(tmp_path):
    published = Path(__file__).parent.parent / "leaderboards" / "record.schema.json"
    ours = record_schema()
    write_schema(tmp_path / "schema.json")
    assert json.loads((tmp_path / "schema.json").read_text()) == ours
    theirs = json.loads(published.read_text())
    # Names and obligations, not wording: pydantic's versions differ in that.
    pairs = [(ours, theirs), *((part, theirs["$defs"][name]) for name, part in ours["$defs"].items())]
    for part, other in pairs:
        if "properties" not in part:
            continue
        assert part["properties"].keys() == other["properties"].keys()
        assert part.get("required") == other.get("required")


def test_environment_names_software_and_machine_but_nobody():
    found = capture_environment()
    assert found.packages["numpy"] and found.hardware["cores"] >= 1 and found.hardware["memory_bytes"] > 0
    text = found.model_dump_json()
    assert str(Path.home()) not in text and os.uname().nodename not in text


def test_git_state_is_that_of_the_tracking_checkout_alone(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    package, installed = tmp_path / "package", tmp_path / "site-packages"
    for folder in (package, installed):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    assert git_state(package) == (None, None)
    git("init")
    git("add", "package")
    git("commit", "-m", "first")
    commit, dirty = git_state(package)
    assert len(commit) == 40 and dirty is False
    (package / "__init__.py").write_text("x = 1")
    assert git_state(package) == (commit, True)
    assert git_state(installed) == (None, None)


def test_importing_results_is_light():
    code = (
        "import sys, halign_bench.results; sys.exit(bool({'torch', 'pyarrow', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_records_of_the_schema_before_still_read(tmp_path):
    """Those that are committed were written before there were checksums."""
    file = Path(__file__).parent.parent / "leaderboards" / "puppet" / "puppet-dit" / "records" / "sft-s0.json"
    old = read_record(file)
    assert old.schema_ == "halign-bench/record/1" and old.sha256 is None and old.sha256s == {}
    assert read_clips(old) and read_replicates(old)
    for kind in ("clips", "bootstrap"):
        (tmp_path / old.files[kind]).write_bytes((file.parent / old.files[kind]).read_bytes())
    write_record(tmp_path / "sft-s0.json", old.model_copy())
    new = read_record(tmp_path / "sft-s0.json")
    assert new.schema_ == "halign-bench/record/2" and new.sha256 and set(new.sha256s) == {"clips", "bootstrap"}
    own = {"schema_", "sha256", "sha256s"}
    assert new.model_dump(exclude=own) == old.model_dump(exclude=own)
    assert read_clips(new) == read_clips(old) and read_replicates(new) == read_replicates(old)
