"""Self-checks, each against the fault that it is for, injected into a real training; and no false alarm."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

import pytest
import torch
from tiny import TinyBackbone, TinyTrack

from halign_bench import adapters
from halign_bench.adapters import attach_lora, attached, remove_adapters
from halign_bench.batch import error
from halign_bench.errors import HalignError, SelfCheckFailed
from halign_bench.feeding import Feed
from halign_bench.method import AlignmentMethod, LossOutput, Stage
from halign_bench.preferences import PreferenceSpec, collect
from halign_bench.registry import get
from halign_bench.selfcheck import PATIENCE, SelfCheck, fingerprint
from halign_bench.training import TrainingSpec, train

DPO, SFT = get("method", "diffusion-dpo"), get("method", "sft")
SPEC = TrainingSpec(samples=56, batch_size=8, lr=5e-3, rank=2, warmup=1)  # seven steps


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    spec = PreferenceSpec(prompts=12, candidates=3, nfe=2)
    return collect(TinyBackbone(), TinyTrack(), spec, tmp_path_factory.mktemp("cache"))


def complaint(method, data, folder, backbone=None, spec=SPEC, **options) -> str:
    with pytest.raises(SelfCheckFailed) as failed:
        train(method, backbone or TinyBackbone(), data, spec, 0, folder, **options)
    sentence = str(failed.value)
    assert "\n" not in sentence and sentence.startswith(f"self-check of {method.name}, stage ")
    assert not (folder / "checkpoint.pt").exists() and not (folder / "result.json").exists()
    return sentence


# Policy and reference at the start


def test_an_adapter_that_is_not_nothing_at_the_start(data, tmp_path, monkeypatch):
    def warm(*arguments):
        for parameter in (parameters := attach_lora(*arguments)):
            parameter.data += 0.05
        return parameters

    monkeypatch.setattr(adapters, "attach_lora", warm)
    assert "differs from the reference by" in complaint(SFT(), data, tmp_path)
    assert not (tmp_path / "train.jsonl").exists()  # not a single step was taken


def test_a_model_that_answers_differently_each_time(data, tmp_path):
    class Dropout(TinyBackbone):
        def predict(self, x_t, t, condition):
            return torch.nn.functional.dropout(super().predict(x_t, t, condition), 0.1)

    assert "the model must be deterministic" in complaint(SFT(), data, tmp_path, Dropout())


def test_an_adapter_on_top_of_another_starts_from_both(data, tmp_path):
    """Its policy is not the reference at the start, and its loss not log 2; that is as it should be."""

    class Twice(DPO):
        def stages(self):
            return tuple(replace(DPO.stages(self)[0], adapter=name, share=0.5) for name in ("first", "second"))

    spec = SPEC.model_copy(update={"samples": 160, "lr": 2e-2})
    result = train(Twice(), TinyBackbone(), data, spec, 0, tmp_path)
    assert result.status == "done" and result.steps == 20


# The loss


class WrongReference(DPO):
    """Takes the winner's reference error for the loser's too: a slip that trains without any complaint."""

    def loss(self, stage, policy, reference, batch, backbone):
        def once(x_t, t, condition):
            predicted = reference(x_t, t, condition)
            return torch.cat([predicted.chunk(2)[0]] * 2)

        return super().loss(stage, policy, once, batch, backbone)


def test_a_loss_that_is_not_its_closed_form(data, tmp_path):
    sentence = complaint(WrongReference(), data, tmp_path)
    assert "before the first update" in sentence and sentence.endswith("its formula gives 0.693147")
    assert not (tmp_path / "train.jsonl").read_text()


def test_another_quantity_may_be_stated_and_must_be_logged(data, tmp_path):
    class Ratio(SFT):
        stated = 1.0

        def at_start(self, stage):
            return {"ratio": self.stated}

        def loss(self, stage, policy, reference, batch, backbone):
            x_t, target = batch.noised(backbone)
            ours = policy(x_t, batch.t, batch.condition)
            ratio = error(ours, target) / error(reference(x_t, batch.t, batch.condition), target)
            return LossOutput(ratio, {"ratio": ratio})

    assert train(Ratio(), TinyBackbone(), data, SPEC, 0, tmp_path / "good").status == "done"
    wrong = Ratio()
    wrong.stated = 2.0
    assert "its ratio is 1 before the first update" in complaint(wrong, data, tmp_path / "wrong")

    class Silent(SFT):
        def at_start(self, stage):
            return {"ratio": 1.0}

    with pytest.raises(HalignError, match="logs none"):
        train(Silent(), TinyBackbone(), data, SPEC, 0, tmp_path / "silent")


def test_dpo_states_log_2():
    assert DPO().at_start(DPO().stages()[0]) == {"loss": math.log(2)} and SFT().at_start(SFT().stages()[0]) == {}


# Pairs


@pytest.mark.parametrize("what", ["noise", "t"])
@pytest.mark.parametrize("where", ["feed", "method"])
def test_pairs_that_do_not_share_noise_or_t(data, tmp_path, monkeypatch, what, where):
    def apart(batch):
        generator = torch.Generator().manual_seed(9)
        own = torch.randn(batch.loser.x0.shape, generator=generator) if what == "noise" else batch.loser.t.flip(0)
        return replace(batch, loser=replace(batch.loser, **{what: own}))

    class OwnNoise(DPO):
        def loss(self, stage, policy, reference, batch, backbone):
            return super().loss(stage, policy, reference, apart(batch), backbone)

    if where == "feed":
        whole = Feed.batch
        monkeypatch.setattr(Feed, "batch", lambda self, step: apart(whole(self, step)))
    sentence = complaint(OwnNoise() if where == "method" else DPO(), data, tmp_path)
    assert "4 of 4 pairs are shown to the policy with different noise or t" in sentence


def test_one_pair_of_four_is_noticed(data, tmp_path):
    class Slip(DPO):
        def loss(self, stage, policy, reference, batch, backbone):
            noise = batch.loser.noise.clone()
            noise[2] = noise[2].flip(-1)
            return super().loss(
                stage, policy, reference, replace(batch, loser=replace(batch.loser, noise=noise)), backbone
            )

    assert "1 of 4 pairs" in complaint(Slip(), data, tmp_path)


class Margin(AlignmentMethod):
    """Winner's error less loser's, shown to the policy as `order` says."""

    name, paper = "margin", "none"
    order = "two calls"

    def stages(self):
        return (Stage("margin", "pairs"),)

    def loss(self, stage, policy, reference, batch, backbone):
        sides = [(*clips.noised(backbone), clips) for clips in (batch.winner, batch.loser)]
        if self.order == "loser first":
            sides.reverse()
        if self.order == "interleaved":
            both = batch.stacked()
            rows = torch.arange(len(both.t)).view(2, -1).T.flatten()
            x_t, target = (part[rows] for part in both.noised(backbone))
            condition = {name: value[rows] for name, value in both.condition.items()}
            errors = error(policy(x_t, both.t[rows], condition), target).view(-1, 2)
            return LossOutput(errors[:, 0] - errors[:, 1])
        errors = [error(policy(x_t, clips.t, clips.condition), target) for x_t, target, clips in sides]
        if self.order == "winner alone":
            return LossOutput(errors[0])
        return LossOutput(errors[0] - errors[1])


@pytest.mark.parametrize("order", ["two calls", "loser first", "interleaved"])
def test_shared_noise_is_recognised_in_any_order(data, tmp_path, order):
    method = Margin()
    method.order = order
    assert train(method, TinyBackbone(), data, SPEC, 0, tmp_path).status == "done"


def test_a_method_may_say_that_it_means_other_noise(data, tmp_path):
    class Apart(DPO):
        shares_noise = False

        def loss(self, stage, policy, reference, batch, backbone):
            loser = replace(batch.loser, noise=batch.loser.noise.flip(0))
            return super().loss(stage, policy, reference, replace(batch, loser=loser), backbone)

    assert train(Apart(), TinyBackbone(), data, SPEC, 0, tmp_path).status == "done"


# Gradients


class Switched(TinyBackbone):
    """Its adapters are attached and trained, and `switch` says what is wrong with each of their layers."""

    def __init__(self, switch) -> None:
        super().__init__()
        self.switch = switch

    @contextlib.contextmanager
    def adapters(self, active, fused=False):
        with super().adapters(active, fused):
            for place, layer in enumerate(adapters._tuner_layers(self.denoiser)):
                self.switch(place, layer)
            yield


def off(place, layer):
    layer._disable_adapters = True  # peft's enable_adapters(False), which also says that nothing trains


def first_off(place, layer):
    layer._disable_adapters = place == 0


def nothing(place, layer):
    layer.scaling.update(dict.fromkeys(layer.scaling, 0.0))


def first_nothing(place, layer):
    layer.scaling.update(dict.fromkeys(layer.scaling, 0.0 if place == 0 else 1.0))


@pytest.mark.parametrize("method", [DPO, SFT])
@pytest.mark.parametrize(
    ("switch", "says"),
    [
        (off, "its loss depends on nothing that trains"),
        (first_off, "no gradient reaches 2 of the 32 parameters of its adapter, among them blocks.0.attn1.to_q.lora_A"),
        (nothing, f"exactly 0 in the first {PATIENCE} steps"),
    ],
)
def test_a_lora_that_is_disabled(data, tmp_path, method, switch, says):
    assert says in complaint(method(), data, tmp_path, Switched(switch))


def test_one_layer_scaled_to_nothing_is_a_warning(data, tmp_path):
    """So is a layer whose input is zero in these data, which is no fault: it cannot be told from here."""
    said: list[str] = []
    result = train(SFT(), Switched(first_nothing), data, SPEC, 0, tmp_path, warn=said.append)
    assert result.status == "done" and [sign.name for sign in result.warnings] == ["unreached parameters"]
    assert said == [result.warnings[0].text] and "2 parameters" in said[0] and "attn1.to_q.lora_A" in said[0]
    assert result.warnings[0].step == PATIENCE


def test_a_policy_that_is_not_in_the_loss(data, tmp_path):
    class Deaf(SFT):
        def loss(self, stage, policy, reference, batch, backbone):
            x_t, target = batch.noised(backbone)
            return LossOutput(error(policy(x_t, batch.t, batch.condition).detach(), target))

    assert "depends on nothing that trains" in complaint(Deaf(), data, tmp_path)


class Unfreezes(SFT):
    def loss(self, stage, policy, reference, batch, backbone):
        backbone.denoiser.proj_out.requires_grad_(True)
        return super().loss(stage, policy, reference, batch, backbone)


def test_gradients_that_reach_more_than_the_adapter(data, tmp_path):
    backbone = TinyBackbone()
    sentence = complaint(Unfreezes(), data, tmp_path / "a", backbone)
    assert "gradients reach 2 weights that are not its adapter's, among them proj_out.weight" in sentence
    # The next method on the same model is not blamed for what that one left.
    assert train(SFT(), backbone, data, SPEC, 0, tmp_path / "b").status == "done"


def test_a_zero_gradient_of_a_at_the_start_is_no_fault(data, tmp_path, monkeypatch):
    """B = 0 makes it exactly zero at the first step, and at no later one."""
    taken = []
    whole = SelfCheck.gradients_reach_the_adapter_alone

    def watched(self, step):
        taken.append({name: bool(p.grad.any()) for name, p in self.own.items()})
        return whole(self, step)

    monkeypatch.setattr(SelfCheck, "gradients_reach_the_adapter_alone", watched)
    result = train(SFT(), TinyBackbone(), data, SPEC, 0, tmp_path)
    assert result.warnings == []
    assert {reached for name, reached in taken[0].items() if "lora_A" in name} == {False}
    assert {reached for name, reached in taken[0].items() if "lora_B" in name} == {True}
    assert set(taken[1].values()) == {True}


# The reference


class Drifts(SFT):
    """Its reference drifts by a thousandth from the third step on."""

    calls = 0

    def loss(self, stage, policy, reference, batch, backbone):
        self.calls += 1
        if self.calls > 2:
            backbone.denoiser.blocks[1].ffn.net[2].weight.data.mul_(1.001)
        return super().loss(stage, policy, reference, batch, backbone)


def test_a_reference_that_drifts(data, tmp_path):
    sentence = complaint(Drifts(), data, tmp_path)
    assert sentence.endswith("the reference has moved: blocks.1.ffn.net.2.weight changed, and only its adapter may")


def test_a_buffer_that_drifts(data, tmp_path):
    class Counts(TinyBackbone):
        def __init__(self):
            super().__init__()
            self.denoiser.register_buffer("seen", torch.zeros(1, dtype=torch.int64))

        def predict(self, x_t, t, condition):
            self.denoiser.seen += 1
            return super().predict(x_t, t, condition)

    assert "the reference has moved: seen changed" in complaint(SFT(), data, tmp_path, Counts())


def test_a_drift_is_noticed_at_the_next_checkpoint_and_none_is_left(data, tmp_path):
    done = []
    complaint(Drifts(), data, tmp_path, progress=lambda now, budget: done.append(now), checkpoint_seconds=0)
    assert done[-1] == 2 * SPEC.batch_size  # the third step drifts, and its checkpoint is not written


def test_an_interrupt_leaves_no_checkpoint_of_a_drifted_reference(data, tmp_path):
    def stop(done, budget):
        if done == 5 * SPEC.batch_size:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Drifts(), TinyBackbone(), data, SPEC, 0, tmp_path, stop)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_an_adapter_of_an_earlier_stage_that_moves(data, tmp_path):
    class Moves(SFT):
        def stages(self):
            return Stage("one", "winners", share=0.5), Stage("two", "winners", share=0.5)

        def loss(self, stage, policy, reference, batch, backbone):
            if stage.adapter == "two":
                for parameter in adapters.adapter_parameters(backbone.denoiser, "one").values():
                    parameter.data += 1e-4
            return super().loss(stage, policy, reference, batch, backbone)

    sentence = complaint(Moves(), data, tmp_path)
    assert "stage two: the reference has moved: blocks.0.attn1.to_q.lora_A.one.weight and 31 more" in sentence


def test_a_fingerprint_changes_with_every_weight_and_not_with_adapters():
    module = TinyBackbone().denoiser
    before = fingerprint(module)
    for name, parameter in module.named_parameters():
        kept = parameter.detach().clone()
        parameter.data.view(-1)[-1] += 1e-6 * (1 + abs(float(kept.view(-1)[-1])))
        changed = fingerprint(module)
        parameter.data.copy_(kept)
        assert [key for key in before if changed[key] != before[key]] == [name]
    attach_lora(module, "x", TinyBackbone.lora_targets, 2, 2, 0)
    assert fingerprint(module, attached(module)) == before
    assert fingerprint(module).keys() > before.keys()
    remove_adapters(module)
    assert fingerprint(module) == before


# What it costs


def test_it_costs_two_clips_twice_and_changes_nothing(data, tmp_path, monkeypatch):
    checked, unchecked = TinyBackbone(), TinyBackbone()
    data.reference.clear()  # the held-out errors of the base, which are kept from one training to the next
    with_checks = train(DPO(), checked, data, SPEC, 0, tmp_path / "with")
    for name in ("adapter_starts_as_nothing", "loss_has_its_closed_form", "pairs_share_noise_and_t"):
        monkeypatch.setattr(SelfCheck, name, lambda self, *given: None)
    monkeypatch.setattr(SelfCheck, "gradients_reach_the_adapter_alone", lambda self, step: [])
    data.reference.clear()
    without = train(DPO(), unchecked, data, SPEC, 0, tmp_path / "without")
    assert with_checks.heldout == without.heldout
    assert checked.forwards - unchecked.forwards == 2 * 2
