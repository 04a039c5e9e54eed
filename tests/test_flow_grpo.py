"""Flow-GRPO: its sampler keeps the marginals, its advantages and loss are what they say, and it learns online."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from losses import gradient, loss_of, prepared, random_clips
from test_training import SPEC, log_of, preferences, weights
from tiny import TinyBackbone

from halign_bench.batch import StepBatch, Trajectory
from halign_bench.errors import HalignError, Interrupted, RequestError
from halign_bench.method import Rollout, Stage
from halign_bench.online import OnlineFeed, check_trajectory, steps_of
from halign_bench.processes import Processes
from halign_bench.registry import get
from halign_bench.sampling import timesteps
from halign_bench.training import train

GRPO = get("method", "flow-grpo")
flow_step, ddim_step, log_probability, advantages, ppo_loss = (
    getattr(importlib.import_module(GRPO.__module__), name)
    for name in ("flow_step", "ddim_step", "log_probability", "advantages", "ppo_loss")
)
SMALL = {"steps": 4, "prompts": 2, "group": 4, "updates": 2}  # 24 steps a rollout, of which two batches of 8 are used


def grpo(**config):
    return GRPO(GRPO.Config(**{**SMALL, **config}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return preferences(tmp_path_factory.mktemp("cache"))


def double(*values):
    return [torch.tensor(value, dtype=torch.float64) for value in values]


# The sampler


levels = st.tuples(st.floats(0.02, 1), st.floats(0.01, 0.99)).filter(lambda pair: pair[1] <= pair[0] - 0.01)


@example(pair=(1.0, 0.9), noise_level=0.7, seed=0)
@given(pair=levels, noise_level=st.floats(0.05, 2), seed=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_a_step_of_the_sde_and_its_probability_equal_an_independent_computation(pair, noise_level, seed):
    t, t_next = pair
    x, velocity, drawn = np.random.default_rng(seed).normal(size=(3, 2, 3, 4))
    mean, std = flow_step(*double(x, velocity, t, t_next), noise_level)
    # Reverse-time drift v - s²/2·score, with the score of x_t = (1-t)·x0 + t·ε from the noise that v implies.
    s = noise_level * np.sqrt(t / (1 - (t_next if t == 1 else t)))
    score = -(x + (1 - t) * velocity) / t
    expected = x + (t_next - t) * (velocity - s**2 / 2 * score)
    np.testing.assert_allclose(mean.numpy(), expected, atol=1e-6, rtol=1e-9)
    assert float(std) == pytest.approx(s * np.sqrt(t - t_next), abs=1e-6)
    made = mean + std * torch.tensor(drawn)
    probability = scipy.stats.norm.logpdf(made.numpy(), expected, s * np.sqrt(t - t_next)).mean(axis=(1, 2))
    np.testing.assert_allclose(log_probability(made, mean, std).numpy(), probability, atol=1e-6)


@given(pair=levels, seed=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_ddim_with_noise_equals_the_papers_equations(pair, seed):
    """In the squared alphas of arXiv 2010.02502; a schedule with alpha = cos, as ε and v models have."""
    (t, t_next), eta = pair, 0.8
    clean, noise = np.random.default_rng(seed).normal(size=(2, 5))
    a, b = np.cos(0.99 * t * np.pi / 2) ** 2, np.cos(0.99 * t_next * np.pi / 2) ** 2
    now, after = (double(np.sqrt(square), np.sqrt(1 - square)) for square in (a, b))
    mean, std = ddim_step(*double(clean, noise), now, after, eta)
    sigma = eta * np.sqrt((1 - b) / (1 - a)) * np.sqrt(1 - a / b)
    np.testing.assert_allclose(mean.numpy(), np.sqrt(b) * clean + np.sqrt(1 - b - sigma**2) * noise, atol=1e-6)
    assert float(std) == pytest.approx(sigma, abs=1e-6)


def moments(step, grid, alpha_sigma, mean, spread):
    """Mean and variance at each level when data are N(mean, spread²) and the model is exact: by recursion, no samples.

    step(x, clean, noise, now, after) gives (mean, std) at `after`; it is affine in x, so two points tell its slope.
    """
    found, at = [], np.array([0.0, 1.0])
    for now, after in itertools.pairwise(grid):
        alpha, sigma = alpha_sigma(now)

        def affine(x, now=now, after=after, alpha=alpha, sigma=sigma):
            clean = mean + alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * (x - alpha * mean)
            return step(x, clean, (x - alpha * clean) / sigma, now, after)

        (zero, std), (one, _), (centre, _) = affine(0.0), affine(1.0), affine(at[0])
        at = np.array([centre, (one - zero) ** 2 * at[1] + std**2])
        found.append((after, *at))
    return found


def straight(t):
    return 1 - t, t


def curved(t):
    return np.cos(0.98 * t * np.pi / 2), np.sin(0.98 * t * np.pi / 2)


def by_flow(noise_level):
    def step(x, clean, noise, now, after):
        return tuple(float(v) for v in flow_step(*double(x, noise - clean, now, after), noise_level))

    return step


def by_ddim(x, clean, noise, now, after):
    levels = (double(*curved(t)) for t in (now, after))
    return tuple(float(v) for v in ddim_step(*double(clean, noise), *levels, 1.0))


@pytest.mark.parametrize(
    ("step", "alpha_sigma"),
    [(by_flow(0.0), straight), (by_flow(0.7), straight), (by_flow(1.2), straight), (by_ddim, curved)],
    ids=["ode", "sde", "louder sde", "ddim with noise"],
)
def test_the_marginals_of_the_sde_are_those_of_the_ode(step, alpha_sigma):
    """Data N(2, 0.5²): x_t is N(alpha·2, alpha²·0.5² + sigma²) at every level, more exactly so with smaller steps."""

    def worst(steps):
        errors = [
            (abs(centre - 2 * a) + abs(np.sqrt(variance) - np.hypot(a * 0.5, s)), t)
            for t, centre, variance in moments(step, timesteps(steps), alpha_sigma, 2.0, 0.5)
            for a, s in [alpha_sigma(t)]
        ]
        return max(error for error, t in errors if t <= 0.5)  # at high noise the steps of the SDE are never small

    coarse, fine = worst(40), worst(320)
    assert fine < 0.02 and fine < 0.5 * coarse


def test_its_rollout_draws_from_these_marginals():
    """Drawn, not computed: 4,000 scalars whose exact velocity is known."""
    count, steps = 4000, 60
    method = grpo(steps=steps)

    def policy(x, t, condition):
        level = t.view(-1, 1, 1, 1, 1)
        clean = 2 + (1 - level) * 0.25 / ((1 - level) ** 2 * 0.25 + level**2) * (x - (1 - level) * 2)
        return (x - clean) / level

    def noise(k):
        return torch.randn(count, 1, 1, 1, 1, generator=torch.Generator().manual_seed(k))

    way = method.rollout(method.stages()[0], policy, noise, {}, TinyBackbone())
    for place in (30, 45, 60):  # t = 0.5, 0.25 and 0
        t, x = float(way.t[place]), way.x[:, place].flatten()
        assert float(x.mean()) == pytest.approx(2 * (1 - t), abs=0.06)
        assert float(x.std()) == pytest.approx(np.hypot((1 - t) * 0.5, t), abs=0.06)
    assert float(np.corrcoef(way.x[:, 0].flatten(), way.x[:, -1].flatten())[0, 1]) < 0.7  # an ODE's would be 1
    assert way.log_prob.shape == (count, steps - 1)


# Advantages and loss


rewards = hnp.arrays(np.float64, (2, 5, 2), elements=st.sampled_from([-3.0, -1.0, 0.5, 0.5, 2.0, np.nan]))


@example(scores=np.full((2, 5, 2), 0.1 + 0.2))
@example(scores=np.full((2, 5, 2), np.nan))
@given(scores=rewards)
@settings(max_examples=200, deadline=None)
def test_advantages_equal_an_independent_numpy_computation(scores):
    expected = np.zeros((2, 5))
    for group, criterion in itertools.product(range(2), range(2)):
        column = scores[group, :, criterion]
        known = np.flatnonzero(~np.isnan(column))
        if len(known) and len(set(column[known])) > 1:
            values = column[known]
            expected[group, known] += (values - values.mean()) / np.sqrt(((values - values.mean()) ** 2).mean())
    np.testing.assert_allclose(advantages(torch.tensor(scores)).numpy(), expected, atol=1e-6)


def test_no_criterion_is_louder_for_its_unit_and_a_group_is_only_compared_with_itself():
    scores = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other_units = scores * torch.tensor([1e-5, 1e4]) + torch.tensor([1e-4, -1e6])
    other_units[1, :, 1] += 1e5
    torch.testing.assert_close(advantages(scores), advantages(other_units), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(advantages(scores).sum(dim=1), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    alone = advantages(scores[..., :1]) + advantages(scores[..., 1:])
    torch.testing.assert_close(advantages(scores), alone)
    opposed = torch.stack([scores[..., 0], -scores[..., 0]], dim=2)
    assert float(advantages(opposed).abs().max()) < 1e-9


@given(group=st.integers(2, 26), seed=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_no_advantage_of_one_criterion_reaches_the_codes_clamp(group, seed):
    scores = np.random.default_rng(seed).normal(size=(1, group, 1))
    scores[0, 0] += 1e3  # one stands out: the worst case
    assert float(advantages(torch.tensor(scores)).abs().max()) <= np.sqrt(group - 1) + 1e-9 <= 5 + 1e-9


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [
        (1.0, 2.0, -2.0), (1.0, -2.0, 2.0), (1.05, 2.0, -2.0),  # inside
        (1.2, 2.0, 0.0), (0.8, -2.0, 0.0),  # outside, the way it was pushed: enough
        (0.8, 2.0, -2.0), (1.2, -2.0, 2.0),  # outside, the wrong way: back
        (1.2, 0.0, 0.0),
    ],
)  # fmt: skip
def test_the_clip_ends_the_gradient_where_nothing_is_gained(ratio, advantage, slope):
    ratio = torch.tensor([ratio], dtype=torch.float64, requires_grad=True)
    loss = ppo_loss(ratio, *double([advantage]), 0.1)
    loss.sum().backward()
    at = float(ratio.detach())
    assert float(loss.detach()) == pytest.approx(max(-advantage * at, -advantage * min(max(at, 0.9), 1.1)))
    assert float(ratio.grad) == pytest.approx(slope)


def step_batch(method, backbone, adapters=(), count=5, seed=0) -> StepBatch:
    """Steps of one group's samples, taken by the base or with `adapters` on."""
    stage, clips = method.stages()[0], random_clips(1, seed)
    spec = stage.rollout
    condition = {name: torch.cat([value] * spec.group) for name, value in clips.condition.items()}

    def policy(*inputs):
        with torch.no_grad(), backbone.adapters(list(adapters)):
            return backbone.predict(*inputs)

    def noise(k):
        return torch.randn(spec.group, 4, 2, 4, 4, generator=torch.Generator().manual_seed(100 * seed + k))

    way = method.rollout(stage, policy, noise, condition, backbone)
    scores = torch.randn(1, spec.group, 2, generator=torch.Generator().manual_seed(seed))
    chosen = [(i % spec.group, i % spec.steps) for i in range(count)]
    condition = {name: torch.cat([value] * count) for name, value in clips.condition.items()}
    return steps_of(way, scores, chosen, condition, None, [str(i) for i in range(count)], "cpu")


