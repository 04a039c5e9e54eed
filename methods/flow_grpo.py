"""Flow-GRPO (arXiv 2505.05470) and DanceGRPO (arXiv 2505.07818): online policy gradients for flows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from halign_bench.batch import ClipBatch, PairBatch, StepBatch, Trajectory
from halign_bench.method import AlignmentMethod, Claim, LossOutput, Rollout, Stage
from halign_bench.registry import register
from halign_bench.sampling import check_start, timesteps

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Condition, Denoiser

FLOW, DANCE = "arXiv 2505.05470", "arXiv 2505.07818"


def flow_step(
    x: torch.Tensor, velocity: torch.Tensor, t: torch.Tensor, t_next: torch.Tensor, noise_level: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean, standard deviation) of x at t_next, down from t: the ODE's step plus noise and what makes up for it.

    With s² = noise_level²·t/(1-t) and Δ = t - t_next, where the 1-t of t = 1 is that of t_next [code: flow_grpo]:

        mean = x - Δ·(v + s²/(2t)·(x + (1-t)·v)),  standard deviation = s·√Δ

    -(x + (1-t)·v)/t is the score of x_t, so every x_t keeps the distribution that the ODE gives it as Δ → 0.
    x and velocity are alike, t and t_next broadcast to them.
    """
    import torch

    below_one = torch.where(t == 1, t_next, t)
    variance = noise_level**2 * t / (1 - below_one)
    delta = t - t_next
    mean = x - delta * (velocity + variance / (2 * t) * (x + (1 - t) * velocity))
    return mean, (variance * delta).sqrt()


