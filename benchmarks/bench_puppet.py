"""Clips drawn a second, with sound, skeleton and reference, by two processes: `pytest benchmarks/bench_puppet.py`."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from halign_bench.tracks.puppet.clips import draw_clip

CLIPS = 128


def _draw(index: int) -> int:
    return draw_clip("pretrain", index, 17, 64).video.nbytes


def test_clips_per_second(benchmark):
    """`extra_info["clips_per_second"]` is the number to read: at least 50 on two cores."""
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:  # spawn could not import this file
        list(pool.map(_draw, range(4)))  # both processes are up

        def draw_all() -> None:
            assert all(pool.map(_draw, range(CLIPS), chunksize=8))

        benchmark.pedantic(draw_all, rounds=3, iterations=1)
    benchmark.extra_info["clips_per_second"] = CLIPS / benchmark.stats["mean"]
