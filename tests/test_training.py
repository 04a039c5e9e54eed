"""Training: it learns, it resumes to the bit, it diverges without a crash, and it says what it did."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TinyBackbone, TinyTrack

from halign_bench.adapters import adapter_parameters, attached, load_adapters
from halign_bench.errors import HalignError, Interrupted, RequestError
from halign_bench.feeding import Feed
from halign_bench.implicit import LEVELS, implicit_accuracy, wilson
from halign_bench.method import AlignmentMethod, LossOutput, Stage
from halign_bench.preferences import PreferenceSpec, collect
from halign_bench.registry import get
from halign_bench.training import TrainingSpec, train

Base, SFT, DPO = (get("method", name) for name in ("base", "sft", "diffusion-dpo"))
SPEC = TrainingSpec(samples=96, batch_size=8, lr=5e-3, rank=4, warmup=2)


def preferences(cache: Path):
    return collect(TinyBackbone(), TinyTrack(), PreferenceSpec(prompts=12, candidates=3, nfe=2), cache)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return preferences(tmp_path_factory.mktemp("cache"))


def weights(backbone) -> torch.Tensor:
    parts = [p.detach().flatten() for n in attached(backbone.denoiser)
             for p in adapter_parameters(backbone.denoiser, n).values()]
    return torch.cat(parts)


def log_of(result) -> list[dict]:
    return [json.loads(line) for line in result.log_path.read_text().splitlines()]


def test_dpo_raises_implicit_accuracy_on_its_training_pairs(data, tmp_path):
    backbone = TinyBackbone()
    result = train(DPO(), backbone, data, SPEC.model_copy(update={"samples": 480}), 0, tmp_path)
    log = log_of(result)
    assert log[0]["loss"] == pytest.approx(np.log(2), abs=1e-6) and log[0]["implicit_accuracy"] == 0.5
    assert np.mean([entry["implicit_accuracy"] for entry in log[-10:]]) > 0.85
    assert np.mean([entry["loss"] for entry in log[-10:]]) < 0.5
    assert {"winner_gap", "loser_gap", "grad_norm", "norm_ratio"} <= log[-1].keys()
    assert result.status == "done" and result.steps == 60 and result.samples_seen == 480
    assert result.trained_parameters == weights(backbone).numel()
    assert result.seconds > 0 and result.peak_memory_bytes > 10**7


def test_sft_lowers_the_loss_on_winners(data, tmp_path):
    result = train(SFT(), TinyBackbone(), data, SPEC.model_copy(update={"samples": 480}), 0, tmp_path)
    losses = [entry["loss"] for entry in log_of(result)]
    assert np.mean(losses[-15:]) < np.mean(losses[:15]) - 0.02


def test_base_trains_nothing_and_its_implicit_accuracy_is_one_half(data, tmp_path):
    backbone = TinyBackbone()
    result = train(Base(), backbone, data, SPEC, 0, tmp_path / "none")
    assert result.status == "done" and result.samples_seen == 0 and result.adapters_dir is None
    assert {report.accuracy for report in result.heldout} == {0.5}
    assert {level.norm_ratio for report in result.heldout for level in report.levels} == {1.0}
    assert attached(backbone.denoiser) == ()


@pytest.mark.parametrize("method", [DPO, SFT])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, Interrupted])
def test_a_stopped_training_resumes_to_the_same_bits(data, tmp_path, method, stop):
    whole = TinyBackbone()
    expected = train(method(), whole, data, SPEC, 3, tmp_path / "whole")

    def progress(done, total):
        if done == 40:
            raise stop("stop")

    resumed = TinyBackbone()
    with pytest.raises(stop):
        train(method(), resumed, data, SPEC, 3, tmp_path / "cut", progress, checkpoint_seconds=1e9)
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    resumed, seen = TinyBackbone(), []
    result = train(method(), resumed, data, SPEC, 3, tmp_path / "cut", lambda *report: seen.append(report))
    assert seen[0] == (40, 96) and seen[-1] == (96, 96)
    assert torch.equal(weights(whole), weights(resumed))
    assert log_of(result) == log_of(expected)
    assert result.heldout == expected.heldout
    assert result.samples_seen == expected.samples_seen
    assert not (tmp_path / "cut" / "checkpoint.pt").exists()


def test_an_error_without_a_checkpoint_starts_again_from_the_last_one(data, tmp_path):
    whole = TinyBackbone()
    train(DPO(), whole, data, SPEC, 3, tmp_path / "whole")

    def crash(done, total):
        if done == 56:
            raise ZeroDivisionError  # no checkpoint is written on the way out of this one

    with pytest.raises(ZeroDivisionError):
        train(DPO(), TinyBackbone(), data, SPEC, 3, tmp_path / "cut", crash, checkpoint_seconds=0)
    lines = (tmp_path / "cut" / "train.jsonl").read_text()
    (tmp_path / "cut" / "train.jsonl").write_text(lines + '{"stage": "torn')  # as after a kill while writing
    resumed = TinyBackbone()
    result = train(DPO(), resumed, data, SPEC, 3, tmp_path / "cut")
    assert torch.equal(weights(whole), weights(resumed))
    assert len(log_of(result)) == 12


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_training import SPEC, TinyBackbone, get, preferences, train
folder = Path(sys.argv[1])
train(get("method", sys.argv[2])(), TinyBackbone(), preferences(folder / "cache"), SPEC, 3, folder / "cut",
      lambda done, total: time.sleep(0.05), checkpoint_seconds=0.1)
"""


