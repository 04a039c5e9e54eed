"""Tensors in several files, read as one: what is read of them is what is asked for, when it is asked for."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.errors import HalignError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Stored:
    """The tensor `name` of a safetensors file. The file is mapped into memory while rows are copied, and no longer.

    Raises HalignError where it is gone or cut by then.
    """

    path: Path
    name: str
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, indices: Sequence[tuple[Any, ...]]) -> list[torch.Tensor]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.path), framework="pt") as stored:  # looks whether it is as long as it should be
                mapped = stored.get_tensor(self.name)
                return [mapped[index].clone() for index in indices]
        except (OSError, SafetensorError) as problem:
            raise HalignError(
                f"{self.path} can no longer be read ({problem}); the same command makes it again"
            ) from None


class Joined:
    """Tensors of one shape but for their first axis, `[N_i, …]`, in memory or stored, as if they were one `[ΣN_i, …]`.

    Indexed by a number, a slice or a list of numbers; behind it by whatever one row takes, or by a list as long as the
    first. What comes is a copy.
    """

    def __init__(self, parts: Sequence[torch.Tensor | Stored]) -> None:
        self.parts = list(parts)
        self.ends = list(itertools.accumulate(len(part) for part in self.parts))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.ends[-1], *self.parts[0].shape[1:])

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: Any) -> torch.Tensor:
        import torch

        first, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(first, int):
            return self._fetch([(first, *rest)])[0]
        rows = range(len(self))[first] if isinstance(first, slice) else first
        if rest and isinstance(rest[0], list):
            return torch.stack(self._fetch([(n, one, *rest[1:]) for n, one in zip(rows, rest[0], strict=True)]))
        return torch.stack(self._fetch([(number, *rest) for number in rows]))

    def _fetch(self, indices: Sequence[tuple[Any, ...]]) -> list[torch.Tensor]:
        """One tensor for each index, in order; every file is opened once."""
        wanted: dict[int, list[tuple[int, tuple[Any, ...]]]] = {}
        for place, (number, *rest) in enumerate(indices):
            row = range(len(self))[number]  # IndexError where there is none
            whose = bisect.bisect_right(self.ends, row)
            start = self.ends[whose] - len(self.parts[whose])
            wanted.setdefault(whose, []).append((place, (row - start, *rest)))
        found: dict[int, torch.Tensor] = {}
        for whose, those in wanted.items():
            part = self.parts[whose]
            within = [index for _, index in those]
            rows = part.rows(within) if isinstance(part, Stored) else [part[index].clone() for index in within]
            found.update(zip((place for place, _ in those), rows, strict=True))
        return [found[place] for place in range(len(indices))]


__all__ = ["Joined", "Stored"]
