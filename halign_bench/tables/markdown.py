"""A leaderboard as Markdown, for a README or an issue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from halign_bench.tables.content import WIDTH, Lines, parts

if TYPE_CHECKING:
    from halign_bench.leaderboard import Leaderboard


def markdown(board: Leaderboard) -> str:
    """Every part, under headings of the second level."""
    text = ["# Leaderboard", "", f"Protocol `{board.protocol_hash[:12]}`.", ""]
    for part in parts(board, WIDTH):
        if part.title:
            text += [f"## {part.title}", ""]
        if not isinstance(part, Lines):
            text += pipes(part.headers, part.rows)
        else:
            lines = [_harmless(line) for line in part.lines]
            text += [f"- {line}" for line in lines] if part.title else lines
        text.append("")
    return "\n".join(text)


def pipes(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its columns padded to one width."""
    texts = [[_plain(text) for text in row] for row in [headers, *rows]]
    widths = [max(len(row[i]) for row in texts) for i in range(len(headers))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in texts
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [lines[0], rule, *lines[1:]]


def _plain(text: str) -> str:
    return _unlinked(text).replace("|", "\\|").replace("<", "\\<").replace("\n", " ")


def _harmless(text: str) -> str:
    """No tag, no link and no picture, whatever is quoted in it."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", _unlinked(text))


def _unlinked(text: str) -> str:
    return text.replace("](", "]\\(").replace("][", "]\\[")


__all__ = ["markdown", "pipes"]
