"""What is committed in `leaderboards/` is whole, and its table is the one that its records give."""

from __future__ import annotations

from pathlib import Path

from halign_bench.backbones.puppet_dit import PuppetDiT
from halign_bench.cli import main
from halign_bench.results import read_records

COMMITTED = Path(__file__).resolve().parent.parent / "leaderboards" / "puppet" / "default"


def test_the_committed_table_is_what_its_records_give(capsys):
    assert main(["leaderboard", str(COMMITTED), "--format", "md"]) == 0
    assert capsys.readouterr().out.strip() == (COMMITTED / "leaderboard.md").read_text().strip()


def test_committed_records_are_of_the_shipped_base_and_done_over_three_seeds():
    records = read_records([COMMITTED])[0]
    seeds: dict[str, set[int]] = {}
    for record in records:
        assert record.status == "done" and record.base.sha256 == PuppetDiT.load().base_sha256
        seeds.setdefault(record.cell.method, set()).add(record.cell.seed)
    assert {"base", "sft", "diffusion-dpo"} <= set(seeds)
    assert all(len(found) >= 3 for found in seeds.values()), seeds
