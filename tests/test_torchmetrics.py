"""The drop-in metrics: torchmetrics' conventions, the values of the pure functions, and exactness over processes."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from halign_bench.metrics.fid import frechet_distance
from halign_bench.metrics.hkc import hand_confidence
from halign_bench.metrics.kid import kernel_distance
from halign_bench.metrics.sync_c import sync_scores

from halign_bench.torchmetrics import ClipMean, FrechetDistance, KernelDistance

PURE = {FrechetDistance: frechet_distance, KernelDistance: kernel_distance}
METRICS = pytest.mark.parametrize("metric", PURE, ids=lambda cls: cls.__name__)


def two_sets(dimensions: int = 6, n: int = 40, m: int = 25) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    fake = torch.randn(n, dimensions, generator=generator)
    return fake, 2 * torch.rand(m, dimensions, generator=generator) + 1


@METRICS
@pytest.mark.parametrize("n", [40, 4])
def test_batches_give_what_the_pure_function_gives_on_all_of_it(metric, n):
    fake, real = two_sets(n=n)
    whole = metric(dimensions=6)
    for part in fake.split(3):
        whole.update(part, real=False)
    whole.update(real, real=True)
    value = whole.compute()
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(PURE[metric](fake.numpy(), real.numpy()), rel=1e-9 if n > 6 else 1e-6)


@METRICS
def test_it_follows_the_conventions_of_torchmetrics(metric):
    made = metric(dimensions=6)
    assert made.higher_is_better is False and made.full_state_update is False and made.is_differentiable is False
    assert set(made._reductions) == set(made._defaults) and len(made._defaults) >= 2
    fake, real = two_sets()
    made.update(fake, real=False)
    made.update(real, real=True)
    first = made.compute()
    made.half()  # as inside of a model in half precision: the states stay what they are
    made.update(fake[:1], real=False)
    assert made.compute().dtype == torch.float64 and made.compute() != first
    made.reset()
    with pytest.raises(ValueError, match="at least two"):
        made.compute()


@METRICS
def test_the_real_side_may_outlive_a_reset(metric):
    fake, real = two_sets()
    made = metric(dimensions=6, reset_real_features=False)
    made.update(real, real=True)
    made.update(fake[:20], real=False)
    before = made.compute()
    made.reset()
    made.update(fake[:20], real=False)
    assert made.compute() == before
    other = metric(dimensions=6)
    other.update(real, real=True)
    other.reset()
    other.update(fake, real=False)
    with pytest.raises(ValueError, match="at least two"):
        other.compute()


@METRICS
def test_what_is_no_feature_is_refused_and_leaves_the_state_alone(metric):
    made = metric(dimensions=6)
    for wrong in (torch.zeros(3, 5), torch.zeros(6), torch.full((2, 6), torch.nan)):
        with pytest.raises(ValueError):
            made.update(wrong, real=True)
    fake, real = two_sets()
    made.update(fake, real=False)
    made.update(real, real=True)
    assert made.compute().item() == pytest.approx(PURE[metric](fake.numpy(), real.numpy()), rel=1e-9)


@METRICS
def test_an_extractor_turns_images_into_features(metric):
    images = torch.randint(0, 256, (12, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

    def means(pictures: torch.Tensor) -> torch.Tensor:
        return pictures.float().mean((2, 3))

    made = metric(means, 3)
    made.update(images[:6], real=False)
    made.update(images[6:], real=True)
    assert made.compute().item() == pytest.approx(PURE[metric](means(images[:6]).numpy(), means(images[6:]).numpy()))


def test_a_function_of_one_clip_becomes_a_metric_of_many():
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal((2, 20, 8)) for _ in range(3)]
    made = ClipMean(lambda video, audio: sync_scores(video, audio, vshift=3).confidence)
    for video, audio in clips:
        made.update(torch.from_numpy(video), audio)
    one_by_one = [sync_scores(video, audio, vshift=3).confidence for video, audio in clips]
    assert made.compute().item() == pytest.approx(np.mean(one_by_one))


def test_a_clip_without_a_score_is_counted_and_never_a_zero():
    made = ClipMean(lambda confidence, expected: hand_confidence(confidence, expected))
    made.update(np.zeros((1, 2, 21)), np.zeros((1, 2), bool))
    with pytest.raises(ValueError, match="no clip was scored, of 1 given"):
        made.compute()
    made.update(np.full((1, 2, 21), 0.5), np.ones((1, 2), bool))
    assert made.compute().item() == 0.5 and made.unscored == 1
    with pytest.raises(ValueError, match="None for what cannot be measured"):
        ClipMean(lambda: float("nan")).update()
    made.reset()
    assert made.unscored == 0 and set(made._reductions) == set(made._defaults)


PROCESS = """
import datetime, sys
import torch, torch.distributed as dist
from halign_bench.torchmetrics import ClipMean, FrechetDistance, KernelDistance

rank, meeting, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2,
                        timeout=datetime.timedelta(minutes=10))
fake, real = torch.load(out + ".in", weights_only=True)
mine = (fake[:11], real[:20]) if rank == 0 else (fake[11:], real[20:])  # uneven halves
values = []
for metric in (FrechetDistance(dimensions=6), KernelDistance(dimensions=6)):
    for part in mine[0].split(4):
        metric.update(part, real=False)
    metric.update(mine[1], real=True)
    values += [metric.compute(), metric.compute()]  # a second time: the states were put back
mean = ClipMean(lambda clip: None if clip[0] > 2.5 else float(clip.mean()))
for clip in mine[1]:
    mean.update(clip)
values.append(mean.compute())
torch.save(values, f"{out}.{rank}")
dist.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without torch.distributed")
def test_two_processes_with_a_part_each_give_the_value_of_one(tmp_path):
    fake, real = two_sets()
    out = tmp_path / "values"
    torch.save((fake, real), f"{out}.in")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "meeting"), str(out)], env=environment,
            cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    complaints = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], complaints
    expected = [function(fake.numpy(), real.numpy()) for function in (frechet_distance, kernel_distance)]
    for rank in (0, 1):
        values = [value.item() for value in torch.load(f"{out}.{rank}", weights_only=True)]
        assert np.allclose(values[:4], np.repeat(expected, 2), rtol=1e-9)
        assert values[4] == pytest.approx(real[real[:, 0] <= 2.5].mean(1).mean().item())
