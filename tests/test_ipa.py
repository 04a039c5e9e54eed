"""IPA and HALO: the loss against independent computations, its gradient in closed form, and what it learns from."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses import gradient, log_sigmoid, loss_of, mean_squares, prepared, random_clips, residuals
from test_training import SPEC, log_of, preferences
from tiny import TinyBackbone

from halign_bench.conformance.samples import LATENT, ToyBackbone
from halign_bench.errors import RequestError
from halign_bench.method import Stage
from halign_bench.plan import RunRequest, plan
from halign_bench.registry import get
from halign_bench.training import train

IPA = get("method", "ipa")
module = importlib.import_module(IPA.__module__)


def ipa(**config):
    return IPA(IPA.Config(**config))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return preferences(tmp_path_factory.mktemp("cache"))


def numpy_halo(mask: np.ndarray, hand_weight: float) -> np.ndarray:
    """Cell by cell, from the released code's words: weight on hands, nothing in frame 0."""
    weight = np.ones_like(mask)
    for sample, frame, row, column in np.ndindex(mask.shape[0], *mask.shape[2:]):
        if frame > 0:
            covered = min(max(float(mask[sample, 0, frame, row, column]), 0.0), 1.0)
            weight[sample, 0, frame, row, column] = hand_weight * covered + (1 - covered)
    return weight


@given(
    rows=st.lists(st.tuples(st.floats(0, 4), st.floats(0, 4), st.floats(0, 1)), min_size=1, max_size=8),
    beta=st.floats(1, 1000),
)
@settings(max_examples=100, deadline=None)
def test_loss_equals_an_independent_numpy_computation(rows, beta):
    policy, reference, t = np.array(rows).T
    weight = (1 - t) ** 2
    loss = module.ipa_loss(*(torch.tensor(x) for x in (policy, reference, weight)), beta)
    np.testing.assert_allclose(loss.numpy(), -log_sigmoid(beta * weight * (reference - policy) / 2), atol=1e-6)


