"""Backbones of published models: their contract, and every method on every one of them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
import torch
from tiny import TinyTrack

from halign_bench import registry
from halign_bench.adapters import remove_adapters
from halign_bench.backbones import _pipelines
from halign_bench.conformance import check_class
from halign_bench.errors import RequestError
from halign_bench.masks import hand_mask
from halign_bench.plan import variant_named
from halign_bench.preferences import PreferenceSpec, collect
from halign_bench.sampling import initial_noise, sample
from halign_bench.training import TrainingSpec, train

ROOT = Path(__file__).resolve().parents[1]
# One step of each; numbers that only say how much. Two criteria could cancel in a group of two.
METHODS = [
    name if name != "flow-grpo" else "flow-grpo[prompts=1,group=2,steps=2,updates=1,criterion=motion]"
    for name in ("base", "sft", "diffusion-dpo", "tpo", "ipa", "tmm", "kto", "mapo", "rwr", "sdpo", "flow-grpo")
]


QUICK = ("wan", "wan-animate", "svd", "cogvideox")  # a transformer with slots and without, a UNet, one joint attention


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
    ours = {path.stem.replace("_", "-") for path in (ROOT / "methods").glob("[!_]*.py")}  # other tests register more
    assert {name.partition("[")[0] for name in METHODS} == ours <= set(registry.names("method"))


@pytest.mark.parametrize("name", [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in tiny_models.MODELS
])  # fmt: skip
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
        if method.name == "tmm" and not backbone.blocks():
            with pytest.raises(RequestError, match="goes into the blocks of a network, and cogvideox states none"):
                train(method, backbone, data, training, 0, work)
            continue
        result = train(method, backbone, data, training, 0, work)
        assert result.status == "done", (text, result.error)
        trained = sampled(method)
        assert torch.equal(trained, base) == (method.name == "base"), text
        remove_adapters(backbone.denoiser)
        assert train(method, backbone, data, training, 0, work) == result, text  # only loads what is there
        assert torch.equal(sampled(method), trained), text
        remove_adapters(backbone.denoiser)
    assert torch.equal(sample(backbone, condition, noise, nfe=4, guidance=backbone.guidance), base)


@pytest.mark.parametrize("name", tiny_models.MODELS)
def test_in_half_precision_as_on_a_gpu_it_samples_and_trains_alike(published, name, tmp_path):
    cls, folder = registry.get("backbone", tiny_models.BACKBONE[name]), published.folder(name)
    pipeline = _pipelines.load(folder, _pipelines.read_index(folder), torch.bfloat16, "cpu")
    half, full = cls(pipeline, "0" * 64, "cpu", tiny_models.FRAMES, tiny_models.SIZE), published.load(name)
    half.precision = "bf16"
    assert half.denoiser.dtype == torch.bfloat16 and half.pipeline.vae.dtype == torch.float32
    clip = tiny_models.clip(1)
    noise = initial_noise(half, [clip.id], 0)
    made, expected = (sample(backbone, backbone.condition([clip]), noise, nfe=4) for backbone in (half, full))
    assert 0 < float((made - expected).std() / expected.std()) < 0.05
    if name in QUICK:
        track = TinyTrack(frames=half.frames, size=half.size, prompts=4)
        spec = PreferenceSpec(prompts=4, candidates=2, nfe=1, shift=half.shift)
        data = collect(half, track, spec, tmp_path / "cache")
        method = variant_named("diffusion-dpo").parts[0].method
        assert train(method, half, data, TrainingSpec(samples=2, batch_size=2, rank=2), 0, tmp_path).status == "done"


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

    page = tmp_path / "report"
    assert main(["report", str(out), "--out", str(page), "--model", str(folder), "--clips", "2"]) == 0
    assert {path.stem for path in page.rglob("*.mp4")} >= {"real"} and len(list(page.rglob("*.mp4"))) == 2 * 3
    other = published.folder("wan-vace")
    assert main(["report", str(out), "--out", str(page), "--model", str(other)]) == 2
    grid = ["figures", str(out), "--only", "samples", "--format", "png", "--out", str(tmp_path / "figures")]
    assert main([*grid, "--model", str(folder)]) == 0 and (tmp_path / "figures" / "samples.png").exists()
    lines = list(csv.DictReader((tmp_path / "figures" / "samples.csv").open()))
    assert [line["method"] for line in lines] == ["real clip"] * 5 + ["base"] * 5 + ["sft"] * 5
    assert [line["frame"] for line in lines[:5]] == ["0", "2", "4", "6", "8"] and float(lines[-1]["psnr"]) > 0
    assert main(grid) == 2 and "--model" in capsys.readouterr().err  # nothing else was asked for
    session = tmp_path / "session"
    sample = ["prefs", "sample", "--out", str(session), "--prompts", "2", "--nfe", "2", "--device", "cpu"]
    assert main([*sample, *request[3:13]]) == 0 and len(list(session.rglob("*.mp4"))) == 4, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("as_videos", [False, True])
def test_people_label_candidates_of_a_published_model_and_methods_learn_from_them(published, tmp_path, as_videos):
    import run_tiny
    from test_prefs_run import judge

    from halign_bench.cli import main

    session, labels, out = tmp_path / "session", tmp_path / "labels.jsonl", tmp_path / "run"
    model = [
        "--track", run_tiny.ScoredTrack.name, "--backbone", "wan-vace", "--model", str(published.folder("wan-vace")),
        "--frames", "9", "--size", "32x32", "--device", "cpu",
    ]  # fmt: skip
    assert main(["prefs", "sample", "--out", str(session), *model, "--prompts", "8", "--nfe", "2"]) == 0
    judge(session, "kim")
    assert main(["prefs", "export", str(session), "--out", str(labels), *(["--videos"] if as_videos else [])]) == 0
    numbers = ["--profile", "tiny", "--nfe", "2", "--out", str(out), "--preferences", str(labels)]
    assert main(["run", "--methods", "diffusion-dpo", *model, *numbers]) == 0
    assert json.loads((out / "records" / "diffusion-dpo-s0.json").read_text())["status"] == "done"
    assert json.loads((session / "session.json").read_text())["sources"]["spec"]["shift"] == 3.0


def test_published_sizes_are_the_models_own(published):
    backbone = registry.get("backbone", "wan").load(published.folder("wan"))
    assert (backbone.frames, backbone.size, backbone.shift) == (81, (480, 832), 3.0)
