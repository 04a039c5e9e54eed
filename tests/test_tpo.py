"""TPO: two experts, each on its pairs and its interval, in training and in sampling; and its baselines."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from losses import gradient, log_sigmoid, loss_of, mean_squares, random_pairs, residuals
from test_adapters import attach
from test_training import DPO, SPEC, log_of, preferences, weights
from tiny import TinyBackbone, TinyTrack

from halign_bench.adapters import adapter_parameters, attached
from halign_bench.batch import PairBatch
from halign_bench.conformance import check_class
from halign_bench.errors import RequestError
from halign_bench.feeding import Feed
from halign_bench.plan import RunRequest, plan
from halign_bench.registry import get
from halign_bench.sampling import initial_noise, sample, timesteps
from halign_bench.training import train

TPO = get("method", "tpo")


def tpo(**config):
    return TPO(TPO.Config(**config))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return preferences(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("config", "criterion"),
    [({"t_mid": 0}, "motion"), ({"t_mid": 1}, "fidelity"), ({"experts": "pooled"}, "overall")],
)
def test_with_one_expert_it_is_flow_dpo_bit_for_bit(data, tmp_path, config, criterion):
    ours, theirs = TinyBackbone(), TinyBackbone()
    spec = SPEC.model_copy(update={"samples": 48})
    result = train(tpo(**config), ours, data, spec, 0, tmp_path / "tpo")
    expected = train(DPO(DPO.Config(criterion=criterion)), theirs, data, spec, 0, tmp_path / "dpo")
    assert torch.equal(weights(ours), weights(theirs)) and float(weights(ours).abs().max()) > 0
    assert [entry["loss"] for entry in log_of(result)] == [entry["loss"] for entry in log_of(expected)]
    assert result.heldout == expected.heldout


@given(t_mid=st.floats(0, 1), t=st.floats(0, 1), experts=st.sampled_from(["two", "swapped"]))
def test_at_each_t_the_one_expert_is_on_that_trained_there(t_mid, t, experts):
    method = tpo(t_mid=t_mid, experts=experts)
    (active,) = method.active_adapters(t)
    (stage,) = (stage for stage in method.stages() if stage.adapter == active)
    low, high = stage.interval
    assert low - 1e-9 <= t <= high + 1e-9
    assert sum(stage.share for stage in method.stages()) == 1


def test_at_t_mid_itself_the_sampler_steps_into_the_fidelity_interval():
    method = tpo(t_mid=0.6)
    assert method.active_adapters(0.6) == ("tpo-fidelity",)
    assert method.active_adapters(0.6 + 1e-6) == ("tpo-motion",)
    for tenths, steps in itertools.product(range(1, 10), range(1, 101)):  # whatever an ulp does to 1 - i / steps
        method = tpo(t_mid=tenths / 10)
        expected = ["motion" if 10 * (steps - i) > tenths * steps else "fidelity" for i in range(steps)]
        assert [method.active_adapters(t)[0] for t in timesteps(steps)[:-1]] == [f"tpo-{name}" for name in expected]


@pytest.mark.parametrize("experts", ["two", "swapped", "pooled", "both"])
def test_stages_of_each_variant(data, experts):
    method = tpo(experts=experts, t_mid=0.3)
    found = {stage.adapter: (stage.criterion, stage.interval, stage.share) for stage in method.stages()}
    assert found == {
        "two": {"tpo-motion": ("motion", (0.3, 1.0), 0.5), "tpo-fidelity": ("fidelity", (0.0, 0.3), 0.5)},
        "swapped": {"tpo-fidelity": ("fidelity", (0.3, 1.0), 0.5), "tpo-motion": ("motion", (0.0, 0.3), 0.5)},
        "pooled": {"tpo": ("overall", (0.0, 1.0), 1.0)},
        "both": {"tpo": ("motion+fidelity", (0.0, 1.0), 1.0)},
    }[experts]
    assert bool(method.claims) == (experts == "two")


def test_each_expert_sees_its_own_pairs_and_both_means_the_union(data):
    motion, fidelity = data.pairs("motion"), data.pairs("fidelity")
    assert (motion.winner, motion.loser) != (fidelity.winner, fidelity.loser)
    rows = [Feed(data, stage, i, 4, 0, "cpu").rows for i, stage in enumerate(tpo().stages())]
    assert rows == [motion, fidelity]
    (both,) = (Feed(data, stage, 0, 4, 0, "cpu").rows for stage in tpo(experts="both").stages())
    for field in ("prompt", "winner", "loser", "margin"):
        assert getattr(both, field) == getattr(motion, field) + getattr(fidelity, field)


def test_experts_share_one_budget_and_the_second_leaves_the_first_alone(data, tmp_path):
    backbone = TinyBackbone()
    result = train(tpo(t_mid=0.4), backbone, data, SPEC, 0, tmp_path / "both")
    assert attached(backbone.denoiser) == ("tpo-motion", "tpo-fidelity")
    log = log_of(result)
    assert [entry["stage"] for entry in log] == ["tpo-motion"] * 6 + ["tpo-fidelity"] * 6
    assert result.samples_seen == SPEC.samples
    first = [entry for entry in log if entry["step"] == 1]
    assert [entry["loss"] for entry in first] == pytest.approx([math.log(2)] * 2, abs=1e-6)
    # norm_ratio has a bin for each quarter of t: an expert was shown its own interval and nothing else.
    shown = {name: [any(entry["norm_ratio"][b] is not None for entry in log if entry["stage"] == name)
                    for b in range(4)] for name in attached(backbone.denoiser)}
    assert shown == {"tpo-motion": [False, True, True, True], "tpo-fidelity": [True, True, False, False]}

    def stop(done, total):
        if done == 48:  # the motion expert is finished, the other has not begun
            raise KeyboardInterrupt

    alone = TinyBackbone()
    with pytest.raises(KeyboardInterrupt):
        train(tpo(t_mid=0.4), alone, data, SPEC, 0, tmp_path / "one", stop)
    finished, before = (adapter_parameters(b.denoiser, "tpo-motion") for b in (backbone, alone))
    assert all(torch.equal(finished[key], before[key]) for key in before)


def test_it_learns_what_its_pairs_say(data, tmp_path):
    result = train(tpo(), TinyBackbone(), data, SPEC.model_copy(update={"samples": 640}), 0, tmp_path)
    for name in ("tpo-motion", "tpo-fidelity"):
        log = [entry for entry in log_of(result) if entry["stage"] == name]
        assert log[0]["implicit_accuracy"] == 0.5
        assert np.mean([entry["implicit_accuracy"] for entry in log[-10:]]) > 0.75


@pytest.mark.parametrize("stage", [0, 1])
def test_loss_equals_an_independent_numpy_computation(stage):
    method, batch = tpo(beta=2.0), random_pairs()
    adapter = method.stages()[stage].adapter
    backbone = TinyBackbone()
    attach(backbone, adapter, seed=stage)
    output = loss_of(method, backbone, batch, stage)
    m = {(side, on): mean_squares(residuals(backbone, getattr(batch, side), [adapter] if on else []))
         for side in ("winner", "loser") for on in (True, False)}
    gap = {side: m[side, True] - m[side, False] for side in ("winner", "loser")}
    inside = -1.0 * (gap["winner"] - gap["loser"])
    assert np.abs(inside).min() > 1e-3  # the adapter does something
    np.testing.assert_allclose(output.per_sample.detach().numpy(), -log_sigmoid(inside), atol=1e-6)


@pytest.mark.parametrize("form", ["flow", "epsilon"])
def test_swapping_winner_and_loser_flips_the_gradient_at_initialisation(form):
    batch = random_pairs()
    swapped = PairBatch(batch.loser, batch.winner, batch.margin)
    gradients = []
    for given_batch in (batch, swapped):
        backbone = TinyBackbone()
        output = loss_of(tpo(form=form), backbone, given_batch)
        np.testing.assert_allclose(output.per_sample.detach().numpy(), math.log(2), atol=1e-6)
        gradients.append(gradient(output, backbone))
    assert float(gradients[0].abs().max()) > 1e-2
    torch.testing.assert_close(gradients[0], -gradients[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "config", [{"experts": "swapped"}, {"experts": "both"}, {"t_mid": 0.0}, {"t_mid": 1.0}, {"motion_nfe_share": 0.0}]
)
def test_variants_keep_the_contract_too(config):
    class Variant(TPO):
        """With other defaults."""

        def __init__(self, given=None):
            super().__init__(given or TPO.Config(**config))

    assert [check for check in check_class("method", Variant) if check.status == "failed"] == []


# Sampling


class Watched(TinyBackbone):
    """Writes down each network evaluation: (noise level, is it the unconditional branch)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, bool]] = []

    def predict(self, x_t, t, condition):
        self.seen.append((float(t[0]), not bool(condition["audio"].any())))
        return super().predict(x_t, t, condition)


