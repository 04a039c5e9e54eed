"""The embedded transformer's own layers give the numbers of diffusers'."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.activations import GELU
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor, WanTransformerBlock
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from halign_bench.backbones._fewer_passes import Attention, SigmoidGELU, in_fewer_passes
from halign_bench.loading import load_backbone


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=64))
def test_the_activation_is_torchs(values):
    layer = GELU(1, 1, approximate="tanh")
    layer.__class__ = SigmoidGELU
    x = torch.tensor(values, dtype=torch.float32).requires_grad_(True)
    exact = x.detach().double().requires_grad_(True)
    found, expected = layer.gelu(x), F.gelu(exact, approximate="tanh")
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
def test_the_activation_of_what_is_not_finite_is_torchs(value):
    layer = GELU(1, 1, approximate="tanh")
    layer.__class__ = SigmoidGELU
    x = torch.full((3,), value)
    assert torch.equal(torch.nan_to_num(layer.gelu(x)), torch.nan_to_num(F.gelu(x, approximate="tanh")))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_of_other_precision_it_is_torchs_to_the_bit(dtype):
    layer = GELU(1, 1, approximate="tanh")
    layer.__class__ = SigmoidGELU
    x = torch.randn(50, dtype=dtype)
    assert torch.equal(layer.gelu(x), F.gelu(x, approximate="tanh"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length, tokens, turned", [
    (7, None, True), (7, None, False), (7, 5, False), (7, 40, False),
    (40, None, True), (40, None, False), (40, 5, False),
])  # fmt: skip
def test_attention_is_that_of_diffusers(dtype, length, tokens, turned):
    torch.manual_seed(0)
    layer = WanAttention(dim=24, heads=2, dim_head=12, cross_attention_dim_head=None if tokens is None else 12)
    layer = layer.to(dtype).requires_grad_(False)
    x = torch.randn(2, length, 24, dtype=dtype).requires_grad_(True)
    told = None if tokens is None else torch.randn(2, tokens, 24, dtype=dtype)
    angles = torch.rand(1, length, 1, 6).repeat_interleave(2, dim=-1)
    made = []
    for processor in (WanAttnProcessor(), Attention()):
        layer.set_processor(processor)
        x.grad = None
        output = layer(x, told, None, (angles.cos(), angles.sin()) if turned else None)
        output.float().square().sum().backward()
        made.append((output.detach(), x.grad))
    torch.testing.assert_close(made[0][0], made[1][0])
    torch.testing.assert_close(made[0][1], made[1][1])


def test_weights_of_norms_that_train_get_their_gradients():
    torch.manual_seed(0)
    layer = WanAttention(dim=24, heads=2, dim_head=12)
    angles, x = torch.rand(1, 40, 1, 6).repeat_interleave(2, dim=-1), torch.randn(2, 40, 24)
    made = []
    for processor in (WanAttnProcessor(), Attention()):
        layer.set_processor(processor)
        layer.zero_grad()
        layer(x, None, None, (angles.cos(), angles.sin())).square().sum().backward()
        made.append([parameter.grad for parameter in layer.parameters()])
    torch.testing.assert_close(*made)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("each_token_its_own", [False, True])
def test_a_block_is_that_of_diffusers(dtype, each_token_its_own):
    torch.manual_seed(0)
    theirs = WanTransformerBlock(24, 48, 2, cross_attn_norm=True).to(dtype).eval().requires_grad_(False)
    ours = in_fewer_passes(torch.nn.ModuleList([copy.deepcopy(theirs)]))[0]
    assert type(ours) is not type(theirs)
    x = torch.randn(2, 40, 24, dtype=dtype).requires_grad_(True)
    told, temb = torch.randn(2, 5, 24, dtype=dtype), torch.randn(2, *([40] if each_token_its_own else []), 6, 24)
    angles = torch.rand(1, 40, 1, 6).repeat_interleave(2, dim=-1)
    made = []
    for block in (theirs, ours):
        x.grad = None
        output = block(x, told, temb, (angles.cos(), angles.sin()))
        output.float().square().sum().backward()
        made.append((output.detach(), x.grad))
    torch.testing.assert_close(made[0], made[1])


def test_the_embedded_transformer_is_that_of_its_files():
    backbone = load_backbone("puppet-dit", "cpu")
    ours = backbone.denoiser
    theirs = WanTransformer3DModel.from_config(ours.config)
    theirs.load_state_dict(ours.state_dict())
    theirs.eval()
    assert sum(isinstance(module, SigmoidGELU) for module in ours.modules()) == ours.config.num_layers
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, ours.config.in_channels, 5, 8, 8, generator=generator)
    tokens = torch.randn(2, 5, ours.config.text_dim, generator=generator)
    with torch.no_grad():
        found, expected = (net(x, torch.tensor([900.0, 90.0]), tokens, return_dict=False)[0] for net in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_a_network_that_attends_to_an_image_is_not_taken():
    layer = WanAttention(dim=24, heads=2, dim_head=12, added_kv_proj_dim=24, cross_attention_dim_head=12)
    with pytest.raises(AssertionError, match="attends to an image"):
        in_fewer_passes(torch.nn.ModuleList([copy.deepcopy(layer)]))
