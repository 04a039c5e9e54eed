"""A leaderboard in the terminal: its brief parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from halign_bench.tables.content import Lines, parts

if TYPE_CHECKING:
    from rich.console import Console

    from halign_bench.leaderboard import Leaderboard


def print_tables(board: Leaderboard, console: Console) -> None:
    """As wide as the console."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    for part in (part for part in parts(board, console.width) if part.brief):
        if isinstance(part, Lines):
            for line in part.lines:
                console.print(Text(line))
            continue
        table = Table(title=Text(part.title), box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left")
        for i, header in enumerate(part.headers):
            table.add_column(Text(header), overflow="fold", no_wrap=i not in part.fold, min_width=len(header))
        for row in part.rows:
            table.add_row(*(Text(text) for text in row))  # Text: brackets of a variant's name are not markup
        console.print(table)


__all__ = ["print_tables"]
