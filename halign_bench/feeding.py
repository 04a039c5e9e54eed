"""Batches of a training stage, each a pure function of (seed, stage, step): a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from halign_bench.batch import ClipBatch, PairBatch
from halign_bench.errors import RequestError
from halign_bench.sampling import derived_seed

if TYPE_CHECKING:
    import torch

    from halign_bench.method import Stage
    from halign_bench.preferences import Examples, Pairs, PreferenceSet


def visited(count: int, size: int, step: int, key: Sequence[object]) -> list[int]:
    """Which of `count` rows batch `step` of `size` rows takes: all of them once each epoch, in an order of its own."""
    import torch

    chosen: list[int] = []
    epoch, order = -1, None
    for position in range(step * size, (step + 1) * size):
        if position // count != epoch:
            epoch = position // count
            generator = torch.Generator().manual_seed(derived_seed("order", *key, epoch))
            order = torch.randperm(count, generator=generator)
        assert order is not None
        chosen.append(int(order[position % count]))
    return chosen


class Feed:
    """Batches of one stage, `samples` clips each (a pair is two clips).

    Rows are visited in a fresh order every epoch; t is uniform on the stage's interval. Everything is
    drawn on the CPU, so that devices agree, and then moved to `device`.
    """

    def __init__(self, data: PreferenceSet, stage: Stage, index: int, samples: int, seed: int, device: str) -> None:
        self.data, self.stage, self.device = data, stage, device
        self.key = (seed, index)
        self.rows: Pairs | Examples
        self.paired = stage.data == "pairs"
        if stage.data == "pairs":
            if samples % 2:
                raise RequestError(f"batch size {samples}: a pair is two samples, so it must be even")
            self.rows, self.size = data.pairs(stage.criterion), samples // 2
        elif stage.data == "winners":
            self.rows, self.size = data.winners(stage.criterion, stage.limit), samples
        elif stage.data == "candidates":
            self.rows, self.size = data.candidates(stage.criterion), samples
        elif stage.data == "clips":
            self.rows, self.size = data.clips(), samples
        else:
            raise ValueError(f"stage {stage.adapter} trains on {stage.data!r}, which is no kind of data")

    def chosen(self, step: int) -> list[int]:
        """Positions in `rows` of batch `step`."""
        return visited(len(self.rows), self.size, step, self.key)

    def resumable(self, step: int) -> bool:
        """Whether a training that was stopped before this step can go on from it: here always."""
        return True

    def news(self, step: int) -> dict[str, Any]:
        """What there is to log of this step's batch besides the loss: here nothing."""
        return {}

    def batch(self, step: int) -> ClipBatch | PairBatch:
        import torch

        chosen = self.chosen(step)
        generator = torch.Generator().manual_seed(derived_seed("noise", *self.key, step))
        low, high = self.stage.interval
        t = low + (high - low) * torch.rand(self.size, generator=generator)
        noise = torch.randn(self.size, *self.data.real.shape[1:], generator=generator)
        rows: Any = self.rows
        if self.paired:
            winner = self._clips(chosen, [rows.winner[i] for i in chosen], noise, t)
            x0, ids = self._latents(chosen, [rows.loser[i] for i in chosen])
            margin = torch.tensor([rows.margin[i] for i in chosen], dtype=torch.float32, device=self.device)
            return PairBatch(winner, replace(winner, x0=x0, ids=ids), margin)
        if rows.candidate is None:
            return self._clips(chosen, None, noise, t)
        clips = self._clips(chosen, [rows.candidate[i] for i in chosen], noise, t)
        reward = torch.tensor([rows.reward[i] for i in chosen], dtype=torch.float32, device=self.device)
        return replace(clips, reward=reward)

    def _clips(
        self, chosen: list[int], candidates: list[int] | None, noise: torch.Tensor, t: torch.Tensor
    ) -> ClipBatch:
        data, prompts = self.data, [self.rows.prompt[i] for i in chosen]
        x0, ids = self._latents(chosen, candidates)
        condition = {name: value[prompts].to(self.device) for name, value in data.condition.items()}
        mask = None if data.hand_mask is None else data.hand_mask[prompts].to(self.device)
        return ClipBatch(x0, noise.to(self.device), t.to(self.device), condition, mask, ids)

    def _latents(self, chosen: list[int], candidates: list[int] | None) -> tuple[torch.Tensor, list[str]]:
        """Of candidates, or real ones where there are none, and their names."""
        data, prompts = self.data, [self.rows.prompt[i] for i in chosen]
        x0 = data.real[prompts] if candidates is None else data.latents[prompts, candidates]
        names = ["real"] * len(prompts) if candidates is None else [f"candidate{k}" for k in candidates]
        return x0.to(self.device), [f"{data.ids[p]}#{name}" for p, name in zip(prompts, names, strict=True)]


__all__ = ["Feed", "visited"]
