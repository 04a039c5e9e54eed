"""The embedded backbone: codec, conditions, checkpoint folder, and the recipe that makes it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from halign_bench.audio import log_mel
from halign_bench.backbones.puppet_dit import PuppetDiT, make_transformer, subsampled_audio
from halign_bench.codec import PATCH, PuppetCodec, from_patches, to_patches
from halign_bench.errors import RequestError
from halign_bench.pretrain import Recipe, main
from halign_bench.tracks.puppet import PuppetTrack

TINY = Recipe(
    latent_channels=8, codec_width=8, codec_clips=8, codec_steps=2, codec_batch=2, clips=8, width=24, layers=1, heads=2,
    steps=4, batch=2,
)  # fmt: skip


def tiny_backbone() -> PuppetDiT:
    torch.manual_seed(0)
    return PuppetDiT(make_transformer(8, 24, 1, 2), PuppetCodec(8, 8), "untrained")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return main(tmp_path_factory.mktemp("base"), TINY, workers=1)


def test_patches_invert():
    video = torch.rand(2, 3, 9, 16, 24)
    patches = to_patches(video)
    assert patches.shape == (2, PATCH, 3, 2, 3)
    assert torch.equal(from_patches(patches), video)


@pytest.mark.parametrize("shape", [(1, 3, 16, 64, 64), (1, 3, 17, 60, 64)])
def test_a_clip_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match="T = 1 \\+ 4n"):
        to_patches(torch.zeros(shape))


def test_encoding_is_causal():
    """What follows does not change the latents of what went before: the Wan VAE's contract."""
    codec = PuppetCodec(8, 8)
    codec.fit(torch.randn(2000, PATCH), torch.ones(2000))
    video = torch.rand(1, 3, 17, 16, 16)
    assert torch.allclose(codec.encode(video)[:, :, :3], codec.encode(video[:, :, :9]), atol=1e-6)


def test_codec_without_training_is_the_linear_projection():
    codec = PuppetCodec(PATCH, 8)
    codec.fit(torch.randn(4000, PATCH), torch.ones(4000))
    video = torch.rand(1, 3, 5, 16, 16)
    assert torch.allclose(codec.decode(codec.encode(video)), video, atol=1e-4)


def test_audio_token_k_is_frame_4k_with_its_neighbours():
    features = torch.arange(17.0).view(1, 17, 1)
    tokens = subsampled_audio(features)
    assert tokens[0].tolist() == [[0, 0, 1], [3, 4, 5], [7, 8, 9], [11, 12, 13], [15, 16, 0]]


def test_log_mel_is_per_frame_and_pads_with_silence():
    tone = np.sin(2 * np.pi * 440 * np.arange(17 * 640) / 16000).astype(np.float32)
    features = log_mel(tone, 17)
    assert features.shape == (17, 20) and features.dtype == np.float32
    short = log_mel(tone[: 8 * 640], 17)
    assert np.allclose(short[:7], features[:7])
    assert (short[9:] == short[9, 0]).all() and short[9, 0] < features.max() - 1


def test_shapes_and_missing_conditions():
    backbone, track = tiny_backbone(), PuppetTrack()
    clips = [track.clip("eval", 0), replace(track.clip("eval", 1), audio=None, skeleton=None)]
    condition = backbone.condition(clips)
    assert backbone.latent_shape() == (8, 5, 8, 8)
    assert condition["skeleton"].shape == (2, 8, 5, 8, 8) and condition["reference"].shape == (2, 8, 1, 8, 8)
    assert condition["skeleton"][1].abs().max() == 0 and condition["audio"][1].abs().max() == 0
    assert condition["audio"][0].abs().max() > 0
    out = backbone.predict(torch.randn(2, 8, 5, 8, 8), torch.tensor([0.3, 0.9]), condition)
    assert out.shape == (2, 8, 5, 8, 8)
    without = backbone.unconditional(condition)
    assert without["audio"].abs().max() == 0 and without["skeleton"] is condition["skeleton"]
    video = backbone.decode(backbone.encode(np.stack([clip.video for clip in clips])))
    assert video.shape == (2, 17, 64, 64, 3) and video.dtype == np.uint8


def test_recipe_makes_a_loadable_base(pretrained):
    backbone = PuppetDiT.load(pretrained)
    card = json.loads((pretrained / "base.json").read_text())
    assert card["base_sha256"] == backbone.base_sha256 and card["recipe"]["seed"] == 0
    assert not any(p.requires_grad for p in backbone.denoiser.parameters())


def test_pretraining_killed_between_steps_ends_with_the_same_weights(pretrained, tmp_path):
    class Killed(Exception):
        pass

    def stop(stage, done, total, numbers):
        if stage == "base" and done == 3:
            raise Killed

    with pytest.raises(Killed):
        main(tmp_path, TINY, workers=1, report=stop)
    again = PuppetDiT.load(main(tmp_path, TINY, workers=1))
    assert again.base_sha256 == PuppetDiT.load(pretrained).base_sha256


def test_another_recipe_in_the_same_folder_is_refused(pretrained):
    with pytest.raises(RequestError, match="another recipe"):
        main(pretrained, replace(TINY, seed=1), workers=1)


def test_missing_and_damaged_checkpoints_are_one_sentence(pretrained, tmp_path):
    with pytest.raises(RequestError, match="is missing; make it with `halign-bench pretrain`"):
        PuppetDiT.load(tmp_path)
    backbone = PuppetDiT.load(pretrained)
    backbone.save(tmp_path)
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(RequestError, match="cannot be read"):
        PuppetDiT.load(tmp_path)
