"""Backbones of published models: their contract, every method on every one of them, and what is wrong in a sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from tiny import TinyTrack

from halign_bench import registry
from halign_bench.adapters import remove_adapters
from halign_bench.conformance import check_class
from halign_bench.errors import RequestError
from halign_bench.masks import hand_mask
from halign_bench.model_choice import ModelChoice
from halign_bench.plan import variant_named
from halign_bench.preferences import PreferenceSpec, collect
from halign_bench.sampling import initial_noise, sample
from halign_bench.training import TrainingSpec, train

# One step of each; numbers that only say how much.
METHODS = [
    name if name != "flow-grpo" else "flow-grpo[prompts=1,group=2,steps=2,updates=1]"
    for name in ("base", "sft", "diffusion-dpo", "tpo", "ipa", "tmm", "kto", "mapo", "rwr", "sdpo", "flow-grpo")
]


@pytest.mark.parametrize("name", tiny_models.MODELS)
def test_it_keeps_the_contract_of_a_backbone(published, name):
    choice = tiny_models.choice(published.folder(name), published.folder("wav2vec2"))
    checks = check_class("backbone", registry.get("backbone", tiny_models.BACKBONE[name]), choice)
    failed = [check for check in checks if check.status == "failed" and check.name != "decodes to video"]
    assert not failed, failed
    # A random codec need not give a clip back; that it decodes to the right kind of array is asked all the same.
    (decoding,) = (check for check in checks if check.name == "decodes to video")
    assert decoding.status == "passed" or "no nearer to itself" in decoding.detail, decoding


def test_all_methods_are_in_the_list():
    assert sorted(name.partition("[")[0] for name in METHODS) == registry.names("method")


@pytest.mark.parametrize("name", tiny_models.MODELS)
def test_every_method_trains_a_step_and_its_saved_adapters_give_the_same_sample(published, name, tmp_path):
    backbone = published.load(name)
    track = TinyTrack(frames=backbone.frames, size=backbone.size, prompts=4)
    spec = PreferenceSpec(prompts=4, candidates=2, nfe=1, shift=backbone.shift)
    data = collect(backbone, track, spec, tmp_path / "cache")
    clip = replace(track.clip("eval", 0), prompt="a person talks")
    noise, condition = initial_noise(backbone, [clip.id], 0), backbone.condition([clip])
    training = TrainingSpec(samples=2, batch_size=2, rank=2, lr=0.1, warmup=1)

    def sampled(method):
        return sample(backbone, condition, noise, nfe=4, guidance=backbone.guidance, active=method.active_adapters)

    base = sample(backbone, condition, noise, nfe=4, guidance=backbone.guidance)
    for text in METHODS:
        method = variant_named(text).parts[0].method
        work = tmp_path / method.name
        result = train(method, backbone, data, training, 0, work)
        assert result.status == "done", (text, result.error)
        trained = sampled(method)
        assert torch.equal(trained, base) == (method.name == "base"), text
        remove_adapters(backbone.denoiser)
        assert torch.equal(sample(backbone, condition, noise, nfe=4, guidance=backbone.guidance), base), text
        assert train(method, backbone, data, training, 0, work) == result, text  # only loads what is there
        assert torch.equal(sampled(method), trained), text


def test_slots_hold_the_reference_and_are_neither_video_nor_hand(published):
    backbone, clip = published.load("wan-vace"), tiny_models.clip(0)
    latents = backbone.encode_clips([clip])
    assert latents.shape[1:] == backbone.latent_shape() == (4, 1 + 3, 4, 4)
    image = backbone.codec.encode(backbone.pixels(clip.reference[None, None]))
    torch.testing.assert_close(latents[:, :, :1], image)
    torch.testing.assert_close(latents[:, :, 1:], backbone.codec.encode(backbone.pixels(clip.video[None])))
    assert backbone.decode(latents).shape == (1, *clip.video.shape)
    mask = hand_mask(clip, backbone.latent_shape(), backbone.slots)
    assert mask.shape == (1, 4, 4, 4) and not mask[:, 0].any() and mask[:, 1:].any()
    torch.testing.assert_close(mask[:, 1:], hand_mask(clip, (4, 3, 4, 4)))


def test_what_a_clip_lacks_is_absent_and_guidance_silences_prompt_and_sound(published):
    backbone, clip = published.load("wan-animate"), tiny_models.clip(0)
    whole, bare = (
        backbone.condition([one]) for one in (clip, replace(clip, audio=None, skeleton=None, layout=None, prompt=""))
    )
    for name in ("audio", "skeleton_frames", "face"):
        assert whole[name].any() and not bare[name].any(), name
    without = backbone.unconditional(whole)
    torch.testing.assert_close(without["text"], bare["text"])
    assert not without["audio"].any() and not without["face"].any() and without["skeleton"] is whole["skeleton"]


def test_wav2vec_features_are_its_layers_at_the_frame_rate(published):
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

    from halign_bench.wav2vec2 import Wav2Vec2

    folder, audio = published.folder("wav2vec2"), tiny_models.clip(0).audio
    ears = Wav2Vec2(str(folder))
    assert ears(audio, 9).shape == (9, ears.width) and ears.width == 3 * 16
    # At its own rate nothing is interpolated, and the features are transformers' hidden states.
    net = Wav2Vec2Model.from_pretrained(folder).eval()
    values = Wav2Vec2FeatureExtractor.from_pretrained(folder)(audio, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        states = net(**values, output_hidden_states=True).hidden_states[1:]
    torch.testing.assert_close(ears(audio, states[0].shape[1]), torch.cat(states, dim=-1)[0], rtol=1e-4, atol=1e-4)


def test_the_command_runs_on_a_published_model_and_what_it_saves_loads_in_its_pipeline(published, tmp_path, capsys):
    import run_tiny  # its track and its profile

    from halign_bench.cli import main

    folder, out = published.folder("wan"), tmp_path / "run"
    request = [
        "run", "--methods", "sft", "--track", run_tiny.ScoredTrack.name, "--backbone", "wan", "--model", str(folder),
        "--frames", "9", "--size", "32x32", "--profile", "tiny", "--nfe", "2", "--out", str(out), "--device", "cpu",
    ]  # fmt: skip
    assert main(request) == 0, capsys.readouterr().err
    record = json.loads((out / "records" / "sft-s0.json").read_text())
    assert record["status"] == "done" and record["protocol"]["backbone"]["frames"] == 9
    assert record["protocol"]["preferences"]["shift"] == 3.0 and "shifted by 3" in json.dumps(record["protocol"])
    backbone = published.load("wan")
    adapters = (out / "records" / record["files"]["adapters"] / "0-sft" / "adapters" / "sft").resolve()
    backbone.pipeline.load_lora_weights(str(adapters))
    assert backbone.pipeline.get_list_adapters()["transformer"] == ["default_0"]


# What is wrong with a request, in a sentence.


def refusal(folder, name="wan", **more):
    with pytest.raises(RequestError) as caught:
        ModelChoice(None if folder is None else str(folder), **more).load(registry.get("backbone", name), "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published.folder("wan"), tmp_path / "wan")


def test_no_model_no_folder_and_no_pipeline_are_said(tmp_path, copy):
    assert "wan has no weights of its own: say which with --model FOLDER" in refusal(None)
    assert "no such folder" in refusal(tmp_path / "nothing")
    (copy / "model_index.json").unlink()
    assert "no model_index.json there" in refusal(copy)


def test_a_hub_id_without_network_is_said(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "neither a folder here nor to be had from the hub" in refusal("nobody/no-such-model")


def test_another_model_is_said(published, copy):
    assert "is a WanPipeline, backbone svd needs a StableVideoDiffusionPipeline" in refusal(copy, "svd")
    scheduler = copy / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "prediction_type": "epsilon"}))
    assert "predicts epsilon, this backbone's predicts flow_prediction" in refusal(copy)


@pytest.mark.parametrize(("change", "said"), [
    (lambda weights: weights.pop("proj_out.weight"), "1 weights of its transformer are in none of its files"),
    (lambda weights: weights.update({"proj_out.weight": torch.zeros(3, 24)}), "cannot be read as a WanPipeline"),
])  # fmt: skip
def test_missing_and_misshapen_weights_are_said(copy, change, said):
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})
    assert said in refusal(copy)


def test_damaged_files_and_missing_shards_are_said(copy):
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert "vae/diffusion_pytorch_model.safetensors is damaged" in refusal(copy)
    index = copy / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    shard = "diffusion_pytorch_model-00002-of-00002.safetensors"
    index.write_text(json.dumps({"weight_map": {"proj_out.weight": shard}}))
    assert f"the shard transformer/{shard} is missing" in refusal(copy)


def test_half_precision_files_are_read_as_fp32_on_a_processor(published, copy):
    for file in copy.glob("*/*.safetensors"):
        halves = {name: value.half() if value.is_floating_point() else value for name, value in load_file(file).items()}
        save_file(halves, file, metadata={"format": "pt"})
    backbone = ModelChoice(str(copy), None, tiny_models.FRAMES, tiny_models.SIZE).load(
        registry.get("backbone", "wan"), "cpu"
    )
    assert {p.dtype for p in backbone.denoiser.parameters()} == {torch.float32}
    assert backbone.base_sha256 != published.load("wan").base_sha256


def test_clips_that_a_model_cannot_take_are_said(published):
    wan, cogvideox = published.folder("wan"), published.folder("cogvideox")
    assert "--size 40x32: wan takes multiples of 16" in refusal(wan, frames=9, size=(32, 40))
    assert "takes 1 + 8n frames" in refusal(cogvideox, "cogvideox", frames=13, size=(32, 32))
    learned = refusal(published.folder("cogvideox-i2v"), "cogvideox", frames=17, size=(32, 32))
    assert "has learned positions of 9 frames of 32x32" in learned
    assert "--frames: backbone puppet-dit does not leave that open" in refusal(None, "puppet-dit", frames=9)


def test_published_sizes_are_the_models_own(published):
    backbone = registry.get("backbone", "wan").load(published.folder("wan"))
    assert (backbone.frames, backbone.size, backbone.shift) == (81, (480, 832), 3.0)
