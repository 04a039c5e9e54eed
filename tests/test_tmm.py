"""TMM: folding, both paths against numpy, stages, what stays on below, and a UNet that knows nothing of it."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses import gradient, loss_of, mean_squares, nudge, random_clips, residuals
from scipy.stats import norm
from test_training import DPO, SPEC, log_of, preferences, weights
from tiny import TinyBackbone, TinyTrack

from halign_bench.adapters import active_adapters, adapter_parameters, attach, attached
from halign_bench.backbones.puppet_dit import PuppetDiT
from halign_bench.conformance import check_class
from halign_bench.errors import Interrupted, RequestError
from halign_bench.inserts import Block, attach_insert, running
from halign_bench.plan import RunRequest, plan, variant_named
from halign_bench.registry import get
from halign_bench.sampling import initial_noise, sample
from halign_bench.skeleton import draw_skeleton
from halign_bench.tracks.puppet import PuppetTrack
from halign_bench.training import train

TMM = get("method", "tmm")
tmm_file = importlib.import_module(TMM.__module__)
FOLDS = ("4", "2", "none")


def tmm(**config):
    return TMM(TMM.Config(**config))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return preferences(tmp_path_factory.mktemp("cache"))


# Folding


@given(n=st.integers(0, 12), places=st.sampled_from([1, 2, 4]))
def test_folding_puts_each_frame_where_the_formula_says(n, places):
    frames = torch.arange(1 + 4 * n)
    folded = tmm_file.fold(frames[None, :, None], places)
    assert folded.shape == (1, 1 + n, places, 1)
    assert folded[0, 0, :, 0].tolist() == [0] * places  # the first frame fills its group
    for k in range(n):  # frames 4k+1 to 4k+4 share latent frame k+1
        for j in range(1, 5):
            frame, step = 4 * k + j, 4 // places
            where = (folded[0, :, :, 0] == frame).nonzero().tolist()
            assert where == ([[k + 1, j // step - 1]] if j % step == 0 else [])


def test_other_numbers_of_frames_are_no_groups():
    with pytest.raises(ValueError, match="16 frames are not 1 \\+ 4n"):
        tmm_file.fold(torch.zeros(1, 16, 1), 4)


@given(frames=st.integers(1, 9), reach=st.integers(0, 3))
def test_windows_are_each_frame_with_its_neighbours_the_ends_repeated(frames, reach):
    found = tmm_file.windows(torch.arange(frames)[None, :, None], reach)
    wanted = [[min(max(t + j, 0), frames - 1) for j in range(-reach, reach + 1)] for t in range(frames)]
    assert found[0].tolist() == wanted


# Both paths against numpy, in double precision


def layer_norm(x, layer, eps=1e-5):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return x * layer["weight"] + layer["bias"]


def linear(x, layer):
    return x @ layer["weight"].reshape(len(layer["weight"]), -1).T + layer["bias"]


def attention(own, queries, context, heads):
    """`[N, D]`, `[M, C]`, one head after the other."""

    def rms(x, layer):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * layer["weight"]

    q, k = rms(linear(queries, own["q"]), own["norm_q"]), rms(linear(context, own["k"]), own["norm_k"])
    v, size = linear(context, own["v"]), q.shape[-1] // heads
    mixed = []
    for h in (slice(i * size, (i + 1) * size) for i in range(heads)):
        scores = np.exp(q[:, h] @ k[:, h].T / math.sqrt(size))
        mixed.append(scores / scores.sum(-1, keepdims=True) @ v[:, h])
    return linear(np.concatenate(mixed, axis=-1), own["o"])


def tree(module):
    """Weights in nested dictionaries of numpy arrays, by name."""
    found: dict = {}
    for key, value in module.state_dict().items():
        *path, last = key.split(".")
        place = found
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value.numpy()
    return found


def moved(layers):
    generator = torch.Generator().manual_seed(5)
    for parameter in layers.parameters():
        parameter.data = parameter.data.double() + 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return layers.requires_grad_(False).double()


class Doubles(dict):
    """A condition whose tensors stay in double precision through `.float()`."""

    def __getitem__(self, name):
        return super().__getitem__(name).as_subclass(Double)


class Double(torch.Tensor):
    def float(self):
        return self


IDLE = torch.nn.Identity()


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("order", [True, False])
def test_video_attends_to_the_folded_sound_of_its_latent_frame(fold, order):
    blocks = [Block(IDLE, IDLE, IDLE, width=16, heads=2)]
    method = tmm(fold=fold, order=order, hidden=5, tokens=3, reach=1)
    audio, video = torch.randn(2, 9, 4).double(), torch.randn(2, 3, 6, 16).double()
    layers = moved(method.audio_layers(blocks, {"audio": audio}))
    found = method.hear(layers, blocks, Doubles(audio=audio)).to_stream(0, video).numpy()

    weights, step = tree(layers), 4 // method.places
    for b, k in np.ndindex(2, 3):
        heard = []
        for j in range(method.places):
            frame = 0 if k == 0 else 4 * (k - 1) + step * (j + 1)
            sound = np.concatenate([audio[b, min(max(frame + i, 0), 8)] for i in (-1, 0, 1)])
            project = weights["project"]
            hidden = np.maximum(linear(np.maximum(linear(sound, project["0"]), 0), project["2"]), 0)
            tokens = layer_norm(linear(hidden, project["4"]).reshape(3, 16), project["6"])
            heard.append(tokens + (weights["place"]["weight"][step * (j + 1) - 1] if order else 0))
        own = weights["blocks"]["0"]
        wanted = attention(own, layer_norm(video[b, k].numpy(), own["norm"]), np.concatenate(heard), 2)
        np.testing.assert_allclose(found[b, k], wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fold", FOLDS)
def test_the_folded_skeleton_attends_to_the_video_of_its_latent_frame(fold):
    """In two blocks, the second on a grid half as fine, as a UNet has them."""
    blocks = [Block(IDLE, IDLE, IDLE, 16, 2, stride=2), Block(IDLE, IDLE, IDLE, 8, 4, stride=4)]
    method = tmm(fold=fold)
    frames = torch.randn(2, 5, 3, 8, 4).double()
    videos = [torch.randn(2, 2, 8, 16).double(), torch.randn(2, 2, 2, 8).double()]
    layers = moved(method.skeleton_layers(blocks, {"skeleton_frames": frames}))
    additions = method.follow(layers, blocks, Doubles(skeleton_frames=frames))

    weights, step = tree(layers), 4 // method.places
    for b, k in np.ndindex(2, 2):
        channels = []
        for j in range(method.places):
            frame = 0 if k == 0 else 4 * (k - 1) + step * (j + 1)
            patches = frames[b, frame].numpy().reshape(3, 4, 2, 2, 2).transpose(1, 3, 0, 2, 4).reshape(4, 2, 12)
            channels.append(layer_norm(linear(patches, weights["project"]), weights["norm"]))
        fine = np.concatenate(channels, axis=-1)  # [4, 2, 16]
        coarse = fine.reshape(2, 2, 1, 2, 16).mean((1, 3))  # [2, 1, 16]
        for number, (grid, heads) in enumerate(((fine, 2), (coarse, 4))):
            own = weights["blocks"][str(number)]
            video = layer_norm(videos[number][b, k].numpy(), own["norm"])
            wanted = attention(own, grid.reshape(-1, 16), video, heads)
            found = additions.to_feed_forward(number, videos[number])[b, k]
            np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-9)


def heard_by(method, audio):
    """`[T, frames]`: which video frames' sound reaches what a latent frame's tokens are given."""
    blocks = [Block(IDLE, IDLE, IDLE, width=8, heads=1)]
    layers = moved(method.audio_layers(blocks, {"audio": audio})).float()
    video = torch.randn(1, 1 + (audio.shape[1] - 1) // 4, 2, 8)
    audio = audio.requires_grad_(True)
    out = method.hear(layers, blocks, {"audio": audio}).to_stream(0, video)
    rows = [torch.autograd.grad(out[:, k].sum(), audio, retain_graph=True)[0] for k in range(out.shape[1])]
    return torch.stack(rows)[:, 0].abs().sum(-1) > 0


@pytest.mark.parametrize(
    ("fold", "reach", "wanted"),
    [("4", 0, {1, 2, 3, 4}), ("2", 0, {2, 4}), ("none", 0, {4}), ("none", 2, {2, 3, 4, 5, 6})],
)
def test_each_latent_frame_hears_its_own_group(fold, reach, wanted):
    found = heard_by(tmm(fold=fold, reach=reach, hidden=64), torch.randn(1, 9, 3))
    assert set(found[1].nonzero()[:, 0].tolist()) == wanted


def test_order_within_a_group_is_heard_only_with_places():
    blocks = [Block(IDLE, IDLE, IDLE, width=8, heads=1)]
    audio, video = torch.randn(1, 5, 3), torch.randn(1, 2, 2, 8)
    for order in (True, False):
        method = tmm(order=order, reach=0)
        layers = moved(method.audio_layers(blocks, {"audio": audio})).float()
        backwards = audio[:, [0, 4, 3, 2, 1]]
        first, second = (method.hear(layers, blocks, {"audio": x}).to_stream(0, video) for x in (audio, backwards))
        assert torch.allclose(first, second, atol=1e-6) != order


# On the backbones


def tensors_of(backbone, clips, seed=0):
    condition = backbone.condition(clips)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(clips), *backbone.latent_shape(), generator=generator), torch.tensor([0.3, 0.8]), condition


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_before_training_the_base_is_as_it_was(fold, precision):
    backbone = PuppetDiT.load()
    backbone.precision = precision
    x_t, t, condition = tensors_of(backbone, [PuppetTrack().clip("eval", i) for i in range(2)])
    with torch.no_grad():
        base = backbone.denoise(x_t, t, condition)
        for stage in tmm(fold=fold).stages():
            attach(backbone, stage, condition, 4, 4, 0)
        with backbone.adapters(["tmm-audio", "tmm-skeleton"]):
            torch.testing.assert_close(backbone.denoise(x_t, t, condition), base, rtol=0, atol=1e-6)
            for name in attached(backbone.denoiser):
                for parameter in adapter_parameters(backbone.denoiser, name).values():
                    parameter += 0.02
            assert not torch.allclose(backbone.denoise(x_t, t, condition), base, atol=1e-3)
        assert torch.equal(backbone.denoise(x_t, t, condition), base)


def test_the_frame_that_the_base_does_not_hear_is_heard():
    backbone = PuppetDiT.load()
    x_t, t, condition = tensors_of(backbone, [PuppetTrack().clip("eval", i) for i in range(2)])
    attach(backbone, tmm().stages()[0], condition, 4, 4, 0)
    nudge(backbone, 0.05)
    other = {**condition, "audio": condition["audio"].clone()}
    other["audio"][:, 6] = 1 - other["audio"][:, 6]  # 4k - 2
    with torch.no_grad():
        assert torch.equal(backbone.denoise(x_t, t, condition), backbone.denoise(x_t, t, other))
        with backbone.adapters(["tmm-audio"]):
            assert not torch.allclose(backbone.denoise(x_t, t, condition), backbone.denoise(x_t, t, other), atol=1e-4)


def test_skeletons_of_single_frames_are_each_frame_encoded_alone_and_nothing_where_there_is_none():
    backbone, clip = PuppetDiT.load(), PuppetTrack().clip("eval", 0)
    condition = backbone.condition([replace(clip, skeleton=None), clip])
    frames = condition["skeleton_frames"]
    assert frames.shape == (2, 17, 160, 8, 8) and not frames[0].any()
    drawn = draw_skeleton(clip.skeleton, clip.layout, (64, 64))
    alone = backbone.encode(drawn[None, 9:10])
    torch.testing.assert_close(frames[1, 9].float(), alone[0, :, 0], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(frames[1, 0].float(), condition["skeleton"][1, :, 0], rtol=2e-3, atol=2e-3)
    assert torch.equal(backbone.unconditional(condition)["skeleton_frames"], frames)


def test_all_folds_have_as_many_parameters_for_sound_and_nearly_for_the_skeleton():
    backbone = PuppetDiT.load()
    _, _, condition = tensors_of(backbone, [PuppetTrack().clip("eval", i) for i in range(2)])
    audio, skeleton = (
        [sum(p.numel() for p in getattr(tmm(fold=f), layers)(backbone.blocks(), condition).parameters()) for f in FOLDS]
        for layers in ("audio_layers", "skeleton_layers")
    )
    assert len(set(audio)) == 1
    assert max(skeleton) < 1.05 * min(skeleton)


class Watched(TinyBackbone):
    """Keeps every condition that the network was shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def predict(self, x_t, t, condition):
        self.shown.append(condition)
        return super().predict(x_t, t, condition)


