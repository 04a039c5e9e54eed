"""What docs/models.md says works, word for word: adapters that a run saved give the same samples in plain diffusers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny_models
import torch
from PIL import Image
from test_pipelines import STEPS, flow_scheduler, theirs
from tiny import TinyTrack

from halign_bench.adapters import attach_lora, save_adapters
from halign_bench.at_home import from_pretrained
from halign_bench.errors import RequestError
from halign_bench.plan import variant_named
from halign_bench.preferences import PreferenceSpec, collect
from halign_bench.sampling import derived_seed, initial_noise, sample
from halign_bench.training import TrainingSpec, train

DOCS = Path(__file__).resolve().parent.parent / "docs"
FRAMES, SIZE = tiny_models.FRAMES, tiny_models.SIZE
HUB = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": "wan", "stabilityai/stable-video-diffusion-img2vid-xt": "svd",
    "facebook/wav2vec2-base-960h": "wav2vec2",
}  # fmt: skip
CLIP = tiny_models.clip(1)  # whose prompt is "a person talks"


def block(word):
    """The one piece of Python in the document with this word in it."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "models.md").read_text(), re.DOTALL)
    (found,) = (code for code in blocks if word in code)
    return found


def run_block(word, published, adapters, **names):
    code = block(word).replace('"adapters/', f'"{adapters}/').replace('f"adapters/', f'f"{adapters}/')
    for name, model in HUB.items():
        code = code.replace(name, str(published.folder(model)))
    exec(code, names)
    return names["video"]


@pytest.fixture
def even(monkeypatch):
    """Wan's pipeline loads with the harness's even grid."""
    from diffusers import WanPipeline

    load = WanPipeline.from_pretrained

    def loaded(*given, **more):
        pipe = load(*given, **more)
        pipe.scheduler = flow_scheduler(3.0)
        return pipe

    monkeypatch.setattr(WanPipeline, "from_pretrained", loaded)


def options(noise, guidance):
    return {
        "height": SIZE[0], "width": SIZE[1], "num_frames": FRAMES, "num_inference_steps": STEPS, "latents": noise,
        "guidance_scale": guidance, "output_type": "latent",
    }  # fmt: skip


def lora(backbone, name, seed):
    for number, parameter in enumerate(attach_lora(backbone.denoiser, name, backbone.lora_targets, 2, 4.0, seed)):
        generator = torch.Generator().manual_seed(seed + number)
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def changed(backbone, condition, noise, ours, guidance):
    base = sample(backbone, condition, noise, nfe=STEPS * (1 if guidance == 1 else 2), guidance=guidance)
    return float((ours - base).abs().max()) > 1e-2


@pytest.mark.parametrize("name", ["wan", "wan-i2v-clip", "wan-vace", "wan-animate", "animatediff", "cogvideox"])
def test_saved_loras_load_in_the_pipeline_and_give_the_same_sample(published, name, tmp_path):
    backbone, plain = published.load(name), published.load(name)
    lora(backbone, "mine", 1)
    save_adapters(backbone.denoiser, ["mine"], tmp_path / "adapters", backbone.component)
    noise, condition = initial_noise(backbone, [CLIP.id], 0), backbone.condition([CLIP])
    ours = sample(backbone, condition, noise, nfe=STEPS, active=lambda t: ["mine"])
    plain.pipeline.load_lora_weights(str(tmp_path / "adapters" / "mine"))
    torch.testing.assert_close(theirs(plain, CLIP, noise, 1.0).float(), ours, rtol=1e-5, atol=1e-5)
    assert changed(backbone, condition, noise, ours, 1.0)


