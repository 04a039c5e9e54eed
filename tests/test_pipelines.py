"""Published models sample here as their diffusers pipelines do: the same noise, conditions and steps, equal latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

from halign_bench.sampling import derived_seed, initial_noise, sample

STEPS, FRAMES, SIZE = 4, tiny_models.FRAMES, tiny_models.SIZE


def pictures(video: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in video]


def flow_scheduler(shift: float) -> Any:
    """Even sigmas from 1 to 0, before the shift: the harness's grid, shifted by diffusers."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    class Even(FlowMatchEulerDiscreteScheduler):
        def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
            super().set_timesteps(sigmas=np.linspace(1, 0, num_inference_steps + 1)[:-1].tolist(), device=device)

    return Even(shift=shift)


def theirs(backbone: Any, clip: Any, noise: torch.Tensor, guidance: float, output: str = "latent", **more: Any) -> Any:
    """Latents of the model's own pipeline, as the harness arranges them; or with `output` "np" its video."""
    pipe, name = backbone.pipeline, backbone.name
    reference = Image.fromarray(clip.reference)
    common = {"height": SIZE[0], "width": SIZE[1], "num_inference_steps": STEPS, "output_type": output, **more}
    if name == "svd":
        levels = backbone.levels.edm_sigma(torch.linspace(1, 0, STEPS + 1))
        generator = torch.Generator().manual_seed(derived_seed("noise augmentation", clip.id))
        made = pipe(
            reference, num_frames=FRAMES, fps=25, sigmas=levels.tolist(), max_guidance_scale=guidance,
            latents=noise.transpose(1, 2).clone(), generator=generator, **common,
        )  # fmt: skip
        return made.frames.transpose(1, 2) if output == "latent" else made.frames
    if name == "animatediff":
        from diffusers import DDIMScheduler

        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
        return pipe(clip.prompt, num_frames=FRAMES, guidance_scale=guidance, latents=noise, **common).frames
    given = {"prompt": clip.prompt, "guidance_scale": guidance}
    if name == "cogvideox":
        given |= {"image": reference} if backbone.from_image else {}
        latents = noise.transpose(1, 2)
        length = backbone.denoiser.config.max_text_seq_length
        made = pipe(num_frames=FRAMES, latents=latents, max_sequence_length=length, **given, **common)
        return made.frames.transpose(1, 2) if output == "latent" else made.frames
    pipe.scheduler = flow_scheduler(backbone.shift)
    pose = pictures(backbone.pose(clip))
    if name == "wan-vace":
        return pipe(
            video=pose, reference_images=[reference], num_frames=FRAMES, latents=noise, **given, **common
        ).frames
    if name == "wan-animate":
        raw = pipe(
            image=reference, pose_video=pose, face_video=pictures(backbone.face(clip)), segment_frame_length=FRAMES,
            latents=noise, **given, **common,
        ).frames  # fmt: skip
        return (raw - backbone.codec.mean) / backbone.codec.std if output == "latent" else raw
    given |= {"image": reference} if backbone.from_image else {}
    return pipe(num_frames=FRAMES, latents=noise, **given, **common).frames


@pytest.fixture
def one_first_frame(monkeypatch):
    """CogVideoX draws the first frame's latent from the encoder's distribution, where the harness takes its mode."""
    import diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video as image_to_video

    monkeypatch.setattr(image_to_video, "retrieve_latents", lambda encoded, _: encoded.latent_dist.mode())


@pytest.mark.parametrize("name", tiny_models.MODELS)
def test_a_sample_is_the_pipelines_own_with_guidance_and_without(published, name, one_first_frame):
    backbone, clip = published.load(name), tiny_models.clip(1)
    noise, condition = initial_noise(backbone, [clip.id], seed=3), backbone.condition([clip])
    made = {}
    for guidance, nfe in ((1.0, STEPS), (3.0, 2 * STEPS)):
        made[guidance] = sample(backbone, condition, noise, nfe=nfe, guidance=guidance)
        expected = theirs(backbone, clip, noise, guidance).float()
        torch.testing.assert_close(made[guidance], expected, rtol=1e-4, atol=1e-4)
    assert float((made[1.0] - made[3.0]).abs().max()) > 2e-3  # guidance is far above that tolerance


@pytest.mark.parametrize("name", tiny_models.MODELS)
def test_a_video_is_the_pipelines_own(published, name, one_first_frame):
    backbone, clip = published.load(name), tiny_models.clip(1)
    noise = initial_noise(backbone, [clip.id], seed=3)
    made = backbone.decode(sample(backbone, backbone.condition([clip]), noise, nfe=STEPS))
    expected = theirs(backbone, clip, noise, 1.0, "np")
    assert made.shape == expected.shape and made.std() > 1
    assert np.abs(made / 255 - expected).max() < 0.51 / 255 + 1e-3


@pytest.mark.parametrize("name", ["wan", "svd", "animatediff", "cogvideox", "cogvideox-1.5"])
def test_latents_are_scaled_alike_both_ways(published, name):
    backbone = published.load(name)
    vae, pixels = backbone.pipeline.vae, backbone.pixels(tiny_models.clip(0).video[None])
    with torch.no_grad():
        again = backbone.codec.decode(backbone.codec.encode(pixels))
        if backbone.codec.temporal == 1:
            frames = vae.encode(pixels[0].transpose(0, 1)).latent_dist.mode()
            told = {"num_frames": len(frames)} if name == "svd" else {}
            expected = vae.decode(frames, **told).sample.transpose(0, 1)[None]
        else:
            expected = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4)
    assert backbone.encode(tiny_models.clip(0).video[None]).shape[1:] == backbone.latent_shape()
