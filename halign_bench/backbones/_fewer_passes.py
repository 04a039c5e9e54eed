"""Layers of diffusers' Wan network in fewer passes over memory, for CPUs: the same numbers but for rounding.

Beside the products of so narrow a network all else is dear on a CPU: as diffusers and torch compute them, the rotation
of queries and keys takes half as long as the product that made them, and so does the tanh of an activation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.models.activations import GELU
from diffusers.models.transformers import transformer_wan
from torch import Tensor
from torch.nn import functional as F

LINEAR = torch.tensor(2 * math.sqrt(2 / math.pi))  # u = LINEAR·x + CUBIC·x³ is twice what the tanh is taken of
CUBIC = 0.044715 * float(LINEAR)
FEW = 32  # keys of all heads together, up to which all heads in one product are faster than one by one


def fits(x: Tensor) -> bool:
    """Whether x is what these layers are for; with anything else they do as diffusers' do."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


class Gelu(torch.autograd.Function):
    """`gelu(x, approximate="tanh")` as x·σ(u), since ½·(1 + tanh(u/2)) = σ(u); x of any shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gate = torch.addcmul(LINEAR, x, x, value=CUBIC).mul_(x).sigmoid_()
        if not ctx.needs_input_grad[0]:
            return gate.mul_(x)
        made = gate * x  # and its slope, σ + x·σ·(1 - σ)·du/dx, while all that it is made of is at hand
        slope = torch.addcmul(LINEAR, x, x, value=3 * CUBIC).mul_(made)
        ctx.save_for_backward(slope.addcmul_(slope, gate, value=-1).add_(gate))
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0]


class SigmoidGELU(GELU):
    """diffusers' layer: a linear one and the activation after it."""

    def gelu(self, gate: Tensor) -> Tensor:
        if not fits(gate):
            made: Tensor = super().gelu(gate)
        elif torch.compiler.is_compiling():
            made = gate * torch.sigmoid(gate * (LINEAR + CUBIC * gate * gate))  # one pass, and its gradient another
        else:
            made = Gelu.apply(gate)
        return made


class NormedAndTurned(torch.autograd.Function):
    """Rows of x `[B, N, W]` divided by their root mean square, times w `[W]`; then neighbouring features `[…, 2i]`,
    `[…, 2i+1]` as complex numbers times `turn` `[1, N, 1, D/2]`, where there is one, for each of W/D heads.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, turn: Tensor | None) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        made = (x * inverse).mul_(weight)
        if turn is not None:
            _pairs(made, turn).mul_(turn)
        ctx.save_for_backward(x, weight, inverse, turn)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse, turn = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        if turn is not None:
            gradient = torch.view_as_real(_pairs(gradient, turn) * turn.conj()).view(x.shape)
        of_x = gradient * weight
        along = (of_x * x).sum(dim=-1, keepdim=True).mul_(inverse.pow(3)).div_(x.shape[-1])
        return of_x.mul_(inverse).addcmul_(x, along, value=-1), None, None, None


def _pairs(x: Tensor, turn: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (-1, turn.shape[-1], 2)))


def normed(norm: torch.nn.RMSNorm, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> Tensor:
    """`[B, N, W]` of x `[B, N, W]` by `norm`, and turned by angles whose cosines and sines `[1, N, 1, D]` are given,
    each twice."""
    turn = None if angles is None else (angles[0][..., 0::2], angles[1][..., 1::2])
    if fits(x) and not (norm.weight.requires_grad or torch.compiler.is_compiling()):
        made: Tensor = NormedAndTurned.apply(x, norm.weight, norm.eps, None if turn is None else torch.complex(*turn))
        return made
    made = norm(x)
    if turn is None:
        return made
    cos, sin = turn
    even, odd = made.unflatten(-1, (-1, cos.shape[-1], 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).type_as(x).flatten(2)


def attended_few(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention of queries `[B, N, W]` to few keys and values `[B, M, W]`, with all heads in one product, which has
    zeros where a head meets another's features; `[B, N, W]`.
    """
    width = key.shape[-1] // heads
    own = torch.eye(heads, dtype=key.dtype, device=key.device).repeat_interleave(width, dim=1)  # [heads, W]
    keys, values = ((each.unsqueeze(2) * own).flatten(1, 2) for each in (key * width**-0.5, value))  # [B, M·heads, W]
    scores = torch.bmm(keys, query.transpose(1, 2))
    shares = scores.unflatten(1, (-1, heads)).softmax(dim=1).flatten(1, 2)
    return torch.bmm(shares.transpose(1, 2), values)


class Attention:
    """What diffusers' `WanAttnProcessor` computes where no image is attended to."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        told = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = normed(attn.norm_q, attn.to_q(hidden_states), rotary_emb)
        key, value = normed(attn.norm_k, attn.to_k(told), rotary_emb), attn.to_v(told)
        if fits(query) and attention_mask is None and key.shape[1] * attn.heads <= FEW:
            attended = attended_few(query, key, value, attn.heads)
        else:
            query, key, value = (each.unflatten(2, (attn.heads, -1)).transpose(1, 2) for each in (query, key, value))
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
            attended = attended.transpose(1, 2).flatten(2)
        made: Tensor = attn.to_out[0](attended.type_as(query))
        return made


class WanTransformerBlock(transformer_wan.WanTransformerBlock):
    """diffusers' block: what is modulated and gated is so in one pass, where each clip has one `temb` `[B, 6, W]`."""

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary_emb: tuple[Tensor, Tensor]
    ) -> Tensor:
        if not fits(hidden_states) or temb.ndim == 4:
            made: Tensor = super().forward(hidden_states, encoder_hidden_states, temb, rotary_emb)
            return made
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (self.scale_shift_table + temb).chunk(6, dim=1)
        x = hidden_states
        x = torch.addcmul(x, self.attn1(modulated(self.norm1, x, scale, shift), None, None, rotary_emb), gate)
        x = x + self.attn2(self.norm2(x), encoder_hidden_states, None, None)
        return torch.addcmul(x, self.ffn(modulated(self.norm3, x, ffn_scale, ffn_shift)), ffn_gate)


def modulated(norm: torch.nn.LayerNorm, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`[B, N, W]` of x `[B, N, W]` by a norm without weights, times 1 + scale `[B, 1, W]`, plus shift `[B, 1, W]`."""
    width = x.shape[-1:]
    # With weights of one torch's norm takes two thirds of the time that it takes without any.
    made = F.layer_norm(x, width, x.new_ones(width), x.new_zeros(width), norm.eps)
    return torch.addcmul(shift, made, 1 + scale)


def in_fewer_passes(denoiser: torch.nn.Module) -> torch.nn.Module:
    """`denoiser`, a WanTransformer3DModel that attends to no image, with these layers; its weights and files stay."""
    for module in denoiser.modules():
        if isinstance(module, transformer_wan.WanAttention):
            assert module.add_k_proj is None, "attends to an image"
            module.set_processor(Attention())
        elif type(module) is transformer_wan.WanTransformerBlock:
            module.__class__ = WanTransformerBlock  # of that name, by which diffusers finds blocks
        elif type(module) is GELU and module.approximate == "tanh":
            module.__class__ = SigmoidGELU
    return denoiser


__all__ = ["Attention", "SigmoidGELU", "in_fewer_passes"]
