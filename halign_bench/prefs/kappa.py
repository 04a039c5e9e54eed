"""Agreement beyond chance: Cohen's κ of two annotators, Fleiss' κ of several. Pure functions, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kappa:
    """A κ, or why there is none.

    value     in [-1, 1]: 1 is full agreement, 0 what chance would give; None where `reason` says why
    observed  share of agreeing labels (of agreeing pairs of labels, for Fleiss), in [0, 1]; None without items
    items     how many were labelled
    """

    value: float | None
    observed: float | None
    items: int
    reason: str | None = None


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> Kappa:
    """κ = (p_o - p_e) / (1 - p_e) of two annotators' labels of the same items, in the same order (Cohen 1960).

    p_o is the share of items with equal labels, p_e the share that two independent annotators with these
    frequencies of labels would give. Unweighted: all disagreements count alike. Raises ValueError when one has
    more labels than the other.

    >>> cohen_kappa(["left", "left", "right", "tie"], ["left", "right", "right", "tie"]).value
    0.6363636363636364
    >>> cohen_kappa(["left", "left"], ["left", "left"]).reason
    'everybody gave the same label throughout, so chance explains all of it'
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} labels of one annotator and {len(second)} of the other: one an item expected")
    n = len(first)
    if n < 2:
        return Kappa(None, None if n == 0 else float(first[0] == second[0]), n, too_few(n))
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    frequency, other = Counter(first), Counter(second)
    by_chance = sum(count * other[label] for label, count in frequency.items())  # of n², exactly
    return _kappa(observed, by_chance / n**2, by_chance == n**2, n)


def fleiss_kappa(items: Sequence[Sequence[Hashable]]) -> Kappa:
    """κ of several annotators, the same number m ≥ 2 of labels for each item; which is whose does not matter.

    With n_ij labels j of item i: P_i = Σ_j n_ij (n_ij - 1) / (m (m - 1)), p_j the share of label j among all labels,
    κ = (mean P_i - Σ p_j²) / (1 - Σ p_j²) (Fleiss 1971, eq. 1 to 7). Raises ValueError where items differ in their
    number of labels, or have fewer than 2.

    >>> fleiss_kappa([["left"] * 3, ["right"] * 3, ["left", "left", "right"]]).value
    0.55
    """
    if not items:
        return Kappa(None, None, 0, too_few(0))
    raters = len(items[0])
    if raters < 2 or any(len(labels) != raters for labels in items):
        raise ValueError("the same number of labels for each item expected, at least 2")
    n, totals, agreeing = len(items), Counter[Hashable](), 0
    for labels in items:
        counts = Counter(labels)
        totals.update(counts)
        agreeing += sum(count * (count - 1) for count in counts.values())
    observed = agreeing / (n * raters * (raters - 1))
    if n < 2:
        return Kappa(None, observed, n, too_few(n))
    by_chance, all_labels = sum(count**2 for count in totals.values()), (n * raters) ** 2
    return _kappa(observed, by_chance / all_labels, by_chance == all_labels, n)


def too_few(items: int) -> str:
    """Why so few items give no κ."""
    return f"{items or 'no'} pair{'s' if items != 1 else ''} to compare; at least 2 are needed"


def _kappa(observed: float, expected: float, only_one_label: bool, items: int) -> Kappa:
    if only_one_label:
        reason = "everybody gave the same label throughout, so chance explains all of it"
        return Kappa(None, observed, items, reason)
    return Kappa((observed - expected) / (1 - expected), observed, items)


__all__ = ["Kappa", "cohen_kappa", "fleiss_kappa", "too_few"]
