"""What people's labels say of the candidates of each prompt: pairs, winners, and rewards. Pure; no tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from halign_bench.errors import RequestError
from halign_bench.preferences import OVERALL, Examples, Pairs, split

if TYPE_CHECKING:
    from halign_bench.method import AlignmentMethod, Stage

SIGNS = {"left": 1, "right": -1, "tie": 0, "good": 1, "bad": -1}
HELDOUT = 0.25  # share of the prompts that is never trained on, as of sampled preferences


@dataclass(frozen=True)
class Judgement:
    """One line: of a prompt's candidates `first` is compared with `second`, or judged alone where that is None.

    signs  criterion -> 1: the first is better (or good), -1: worse (or bad), 0: a tie
    """

    prompt: int
    first: int
    second: int | None
    signs: Mapping[str, int]

    def sign(self, criterion: str) -> int | None:
        """None where the line does not say. "overall", unless labelled itself, is what most of its criteria say."""
        if criterion in self.signs or criterion != OVERALL:
            return self.signs.get(criterion)
        total = sum(self.signs.values())
        return (total > 0) - (total < 0)


@dataclass(frozen=True)
class Labels:
    """Everything that the lines of one file say.

    source      the file, for sentences
    prompts     how many there are; of these [0, n_train) are trained on, the rest is held out
    real        for each prompt, whether it has a real clip
    """

    source: str
    prompts: int
    real: Sequence[bool]
    judgements: Sequence[Judgement]

    @cached_property
    def n_train(self) -> int:
        return split(self.prompts, HELDOUT)

    @cached_property
    def criteria(self) -> tuple[str, ...]:
        """In order of their names, without "overall"."""
        return tuple(sorted({name for judgement in self.judgements for name in judgement.signs} - {OVERALL}))

    def pairs(self, criterion: str, heldout: bool = False) -> Pairs:
        """Every compared pair with a better side, in the order of the file, with margin 1; "a+b" is those of both.

        They may contradict each other. Raises RequestError when there is none.
        """
        found = Pairs([], [], [], [])
        for name in criterion.split("+"):
            for judgement in self._within(heldout):
                sign = judgement.sign(name)
                if judgement.second is not None and sign:
                    better, worse = (judgement.first, judgement.second)[:: 1 if sign > 0 else -1]
                    found.prompt.append(judgement.prompt)
                    found.winner.append(better)
                    found.loser.append(worse)
                    found.margin.append(1.0)
        if not found:
            raise self._lacks(f"no pair with a better side for {criterion}", heldout)
        return found

    def rewards(self, criterion: str) -> dict[tuple[int, int], float]:
        """(prompt, candidate) -> 2r - 1 in [-1, 1], r being its share of wins; a tie is half a win, "good" is one."""
        seen: dict[tuple[int, int], list[int]] = {}
        for judgement in self.judgements:
            if (sign := judgement.sign(criterion)) is not None:
                seen.setdefault((judgement.prompt, judgement.first), []).append(sign)
                if judgement.second is not None:
                    seen.setdefault((judgement.prompt, judgement.second), []).append(-sign)
        return {key: sum(signs) / len(signs) for key, signs in sorted(seen.items())}

    def winners(self, criterion: str, limit: int | None = None) -> Examples:
        """Of each training prompt all that share its highest reward, where that is above 0; with `limit` the so many
        with the highest reward, of equal ones the first. Raises RequestError when there is none, or fewer.
        """
        rewards = {key: value for key, value in self.rewards(criterion).items() if key[0] < self.n_train}
        best: dict[int, float] = {}
        for (prompt, _), reward in rewards.items():
            best[prompt] = max(reward, best.get(prompt, 0.0))
        kept = [(key, reward) for key, reward in rewards.items() if reward > 0 and reward == best[key[0]]]
        if not kept:
            raise self._lacks(f"no winner for {criterion}")
        if limit is not None and len(kept) < limit:
            raise RequestError(
                f"{limit} winners for {criterion} asked for and {self.source} gives {len(kept)} to train on; ask for "
                "fewer, or label more"
            )
        if limit is not None:
            kept = sorted(sorted(kept, key=lambda row: -row[1])[:limit])
        return _examples(kept)

    def candidates(self, criterion: str) -> Examples:
        """Every labelled candidate of the training prompts with its reward; those with reward 0 say nothing and are
        left out. Raises RequestError where not both better and worse ones are there.
        """
        kept = [row for row in self.rewards(criterion).items() if row[0][0] < self.n_train and row[1]]
        if len({reward > 0 for _, reward in kept}) < 2:
            raise self._lacks(f"not both good and bad videos for {criterion}")
        return _examples(kept)

    def clips(self) -> Examples:
        """The real clips of the training prompts. Raises RequestError when there is none."""
        prompts = [prompt for prompt in range(self.n_train) if self.real[prompt]]
        if not prompts:
            raise self._lacks("no real clip (its prompts are conditions of their own)")
        return Examples(prompts, None)

    def check(self, method: AlignmentMethod) -> None:
        """Raises RequestError in one sentence where the method needs what these labels lack."""
        for stage in method.stages():
            try:
                self._check_stage(stage)
            except RequestError as problem:
                raise RequestError(f"{method.name} learns from {_NEEDS[stage.data]}: {problem}") from None

    def _check_stage(self, stage: Stage) -> None:
        for name in stage.criterion.split("+") if stage.data in ("pairs", "winners", "candidates") else ():
            if name != OVERALL and name not in self.criteria:
                known = ", ".join((*self.criteria, OVERALL))
                raise RequestError(f"{self.source} has no label for {name}, only for {known}")
            if stage.data == "pairs":
                self.pairs(name)
        if stage.data == "winners":
            self.winners(stage.criterion, stage.limit)
        elif stage.data == "candidates":
            self.candidates(stage.criterion)
        elif stage.data == "clips":
            self.clips()
        elif stage.data == "online":
            raise RequestError(f"labels of a file cannot score what it samples; run it without {self.source}")

    def _within(self, heldout: bool) -> list[Judgement]:
        return [judgement for judgement in self.judgements if (judgement.prompt >= self.n_train) == heldout]

    def _lacks(self, what: str, heldout: bool = False) -> RequestError:
        count = self.prompts - self.n_train if heldout else self.n_train
        which = "held out" if heldout else "to train on"
        prompts = "1 prompt" if count == 1 else f"{count} prompts"
        return RequestError(f"{self.source} has {what} among the {prompts} {which}; label more")


_NEEDS = {
    "pairs": "pairs", "winners": "winners", "candidates": "good and bad candidates", "clips": "real clips",
    "online": "scores of its own fresh samples", "none": "nothing",
}  # fmt: skip


def _examples(rows: Sequence[tuple[tuple[int, int], float]]) -> Examples:
    return Examples([p for (p, _), _ in rows], [k for (_, k), _ in rows], [reward for _, reward in rows])


__all__ = ["HELDOUT", "SIGNS", "Judgement", "Labels"]
