"""The embedded UNet: its schedule, its preconditioning, where inserts go, and the recipe that makes its base."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from test_puppet_dit import TINY

from halign_bench.audio_encoder import AudioEncoder
from halign_bench.backbones._puppet import NEARLY_CLEAN
from halign_bench.backbones.puppet_unet import PuppetUNet
from halign_bench.codec import PuppetCodec
from halign_bench.pretrain import main
from halign_bench.sampling import check_start, initial_noise, sample
from halign_bench.tracks.puppet import PuppetTrack

SMALL = replace(TINY, backbone="puppet-unet", width=16, layers=1, heads=2)


@pytest.fixture
def backbone() -> PuppetUNet:
    torch.manual_seed(0)
    codec = PuppetCodec(8, 8)
    codec.scale.copy_(torch.linspace(3.0, 0.3, 8))
    return PuppetUNet(PuppetUNet.new_network(8, 16, 1, 2), codec, AudioEncoder(8), "untrained")


def test_signal_and_noise_keep_their_power_and_a_trace_of_signal_is_left(backbone):
    alpha, sigma = backbone.alpha_sigma(torch.linspace(0, 1, 11))
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(11), atol=1e-6)
    assert alpha[0] == 1 and float(alpha[-1]) == pytest.approx(0.05, abs=1e-6) and (alpha.diff() < 0).all()
    check_start(backbone)


@pytest.mark.parametrize("t", [1e-3, 0.2, 0.7, 1.0])
def test_the_clean_latent_predicts_the_noise_and_nearly_clean_is_asked_for_a_little_of_it(backbone, t):
    generator = torch.Generator().manual_seed(1)
    x0, noise = (torch.randn(2, 8, 5, 8, 8, generator=generator).double() for _ in range(2))
    level = torch.full((2, 1, 1, 1, 1), t).double()
    alpha, sigma = backbone.alpha_sigma(level)
    x_t = backbone.add_noise(x0, noise, level.flatten())
    missing = (sigma - backbone.alpha_sigma(torch.tensor(NEARLY_CLEAN))[1]).clamp(max=0)
    output = x0 + missing / alpha * noise
    assert torch.equal(output, x0) == (t >= NEARLY_CLEAN)
    torch.testing.assert_close(backbone.prediction(x_t, output, level), noise, rtol=1e-5, atol=1e-5)


def test_every_spatial_transformer_is_a_place_for_an_insert(backbone):
    assert [(block.width, block.heads, block.stride) for block in backbone.blocks()] == [(16, 2, 1)] * 4


def test_it_samples_from_noise(backbone):
    track = PuppetTrack()
    clips = [track.clip("eval", index) for index in range(2)]
    noise = initial_noise(backbone, [clip.id for clip in clips], 0)
    made = sample(backbone, backbone.condition(clips), noise, nfe=5, guidance=backbone.guidance)
    assert made.shape == (2, 8, 5, 8, 8) and bool(made.isfinite().all())
    assert backbone.decode(made).shape == (2, 17, 64, 64, 3)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to pretrain with")
def test_its_recipe_makes_a_loadable_base_also_after_a_stop(tmp_path):
    class Killed(Exception):
        pass

    def stop(stage, done, total, numbers):
        if stage == "base" and done == 3:
            raise Killed

    whole = PuppetUNet.load(main(tmp_path / "whole", SMALL, workers=1))
    card = json.loads((tmp_path / "whole" / "base.json").read_text())
    assert card["base_sha256"] == whole.base_sha256 and card["recipe"]["backbone"] == "puppet-unet"
    with pytest.raises(Killed):
        main(tmp_path / "cut", SMALL, workers=1, report=stop)
    assert PuppetUNet.load(main(tmp_path / "cut", SMALL, workers=1)).base_sha256 == whole.base_sha256
