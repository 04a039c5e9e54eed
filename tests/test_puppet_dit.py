"""The embedded backbone: codec, conditions, checkpoint folder, and the recipe that makes it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from halign_bench.metrics.sync_c import clip_sync

from halign_bench.audio import log_mel
from halign_bench.audio_encoder import AudioEncoder, draw_lips
from halign_bench.backbone import native_precision
from halign_bench.backbones._puppet import lips_channels, subsampled_audio
from halign_bench.backbones.puppet_dit import PuppetDiT
from halign_bench.codec import PATCH, PuppetCodec, from_patches, to_patches
from halign_bench.errors import RequestError
from halign_bench.masks import mouth_mask
from halign_bench.pretrain import Recipe, main
from halign_bench.sampling import initial_noise, sample
from halign_bench.tracks.puppet import PuppetTrack
from halign_bench.tracks.puppet.clips import take
from halign_bench.tracks.puppet.evaluators import load as load_extractors

TINY = Recipe(
    latent_channels=8, codec_width=8, codec_clips=8, codec_steps=2, codec_batch=2, audio_clips=8, audio_steps=2,
    audio_width=8, clips=8, width=24, layers=1, heads=2, steps=4, batch=2,
)  # fmt: skip


def tiny_backbone() -> PuppetDiT:
    torch.manual_seed(0)
    return PuppetDiT(PuppetDiT.new_network(8, 24, 1, 2), PuppetCodec(8, 8), AudioEncoder(8), "untrained")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon to pretrain with")
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


def test_lips_are_as_wide_and_open_as_asked_and_where_asked():
    shape = np.array([[0.0, 0.5], [1.0, 0.5], [1.0, 1.0]])
    shut, opened, wide = draw_lips(shape, np.array([[20.0, 30.0]] * 3), np.full(3, 20.0), (64, 48))
    assert shut.shape == (64, 48) and shut.min() >= 0 and shut.max() <= 1
    for picture, area in ((shut, 6 * 1), (opened, 6 * 7), (wide, 8 * 7)):
        assert picture.sum() == pytest.approx(np.pi * area, rel=0.1)  # of an ellipse, by its half axes
        y, x = ((np.indices(picture.shape) + 0.5) * picture).sum((1, 2)) / picture.sum()
        assert (x, y) == pytest.approx((20, 30), abs=0.1)


@pytest.mark.parametrize(("frame", "latent", "picture"), [(0, 0, 2), (5, 2, 0), (7, 2, 1), (8, 2, 2), (6, None, None)])
def test_lips_channels_hold_the_heard_frames_on_the_pixels_of_the_mouth(frame, latent, picture):
    clip = PuppetTrack().clip("eval", 0)
    audio = torch.zeros(17, 3)
    audio[frame] = 1.0
    channels = lips_channels(audio, clip, (64, 64))
    pictures = torch.nn.functional.pixel_shuffle(channels.transpose(0, 1), 8)
    wide = pictures.sum((2, 3)) > 2 * lips_channels(audio * 0, clip, (64, 64)).sum((0, 2, 3)).max() / 3
    assert channels.shape == (192, 5, 8, 8)
    if latent is None:  # of frames 5 to 8, no token hears the second
        assert not wide.any()
        return
    assert wide[latent, picture] and (wide.sum() == 1 or frame == 0)
    inside = mouth_mask(clip, (1, 17, 64, 64))[0, frame] > 0
    assert pictures[latent, picture][inside].sum() > 0.95 * pictures[latent, picture].sum()


def test_shipped_encoder_reads_the_mouth_off_the_sound_of_unseen_speakers():
    encoder = PuppetDiT.load().audio_encoder
    takes = [take("eval", index, 17) for index in range(40)]
    heard = torch.stack([encoder.features(one.audio(), 17) for one in takes])
    true = torch.from_numpy(np.stack([one.script.at_frames(17) for one in takes])).float()
    wrong = (heard[..., :2] - true).square().mean((0, 1)) / true.var((0, 1))
    assert (wrong < 0.1).all() and (heard[..., 2] == 1).all()


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
    assert condition["lips"][0].abs().max() > 0 and condition["lips"][1].abs().max() == 0
    without = backbone.unconditional(condition)
    assert without["audio"].abs().max() == 0 and without["skeleton"] is condition["skeleton"]
    assert without["lips"].abs().max() == 0
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
    with pytest.raises(RequestError, match="is missing; make it with `halign-bench pretrain --backbone puppet-dit`"):
        PuppetDiT.load(tmp_path)
    backbone = PuppetDiT.load(pretrained)
    backbone.save(tmp_path)
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(RequestError, match="cannot be read"):
        PuppetDiT.load(tmp_path)


def test_the_mouths_that_the_shipped_base_samples_move_with_the_voice_they_were_given():
    """Sync-C of samples with their own voice against that of another clip, and whether its best shift is none."""
    backbone, track = PuppetDiT.load(), PuppetTrack()
    backbone.precision = native_precision("cpu")
    clips = [track.clip("eval", index) for index in range(0, 96, 4)]
    noise = initial_noise(backbone, [clip.id for clip in clips], 0)
    made = sample(backbone, backbone.condition(clips), noise, nfe=10, guidance=backbone.guidance)
    videos, extract = backbone.decode(made), load_extractors()["sync"]

    def scores(voices):
        shown = [
            replace(clip, video=video, audio=voice.audio)
            for clip, video, voice in zip(clips, videos, voices, strict=True)
        ]
        return [clip_sync(features) for features in extract(shown, shown)]

    own, other = scores(clips), scores(clips[5:] + clips[:5])
    gain = np.array([a.confidence - b.confidence for a, b in zip(own, other, strict=True)])
    assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5
    assert np.mean([score.offset == 0 for score in own]) >= 0.75
    assert np.mean([score.offset == 0 for score in other]) <= 0.25
