"""One score as a table shows it: where it is rounded, how it is marked, and what its row and column are called."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from halign_bench.record import SPEED, parse_key

if TYPE_CHECKING:
    from halign_bench.leaderboard import Leaderboard
    from halign_bench.rows import Row

ABSENT = "-"
LARGE = 1e12  # from here on numbers stand as powers of ten, whatever their error
UNFIT = "†"
ARROWS = {True: " ↑", False: " ↓", None: ""}


def decimals(error: float) -> int:
    """Places after the point, 0 to 6, that leave two significant digits of an error above 0.

    >>> decimals(0.417), decimals(31.0)
    (2, 0)
    """
    return min(max(1 - math.floor(math.log10(error)), 0), 6)


def number(value: float | None, error: float | None = None) -> str:
    """Two significant digits of its error where that is known, else four of its own.

    >>> number(12.3456, 0.417), number(0.88123, 0.0042), number(1234567.0), number(0.0), number(None)
    ('12.35', '0.8812', '1.235e+06', '0', '-')
    """
    if value is None:
        return ABSENT
    if error and math.isfinite(error) and abs(value) < LARGE:
        return f"{value:.{decimals(error)}f}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Shown:
    """A measured score.

    half     half of its 95 % interval
    rank     as in the table; `place` is 1 for rank 1 and 2 for the next rank that a row has, else None
    verdict  against base: better, worse, …
    """

    value: float
    half: float | None
    rank: int | None
    place: int | None
    verdict: str | None

    @property
    def text(self) -> str:
        text = number(self.value, self.half)
        if self.half is not None:
            text += f" ±{number(self.half, self.half)}"
        if self.rank is not None:
            text += f" #{self.rank}"
        return text + {"better": " +", "worse": " !"}.get(self.verdict or "", "")


class Cells:
    """The scores of a leaderboard by row and key; None where there is no value."""

    def __init__(self, board: Leaderboard) -> None:
        self._verdicts = {(c["method"], c["metric"]): c["verdict"] for c in board.comparisons if c["than"] == "base"}
        ranks: dict[str, set[int]] = {}
        for row in board.rows:
            for key, score in row.metrics.items():
                ranks.setdefault(key, set()).update(() if score.rank is None else (score.rank,))
        self._next = {key: min((rank for rank in found if rank > 1), default=None) for key, found in ranks.items()}

    def at(self, row: Row, key: str | None) -> Shown | None:
        score = row.metrics.get(key) if key is not None else None
        if key is None or score is None or score.value is None:
            return None
        half = score.ci[1] / 2 - score.ci[0] / 2 if score.ci else None
        place = None if score.rank is None else 1 if score.rank == 1 else 2 if score.rank == self._next[key] else None
        return Shown(score.value, half, score.rank, place, self._verdicts.get((row.method, key)))


def keys_shown(board: Leaderboard) -> list[str]:
    """The scores of the table at the main NFE. Speed stands with the cost, unless it was chosen as a score."""
    asked = any(parse_key(text).name == SPEED for text in board.order)
    return [key for key in board.scores_at() if board.measured(key) and (asked or parse_key(key).name != SPEED)]


def key_at(board: Leaderboard, key: str, nfe: int | None) -> str | None:
    """The same score at another NFE of the grid."""
    name, where, _ = parse_key(key)
    return next((k for k in board.scores_at(nfe) if parse_key(k)[:2] == (name, where)), None)


def direction(board: Leaderboard, key: str) -> bool | None:
    return next((row.metrics[key].higher_is_better for row in board.rows if key in row.metrics), None)


def header(board: Leaderboard, key: str) -> str:
    """ "fid@puppet ↓", with a dagger where its track calls it unfit."""
    name, where, _ = parse_key(key)
    mark = f" {UNFIT}" if key in board.unfit else ""
    return f"{name}{f'@{where}' if where else ''}{ARROWS[direction(board, key)]}{mark}"


def label(row: Row) -> str:
    star = " *" if row.pareto else ""
    return f"{row.method}{star}" if row.status == "done" else f"{row.method}{star} ({row.status})"


def speed(board: Leaderboard, row: Row, nfe: int | None) -> float | None:
    """Seconds of sampling per generated second."""
    key = next((k for k in board.scores_at(nfe) if parse_key(k).name == SPEED and k in row.metrics), None)
    return row.metrics[key].value if key else None


def speed_up(reference: float | None, value: float | None) -> str:
    return f"{reference / value:.2f}x" if reference and value else ABSENT


__all__ = [
    "ABSENT", "ARROWS", "UNFIT", "Cells", "Shown", "decimals", "direction", "header", "key_at", "keys_shown", "label",
    "number", "speed", "speed_up",
]  # fmt: skip
