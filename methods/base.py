"""The base model as it is: the row that every other one is compared with."""

from __future__ import annotations

from halign_bench.method import AlignmentMethod
from halign_bench.registry import register


@register
class Base(AlignmentMethod):
    """No training: no stages, no adapters."""

    name = "base"
    paper = "none: the base checkpoint, not aligned"
    summary = "the base as it is"
