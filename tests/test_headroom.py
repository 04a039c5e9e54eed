"""Headroom: what is committed is about the shipped base, which has room on every axis: both intervals exclude zero."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from halign_bench.backbones.puppet_dit import PuppetDiT
from halign_bench.tracks.puppet.headroom import AXES, as_json, measure

COMMITTED = Path(__file__).resolve().parent.parent / "leaderboards" / "puppet"


def test_committed_headroom_is_of_the_shipped_base():
    stored = json.loads((COMMITTED / "headroom.json").read_text())
    assert stored["base_sha256"] == PuppetDiT.load().base_sha256
    assert [axis["axis"] for axis in stored["axes"]] == list(AXES)
    for axis in stored["axes"]:
        assert axis["room"] and all(axis[gap]["ci"][0] > 0 for gap in ("clean_to_base", "base_to_defect")), axis


@pytest.mark.slow
def test_measuring_again_on_fewer_clips_agrees():
    stored = json.loads((COMMITTED / "headroom.json").read_text())
    axes = as_json(measure(PuppetDiT.load(), clips=32), "x")["axes"]
    for again, before in zip(axes, stored["axes"], strict=True):
        assert again["metric"] == before["metric"]
        low, high = again["clean_to_base"]["ci"]
        assert low - 0.5 * abs(low) <= before["clean_to_base"]["value"] <= high + 0.5 * abs(high)