@pytest.mark.fault("training: killed", "resumes to the same adapters, bit for bit")
@pytest.mark.parametrize("name", ["diffusion-dpo", "flow-grpo"])
def test_a_killed_process_resumes_to_the_same_bits(tmp_path, name):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), name], env=environment)
    deadline = time.monotonic() + 600
    log, checkpoint = tmp_path / "cut" / "train.jsonl", tmp_path / "cut" / "checkpoint.pt"
    while not (checkpoint.exists() and log.read_text().count("\n") >= 6):
        assert child.poll() is None, "the child ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "cut" / "result.json").exists()

    same, method = preferences(tmp_path / "cache"), get("method", name)
    whole, resumed, seen = TinyBackbone(), TinyBackbone(), []
    expected = train(method(), whole, same, SPEC, 3, tmp_path / "whole")
    result = train(method(), resumed, same, SPEC, 3, tmp_path / "cut", lambda *report: seen.append(report))
    assert 0 < seen[0][0] < 96  # it did not start from nothing
    assert torch.equal(weights(whole), weights(resumed))
    assert result.heldout == expected.heldout and log_of(result) == log_of(expected)


@pytest.mark.fault(
    "training: checkpoint.pt is empty, no checkpoint, or of another request",
    "not used; trained anew to the same adapters",
)
@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_not_used(data, tmp_path, damage):
    def stop(done, total):
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(DPO(), TinyBackbone(), data, SPEC, 0, tmp_path, stop)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-200] if damage is None else damage)
    seen = []
    result = train(DPO(), TinyBackbone(), data, SPEC, 0, tmp_path, lambda *report: seen.append(report))
    assert seen[0] == (0, 96) and len(log_of(result)) == 12


