"""What a loss sees: clips as noised latents, alone, in preference pairs or on the policy's own path to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from halign_bench.errors import RequestError

# torch is imported where it is needed: method files import this module, and `halign-bench --help` must stay fast.
if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Condition


def error(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Squared error of each sample, `[B]`: the mean over all other axes, in fp32 whatever the inputs are.

    `weight` (broadcastable to the latents) multiplies the squared error before the mean.
    fp32 because beta multiplies differences of errors: one ulp of fp16 would be a visible logit.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    squared = (prediction.float() - target.float()).pow(2)
    if weight is not None:
        squared = squared * weight
    per_sample = squared.flatten(1).mean(dim=1)
    assert per_sample.shape == (len(target),), f"one error a sample expected, got {tuple(per_sample.shape)}"
    return per_sample


def half_ties(margin: torch.Tensor) -> torch.Tensor:
    """Like `margin`: 1 where it is above 0, 0 where below, and a tie counts one half. Its mean is an accuracy."""
    return (margin.sign() + 1) / 2


def epsilon_weight(t: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """`[B]`: what the error of the backbone's own prediction is multiplied by to be the error of the noise.

    x_t = α·x0 + σ·ε gives ε - ε̂ = α·(v - v̂) for the flow's v = ε - x0 and for v = α·ε - σ·x0 alike: α(t)²,
    which is (1-t)² for a flow. 1 for a backbone that predicts the noise.
    """
    if backbone.parameterisation == "epsilon":
        return t.new_ones(len(t))
    return backbone.alpha_sigma(t)[0].pow(2)


def form_weight(form: Literal["flow", "epsilon"], t: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """`[B]`: the same for a method that is told in which space to measure errors; "flow" is the velocity's.

    Raises RequestError for "flow" where the backbone is none.
    """
    if form == "epsilon":
        return epsilon_weight(t, backbone)
    if backbone.parameterisation != "flow":
        raise RequestError(
            f"form=flow measures errors of a velocity and {backbone.name} predicts {backbone.parameterisation}; "
            "set form=epsilon"
        )
    return t.new_ones(len(t))


@dataclass(frozen=True)
class ClipBatch:
    """Clips, each with the noise and the noise level it is shown at.

    x0         clean latents `[B, C, T, H, W]`
    noise      like x0, standard normal
    t          `[B]` in [0, 1], 1 is pure noise
    condition  what the model is told, batch first
    hand_mask  `[B, 1, T, H, W]` in [0, 1], how much of each latent cell a hand covers; None without a skeleton
    ids        a name for each sample
    reward     `[B]`, the annotator's score in standard deviations from the mean of its prompt; None where
               there is none (real clips) and in pairs, which have a margin instead
    """

    x0: torch.Tensor
    noise: torch.Tensor
    t: torch.Tensor
    condition: Condition
    hand_mask: torch.Tensor | None
    ids: Sequence[str]
    reward: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.x0)

    def __getitem__(self, rows: slice) -> ClipBatch:
        mask = None if self.hand_mask is None else self.hand_mask[rows]
        condition = {name: value[rows] for name, value in self.condition.items()}
        reward = None if self.reward is None else self.reward[rows]
        return ClipBatch(self.x0[rows], self.noise[rows], self.t[rows], condition, mask, self.ids[rows], reward)

    def noised(self, backbone: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
        """(x_t, target): what the network is given and what it should predict, both like x0."""
        return backbone.add_noise(self.x0, self.noise, self.t), backbone.target(self.x0, self.noise, self.t)


@dataclass(frozen=True)
class PairBatch:
    """Preference pairs. Winner and loser share noise, t and condition, so only the preference tells them apart.

    margin  `[B]`, by how many standard deviations the winner's score is above the loser's
    """

    winner: ClipBatch
    loser: ClipBatch
    margin: torch.Tensor

    def __len__(self) -> int:
        return len(self.winner)

    def __getitem__(self, rows: slice) -> PairBatch:
        return PairBatch(self.winner[rows], self.loser[rows], self.margin[rows])

    def stacked(self) -> ClipBatch:
        """All winners, then all losers, as one batch of 2B: `chunk(2)` takes a result apart again."""
        import torch

        w, l = self.winner, self.loser  # noqa: E741
        masks = None if w.hand_mask is None or l.hand_mask is None else torch.cat([w.hand_mask, l.hand_mask])
        return ClipBatch(
            torch.cat([w.x0, l.x0]), torch.cat([w.noise, l.noise]), torch.cat([w.t, l.t]),
            {name: torch.cat([w.condition[name], l.condition[name]]) for name in w.condition},
            masks, [*w.ids, *l.ids],
        )


@dataclass(frozen=True)
class Trajectory:
    """How the policy came from noise to B samples in S steps.

    x         `[B, S + 1, C, T, H, W]`, from the noise to the sample that is decoded and scored
    t         `[S + 1]`, the noise levels of these, from 1 to 0
    log_prob  `[B, K]` of the first K ≤ S steps under the policy that took them: those that are learnt from
    """

    x: torch.Tensor
    t: torch.Tensor
    log_prob: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class StepBatch(ClipBatch):
    """Single steps on the way to samples that the policy drew a short while ago, and how these scored.

    As a ClipBatch it is these samples, the noise they began as, and t: the level at which the step starts.

    x_t       like x0, where the step starts
    x_next    like x0, where it led
    t_next    `[B]`, the level there
    log_prob  `[B]`, of this step under the policy that took it
    rewards   `[B, G, criteria]`, the annotator's scores of the G samples of the same prompt; NaN where it gave none
    place     `[B]` in [0, G), which of these the step's own sample is
    """

    x_t: torch.Tensor
    x_next: torch.Tensor
    t_next: torch.Tensor
    log_prob: torch.Tensor
    rewards: torch.Tensor
    place: torch.Tensor

    def __getitem__(self, rows: slice) -> StepBatch:
        own = ("x_t", "x_next", "t_next", "log_prob", "rewards", "place")
        return StepBatch(**vars(super().__getitem__(rows)), **{name: getattr(self, name)[rows] for name in own})


__all__ = [
    "ClipBatch", "PairBatch", "StepBatch", "Trajectory", "epsilon_weight", "error", "form_weight", "half_ties",
]
