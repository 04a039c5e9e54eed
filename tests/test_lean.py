"""Training in less memory and time: the same numbers, whatever is left out, put aside or computed again."""

from __future__ import annotations

import copy

import pytest
import tiny_models
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from tiny import TinyBackbone, TinyTrack

from halign_bench import adapters
from halign_bench.errors import RequestError
from halign_bench.inserts import Additions, Insert
from halign_bench.lora import LoRALinear, adopt
from halign_bench.method import Stage
from halign_bench.parts import parts
from halign_bench.plan import variant_named
from halign_bench.preferences import PreferenceSpec, collect
from halign_bench.recompute import recomputing
from halign_bench.residence import Hosted
from halign_bench.training import TrainingSpec, train

T = torch.full((2,), 0.5)


@pytest.fixture(scope="module")
def inputs():
    backbone, track = TinyBackbone(), TinyTrack()
    condition = backbone.condition([track.clip("prompts", index) for index in range(2)])
    return torch.randn(2, *backbone.latent_shape(), generator=torch.Generator().manual_seed(1)), condition


# The LoRA layer.


def networks(names=("a",), dtype=torch.float32):
    """The same two layers with the same LoRAs: peft's own, and ours."""
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Linear(24, 40), torch.nn.GELU(), torch.nn.Linear(40, 24, bias=False))
    theirs.to(dtype).requires_grad_(False)
    for name in names:
        config = LoraConfig(r=4, lora_alpha=6, target_modules=["0", "2"], init_lora_weights=False)
        inject_adapter_in_model(config, theirs, name)
    for layer in (theirs[0], theirs[2]):
        layer.set_adapter(list(names))
    theirs.requires_grad_(False)
    for key, parameter in theirs.named_parameters():
        parameter.data = parameter.data.float() if "lora" in key else parameter.data
        parameter.requires_grad_(f".{names[-1]}." in key)
    ours = copy.deepcopy(theirs)
    adopt(ours)
    assert all(type(layer) is LoRALinear for layer in (ours[0], ours[2]))
    return theirs, ours


def passed(network, x, autocast=False):
    """Output, gradient of the input, gradients of what trains."""
    x = x.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        made = network(x)
    made.float().square().sum().backward()
    return [made.detach(), x.grad, *(p.grad for p in network.parameters() if p.requires_grad)]


@pytest.mark.parametrize("rows", [7, 20])  # 21 are few beside 40 features, 60 are many
@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_a_lora_layer_gives_the_numbers_of_pefts(names, rows):
    theirs, ours = networks(names)
    x = torch.randn(3, rows, 24)
    expected, found = passed(theirs, x), passed(ours, x)
    assert len(expected) == len(found) == 2 + 4
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_bf16_it_is_about_as_far_from_the_exact_numbers_as_pefts(dtype):
    theirs, ours = networks(dtype=dtype)
    x = torch.randn(64, 24)
    exact = passed(networks(dtype=dtype)[0].float(), x)
    for a, b, c in zip(passed(theirs, x, True), passed(ours, x, True), exact, strict=True):
        wrong = [float((each.double() - c.double()).norm() / c.double().norm()) for each in (a, b)]
        assert 0 < wrong[1] <= 1.5 * wrong[0] < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (3, 7, 24), (24, 3, 9), (3, 20, 24), (24, 3, 20)])
def test_a_new_lora_leaves_the_bits_of_the_base(dtype, shape):
    _, ours = networks(dtype=dtype)
    torch.nn.init.zeros_(ours[0].lora_B["a"].weight)
    x = torch.randn(shape, dtype=dtype)
    x = x if shape[-1] == 24 else x.transpose(0, 2)  # not contiguous
    assert torch.equal(ours[0](x), ours[0].base_layer(x))


def test_layers_with_dropout_stay_pefts():
    network = torch.nn.Sequential(torch.nn.Linear(8, 8))
    inject_adapter_in_model(LoraConfig(r=2, lora_dropout=0.5, target_modules=["0"]), network)
    adopt(network)
    assert type(network[0]) is not LoRALinear


# Gradient checkpointing.


def stream(blocks, condition):
    return torch.nn.ModuleDict({"o": torch.nn.Linear(blocks[0].width, blocks[0].width)})


def adds(layers, blocks, condition):
    return Additions(lambda number, tokens: layers["o"](tokens) * condition["audio"].mean())


