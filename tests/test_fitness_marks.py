"""The committed fitness of the embedded track's metrics, and what tables make of a metric that is unfit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from records import cell, make_record, score

from halign_bench.fitness import rule
from halign_bench.fitness.report import markdown, protocol_sha256, read_unfit
from halign_bench.fitness.run import EMBEDDED_CLIPS
from halign_bench.leaderboard import build
from halign_bench.registry import get
from halign_bench.track import Unfit
from halign_bench.tracks.puppet import FITNESS, PuppetTrack
from halign_bench.tracks.puppet import fitness as puppet
from halign_bench.tracks.puppet.evaluators import load


def test_the_committed_result_is_of_these_metrics_and_these_weights():
    committed = json.loads(FITNESS.read_text(encoding="utf-8"))
    assert committed["clips"] == EMBEDDED_CLIPS and committed["rule"] == rule.RULE
    extractors, damages = load(), puppet.damages()
    assert {(ladder["damage"], ladder["metric"]) for ladder in committed["ladders"]} == {
        (kind, name) for kind, damage in damages.items() for name in damage.follows if name != "lpips"
    }
    for name, metric in committed["metrics"].items():
        cls = get("metric", name)
        now = cls(extractors[cls.feature] if cls.feature else None).protocol
        assert metric["protocol"] == now and metric["protocol_sha256"] == protocol_sha256(now)
    for ladder in committed["ladders"]:
        verdict, reason = rule.judge(ladder["sign"], ladder["clips"], ladder["spearman"], ladder["exact"])
        assert (ladder["verdict"], ladder["reason"]) == (verdict, reason) and not ladder["failed"]


def test_the_committed_table_is_that_of_the_committed_result():
    table = Path(__file__).resolve().parent.parent / "leaderboards" / "puppet" / "fitness.md"
    assert table.read_text(encoding="utf-8") == markdown(json.loads(FITNESS.read_text(encoding="utf-8")))


def test_a_track_names_the_metrics_that_its_result_calls_unfit(tmp_path):
    document = {"metrics": {
        "fid": {"verdict": "unfit", "reason": "blur: no", "protocol_sha256": "12"},
        "kid": {"verdict": "fit", "reason": None, "protocol_sha256": "34"},
    }}  # fmt: skip
    (tmp_path / "fitness.json").write_text(json.dumps(document))
    assert read_unfit(tmp_path / "fitness.json") == {"fid": Unfit("blur: no", "12")}
    committed = json.loads(FITNESS.read_text(encoding="utf-8"))["metrics"]
    assert set(PuppetTrack.unfit()) == {name for name, metric in committed.items() if metric["verdict"] == "unfit"}


def test_tables_mark_scores_of_unfit_metrics_measured_by_that_very_protocol(tmp_path, monkeypatch):
    failing = {"fid": Unfit("blur: rank 0.1", protocol_sha256("toy")), "hkc": Unfit("x", protocol_sha256("older"))}
    monkeypatch.setattr(PuppetTrack, "unfit", classmethod(lambda cls: failing))
    metrics = {"fid@puppet": score(3.0), "hkc@puppet": score(0.5)}
    board = build([make_record("base", metrics=metrics, protocol={"track": {"name": "puppet"}})])
    assert board.unfit == {"fid@puppet": "blur: rank 0.1"} == json.loads(board.to_json())["unfit"]
    text = board.to_markdown()
    assert "fid@puppet ↑ †" in text and "hkc@puppet ↑ †" not in text
    assert text.count("† fid@puppet is unfit here, it does not follow damage of known size: blur: rank 0.1.") == 1
    rows = csv.DictReader(board.to_csv().splitlines())
    assert {row["metric"]: row["unfit"] for row in rows if row["metric"]} == {"fid": "blur: rank 0.1", "hkc": ""}
    assert r"{fid $\uparrow$ \ensuremath{\dagger}}" in (latex := board.to_latex())
    assert r"\ensuremath{\dagger} fid@puppet is unfit here" in latex and "fid@puppet ↑ †" in board.to_html()


def test_tables_of_tracks_that_are_not_installed_or_say_nothing_are_as_before(tmp_path):
    board = build([cell(tmp_path, "base", protocol={"track": {"name": "not-installed"}})])
    assert board.unfit == {} and "†" not in board.to_markdown()
    assert build([cell(tmp_path, "sft")]).unfit == {}
