"""Sampling: common noise, exact counts of network evaluations, correct integrators."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_adapters import attach
from tiny import TinyBackbone, TinyTrack

from halign_bench.backbone import Backbone
from halign_bench.errors import RequestError
from halign_bench.method import Segment
from halign_bench.sampling import Step, initial_noise, path, sample, timesteps


@pytest.fixture(scope="module")
def condition():
    backbone, track = TinyBackbone(), TinyTrack()
    return backbone.condition([track.clip("prompts", i) for i in range(4)])


def test_noise_depends_on_clip_and_seed_alone():
    backbone = TinyBackbone()
    ids = ["a", "b", "c"]
    together = initial_noise(backbone, ids, seed=1)
    torch.manual_seed(123)
    assert torch.equal(initial_noise(backbone, ids[::-1], seed=1), together.flip(0))
    assert torch.equal(initial_noise(backbone, ["b"], seed=1)[0], together[1])
    assert not torch.equal(initial_noise(backbone, ids, seed=2), together)
    assert together.shape == (3, *backbone.latent_shape())
    many = initial_noise(backbone, [str(i) for i in range(200)], seed=0)
    assert abs(float(many.mean())) < 0.02 and abs(float(many.std()) - 1) < 0.02


@pytest.mark.parametrize(("nfe", "guidance"), [(1, 1.0), (7, 1.0), (2, 3.0), (8, 0.5), (5, 2.0)])
def test_exactly_as_many_network_evaluations_as_asked_for(condition, nfe, guidance):
    backbone = TinyBackbone()
    noise = initial_noise(backbone, list("abcd"), 0)
    sample(backbone, condition, noise, nfe=nfe, guidance=guidance, batch_size=3)
    assert backbone.forwards == nfe * 4


def test_too_few_evaluations_are_refused(condition):
    backbone = TinyBackbone()
    noise = initial_noise(backbone, list("abcd"), 0)
    with pytest.raises(RequestError, match=r"nfe 0: at least 1 network evaluations are needed$"):
        sample(backbone, condition, noise, nfe=0)
    halves = (Segment(0.5, 0.5), Segment(0.0, 0.5))
    with pytest.raises(RequestError, match=r"nfe 1: at least 2 network evaluations are needed for 2 sampling"):
        path(1, segments=halves)


def test_what_cannot_pay_for_guidance_goes_without():
    assert [(step.now, step.guidance) for step in path(5, 2.0)] == [(1, 2.0), (pytest.approx(2 / 3), 2.0),
                                                                    (pytest.approx(1 / 3), 1.0)]  # fmt: skip
    assert path(4, 2.0) == [Step(1.0, 0.5, 2.0), Step(0.5, 0.0, 2.0)]
    assert path(1, 2.0) == [Step(1.0, 0.0, 1.0)]
    halves = (Segment(0.5, 0.5, 3.0), Segment(0.0, 0.5))
    assert path(3, 2.0, halves) == [Step(1.0, 0.5, 3.0), Step(0.5, 0.0, 1.0)]
    assert path(2, 2.0, halves) == [Step(1.0, 0.5, 1.0), Step(0.5, 0.0, 1.0)]


def test_batch_composition_does_not_matter(condition):
    backbone = TinyBackbone()
    noise = initial_noise(backbone, list("abcd"), 0)
    reports = []
    whole = sample(backbone, condition, noise, nfe=4)
    parts = sample(
        backbone, condition, noise, nfe=4, batch_size=3, progress=lambda done, total: reports.append((done, total))
    )
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)
    assert torch.equal(whole, sample(backbone, condition, noise, nfe=4))
    assert reports == [(3, 4), (4, 4)]
    assert whole.requires_grad is False and whole.dtype == torch.float32


def test_guidance_extrapolates_from_the_unconditional_branch(condition):
    backbone = TinyBackbone()
    noise = initial_noise(backbone, list("abcd"), 0)
    plain = sample(backbone, condition, noise, nfe=1)
    empty = sample(backbone, backbone.unconditional(condition), noise, nfe=1)
    assert not torch.allclose(plain, empty)
    torch.testing.assert_close(
        sample(backbone, condition, noise, nfe=2, guidance=3.0), empty + 3 * (plain - empty), rtol=1e-4, atol=1e-4
    )


def test_adapters_are_on_only_where_the_method_says(condition):
    backbone = TinyBackbone()
    attach(backbone, "high", 1)
    attach(backbone, "low", 50)
    noise = initial_noise(backbone, list("abcd"), 0)
    asked = []

    def active(t):
        asked.append(t)
        return ["high"] if t > 0.5 else ["low"]

    result = sample(backbone, condition, noise, nfe=2, active=active)
    assert asked == [1.0, 0.5]
    x = noise
    for t, name in ((1.0, "high"), (0.5, "low")):
        with torch.no_grad(), backbone.adapters([name], fused=True):
            x = x - 0.5 * backbone.predict(x, torch.full((4,), t), condition)
    assert torch.equal(result, x)
    base = sample(TinyBackbone(), condition, noise, nfe=2)
    with backbone.adapters(["high"]):  # None is the base, whatever happens to be active around it
        assert torch.equal(sample(backbone, condition, noise, nfe=2), base)


@given(steps=st.integers(1, 200), shift=st.floats(0.1, 20))
def test_grid_runs_from_noise_to_clean(steps, shift):
    grid = timesteps(steps, shift)
    assert len(grid) == steps + 1 and grid[0] == pytest.approx(1) and grid[-1] == 0
    assert all(a > b for a, b in itertools.pairwise(grid))
    if shift == 1:
        assert grid == pytest.approx([1 - i / steps for i in range(steps + 1)])


@given(
    nfe=st.integers(1, 120), guidance=st.sampled_from([1.0, 3.0]), t_mid=st.floats(0.01, 0.99),
    share=st.floats(0, 1), own=st.tuples(*[st.sampled_from([None, 1.0, 2.0])] * 2), shift=st.sampled_from([1.0, 3.0]),
)  # fmt: skip
def test_a_divided_path_costs_exactly_its_nfe(nfe, guidance, t_mid, share, own, shift):
    segments = (Segment(t_mid, share, own[0]), Segment(0.0, 1 - share, own[1]))
    costs = [1 if (guidance if g is None else g) == 1.0 else 2 for g in own]
    try:
        steps = path(nfe, guidance, segments, shift)
    except RequestError as problem:
        assert nfe < 2 and f"nfe {nfe}: at least 2 network" in str(problem)
        return
    assert sum(step.cost for step in steps) == nfe
    assert steps[0].now == 1.0 and steps[-1].after == 0.0
    assert all(step.now > step.after for step in steps)
    assert all(a.after == b.now for a, b in itertools.pairwise(steps))
    high = [step for step in steps if step.now > t_mid]
    assert high[-1].after == t_mid  # exactly, so that adapters change where they should
    if nfe < sum(costs):
        assert len(steps) == 2
        return
    low = steps[len(high) :]
    if costs == [2, 2] and nfe % 2:
        assert low.pop().cost == 1
    assert {step.cost for step in high} == {costs[0]} and {step.cost for step in low} <= {costs[1]}
    wanted = share * nfe
    assert abs(sum(step.cost for step in high) - wanted) <= max(3, *costs)


def test_an_undivided_path_is_the_grid():
    grid = timesteps(7, 3.0)
    assert [(step.now, step.after) for step in path(7, shift=3.0)] == list(itertools.pairwise(grid))
    whole = path(7, segments=[Segment(0.0, 1.0)], shift=3.0)
    assert [step.now for step in whole] == pytest.approx(grid[:-1])
    assert path(14, 2.0) == [Step(now, after, 2.0) for now, after in itertools.pairwise(timesteps(7))]


class Known(Backbone):
    """Knows the one clean latent there is, so every step's right answer is known."""

    name, device, denoiser = "known", "cpu", torch.nn.Identity()
    clean = torch.full((1, 2, 2, 2), 0.7)

    def __init__(self, parameterisation) -> None:
        self.parameterisation = parameterisation

    def alpha_sigma(self, t):
        if self.parameterisation == "flow":
            return super().alpha_sigma(t)
        return torch.cos(t * 1.5), torch.sin(t * 1.5)

    def adapters(self, active, fused=False):
        import contextlib

        return contextlib.nullcontext()

    def predict(self, x_t, t, condition):
        alpha, sigma = (w.view(-1, 1, 1, 1, 1) for w in self.alpha_sigma(t))
        noise = (x_t - alpha * self.clean) / sigma
        return self.target(self.clean.expand_as(x_t), noise, t)


@pytest.mark.parametrize("parameterisation", ["flow", "epsilon", "v"])
@pytest.mark.parametrize("nfe", [1, 5])
def test_a_perfect_network_leads_to_the_clean_latent(parameterisation, nfe):
    backbone = Known(parameterisation)
    noise = torch.randn(3, 1, 2, 2, 2)
    start = noise if parameterisation == "flow" else None
    if start is None:  # alpha(1) > 0 here: begin on the marginal that the network was told
        alpha, sigma = backbone.alpha_sigma(torch.ones(1))
        start = alpha * backbone.clean + sigma * noise
    result = sample(backbone, {}, start, nfe=nfe)
    torch.testing.assert_close(result, backbone.clean.expand_as(result), rtol=1e-3, atol=1e-3)


def test_an_epsilon_model_without_signal_at_the_start_is_refused():
    backbone = Known("epsilon")
    backbone.alpha_sigma = lambda t: (1 - t, t)
    with pytest.raises(RequestError, match="epsilon model"):
        sample(backbone, {}, torch.randn(1, 1, 2, 2, 2), nfe=2)