def test_a_finished_training_is_loaded_and_another_request_is_not(data, tmp_path):
    first = TinyBackbone()
    result = train(DPO(), first, data, SPEC, 0, tmp_path)
    again, seen = TinyBackbone(), []
    assert train(DPO(), again, data, SPEC, 0, tmp_path, lambda *report: seen.append(report)) == result
    assert seen == [] and torch.equal(weights(first), weights(again))
    from_file = TinyBackbone()
    assert load_adapters(from_file.denoiser, result.adapters_dir) == ["diffusion-dpo"]
    assert torch.equal(weights(first), weights(from_file))

    other = TinyBackbone()
    train(DPO(DPO.Config(beta=7)), other, data, SPEC, 0, tmp_path)
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.fault("training: saved adapters are damaged", "trained again")
def test_a_finished_training_whose_adapters_are_damaged_trains_again(data, tmp_path):
    first = TinyBackbone()
    result = train(SFT(), first, data, SPEC, 0, tmp_path)
    file = next(result.adapters_dir.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    again = TinyBackbone()
    train(SFT(), again, data, SPEC, 0, tmp_path)
    assert torch.equal(weights(first), weights(again))


def test_seeds_differ_and_a_seed_repeats(data, tmp_path):
    def run(seed, name):
        backbone = TinyBackbone()
        torch.manual_seed(hash(name) % 1000)  # the global generator has no say
        train(DPO(), backbone, data, SPEC, seed, tmp_path / name)
        return weights(backbone)

    a, b, c = run(0, "a"), run(0, "b"), run(1, "c")
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_base_is_left_as_it_was(data, tmp_path):
    backbone = TinyBackbone()
    before = {key: value.clone() for key, value in backbone.denoiser.state_dict().items()}
    noise = torch.randn(2, *backbone.latent_shape())
    condition = {name: value[:2] for name, value in data.condition.items()}
    with torch.no_grad():
        base = backbone.predict(noise, torch.tensor([0.3, 0.9]), condition)
    train(DPO(), backbone, data, SPEC, 0, tmp_path / "dpo")
    with torch.no_grad():
        assert torch.equal(backbone.predict(noise, torch.tensor([0.3, 0.9]), condition), base)
        with backbone.adapters(DPO().active_adapters(0.5)):
            assert not torch.allclose(backbone.predict(noise, torch.tensor([0.3, 0.9]), condition), base)
    train(SFT(), backbone, data, SPEC, 0, tmp_path / "sft")
    assert attached(backbone.denoiser) == ("sft",)  # the cell before leaves nothing behind
    train(Base(), backbone, data, SPEC, 0, tmp_path / "base")
    after = backbone.denoiser.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_accumulation_changes_nothing_but_memory(data, tmp_path):
    results = []
    for parts in (1, 4):
        backbone = TinyBackbone()
        train(DPO(), backbone, data, SPEC.model_copy(update={"accumulate": parts}), 0, tmp_path / str(parts))
        results.append(weights(backbone))
    torch.testing.assert_close(*results, rtol=1e-2, atol=2e-3)


def test_a_method_is_trained_on_top_of_another(data, tmp_path):
    backbone = TinyBackbone()
    sft = SFT()
    train(sft, backbone, data, SPEC, 0, tmp_path / "sft")
    below = weights(backbone)
    result = train(DPO(), backbone, data, SPEC, 0, tmp_path / "dpo", earlier=sft.active_adapters)
    assert attached(backbone.denoiser) == ("sft", "diffusion-dpo")
    assert log_of(result)[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)  # the reference is base + sft
    kept = [p.detach().flatten() for p in adapter_parameters(backbone.denoiser, "sft").values()]
    assert torch.equal(torch.cat(kept), below)
    with pytest.raises(RequestError, match="on top of itself"):
        train(sft, backbone, data, SPEC, 0, tmp_path / "again", earlier=sft.active_adapters)


class Exploding(AlignmentMethod):
    """Fine for three steps, then as `how` says."""

    name, paper = "exploding", "none"
    how = "nan"

    def stages(self):
        return (Stage("exploding", "winners"),)

    def loss(self, stage, policy, reference, batch, backbone):
        self.calls = getattr(self, "calls", 0) + 1
        x_t, target = batch.noised(backbone)
        prediction = policy(x_t, batch.t, batch.condition)
        per_sample = (prediction - target).pow(2).flatten(1).mean(1)
        if self.calls > 3:
            per_sample = {
                "nan": per_sample * float("nan"), "inf": per_sample + float("inf"),
                "gradient": (per_sample - per_sample).sqrt(), "shape": per_sample.mean(),
            }.get(self.how, per_sample)
        return LossOutput(per_sample)


@pytest.mark.parametrize(
    ("how", "says"), [("nan", "loss is nan"), ("inf", "loss is inf"), ("gradient", "gradient norm")]
)
def test_divergence_is_a_result_not_a_crash(data, tmp_path, how, says):
    method, backbone = Exploding(), TinyBackbone()
    method.how = how
    result = train(method, backbone, data, SPEC, 0, tmp_path)
    assert result.status == "diverged" and says in result.error and "step 4" in result.error
    assert result.samples_seen == 24 and result.adapters_dir is None and result.heldout == []
    assert attached(backbone.denoiser) == ()
    again = Exploding()
    assert train(again, backbone, data, SPEC, 0, tmp_path) == result and not hasattr(again, "calls")


def test_a_blow_up_is_a_divergence(data, tmp_path):
    backbone = TinyBackbone()
    backbone.lora_targets = ("proj_out",)  # behind the last norm, so that predictions can grow without bound
    result = train(DPO(), backbone, data, SPEC.model_copy(update={"lr": 10.0, "samples": 400}), 0, tmp_path)
    assert result.status == "diverged" and "limit 10" in result.error


def test_a_loss_of_the_wrong_shape_names_the_method(data, tmp_path):
    method = Exploding()
    method.how = "shape"
    with pytest.raises(HalignError, match=r"method exploding.*one number a sample"):
        train(method, TinyBackbone(), data, SPEC, 0, tmp_path)


class Experts(AlignmentMethod):
    """Two adapters on two halves of t, sharing one budget: what interval methods need of the harness."""

    name, paper = "experts", "none"

    def __init__(self):
        super().__init__()
        self.seen = {"motion": [], "fidelity": []}

    def stages(self):
        return (
            Stage("motion", "pairs", "motion", (0.6, 1.0), share=0.5),
            Stage("fidelity", "winners", "fidelity", (0.0, 0.6), share=0.5),
        )

    def active_adapters(self, t):
        return ("motion",) if t >= 0.6 else ("fidelity",)

    def loss(self, stage, policy, reference, batch, backbone):
        clips = batch.stacked() if stage.data == "pairs" else batch
        self.seen[stage.adapter] += clips.t.tolist()
        x_t, target = clips.noised(backbone)
        errors = (policy(x_t, clips.t, clips.condition) - target).pow(2).flatten(1).mean(1)
        return LossOutput(errors.chunk(2)[0] if stage.data == "pairs" else errors)


def test_stages_share_the_budget_and_keep_to_their_interval(data, tmp_path):
    backbone, method = TinyBackbone(), Experts()
    result = train(method, backbone, data, SPEC, 0, tmp_path / "whole")
    assert len(method.seen["motion"]) == len(method.seen["fidelity"]) == 48
    assert min(method.seen["motion"]) >= 0.6 > max(method.seen["fidelity"])
    assert attached(backbone.denoiser) == ("motion", "fidelity") and result.samples_seen == 96

    def stop(done, total):  # in the second stage
        if done == 72:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Experts(), TinyBackbone(), data, SPEC, 0, tmp_path / "cut", stop)
    resumed = TinyBackbone()
    train(Experts(), resumed, data, SPEC, 0, tmp_path / "cut")
    assert torch.equal(weights(backbone), weights(resumed))
    with pytest.raises(RequestError, match="change with t"):
        train(DPO(), backbone, data, SPEC, 0, tmp_path / "top", earlier=method.active_adapters)