def test_guidance_s_second_branch_has_no_audio_and_keeps_the_skeleton(data):
    """In what the module hears too: there it is as if the clip had no sound."""
    backbone, track = Watched(), TinyTrack()
    clips = [track.clip("prompts", i) for i in range(2)]
    condition = backbone.condition(clips)
    for stage in tmm().stages():
        attach(backbone, stage, condition, 4, 4, 0)
        nudge(backbone)
    noise = initial_noise(backbone, ["a", "b"], 0)
    sample(backbone, condition, noise, nfe=2, guidance=2.0, active=tmm().active_adapters)
    told, without = backbone.shown
    assert told["audio"].any() and not without["audio"].any()
    assert without["skeleton_frames"] is told["skeleton_frames"] and told["skeleton_frames"].any()
    t = torch.tensor([1.0, 1.0])
    with torch.no_grad(), backbone.adapters(["tmm-audio", "tmm-skeleton"]):
        silent = backbone.denoise(noise, t, backbone.condition([clip_without_sound(clip) for clip in clips]))
        assert torch.equal(backbone.denoise(noise, t, backbone.unconditional(condition)), silent)
        assert not torch.allclose(backbone.denoise(noise, t, condition), silent, atol=1e-4)


def clip_without_sound(clip):
    return replace(clip, audio=None)


