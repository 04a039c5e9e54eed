"""What a run spends its time on, step by step: `pytest benchmarks/bench_steps.py`; as a gate, docs/check.md.

Each benchmark also puts into `extra_info["ratio"]` how many times as long it takes as a fixed piece of work of its
kind, timed in turns with it in the same process, in processor seconds of all threads: a number that says more about
the code than about the machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMMITTED = Path(__file__).resolve().parent.parent / "leaderboards" / "puppet" / "puppet-dit"
ROUNDS = 7


@pytest.fixture
def against(benchmark) -> Callable[[Callable[[], Any], Callable[[], Any]], None]:
    """Times `work` for pytest-benchmark, and in turns with `yardstick` for the ratio (median of `ROUNDS`)."""

    def measure(work: Callable[[], Any], yardstick: Callable[[], Any]) -> None:
        benchmark.pedantic(work, rounds=ROUNDS, iterations=1, warmup_rounds=2)
        ratios = []
        for _ in range(ROUNDS):
            took = []
            for function in (work, yardstick):
                started = time.process_time()
                function()
                took.append(time.process_time() - started)
            ratios.append(took[0] / took[1])
        benchmark.extra_info["ratio"] = statistics.median(ratios)

    return measure


def matrices() -> Callable[[], Any]:
    """Work for torch: products of 512 × 512, about as long as a step."""
    import torch

    x = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))

    def work() -> Any:
        y = x
        for _ in range(20):
            y = y @ x / 23
        return y

    return work


def dictionaries() -> Callable[[], Any]:
    """Work for Python itself."""
    return lambda: sum(len({str(i): i}) for i in range(200_000))


@pytest.fixture(scope="module")
def scene():
    import torch

    from halign_bench.loading import load_backbone, load_track

    backbone = load_backbone("puppet-dit", "cpu")
    track = load_track("puppet", None, backbone)
    clips = [track.clip("eval", index) for index in range(2)]
    latents = torch.randn(2, *backbone.latent_shape(), generator=torch.Generator().manual_seed(0))
    return backbone, backbone.condition(clips), latents, torch.full((2,), 0.5)


def test_a_sampling_step_of_two_clips(against, scene):
    import torch

    backbone, condition, latents, t = scene

    def step() -> None:
        with torch.no_grad():
            backbone.denoise(latents, t, condition)

    against(step, matrices())


def test_a_training_step_of_two_clips(against, scene):
    backbone, condition, latents, t = scene
    backbone.denoiser.requires_grad_(True)

    def step() -> None:
        backbone.denoise(latents, t, condition).square().mean().backward()
        backbone.denoiser.zero_grad()

    against(step, matrices())


def test_a_table_from_records(against):
    from halign_bench.leaderboard import build
    from halign_bench.results import read_records

    against(lambda: build(*read_records([COMMITTED])).to_json(), dictionaries())


def test_a_check_of_records(against):
    from halign_bench.checking.margins import Margins
    from halign_bench.checking.measuring import pair
    from halign_bench.checking.verdicts import judged

    def check() -> None:
        pairing = pair(COMMITTED, COMMITTED, Margins())
        assert judged(pairing.scores, pairing.losses)

    against(check, dictionaries())
