"""A LoRA layer that costs little beside its base: peft's formula in fewer passes over memory.

peft computes `base(x) + lora_B(lora_A(x)) * scaling`: three passes over an output as wide as the base's, and as many of
its gradient. Here the small product is added within the large one's memory or is part of it, forward and backward, to
the same numbers but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional as F

from halign_bench.products import OneDnnLinear, product


class AddedProduct(torch.autograd.Function):
    """x·Wᵀ + b + (x·Aᵀ)·Bᵀ for a frozen W `[out, in]` and b `[out]` or None: x `[…, in]`, A `[r, in]`, B `[out, r]`.

    x, A and B are of one type; W and b are taken to it when they are needed, and not kept in it. Where B is 0 the
    output is the base's to the bit: β would make a logit of any rounding.

    onednn  whether the base's product is `halign_bench.products.product`
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, onednn: bool
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        small = rows @ a.T
        ctx.save_for_backward(rows, weight, a, b, small)
        ctx.times = product if onednn else F.linear
        made = ctx.times(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype)).contiguous()
        made.view(-1, len(b)).addmm_(small, b.T)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, small = ctx.saved_tensors
        shape, wanted = gradients[0].shape[:-1], ctx.needs_input_grad
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        of_small = gradient @ b
        of_x = ctx.times(gradient, weight.to(x.dtype).T).addmm_(of_small, a) if wanted[0] else None
        of_a = of_small.T @ x if wanted[3] else None
        of_b = (small.T @ gradient).T if wanted[4] else None
        return None if of_x is None else of_x.view(*shape, -1), None, None, of_a, of_b, None


class MergedProduct(torch.autograd.Function):
    """The same as x·(W + B·A)ᵀ + b, for many rows of fp32: two of the six small products are in the large ones then,
    and no output is written twice. Half precision would round B·A away.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, onednn: bool
    ) -> Tensor:
        merged = torch.addmm(weight, b, a)
        ctx.times = product if onednn else F.linear
        # Needed for B's gradient alone, but x is in the processor's cache now.
        small = ctx.times(x.reshape(-1, x.shape[-1]), a) if ctx.needs_input_grad[4] else None
        ctx.save_for_backward(x, merged, b, small)
        made: Tensor = ctx.times(x, merged, bias)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, b, small = ctx.saved_tensors
        rows, wanted = x.reshape(-1, x.shape[-1]), ctx.needs_input_grad
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        # Transposed in memory once: as a view a wide layer's takes a fifth longer.
        of_x = ctx.times(gradient, merged.T.contiguous()).view(x.shape) if wanted[0] else None
        of_a = ctx.times(gradient, b.T).T @ rows if wanted[3] else None
        of_b = (small.T @ gradient).T if wanted[4] else None
        return of_x, None, None, of_a, of_b, None


class LoRALinear(Linear):
    """peft's layer, of the same parameters, switches and files; whatever the two products do not do, peft's does."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base = self.base_layer
        names = [] if self.disable_adapters else [name for name in self.active_adapters if name in self.lora_A]
        if not names and not self.merged:
            made: Tensor = base(x)
            return made
        if args or kwargs or self.merged or base.weight.requires_grad:
            peft: Tensor = super().forward(x, *args, **kwargs)
            return peft
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else base.weight.dtype
        scales = ((self.lora_B[name].weight, self.scaling[name]) for name in names)
        scaled = [weight if scale == 1 else weight * scale for weight, scale in scales]
        a = torch.cat([self.lora_A[name].weight for name in names]) if len(names) > 1 else self.lora_A[names[0]].weight
        b = torch.cat(scaled, dim=1) if len(names) > 1 else scaled[0]
        if not torch.is_grad_enabled():  # parameters would else ask for what only their gradients need
            a, b = a.detach(), b.detach()
        x = x.to(dtype)
        onednn = isinstance(base, OneDnnLinear) and base.fits(x)
        # So many rows that a matrix like the weight is small beside them.
        many = dtype == base.weight.dtype == torch.float32 and x.numel() >= max(base.weight.shape) * x.shape[-1]
        with torch.autocast(kind, enabled=False):
            way = MergedProduct if many else AddedProduct
            both: Tensor = way.apply(x, base.weight, base.bias, a.to(dtype), b.to(dtype), onednn)
        return both


def adopt(module: nn.Module) -> None:
    """Makes peft's plain LoRA layers of `module` such ones: those of a `torch.nn.Linear`, without dropout."""
    for layer in module.modules():
        plain = type(layer) is Linear and type(layer.get_base_layer()) in (nn.Linear, OneDnnLinear)
        if plain and not any(isinstance(each, nn.Dropout) for each in layer.lora_dropout.values()):
            layer.__class__ = LoRALinear


__all__ = ["AddedProduct", "LoRALinear", "adopt"]