class Kept:
    """Bytes that autograd keeps for a backward pass, each storage once."""

    def __enter__(self):
        self.storages = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def pack(self, tensor):
        self.storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def __exit__(self, *problem):
        self.hooks.__exit__(*problem)

    @property
    def bytes(self):
        return sum(self.storages.values())


@pytest.mark.parametrize("kind", ["lora", "insert"])
@pytest.mark.parametrize("between", ["nothing", "reference", "other adapter"])
def test_blocks_run_again_as_the_policy_that_they_were(inputs, kind, between):
    def gradients(again):
        backbone = TinyBackbone()
        module = backbone.denoiser
        adapters.attach_lora(module, "other", backbone.lora_targets, 4, 8.0, 7)
        if kind == "lora":
            own = adapters.attach_lora(module, "own", backbone.lora_targets, 4, 8.0, 1)
        else:
            own = adapters.attach(backbone, Stage("own", "clips", insert=Insert(stream, adds)), inputs[1], 4, 8.0, 1)
        with torch.no_grad():
            for name in ("other", "own"):
                for parameter in adapters.adapter_parameters(module, name).values():
                    parameter += 0.1
        for name, parameter in adapters.adapter_parameters(module, "other").items():
            parameter.requires_grad_(False)
            assert "other" in name
        if again:
            context = recomputing(module)
            context.__enter__()
        with backbone.adapters(["own"]), Kept() as kept:
            made = backbone.denoise(inputs[0], T, inputs[1])
        # backward comes where other adapters are on, or none
        if between == "reference":
            with backbone.adapters([]):
                backbone.denoise(inputs[0], T, inputs[1])
                made.square().sum().backward()
        elif between == "other adapter":
            with backbone.adapters(["other"]):
                made.square().sum().backward()
        else:
            made.square().sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in own]), kept.bytes

    plain, much = gradients(False)
    again, little = gradients(True)
    assert float(plain.abs().max()) > 0 and torch.equal(again, plain)
    assert little < 0.7 * much


def test_a_network_that_cannot_is_refused():
    with pytest.raises(RequestError, match="a Linear has no gradient checkpointing"), \
            recomputing(torch.nn.Linear(2, 2)):  # fmt: skip
        pass


QUICK = ("wan", "cogvideox", "svd")


@pytest.mark.parametrize("name", [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in tiny_models.MODELS
])  # fmt: skip
def test_published_models_train_to_the_same_weights_with_checkpointing(published, name, tmp_path):
    backbone = published.load(name)
    assert not backbone.checkpointing  # on a processor
    track = TinyTrack(frames=backbone.frames, size=backbone.size, prompts=4)
    data = collect(backbone, track, PreferenceSpec(prompts=4, candidates=2, nfe=1), tmp_path / "cache")
    spec = TrainingSpec(samples=8, batch_size=2, rank=2, lr=0.01, warmup=1)
    trained = {}
    for text in ("tpo", "tmm") if backbone.blocks() else ("tpo",):
        for again in (False, True):
            backbone.checkpointing = again
            passes = []
            handle = backbone.denoiser.register_forward_hook(lambda *_, passes=passes: passes.append(1))
            method = variant_named(text).parts[0].method
            result = train(method, backbone, data, spec, 0, tmp_path / f"{text}-{again}")
            handle.remove()
            assert result.status == "done", result.error
            files = sorted(result.adapters_dir.glob("*/*.safetensors"))
            trained[again] = {(f.parent.name, key): value for f in files for key, value in load_file(f).items()}
        assert trained[False].keys() == trained[True].keys() and len(trained[True]) > 4
        assert all(torch.equal(value, trained[True][key]) for key, value in trained[False].items()), text
    backbone.checkpointing = False


# Parts of a batch.


def test_a_batch_comes_in_as_many_equal_parts_as_keep_the_device_busy():
    assert parts(8, 640, "cpu") == 2  # four pairs of puppet clips each
    assert parts(8, 5000, "cpu") == 8
    assert parts(7, 640, "cpu") == 1  # in no equal parts of four or more
    assert parts(8, 640, "cuda") == 1 and parts(2, 2 * 131_040, "cuda:1") == 2
    assert parts(1, 10, "cpu") == 1