def test_halo_weighs_hands_in_every_latent_frame_but_the_first():
    mask = torch.rand(2, 1, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2  # beyond [0, 1] too
    before = mask.clone()
    weight = module.halo_weight(mask, 10.0)
    np.testing.assert_allclose(weight.numpy(), numpy_halo(mask.numpy(), 10.0), rtol=1e-6)
    assert torch.equal(mask, before)
    full = module.halo_weight(torch.ones(1, 1, 2, 1, 1), 10.0).flatten().tolist()
    assert full == [1.0, 10.0]  # as in the released code; 1 + λM with λ = 10 would be 11


@pytest.mark.parametrize("masked", [True, False])
def test_method_loss_equals_numpy_from_raw_predictions(masked):
    method, clips = ipa(beta=1.0), random_clips(4)
    if not masked:
        clips = replace(clips, hand_mask=None)
    backbone = prepared(method, clips)
    output = loss_of(method, backbone, clips)
    halo = numpy_halo(clips.hand_mask.double().numpy(), 10.0) if masked else 1.0
    policy, reference = (mean_squares(residuals(backbone, clips, adapters), halo) for adapters in (["ipa"], []))
    expected = -log_sigmoid(0.5 * (1 - clips.t.double().numpy()) ** 2 * (reference - policy))
    assert np.abs(reference - policy).min() > 1e-3
    np.testing.assert_allclose(output.per_sample.detach().numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(output.logs["winner_gap"].detach().numpy(), policy - reference, atol=2e-5)


def test_log_2_at_initialisation():
    output = loss_of(IPA(), TinyBackbone(), random_clips())
    np.testing.assert_allclose(output.per_sample.detach().numpy(), math.log(2), atol=1e-7)


def test_gradient_at_initialisation_in_closed_form():
    """dL/dv_θ = β/2 · (1-t)² · σ(0) · 2 · w · (v_θ - v) / N: ten times as much on hands, fading towards t = 1."""
    clips = random_clips()
    prediction = torch.randn(clips.x0.shape, generator=torch.Generator().manual_seed(9)).requires_grad_()

    def policy(x_t, t, condition):
        return prediction

    def reference(x_t, t, condition):
        return prediction.detach()

    method = IPA()
    method.loss(method.stages()[0], policy, reference, clips, TinyBackbone()).per_sample.sum().backward()
    level = clips.t.double().numpy()[:, None, None, None, None]
    residual = prediction.detach().double().numpy() - (clips.noise - clips.x0).double().numpy()
    expected = 300 * (1 - level) ** 2 * 0.5 * 2 * numpy_halo(clips.hand_mask.double().numpy(), 10.0) * residual
    np.testing.assert_allclose(prediction.grad.numpy(), expected / prediction[0].numel(), rtol=1e-4, atol=1e-6)


def test_halo_with_weight_1_is_plain_ipa_bit_for_bit():
    clips = random_clips()
    results = []
    for method, batch in ((ipa(hand_weight=1), clips), (IPA(), replace(clips, hand_mask=None)), (IPA(), clips)):
        backbone = prepared(method, batch)
        output = loss_of(method, backbone, batch)
        results.append((output.per_sample.detach(), gradient(output, backbone)))
    (one, one_gradient), (plain, plain_gradient), (halo, halo_gradient) = results
    assert torch.equal(one, plain) and torch.equal(one_gradient, plain_gradient)
    assert not torch.allclose(halo, plain) and not torch.allclose(halo_gradient, plain_gradient)


@pytest.mark.parametrize("parameterisation", ["flow", "epsilon", "v"])
def test_the_weight_makes_it_the_error_of_the_noise_on_every_backbone(parameterisation):
    backbone = ToyBackbone(parameterisation)
    generator = torch.Generator().manual_seed(0)
    x0, noise, guess, other = (torch.randn(2, *LATENT, generator=generator) for _ in range(4))
    clips = replace(random_clips(2), x0=x0, noise=noise, hand_mask=None)
    method = ipa(beta=1.0)
    loss = method.loss(method.stages()[0], lambda *_: guess, lambda *_: other, clips, backbone).per_sample
    alpha, sigma = (w.double().view(-1, 1, 1, 1, 1).numpy() for w in backbone.alpha_sigma(clips.t))
    x_t = alpha * x0.double().numpy() + sigma * noise.double().numpy()

    def implied_noise(prediction: torch.Tensor) -> np.ndarray:
        made = prediction.double().numpy()
        return {"flow": x_t + alpha * made, "epsilon": made, "v": sigma * x_t + alpha * made}[parameterisation]

    m = [mean_squares(implied_noise(prediction) - noise.double().numpy()) for prediction in (guess, other)]
    np.testing.assert_allclose(loss.numpy(), -log_sigmoid((m[1] - m[0]) / 2), atol=1e-6)


def test_it_learns_to_denoise_winners_better_than_the_base(data, tmp_path):
    result = train(IPA(), TinyBackbone(), data, SPEC.model_copy(update={"samples": 320}), 0, tmp_path)
    log = log_of(result)
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-6) and log[0]["winner_gap"] == 0
    assert np.mean([entry["winner_gap"] for entry in log[-10:]]) < -0.02
    assert np.mean([entry["loss"] for entry in log[-10:]]) < 0.6


def test_it_can_be_given_fewer_winners(data, tmp_path):
    assert ipa(winners=3).stages() == (Stage("ipa", "winners", "overall", limit=3),)
    with pytest.raises(RequestError, match=r"93 winners for overall asked for"):
        train(ipa(winners=93), TinyBackbone(), data, SPEC, 0, tmp_path)


def test_claims_name_the_rows_that_learn_from_the_same_labels():
    def rows(**config):
        return list(dict.fromkeys(claim.better_than for claim in ipa(**config).claims))

    assert rows() == ["base", "sft", "diffusion-dpo", "ipa[hand_weight=1]"]
    assert rows(hand_weight=1) == ["base", "sft", "diffusion-dpo"]
    labels = ["sft[criterion=fidelity]", "diffusion-dpo[criterion=fidelity]"]
    assert rows(criterion="fidelity") == ["base", *labels, "ipa[criterion=fidelity,hand_weight=1]"]
    assert rows(winners=8) == ["base", "sft[winners=8]", "diffusion-dpo", "ipa[hand_weight=1,winners=8]"]
    # They are called so in a run.
    asked = ["sft[winners=8],ipa[winners=8,hand_weight=1],diffusion-dpo"]
    assert set(rows(winners=8)) <= {variant.label for variant in plan(RunRequest(asked)).variants}


def test_sft_takes_as_few_winners_and_refuses_a_limit_on_real_clips():
    (variant,) = plan(RunRequest(["sft[winners=8,criterion=fidelity]"])).variants[2:]
    assert variant.parts[0].method.stages() == (Stage("sft", "winners", "fidelity", limit=8),)
    with pytest.raises(RequestError, match="data=clips has none"):
        plan(RunRequest(["sft[winners=8,data=clips]"]))