def test_pairs_share_noise_t_and_condition_and_every_row_is_visited(data):
    feed = Feed(data, Stage("x", "pairs", "motion", (0.2, 0.4)), 0, 6, 7, "cpu")
    batch = feed.batch(5)
    assert torch.equal(batch.winner.noise, batch.loser.noise) and torch.equal(batch.winner.t, batch.loser.t)
    assert all(torch.equal(batch.winner.condition[k], batch.loser.condition[k]) for k in batch.winner.condition)
    assert not torch.equal(batch.winner.x0, batch.loser.x0)
    assert float(batch.winner.t.min()) >= 0.2 and float(batch.winner.t.max()) <= 0.4
    count = len(data.pairs("motion"))
    visited = [row for step in range(count) for row in feed.chosen(step)]
    assert sorted(visited) == sorted(list(range(count)) * 3)
    assert visited[:count] != visited[count : 2 * count]
    again = Feed(data, Stage("x", "pairs", "motion", (0.2, 0.4)), 0, 6, 7, "cpu").batch(5)
    assert torch.equal(again.winner.noise, batch.winner.noise) and again.winner.ids == batch.winner.ids


def test_winners_and_candidates_come_with_their_rewards(data):
    for kind, rows in (("winners", data.winners("motion")), ("candidates", data.candidates("motion"))):
        feed = Feed(data, Stage("x", kind, "motion"), 0, 4, 0, "cpu")
        batch = feed.batch(3)
        for place, row in enumerate(feed.chosen(3)):
            prompt, candidate = rows.prompt[row], rows.candidate[row]
            assert torch.equal(batch.x0[place], data.latents[prompt, candidate])
            assert batch.ids[place] == f"{data.ids[prompt]}#candidate{candidate}"
            assert float(batch.reward[place]) == pytest.approx(data.standardised("motion")[prompt, candidate])
        assert torch.equal(batch[1:3].reward, batch.reward[1:3])
    assert Feed(data, Stage("x", "clips"), 0, 4, 0, "cpu").batch(0).reward is None
    best = Feed(data, Stage("x", "winners", "motion", limit=2), 0, 4, 0, "cpu")
    assert best.rows == data.winners("motion", 2) and len(best.rows) == 2


