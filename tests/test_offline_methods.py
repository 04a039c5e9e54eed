"""KTO, MaPO, RWR and SDPO: each loss against an independent computation, its fixed points, and that it learns."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from losses import (
    gradient,
    log_sigmoid,
    loss_of,
    mean_squares,
    prepared,
    random_clips,
    random_pairs,
    residuals,
    trained,
)
from test_training import SPEC, preferences
from tiny import TinyBackbone

from halign_bench.batch import PairBatch
from halign_bench.feeding import Feed
from halign_bench.method import LossOutput
from halign_bench.registry import get
from halign_bench.training import train

DPO, KTO, MaPO, RWR, SDPO, SFT = (
    get("method", name) for name in ("diffusion-dpo", "kto", "mapo", "rwr", "sdpo", "sft")
)


def function(method, name):
    return getattr(importlib.import_module(method.__module__), name)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return preferences(tmp_path_factory.mktemp("cache"))


def copy_adapter(source, to) -> None:
    """Between two backbones, whatever their adapters are called."""
    for theirs, ours in zip(trained(source), trained(to), strict=True):
        ours.data.copy_(theirs.data)


# KTO


@given(
    rows=st.lists(st.tuples(st.floats(-2, 2), st.booleans()), min_size=1, max_size=8), beta=st.floats(1, 1000),
    weights=st.tuples(st.floats(0, 3), st.floats(0, 3)),
)
@settings(max_examples=100, deadline=None)
def test_kto_equals_an_independent_numpy_computation(rows, beta, weights):
    gain, liked = np.array([g for g, _ in rows]), np.array([label for _, label in rows])
    loss = function(KTO, "kto_loss")(torch.tensor(gain), torch.tensor(liked), beta, *weights)
    anchor = max(0.0, sum(gain) / len(gain))
    expected = [
        weights[0] * (1 - np.exp(log_sigmoid(beta * (g - anchor)))) if label
        else weights[1] * (1 - np.exp(log_sigmoid(beta * (anchor - g))))
        for g, label in rows
    ]
    np.testing.assert_allclose(loss.numpy(), expected, atol=1e-6)


def test_kto_from_raw_predictions_and_at_initialisation():
    method, clips = KTO(KTO.Config(beta=4.0, liked_weight=2.0)), random_clips(5)
    start = loss_of(method, TinyBackbone(), clips)
    liked = clips.reward.numpy() > 0
    assert 0 < liked.sum() < 5
    np.testing.assert_allclose(start.per_sample.detach().numpy(), np.where(liked, 1.0, 0.5), atol=1e-6)
    assert start.logs["agreement"].tolist() == [0.5] * 5
    backbone = prepared(method, clips)
    output = loss_of(method, backbone, clips)
    policy, reference = (mean_squares(residuals(backbone, clips, names)) for names in (["kto"], []))
    gain = (1 - clips.t.double().numpy()) ** 2 * (reference - policy)
    z = 4.0 * (gain - max(0.0, gain.mean()))
    expected = np.where(liked, 2 * np.exp(log_sigmoid(-z)), np.exp(log_sigmoid(z)))
    np.testing.assert_allclose(output.per_sample.detach().numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(output.logs["agreement"].detach().numpy(), (gain > 0) == liked)


def test_kto_pulls_liked_up_and_disliked_down_and_not_through_the_batchs_kl():
    values, sign = np.array([0.001, 0.002, 0.0003]), np.array([1.0, 1.0, -1.0])
    gain = torch.tensor(values, requires_grad=True)
    function(KTO, "kto_loss")(gain, torch.tensor(sign > 0), 1000.0).sum().backward()
    z = 1000 * (values - values.mean())
    np.testing.assert_allclose(gain.grad.numpy(), -sign * 1000 * np.exp(log_sigmoid(z) + log_sigmoid(-z)), rtol=1e-9)


# MaPO


@given(rows=st.lists(st.tuples(st.floats(1e-3, 9), st.floats(1e-3, 9)), min_size=1, max_size=8), beta=st.floats(0, 2))
@settings(max_examples=100, deadline=None)
def test_mapo_equals_an_independent_numpy_computation(rows, beta):
    winner, loser = np.array(rows).T

    def score(m):
        return 0.5 * m / (np.exp(0.5 * m) - 1)

    loss, margin = function(MaPO, "mapo_loss")(torch.tensor(winner), torch.tensor(loser), beta, 0.5, 1000)
    np.testing.assert_allclose(margin.numpy(), score(winner) - score(loser), atol=1e-9)
    expected = winner - beta * log_sigmoid(1000 * (score(winner) - score(loser)))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_mapo_score_is_1_without_error_and_falls():
    errors = torch.tensor([0.0, 1e-7, 0.1, 1.0, 10.0, 100.0], requires_grad=True)
    score = function(MaPO, "mapo_score")(errors, 0.5)
    assert score[:2].tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert score.tolist() == sorted(score.tolist(), reverse=True)
    score.sum().backward()
    assert bool(errors.grad.isfinite().all())


def test_mapo_from_raw_predictions_without_a_reference():
    method, pairs = MaPO(MaPO.Config(steps=10)), random_pairs()
    backbone = prepared(method, pairs)
    stage = method.stages()[0]

    def reference(*_):
        raise AssertionError("MaPO has no reference")

    with backbone.adapters(["mapo"]):
        output = method.loss(stage, backbone.predict, reference, pairs, backbone)
    winner, loser = (mean_squares(residuals(backbone, clips, ["mapo"])) for clips in (pairs.winner, pairs.loser))
    margin = [w / 2 / np.expm1(w / 2) - l / 2 / np.expm1(l / 2) for w, l in zip(winner, loser, strict=True)]  # noqa: E741
    expected = winner - 0.1 * log_sigmoid(10 * np.array(margin))
    np.testing.assert_allclose(output.per_sample.detach().numpy(), expected, rtol=1e-6, atol=1e-6)


# RWR


def test_rwr_from_raw_predictions():
    method, clips = RWR(RWR.Config(temperature=0.7)), random_clips(4)
    backbone = prepared(method, clips)
    output = loss_of(method, backbone, clips)
    expected = np.exp(clips.reward.double().numpy() / 0.7) * mean_squares(residuals(backbone, clips, ["rwr"]))
    np.testing.assert_allclose(output.per_sample.detach().numpy(), expected, rtol=2e-6, atol=1e-6)


def test_rwr_of_equal_rewards_is_sft_bit_for_bit():
    clips = replace(random_clips(), reward=torch.zeros(3))
    ours, theirs = prepared(RWR(), clips), prepared(SFT(), clips)
    results = [(loss_of(RWR(), ours, clips), ours), (loss_of(SFT(), theirs, clips), theirs)]
    (one, one_gradient), (two, two_gradient) = [(out.per_sample, gradient(out, b)) for out, b in results]
    assert torch.equal(one, two) and torch.equal(one_gradient, two_gradient) and bool(one_gradient.any())


# SDPO


vectors = hnp.arrays(np.float64, (2, 6), elements=st.floats(-3, 3).filter(lambda x: x == 0 or abs(x) > 1e-3))


@example(pair=(np.ones((2, 6)), -np.ones((2, 6))), mu=1.0)
@given(pair=st.tuples(vectors, vectors), mu=st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_sdpo_scale_keeps_the_winners_descent(pair, mu):
    winner, loser = pair
    scale = float(function(SDPO, "loser_scale")(torch.tensor(winner), torch.tensor(loser), mu))
    overlap, square = float((winner * loser).sum()), float((winner**2).sum())
    if overlap > 1e-4:
        expected = min(1.0, (1 - mu) * square / overlap)
        assert scale == pytest.approx(expected, rel=1e-4, abs=1e-5)
    elif overlap < -1e-4:
        assert scale == 1.0
    assert 0 <= scale <= 1
    descent = float(((-winner + scale * loser) * winner).sum())
    assert descent <= -mu * square + 1e-3  # in the space of outputs, to first order


def test_sdpo_has_the_value_of_dpo_and_a_scaled_gradient():
    pairs = random_pairs()
    ours, theirs = prepared(SDPO(), pairs), prepared(DPO(), pairs)
    safe, plain = loss_of(SDPO(), ours, pairs), loss_of(DPO(), theirs, pairs)
    assert torch.equal(safe.per_sample, plain.per_sample)
    scale = safe.logs["loser_scale"]
    w, l = (residuals(ours, clips, ["sdpo"]) for clips in (pairs.winner, pairs.loser))  # noqa: E741
    expected = np.clip(0.1 * (w**2).sum() / (w * l).sum(), 0, 1) if (w * l).sum() > 0 else 1.0
    assert scale.tolist() == pytest.approx([expected] * 3, rel=1e-5) and 0 < expected < 1

    # The gradient is that of the winner plus λ times that of the loser.
    parts = []
    for keep in ("winner", "loser"):
        backbone = TinyBackbone()
        loss_of(DPO(), backbone, pairs)
        copy_adapter(theirs, backbone)
        held = {side: getattr(pairs, side) for side in ("winner", "loser")}
        parts.append(gradient(_with_gradient_of(keep, backbone, held), backbone))
    torch.testing.assert_close(gradient(plain, theirs), parts[0] + parts[1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(gradient(safe, ours), parts[0] + expected * parts[1], rtol=1e-3, atol=1e-3)


def _with_gradient_of(keep, backbone, clips):
    """Flow-DPO in which only one side's error carries gradients."""
    dpo_loss = function(DPO, "dpo_loss")
    errors = {}
    for side, batch in clips.items():
        x_t, target = batch.noised(backbone)
        for on in (True, False):
            with torch.set_grad_enabled(on and side == keep), backbone.adapters(["diffusion-dpo"] if on else []):
                made = backbone.predict(x_t, batch.t, batch.condition)
            errors[side, on] = (made - target).pow(2).flatten(1).mean(1)
    policy_and_reference = [errors[side, on] for on in (True, False) for side in ("winner", "loser")]
    return LossOutput(dpo_loss(*policy_and_reference, DPO().config.resolved(TinyBackbone())[1])[0])


