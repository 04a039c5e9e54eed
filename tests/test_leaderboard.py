"""From records to a table: pairing, refusals, failures, ranks, claims, and the forms it is written in."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from records import IDS, PLAN, cell, make_record, score
from rich.console import Console

from halign_bench.errors import RequestError
from halign_bench.leaderboard import build
from halign_bench.record import ClaimData
from halign_bench.results import read_records
from halign_bench.tables.content import blocks
from halign_bench.tables.markdown import pipes


def entry(board, method, metric, than="base"):
    return next(c for c in board.comparisons if (c["method"], c["metric"], c["than"]) == (method, metric, than))


def row(board, method):
    return next(r for r in board.rows if r.method == method)


@pytest.fixture
def board(tmp_path):
    methods = {"good": 0.5, "base": 0.0, "sft": 0.0, "bad": -0.5}
    records = [cell(tmp_path, m, s, gain) for s in range(5) for m, gain in methods.items()]
    return build(records)


def test_base_and_sft_come_first_and_scores_are_means_over_seeds(board, tmp_path):
    assert [r.method for r in board.rows] == ["base", "sft", "good", "bad"]
    records, _ = read_records([tmp_path])
    mine = [r.metrics["sync_c@toy"].value for r in records if r.cell.method == "good"]
    shown = row(board, "good").metrics["sync_c@toy"]
    assert shown.value == pytest.approx(np.mean(mine)) and shown.n_seeds == 5 and shown.n == len(IDS)
    assert shown.ci[0] < shown.value < shown.ci[1]


def test_paired_differences_are_much_tighter_than_the_scores(board):
    """Clips differ by ±1 and methods by 0.5: seen only because the same clips are compared."""
    shown, compared = row(board, "good").metrics["sync_c@toy"], entry(board, "good", "sync_c@toy")
    assert compared["ci"][1] - compared["ci"][0] < (shown.ci[1] - shown.ci[0]) / 2
    assert compared["verdict"] == "better" and compared["ci"][0] < 0.5 < compared["ci"][1]
    assert entry(board, "bad", "sync_c@toy")["verdict"] == "worse"
    assert entry(board, "sft", "sync_c@toy")["verdict"] == "undecided"
    assert entry(board, "good", "fid@toy")["verdict"] == "better" and entry(board, "good", "fid@toy")["difference"] < 0
    assert entry(board, "good", "motion@toy")["verdict"] == "higher"
    assert entry(board, "good", "sync_c@toy", "sft")["verdict"] == "better"


def test_corrected_p_values_are_not_below_raw_ones_and_speed_is_not_tested(board):
    assert all(c["p_holm"] >= c["p"] for c in board.comparisons)
    assert not any("seconds" in c["metric"] for c in board.comparisons)


def test_ranks_are_shared_and_deltas_given(board):
    ranks = {r.method: r.metrics["sync_c@toy"].rank for r in board.rows}
    assert ranks == {"good": 1, "base": 2, "sft": 2, "bad": 4}
    assert row(board, "good").metrics["sync_c@toy"].delta["base"] == entry(board, "good", "sync_c@toy")["difference"]
    assert all(r.metrics["motion@toy"].rank is None for r in board.rows)
    assert row(board, "good").pareto is True and row(board, "bad").pareto is False


def test_no_rank_where_data_do_not_tell(tmp_path):
    board = build([cell(tmp_path, "base"), cell(tmp_path, "sft")])
    assert {r.metrics["sync_c@toy"].rank for r in board.rows} == {None}


def test_json_is_strict_and_has_the_promised_shape(board):
    document = json.loads(board.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert {"schema", "protocol", "rows", "claims", "comparisons"} <= document.keys()
    first = document["rows"][0]
    assert {"method", "n_seeds", "metrics"} <= first.keys()
    assert {"value", "ci", "n", "unit", "higher_is_better", "rank", "protocol"} <= first["metrics"]["fid@toy"].keys()


def test_different_protocols_are_refused_with_the_difference(tmp_path):
    first = cell(tmp_path, "base")
    other = make_record("sft", protocol={"training": {"samples": 3200}})
    with pytest.raises(RequestError, match=r"training\.samples is 256 and 3200"):
        build([first, other])


def test_a_metric_that_only_some_records_have_is_no_other_protocol_but_one_measured_otherwise_is():
    first = make_record("base", protocol={"metrics": {"fid@toy": "one net"}}, metrics={"fid@toy": score(1.0)})
    more = {"fid@toy": "one net", "kid@toy": "the same"}
    second = make_record("sft", protocol={"metrics": more}, metrics={"fid@toy": score(2.0), "kid@toy": score(0.5)})
    board = build([first, second])
    assert "kid@toy" in board.to_markdown() and "kid@toy" not in row(board, "base").metrics
    with pytest.raises(RequestError, match=r"metrics\.fid@toy is \"one net\" and \"another\""):
        build([first, make_record("sft", protocol={"metrics": {"fid@toy": "another"}})])


def test_a_score_that_no_row_has_is_left_out_of_the_table_and_named_below_it():
    scores = {"fid@toy": score(1.0), "lpips@toy": score(None, n=0, reason="track toy has no perceptual extractor")}
    board = build([make_record("base", metrics=scores), make_record("sft", metrics=scores)])
    table, below = board.to_markdown().split("Not measured or left out")
    assert "lpips" not in table and "- lpips@toy: track toy has no perceptual extractor" in below


def test_failures_are_rows_with_status_and_reason(tmp_path):
    records = [
        cell(tmp_path, "base", 0), cell(tmp_path, "base", 1), cell(tmp_path, "dpo", 0, 0.5),
        make_record("dpo", 1, status="diverged", error="loss is not finite at step 30"),
        make_record("tpo", 0, status="failed", error="out of memory"),
    ]  # fmt: skip
    board = build(records)
    assert row(board, "dpo").status == "partial" and row(board, "dpo").n_seeds == 1
    assert "seed 1 diverged: loss is not finite at step 30" in row(board, "dpo").reason
    assert row(board, "tpo").status == "failed" and row(board, "tpo").metrics == {}
    assert entry(board, "dpo", "sync_c@toy")["n_seeds"] == 1
    assert entry(board, "tpo", "sync_c@toy")["difference"] is None and entry(board, "tpo", "sync_c@toy")["reason"]
    for text in (board.to_markdown(), board.to_csv()):
        assert "out of memory" in text


@pytest.mark.fault("leaderboard: a record holds NaN", "left out by name; the rest is shown")
def test_a_record_with_nan_is_refused_by_name_and_the_rest_renders(tmp_path):
    cell(tmp_path, "base")
    cell(tmp_path, "sft")
    broken = tmp_path / "sft-s0.json"
    text = broken.read_text()
    broken.write_text(text.replace(f'"value": {json.loads(text)["metrics"]["fid@toy"]["value"]}', '"value": NaN'))
    records, refused = read_records([tmp_path])
    board = build(records, refused)
    assert [r.method for r in board.rows] == ["base"]
    assert "sft-s0.json" in refused[0].source and "NaN" in refused[0].reason
    assert "sft-s0.json" in board.to_markdown() and "NaN" in board.to_markdown()


def test_no_records_at_all_is_one_sentence():
    with pytest.raises(RequestError, match="no record"):
        build([])


def test_clips_that_one_side_could_not_score_are_left_out_of_the_pairing(tmp_path):
    board = build([cell(tmp_path, "base", missing=(0, 1)), cell(tmp_path, "dpo", gain=0.5, missing=(1, 2, 3))])
    assert entry(board, "dpo", "sync_c@toy")["n"] == len(IDS) - 4
    assert row(board, "dpo").metrics["sync_c@toy"].failed == {"no face": 3}


def test_scores_that_could_not_be_measured_are_null_with_a_reason(tmp_path):
    record = make_record("base", metrics={"hkc@toy": score(None, None, n=0, reason="no hands")})
    board = build([record, make_record("sft", metrics={"hkc@toy": score(0.5, (0.4, 0.6))})])
    shown = json.loads(board.to_json())["rows"][0]["metrics"]["hkc@toy"]
    assert shown["value"] is None and shown["reason"] == "no hands"
    assert "hkc@toy for base: no hands" in board.to_markdown()


@pytest.mark.fault(
    "leaderboard: the parquet beside a record is gone",
    "its scores stay; why it is not compared is said",
)
def test_missing_companions_leave_scores_and_say_why_there_is_no_comparison(tmp_path):
    records = [cell(tmp_path, "base"), cell(tmp_path, "dpo", gain=0.5)]
    (tmp_path / "base-s0.clips.parquet").unlink()
    (tmp_path / "dpo-s0.bootstrap.parquet").write_bytes(b"damaged")
    board = build(records)
    assert row(board, "dpo").metrics["sync_c@toy"].value is not None
    compared = entry(board, "dpo", "sync_c@toy")
    assert compared["difference"] is None and compared["reason"] and compared["verdict"] is None
    notes = " ".join(board.notes)
    assert "base-s0.clips.parquet: is missing" in notes and "dpo-s0.bootstrap.parquet" in notes


def test_replicates_of_other_resamples_are_not_paired(tmp_path):
    base, other = cell(tmp_path, "base"), cell(tmp_path, "dpo")
    other.bootstrap = PLAN.model_copy(update={"sha256": "another"})
    assert "not resampled alike" in entry(build([base, other]), "dpo", "fid@toy")["reason"]


def test_one_cell_twice(tmp_path):
    failed = make_record("base", 0, status="failed", error="killed")
    board = build([failed, cell(tmp_path, "base", 0)])
    assert row(board, "base").status == "done" and "given twice" in board.notes[0]
    changed = make_record("base", 0, config={"given": {}, "effective": {"beta": 2}})
    with pytest.raises(RequestError, match="different settings"):
        build([cell(tmp_path, "base", 0), changed])


def claim(metric="sync_c", than="base", margin=0.0):
    return ClaimData(metric=metric, better_than=than, source="table 2", margin=margin)


@pytest.mark.parametrize(
    ("stated", "gain", "verdict"),
    [
        (claim(), 0.5, "supported"), (claim(), -0.5, "refuted"), (claim(), 0.0, "not enough data"),
        (claim("fid"), 0.5, "supported"), (claim("fid@toy"), -0.5, "refuted"), (claim(margin=2.0), 0.5, "refuted"),
        (claim(margin=-1.0), 0.0, "supported"), (claim("hkc"), 0.5, "not enough data"),
        (claim(than="tpo"), 0.5, "not enough data"), (claim("motion"), 0.5, "not enough data"),
    ],
)  # fmt: skip
def test_claims(tmp_path, stated, gain, verdict):
    board = build([cell(tmp_path, "base"), cell(tmp_path, "tuned", gain=gain, claims=(stated,))])
    (judged,) = board.claims
    assert judged["verdict"] == verdict and judged["method"] == "tuned"
    assert (judged["reason"] is None) == (verdict != "not enough data")
    assert verdict in board.to_markdown()


def test_the_grid_of_network_evaluations_has_its_own_table_and_claims_may_cross_it(tmp_path):
    fast = claim("sync_c/nfe10", "base/nfe100", margin=-1.0)
    board = build([
        cell(tmp_path, "base", nfes=(100, 10)), cell(tmp_path, "dpo", gain=0.5, nfes=(100, 10), claims=(fast,)),
    ])  # fmt: skip
    assert board.main_nfe == 100 and board.nfes() == [100, 10]
    assert board.claims[0]["verdict"] == "supported"
    text = board.to_markdown()
    main, grid = text.split("## Speed and scores over the NFE grid")
    assert "10.00x" in grid and "Scores at NFE 100" in main
    families = {c["metric"]: c for c in board.comparisons if c["method"] == "dpo"}
    assert {"sync_c@toy/nfe100", "sync_c@toy/nfe10"} <= families.keys()


def test_csv_has_one_line_for_each_method_and_score(board):
    lines = list(csv.DictReader(io.StringIO(board.to_csv())))
    assert len(lines) == 4 * 4
    good = next(r for r in lines if (r["method"], r["metric"]) == ("good", "sync_c"))
    assert float(good["value"]) == row(board, "good").metrics["sync_c@toy"].value
    assert good["verdict"] == "better" and good["extractor"] == "toy" and float(good["delta_base_low"]) > 0


@pytest.mark.parametrize("width", [100, 80])
def test_tables_fit_a_hundred_columns(tmp_path, width):
    many = {f"{name}@toy": score(0.5 + i, (0.4 + i, 0.6 + i)) for i, name in enumerate("abcdefghijklm")}
    names = ["base", "sft", "diffusion-dpo[beta=500,label_smoothing=0.1]"]
    board = build([make_record(name, metrics=many) for name in names])
    console = Console(file=io.StringIO(), width=width)
    board.print(console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "beta=500" in text and all(f"{name}@toy" in text for name in "abcdefghijklm")
    assert all(len(line) <= 100 for block in blocks(board) for line in pipes(block.headers, block.rows))


def test_written_files(board, tmp_path):
    board.write_all(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"leaderboard.{e}" for e in ("csv", "json", "md")]
    assert json.loads((tmp_path / "out" / "leaderboard.json").read_text())["rows"]


def test_records_with_nothing_beside_them_have_scores_and_one_remark_that_they_are_not_compared(tmp_path):
    records = [make_record(m, s, metrics={"fid@toy": score(10.0 + s)}) for m in ("base", "dpo") for s in range(3)]
    board = build([*records, cell(tmp_path, "sft")])
    assert row(board, "dpo").metrics["fid@toy"].value == 11.0 and row(board, "dpo").metrics["fid@toy"].ci is None
    assert "no resampled scores beside" in entry(board, "dpo", "fid@toy")["reason"]
    assert [note for note in board.notes if "beside" in note] == [
        "nothing lies beside the records of base, dpo: they cannot be compared clip by clip"
    ]
    many = build([make_record(f"m{i}", metrics={"fid@toy": score(1.0)}) for i in range(9)])
    assert "m0, m1, m2, m3, m4 and 4 more methods" in many.notes[0]