def test_methods_start_from_the_same_adapter_and_stacked_ones_from_others(data, tmp_path):
    """A comes from the seed and the adapter's place alone; a learning rate of nothing leaves it as drawn."""
    spec = SPEC.model_copy(update={"samples": 8, "lr": 1e-12})

    def drawn(method, backbone, **options):
        train(method, backbone, data, spec, 0, tmp_path / f"{method.name}-{len(options)}", **options)
        found = adapter_parameters(backbone.denoiser, method.stages()[0].adapter)
        return torch.cat([p.detach().flatten() for key, p in found.items() if "lora_A" in key])

    backbone = TinyBackbone()
    sft, dpo = drawn(SFT(), backbone), drawn(DPO(), TinyBackbone())
    torch.testing.assert_close(sft, dpo, atol=1e-9, rtol=0)
    stacked = drawn(DPO(), backbone, earlier=SFT().active_adapters)
    assert float((stacked - sft).abs().mean()) > 0.05


def test_requests_that_cannot_be_answered(data, tmp_path):
    with pytest.raises(RequestError, match="whole pairs"):
        train(DPO(), TinyBackbone(), data, SPEC.model_copy(update={"batch_size": 3}), 0, tmp_path)
    with pytest.raises(RequestError, match="none was given"):
        train(DPO(), TinyBackbone(), None, SPEC, 0, tmp_path)
    with pytest.raises(RequestError, match="criterion beauty"):
        train(DPO(DPO.Config(criterion="beauty")), TinyBackbone(), data, SPEC, 0, tmp_path)


def test_heldout_accuracy_equals_a_computation_from_its_definition(data, tmp_path):
    backbone = TinyBackbone()
    result = train(DPO(), backbone, data, SPEC, 0, tmp_path)
    assert {report.criterion for report in result.heldout} == {"motion", "fidelity", "overall"}
    report = next(report for report in result.heldout if report.criterion == "overall")
    pairs = data.pairs("overall", heldout=True)
    assert report.pairs == len(pairs) and min(pairs.prompt) >= data.n_train
    assert all(value in (0.0, 0.5, 1.0) for value in report.values)
    assert report.accuracy == pytest.approx(np.mean(np.array(report.rewards) > 0))
    assert report.ci[0] < report.accuracy < report.ci[1] or report.accuracy in (0.0, 1.0)
    assert [level.t for level in report.levels] == list(LEVELS)
    by_level = [level.loser_gap - level.winner_gap for level in report.levels]
    assert np.mean(report.rewards) == pytest.approx(np.mean(by_level), abs=1e-6)
    other_batches = implicit_accuracy(DPO(), backbone, data, batch_size=2)
    same = next(report for report in other_batches if report.criterion == "overall")
    assert same.rewards == pytest.approx(report.rewards, abs=1e-5)


def test_wilson_interval_against_known_values():
    assert wilson(15, 20) == pytest.approx((0.5313, 0.8881), abs=1e-4)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == pytest.approx(1)
    with pytest.raises(ValueError):
        wilson(0, 0)


SHARED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from halign_bench.processes import join
from test_training import SPEC, TinyBackbone, get, preferences, train
processes, folder = join("cpu"), Path(sys.argv[1])
method = get("method", sys.argv[2])()
train(method, TinyBackbone(), preferences(folder / "cache"), SPEC, 3, folder / "shared")
processes.leave()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diffusion-dpo", "flow-grpo"])
def test_two_processes_train_what_one_trains(tmp_path, name):
    same, alone = preferences(tmp_path / "cache"), TinyBackbone()
    expected = train(get("method", name)(), alone, same, SPEC, 3, tmp_path / "alone")
    (tmp_path / "shared.py").write_text(SHARED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(tmp_path / "shared.py"), str(tmp_path), name]
    subprocess.run(command, env=environment, check=True, timeout=900)
    shared = TinyBackbone()
    load_adapters(shared.denoiser, tmp_path / "shared" / "adapters")
    torch.testing.assert_close(weights(shared), weights(alone), rtol=1e-2, atol=2e-3)
    log = [json.loads(line) for line in (tmp_path / "shared" / "train.jsonl").read_text().splitlines()]
    assert [entry["loss"] for entry in log] == pytest.approx([entry["loss"] for entry in log_of(expected)], abs=1e-3)


def test_bf16_keeps_the_adapters_and_the_errors_in_fp32(tmp_path, monkeypatch):
    backbone, seen = TinyBackbone(), []
    backbone.precision = "bf16"
    predict = backbone.predict

    def watched(*inputs):
        prediction = predict(*inputs)
        seen.append(prediction.dtype)
        return prediction

    monkeypatch.setattr(backbone, "predict", watched)
    spec = SPEC.model_copy(update={"samples": 16})
    result = train(DPO(), backbone, preferences(tmp_path), spec, 0, tmp_path / "train")
    assert result.status == "done" and torch.bfloat16 in seen
    assert weights(backbone).dtype == torch.float32
    assert log_of(result)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
