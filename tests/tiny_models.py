"""Tiny random checkpoints of published models, written by `save_pretrained` as their hubs have them: for tests only.

Layouts and scheduler configurations are the published ones (names in each function), sizes are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tiny_parts import WORDS, clip_processor, clip_tokenizer, clip_vision, t5_encoder, t5_tokenizer

FRAMES, SIZE = 9, (32, 32)


def wan_vae() -> Any:
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[-0.1, 0.2, 0.05, -0.3], latents_std=[0.9, 1.1, 0.7, 1.3],
    )  # fmt: skip
    return vae.eval()


def wan_scheduler() -> Any:
    """Of Wan-AI/Wan2.1-T2V-1.3B-Diffusers."""
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


WAN = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "out_channels": 4, "text_dim": 16,
    "freq_dim": 16, "ffn_dim": 32, "num_layers": 2, "cross_attn_norm": True, "rope_max_seq_len": 32,
}  # fmt: skip


def wan(image: bool = False, clip: bool = False) -> Any:
    """Wan-AI/Wan2.1-T2V-1.3B-Diffusers; `image` Wan-AI/Wan2.1-I2V-14B-480P-Diffusers, which has a `clip` encoder."""
    from diffusers import WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel

    more = {"image_dim": 16, "added_kv_proj_dim": 24} if clip else {}
    transformer = WanTransformer3DModel(in_channels=12 if image else 4, **more, **WAN).eval()
    parts = {
        "tokenizer": t5_tokenizer(), "text_encoder": t5_encoder("UMT5EncoderModel"), "vae": wan_vae(),
        "scheduler": wan_scheduler(), "transformer": transformer,
    }  # fmt: skip
    if not image:
        return WanPipeline(**parts)
    seeing = {"image_encoder": clip_vision(), "image_processor": clip_processor()} if clip else {}
    return WanImageToVideoPipeline(**parts, **seeing)


def wan_vace() -> Any:
    """Wan-AI/Wan2.1-VACE-1.3B-diffusers."""
    from diffusers import WanVACEPipeline, WanVACETransformer3DModel

    transformer = WanVACETransformer3DModel(
        in_channels=4, vace_layers=[0, 1], vace_in_channels=2 * 4 + 64, **WAN
    ).eval()
    return WanVACEPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5_encoder("UMT5EncoderModel"), vae=wan_vae(),
        scheduler=wan_scheduler(), transformer=transformer,
    )  # fmt: skip


def wan_animate() -> Any:
    """Wan-AI/Wan2.2-Animate-14B-Diffusers."""
    from diffusers import WanAnimatePipeline, WanAnimateTransformer3DModel

    transformer = WanAnimateTransformer3DModel(
        **WAN, in_channels=12, latent_channels=4, image_dim=16, added_kv_proj_dim=24, motion_encoder_size=16,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8}, motion_style_dim=8, motion_dim=4, motion_encoder_dim=8,
        face_encoder_hidden_dim=16, face_encoder_num_heads=2, inject_face_latents_blocks=2,
    ).eval()  # fmt: skip
    return WanAnimatePipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5_encoder("UMT5EncoderModel"), vae=wan_vae(),
        scheduler=wan_scheduler(), transformer=transformer, image_encoder=clip_vision(),
        image_processor=clip_processor(),
    )  # fmt: skip


def svd() -> Any:
    """stabilityai/stable-video-diffusion-img2vid-xt."""
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )  # fmt: skip

    unet = UNetSpatioTemporalConditionModel(
        sample_size=8, in_channels=8, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24, cross_attention_dim=12, num_attention_heads=(2, 4), num_frames=6,
    ).eval()  # fmt: skip
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=1,
        latent_channels=4, sample_size=64, force_upcast=True, scaling_factor=0.18215,
    ).eval()  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_end=0.012, beta_schedule="scaled_linear", beta_start=0.00085, interpolation_type="linear",
        num_train_timesteps=1000, prediction_type="v_prediction", sigma_max=700.0, sigma_min=0.002, steps_offset=1,
        timestep_spacing="leading", timestep_type="continuous", use_karras_sigmas=True,
    )  # fmt: skip
    return StableVideoDiffusionPipeline(
        vae=vae, image_encoder=clip_vision(224, projection=True), unet=unet, scheduler=scheduler,
        feature_extractor=clip_processor(224),
    )  # fmt: skip


def animatediff() -> Any:
    """guoyww/animatediff-motion-adapter-v1-5-2 in a Stable Diffusion 1.5, as diffusers' documentation joins them."""
    from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, norm_num_groups=4, attention_head_dim=4,
    )  # fmt: skip
    adapter = MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_norm_num_groups=4, motion_num_attention_heads=2,
        motion_max_seq_length=32,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, sample_size=64, norm_num_groups=4,
        layers_per_block=1,
    ).eval()  # fmt: skip
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(WORDS) + 2, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )).eval()  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False, timestep_spacing="linspace",
        steps_offset=1,
    )  # fmt: skip
    return AnimateDiffPipeline(
        vae=vae, text_encoder=text, tokenizer=clip_tokenizer(), unet=unet, motion_adapter=adapter, scheduler=scheduler
    )


