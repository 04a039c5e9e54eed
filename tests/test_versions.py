"""Lowest versions: what `tox -e lowest` installs is what pyproject.toml allows."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
LOWEST = (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8")
PINS = {line.name: line.specifier for line in map(Requirement, re.findall(r"^[^#\s]+==.*$", LOWEST, re.MULTILINE))}


def requirements(name: str) -> dict[str, SpecifierSet]:
    """Of a list in pyproject.toml, read without a TOML library: Python 3.10 has none."""
    (listed,) = re.findall(rf"^{name} = \[(.*?)\]\n", PROJECT, re.MULTILINE | re.DOTALL)
    wanted = [Requirement(text) for text in re.findall(r'"([^"]+)"', listed)]
    return {one.name: one.specifier for one in wanted}


def test_the_lowest_versions_are_those_that_are_allowed() -> None:
    wanted = requirements("dependencies") | requirements("score") | requirements("real")
    assert wanted.keys() == PINS.keys()
    for name, allowed in wanted.items():
        (lowest,) = (Version(one.version) for one in allowed if one.operator == ">=")
        (pinned,) = (Version(one.version) for one in PINS[name])
        assert lowest == pinned, name
