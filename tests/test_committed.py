"""What is committed in `leaderboards/` is whole, and its table is the one that its records give."""

from __future__ import annotations

from pathlib import Path

import pytest

from halign_bench import registry
from halign_bench.cli import main
from halign_bench.results import read_records

ROOT = Path(__file__).resolve().parent.parent
PUPPET = ROOT / "leaderboards" / "puppet"
METHODS = [path.stem.replace("_", "-") for path in (ROOT / "methods").glob("*.py") if path.stem != "__init__"]
SEEDS = {"puppet-dit": 5}  # by backbone, of every method

backbones = pytest.mark.parametrize("backbone", SEEDS)


@backbones
def test_the_committed_table_is_what_its_records_give(capsys, backbone):
    folder = PUPPET / backbone
    assert main(["leaderboard", str(folder), "--format", "md"]) == 0
    assert capsys.readouterr().out.strip() == (folder / "leaderboard.md").read_text().strip()


@backbones
def test_committed_records_are_of_the_shipped_base_and_of_every_method_over_its_seeds(backbone):
    records, refused = read_records([PUPPET / backbone])
    assert not refused
    shipped = registry.get("backbone", backbone).load().base_sha256
    seeds: dict[str, set[int]] = {}
    for record in records:
        assert record.status == "done" and record.base.sha256 == shipped
        seeds.setdefault(record.cell.method, set()).add(record.cell.seed)
    assert "diffusion-dpo" in METHODS
    for method in (*METHODS, "tmm+diffusion-dpo"):
        assert len(seeds.get(method, ())) >= SEEDS[backbone], method