def test_at_the_start_the_ratio_is_1_the_kl_0_and_the_loss_minus_the_advantage():
    method, backbone = grpo(kl=5.0), TinyBackbone()
    batch = step_batch(method, backbone)
    output = loss_of(method, backbone, batch)
    expected = advantages(batch.rewards)[torch.arange(5), batch.place]
    torch.testing.assert_close(output.per_sample.detach(), -expected, atol=1e-5, rtol=1e-5)
    for name, value in {"ratio": 1.0, "kl": 0.0, "clip_fraction": 0.0}.items():
        np.testing.assert_allclose(output.logs[name].detach().numpy(), value, atol=1e-5)
    assert method.at_start(method.stages()[0]) == {"ratio": 1.0, "kl": 0.0}
    assert bool(gradient(output, backbone).any())


def test_the_loss_equals_an_independent_numpy_computation():
    method = grpo(kl=0.3, clip=0.002)
    backbone = TinyBackbone()
    batch = step_batch(method, backbone, count=8)
    backbone = prepared(method, batch)  # as the base when it sampled, no more so now
    output = loss_of(method, backbone, batch)

    def mean(adapters):
        with torch.no_grad(), backbone.adapters(adapters):
            v = backbone.predict(batch.x_t, batch.t, batch.condition).double().numpy()
        return (x - delta * (v + s**2 / (2 * t) * (x + (1 - t) * v)))

    x, chosen = batch.x_t.double().numpy(), batch.x_next.double().numpy()
    t, t_next = (level.double().numpy()[:, None, None, None, None] for level in (batch.t, batch.t_next))
    delta = t - t_next
    s = 0.7 * np.sqrt(t / (1 - np.where(t == 1, t_next, t)))
    std = s * np.sqrt(delta)
    ours, base = mean(["flow-grpo"]), mean([])
    likely = [scipy.stats.norm.logpdf(chosen, centre, std).mean(axis=(1, 2, 3, 4)) for centre in (ours, base)]
    ratio = np.exp(likely[0] - likely[1])
    kl = ((ours - base) ** 2 / (2 * std**2)).mean(axis=(1, 2, 3, 4))
    scores = batch.rewards.double().numpy()
    standard = (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
    advantage = standard.sum(2)[np.arange(8), batch.place]
    loss = np.maximum(-advantage * ratio, -advantage * ratio.clip(0.998, 1.002)) + 0.3 * kl
    np.testing.assert_allclose(output.per_sample.detach().numpy(), loss, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(output.logs["kl"].detach().numpy(), kl, rtol=1e-4, atol=1e-6)
    outside = abs(ratio - 1) > 0.002
    assert output.logs["clip_fraction"].tolist() == outside.tolist() and 0 < outside.sum() < 8
    assert kl.min() > 0


def test_samples_without_a_score_leave_the_loss_finite_and_teach_nothing():
    method, backbone = grpo(kl=0.0), TinyBackbone()
    batch = step_batch(method, backbone)
    unscored = replace(batch, rewards=torch.full_like(batch.rewards, float("nan")))
    output = loss_of(method, backbone, unscored)
    assert output.per_sample.tolist() == [0.0] * 5 and not bool(gradient(output, backbone).any())
    assert bool(torch.cat(list(output.logs.values())).isfinite().all())


# Online


def test_a_stopped_training_goes_on_from_the_start_of_a_rollout_to_the_same_bits(data, tmp_path):
    whole = TinyBackbone()
    expected = train(grpo(), whole, data, SPEC, 3, tmp_path / "whole")

    def stop(done, total):
        if done == 56:  # within the fourth rollout
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        train(grpo(), TinyBackbone(), data, SPEC, 3, tmp_path / "cut", stop, checkpoint_seconds=0)
    resumed, seen = TinyBackbone(), []
    result = train(grpo(), resumed, data, SPEC, 3, tmp_path / "cut", lambda *report: seen.append(report))
    assert seen[0] == (48, 96)  # where it began
    assert torch.equal(weights(whole), weights(resumed)) and log_of(result) == log_of(expected)
    assert result.heldout == expected.heldout
    assert (result.samples_sampled, result.sampling_passes) == (expected.samples_sampled, expected.sampling_passes)


def test_it_says_what_it_sampled_and_how_that_scored(data, tmp_path):
    result = train(grpo(), TinyBackbone(), data, SPEC, 0, tmp_path)
    assert (result.samples_seen, result.steps) == (96, 12)
    assert result.samples_sampled == 6 * 8 and result.sampling_passes == 6 * 8 * 4
    log = log_of(result)
    assert [entry["rollout"] for entry in log if "rollout" in entry] == list(range(6))
    for entry in log:
        assert {"ratio", "clip_fraction", "kl", "advantage_spread"} <= entry.keys()
        assert ("reward_motion" in entry) == ("reward_fidelity" in entry) == (entry["step"] % 2 == 1)
    assert log[0]["ratio"] == pytest.approx(1, abs=1e-5) and log[0]["kl"] == pytest.approx(0, abs=1e-7)
    assert log[0]["unscored"] == 0 and log[0]["reward_fidelity"] < 0


def test_online_learning_raises_the_reward(data, tmp_path):
    method = grpo(prompts=4, group=8, updates=4, clip=0.05, kl=0.0, criterion="fidelity")
    result = train(method, TinyBackbone(), data, SPEC.model_copy(update={"samples": 640}), 0, tmp_path)
    rewards = [entry["reward_fidelity"] for entry in log_of(result) if "rollout" in entry]
    assert len(rewards) == 20
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.5 * np.std(rewards[:5])


def test_it_learns_from_training_prompts_scored_against_their_own_clips(data, tmp_path, monkeypatch):
    asked, annotate = [], data.annotate

    def watched(prompt, videos):
        asked.append((prompt, len(videos)))
        return annotate(prompt, videos)

    monkeypatch.setattr(data, "annotate", watched)
    train(grpo(prompts=3), TinyBackbone(), data, SPEC, 0, tmp_path)
    assert {prompt for prompt, _ in asked} == set(range(data.n_train)) and data.n_train < len(data.ids)
    assert sum(count for _, count in asked) == 6 * 3 * 4
    # The base's own candidates score as they did when they were collected.
    latents = data.latents[2]
    np.testing.assert_allclose(annotate(2, TinyBackbone().decode(latents)), data.scores[2])


def make_feed(data, processes, method=None, backbone=None, **changes) -> OnlineFeed:
    backbone, method = backbone or TinyBackbone(), method or grpo(**changes)

    def policy(*inputs):
        with torch.no_grad():
            return backbone.predict(*inputs)

    return OnlineFeed(method, data, method.stages()[0], 0, 8, 3, backbone, policy, processes)


ALONE = Processes()


def test_two_processes_sample_half_each_of_what_one_samples(data):
    alone = make_feed(data, ALONE)
    whole = alone.batch(0)
    sent: list[list[torch.Tensor]] = [[], []]

    def process(rank, gather):
        return SimpleNamespace(world=2, rank=rank, joined=gather, settle=lambda: "")

    def first(share):  # what it sends is kept; what it would get is not known yet
        sent[0].append(share)
        return torch.cat([share, share])

    def second(share):
        sent[1].append(share)
        return torch.cat([sent[0][len(sent[1]) - 1], share])

    make_feed(data, process(0, first)).batch(0)
    feed = make_feed(data, process(1, second))
    batch = feed.batch(0)
    assert [len(share) for share in sent[0]] == [len(share) for share in sent[1]] == [4, 4, 4]
    torch.testing.assert_close(feed.x, alone.x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(batch.rewards, whole.rewards, atol=1e-3, rtol=1e-3)  # of the whole group
    assert batch.ids == whole.ids and torch.equal(batch.place, whole.place)
    assert feed.news(0)["sampling_passes"] == alone.news(0)["sampling_passes"] == 8 * 4
    with pytest.raises(RequestError, match="shared among 3 processes"):
        make_feed(data, Processes(0, 3))


def test_a_rollout_gives_each_step_once_with_its_groups_rewards(data):
    feed = make_feed(data, ALONE, updates=None)
    assert feed.updates == 3 and [feed.resumable(step) for step in range(4)] == [True, False, False, True]
    batches = [feed.batch(step) for step in range(3)]
    seen = [(name, float(t)) for batch in batches for name, t in zip(batch.ids, batch.t, strict=True)]
    assert len(set(seen)) == 24 and {t for _, t in seen} == {1.0, 0.75, 0.5}
    for batch in batches:
        for i, name in enumerate(batch.ids):
            prompt, sample = name.split("#rollout0-")
            assert int(sample) == int(batch.place[i])
            group = feed.prompts.index(data.ids.index(prompt))
            assert torch.equal(batch.rewards[i], feed.rewards[group])
            assert float(batch.t[i] - batch.t_next[i]) == pytest.approx(0.25)
    half = batches[0][2:5]
    assert isinstance(half, StepBatch) and len(half) == 3 and torch.equal(half.x_next, batches[0].x_next[2:5])
    x, n = feed.x, feed.number
    assert torch.equal(make_feed(data, ALONE, updates=None).batch(1).x_t, batches[1].x_t)
    feed.batch(3)
    assert feed.number == n + 1 and not torch.equal(feed.x, x)


def test_a_group_may_start_from_one_noise(data):
    feed = make_feed(data, ALONE, same_noise=True)
    feed.batch(0)
    start = feed.x[:, 0].view(2, 4, -1)
    assert torch.equal(start, start[:, :1].expand_as(start)) and not torch.equal(start[0], start[1])
    assert not torch.equal(feed.x[0, 1], feed.x[1, 1])
    other = make_feed(data, ALONE)
    other.batch(0)
    assert not torch.equal(other.x[0, 0], other.x[1, 0])


def test_one_criterion_or_several(data):
    for criterion, count in {"motion": 1, "motion+fidelity": 2, "overall": 2}.items():
        feed = make_feed(data, ALONE, criterion=criterion)
        assert feed.batch(0).rewards.shape == (8, 4, count)
        assert len([key for key in feed.news(0) if key.startswith("reward_")]) == count
    with pytest.raises(RequestError, match="criterion beauty"):
        make_feed(data, ALONE, criterion="motion+beauty")


def test_scores_that_are_missing_or_all_alike(data, tmp_path, monkeypatch):
    annotate = data.annotate

    def sometimes(prompt, videos):
        scores = annotate(prompt, videos)
        scores[::2, 0] = np.nan
        return scores

    monkeypatch.setattr(data, "annotate", sometimes)
    result = train(grpo(), TinyBackbone(), data, SPEC, 0, tmp_path / "some")
    assert result.status == "done" and log_of(result)[0]["unscored"] == 4
    assert all(np.isfinite(entry["loss"]) for entry in log_of(result))
    for value in (np.nan, 0.3):
        monkeypatch.setattr(data, "annotate", lambda prompt, videos, value=value: np.full((len(videos), 2), value))
        with pytest.raises(RequestError, match="tells no two of the same prompt apart in motion or fidelity"):
            train(grpo(), TinyBackbone(), data, SPEC, 0, tmp_path / str(value))


def test_samples_that_are_no_numbers_are_a_divergence(data, tmp_path):
    class Overflows(TinyBackbone):
        def predict(self, x_t, t, condition):
            made = super().predict(x_t, t, condition)
            return made * float("inf") if self.forwards > 100 else made

    result = train(grpo(), Overflows(), data, SPEC, 0, tmp_path)
    assert result.status == "diverged"
    with pytest.raises(HalignError, match="rollout 1: the policy's samples are not finite"):
        backbone = Overflows()
        backbone.forwards = 1000
        make_feed(data, ALONE, backbone=backbone).batch(0)


def test_requests_that_cannot_be_answered(data, tmp_path):
    with pytest.raises(RequestError, match=r"does not fill a batch of 8"):
        train(grpo(prompts=1, group=2, steps=2), TinyBackbone(), data, SPEC, 0, tmp_path)
    with pytest.raises(RequestError, match="without their annotator"):
        train(grpo(), TinyBackbone(), replace(data, annotate=None), SPEC, 0, tmp_path)

    class PureNoise(TinyBackbone):
        parameterisation = "epsilon"

        def alpha_sigma(self, t):
            return (1 - t).sqrt(), t.sqrt()

    with pytest.raises(RequestError, match="cannot start from pure noise"):
        train(grpo(), PureNoise(), data, SPEC, 0, tmp_path)


def test_it_learns_on_a_model_of_the_noise_too(data, tmp_path):
    class Epsilon(TinyBackbone):
        parameterisation = "epsilon"

        def alpha_sigma(self, t):
            return torch.cos(0.98 * t * np.pi / 2), torch.sin(0.98 * t * np.pi / 2)

    result = train(grpo(), Epsilon(), data, SPEC, 0, tmp_path)
    assert result.status == "done" and log_of(result)[0]["ratio"] == pytest.approx(1, abs=1e-4)


def test_a_rollout_of_the_wrong_shape_names_the_method():
    method, stage = grpo(), Stage("x", "online", rollout=Rollout(1, 2, steps=3))
    x = torch.zeros(2, 5, 1, 1, 1, 1)
    check_trajectory(method, stage, Trajectory(x, torch.zeros(5), torch.zeros(2, 3)), (2, 1, 1, 1, 1))
    for t, log_prob in ((4, (2, 3)), (5, (2, 4)), (5, (1, 3))):
        with pytest.raises(HalignError, match="method flow-grpo: its rollout gives"):
            check_trajectory(method, stage, Trajectory(x, torch.zeros(t), torch.zeros(*log_prob)), (2, 1, 1, 1, 1))
