"""What a leaderboard says, part after part, for the forms that stand in lines of text: terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from halign_bench.record import metric_key, parse_key
from halign_bench.tables.cells import (
    ABSENT,
    UNFIT,
    Cells,
    header,
    key_at,
    keys_shown,
    label,
    number,
    speed,
    speed_up,
)  # fmt: skip
from halign_bench.tables.judgements import (
    CLAIM_HEADERS,
    DIFFERENCE_HEADERS,
    claim_rows,
    difference_rows,
    rivals_not_run,
)  # fmt: skip

if TYPE_CHECKING:
    from halign_bench.leaderboard import Leaderboard
    from halign_bench.rows import Row

WIDTH = 100
LEGEND = (
    "± half of the 95 % interval; #k rank, shared by methods not told apart; + better, ! worse than base "
    "(paired, Holm p < 0.05); * on the Pareto front; ↑ ↓ the better side; - not measured"
)
COST = (
    "Cost: means over seeds; MB is peak memory of training alone; s/s is seconds of sampling per generated second "
    "at this NFE"
)


@dataclass(frozen=True)
class Block:
    """A table that fits the width.

    places  (row, column) -> 1 for what is best, 2 for the next
    fold    columns whose text may be folded
    brief   stands in the terminal too
    """

    title: str
    headers: list[str]
    rows: list[list[str]]
    places: dict[tuple[int, int], int] = field(default_factory=dict)
    fold: tuple[int, ...] = (0,)
    brief: bool = True


@dataclass(frozen=True)
class Lines:
    """Sentences, under a title where they have one."""

    title: str
    lines: list[str]
    brief: bool = True


def parts(board: Leaderboard, width: float = WIDTH) -> list[Block | Lines]:
    """All of it in the order in which it is read; parts with nothing to say are left out."""
    from halign_bench.leaderboard import RULES

    signs = [f"{row.method}, {warning}" for row in board.rows for warning in row.warnings]
    found: list[Block | Lines] = [
        *blocks(board, width),
        Lines("", [f"{seeds(board)} {LEGEND}.", *unfit_lines(board)]),
        *nfe_blocks(board, width),
        Lines("Not measured or left out", failures(board)),
        Lines("Signs of trouble", signs, brief=False),
        Block("Claims of the papers, on this track", CLAIM_HEADERS, claim_rows(board), fold=(0, 1, 2)),
        Lines("", rivals_not_run(board)),
        Block("Differences from base", DIFFERENCE_HEADERS, difference_rows(board), brief=False),
        Lines("How to read it", [f"{name}: {rule}." for name, rule in RULES.items()], brief=False),
    ]
    return [part for part in found if (part.lines if isinstance(part, Lines) else part.rows)]


# Scores and cost


def blocks(board: Leaderboard, width: float = WIDTH) -> list[Block]:
    """Scores at the main NFE, a row each, with the methods beside each other; then cost."""
    title = f"Scores{f' at NFE {board.main_nfe}' if board.main_nfe is not None else ''}"
    keys, cells = keys_shown(board), Cells(board)
    lead = ["score"], [[header(board, key)] for key in keys]
    columns: list[list[str]] = []
    places: dict[tuple[int, int], int] = {}
    for c, row in enumerate(board.rows):
        shown = [cells.at(row, key) for key in keys]
        columns.append([label(row), *(cell.text if cell else ABSENT for cell in shown)])
        places |= {(r, c): cell.place for r, cell in enumerate(shown) if cell and cell.place}
    return _packed(title, lead, columns, width, places) + _cost_blocks(board, width)


def nfe_blocks(board: Leaderboard, width: float = WIDTH) -> list[Block]:
    """Every method at every NFE of the grid, with its speed; nothing where there is no grid."""
    nfes = board.nfes()
    if len(nfes) < 2:
        return []
    keys, cells = keys_shown(board), Cells(board)
    lead = ["score"], [["s/s"], ["speed-up"], *([header(board, key)] for key in keys)]
    columns: list[list[str]] = []
    places: dict[tuple[int, int], int] = {}
    for row in (row for row in board.rows if row.metrics):
        main = speed(board, row, board.main_nfe)
        for nfe in nfes:
            took = speed(board, row, nfe)
            shown = [cells.at(row, key_at(board, key, nfe)) for key in keys]
            places |= {(r + 2, len(columns)): cell.place for r, cell in enumerate(shown) if cell and cell.place}
            texts = [cell.text if cell else ABSENT for cell in shown]
            columns.append([f"{row.method}/nfe{nfe}", number(took), speed_up(main, took), *texts])
    return _packed("Speed and scores over the NFE grid", lead, columns, width, places)


def _packed(
    title: str, lead: tuple[list[str], list[list[str]]], columns: Sequence[list[str]], limit: float,
    places: Mapping[tuple[int, int], int],
) -> list[Block]:  # fmt: skip
    """Columns side by side as far as the limit goes; what is left over starts a new block, `lead` standing in each."""

    def width(column: Sequence[str]) -> int:
        return max(len(text) for text in column) + 3  # "| " before and " " after

    headers, rows = lead
    start = sum(width([header, *(row[i] for row in rows)]) for i, header in enumerate(headers)) + 1
    groups: list[list[int]] = [[]]
    used = start
    for c, column in enumerate(columns):
        if groups[-1] and used + width(column) > limit:
            groups.append([])
            used = start
        groups[-1].append(c)
        used += width(column)
    return [
        Block(
            title if not i else f"{title} (continued)",
            headers + [columns[c][0] for c in group],
            [row + [columns[c][r + 1] for c in group] for r, row in enumerate(rows)],
            {
                (r, len(headers) + at): places[r, c]
                for at, c in enumerate(group) for r in range(len(rows)) if (r, c) in places
            },
        )
        for i, group in enumerate(groups)
        if group
    ]  # fmt: skip


def cost_columns(board: Leaderboard) -> dict[str, list[str]]:
    """Header -> its text for each row: what a method cost to train and to sample."""

    def megabytes(row: Row) -> str:
        memory = row.cost["peak_memory_bytes"]
        return number(memory / 2**20 if memory is not None else None)

    columns = {
        "status": [row.status for row in board.rows],
        "seeds": [str(row.n_seeds) for row in board.rows],
        "train s": [number(row.cost["train_seconds"]) for row in board.rows],
        "sample s": [number(row.cost["sample_seconds"]) for row in board.rows],
        "params": [_count(row.cost["trained_parameters"]) for row in board.rows],
        "samples": [_count(row.cost["samples_seen"]) for row in board.rows],
        "sampled": [_count(row.cost["samples_sampled"]) for row in board.rows],
        "MB": [megabytes(row) for row in board.rows],
        "NFE": [_count(board.main_nfe) if row.metrics else ABSENT for row in board.rows],
        "s/s": [number(speed(board, row, board.main_nfe)) for row in board.rows],
    }
    if not any(row.cost["samples_sampled"] for row in board.rows):
        del columns["sampled"]  # no method of the table learns online
    return columns


def _cost_blocks(board: Leaderboard, width: float) -> list[Block]:
    lead = ["method"], [[row.method] for row in board.rows]
    return _packed(COST, lead, [[name, *texts] for name, texts in cost_columns(board).items()], width, {})


def _count(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.0f}"


# Sentences


def seeds(board: Leaderboard) -> str:
    counts = {row.n_seeds for row in board.rows if row.metrics}
    if counts == {1}:
        return "One seed: intervals cover the evaluation clips, not how training varies."
    return f"{'/'.join(map(str, sorted(counts)))} seeds." if counts else "No method finished."


def failures(board: Leaderboard) -> list[str]:
    """One line for each method with failed seeds or without what others have, each score that could not be measured,
    and each unused file."""
    lines = [f"{row.method}: {row.reason}" for row in board.rows if row.reason]
    missing: dict[tuple[str, str], list[str]] = {}
    for row in board.rows:
        for key, score in row.metrics.items():
            if score.reason:
                missing.setdefault((key, score.reason), []).append(row.method)
    everyone = {row.method for row in board.rows if row.metrics}
    for (key, reason), methods in missing.items():
        who = "" if set(methods) == everyone else f" for {', '.join(methods)}"
        lines.append(f"{key}{who}: {reason}")
    all_keys = list(dict.fromkeys(key for row in board.rows for key in row.metrics))
    for row in board.rows:
        if row.metrics and (lacking := [key for key in all_keys if key not in row.metrics]):
            lines.append(f"{row.method}: {', '.join(lacking)} not in its record{'s' if row.n_seeds > 1 else ''}")
    return lines + left_out(board)


def unfit_lines(board: Leaderboard) -> list[str]:
    """One sentence for each score shown that its track calls unfit."""
    by_name = {parse_key(key)[:2]: board.unfit[key] for key in keys_shown(board) if key in board.unfit}
    return [
        f"{UNFIT} {metric_key(name, where, None)} is unfit here, it does not follow damage of known size: {reason}."
        for (name, where), reason in by_name.items()
    ]


def left_out(board: Leaderboard) -> list[str]:
    """Files that could not be used, and what else was noticed about the records."""
    return [f"{refusal.source}: left out, {refusal.reason}" for refusal in board.refused] + board.notes


__all__ = [
    "WIDTH", "Block", "Lines", "blocks", "cost_columns", "failures", "left_out", "nfe_blocks", "parts", "seeds",
    "unfit_lines",
]  # fmt: skip
