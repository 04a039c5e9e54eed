"""Modules of a method's own: off is the base bit for bit, on top of each other and of LoRAs, and files come back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_adapters import TARGETS, inputs  # noqa: F401  # a fixture
from tiny import TinyBackbone

from halign_bench import adapters
from halign_bench.adapters import (
    adapter_parameters,
    attached,
    load_adapters,
    remove_adapters,
    save_adapters,
)
from halign_bench.errors import HalignError, RequestError
from halign_bench.inserts import HOLDER, Additions, Insert, running
from halign_bench.method import Stage


def build(blocks, condition):
    return torch.nn.ModuleDict({"to_q": torch.nn.Linear(blocks[0].width, blocks[0].width)})  # named like a LoRA target


def add(layers, blocks, condition):
    loud = condition["audio"].mean()
    return Additions(lambda number, tokens: layers["to_q"](tokens) * loud, lambda number, tokens: tokens * 0)


INSERT = Insert(build, add)


def attach(backbone, name, condition, seed=0, insert=INSERT):
    return adapters.attach(backbone, Stage(name, "clips", insert=insert), condition, 4, 8.0, seed)


def attach_lora(backbone, name):
    parameters = adapters.attach_lora(backbone.denoiser, name, TARGETS, 4, 8.0, 0)
    for parameter in parameters:
        parameter.data += 0.1
    return parameters


def predict(backbone, inputs):  # noqa: F811
    with torch.no_grad():
        return backbone.denoise(inputs[0], torch.full((2,), 0.5), inputs[1])


def test_contexts_switch_nest_and_restore(inputs):  # noqa: F811
    backbone = TinyBackbone()
    base = predict(backbone, inputs)
    attach(backbone, "a", inputs[1], 1)
    attach(backbone, "b", inputs[1], 2)
    attach_lora(backbone, "c")
    assert set(attached(backbone.denoiser)) == {"a", "b", "c"}
    seen = {}
    for names in ("a", "b", "c", "ab", "ac", "abc"):
        with backbone.adapters(list(names)):
            seen[names] = predict(backbone, inputs)
            with pytest.raises(RuntimeError), backbone.adapters(()):
                assert torch.equal(predict(backbone, inputs), base)
                raise RuntimeError
            with backbone.adapters(["b"]):
                pass
            assert torch.equal(predict(backbone, inputs), seen[names])
    assert torch.equal(predict(backbone, inputs), base)
    assert len({float(value.sum()) for value in seen.values()}) == 6
    with pytest.raises(ValueError, match="no adapter d"), backbone.adapters(["d"]):
        pass
    with pytest.raises(ValueError, match="attached already"):
        attach(backbone, "a", inputs[1])


def test_weights_depend_on_the_seed_alone_and_only_the_new_one_trains(inputs):  # noqa: F811
    def made(seed, shake):
        backbone = TinyBackbone()
        torch.manual_seed(shake)
        before = torch.random.get_rng_state()
        parameters = attach(backbone, "a", inputs[1], seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert {id(p) for p in backbone.denoiser.parameters() if p.requires_grad} == {id(p) for p in parameters}
        assert list(adapter_parameters(backbone.denoiser, "a")) == [
            f"{HOLDER}.a.to_q.weight", f"{HOLDER}.a.to_q.bias"
        ]  # fmt: skip
        return torch.cat([p.detach().flatten() for p in parameters])

    assert torch.equal(made(1, 5), made(1, 6))
    assert not torch.equal(made(1, 5), made(2, 5))


def test_it_adds_to_the_stream_after_cross_attention_and_to_what_the_feed_forward_network_is_given(inputs):  # noqa: F811
    """Against the block's own formula, written out here."""
    backbone = TinyBackbone()
    block, given = backbone.denoiser.blocks[0], {}

    def once(to_stream, to_feed_forward):
        insert = Insert(build, lambda *_: Additions(to_stream, to_feed_forward))
        attach(backbone, "a", inputs[1], insert=insert)
        handles = [
            block.register_forward_hook(lambda m, args, out: given.update(args=args, out=out)),
            block.ffn.register_forward_hook(lambda m, args, out: given.update(fed=args[0], made=out)),
        ]
        with backbone.adapters(["a"]):
            predict(backbone, inputs)
        for handle in handles:
            handle.remove()
        remove_adapters(backbone.denoiser, ["a"])

    def at(number, tokens):
        assert tokens.shape == (2, 2, 4, 24)
        return tokens.sin() if number == 0 else tokens * 0

    once(at, at)
    with torch.no_grad():
        hidden, text, temb, rotary = given["args"]
        shift, scale, gate, shift_ffn, scale_ffn, gate_ffn = (block.scale_shift_table + temb).chunk(6, dim=1)
        hidden = hidden + gate * block.attn1(block.norm1(hidden) * (1 + scale) + shift, None, None, rotary)
        hidden = hidden + block.attn2(block.norm2(hidden), text, None, None)
        hidden = hidden + hidden.sin()
        fed = block.norm3(hidden) * (1 + scale_ffn) + shift_ffn
        fed = fed + fed.sin()
        out = hidden + gate_ffn * block.ffn(fed)
    torch.testing.assert_close(given["fed"], fed, rtol=0, atol=1e-5)
    torch.testing.assert_close(given["out"], out, rtol=0, atol=1e-5)


