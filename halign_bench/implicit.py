"""Implicit accuracy on held-out pairs: does the trained model find the winner likelier than the base did?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from halign_bench.batch import error, half_ties
from halign_bench.errors import Diverged, RequestError
from halign_bench.sampling import derived_seed

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone
    from halign_bench.method import AlignmentMethod
    from halign_bench.preferences import PreferenceSet

LEVELS = (0.125, 0.375, 0.625, 0.875)  # fixed noise levels: the middles of four bins of t

Adapters = Callable[[float], Sequence[str]]


class LevelReport(BaseModel):
    """At one noise level: mean errors minus the reference's (negative: learnt), and RMS of the prediction over it."""

    model_config = ConfigDict(frozen=True)

    t: float
    accuracy: float
    winner_gap: float
    loser_gap: float
    norm_ratio: float


class HeldOut(BaseModel):
    """Implicit accuracy of one criterion.

    For each held-out pair, reward = mean over `LEVELS` of ((m_ref^w - m_θ^w) - (m_ref^l - m_θ^l)), m being the
    error of the backbone's own prediction, with one noise per prompt and level for everybody. `values` is
    1 where the reward is positive, 0 where negative, 1/2 for a tie (the base itself: all ties).
    `ci` is Wilson's 95 % interval over pairs, of which there is one a prompt.
    """

    model_config = ConfigDict(frozen=True)

    criterion: str
    accuracy: float
    ci: tuple[float, float]
    pairs: int
    ids: list[str]
    identities: list[str]
    values: list[float]
    rewards: list[float]
    levels: list[LevelReport]


def wilson(successes: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion (95 % by default). `successes` may hold halves."""
    if n < 1:
        raise ValueError("no trials")
    p, spread = successes / n, z * z / n
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def implicit_accuracy(
    method: AlignmentMethod, backbone: Backbone, data: PreferenceSet, earlier: Adapters | None = None,
    batch_size: int = 16,
) -> list[HeldOut]:
    """For each criterion of `data` that has held-out pairs, and for "overall". The reference is the base.

    Raises Diverged where a prediction is not finite: compared, it would count as a pair that was told wrong.
    """
    import torch

    from halign_bench.preferences import OVERALL

    pairs = {}
    for criterion in (*data.criteria, OVERALL):
        try:
            pairs[criterion] = data.pairs(criterion, heldout=True)
        except RequestError:
            continue  # no two held-out candidates differ on it; its absence from the list says so
    wanted = sorted({
        (p, k) for rows in pairs.values() for p, w, l in zip(rows.prompt, rows.winner, rows.loser, strict=True)  # noqa: E741
        for k in (w, l)
    })
    if not wanted:
        return []
    before = earlier or (lambda t: ())
    key = (backbone.base_sha256, tuple(wanted))
    if key not in data.reference:
        data.reference[key] = _errors(backbone, data, wanted, lambda t: (), batch_size)
    reference = data.reference[key]

    def active(t: float) -> Sequence[str]:
        return (*before(t), *method.active_adapters(t))

    adapted = any(active(t) for t in LEVELS)  # else the policy is the base, whose errors are known
    policy = _errors(backbone, data, wanted, active, batch_size) if adapted else data.reference[key]
    where = {pair: row for row, pair in enumerate(wanted)}
    gap = policy[0] - reference[0]  # [rows, levels]
    power, reference_power = policy[1], reference[1]
    if not bool(gap.isfinite().all()):
        raise Diverged("predictions on held-out pairs are not finite numbers")
    reports = []
    for criterion, rows in pairs.items():
        winner = torch.tensor([where[p, k] for p, k in zip(rows.prompt, rows.winner, strict=True)])
        loser = torch.tensor([where[p, k] for p, k in zip(rows.prompt, rows.loser, strict=True)])
        rewards = gap[loser] - gap[winner]  # [pairs, levels]
        values = half_ties(rewards.mean(dim=1))
        both = torch.cat([winner, loser])
        levels = [
            LevelReport(
                t=t, accuracy=float(half_ties(rewards[:, i]).mean()),
                winner_gap=float(gap[winner, i].mean()), loser_gap=float(gap[loser, i].mean()),
                norm_ratio=float((power[both, i].sum() / reference_power[both, i].sum()).sqrt()),
            )
            for i, t in enumerate(LEVELS)
        ]
        reports.append(HeldOut(
            criterion=criterion, accuracy=float(values.mean()), ci=wilson(float(values.sum()), len(values)),
            pairs=len(values), ids=[data.ids[p] for p in rows.prompt],
            identities=[data.identities[p] for p in rows.prompt],
            values=values.tolist(), rewards=rewards.mean(dim=1).tolist(), levels=levels,
        ))
    return reports


def _errors(
    backbone: Backbone, data: PreferenceSet, wanted: Sequence[tuple[int, int]], active: Adapters, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(error, mean square of the prediction) of candidates, fp64 `[rows, levels]` on the CPU."""
    import torch

    errors, powers = [], []
    for level, t in enumerate(LEVELS):
        column: list[Any] = []
        with torch.no_grad(), backbone.adapters(tuple(dict.fromkeys(active(t)))):
            for start in range(0, len(wanted), batch_size):
                prompts, candidates = map(list, zip(*wanted[start : start + batch_size], strict=True))
                x0 = data.latents[prompts, candidates].to(backbone.device)
                noise = torch.stack([_noise(data, prompt, level) for prompt in prompts]).to(x0)
                levels = torch.full((len(x0),), t, device=x0.device)
                condition = {name: value[prompts].to(x0.device) for name, value in data.condition.items()}
                prediction = backbone.denoise(backbone.add_noise(x0, noise, levels), levels, condition)
                wrong = error(prediction, backbone.target(x0, noise, levels))
                column.append(torch.stack([wrong, prediction.float().pow(2).flatten(1).mean(1)]).double().cpu())
        joined = torch.cat(column, dim=1)
        errors.append(joined[0])
        powers.append(joined[1])
    return torch.stack(errors, dim=1), torch.stack(powers, dim=1)


def _noise(data: PreferenceSet, prompt: int, level: int) -> torch.Tensor:
    """One for each (prompt, level): shared by winner and loser, by methods and by seeds."""
    import torch

    generator = torch.Generator().manual_seed(derived_seed("held-out noise", data.ids[prompt], level))
    return torch.randn(data.real.shape[1:], generator=generator)


__all__ = ["LEVELS", "HeldOut", "LevelReport", "implicit_accuracy", "wilson"]