def sampled(method, nfe, guidance=1.0):
    """(levels of each evaluation with its branch, adapter at each step)."""
    backbone, track = Watched(), TinyTrack()
    for place, stage in enumerate(method.stages()):
        attach(backbone, stage.adapter, place)
    condition = backbone.condition([track.clip("prompts", i) for i in range(2)])
    asked = []

    def active(t):
        asked.append((t, *method.active_adapters(t)))
        return method.active_adapters(t)

    noise = initial_noise(backbone, ["a", "b"], 0)
    sample(backbone, condition, noise, nfe=nfe, guidance=guidance, active=active, segments=method.segments())
    assert backbone.forwards == nfe * 2
    return backbone.seen, asked


def test_without_numbers_of_its_own_it_samples_as_everybody_does():
    seen, asked = sampled(tpo(t_mid=0.5), 4)
    assert [t for t, _ in seen] == [1.0, 0.75, 0.5, 0.25]
    assert [name for _, name in asked] == ["tpo-motion", "tpo-motion", "tpo-fidelity", "tpo-fidelity"]


def test_skipping_the_motion_interval_is_one_step_of_it():
    seen, asked = sampled(tpo(t_mid=0.6, motion_nfe_share=0), 7)
    assert [t for t, _ in seen] == pytest.approx([1.0, *(0.6 - 0.1 * i for i in range(6))])
    assert [name for _, name in asked] == ["tpo-motion"] + ["tpo-fidelity"] * 6


