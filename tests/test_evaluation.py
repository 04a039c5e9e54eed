"""Scores of a cell: each clip extracted once, failures counted, intervals and replicates beside them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from run_tiny import TINY, ScoredTrack
from tiny import TinyBackbone, TinyTrack

from halign_bench.errors import Interrupted, RequestError
from halign_bench.evaluation import Evaluation, Evaluator
from halign_bench.method import Segment
from halign_bench.progress import Progress

PROFILE = TINY.model_copy(update={"nfe": (3, 2), "eval_clips": 7})


@pytest.fixture(scope="module")
def backbone() -> TinyBackbone:
    return TinyBackbone()


def evaluate(evaluator: Evaluator, folder: Path, seed: int = 0) -> Evaluation:
    return evaluator.evaluate(lambda t: (), seed, folder, Progress(Console(file=io.StringIO())), "cell")


def scores(result: Evaluation) -> dict[str, Any]:
    return {key: value.model_dump() for key, value in result.metrics.items() if "seconds" not in key}


def test_every_clip_is_extracted_once(backbone: TinyBackbone, tmp_path: Path) -> None:
    evaluator = Evaluator(backbone, track := ScoredTrack(), PROFILE)
    evaluate(evaluator, tmp_path / "a")
    evaluate(evaluator, tmp_path / "b", seed=1)
    for extractor in track.made.values():
        # For each of two cells both points of the grid, and the real clips once.
        assert Counter(extractor.seen) == Counter({name: 2 * 2 + 1 for name in evaluator.ids})


def test_scores_intervals_replicates_and_failures(backbone: TinyBackbone, tmp_path: Path) -> None:
    evaluator = Evaluator(backbone, ScoredTrack(), PROFILE)
    result = evaluate(evaluator, tmp_path)
    fid = result.metrics["fid@tiny/nfe3"]
    assert fid.value is not None and fid.ci is not None and fid.ci[0] <= fid.value <= fid.ci[1]
    assert fid.n == 6 and fid.failed == {"a clip that the extractor cannot read": 1}
    assert len(result.replicates["fid@tiny/nfe3"]) == PROFILE.replicates
    psnr = [row for row in result.clips if row.metric == "psnr@tiny-scored/nfe3"]
    assert [row.clip for row in psnr] == evaluator.ids
    mean = np.mean([row.value for row in psnr])
    assert result.metrics["psnr@tiny-scored/nfe3"].value == pytest.approx(mean)
    speed = result.metrics["seconds_per_second@tiny-scored/nfe2"]
    assert speed.value is not None and speed.value > 0 and "threads" in speed.protocol
    hands = result.metrics["hkc@tiny-scored/nfe2"]
    assert hands.value is None and hands.n == 0 and hands.reason == "track tiny-scored has no hands extractor"
    assert {key.rpartition("/")[0] for key in result.metrics} == set(evaluator.protocols())


def test_what_a_stopped_evaluation_left_is_used(backbone: TinyBackbone, tmp_path: Path) -> None:
    evaluator = Evaluator(backbone, ScoredTrack(), PROFILE)
    whole = evaluate(evaluator, tmp_path / "whole")
    progress = Progress(Console(file=io.StringIO()))
    calls = 0

    def stop_later(t: float) -> Sequence[str]:
        nonlocal calls
        calls += 1
        progress.stop.requested = calls > 6  # in the second chunk
        return ()

    with pytest.raises(Interrupted):
        evaluator.evaluate(stop_later, 0, tmp_path / "stopped", progress, "cell")
    left = sorted((tmp_path / "stopped").glob("*.npz"))
    assert 0 < len(left) < 4
    left[0].write_bytes(left[0].read_bytes()[:-40])  # a damaged chunk is sampled again
    before = backbone.forwards
    again = evaluate(evaluator, tmp_path / "stopped")
    resumed = backbone.forwards - before
    assert scores(again) == scores(whole) and again.clips == whole.clips and again.replicates == whole.replicates
    assert resumed < 7 * 5
    before = backbone.forwards
    evaluate(evaluator, tmp_path / "stopped")
    assert backbone.forwards == before
    # Of another seed nothing is taken.
    other = evaluate(evaluator, tmp_path / "stopped", seed=5)
    assert scores(other) != scores(whole)
    evaluator.remove(tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()


def test_a_method_may_spend_its_nfe_in_its_own_way(backbone: TinyBackbone, tmp_path: Path) -> None:
    evaluator = Evaluator(backbone, ScoredTrack(), PROFILE.model_copy(update={"nfe": (5,)}))
    levels: list[float] = []

    def active(t: float) -> Sequence[str]:
        levels.append(t)
        return ()

    progress = Progress(Console(file=io.StringIO()))
    before = backbone.forwards
    evaluator.evaluate(active, 0, tmp_path, progress, "cell", (Segment(0.5, 0.0), Segment(0.0, 1.0)))
    assert levels[-5:] == pytest.approx([1.0, 0.5, 0.375, 0.25, 0.125])
    assert backbone.forwards - before == 7 * 5 + 4 * 2  # and one chunk of four to warm up, at NFE 2


def test_given_videos_are_scored_in_place_of_samples(backbone: TinyBackbone, tmp_path: Path) -> None:
    evaluator = Evaluator(backbone, track := ScoredTrack(), PROFILE)
    for nfe in PROFILE.nfe:
        evaluator.provide(tmp_path, nfe, 0, lambda index: track.clip("eval", index).video)
    before = backbone.forwards
    result = evaluate(evaluator, tmp_path)
    assert backbone.forwards == before
    assert result.metrics["ssim@tiny-scored/nfe3"].value == pytest.approx(1.0)
    assert result.metrics["fid@tiny/nfe3"].value == pytest.approx(0.0, abs=1e-9)
    speed = result.metrics["seconds_per_second@tiny-scored/nfe3"]
    assert speed.value is None and speed.reason == "the videos were given, not sampled"


def test_clips_that_do_not_fit_in_memory_are_read_again(
    backbone: TinyBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(Evaluator(backbone, ScoredTrack(), PROFILE), tmp_path / "a")
    monkeypatch.setattr("halign_bench.evaluation.KEEP_BYTES", 0)
    assert scores(evaluate(Evaluator(backbone, ScoredTrack(), PROFILE), tmp_path / "b")) == scores(whole)


def test_a_track_without_clips_is_refused(backbone: TinyBackbone) -> None:
    with pytest.raises(RequestError, match="1 evaluation clip"):
        Evaluator(backbone, TinyTrack(evaluation=1), PROFILE)
