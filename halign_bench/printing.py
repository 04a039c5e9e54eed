"""What commands put on stdout: one JSON document, or a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], bad: Sequence[bool]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Into a pipe or a file nothing is folded: a line there is for grep.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for row, is_bad in zip(rows, bad, strict=True):
        table.add_row(*(Text(cell, style="red" if is_bad else "") for cell in row))
    console.print(table)


__all__ = ["print_json", "print_table"]