# The loss


def test_loss_against_numpy_and_who_is_trained_without_sound():
    method, batch = tmm(no_audio=0.4), random_clips(12)
    backbone = TinyBackbone()
    loss_of(method, backbone, batch)
    nudge(backbone)
    output = loss_of(method, backbone, batch).per_sample.detach().numpy()
    silent = norm.cdf(batch.noise.flatten(1)[:, 0].numpy()) < 0.4
    assert 0 < silent.sum() < 12
    told = mean_squares(residuals(backbone, batch, ["tmm-audio"]))
    batch.condition["audio"] = torch.zeros_like(batch.condition["audio"])
    without = mean_squares(residuals(backbone, batch, ["tmm-audio"]))
    np.testing.assert_allclose(output, np.where(silent, without, told), atol=1e-6)
    assert np.abs(told - without).min() > 1e-4


def test_gradients_reach_every_parameter_of_the_stage_that_trains_and_no_other():
    for stage in (0, 1):
        backbone, batch = TinyBackbone(), random_clips(4)
        loss_of(tmm(no_audio=0), backbone, batch, stage)
        nudge(backbone)
        gradient(loss_of(tmm(no_audio=0), backbone, batch, stage), backbone)
        own = adapter_parameters(backbone.denoiser, tmm().stages()[stage].adapter)
        assert all(p.grad is not None and bool(p.grad.any()) for p in own.values())
        others = [p for p in backbone.denoiser.parameters() if all(p is not mine for mine in own.values())]
        assert all(p.grad is None for p in others)


