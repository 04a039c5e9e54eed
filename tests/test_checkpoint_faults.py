"""What is wrong with a checkpoint, or with a request for one, is a sentence that names it; files are really torn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import diffusers
import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file

from halign_bench import registry
from halign_bench.errors import RequestError
from halign_bench.model_choice import ModelChoice

WEIGHTS = "diffusion_pytorch_model.safetensors"


def refusal(folder, name="wan", **more):
    with pytest.raises(RequestError) as caught:
        ModelChoice(None if folder is None else str(folder), **more).load(registry.get("backbone", name), "cpu")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published.folder("wan"), tmp_path / "wan")


def edit(file: Path, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_weights(file: Path, change):
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def shard(folder: Path):
    """Splits the transformer's file in two, as large models are shipped; returns the second one."""
    whole = folder / "transformer" / WEIGHTS
    weights = load_file(whole)
    whole.unlink()
    names = sorted(weights)
    files = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = whole.with_name(f"diffusion_pytorch_model-0000{number}-of-00002.safetensors")
        save_file({name: weights[name] for name in part}, file, metadata={"format": "pt"})
        files |= dict.fromkeys(part, file.name)
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    whole.with_name(f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    return file


# Which model.


def test_no_model_no_folder_a_file_and_no_pipeline(tmp_path, copy):
    assert "wan has no weights of its own: say which with --model FOLDER" in refusal(None)
    assert "no such folder" in refusal(tmp_path / "nothing")
    assert "is a file, not a folder" in refusal(copy / "model_index.json")
    assert "no model_index.json there" in refusal(copy / "transformer")


def test_another_class_another_prediction_and_two_networks(copy):
    assert "is a WanPipeline, backbone svd needs a StableVideoDiffusionPipeline" in refusal(copy, "svd")
    edit(copy / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    assert "of a model that predicts epsilon, and this one predicts flow_prediction" in refusal(copy)
    edit(copy / "model_index.json", transformer_2=["diffusers", "WanTransformer3DModel"])
    assert "has two networks, one for high and one for low noise" in refusal(copy)


def test_a_network_of_another_class(copy):
    edit(copy / "model_index.json", vae=["diffusers", "AutoencoderKL"])
    assert "its vae cannot be read as a AutoencoderKL" in refusal(copy)
    edit(copy / "model_index.json", vae=["diffusers", "AutoencoderOfTomorrow"])
    assert "its vae is a AutoencoderOfTomorrow, which the installed diffusers does not have" in refusal(copy)


def test_clips_that_a_model_cannot_take(published):
    wan, cogvideox = published.folder("wan"), published.folder("cogvideox")
    assert "--frames 8: a clip has 1 + 4n frames" in refusal(wan, frames=8)
    assert "--size 40x32: wan takes multiples of 16" in refusal(wan, frames=9, size=(32, 40))
    assert "takes 1 + 8n frames" in refusal(cogvideox, "cogvideox", frames=13, size=(32, 32))
    learned = refusal(published.folder("cogvideox-i2v"), "cogvideox", frames=17, size=(32, 32))
    assert "has learned positions of 9 frames of 32x32" in learned
    assert "--frames: backbone puppet-dit does not leave that open" in refusal(None, "puppet-dit", frames=9)


# What is in its files.


@pytest.mark.fault("--model: weights are missing from its files", "refused, with their names")
@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_weights_that_are_in_no_file(copy, part):
    (file,) = (copy / part).glob("*.safetensors")
    gone = sorted(load_file(file))[0]
    change_weights(file, lambda weights: weights.pop(gone))
    said = refusal(copy)
    assert f"its {part} cannot be read" in said and "1 weights are in none of its files, among them" in said


@pytest.mark.fault("--model: weights of another shape", "refused, with their names")
@pytest.mark.parametrize("backbone", ["wan", "svd"])
def test_weights_of_another_shape(published, tmp_path, backbone):
    folder = shutil.copytree(published.folder(backbone), tmp_path / "model")
    part, name = ("transformer", "patch_embedding.weight") if backbone == "wan" else ("unet", "conv_in.weight")

    def widen(weights):
        weights[name] = torch.cat([weights[name]] * 2, dim=1)

    change_weights(folder / part / WEIGHTS, widen)
    said = refusal(folder, backbone)
    assert f"its {part} cannot be read as a " in said and name in said


@pytest.mark.parametrize("name", ["wan", "wan-vace", "wan-animate", "svd", "animatediff", "cogvideox"])
def test_a_network_and_a_codec_of_different_channels(published, tmp_path, name):
    """A codec of five channels, in its configuration and its weights, beside a network for four."""
    folder = shutil.copytree(published.folder(name), tmp_path / "model")
    config = json.loads((folder / "vae" / "config.json").read_text())
    wan = {"z_dim": 5, "latents_mean": [0.0] * 5, "latents_std": [1.0] * 5}
    five = {**config, **(wan if "z_dim" in config else {"latent_channels": 5})}
    getattr(diffusers, config["_class_name"]).from_config(five).save_pretrained(folder / "vae")
    said = refusal(folder, tiny_models.BACKBONE[name], frames=9, size=(64, 64))
    assert "takes" in said and "channels" in said


@pytest.mark.fault("--model: a file of weights ends too early", "refused: which file is damaged")
@pytest.mark.parametrize("keep", [1000, -5])
def test_a_file_that_ends_too_early(copy, keep):
    file = copy / "vae" / WEIGHTS
    file.write_bytes(file.read_bytes()[:keep])
    assert f"vae/{WEIGHTS} is damaged" in refusal(copy)


@pytest.mark.fault("--model: a file of weights is empty, or begins with noise", "refused: which file is damaged")
def test_a_header_of_noise_and_an_empty_file(copy):
    file = copy / "transformer" / WEIGHTS
    file.write_bytes(b"\xff" * 64 + file.read_bytes()[64:])
    assert f"transformer/{WEIGHTS} is damaged" in refusal(copy)
    file.write_bytes(b"")
    assert f"transformer/{WEIGHTS} is damaged" in refusal(copy)


@pytest.mark.fault("--model: a configuration ends too early", "refused")
@pytest.mark.parametrize("torn", [
    "model_index.json", "transformer/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"
])  # fmt: skip
def test_a_configuration_that_ends_too_early(copy, torn):
    file = copy / torn
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "cannot be read" in refusal(copy)


@pytest.mark.fault("--model: a part is missing", "refused")
def test_a_part_without_its_files(copy):
    (copy / "transformer" / WEIGHTS).unlink()
    assert "cannot be read as a WanPipeline" in refusal(copy)
    shutil.rmtree(copy / "vae")
    assert "cannot be read as a WanPipeline" in refusal(copy)


@pytest.mark.fault("--model: a shard is missing, incomplete or its index torn", "refused: which one")
def test_shards_that_are_missing_incomplete_or_unlisted(copy, published):
    second = shard(copy)
    whole = ModelChoice(str(copy), None, tiny_models.FRAMES, tiny_models.SIZE).load(
        registry.get("backbone", "wan"), "cpu"
    )
    for name, parameter in published.load("wan").denoiser.named_parameters():
        assert torch.equal(parameter, whole.denoiser.get_parameter(name))
    kept = load_file(second)
    change_weights(second, lambda weights: weights.pop(sorted(weights)[0]))
    assert "1 weights are in none of its files" in refusal(copy)
    second.unlink()
    assert f"the shard transformer/{second.name} is missing" in refusal(copy)
    save_file(kept, second)
    index = copy / "transformer" / f"{WEIGHTS}.index.json"
    index.write_text(index.read_text()[:40])
    assert f"transformer/{index.name} cannot be read" in refusal(copy)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_half_precision_files_are_read_as_fp32_on_a_processor(published, copy, variant):
    for file in copy.glob("*/*.safetensors"):
        halves = {name: value.half() if value.is_floating_point() else value for name, value in load_file(file).items()}
        file.unlink()
        name = file.name if variant is None else f"{file.stem}.{variant}.safetensors"
        save_file(halves, file.with_name(name), metadata={"format": "pt"})
    backbone = ModelChoice(str(copy), None, tiny_models.FRAMES, tiny_models.SIZE).load(
        registry.get("backbone", "wan"), "cpu"
    )
    modules = [module for module in backbone.pipeline.components.values() if isinstance(module, torch.nn.Module)]
    assert len(modules) == 3 and {p.dtype for module in modules for p in module.parameters()} == {torch.float32}
    assert backbone.base_sha256 != published.load("wan").base_sha256


def test_an_audio_encoder_that_is_none(published, tmp_path):
    wan, whole = published.folder("wan"), published.folder("wav2vec2")
    said = refusal(wan, audio_encoder=str(tmp_path / "nothing"))
    assert said.startswith(f"--audio-encoder {tmp_path / 'nothing'}:") and "cannot be read as a Wav2Vec2Model" in said
    folder = shutil.copytree(whole, tmp_path / "wav2vec2")
    change_weights(folder / "model.safetensors", lambda weights: weights.pop("feature_projection.projection.bias"))
    assert "1 weights are in none of its files" in refusal(wan, audio_encoder=str(folder))
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    edit(folder / "preprocessor_config.json", sampling_rate=8000)
    assert "hears 8000 Hz, clips are 16 kHz" in refusal(wan, audio_encoder=str(folder))


# On the hub.


def python(*words, **environment):
    """In a process of its own, since the hub's settings are read when its library is imported."""
    return subprocess.run(
        [sys.executable, *words], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


@pytest.mark.fault("--model: a hub id without a network", "one sentence (2)")
@pytest.mark.parametrize("environment", [
    {"HF_HUB_OFFLINE": "1"},
    pytest.param({"HF_ENDPOINT": "http://127.0.0.1:9"}, marks=pytest.mark.slow),  # the hub tries six times
])  # fmt: skip
def test_a_hub_id_without_network(tmp_path, environment):
    command = ("-m", "halign_bench", "conformance", "wan", "--model", "nobody/no-such-model")
    done = python(*command, HF_HOME=str(tmp_path), **environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = done.stderr
    assert "--model nobody/no-such-model: neither a folder here nor to be had from the hub" in " ".join(said.split())


def test_a_hub_id_that_was_fetched_before_needs_no_network(published, tmp_path):
    repository = tmp_path / "hub" / "models--somebody--tiny-wan"
    shutil.copytree(published.folder("wan"), repository / "snapshots" / "0123abcd")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    code = (
        "from halign_bench.backbones._pipelines import folder_of, read_index\n"
        "print(read_index('somebody/tiny-wan')['_class_name'], folder_of('somebody/tiny-wan'))"
    )
    done = python("-c", code, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert done.stdout.split() == ["WanPipeline", str(repository / "snapshots" / "0123abcd")], done.stderr
