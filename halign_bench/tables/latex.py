r"""A leaderboard as LaTeX: methods below each other, scores in siunitx's S columns between booktabs' rules.

To \input into a paper whose preamble has \usepackage{booktabs,siunitx} (siunitx 3); pdflatex and all newer engines
set it. Scores, the NFE grid and the cost; claims and differences stand in the other forms.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from halign_bench.record import parse_key
from halign_bench.tables.cells import UNFIT, Cells, Shown, direction, key_at, keys_shown, speed
from halign_bench.tables.content import COST, cost_columns, left_out, seeds, unfit_lines
from halign_bench.tables.tex import Column, comment, escape, number_column, text_column

if TYPE_CHECKING:
    from halign_bench.leaderboard import Leaderboard
    from halign_bench.rows import Row

LINE = 80  # digits of \footnotesize that fit the text width of LaTeX's article class
GAP = 2  # digits between two columns
SETUP = (  # value ± half, and bold numbers that stay numbers
    r"\setlength{\tabcolsep}{4pt}"
    r"\sisetup{uncertainty-mode=separate, mode=match, reset-text-series=false, text-series-to-math=true}"
)
MARKS = (
    r"$\pm$ half of the 95\,\% interval. Bold: rank 1, which methods share where the data cannot tell them apart "
    r"(paired, Holm $p<0.05$); underlined: the next rank; nothing is marked where no two are told apart. "
    r"$\ast$: on the Pareto front. $\uparrow\downarrow$: the better side."
)
GRID = "Speed (seconds of sampling per generated second) and scores over the NFE grid. Marks compare within one NFE."
ARROWS = {True: r" $\uparrow$", False: r" $\downarrow$", None: ""}


def latex(board: Leaderboard) -> str:
    """A `table` for each group of columns that fits a line. What was left out, and why, stands in comments above."""
    said = [
        r"Made by halign-bench leaderboard --format latex; the preamble needs \usepackage{booktabs,siunitx}.",
        f"Protocol {board.protocol_hash}. {seeds(board)}",
        *(f"{row.method}: {row.reason}" for row in board.rows if row.reason),
        *left_out(board),
    ]
    return "\n".join([*map(comment, said), "", *_scores(board), *_grid(board), *_cost(board)])


def _scores(board: Leaderboard) -> list[str]:
    keys, cells = keys_shown(board), Cells(board)
    usual = _usual_extractor(keys)
    at = f" at NFE {board.main_nfe}" if board.main_nfe is not None else ""
    where = f", by @{escape(usual)} where no other is named" if usual else ""
    columns = [number_column(*_header(board, key, usual), [cells.at(row, key) for row in board.rows]) for key in keys]
    names = [_name(row) for row in board.rows]
    unfit = "".join(f" {escape(line)}" for line in unfit_lines(board))
    return _tables(names, columns, f"Scores{at}{where}. {escape(seeds(board))} {MARKS}{unfit}", "Scores, continued.")


def _grid(board: Leaderboard) -> list[str]:
    nfes, keys, cells = board.nfes(), keys_shown(board), Cells(board)
    if len(nfes) < 2:
        return []
    points = [(row, nfe) for row in board.rows if row.metrics for nfe in nfes]
    speeds = [speed(board, row, nfe) for row, nfe in points]
    shown = [None if value is None else Shown(value, None, None, None, None) for value in speeds]
    columns = [number_column("s/s", 3, shown)]
    for key in keys:
        at = [cells.at(row, key_at(board, key, nfe)) for row, nfe in points]
        columns.append(number_column(*_header(board, key, _usual_extractor(keys)), at))
    names = [(escape(f"{row.method}, {nfe}"), len(f"{row.method}, {nfe}")) for row, nfe in points]
    return _tables(names, columns, GRID, "The NFE grid, continued.", "Method, NFE")


def _cost(board: Leaderboard) -> list[str]:
    columns = [text_column(name, texts) for name, texts in cost_columns(board).items()]
    names = [(escape(row.method), len(row.method)) for row in board.rows]
    return _tables(names, columns, f"{escape(COST)}.", "Cost, continued.")


def _tables(
    names: list[tuple[str, int]], columns: list[Column], caption: str, again: str, lead: str = "Method"
) -> list[str]:
    """As many columns in each as fit beside the names, which come with their width in characters."""
    start = max([len(lead), *(width for _, width in names)])
    groups: list[list[Column]] = []
    used = 0
    for column in columns:
        if not groups or used + column.width + GAP > LINE:
            groups.append([])
            used = start
        groups[-1].append(column)
        used += column.width + GAP
    lines: list[str] = []
    for number, group in enumerate(groups):
        rows = zip([name for name, _ in names], *(column.cells for column in group), strict=True)
        lines += [
            r"\begin{table}",
            r"  \centering\footnotesize",
            rf"  \caption{{{again if number else caption}}}\smallskip",
            f"  {SETUP}",
            rf"  \begin{{tabular}}{{l {' '.join(column.specification for column in group)}}}",
            r"    \toprule",
            rf"    {lead} & {' & '.join(f'{{{column.header}}}' for column in group)} \\",
            r"    \midrule",
            *(rf"    {' & '.join(row)} \\" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    return lines


def _usual_extractor(keys: list[str]) -> str | None:
    """The one that most scores rest on: said once instead of in every header."""
    counts = Counter(where for key in keys if (where := parse_key(key).where))
    return next((where for where, count in counts.most_common(1) if count > 1), None)


def _header(board: Leaderboard, key: str, usual: str | None) -> tuple[str, int]:
    name, where, _ = parse_key(key)
    text = name if where in (None, usual) else f"{name}@{where}"
    up = direction(board, key)
    mark = f" {escape(UNFIT)}" if key in board.unfit else ""
    return escape(text) + ARROWS[up] + mark, len(text) + (up is not None) + bool(mark)


def _name(row: Row) -> tuple[str, int]:
    text = row.method if row.status == "done" else f"{row.method} ({row.status})"
    return escape(text) + (r"$^{\ast}$" if row.pareto else ""), len(text) + bool(row.pareto)


__all__ = ["latex"]