# Training


def test_audio_then_skeleton_within_one_budget_and_it_learns(data, tmp_path):
    backbone = TinyBackbone()
    result = train(tmm(no_audio=0), backbone, data, SPEC.model_copy(update={"samples": 400}), 0, tmp_path)
    log = log_of(result)
    assert [entry["stage"] for entry in log] == ["tmm-audio"] * 25 + ["tmm-skeleton"] * 25
    assert result.samples_seen == 400 and result.trained_parameters == weights(backbone).numel()
    losses = [entry["loss"] for entry in log]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert not result.warnings and not any("unreached" in entry for entry in log)
    assert attached(backbone.denoiser) == ("tmm-audio", "tmm-skeleton")


@pytest.mark.parametrize("done", [24, 72])  # in either stage
def test_a_stopped_training_resumes_to_the_same_bits(data, tmp_path, done):
    whole, resumed, again = TinyBackbone(), TinyBackbone(), TinyBackbone()
    expected = train(tmm(), whole, data, SPEC, 3, tmp_path / "whole")

    def progress(so_far, total):
        if so_far == done:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        train(tmm(), TinyBackbone(), data, SPEC, 3, tmp_path / "cut", progress, checkpoint_seconds=1e9)
    result = train(tmm(), resumed, data, SPEC, 3, tmp_path / "cut")
    assert torch.equal(weights(whole), weights(resumed)) and float(weights(whole).abs().max()) > 0
    assert log_of(result) == log_of(expected) and result.heldout == expected.heldout
    finished = train(tmm(), again, data, SPEC, 3, tmp_path / "cut")  # only loads
    assert torch.equal(weights(whole), weights(again)) and finished.steps == expected.steps
    files = sorted(path.relative_to(result.adapters_dir).as_posix() for path in result.adapters_dir.rglob("*.*"))
    assert files == [
        f"tmm-{heard}/insert.{kind}" for heard in ("audio", "skeleton") for kind in ("json", "safetensors")
    ]


