"""What is committed in `leaderboards/` is whole, and its table is the one that its records give."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from records import cell

from halign_bench import registry
from halign_bench.cli import main
from halign_bench.results import read_records
from halign_bench.tables import committed

ROOT = Path(__file__).resolve().parent.parent
PUPPET = ROOT / "leaderboards" / "puppet"
METHODS = [path.stem.replace("_", "-") for path in (ROOT / "methods").glob("*.py") if path.stem != "__init__"]
SEEDS = {"puppet-dit": 5, "puppet-unet": 3}  # by backbone, of every method

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


def test_the_tables_of_the_readme_are_what_the_records_give():
    root = PUPPET.parent
    sections = [committed.section(root, *found) for found in committed.boards(root)]
    text = (root / "README.md").read_text()
    hint = "stale: run python -m halign_bench.tables.committed leaderboards"
    assert text == committed.readme(text, sections), hint


@pytest.mark.parametrize("folder", [*SEEDS, "nfe"])
def test_the_data_of_figures_is_what_the_records_give(folder):
    """All of it but that of trainings, whose logs are not committed."""
    ((path, records, board),) = [found for found in committed.boards(PUPPET) if found[0].name == folder]
    kept = {file.name: file.read_text() for file in (path / "figures").glob("*.csv")}
    logs = {name for name in kept if name.startswith("training")}
    given = committed.figures_data(records, board)
    assert kept.keys() - logs == given.keys()
    for name, text in given.items():
        assert_alike(kept[name], text, name)


def assert_alike(one: str, other: str, name: str) -> None:
    """Texts alike in all but the last digits of their numbers, which differ from one version of scipy to another."""
    mine, theirs = (re.split(r"[,\n]", text) for text in (one, other))
    assert len(mine) == len(theirs), name
    for number, its in zip(mine, theirs, strict=True):
        try:
            alike = math.isclose(float(number), float(its), rel_tol=1e-8, abs_tol=1e-300)
        except ValueError:
            alike = number == its
        assert alike, f"{name}: {number} and {its}"


def test_a_new_record_reaches_readme_and_tables_by_the_command(tmp_path, capsys):
    root = tmp_path / "leaderboards"
    for name in ("base", "mine"):
        cell(root / "toy" / "small" / "records", name)
    assert committed.main([str(root)]) == 2 and committed.main([str(root / "absent")]) == 2
    (root / "README.md").write_text("no place")
    assert committed.main([str(root)]) == 2 and "has no place for the tables" in capsys.readouterr().err
    (root / "README.md").write_text(f"before\n{committed.START}\nold\n{committed.END}\nafter\n")
    assert committed.main([str(root)]) == 0
    text = (root / "README.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "\nold\n" not in text
    assert "[toy/small](toy/small/leaderboard.md)" in text and "| sync_c@toy" in text and "mine" in text
    assert (root / "toy" / "small" / "leaderboard.md").exists()
    assert committed.main([str(root)]) == 0 and (root / "README.md").read_text() == text