def test_sdpo_keeps_the_winner_where_dpo_gives_it_up():
    """Loser residuals three times the winner's: DPO's step makes both worse, SDPO's makes the winner better."""
    pairs = random_pairs(2)
    target = pairs.winner.noise - pairs.winner.x0
    residual = torch.randn(target.shape, generator=torch.Generator().manual_seed(4))
    after = {}
    for name, method in (("dpo", DPO()), ("sdpo", SDPO())):
        shift = torch.zeros_like(target, requires_grad=True)  # the policy's one weight: it moves both alike
        stacked_target = torch.cat([target, pairs.loser.noise - pairs.loser.x0])
        start = stacked_target + torch.cat([residual, 3 * residual])

        def policy(x_t, t, condition, start=start, shift=shift):
            return start + torch.cat([shift, shift])

        def reference(x_t, t, condition, start=start):
            return start

        loss = method.loss(method.stages()[0], policy, reference, pairs, TinyBackbone()).per_sample
        loss.mean().backward()
        after[name] = float((residual - 1e-3 * shift.grad).pow(2).mean() - residual.pow(2).mean())
    assert after["sdpo"] < 0 < after["dpo"]


def test_sdpo_at_initialisation():
    pairs = random_pairs()
    output = loss_of(SDPO(), TinyBackbone(), pairs)
    np.testing.assert_allclose(output.per_sample.detach().numpy(), np.log(2), atol=1e-6)
    swapped = PairBatch(pairs.loser, pairs.winner, pairs.margin)
    again = loss_of(SDPO(SDPO.Config(form="epsilon")), TinyBackbone(), swapped)
    np.testing.assert_allclose(again.per_sample.detach().numpy(), np.log(2), atol=1e-6)


