"""The benchmark has room on every axis: what is committed says so, and it is about the base that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from halign_bench.backbones.puppet_dit import PuppetDiT
from halign_bench.tracks.puppet.headroom import AXES, as_json, measure, table

COMMITTED = Path(__file__).resolve().parent.parent / "leaderboards" / "puppet"


def test_committed_headroom_is_of_the_shipped_base_and_excludes_zero():
    stored = json.loads((COMMITTED / "headroom.json").read_text())
    assert stored["base_sha256"] == PuppetDiT.load().base_sha256
    assert [axis["axis"] for axis in stored["axes"]] == list(AXES)
    for axis in stored["axes"]:
        for gap in ("clean_to_base", "base_to_defect"):
            assert axis[gap]["ci"][0] > 0, f"{axis['axis']}: {gap} {axis[gap]}"
        assert axis["room"]


@pytest.mark.slow
def test_measuring_again_on_fewer_clips_points_the_same_way():
    axes = measure(PuppetDiT.load(), clips=32, nfe=12)
    assert [axis.axis for axis in axes] == list(AXES)
    assert all(axis.above.value > 0 and axis.below.value > 0 for axis in axes), table(axes)
    assert as_json(axes, "x")["axes"][0]["metric"] == "sync_c@puppet"