def test_parts_change_nothing_but_rounding_and_are_for_losses_that_allow_it(tmp_path, monkeypatch):
    data = collect(TinyBackbone(), TinyTrack(), PreferenceSpec(prompts=10, candidates=2, nfe=1), tmp_path / "cache")
    spec = TrainingSpec(samples=16, batch_size=8, lr=1e-3)

    def trained(text, number):
        seen = []
        backbone = TinyBackbone()
        backbone.denoiser.register_forward_hook(lambda _, __, made: seen.append(len(made[0])))
        monkeypatch.setattr("halign_bench.parts.CELLS", {"cpu": 1 if number > 1 else 10**9})
        result = train(variant_named(text).parts[0].method, backbone, data, spec, 0, tmp_path / f"{text}{number}")
        (file,) = result.adapters_dir.glob("*/*.safetensors")
        return load_file(file), min(seen)

    whole, clips = trained("diffusion-dpo", 1)
    in_parts, fewer = trained("diffusion-dpo", 4)
    assert (clips, fewer) == (2, 2)  # the self-check of two clips is the smallest pass
    for key, value in whole.items():
        if "lora_B" in key:
            assert float((in_parts[key] - value).norm() / value.norm()) < 0.05
    kto, _ = trained("kto", 1)
    again, _ = trained("kto", 4)
    assert all(torch.equal(kto[key], again[key]) for key in kto)  # its KL is of the batch


# Encoders off the device.


def tensors(*modules):
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


def test_weights_on_the_host_are_shared_and_come_back():
    """"meta" stands for a device: what is there takes no memory here, and nothing can be read back from it."""
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 4))
    module[2].weight = module[0].weight
    module.requires_grad_(False)
    before = [(tensor.data_ptr(), tensor.clone()) for tensor in tensors(module)]
    hosted = Hosted([module, module[0]])
    hosted.to("meta")
    assert all(tensor.is_meta for tensor in tensors(module)) and module[2].weight is module[0].weight
    with hosted.aside("meta"):
        for tensor, (pointer, value) in zip(tensors(module), before, strict=True):
            assert tensor.data_ptr() == pointer and torch.equal(tensor, value)  # no copy
        module.eval()(torch.ones(2, 4))
        assert module[2].weight is module[0].weight
    assert all(tensor.is_meta for tensor in tensors(module))


@pytest.mark.parametrize("name", QUICK)
def test_encoders_of_a_published_model_are_away_while_it_trains_and_back_afterwards(published, name, tmp_path):
    backbone = published.load(name)
    track = TinyTrack(frames=backbone.frames, size=backbone.size, prompts=4)
    data = collect(backbone, track, PreferenceSpec(prompts=4, candidates=2, nfe=1), tmp_path / "cache")
    encoders = backbone.encoders()
    assert {"vae", *(["text_encoder"] if name != "svd" else ["image_encoder"])} <= {
        key for key, part in backbone.pipeline.components.items() if any(part is each for each in encoders)
    }
    assert all(each is not backbone.denoiser for each in encoders) and backbone.ears.net in encoders
    backbone._hosted = Hosted(encoders)
    places = []

    aside = backbone._hosted.aside

    def as_on_a_device(device):
        assert device == backbone.device
        return aside("meta")

    backbone._hosted.aside = as_on_a_device
    backbone._hosted.to("meta")

    def progress(samples, budget):
        places.append({str(tensor.device) for tensor in tensors(*encoders)})

    spec = TrainingSpec(samples=4, batch_size=2, rank=2)
    result = train(variant_named("tmm").parts[0].method, backbone, data, spec, 0, tmp_path / "t", progress)
    assert result.status == "done", result.error
    assert places[0] == {"meta"} and places[1] == {"cpu"}  # before the first stage, and within it
    assert {str(tensor.device) for tensor in tensors(*encoders)} == {"meta"}
    backbone._hosted.to("cpu")
    assert backbone.encode_clips([track.clip("prompts", 0)]).isfinite().all()


# Attention.


@pytest.mark.parametrize("name", QUICK)
def test_attention_of_a_published_model_is_torchs_own_with_a_lora_too(published, name):
    class Calls(torch.overrides.TorchFunctionMode):
        count = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.count += function is torch.nn.functional.scaled_dot_product_attention
            return function(*args, **(kwargs or {}))

    backbone = published.load(name)
    track = TinyTrack(frames=backbone.frames, size=backbone.size, prompts=4)
    condition = backbone.condition([track.clip("prompts", 0)])
    adapters.attach_lora(backbone.denoiser, "a", backbone.lora_targets, 2, 2.0, 0)
    attention = [module for key, module in backbone.denoiser.named_modules() if key.endswith(("attn1", "attn2"))]
    with Calls() as calls, backbone.adapters(["a"]):
        backbone.denoise(torch.randn(1, *backbone.latent_shape()), T[:1], condition)
    assert calls.count >= len(attention) > 0
