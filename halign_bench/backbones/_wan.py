"""What the models of the Wan family have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from halign_bench.backbones._schedules import check_prediction, flow_shift
from halign_bench.errors import RequestError
from halign_bench.inserts import Block

if TYPE_CHECKING:
    from halign_bench.backbones._diffusers import DiffusersBackbone

STEPS = 1000  # the network is told of noise levels as of steps of a training schedule that long
GUIDANCE = 5.0  # of diffusers' pipelines and of Wan's own code
TOKENS = 512  # of a prompt


def wan_prepare(backbone: DiffusersBackbone) -> None:
    """Checks the scheduler and reads its shift. Raises RequestError for Wan 2.2's pairs of networks."""
    pipeline = backbone.pipeline
    check_prediction(pipeline.scheduler, ("flow_prediction",), backbone.name)
    if getattr(pipeline, "transformer_2", None) is not None or backbone.denoiser is None:
        raise RequestError(
            f"{backbone.name}: this checkpoint has two networks, one for high and one for low noise, and one is "
            "aligned here; take a Wan 2.1"
        )
    if pipeline.config.get("expand_timesteps"):
        raise RequestError(f"{backbone.name}: noise levels for each token (Wan 2.2's 5B) are not known here")
    backbone.shift = flow_shift(pipeline.scheduler)


def wan_clip(backbone: DiffusersBackbone) -> tuple[int, tuple[int, int]]:
    """81 frames; 480p, or 720p for a checkpoint whose scheduler is shifted for that."""
    return 81, (480, 832) if backbone.shift <= 3 else (720, 1280)


def wan_text(backbone: DiffusersBackbone, prompts: list[str]) -> Tensor:
    made: Tensor = backbone.pipeline.encode_prompt(
        prompts, do_classifier_free_guidance=False, max_sequence_length=TOKENS, device=backbone.device
    )[0]
    return made


def wan_blocks(denoiser: Any) -> list[Block]:
    config = denoiser.config
    width = config.num_attention_heads * config.attention_head_dim
    return [
        Block(block.norm2, block.attn2, block.ffn, width, config.num_attention_heads, config.patch_size[1])
        for block in denoiser.blocks
    ]