def test_a_networks_own_loader_takes_them_too(published, tmp_path):
    backbone, plain = published.load("wan"), published.load("wan")
    lora(backbone, "mine", 1)
    save_adapters(backbone.denoiser, ["mine"], tmp_path / "adapters", backbone.component)
    noise, condition = initial_noise(backbone, [CLIP.id], 0), backbone.condition([CLIP])
    plain.denoiser.load_lora_adapter(str(tmp_path / "adapters" / "mine"), use_safetensors=True)
    t = torch.full((1,), 0.6)
    with torch.no_grad(), backbone.adapters(["mine"]):
        torch.testing.assert_close(plain.predict(noise, t, condition), backbone.predict(noise, t, condition))


def test_the_snippets_for_a_lora_and_for_the_two_experts_sample_as_the_harness_does(published, even, tmp_path):
    backbone = published.load("wan")
    for number, name in enumerate(("diffusion-dpo", "tpo-motion", "tpo-fidelity")):
        lora(backbone, name, 10 * number)
    save_adapters(backbone.denoiser, ["diffusion-dpo", "tpo-motion", "tpo-fidelity"], tmp_path / "adapters")
    noise, condition = initial_noise(backbone, [CLIP.id], 0), backbone.condition([CLIP])
    for word, text in (("diffusion-dpo", "diffusion-dpo"), ("next_expert", "tpo")):
        active = variant_named(text).active_adapters
        ours = sample(backbone, condition, noise, nfe=2 * STEPS, guidance=3.0, active=active)
        code = "adapters/diffusion-dpo\")" if word == "diffusion-dpo" else word
        made = run_block(code, published, tmp_path / "adapters", options=options(noise, 3.0))
        torch.testing.assert_close(made.float(), ours, rtol=1e-5, atol=1e-5)
        assert changed(backbone, condition, noise, ours, 3.0)


@pytest.mark.parametrize("name", ["cogvideox", "animatediff"])
def test_experts_change_in_pipelines_that_count_from_0_as_the_document_says(published, name, tmp_path):
    backbone, plain = published.load(name), published.load(name)
    for number, expert in enumerate(("tpo-motion", "tpo-fidelity")):
        lora(backbone, expert, 10 * number)
        save_adapters(backbone.denoiser, [expert], tmp_path / expert, backbone.component)
        plain.pipeline.load_lora_weights(str(tmp_path / expert / expert), adapter_name=expert)
    wan, counted = "following[0] / pipe.scheduler.config.num_train_timesteps", "(following[0] + 1) / 1000"
    assert counted in (DOCS / "models.md").read_text()
    (code,) = re.findall(r"def next_expert.*?return tensors\n", block("next_expert").replace(wan, counted), re.DOTALL)
    exec(code, names := {})
    noise, condition = initial_noise(backbone, [CLIP.id], 0), backbone.condition([CLIP])
    ours = sample(backbone, condition, noise, nfe=2 * STEPS, guidance=3.0, active=variant_named("tpo").active_adapters)
    plain.pipeline.set_adapters("tpo-motion")
    made = theirs(plain, CLIP, noise, 3.0, callback_on_step_end=names["next_expert"])
    scale = float(ours.abs().max())
    torch.testing.assert_close(made.float() / scale, ours / scale, rtol=1e-5, atol=1e-5)
    plain.pipeline.set_adapters("tpo-motion")
    assert float((theirs(plain, CLIP, noise, 3.0) - ours).abs().max()) > 1e-3 * scale  # without the change


