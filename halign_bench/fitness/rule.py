"""What is called fit. The numbers are chosen once for all metrics and tracks; nothing is adjusted to what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

LEAST = 0.9
EXACT = 0.95
CLIPS = 4

Verdict = Literal["fit", "unfit", "not measured"]

RULE = (
    f"fit = Spearman's correlation of score and level has the expected sign and is at least {LEAST}: for a distance of "
    "sets that of its values, for a score of clips the mean over clips of each clip's own (0 where a clip's score does "
    f"not move); a sync offset must also move by exactly the shift in at least {EXACT:.0%} of cases; only clips that "
    f"are scored at every level count, and fewer than {CLIPS} of them decide nothing. A metric is unfit when it is "
    "unfit under any damage that it should follow"
)


def correlation(levels: Sequence[float], scores: Sequence[float]) -> float:
    """Spearman's rank correlation in [-1, 1]; 0 when all scores are the same, since such a score sees nothing.

    >>> correlation([0, 1, 2], [5.0, 7.0, 9.0]), correlation([0, 1, 2], [4.0, 4.0, 4.0])
    (1.0, 0.0)
    """
    from scipy.stats import spearmanr

    if len(set(scores)) < 2:
        return 0.0
    return float(spearmanr(levels, scores).statistic)


def mean_correlation(levels: Sequence[float], rows: Sequence[Sequence[float]]) -> float | None:
    """Mean over clips of `correlation`; `rows` has one row of scores a clip. None without clips.

    >>> mean_correlation([0, 1], [[1.0, 2.0], [1.0, 0.0]])
    0.0
    """
    return sum(correlation(levels, row) for row in rows) / len(rows) if rows else None


def exact_share(levels: Sequence[float], rows: Sequence[Sequence[float]]) -> float | None:
    """Share of clips and levels above the first in which the score has moved by the level. None without clips.

    >>> exact_share([0, 1, 2], [[0.0, 1.0, 2.0], [1.0, 2.0, 0.0]])
    0.75
    """
    moved = [
        score - row[0] == level - levels[0] for row in rows for level, score in zip(levels[1:], row[1:], strict=True)
    ]
    return sum(moved) / len(moved) if moved else None


def judge(sign: int, clips: int, rank: float | None, exact: float | None = None) -> tuple[Verdict, str | None]:
    """Verdict with the reason where it is not "fit". `sign` is the expected one, `exact` None where it does not matter.

    >>> judge(-1, 24, -0.97)
    ('fit', None)
    >>> judge(1, 24, 0.62)
    ('unfit', 'rank correlation 0.62, at least 0.9 is asked for')
    >>> judge(1, 4, correlation([0, 1, 2, 3, 4], [0.0, 1.0, 2.0, 4.0, 3.0]))  # 0.8999999999999998
    ('fit', None)
    >>> judge(1, 3, 1.0)
    ('not measured', '3 clips were scored at every level, 4 are needed')
    """
    if clips < CLIPS or rank is None:
        return "not measured", f"{clips} clips were scored at every level, {CLIPS} are needed"
    if round(sign * rank, 9) < LEAST:  # one exchange among five levels gives 0.9, but for rounding
        asked = f"at least {LEAST}" if sign > 0 else f"at most -{LEAST}"
        return "unfit", f"rank correlation {rank:.2f}, {asked} is asked for"
    if exact is not None and exact < EXACT:
        return "unfit", f"moves by exactly the damage in {exact:.0%} of cases, {EXACT:.0%} are asked for"
    return "fit", None


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a metric, from those of its damages.

    >>> overall(["fit", "not measured"]), overall(["fit", "unfit"]), overall([])
    ('fit', 'unfit', 'not measured')
    """
    return "unfit" if "unfit" in verdicts else "fit" if "fit" in verdicts else "not measured"


__all__ = ["RULE", "Verdict", "correlation", "exact_share", "judge", "mean_correlation", "overall"]
