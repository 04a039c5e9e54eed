"""Diffusion-DPO: the loss against an independent computation, its fixed points, and its two forms."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses import gradient, loss_of, mean_squares, nudge, random_pairs, residuals
from tiny import TinyBackbone

from halign_bench.backbone import Backbone
from halign_bench.batch import epsilon_weight, error, form_weight
from halign_bench.errors import RequestError
from halign_bench.registry import get

DiffusionDPO = get("method", "diffusion-dpo")
dpo_loss = importlib.import_module(DiffusionDPO.__module__).dpo_loss


def numpy_dpo(mw, ml, rw, rl, beta):
    """Written from the paper's formula, sharing nothing with the method."""
    z = beta * 0.5 * ((np.float64(ml) - rl) - (np.float64(mw) - rw))
    return np.logaddexp(0.0, -z), z


@given(
    errors=st.lists(st.tuples(*[st.floats(0, 4)] * 4), min_size=1, max_size=8),
    beta=st.floats(0.1, 5000),
)
@settings(max_examples=100, deadline=None)
def test_loss_equals_an_independent_numpy_computation(errors, beta):
    columns = np.array(errors).T
    loss, inside = dpo_loss(*(torch.tensor(c, dtype=torch.float64) for c in columns), beta)
    expected_loss, expected_inside = numpy_dpo(*columns, beta)
    np.testing.assert_allclose(loss.numpy(), expected_loss, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(inside.numpy(), expected_inside, atol=1e-6, rtol=1e-6)


def test_method_loss_equals_numpy_from_raw_predictions():
    backbone = TinyBackbone()
    batch = random_pairs()
    loss_of(DiffusionDPO(), backbone, batch)
    nudge(backbone)
    output = loss_of(DiffusionDPO(), backbone, batch)
    errors = [
        mean_squares(residuals(backbone, clips, adapters))
        for adapters in (["diffusion-dpo"], []) for clips in (batch.winner, batch.loser)
    ]  # fmt: skip
    expected, inside = numpy_dpo(*errors, beta=1000.0)
    assert np.abs(inside).min() > 1e-3  # the adapter does something, so this is not log 2 compared with log 2
    np.testing.assert_allclose(output.per_sample.detach().numpy(), expected, rtol=2e-4, atol=1e-5)
    np.testing.assert_array_equal(output.logs["implicit_accuracy"].detach().numpy(), (inside > 0).astype(np.float32))


@pytest.mark.parametrize("form", ["flow", "epsilon"])
def test_log_2_at_initialisation_and_ties_count_half(form):
    backbone = TinyBackbone()
    output = loss_of(DiffusionDPO(DiffusionDPO.Config(form=form)), backbone, random_pairs())
    np.testing.assert_allclose(output.per_sample.detach().numpy(), math.log(2), atol=1e-7)
    assert output.logs["implicit_accuracy"].tolist() == [0.5, 0.5, 0.5]


def test_no_gradient_when_winner_equals_loser():
    backbone = TinyBackbone()
    batch = random_pairs()
    output = loss_of(DiffusionDPO(), backbone, replace(batch, loser=batch.winner))
    assert float(gradient(output, backbone).abs().max()) < 1e-5  # of fp32 rounding, times beta


def test_swapping_winner_and_loser_flips_the_gradient_at_initialisation():
    gradients = []
    for swap in (False, True):
        backbone = TinyBackbone()
        batch = random_pairs()
        if swap:
            batch = replace(batch, winner=batch.loser, loser=batch.winner)
        gradients.append(gradient(loss_of(DiffusionDPO(), backbone, batch), backbone))
    assert float(gradients[0].abs().max()) > 1e-2
    torch.testing.assert_close(gradients[0], -gradients[1], rtol=1e-3, atol=1e-4)


def test_one_loss_a_pair_for_five_dimensional_latents():
    backbone = TinyBackbone()
    batch = random_pairs(count=5)
    assert batch.winner.x0.ndim == 5
    output = loss_of(DiffusionDPO(), backbone, batch)
    assert output.per_sample.shape == (5,)
    with pytest.raises(ValueError, match="shape"):  # errors reduced over [1, 2, 3] alone
        dpo_loss(*[torch.zeros(5, 4)] * 4, 1.0)


def test_error_is_the_fp32_mean_over_everything_but_the_batch():
    a, b = torch.randn(2, 3, 4, 2, 5, 6).half().unbind()
    expected = ((a.double() - b.double()) ** 2).reshape(3, -1).mean(1)
    assert error(a, b).dtype == torch.float32
    torch.testing.assert_close(error(a, b).double(), expected, rtol=1e-5, atol=1e-6)
    weight = torch.rand(3, 1, 2, 5, 6)
    weighted = ((a.double() - b.double()) ** 2 * weight).reshape(3, -1).mean(1)
    torch.testing.assert_close(error(a, b, weight).double(), weighted, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="differ in shape"):
        error(a, b[:, :1])


def test_epsilon_form_is_the_error_of_the_noise_that_the_velocity_implies():
    backbone = TinyBackbone()
    clips = random_pairs().winner
    x_t, target = clips.noised(backbone)
    velocity = backbone.predict(x_t, clips.t, clips.condition)
    level = clips.t.view(-1, 1, 1, 1, 1)
    implied_noise = x_t + (1 - level) * velocity
    weight = form_weight("epsilon", clips.t, backbone)
    expected = error(implied_noise, clips.noise)
    torch.testing.assert_close(weight * error(velocity, target), expected, rtol=1e-4, atol=1e-6)


class Cosine(Backbone):
    """A variance-preserving backbone without a network: only what depends on the parameterisation."""

    name = "cosine"

    def __init__(self, parameterisation) -> None:
        self.parameterisation = parameterisation

    def alpha_sigma(self, t):
        return torch.cos(t * torch.pi / 2), torch.sin(t * torch.pi / 2)


def test_epsilon_form_of_a_v_backbone_and_of_an_epsilon_backbone():
    backbone = Cosine("v")
    x0, noise, wrong = torch.randn(3, 2, 4, 2, 3, 3, dtype=torch.float64).unbind()
    t = torch.tensor([0.2, 0.8], dtype=torch.float64)
    alpha, sigma = (w.view(-1, 1, 1, 1, 1) for w in backbone.alpha_sigma(t))
    x_t, target = backbone.add_noise(x0, noise, t), backbone.target(x0, noise, t)
    implied_noise = sigma * x_t + alpha * (target + wrong)
    expected = error(implied_noise, noise)
    torch.testing.assert_close(epsilon_weight(t, backbone) * error(target + wrong, target), expected.double())
    assert form_weight("epsilon", t, Cosine("epsilon")).tolist() == [1.0, 1.0]


def test_flow_form_refuses_a_backbone_that_is_no_flow():
    with pytest.raises(RequestError, match=r"cosine predicts epsilon; set form=epsilon"):
        form_weight("flow", torch.rand(2), Cosine("epsilon"))


def test_form_and_beta_are_the_backbones_unless_given():
    assert DiffusionDPO().config.model_dump() == {
        "form": None, "beta": None, "reduction": "mean", "half": "outside beta", "criterion": "overall"
    }
    resolved = {
        (kind, form, beta): DiffusionDPO.Config(form=form, beta=beta).resolved(Cosine(kind))
        for kind in ("flow", "epsilon", "v") for form in (None, "epsilon") for beta in (None, 7.0)
    }  # fmt: skip
    for (kind, form, beta), found in resolved.items():
        wanted = ("flow", 1000.0) if (kind, form) == ("flow", None) else ("epsilon", 5000.0)
        assert found == (wanted if beta is None else (wanted[0], beta))
    with pytest.raises(ValueError, match="greater than 0"):
        DiffusionDPO.Config(beta=0)