def test_guidance_of_one_interval_is_paid_from_the_same_nfe():
    seen, asked = sampled(tpo(t_mid=0.5, motion_nfe_share=0.4, fidelity_guidance=3), 10)
    assert [t for t, _ in seen] == pytest.approx([1.0, 0.875, 0.75, 0.625, 0.5, 0.5, 1 / 3, 1 / 3, 1 / 6, 1 / 6])
    assert [empty for _, empty in seen] == [False] * 4 + [False, True] * 3
    assert [name for _, name in asked] == ["tpo-motion"] * 4 + ["tpo-fidelity"] * 3
    # The protocol's guidance holds where the method says nothing.
    seen, _ = sampled(tpo(t_mid=0.5, motion_guidance=1), 9, guidance=2.0)
    assert sum(not empty and t > 0.5 for t, empty in seen) == 5 and sum(empty for _, empty in seen) == 2


def test_an_nfe_that_cannot_be_divided_is_refused_before_anything_is_loaded():
    with pytest.raises(RequestError, match=r"tpo\[motion_nfe_share=0.5\]: nfe 1: at least 2 .* 2 sampling intervals"):
        plan(RunRequest(["tpo[motion_nfe_share=0.5]"], nfe=(30, 1)))
    assert plan(RunRequest(["tpo[motion_guidance=3,fidelity_guidance=3]"], nfe=(30, 3))).variants[-1].segments()
    with pytest.raises(RequestError, match="a t_mid between 0 and 1"):
        plan(RunRequest(["tpo[t_mid=0,motion_nfe_share=0]"]))
    with pytest.raises(RequestError, match="less than or equal to 1"):
        plan(RunRequest(["tpo[t_mid=1.5]"]))