def test_the_snippet_for_svd_samples_as_the_harness_does(published, tmp_path):
    backbone = published.load("svd")
    lora(backbone, "diffusion-dpo", 1)
    save_adapters(backbone.denoiser, ["diffusion-dpo"], tmp_path / "adapters", backbone.component)
    noise, condition = initial_noise(backbone, [CLIP.id], 0), backbone.condition([CLIP])
    ours = sample(backbone, condition, noise, nfe=STEPS, active=lambda t: ["diffusion-dpo"])
    given = {
        "num_frames": FRAMES, "fps": 25, "max_guidance_scale": 1.0, "output_type": "latent", "height": SIZE[0],
        "width": SIZE[1], "latents": noise.transpose(1, 2).clone(),
        "sigmas": backbone.levels.edm_sigma(torch.linspace(1, 0, STEPS + 1)).tolist(),
        "generator": torch.Generator().manual_seed(derived_seed("noise augmentation", CLIP.id)),
    }  # fmt: skip
    image = Image.fromarray(CLIP.reference)
    made = run_block("StableVideo", published, tmp_path / "adapters", image=image, options=given).transpose(1, 2)
    torch.testing.assert_close(made.float(), ours, rtol=1e-4, atol=1e-5)  # its sigmas go up to 700
    assert changed(backbone, condition, noise, ours, 1.0)


def trained_tmm(backbone, tmp_path):
    """Adapters of a TMM that was trained a step and then moved far enough to be heard."""
    track = TinyTrack(frames=FRAMES, size=SIZE, prompts=4)
    data = collect(backbone, track, PreferenceSpec(prompts=4, candidates=2, nfe=1), tmp_path / "cache")
    method = variant_named("tmm").parts[0].method
    spec = TrainingSpec(samples=2, batch_size=2, rank=2)
    return method, train(method, backbone, data, spec, 0, tmp_path / "work").adapters_dir


def test_the_snippet_for_tmm_samples_as_the_harness_does_with_guidance(published, even, tmp_path):
    backbone = published.load("wan")
    _, adapters = trained_tmm(backbone, tmp_path)
    noise, condition = initial_noise(backbone, [CLIP.id], 0), backbone.condition([CLIP])
    ours = sample(backbone, condition, noise, nfe=2 * STEPS, guidance=3.0, active=lambda t: ["tmm-audio"])
    made = run_block(
        "at_home", published, adapters, sound=CLIP.audio, frames=FRAMES, options=options(noise, 3.0)
    )  # fmt: skip
    torch.testing.assert_close(made.float(), ours, rtol=1e-5, atol=1e-5)
    base = sample(backbone, condition, noise, nfe=2 * STEPS, guidance=3.0)
    assert float((ours - base).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["cogvideox", pytest.param("animatediff", marks=pytest.mark.slow), "wan-vace"])
def test_tmms_modules_work_in_other_pipelines_too(published, name, tmp_path):
    backbone, plain = published.load(name), published.load(name)
    _, adapters = trained_tmm(backbone, tmp_path)
    noise, condition = initial_noise(backbone, [CLIP.id], 0), backbone.condition([CLIP])
    names = ("tmm-audio", "tmm-skeleton")
    audio, skeleton = (from_pretrained(adapters / adapter, plain.denoiser) for adapter in names)
    heard, seen = ({key: condition[key]} for key in ("audio", "skeleton_frames"))

    def ours(*active):
        return sample(backbone, condition, noise, nfe=2 * STEPS, guidance=3.0, active=lambda t: active)

    scale = float(ours().abs().max())
    with skeleton.at_work(seen):
        alone = theirs(plain, CLIP, noise, 3.0).float() / scale
        with audio.at_work(heard):
            both = theirs(plain, CLIP, noise, 3.0).float() / scale
    torch.testing.assert_close(alone, ours("tmm-skeleton") / scale, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(both, ours(*names) / scale, rtol=1e-5, atol=1e-5)
    for first, second in ((both, alone), (alone, ours() / scale)):
        assert float((first - second).abs().max()) > 1e-4


def test_a_module_for_another_network_and_an_empty_folder_are_refused(published, tmp_path):
    backbone = published.load("wan")
    _, adapters = trained_tmm(backbone, tmp_path)
    with pytest.raises(RequestError, match="belong to another network"):
        other = published.load("wan").denoiser
        del other.blocks[1]
        from_pretrained(adapters / "tmm-audio", other)
    with pytest.raises(RequestError, match="no module of a method's own"):
        from_pretrained(tmp_path, backbone.denoiser)