# All of them


def losses_on_its_data(method, backbone, data) -> dict[str, float]:
    """Mean loss on fixed batches of what it trains on, by the base and by the policy."""
    (stage,) = method.stages()
    feed = Feed(data, stage, 0, 12, 99, "cpu")
    found = {}
    for name, active in (("base", ()), ("policy", (stage.adapter,))):

        def predict(*inputs, active=active):
            with torch.no_grad(), backbone.adapters(active):
                return backbone.predict(*inputs)

        outputs = [
            method.loss(stage, predict, lambda *inputs: predict(*inputs, active=()), feed.batch(i), backbone)
            for i in range(8)
        ]  # fmt: skip
        found[name] = float(torch.cat([output.per_sample for output in outputs]).mean())
    return found


@pytest.mark.parametrize(("method", "share"), [(KTO, 0.9), (MaPO, 0.9), (RWR, 0.98), (SDPO, 0.8)])
def test_training_lowers_its_loss_on_the_tiny_track(data, tmp_path, method, share):
    backbone = TinyBackbone()
    result = train(method(), backbone, data, SPEC.model_copy(update={"samples": 480}), 0, tmp_path)
    assert result.status == "done" and result.samples_seen == 480
    assert {report.criterion for report in result.heldout} == {"motion", "fidelity", "overall"}
    losses = losses_on_its_data(method(), backbone, data)
    assert losses["policy"] < share * losses["base"], losses
