"""What the models of the Wan family have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from halign_bench.backbone import Condition
from halign_bench.backbones._codecs import WanCodec
from halign_bench.backbones._diffusers import DiffusersBackbone
from halign_bench.backbones._schedules import check_prediction, flow_shift
from halign_bench.inserts import Block

STEPS = 1000  # the network is told of noise levels as of steps of a training schedule that long
TOKENS = 512  # of a prompt


class WanFamily(DiffusersBackbone):
    """Flow matching on the latents of `AutoencoderKLWan`; t is sigma. A model says what `inputs` its network has."""

    parameterisation = "flow"
    guidance = 5.0  # of diffusers' pipelines and of Wan's own code

    @classmethod
    def refusal(cls, index: Mapping[str, Any]) -> str | None:
        if any(index.get("transformer_2") or ()):
            return "has two networks, one for high and one for low noise, and one is aligned here; take a Wan 2.1"
        if index.get("expand_timesteps"):
            return "has noise levels for each token (Wan 2.2's 5B), which are not known here"
        return super().refusal(index)

    def prepare(self) -> None:
        check_prediction(self.pipeline.scheduler, "flow_prediction", self.name)
        self.shift = flow_shift(self.pipeline.scheduler)
        self.codec = WanCodec(self.pipeline.vae)

    def own_clip(self) -> tuple[int, tuple[int, int]]:
        """81 frames; 480p, or 720p for a checkpoint whose scheduler is shifted for that."""
        return 81, (480, 832) if self.shift <= 3 else (720, 1280)

    def cell(self) -> int:
        return self.codec.spatial * int(self.denoiser.config.patch_size[1])

    def encode_text(self, prompts: list[str]) -> Tensor:
        made: Tensor = self.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=TOKENS, device=self.device
        )[0]
        return made

    def inputs(self, x_t: Tensor, condition: Condition) -> dict[str, Tensor]:
        """What the network is given beside the noise level and the prompt."""
        raise NotImplementedError

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        inputs = {"encoder_hidden_states": condition["text"], **self.inputs(x_t, condition)}
        dtype = self.denoiser.dtype
        made: Tensor = self.denoiser(
            timestep=t * STEPS, return_dict=False, **{name: value.to(dtype) for name, value in inputs.items()}
        )[0]
        return made

    @staticmethod
    def blocks_of(denoiser: Any) -> list[Block]:
        config = denoiser.config
        width = config.num_attention_heads * config.attention_head_dim
        return [
            Block(block.norm2, block.attn2, block.ffn, width, config.num_attention_heads, config.patch_size[1])
            for block in denoiser.blocks
        ]
