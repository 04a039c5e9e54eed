"""Noise levels of published models: closed forms, and each training step as likely as another."""

from __future__ import annotations

import pytest
import tiny_models
import torch
from halign_bench.methods.tmm import fold
from tiny import TinyBackbone

from halign_bench.backbones._schedules import Discrete, Karras, flow_shift
from halign_bench.sampling import sample


@pytest.fixture
def karras():
    from diffusers import EulerDiscreteScheduler

    return Karras(EulerDiscreteScheduler(sigma_min=0.002, sigma_max=700.0, use_karras_sigmas=True))


def test_even_steps_of_an_edm_model_are_karras_sigmas(karras):
    t = torch.tensor([1.0, 0.5, 0.0])
    middle = ((0.002 ** (1 / 7) + 700 ** (1 / 7)) / 2) ** 7
    assert karras.edm_sigma(t).tolist() == pytest.approx([700, middle, 0], rel=1e-6)
    assert karras.c_noise(t)[:2].tolist() == pytest.approx([0.25 * torch.tensor(s).log().item() for s in (700, middle)])
    assert karras.c_noise(t)[2].isfinite()
    alpha, sigma = karras.alpha_sigma(torch.linspace(0, 1, 9))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(9))
    assert alpha[0] == 1 and sigma[0] == 0


def test_discrete_steps_are_equally_likely_and_t_0_is_clean():
    from diffusers import DDIMScheduler

    levels = Discrete(DDIMScheduler(num_train_timesteps=10, beta_schedule="linear"))
    t = torch.linspace(0, 1, 10_001)[1:]
    assert torch.bincount(levels.step(t), minlength=10).tolist() == pytest.approx([1000] * 10, abs=11)
    assert levels.step(torch.tensor([0.1, 0.5, 1.0])).tolist() == [0, 4, 9]
    alpha, sigma = levels.alpha_sigma(torch.tensor([0.0, 1.0]))
    assert alpha[0] == 1 and sigma[0] == 0
    expected = DDIMScheduler(num_train_timesteps=10, beta_schedule="linear").alphas_cumprod[-1]
    assert float(alpha[1] ** 2) == pytest.approx(float(expected))
    assert float(sigma[1] ** 2) == pytest.approx(1 - float(expected))


def test_the_last_step_of_a_zero_snr_schedule_is_pure_noise():
    levels = Discrete(tiny_models.cogvideox().scheduler)
    alpha, sigma = levels.alpha_sigma(torch.ones(1))
    assert alpha.item() == 0 and sigma.item() == 1


def test_a_flow_samples_with_the_shift_that_its_backbone_states():
    assert flow_shift(tiny_models.wan_scheduler()) == 3.0
    backbone = TinyBackbone()
    condition = {
        "reference": torch.zeros(1, 4, 2, 4, 4), "skeleton": torch.zeros(1, 1, 2, 4, 4), "audio": torch.zeros(1, 5, 8)
    }  # fmt: skip
    noise = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    even = sample(backbone, condition, noise, nfe=3)
    asked = sample(backbone, condition, noise, nfe=3, shift=3.0)
    backbone.shift = 3.0
    assert torch.equal(sample(backbone, condition, noise, nfe=3), asked) and not torch.equal(asked, even)


def test_where_a_latent_frame_is_a_video_frame_there_is_nothing_to_fold():
    frames = torch.arange(6.0).view(1, 6, 1)
    assert torch.equal(fold(frames, 1, span=1)[:, :, 0], frames)
    with pytest.raises(ValueError, match="1 \\+ 4n"):
        fold(frames, 1)