def cogvideox(image: bool = False, newer: bool = False) -> Any:
    """THUDM/CogVideoX-2b; `image` THUDM/CogVideoX-5b-I2V; `newer` THUDM/CogVideoX1.5-5B and its -I2V."""
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXImageToVideoPipeline,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )  # fmt: skip

    more = {"patch_size_t": 2, "patch_bias": False, "ofs_embed_dim": 8 if image else None} if newer else {}
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=8 if image else 4, out_channels=4, time_embed_dim=8,
        text_embed_dim=16, num_layers=2, sample_width=4, sample_height=4, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=16, use_rotary_positional_embeddings=image or newer,
        use_learned_positional_embeddings=image and not newer, **more,
    ).eval()  # fmt: skip
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4, latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4, scaling_factor=0.7 if image or newer else 1.15258426, sample_height=32,
        sample_width=32, invert_scale_latents=image and newer,
    ).eval()  # fmt: skip
    scheduler = CogVideoXDDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=1.0 if image or newer else 3.0,
        timestep_spacing="trailing",
    )  # fmt: skip
    parts = {
        "tokenizer": t5_tokenizer(), "text_encoder": t5_encoder(), "vae": vae, "transformer": transformer,
        "scheduler": scheduler,
    }  # fmt: skip
    return (CogVideoXImageToVideoPipeline if image else CogVideoXPipeline)(**parts)


MODELS: dict[str, Callable[[], Any]] = {
    "wan": wan, "wan-i2v": lambda: wan(image=True), "wan-i2v-clip": lambda: wan(image=True, clip=True),
    "wan-vace": wan_vace, "wan-animate": wan_animate, "svd": svd, "animatediff": animatediff, "cogvideox": cogvideox,
    "cogvideox-i2v": lambda: cogvideox(image=True), "cogvideox-1.5": lambda: cogvideox(newer=True),
    "cogvideox-1.5-i2v": lambda: cogvideox(image=True, newer=True),
}  # fmt: skip
BACKBONE = {name: name.split("-i2v")[0].removesuffix("-1.5") for name in MODELS}


def clip(index: int) -> Any:
    """A clip of conformance's whose skeleton has a face: `nose` and `neck`."""
    from halign_bench.conformance.samples import sample_clip

    made = sample_clip(index, FRAMES, SIZE)
    assert made.layout is not None
    return replace(made, layout=replace(made.layout, body=("nose", "neck")))


def choice(folder: Path, audio_encoder: Path) -> Any:
    from halign_bench.model_choice import ModelChoice

    return ModelChoice(str(folder), str(audio_encoder), FRAMES, SIZE)


def save(name: str, folder: Path) -> Path:
    """Writes the model there, random weights of the same seed each time, none of them zero."""
    torch.manual_seed(0)
    pipeline = MODELS[name]()
    for component in (pipeline.components[key] for key in ("transformer", "unet") if key in pipeline.components):
        for key, parameter in component.named_parameters():
            if not parameter.any():  # zero-initialised layers would hide what reaches them
                torch.nn.init.normal_(parameter, std=0.1)
            if "attn2" in key and parameter.ndim == 2:  # so that a prompt of random numbers is heard
                parameter.data *= 4
    pipeline.save_pretrained(folder)
    return folder