def test_without_the_skeleton_all_of_the_budget_is_for_sound(data, tmp_path):
    result = train(tmm(skeleton=False), TinyBackbone(), data, SPEC, 0, tmp_path)
    assert {entry["stage"] for entry in log_of(result)} == {"tmm-audio"} and result.samples_seen == SPEC.samples


@pytest.mark.parametrize("second", ["diffusion-dpo", "tpo", "ipa"])
def test_what_trains_on_top_has_tmm_below_it_in_its_reference_too(data, tmp_path, second):
    """The self-checks see to it that policy and reference agree at the start, and that TMM does not move."""
    backbone, variant = TinyBackbone(), variant_named(f"tmm+{second}")
    below, above = (part.method for part in variant.parts)
    train(below, backbone, data, SPEC, 0, tmp_path / "0")
    before = weights(backbone).clone()
    predicted = []

    class Listening(type(above)):
        def loss(self, stage, policy, reference, batch, backbone):
            def listening(*given):
                predicted.append((given, reference(*given)))
                return predicted[-1][1]

            return super().loss(stage, policy, listening, batch, backbone)

    result = train(
        Listening(above.config), backbone, data, SPEC, 0, tmp_path / "1", earlier=below.active_adapters
    )  # fmt: skip
    assert result.status == "done" and log_of(result)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    own = [p.detach().flatten() for name in ("tmm-audio", "tmm-skeleton")
           for p in adapter_parameters(backbone.denoiser, name).values()]  # fmt: skip
    assert torch.equal(torch.cat(own), before)
    given, reference = predicted[-1]
    with torch.no_grad(), backbone.adapters(["tmm-audio", "tmm-skeleton"]):
        assert torch.equal(backbone.denoise(*given), reference)
    with torch.no_grad():
        assert not torch.allclose(backbone.denoise(*given), reference, atol=1e-3)
    for t in (0.2, 0.9):
        assert set(variant.active_adapters(t)) <= set(attached(backbone.denoiser))
        assert {"tmm-audio", "tmm-skeleton"} < set(variant.active_adapters(t))


def test_tmm_on_top_of_a_lora(data, tmp_path):
    backbone = TinyBackbone()
    train(DPO(), backbone, data, SPEC, 0, tmp_path / "0")
    result = train(tmm(), backbone, data, SPEC, 0, tmp_path / "1", earlier=DPO().active_adapters)
    assert result.status == "done"
    assert set(attached(backbone.denoiser)) == {"diffusion-dpo", "tmm-audio", "tmm-skeleton"}


# What it asks of others


def test_conditions_that_are_not_there_are_one_sentence(data, tmp_path):
    class NoFrames(TinyBackbone):
        def condition(self, clips):
            found = super().condition(clips)
            del found["skeleton_frames"]
            return found

    backbone = NoFrames()
    condition = backbone.condition([TinyTrack().clip("prompts", 0)])
    attach(backbone, tmm().stages()[0], condition, 4, 4, 0)
    with pytest.raises(RequestError, match=r"needs the skeleton of each video frame.*; set skeleton=false$"):
        attach(backbone, tmm().stages()[1], condition, 4, 4, 0)
    with pytest.raises(RequestError, match="features of each video frame's sound"):
        attach(TinyBackbone(), tmm().stages()[0], {}, 4, 4, 0)


def test_variants_and_pipelines_are_named_on_the_command_line():
    asked = ["tmm,tmm[fold=2],tmm[fold=none,skeleton=false],tmm+diffusion-dpo,tmm+tpo"]
    labels = [variant.label for variant in plan(RunRequest(asked)).variants]
    assert labels[2:] == ["tmm", "tmm[fold=2]", "tmm[fold=none,skeleton=false]", "tmm+diffusion-dpo", "tmm+tpo"]
    with pytest.raises(RequestError, match="tmm: fold=3 is refused"):
        plan(RunRequest(["tmm[fold=3]"]))


@pytest.mark.parametrize("config", [{"fold": "2"}, {"fold": "none"}, {"skeleton": False}, {"order": False}])
def test_variants_keep_the_contract_too(config):
    class Variant(TMM):
        """With other defaults."""

        def __init__(self, given=None):
            super().__init__(given or TMM.Config(**config))

    assert [check for check in check_class("method", Variant) if check.status == "failed"] == []