def ddim_step(
    clean: torch.Tensor, noise: torch.Tensor, now: Sequence[torch.Tensor], after: Sequence[torch.Tensor], eta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for models that are no flows: DDIM with noise (arXiv 2010.02502, equations 12 and 16).

    clean, noise  what the model takes x_t to be made of: alpha·clean + sigma·noise
    now, after    (alpha, sigma) at t and at t_next
    eta           1 is as random as DDPM, 0 is DDIM
    """
    (alpha, sigma), (alpha_next, sigma_next) = now, after
    std = eta * sigma_next / sigma * (sigma**2 - (alpha / alpha_next * sigma_next) ** 2).clamp(min=0).sqrt()
    return alpha_next * clean + (sigma_next**2 - std**2).sqrt() * noise, std


def log_probability(x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """`[B]`: log density of x under N(mean, std²), the **mean** over all non-batch axes [code: both]."""
    density = -((x - mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)
    return density.flatten(1).mean(dim=1)


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """`[B, G]` from rewards `[B, G, criteria]`: how far each of a group of G is above the group, in its spread.

    (r - mean)/spread for each criterion by itself, then their sum, so that no criterion is louder for its
    unit; the spread is the population's. 0 for a group that is all alike and for a reward that is NaN, which its
    group's mean and spread leave out.
    """
    import torch

    above = rewards - rewards.nanmean(dim=1, keepdim=True)
    spread = above.square().nanmean(dim=1, keepdim=True).sqrt()
    size = rewards.abs().nan_to_num().amax(dim=1, keepdim=True)
    told_apart = above.isfinite() & (spread > 1e-6 * size)  # less is rounding
    return torch.where(told_apart, above / spread, 0.0).sum(dim=2)


def ppo_loss(ratio: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """max(-A·ratio, -A·clip(ratio, 1 ± clip)), `[B]` from two `[B]`: no gain, no gradient, from going further out."""
    import torch

    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


@register
class FlowGRPO(AlignmentMethod):
    """Samples from the current policy, has them scored, and makes the steps to the better ones likelier, online.

    **Sampling.** A flow's ODE is replaced by an SDE that gives every x_t the same distribution [paper: Flow-GRPO],
    in far fewer steps than at evaluation [paper: Flow-GRPO]; each step then is a draw from a Gaussian whose
    log-probability is known (`flow_step`). Evaluation remains the harness's ODE. Backbones that predict the noise
    or v take DDIM with noise (`ddim_step`), as DanceGRPO does [code]. The last step goes to the predicted clean
    latent, without noise, and is not learnt from [code: DanceGRPO; flow_grpo does not learn from it either].

    **Advantage.** Several samples of a prompt make a group; a sample's reward counts relative to its group [paper:
    both], each criterion by itself, and the advantages are summed [code: DanceGRPO's HunyuanVideo training, which
    sums losses where this sums advantages; flow_grpo sums weighted rewards]. The group's own spread divides [code:
    DanceGRPO; flow_grpo takes that of all groups]. Both codes clamp advantages to ±5, which one criterion
    cannot reach in a group of up to 26 samples (√(G-1)) and is left out here.

    **Loss** of one step: max(-A·ratio, -A·clip(ratio)) + kl·KL(policy ‖ reference) [code: flow_grpo], ratio = p/p_old
    with p_old from when the step was taken, the log-probability a **mean** over axes, so that the clip range
    belongs to that reduction. KL is exact, (mean - mean_ref)²/(2·std²), averaged over axes. flow_grpo leaves
    Δ out of std² there: its β = 0.04 at 10 steps is 0.004 here. DanceGRPO has no such term [code].

    **Budget.** A step of a sample that passes the policy with gradients is one sample of the budget; what is
    sampled for it is recorded beside. Rewards are the track's annotator's on training prompts, no guidance [ours].
    """

    name = "flow-grpo"
    paper = (
        f"Flow-GRPO: Training Flow Matching Models via Online RL ({FLOW}); "
        f"DanceGRPO: Unleashing GRPO on Visual Generation ({DANCE})"
    )
    summary = "online: PPO on the steps of its own SDE samples, advantages within groups of a prompt"
    separable = True
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("motion_gap", "base", f"{FLOW}, abstract: what is rewarded improves; reward and metric are ours"),
        Claim("hkc", "base", f"{FLOW}, abstract: what is rewarded improves; reward and metric are ours"),
        Claim("fid", "base", f"{FLOW}, abstract: no appreciable loss of quality; the margin is ours", times=0.95),
        Claim(("motion_gap", "hkc"), "diffusion-dpo", "ours: online against offline on the same annotator"),
    )

    class Config(AlignmentMethod.Config):
        steps: int = Field(default=10, ge=2, description="of sampling while training [code: flow_grpo]")
        noise_level: float = Field(default=0.7, gt=0, description="of a flow's SDE [code: flow_grpo]")
        eta: float = Field(default=1.0, gt=0, le=1, description="of DDIM, where no flow [code: DanceGRPO, SD]")
        prompts: int = Field(default=4, ge=1, description="groups of a rollout [ours; 48 in flow_grpo: code]")
        group: int = Field(default=8, ge=2, description="samples of a prompt [ours; 24 in flow_grpo: code]")
        updates: int | None = Field(
            default=4, ge=1,
            description="optimiser steps on a rollout, None is all it is enough for [ours; 2 in flow_grpo: code]",
        )  # fmt: skip
        same_noise: bool = Field(
            default=False, description="a group starts from one noise [code: no in flow_grpo, yes in DanceGRPO]"
        )
        lr: float | None = Field(
            default=3e-4, gt=0, description="learning rate; None is the profile's [code: flow_grpo]"
        )
        clip: float = Field(default=1e-4, gt=0, description="of the ratio, around 1 [code: both]")
        kl: float = Field(default=0.004, ge=0, description="weight of the KL [code: flow_grpo's 0.04, see above]")
        criterion: str = Field(
            default="overall", description='rewards: "motion", "motion+fidelity", or all there are [ours]'
        )

    config: Config

    def stages(self) -> Sequence[Stage]:
        config = self.config
        rollout = Rollout(config.prompts, config.group, config.steps - 1, config.updates, config.same_noise)
        return (Stage("flow-grpo", "online", config.criterion, lr=config.lr, rollout=rollout),)

    def at_start(self, stage: Stage) -> Mapping[str, float]:
        return {"ratio": 1.0, "kl": 0.0}

    def step(
        self, backbone: Backbone, x: torch.Tensor, prediction: torch.Tensor, t: torch.Tensor, t_next: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, standard deviation) of the policy at t_next `[B]`, given its prediction at x and t `[B]`."""
        levels, prediction = [level.view(-1, *[1] * (x.ndim - 1)) for level in (t, t_next)], prediction.float()
        if backbone.parameterisation == "flow":
            return flow_step(x, prediction, *levels, self.config.noise_level)
        now, after = (backbone.alpha_sigma(level) for level in levels)
        return ddim_step(*parts(backbone, x, prediction, now), now, after, self.config.eta)

    def rollout(
        self, stage: Stage, policy: Denoiser, noise: Callable[[int], torch.Tensor], condition: Condition,
        backbone: Backbone,
    ) -> Trajectory:  # fmt: skip
        import torch

        check_start(backbone)
        grid, way, log_probs = timesteps(self.config.steps, backbone.shift), [noise(0)], []
        for number, (now, after) in enumerate(itertools.pairwise(grid), 1):
            x = way[-1]
            t, t_next = (torch.full((len(x),), level, device=x.device) for level in (now, after))
            prediction = policy(x, t, condition).float()
            if after == 0:
                level = t.view(-1, *[1] * (x.ndim - 1))
                way.append(parts(backbone, x, prediction, backbone.alpha_sigma(level))[0])
                break
            mean, std = self.step(backbone, x, prediction, t, t_next)
            way.append(mean + std * noise(number))
            log_probs.append(log_probability(way[-1], mean, std))
        return Trajectory(torch.stack(way, dim=1), torch.tensor(grid), torch.stack(log_probs, dim=1))

    def loss(
        self, stage: Stage, policy: Denoiser, reference: Denoiser, batch: ClipBatch | PairBatch, backbone: Backbone
    ) -> LossOutput:
        import torch

        assert isinstance(batch, StepBatch)
        config, step = self.config, (batch.t, batch.t_next)
        mean, std = self.step(backbone, batch.x_t, policy(batch.x_t, batch.t, batch.condition), *step)
        ratio = (log_probability(batch.x_next, mean, std) - batch.log_prob).exp()
        group = advantages(batch.rewards)
        advantage = group.gather(1, batch.place[:, None])[:, 0]
        before, _ = self.step(backbone, batch.x_t, reference(batch.x_t, batch.t, batch.condition), *step)
        kl = ((mean - before) ** 2 / (2 * std**2)).flatten(1).mean(dim=1)
        outside = ((ratio - 1).abs() > config.clip).float()
        return LossOutput(ppo_loss(ratio, advantage, config.clip) + config.kl * kl, {
            "ratio": ratio, "clip_fraction": outside, "kl": kl,
            "advantage_spread": torch.std(group, dim=1, unbiased=False),  # near 0 where criteria contradict
        })  # fmt: skip


def parts(
    backbone: Backbone, x: torch.Tensor, prediction: torch.Tensor, levels: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(clean, noise) that the prediction takes x to be made of, at (alpha, sigma) = levels."""
    alpha, sigma = levels
    if backbone.parameterisation == "flow":
        return x - sigma * prediction, x + alpha * prediction
    if backbone.parameterisation == "epsilon":
        return (x - sigma * prediction) / alpha, prediction
    return alpha * x - sigma * prediction, sigma * x + alpha * prediction