def test_a_lora_leaves_the_layers_of_an_insert_alone(inputs):  # noqa: F811
    backbone = TinyBackbone()
    own = attach(backbone, "a", inputs[1])
    attach_lora(backbone, "b")
    assert not [key for key in adapter_parameters(backbone.denoiser, "b") if key.startswith(HOLDER)]
    assert [id(p) for p in adapter_parameters(backbone.denoiser, "a").values()] == [id(p) for p in own]


@pytest.mark.parametrize("gone", [["a"], ["b"], ["a", "b"], None])
def test_removing_leaves_the_others(inputs, gone):  # noqa: F811
    backbone = TinyBackbone()
    base, structure = predict(backbone, inputs), str(backbone.denoiser)
    attach(backbone, "a", inputs[1])
    attach_lora(backbone, "b")
    alone = {}
    for name in "ab":
        with backbone.adapters([name]):
            alone[name] = predict(backbone, inputs)
    with backbone.adapters(["a", "b"]):
        remove_adapters(backbone.denoiser, gone)
        left = [name for name in "ab" if name not in (gone or "ab")]
        assert torch.equal(predict(backbone, inputs), alone[left[0]] if left else base)
    assert list(attached(backbone.denoiser)) == left
    assert (str(backbone.denoiser) == structure) == (not left)


def test_files_come_back(inputs, tmp_path):  # noqa: F811
    backbone = TinyBackbone()
    attach(backbone, "a", inputs[1], 1)
    attach_lora(backbone, "b")
    with backbone.adapters(["a", "b"]):
        both = predict(backbone, inputs)
    save_adapters(backbone.denoiser, ["a", "b"], tmp_path / "adapters")
    again = TinyBackbone()
    names = load_adapters(again.denoiser, tmp_path / "adapters", lambda name: attach(again, name, inputs[1]))
    assert names == ["a", "b"]
    assert not any(p.requires_grad for p in again.denoiser.parameters())
    with again.adapters(["a", "b"]):
        assert torch.equal(predict(again, inputs), both)


def test_files_that_are_damaged_or_of_another_module_are_refused_by_name(inputs, tmp_path):  # noqa: F811
    backbone, folder = TinyBackbone(), tmp_path / "adapters"
    attach(backbone, "a", inputs[1])
    save_adapters(backbone.denoiser, ["a"], folder)
    with pytest.raises(RequestError, match=r"insert\.safetensors: the weights of a method's own module"):
        load_adapters(TinyBackbone().denoiser, folder)
    other = TinyBackbone()
    wider = Insert(lambda blocks, condition: torch.nn.ModuleDict({"to_q": torch.nn.Linear(3, 3)}), add)
    with pytest.raises(RequestError, match="belong to another backbone"):
        load_adapters(other.denoiser, folder, lambda name: attach(other, name, inputs[1], insert=wider))
    assert attached(other.denoiser) == ()
    file = folder / "a" / "insert.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RequestError, match=r"insert\.safetensors: not a readable file"):
        load_adapters(TinyBackbone().denoiser, folder, lambda name: attach(backbone, name, inputs[1]))


def test_a_backbone_without_blocks_or_with_other_tokens_is_refused(inputs):  # noqa: F811
    class Closed(TinyBackbone):
        def blocks(self):
            return []

    with pytest.raises(RequestError, match="a goes into the blocks of a network, and tiny-dit states none"):
        attach(Closed(), "a", inputs[1])
    backbone = TinyBackbone()
    attach(backbone, "a", inputs[1])
    odd = torch.zeros(2, 4, 3, 4, 4)  # the network's tokens are of two latent frames
    with (
        pytest.raises(HalignError, match="block 0 has tokens"), backbone.adapters(["a"]),
        running(backbone.denoiser, backbone.blocks, odd, inputs[1]), torch.no_grad(),
    ):  # fmt: skip
        backbone.predict(inputs[0], torch.full((2,), 0.5), inputs[1])


def test_the_blocks_are_looked_for_only_while_an_insert_is_active(inputs):  # noqa: F811
    class Counted(TinyBackbone):
        asked = 0

        def blocks(self):
            self.asked += 1
            return super().blocks()

    backbone = Counted()
    attach(backbone, "a", inputs[1])
    before = backbone.asked
    predict(backbone, inputs)
    assert backbone.asked == before
    with backbone.adapters(["a"]):
        predict(backbone, inputs)
    assert backbone.asked == before + 1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.denoiser.modules())


def test_stages_with_and_without_an_insert_are_told_apart():
    lora = Stage("a", "clips")
    assert lora != replace(lora, insert=INSERT) and hash(lora) != hash(replace(lora, insert=INSERT))
