"""The contract of a backbone: one small interface around a diffusers model and its codec."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from halign_bench.track import Clip

if TYPE_CHECKING:
    import numpy as np
    import torch

    from halign_bench.inserts import Block

Condition = dict[str, "torch.Tensor"]
"""Batched tensors by name, batch first; what is absent is zero. Names that methods know:

reference, skeleton  at the latents' own rate
audio                `[B, T, F]`, features of each video frame; optional
skeleton_frames      `[B, T, C, H, W]`, the skeleton of each video frame, drawn and encoded on its own; optional
"""

Denoiser = Callable[["torch.Tensor", "torch.Tensor", Condition], "torch.Tensor"]
"""(x_t `[B, C, T, H, W]`, t `[B]` in [0, 1], condition) -> prediction like x_t. t = 1 is pure noise."""

Parameterisation = Literal["flow", "epsilon", "v"]
Precision = Literal["fp32", "bf16"]


def native_precision(device: str) -> Precision:
    """bf16 where the device multiplies it natively (CUDA from Ampere on, processors with AMX), else fp32."""
    import torch

    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return "bf16" if native else "fp32"


class Backbone:
    """encode, decode, predict, and what a LoRA attaches to.

    frames          T = 1 + 4n the model is built for
    denoiser        the diffusers model (an nn.Module); adapters are attached to it by peft
    lora_targets    names of its linear layers that take a LoRA
    component       what a diffusers pipeline calls such a network; saved LoRAs carry it, so that a pipeline takes them
    base_sha256     of the base checkpoint, written into every record
    guidance        classifier-free guidance at which the harness samples the model, 1 is off
    shift           how much more of its sampling steps are spent on high noise (`sampling.timesteps`), 1 is evenly
    needs_model     whether it has no weights of its own, so that a person says which
    slots           latent frames in front of the clip's own that hold the reference, for a model that is made so
    precision       what the harness multiplies in: set by a run to what the device does natively
    checkpointing   whether blocks run again in training's backward pass instead of keeping what they computed: less
                    memory, one more pass. Off unless the backbone says so
    compiled        whether blocks are compiled while a LoRA trains (`halign_bench.compiling`): set by a run that is
                    asked to
    """

    kind: ClassVar[str] = "backbone"
    name: ClassVar[str]
    summary: ClassVar[str] = ""
    parameterisation: ClassVar[Parameterisation]
    lora_targets: ClassVar[tuple[str, ...]]
    component: ClassVar[str] = "transformer"
    needs_model: ClassVar[bool] = False
    guidance: ClassVar[float] = 1.0
    shift: float = 1.0
    slots: int = 0

    frames: int
    size: tuple[int, int]
    denoiser: torch.nn.Module
    base_sha256: str
    device: str
    precision: Precision = "fp32"
    checkpointing: bool = False
    compiled: bool = False

    @classmethod
    def load(cls, checkpoint: str | Path | None = None, device: str = "cpu") -> Backbone:
        """The base: the shipped one, or a folder (published models: or an id on the hub).

        A backbone that leaves more open to the person names it in its signature: `frames` and `size` (height, width)
        of a clip, `audio_encoder`, all None for its own. Raises RequestError.
        """
        raise NotImplementedError

    def encode(self, videos: np.ndarray) -> torch.Tensor:
        """uint8 `[B, T, H, W, 3]` -> float32 latents `[B, *latent_shape()]`, about unit variance.

        1 + (T-1)/4 latent frames, or T where the codec is one of images, behind the slots.
        """
        raise NotImplementedError

    def encode_clips(self, clips: Sequence[Clip]) -> torch.Tensor:
        """Clean latents of real clips, as training needs them; with slots their references are known here."""
        import numpy as np

        return self.encode(np.stack([clip.video for clip in clips]))

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents -> uint8 `[B, T, H, W, 3]`."""
        raise NotImplementedError

    def condition(self, clips: Sequence[Clip]) -> Condition:
        """Everything the model is told about each clip, computed once."""
        raise NotImplementedError

    def unconditional(self, condition: Condition) -> Condition:
        """The second branch of classifier-free guidance (audio off, skeleton and reference kept)."""
        raise NotImplementedError

    def encoders(self) -> Sequence[torch.nn.Module]:
        """Modules that only `encode`, `decode` and `condition` need: off the device while nothing does."""
        return ()

    def latent_shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of one latent, slots included."""
        raise NotImplementedError

    def blocks(self) -> Sequence[Block]:
        """Where a method's own module can add to what the network computes; none by default."""
        return ()

    def guided(self, conditional: torch.Tensor, unconditional: torch.Tensor, guidance: float) -> torch.Tensor:
        """One prediction of two, classifier-free (arXiv 2207.12598)."""
        return unconditional + guidance * (conditional - unconditional)

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        """The network once, in this backbone's parameterisation, with whatever LoRAs are active."""
        raise NotImplementedError

    def denoise(self, x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        """`predict` in the working precision, as policy and reference, training and sampling alike call it."""
        from halign_bench.inserts import running

        with self.autocast(), running(self.denoiser, self.blocks, x_t, condition, self.slots):
            return self.predict(x_t, t, condition)

    @contextmanager
    def without_encoders(self) -> Iterator[None]:
        """Within the context `encoders` are on the host, where their weights stay once they have been there."""
        from halign_bench.residence import Hosted

        if not hasattr(self, "_hosted"):
            self._hosted = Hosted(self.encoders())
        with self._hosted.aside(self.device):
            yield

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """bf16 arithmetic on fp32 weights where `precision` says so."""
        if self.precision == "fp32":
            yield
            return
        import torch
        from peft.helpers import disable_input_dtype_casting

        # A LoRA layer would make its input fp32 for autocast to round it again: the same numbers, a third slower.
        with torch.autocast(torch.device(self.device).type, torch.bfloat16), disable_input_dtype_casting(self.denoiser):
            yield

    # What follows from the parameterisation alone.

    def alpha_sigma(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of signal and noise in x_t = alpha·x0 + sigma·noise. Flow: (1 - t, t)."""
        return 1 - t, t

    def add_noise(self, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (w.view(-1, *[1] * (x0.ndim - 1)) for w in self.alpha_sigma(t))
        return alpha * x0 + sigma * noise

    def target(self, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What the network should predict: flow noise - x0, epsilon noise, v alpha·noise - sigma·x0."""
        if self.parameterisation == "flow":
            return noise - x0
        if self.parameterisation == "epsilon":
            return noise
        alpha, sigma = (w.view(-1, *[1] * (x0.ndim - 1)) for w in self.alpha_sigma(t))
        return alpha * noise - sigma * x0

    # Adapters: the reference is these same weights with every adapter off.

    def adapters(self, active: Sequence[str], fused: bool = False) -> AbstractContextManager[None]:
        """Within the context exactly these adapters are active; none of them means the reference.

        fused  the weights carry the LoRAs: faster, without gradients, equal but for rounding
        """
        from halign_bench.adapters import active_adapters, fused_adapters

        return (fused_adapters if fused else active_adapters)(self.denoiser, active)
