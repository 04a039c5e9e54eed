"""docs/own_model.py is a whole backbone for a model that is not in diffusers, and methods train it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.torch import save_file
from tiny import TinyTrack

from halign_bench import registry
from halign_bench.adapters import attach
from halign_bench.conformance import check_class
from halign_bench.errors import RequestError
from halign_bench.model_choice import ModelChoice
from halign_bench.plan import variant_named
from halign_bench.preferences import PreferenceSpec, collect
from halign_bench.training import TrainingSpec, train

OWN_MODEL = Path(__file__).resolve().parent.parent / "docs" / "own_model.py"


@pytest.fixture
def own_model(tmp_path):
    assert len(OWN_MODEL.read_text().splitlines()) < 60
    spec = importlib.util.spec_from_file_location("own_model", OWN_MODEL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    save_file(module.network().state_dict(), tmp_path / "weights.safetensors")
    yield module.MyModel, tmp_path / "weights.safetensors"
    registry._registered.pop(("backbone", "my-model"))


def test_the_example_of_ones_own_model_keeps_the_contract(own_model):
    cls, weights = own_model
    checks = check_class("backbone", cls, ModelChoice(str(weights), frames=9, size=(32, 32)))
    assert not [check for check in checks if check.status == "failed"]
    with pytest.raises(RequestError, match="say which with --model"):
        ModelChoice().load(cls, "cpu")


@pytest.mark.parametrize("text", ["diffusion-dpo", "tpo", "ipa", "kto"])
def test_methods_train_the_example_of_ones_own_model(own_model, tmp_path, text):
    cls, weights = own_model
    backbone = ModelChoice(str(weights), frames=9, size=(32, 32)).load(cls, "cpu")
    track = TinyTrack(frames=9, size=(32, 32), prompts=4)
    data = collect(backbone, track, PreferenceSpec(prompts=4, candidates=2, nfe=2), tmp_path / "cache")
    method = variant_named(text).parts[0].method
    result = train(method, backbone, data, TrainingSpec(samples=4, batch_size=2), 0, tmp_path)
    assert result.status == "done" and np.isfinite(result.seconds)


def test_installed_as_a_plug_in_it_runs_from_the_command_line(own_model, tmp_path):
    """Beside an entry point, as a package of one's own would install it, in a process of its own."""
    _, weights = own_model
    package = tmp_path / "package"
    (package / "own_model-1.dist-info").mkdir(parents=True)
    (package / "own_model-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: own-model\nVersion: 1\n")
    (package / "own_model-1.dist-info" / "entry_points.txt").write_text(
        "[halign_bench.backbones]\nmy-model = own_model\n"
    )
    (package / "own_model.py").write_text(OWN_MODEL.read_text())
    done = subprocess.run(
        [sys.executable, "-m", "halign_bench", "conformance", "my-model", "--model", str(weights), "--frames=9",
         "--size=32x32"],
        env={**os.environ, "PYTHONPATH": str(package)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 frames of 32x32, flow" in done.stdout


def test_attaching_tmm_to_a_model_without_blocks_is_refused(own_model):
    cls, weights = own_model
    backbone = ModelChoice(str(weights), frames=9, size=(32, 32)).load(cls, "cpu")
    stage = variant_named("tmm").parts[0].method.stages()[0]
    with pytest.raises(RequestError, match="my-model states none"):
        attach(backbone, stage, backbone.condition([tiny_models.clip(0)]), 2, 2.0, 0)
