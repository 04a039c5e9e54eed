"""How much worse a score may get: what `--margin` says, else a rule."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from halign_bench import registry
from halign_bench.errors import RequestError
from halign_bench.record import MetricValue, parse_key
from halign_bench.rows import stands_for

# The rule, ours: what is seen or matters little, in the units in which the score is read.
SHARE = 0.05  # of the baseline's value
ABSOLUTE = {"dB": 0.2, "frames": 0.25}
BOUNDED = 0.02  # of scores that lie within -1 and 1
RULE = "0.2 dB, 0.25 frames, 0.02 of a score that is bounded by 1, 5 % of the baseline's value of any other"
EXAMPLE = "write fid=0.5, hkc=2% or 5%"


@dataclass(frozen=True)
class Margin:
    """`amount` in the score's own unit, or as a share of the baseline's value; `given` as it was written."""

    amount: float
    relative: bool
    given: str

    def of(self, baseline: float) -> float:
        """In the score's own unit, at least 0."""
        return self.amount * abs(baseline) if self.relative else self.amount


@dataclass(frozen=True)
class Margins:
    """What was asked for: for all scores, and for those named (by metric, with extractor and NFE where given)."""

    everywhere: Margin | None = None
    named: dict[str, Margin] = field(default_factory=dict)

    def of(self, key: str, score: MetricValue) -> Margin:
        """The margin that fits a score's name most closely, else the one for all, else the rule's."""
        fitting = [name for name in self.named if stands_for(name, key)]
        if fitting:
            return self.named[max(fitting, key=lambda name: (name.count("@") + name.count("/"), len(name)))]
        return self.everywhere or _rule(score)

    def check(self, keys: Iterable[str]) -> None:
        """Raises `RequestError` for a margin that is of none of these scores."""
        keys = list(keys)
        for name in self.named:
            if not any(stands_for(name, key) for key in keys):
                known = sorted({parse_key(key).name for key in keys})
                problem = registry.unknown("score in --margin", name, known)
                raise RequestError(f"{problem}; there are {', '.join(known)}")


def parse_margins(texts: Sequence[str]) -> Margins:
    """ "5%,fid=0.5" -> 5 % for all scores, 0.5 for fid. Raises `RequestError` for what is no margin."""
    everywhere, named = None, {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        name, equals, amount = part.rpartition("=")
        margin = _parse(amount.strip(), part)
        if equals:
            parse_key(name.strip())
            named[name.strip()] = margin
        elif margin.relative:
            everywhere = margin
        else:
            raise RequestError(f"--margin {part}: scores have different units; name the score, or give a share like 5%")
    return Margins(everywhere, named)


def _parse(text: str, given: str) -> Margin:
    match = re.fullmatch(r"([0-9.eE+-]+)\s*(%?)", text)
    try:
        amount = float(match[1]) if match else math.nan
    except ValueError:
        amount = math.nan
    if match is None or not (math.isfinite(amount) and amount >= 0):
        raise RequestError(f"--margin {given}: {text or 'nothing'} is no margin; {EXAMPLE}")
    return Margin(amount / 100, True, text) if match[2] else Margin(amount, False, text)


def _rule(score: MetricValue) -> Margin:
    if score.unit in ABSOLUTE:
        return Margin(ABSOLUTE[score.unit], False, f"{ABSOLUTE[score.unit]:g} {score.unit}")
    if all(bound is not None and abs(bound) <= 1 for bound in score.bounds):
        return Margin(BOUNDED, False, f"{BOUNDED:g}")
    return Margin(SHARE, True, f"{SHARE:.0%}")


__all__ = ["RULE", "Margin", "Margins", "parse_margins"]
