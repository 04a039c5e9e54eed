"""Adapters: off is the base bit for bit, contexts nest and restore, files come back."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyBackbone, TinyTrack

from halign_bench import adapters
from halign_bench.adapters import (
    active_adapters,
    adapter_parameters,
    attach_lora,
    attached,
    load_adapters,
    remove_adapters,
    save_adapters,
)
from halign_bench.errors import RequestError

TARGETS = TinyBackbone.lora_targets


@pytest.fixture
def inputs():
    backbone, track = TinyBackbone(), TinyTrack()
    condition = backbone.condition([track.clip("prompts", i) for i in range(2)])
    return torch.randn(2, *backbone.latent_shape(), generator=torch.Generator().manual_seed(0)), condition


def predict(backbone, inputs, t=0.5):
    with torch.no_grad():
        return backbone.predict(inputs[0], torch.full((2,), t), inputs[1])


def attach(backbone, name, seed=0, nonzero=True):
    parameters = attach_lora(backbone.denoiser, name, TARGETS, 4, 8.0, seed)
    if nonzero:
        with torch.no_grad():
            for i, p in enumerate(parameters):
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(seed + i)) * 0.3)
    return parameters


def test_adapters_off_are_the_base_exactly_and_on_are_not(inputs):
    backbone = TinyBackbone()
    base = predict(backbone, inputs)
    attach(backbone, "a")
    assert torch.equal(predict(backbone, inputs), base)  # attached is not active
    with backbone.adapters(["a"]):
        on = predict(backbone, inputs)
        with backbone.adapters(()):
            assert torch.equal(predict(backbone, inputs), base)
        assert torch.equal(predict(backbone, inputs), on)
    assert not torch.allclose(on, base)
    assert torch.equal(predict(backbone, inputs), base)


def test_a_new_adapter_changes_nothing_and_only_it_trains(inputs):
    backbone = TinyBackbone()
    base = predict(backbone, inputs)
    parameters = attach(backbone, "a", nonzero=False)
    with backbone.adapters(["a"]):
        assert torch.equal(predict(backbone, inputs), base)
    trains = {id(p) for p in backbone.denoiser.parameters() if p.requires_grad}
    assert trains == {id(p) for p in parameters}
    assert {p.dtype for p in parameters} == {torch.float32}


def test_lora_stays_fp32_on_a_half_precision_base():
    backbone = TinyBackbone()
    backbone.denoiser.to(torch.bfloat16)
    assert {p.dtype for p in attach(backbone, "a", nonzero=False)} == {torch.float32}


def test_initial_weights_depend_on_the_seed_alone():
    def weights(seed, shake):
        backbone = TinyBackbone()
        torch.manual_seed(shake)
        before = torch.random.get_rng_state()
        parameters = attach(backbone, "a", seed, nonzero=False)
        assert torch.equal(torch.random.get_rng_state(), before)  # the global generator is left alone
        return torch.cat([p.detach().flatten() for p in parameters])

    assert torch.equal(weights(1, 5), weights(1, 6))
    assert not torch.equal(weights(1, 5), weights(2, 5))


def test_contexts_nest_restore_and_leave_trainability_alone(inputs):
    backbone = TinyBackbone()
    base = predict(backbone, inputs)
    attach(backbone, "a", 1)
    trained = attach(backbone, "b", 50)
    trains = [p.requires_grad for p in backbone.denoiser.parameters()]
    seen = {}
    for names in (["a"], ["b"], ["a", "b"]):
        with backbone.adapters(names):
            seen["".join(names)] = predict(backbone, inputs)
            with backbone.adapters(["b"] if names == ["a"] else ["a"]):
                assert [p.requires_grad for p in backbone.denoiser.parameters()] == trains
            with pytest.raises(RuntimeError), backbone.adapters(()):
                raise RuntimeError
            assert torch.equal(predict(backbone, inputs), seen["".join(names)])
    assert torch.equal(predict(backbone, inputs), base)
    assert len({float(value.sum()) for value in seen.values()}) == 3
    assert all(p.requires_grad for p in trained)


def test_fused_weights_give_the_same_output_and_leave_the_base_bit_for_bit(inputs):
    backbone = TinyBackbone()
    base = predict(backbone, inputs)
    attach(backbone, "a", 1, nonzero=True)
    trained = attach(backbone, "b", 2, nonzero=True)
    before = {name: value.clone() for name, value in backbone.denoiser.state_dict().items()}
    for names in (["a"], ["a", "b"], []):
        with backbone.adapters(names):
            apart = predict(backbone, inputs)
        with pytest.raises(RuntimeError), backbone.adapters(names, fused=True):
            torch.testing.assert_close(predict(backbone, inputs), apart)
            raise RuntimeError
        assert torch.equal(apart, base) == (not names)
    assert all(torch.equal(value, before[name]) for name, value in backbone.denoiser.state_dict().items())
    assert torch.equal(predict(backbone, inputs), base) and all(p.requires_grad for p in trained)


def test_weights_that_cannot_carry_a_lora_leave_it_active(inputs):
    backbone = TinyBackbone()
    attach(backbone, "a", 1, nonzero=True)
    with backbone.adapters(["a"]):
        apart = predict(backbone, inputs)
    layer = next(layer for layer in adapters._tuner_layers(backbone.denoiser))
    layer.get_base_layer().register_buffer("packed", torch.zeros(1, dtype=torch.uint8))
    layer.__class__ = type("Quantised", (type(layer),), {"weight": property(lambda self: self.base_layer.packed)})
    with backbone.adapters(["a"], fused=True):
        assert torch.equal(predict(backbone, inputs), apart)


def test_a_lora_is_not_rounded_away_by_weights_of_half_precision(inputs):
    backbone = TinyBackbone()
    backbone.denoiser.to(torch.bfloat16)
    x_t, condition = inputs[0].bfloat16(), {name: value.bfloat16() for name, value in inputs[1].items()}
    attach(backbone, "a", 1, nonzero=True)
    with backbone.adapters(["a"]):
        apart = predict(backbone, (x_t, condition))
    with backbone.adapters(["a"], fused=True):
        assert torch.equal(predict(backbone, (x_t, condition)), apart)


def test_in_bf16_a_lora_layer_gives_the_bits_that_it_gives_with_its_own_casts(inputs, monkeypatch):
    from contextlib import nullcontext

    import peft.helpers

    backbone = TinyBackbone()
    backbone.precision = "bf16"
    parameters = attach(backbone, "a", 1, nonzero=True)

    def output_and_gradients():
        with backbone.adapters(["a"]):
            made = backbone.denoise(inputs[0], torch.full((2,), 0.5), inputs[1])
            made.float().square().sum().backward()
        gradients = [p.grad.clone() for p in parameters]
        backbone.denoiser.zero_grad()
        return [made, *gradients]

    ours = output_and_gradients()
    monkeypatch.setattr(peft.helpers, "disable_input_dtype_casting", lambda module: nullcontext())
    assert all(torch.equal(a, b) for a, b in zip(ours, output_and_gradients(), strict=True))


def test_without_adapters_the_context_does_nothing_and_an_unknown_name_is_refused(inputs):
    backbone = TinyBackbone()
    base = predict(backbone, inputs)
    with active_adapters(backbone.denoiser, ()):
        assert torch.equal(predict(backbone, inputs), base)
    attach(backbone, "a")
    with pytest.raises(ValueError, match="no adapter b"), backbone.adapters(["b"]):
        pass


def test_saved_adapters_come_back_here_and_in_diffusers(inputs, tmp_path):
    backbone = TinyBackbone()
    attach(backbone, "a", 1)
    attach(backbone, "b", 50)
    with backbone.adapters(["a", "b"]):
        both = predict(backbone, inputs)
    with backbone.adapters(["a"]):
        only_a = predict(backbone, inputs)
    save_adapters(backbone.denoiser, ["a", "b"], tmp_path / "adapters")

    again = TinyBackbone()
    assert load_adapters(again.denoiser, tmp_path / "adapters") == ["a", "b"]
    assert not any(p.requires_grad for p in again.denoiser.parameters())
    with again.adapters(["a", "b"]):
        assert torch.equal(predict(again, inputs), both)

    plain = TinyBackbone()
    folder = str(tmp_path / "adapters" / "a")
    plain.denoiser.load_lora_adapter(folder, adapter_name="a", use_safetensors=True)
    torch.testing.assert_close(predict(plain, inputs), only_a)


def test_removing_adapters_gives_the_plain_model_back(inputs):
    backbone = TinyBackbone()
    base, structure = predict(backbone, inputs), str(backbone.denoiser)
    attach(backbone, "a", 1)
    attach(backbone, "b", 50)
    with backbone.adapters(["b"]):
        b = predict(backbone, inputs)
    remove_adapters(backbone.denoiser, ["a"])
    assert attached(backbone.denoiser) == ("b",)
    with backbone.adapters(["b"]):
        assert torch.equal(predict(backbone, inputs), b)
    remove_adapters(backbone.denoiser)
    assert attached(backbone.denoiser) == ()
    assert str(backbone.denoiser) == structure
    assert torch.equal(predict(backbone, inputs), base)
    attach(backbone, "a", 1)
    assert adapter_parameters(backbone.denoiser, "a")


def test_unreadable_or_foreign_files_are_refused_by_name(tmp_path):
    backbone = TinyBackbone()
    with pytest.raises(RequestError, match="no adapters in this folder"):
        load_adapters(backbone.denoiser, tmp_path)
    attach(backbone, "a")
    save_adapters(backbone.denoiser, ["a"], tmp_path / "adapters")
    file = tmp_path / "adapters" / "a" / "pytorch_lora_weights.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(RequestError, match="pytorch_lora_weights"):
        load_adapters(TinyBackbone().denoiser, tmp_path / "adapters")
    file.write_bytes(content)
    other = TinyBackbone()
    del other.denoiser.blocks[1]
    with pytest.raises(RequestError, match="another backbone"):
        load_adapters(other.denoiser, tmp_path / "adapters")
    assert attached(other.denoiser) == ()


def test_a_backbone_without_such_layers_is_refused():
    with pytest.raises(RequestError, match="no_such_layer"):
        attach_lora(TinyBackbone().denoiser, "a", ["no_such_layer"], 4, 4, 0)
