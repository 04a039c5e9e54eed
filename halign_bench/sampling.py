"""From noise to latents: Euler for flow models, DDIM for epsilon and v, counted in network evaluations."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from halign_bench.errors import RequestError

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone, Condition
    from halign_bench.method import Segment

Progress = Callable[[int, int], None]
"""(done, total), called first with what an earlier run left done. It may raise to stop the work there."""


def derived_seed(*key: object) -> int:
    """A 63-bit seed that depends on its key alone, the same in every process and on every machine."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def initial_noise(backbone: Backbone, clip_ids: Sequence[str], seed: int) -> torch.Tensor:
    """Standard normal fp32 `[B, C, T, H, W]` on the backbone's device; each row depends on (its id, seed) alone.

    So every method starts a clip from the same noise, whatever else is in the batch. Drawn on the
    CPU, so that devices agree.
    """
    import torch

    shape = backbone.latent_shape()
    rows = [
        torch.randn(shape, generator=torch.Generator().manual_seed(derived_seed("initial noise", clip_id, seed)))
        for clip_id in clip_ids
    ]
    return torch.stack(rows).to(backbone.device)


def timesteps(steps: int, shift: float = 1.0) -> list[float]:
    """steps + 1 noise levels from 1 down to 0, uniform; shift > 1 spends more of them on high noise.

    t' = s·t / (1 + (s - 1)·t), as in Stable Diffusion 3 (arXiv 2403.03206, section 5.3.2).
    """
    uniform = [1 - step / steps for step in range(steps + 1)]
    return [_shifted(t, shift) for t in uniform]


def _shifted(t: float, shift: float) -> float:
    return shift * t / (1 + (shift - 1) * t)


@dataclass(frozen=True)
class Step:
    """One step of the sampler from noise level `now` to `after`; two network evaluations where it is guided."""

    now: float
    after: float
    guidance: float = 1.0

    @property
    def cost(self) -> int:
        return _cost(self.guidance)


def path(nfe: int, guidance: float = 1.0, segments: Sequence[Segment] = (), shift: float = 1.0) -> list[Step]:
    """Steps from noise to clean that cost exactly `nfe` network evaluations, each segment its share of them.

    Steps are even within a segment, of which each takes at least one. What cannot pay for a guided step is a step
    without guidance: the last one where all are guided and `nfe` is odd, and the last segments where `nfe` is too
    small to guide in each. Raises RequestError where there are fewer evaluations than segments.
    """
    from halign_bench.method import Segment

    segments = segments or (Segment(0.0, 1.0),)
    if nfe < len(segments):
        within = f" for {len(segments)} sampling intervals" if len(segments) > 1 else ""
        raise RequestError(f"nfe {nfe}: at least {len(segments)} network evaluations are needed{within}")
    guidances = [guidance if segment.guidance is None else segment.guidance for segment in segments]
    for n in reversed(range(len(segments))):
        if sum(map(_cost, guidances)) > nfe:
            guidances[n] = 1.0
    costs = [_cost(value) for value in guidances]
    counts = [1] * len(segments)
    left = nfe - sum(costs)
    while affordable := [n for n, cost in enumerate(costs) if cost <= left]:
        # The next step is of the segment that is furthest from its share.
        short = max(affordable, key=lambda n: nfe * segments[n].share - counts[n] * costs[n])
        counts[short] += 1
        left -= costs[short]
    counts[-1] += left
    steps: list[Step] = []
    start = 1.0
    for segment, count, value in zip(segments, counts, guidances, strict=True):
        # Even before the shift, as `timesteps` is; the ends are kept exactly.
        first, last = (t / (shift - (shift - 1) * t) for t in (start, segment.end))
        inner = [first + (last - first) * step / count for step in range(1, count)]
        grid = [start, *(_shifted(t, shift) for t in inner), segment.end]
        steps += [Step(now, after, value) for now, after in itertools.pairwise(grid)]
        start = segment.end
    if left:
        steps[-1] = replace(steps[-1], guidance=1.0)
    return steps