# A UNet, frames folded into the batch


def tiny_unet():
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
            norm_num_groups=8, cross_attention_dim=8, attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        ).eval().requires_grad_(False)  # fmt: skip


def unet_blocks(unet):
    found = []
    for layer in unet.modules():
        if type(layer).__name__ == "BasicTransformerBlock":
            stride = 1 if layer.norm2.normalized_shape[0] == 16 else 2
            found.append(
                Block(layer.norm2, layer.attn2, layer.ff, layer.norm2.normalized_shape[0], layer.attn2.heads, stride)
            )
    return found


def run_unet(unet, x_t, condition):
    """`[B, C, T, H, W]` -> the same; each latent frame is a picture of its own to the UNet."""
    pictures = x_t.transpose(1, 2).flatten(0, 1)
    text = torch.zeros(len(pictures), 1, 8)
    with running(unet, lambda: unet_blocks(unet), x_t, condition):
        made = unet(pictures, 500, text, return_dict=False)[0]
    return made.unflatten(0, (len(x_t), -1)).transpose(1, 2)


@settings(deadline=None, max_examples=5)
@given(fold=st.sampled_from(FOLDS), frame=st.integers(1, 8), sound=st.booleans())
def test_on_a_unet_it_starts_as_nothing_trains_and_tells_each_latent_frame_of_its_own_frames(fold, frame, sound):
    """The UNet sees latent frames one by one, so what a video frame changes shows where folding put it."""
    unet, method = tiny_unet(), tmm(fold=fold, reach=0)
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(2, 4, 3, 8, 8, generator=generator)
    condition = {
        "audio": torch.randn(2, 9, 3, generator=generator),
        "skeleton_frames": torch.randn(2, 9, 4, 8, 8, generator=generator),
    }
    blocks = unet_blocks(unet)
    assert {(block.width, block.stride) for block in blocks} == {(16, 1), (32, 2)}
    base = run_unet(unet, x_t, condition)
    parameters = [
        p for place, stage in enumerate(method.stages())
        for p in attach_insert(unet, stage.adapter, stage.insert, blocks, condition, place)
    ]
    names = ["tmm-audio", "tmm-skeleton"]
    with active_adapters(unet, names):
        assert torch.equal(run_unet(unet, x_t, condition), base)
    for parameter in parameters:
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        parameter.requires_grad_(True)
    with active_adapters(unet, names):
        made = run_unet(unet, x_t, condition)
        made.square().mean().backward()
        name = "audio" if sound else "skeleton_frames"
        condition[name][:, frame] += 1 + torch.randn(condition[name][:, frame].shape, generator=generator)
        other = run_unet(unet, x_t, condition)
    assert all(p.grad is not None and bool(p.grad.any()) for p in parameters)
    changed = [k for k in range(3) if not torch.allclose(made[:, :, k], other[:, :, k], atol=1e-6)]
    kept = frame % (4 // method.places) == 0
    assert changed == ([(frame + 3) // 4] if kept else [])
    assert torch.equal(run_unet(unet, x_t, condition), base)


# The command line


def test_a_pipeline_runs_from_the_command_line(runs, tmp_path):
    out = tmp_path / "out"
    code, said, progress = runs(out, "--methods", "tmm,tmm+diffusion-dpo,tmm+tpo", "--json")
    assert code == 0, progress
    rows = [row["method"] for row in json.loads(said)["rows"]]
    assert sorted(rows) == ["base", "sft", "tmm", "tmm+diffusion-dpo", "tmm+tpo"]
    for cell in ("tmm+diffusion-dpo-s0", "tmm+tpo-s0"):
        first, second = sorted((next((out / "cells").glob(f"{cell}-*")) / "train").iterdir())
        alone = next((out / "cells").glob("tmm-s0-*")) / "train" / "0-tmm" / "adapters" / "tmm-audio"
        ours = first / "adapters" / "tmm-audio" / "insert.safetensors"
        assert ours.read_bytes() == (alone / "insert.safetensors").read_bytes()  # the same TMM below
        assert not list(second.glob("adapters/tmm-*"))
    texts = [claim["text"] for claim in json.loads(said)["claims"] if claim["metric"] == "sync_c"]
    assert any("tmm[fold=2]" in text and "tmm[fold=none]" in text for text in texts)
