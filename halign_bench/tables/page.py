"""A leaderboard as one HTML page that needs nothing beside it: tables with captions and scoped headers, no script."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.tables.content import parts

if TYPE_CHECKING:
    from halign_bench.leaderboard import Leaderboard


def page(board: Leaderboard) -> str:
    """Every part of it; a table is as wide as it is, and scrolls. All text is escaped."""
    return str(_template().render(protocol=board.protocol_hash[:12], parts=parts(board, math.inf))) + "\n"


@cache
def _template() -> Any:
    from jinja2 import Environment

    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)


__all__ = ["page"]