def _cost(guidance: float) -> int:
    return 1 if guidance == 1.0 else 2


def check_start(backbone: Backbone) -> None:
    """Raises RequestError where t = 1 tells the backbone nothing of the clean latent that it could begin with."""
    import torch

    alpha = float(backbone.alpha_sigma(torch.ones(1))[0])
    if backbone.parameterisation == "epsilon" and alpha <= 0:
        raise RequestError(f"backbone {backbone.name}: an epsilon model cannot start from pure noise (alpha(1) = 0)")


def sample(
    backbone: Backbone,
    condition: Condition,
    noise: torch.Tensor,
    *,
    nfe: int,
    guidance: float = 1.0,
    active: Callable[[float], Sequence[str]] | None = None,
    shift: float | None = None,
    segments: Sequence[Segment] = (),
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> torch.Tensor:
    """Latents `[B, C, T, H, W]` (fp32) from `noise`, with exactly `nfe` network evaluations for each.

    guidance    1 is off; otherwise `Backbone.guided`, whose second branch counts: half as many steps for the same
                nfe, rounded up
    active      noise level -> adapters that are on there; None is the base with all adapters off
    shift       as in `timesteps`; None is the backbone's own
    segments    how the method spends its nfe; none of them is evenly
    batch_size  how many to put through the network together; no effect on a sample beyond float noise
    progress    told (samples done, samples) after each batch
    """
    import torch

    steps = path(nfe, guidance, segments, backbone.shift if shift is None else shift)
    size = len(noise) if batch_size is None else batch_size
    done: list[torch.Tensor] = []
    with torch.no_grad():
        for start in range(0, len(noise), size):
            part = {name: value[start : start + size] for name, value in condition.items()}
            x = noise[start : start + size]
            for _, after in walk(backbone, part, x, steps, active):
                x = after
            done.append(x)
            if progress is not None:
                progress(min(start + size, len(noise)), len(noise))
    return torch.cat(done) if done else noise.clone()


def walk(
    backbone: Backbone,
    condition: Condition,
    x: torch.Tensor,
    steps: Sequence[Step],
    active: Callable[[float], Sequence[str]] | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """After each step (the guided prediction it was made with, the x it led to), from `x` at the first step's level.

    To be used without gradients; `active` as in `sample`. Raises RequestError for a model that cannot start from noise.
    """
    import torch

    check_start(backbone)
    x = x.float()
    unconditional = backbone.unconditional(condition) if any(step.cost == 2 for step in steps) else {}
    for step in steps:
        t = torch.full((len(x),), step.now, device=x.device)
        with backbone.adapters(tuple(active(step.now)) if active is not None else (), fused=True):
            prediction = backbone.denoise(x, t, condition).float()
            if step.cost == 2:
                empty = backbone.denoise(x, t, unconditional).float()
                prediction = backbone.guided(prediction, empty, step.guidance)
        x = advance(backbone, x, prediction, step.now, step.after)
        yield prediction, x


def advance(backbone: Backbone, x: torch.Tensor, prediction: torch.Tensor, now: float, after: float) -> torch.Tensor:
    """Euler for a velocity; deterministic DDIM (arXiv 2010.02502, eq. 12 with sigma = 0) for epsilon and v.

    From any `now` to `after` = 0 in one step it is the clean estimate that `prediction` amounts to.
    """
    import torch

    if backbone.parameterisation == "flow":
        return x + (after - now) * prediction
    levels = torch.tensor([now, after], device=x.device)
    (alpha, alpha_after), (sigma, sigma_after) = (pair.unbind() for pair in backbone.alpha_sigma(levels))
    if backbone.parameterisation == "epsilon":
        noise, clean = prediction, (x - sigma * prediction) / alpha
    else:
        noise, clean = sigma * x + alpha * prediction, alpha * x - sigma * prediction
    return alpha_after * clean + sigma_after * noise


__all__ = [
    "Progress", "Step", "advance", "check_start", "derived_seed", "initial_noise", "path", "sample", "timesteps",
    "walk",
]
