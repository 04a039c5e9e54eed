"""What is watched while a method trains: is the policy still a denoiser, and how far from the reference is it?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from halign_bench.processes import Processes

BINS = 4  # of t, for the logged ratio of norms


@dataclass
class Watch:
    """What the policy was shown in one step, (x_t, t), and mean squares of what came out of the networks, by t."""

    shown: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    policy: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    reference: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    target: list[torch.Tensor] = field(default_factory=list)

    def joined(self, processes: Processes) -> Watch:
        """As one process would have it that had put the whole batch through; of `shown` its own part."""
        import torch

        def rows(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
            if not pairs:
                return []
            both = processes.joined(torch.cat([torch.stack([t.float(), power], dim=1) for t, power in pairs]))
            return [(both[:, 0], both[:, 1])]

        target = [processes.joined(torch.cat(self.target))]
        return Watch(self.shown, rows(self.policy), rows(self.reference), target)

    def norm_ratio(self) -> list[float | None]:
        """RMS of the policy's prediction over the reference's in each bin of t; None where nothing fell."""
        import torch

        ratios: list[float | None] = [None] * BINS
        if not self.reference or len(self.policy) != len(self.reference):
            return ratios
        t = torch.cat([t for t, _ in self.policy])
        policy = torch.cat([power for _, power in self.policy])
        reference = torch.cat([power for _, power in self.reference])
        if policy.shape != reference.shape:
            return ratios
        bins = (t * BINS).long().clamp(0, BINS - 1)
        for number in range(BINS):
            if bool((chosen := bins == number).any()):
                ratios[number] = float((policy[chosen].sum() / reference[chosen].sum()).sqrt())
        return ratios

    def relative_rms(self) -> float:
        """RMS of the policy's predictions over that of what they should have been."""
        import torch

        power = torch.cat([power for _, power in self.policy]).mean()
        return float((power / torch.cat(self.target).mean()).sqrt())


__all__ = ["BINS", "Watch"]
