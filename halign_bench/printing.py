"""What commands put on stdout: one JSON document, or a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def printable(text: str) -> str:
    """The same on one line, for a terminal: line breaks, control characters, signs that turn the direction of what
    follows and bytes that are no text are escaped.

    >>> printable("a b"), printable("a\\nb\\x1b[31m")
    ('a b', 'a\\\\nb\\\\x1b[31m')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(document: dict[str, Any]) -> None:
    """What a terminal would act on, or cannot show, is written as JSON's own escapes."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], bad: Sequence[bool]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Into a pipe or a file nothing is folded: a line there is for grep.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for row, is_bad in zip(rows, bad, strict=True):
        table.add_row(*(Text(printable(cell), style="red" if is_bad else "") for cell in row))
    console.print(table)


__all__ = ["print_json", "print_table", "printable"]
