"""Training in compiled blocks: the same numbers but for rounding, really compiled, and nothing left of it."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch
from runs import started
from test_cli import halign
from tiny import TinyBackbone, TinyTrack
from torch._dynamo.utils import counters

from halign_bench import compiling
from halign_bench.adapters import attach_lora
from halign_bench.compiling import check_compiling, compiled
from halign_bench.errors import Interrupted, RequestError
from halign_bench.plan import variant_named
from halign_bench.preferences import PreferenceSpec, collect
from halign_bench.results import read_record
from halign_bench.training import TrainingSpec, train

SPEC = TrainingSpec(samples=16, batch_size=4, rank=2, lr=1e-3, warmup=1)


class Leaf(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.sign = torch.nn.Linear(4, 4), 1

    def forward(self, x):
        return x + self.sign * torch.tanh(self.linear(x))


class Branch(torch.nn.Module):
    _repeated_blocks = ("Leaf",)

    def __init__(self) -> None:
        super().__init__()
        self.leaves = torch.nn.ModuleList(Leaf() for _ in range(3))

    def forward(self, x):
        for leaf in self.leaves:
            x = leaf(x)
        return x


def plain(network) -> bool:
    return all(module._compiled_call_impl is None for module in network.modules())


@pytest.fixture
def data(tmp_path):
    return collect(TinyBackbone(), TinyTrack(), PreferenceSpec(prompts=8, candidates=2, nfe=1), tmp_path / "cache")


@pytest.fixture
def inputs():
    backbone, track = TinyBackbone(), TinyTrack()
    condition = backbone.condition([track.clip("prompts", index) for index in range(4)])
    latents = torch.randn(4, *backbone.latent_shape(), generator=torch.Generator().manual_seed(1))
    return latents, torch.full((4,), 0.5), condition


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "train.jsonl").read_text().splitlines()]


# Quick ones.


def test_blocks_are_compiled_within_and_plain_afterwards():
    torch.manual_seed(0)
    network, x = Branch(), torch.randn(5, 4)
    expected = network(x)
    counters.clear()
    with compiled(network, "cpu"):
        assert torch.allclose(network(x), expected, atol=1e-6)
        assert counters["stats"]["unique_graphs"] >= 1 and not counters["graph_break"]
        assert not plain(network)
    assert plain(network) and torch.equal(network(x), expected)


def test_too_many_kinds_of_pass_are_no_silent_way_back(monkeypatch):
    monkeypatch.setattr(compiling, "KINDS", 1)
    network = Branch()
    with pytest.raises(RequestError, match="more than 1 kinds of pass to compile; leave --compile out"), \
            compiled(network, "cpu"):  # fmt: skip
        for rows in (2, 3, 4):
            network(torch.randn(rows, 4))
    assert plain(network)


def test_what_cannot_be_compiled_is_refused(monkeypatch):
    with pytest.raises(RequestError, match="a Linear of diffusers names no repeated blocks"):
        check_compiling(torch.nn.Linear(2, 2), "cpu")
    with pytest.raises(RequestError, match="for the devices cpu and cuda, not mps"):
        check_compiling(Branch(), "mps")
    if find_spec("triton") is None:
        with pytest.raises(RequestError, match="needs triton on a GPU"):
            check_compiling(Branch(), "cuda:1")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RequestError, match=r"no C\+\+ compiler no-such-compiler; set CXX"):
        check_compiling(Branch(), "cpu")


def test_the_command_line_lists_it_and_refuses_before_anything_is_sampled(tmp_path):
    assert "--compile" in halign("run", "--help").stdout
    with started(tmp_path) as runs:
        code, _, said = runs(tmp_path / "out", "--methods", "sft", "--compile", CXX="no-such-compiler")
    assert code == 2 and "--compile: there is no C++ compiler no-such-compiler" in said
    assert not list((tmp_path / "out").glob("records/*"))


@pytest.mark.parametrize("text", ["tmm", "flow-grpo[prompts=2]"])
def test_stages_with_modules_of_their_own_or_samples_of_their_own_are_not_compiled(data, tmp_path, text):
    found, told = {}, []
    for wanted in (False, True):
        backbone = TinyBackbone()
        backbone.compiled = wanted
        counters.clear()
        method = variant_named(text).parts[0].method
        result = train(method, backbone, data, SPEC, 0, tmp_path / str(wanted), warn=told.append)
        assert result.status == "done", result.error
        assert not counters["stats"]
        found[wanted] = losses(tmp_path / str(wanted))
    assert found[True] == found[False]
    assert [text for text in told if "trains without --compile" in text]


# Slow ones: a compiler takes its time.


@pytest.mark.slow
@pytest.mark.parametrize(("text", "again"), [("tpo", False), ("diffusion-dpo", True)])
def test_losses_are_those_of_plain_blocks(data, tmp_path, text, again):
    """Two LoRAs one after the other; and gradient checkpointing, which runs compiled blocks again."""
    found = {}
    for wanted in (False, True):
        backbone = TinyBackbone()
        backbone.compiled, backbone.checkpointing = wanted, again
        counters.clear()
        method = variant_named(text).parts[0].method
        result = train(method, backbone, data, SPEC, 0, tmp_path / str(wanted))
        assert result.status == "done", result.error
        assert plain(backbone.denoiser)
        if wanted:
            assert counters["stats"]["unique_graphs"] >= 2, "with gradients and without"
            assert not counters["graph_break"] and counters["frames"]["ok"] == counters["frames"]["total"]
        else:
            assert not counters["stats"]
        found[wanted] = losses(tmp_path / str(wanted))
    assert len(found[True]) >= 4
    assert found[True] == pytest.approx(found[False], rel=1e-4)


@pytest.mark.slow
def test_policy_and_reference_agree_to_the_bit_before_anything_is_learnt_in_bf16(inputs):
    latents, t, condition = inputs
    backbone = TinyBackbone()
    backbone.precision = "bf16"
    attach_lora(backbone.denoiser, "own", backbone.lora_targets, 4, 4.0, 0)

    def both():
        with backbone.adapters(["own"]):
            policy = backbone.denoise(latents, t, condition)
        with backbone.adapters([]), torch.no_grad():
            return policy.detach(), backbone.denoise(latents, t, condition)

    before = both()
    with compiled(backbone.denoiser, "cpu"):
        policy, reference = both()
    assert torch.equal(policy, reference)
    assert float((reference - before[1]).norm() / before[1].norm()) < 1e-2


@pytest.mark.slow
def test_a_resumed_compiled_training_has_the_same_bits(data, tmp_path):
    def halfway(samples, budget):
        if samples == 8:
            raise Interrupted("enough")

    method, weights = variant_named("diffusion-dpo").parts[0].method, []
    for folder, progress in (("whole", None), ("half", halfway)):
        backbone = TinyBackbone()
        backbone.compiled = True
        if progress is not None:
            with pytest.raises(Interrupted):
                train(method, backbone, data, SPEC, 0, tmp_path / folder, progress)
        result = train(method, backbone, data, SPEC, 0, tmp_path / folder)
        weights.append(next(result.adapters_dir.glob("*/*.safetensors")).read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_run_says_in_its_record_that_it_compiled(tmp_path):
    with started(tmp_path) as runs:
        for name, options in (("plain", ()), ("compiled", ("--compile",))):
            code, _, said = runs(tmp_path / name, "--methods", "sft", *options)
            assert code == 0, said
    records = [read_record(tmp_path / name / "records" / "sft-s0.json") for name in ("plain", "compiled")]
    assert "compiled" not in records[0].provenance and records[1].provenance["compiled"] is True
    assert records[0].protocol_hash == records[1].protocol_hash
