"""Batches of a stage that learns online: the policy samples, the annotator scores, single steps are learnt from.

A rollout is a pure function of the weights at its start, the seed and its number. It serves several optimiser
steps, in which the weights move on; so a stopped training goes on from the start of a rollout, never from within.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from halign_bench.batch import StepBatch, Trajectory
from halign_bench.errors import Diverged, HalignError, RequestError
from halign_bench.feeding import visited
from halign_bench.sampling import derived_seed

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Condition, Denoiser
    from halign_bench.method import AlignmentMethod, Stage
    from halign_bench.preferences import PreferenceSet
    from halign_bench.processes import Processes


class OnlineFeed:
    """Batches of one online stage, `samples` steps each, made of rollouts on the training prompts.

    With several processes each samples and scores its share of a rollout, and all of them get the whole.

    policy     the denoiser as it is now, without gradients
    processes  of the launch

    Raises RequestError where there is no annotator, or a rollout does not fill a batch or cannot be shared.
    """

    def __init__(
        self, method: AlignmentMethod, data: PreferenceSet, stage: Stage, index: int, samples: int, seed: int,
        backbone: Backbone, policy: Denoiser, processes: Processes,
    ) -> None:
        if stage.rollout is None or stage.interval != (0.0, 1.0):
            raise ValueError(f"stage {stage.adapter} learns online: it needs a rollout, and all t as its interval")
        if data.annotate is None:
            raise RequestError(f"{method.name} scores new samples, and these preferences come without their annotator")
        self.method, self.data, self.stage, self.spec = method, data, stage, stage.rollout
        self.backbone, self.processes, self.size, self.key = backbone, processes, samples, (seed, index)
        self.annotate, self.columns = data.annotate, [data.criteria.index(c) for c in data.named(stage.criterion)]
        self.rows, self.passes = self.spec.prompts * self.spec.group, 0
        full = self.rows * self.spec.steps // samples
        if full < 1:
            raise RequestError(
                f"{method.name}: a rollout of {self.spec.prompts} prompts, {self.spec.group} samples each and "
                f"{self.spec.steps} steps of these does not fill a batch of {samples}; sample more, or learn from less"
            )
        if self.rows % processes.world:
            raise RequestError(
                f"{method.name}: {self.rows} samples of a rollout cannot be shared among "
                f"{processes.world} processes; choose another number of prompts or of samples for each"
            )
        self.updates = min(full, self.spec.updates or full)
        self.number = -1  # of the rollout that is at hand

        def counted(x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
            self.passes += len(x_t)
            return policy(x_t, t, condition)

        self.policy = counted

    def resumable(self, step: int) -> bool:
        """Whether a training that was stopped before this step can go on from it: where a rollout begins."""
        return step % self.updates == 0

    def batch(self, step: int) -> StepBatch:
        """Steps of all samples and levels mixed, each at most once."""
        number, place = divmod(step, self.updates)
        if number != self.number:
            self._roll_out(number)
        mixed = visited(self.rows * self.spec.steps, self.size, place, (*self.key, "rollout", number))
        return self._steps([divmod(position, self.spec.steps) for position in mixed])

    def news(self, step: int) -> dict[str, Any]:
        """At the first step of a rollout: its number and cost, mean rewards by criterion, how many samples lack one."""
        if not self.resumable(step):
            return {}
        named = zip(self.data.named(self.stage.criterion), self.rewards.flatten(0, 1).unbind(1), strict=True)
        means = {f"reward_{name}": float(values.nanmean()) for name, values in named}
        return {
            "rollout": self.number, "sampled": self.rows, "sampling_passes": self.passes,
            "unscored": int(self.rewards.isnan().any(dim=2).sum()),
            **{name: mean if mean == mean else None for name, mean in means.items()},
        }  # fmt: skip

    def _roll_out(self, number: int) -> None:
        """Samples and scores rollout `number` with the policy as it is."""
        self.passes = 0
        spec, share = self.spec, self.rows // self.processes.world
        self.prompts = visited(self.data.n_train, spec.prompts, number, (*self.key, "prompts"))
        mine = range(share * self.processes.rank, share * (self.processes.rank + 1))
        ways, scores = [], []
        for start in range(0, share, self.size):
            rows = mine[start : start + self.size]
            ways.append(self._sample(number, rows))
            scores.append(self._score(rows, ways[-1].x[:, -1]))
        self.processes.settle()  # before anybody waits in a collective for one that has failed
        self.t, self.passes = ways[0].t.cpu(), self.passes * self.processes.world
        x, log_prob = (self._shared([getattr(way, name) for way in ways]) for name in ("x", "log_prob"))
        self.x, self.log_prob = x, log_prob
        self.rewards = self._shared(scores).view(spec.prompts, spec.group, len(self.columns))
        self._check(number)
        self.number = number

    def _sample(self, number: int, rows: Sequence[int]) -> Trajectory:
        import torch

        shape = self.backbone.latent_shape()

        def noise(k: int) -> torch.Tensor:
            """Of each row by itself, so that it does not matter which process draws it, nor in what company."""
            shared = k == 0 and self.spec.same_start
            drawn = []
            for row in rows:
                source = row // self.spec.group * self.spec.group if shared else row
                seed = derived_seed("rollout", *self.key, number, source, k)
                drawn.append(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))
            return torch.stack(drawn).to(self.backbone.device)

        with torch.no_grad():
            way = self.method.rollout(self.stage, self.policy, noise, self._condition(rows), self.backbone)
        check_trajectory(self.method, self.stage, way, (len(rows), *shape))
        return way

    def _score(self, rows: Sequence[int], samples: torch.Tensor) -> torch.Tensor:
        """`[rows, criteria of the stage]`, each sample against the clip of its prompt."""
        import numpy as np
        import torch

        videos, found = self.backbone.decode(samples), []
        for prompt, places in itertools.groupby(range(len(rows)), key=lambda place: self._prompt(rows[place])):
            found.append(self.annotate(prompt, videos[list(places)]))
        return torch.from_numpy(np.concatenate(found)[:, self.columns]).float()

    def _check(self, number: int) -> None:
        """Stops, on all processes alike, where there is nothing to learn from."""
        if not bool(self.x.isfinite().all()):
            raise Diverged(f"stage {self.stage.adapter}, rollout {number + 1}: the policy's samples are not finite")
        spread = self.rewards.nan_to_num(nan=float("inf")).amin(1) < self.rewards.nan_to_num(nan=float("-inf")).amax(1)
        if number == 0 and not bool(spread.any()):
            raise RequestError(
                f"{self.method.name}: of the first {self.rows} samples the annotator tells no two of the same prompt "
                f"apart in {' or '.join(self.data.named(self.stage.criterion))}, so that there is nothing to learn from"
            )

    def _steps(self, chosen: Sequence[tuple[int, int]]) -> StepBatch:
        """A batch of (row, step of its trajectory)."""
        rows = [row for row, _ in chosen]
        ids = [f"{self.data.ids[self._prompt(row)]}#rollout{self.number}-{row % self.spec.group}" for row in rows]
        mask = None if self.data.hand_mask is None else self.data.hand_mask[[self._prompt(row) for row in rows]]
        way = Trajectory(self.x, self.t, self.log_prob)
        return steps_of(way, self.rewards, chosen, self._condition(rows), mask, ids, self.backbone.device)

    def _prompt(self, row: int) -> int:
        return self.prompts[row // self.spec.group]

    def _condition(self, rows: Sequence[int]) -> Condition:
        prompts = [self._prompt(row) for row in rows]
        return {name: value[prompts].to(self.backbone.device) for name, value in self.data.condition.items()}

    def _shared(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """What all processes have, in the order of rows, on the CPU."""
        import torch

        return self.processes.joined(torch.cat([part.float() for part in parts])).cpu()


def check_trajectory(method: AlignmentMethod, stage: Stage, way: Trajectory, shape: Sequence[int]) -> None:
    """Raises HalignError where a rollout is not what `Trajectory` promises for samples of this shape."""
    assert stage.rollout is not None
    batch, *latent = shape
    fits = (
        way.x.shape[:1] == (batch,) and list(way.x.shape[2:]) == latent and way.t.shape == way.x.shape[1:2]
        and way.log_prob.shape == (batch, stage.rollout.steps) and stage.rollout.steps < len(way.t)
    )  # fmt: skip
    if not fits:
        raise HalignError(
            f"method {method.name}: its rollout gives x {list(way.x.shape)}, t {list(way.t.shape)} and log_prob "
            f"{list(way.log_prob.shape)} for {batch} samples, to learn from {stage.rollout.steps} steps of each"
        )


def steps_of(
    way: Trajectory, rewards: torch.Tensor, chosen: Sequence[tuple[int, int]], condition: Condition,
    hand_mask: torch.Tensor | None, ids: Sequence[str], device: str,
) -> StepBatch:  # fmt: skip
    """The batch of steps `chosen`, each (row of the trajectories, step of it).

    rewards               `[prompts, G, criteria]`; row r is sample r % G of prompt r // G
    condition, hand_mask  of each chosen step, in order, as `ids` is
    """
    import torch

    rows, steps = (torch.tensor(column) for column in zip(*chosen, strict=True))
    group = rewards.shape[1]
    parts = {
        "x0": way.x[rows, -1], "noise": way.x[rows, 0], "t": way.t[steps], "x_t": way.x[rows, steps],
        "x_next": way.x[rows, steps + 1], "t_next": way.t[steps + 1], "log_prob": way.log_prob[rows, steps],
        "rewards": rewards[rows // group], "place": rows % group,
    }  # fmt: skip
    mask = None if hand_mask is None else hand_mask.to(device)
    return StepBatch(condition=condition, hand_mask=mask, ids=ids, **{k: v.to(device) for k, v in parts.items()})


__all__ = ["OnlineFeed", "check_trajectory", "steps_of"]
