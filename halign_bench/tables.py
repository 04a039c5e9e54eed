"""A leaderboard as text: for the terminal, as Markdown, and as CSV. No column block is wider than 100 characters."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from halign_bench.results import SPEED, parse_key

if TYPE_CHECKING:
    from rich.console import Console

    from halign_bench.leaderboard import Leaderboard, Row, Score

WIDTH = 100
ABSENT = "-"
LEGEND = (
    "± half of the 95 % interval; #k rank, shared by methods not told apart; + better, ! worse than base "
    "(paired, Holm p < 0.05); * on the Pareto front; ↑ ↓ the better side; - not measured"
)


UNFIT = " †"


@dataclass(frozen=True)
class Block:
    """A part of a table that fits the width; the columns of `lead` are repeated in each."""

    title: str
    headers: list[str]
    rows: list[list[str]]


def number(value: float | None, error: float | None = None) -> str:
    """Two significant digits of its error where that is known, else four of its own.

    >>> number(12.3456, 0.417), number(0.88123, 0.0042), number(1234567.0), number(0.0), number(None)
    ('12.35', '0.8812', '1.235e+06', '0', '-')
    """
    if value is None:
        return ABSENT
    if error and math.isfinite(error):
        digits = min(max(1 - math.floor(math.log10(error)), 0), 6)
        return f"{value:.{digits}f}"
    return f"{value:.4g}"


def blocks(board: Leaderboard, width: int = WIDTH) -> list[Block]:
    """Scores at the main NFE, a row each, with the methods beside each other; then cost."""
    title = f"Scores{f' at NFE {board.main_nfe}' if board.main_nfe is not None else ''}"
    keys = [key for key in board.scores_at() if parse_key(key).name != SPEED and board.measured(key)]
    lead = ["score"], [[_header(board, key)] for key in keys]
    verdicts = _verdicts(board)
    columns = [[_label(row), *(_cell(row, key, verdicts) for key in keys)] for row in board.rows]
    return _packed(title, lead, columns, width) + _cost_blocks(board, width)


def nfe_blocks(board: Leaderboard, width: int = WIDTH) -> list[Block]:
    """Every method at every NFE of the grid, with its speed; nothing where there is no grid."""
    nfes = board.nfes()
    if len(nfes) < 2:
        return []
    keys = [key for key in board.scores_at() if parse_key(key).name != SPEED and board.measured(key)]
    verdicts = _verdicts(board)
    points = [(row, nfe) for row in board.rows if row.metrics for nfe in nfes]

    def at(key: str, nfe: int) -> str | None:
        name, where, _ = parse_key(key)
        return next((k for k in board.scores_at(nfe) if parse_key(k)[:2] == (name, where)), None)

    speeds = [_speed(board, row, nfe) for row, nfe in points]
    main = {row.method: _speed(board, row, board.main_nfe) for row in board.rows}
    lead = ["score"], [["s/s"], ["speed-up"], *([_header(board, key)] for key in keys)]
    columns = [
        [
            f"{row.method}/nfe{nfe}",
            number(speed),
            _ratio(main[row.method], speed),
            *(_cell(row, found, verdicts) if (found := at(key, nfe)) else ABSENT for key in keys),
        ]
        for (row, nfe), speed in zip(points, speeds, strict=True)
    ]
    return _packed("Speed and scores over the NFE grid", lead, columns, width)


def _packed(
    title: str, lead: tuple[list[str], list[list[str]]], columns: Sequence[list[str]], limit: int
) -> list[Block]:
    """Columns side by side as far as the limit goes; what is left over starts a new block."""

    def width(column: Sequence[str]) -> int:
        return max(len(text) for text in column) + 3  # "| " before and " " after

    headers, rows = lead
    start = sum(width([header, *(row[i] for row in rows)]) for i, header in enumerate(headers)) + 1
    groups: list[list[list[str]]] = [[]]
    used = start
    for column in columns:
        if groups[-1] and used + width(column) > limit:
            groups.append([])
            used = start
        groups[-1].append(column)
        used += width(column)
    return [
        Block(
            title if not i else f"{title} (continued)",
            headers + [column[0] for column in group],
            [row + [column[r + 1] for column in group] for r, row in enumerate(rows)],
        )
        for i, group in enumerate(groups)
        if group
    ]


def _cost_blocks(board: Leaderboard, width: int) -> list[Block]:
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
        "memory MB": [megabytes(row) for row in board.rows],
        "s/s": [number(_speed(board, row, board.main_nfe)) for row in board.rows],
    }
    if not any(row.cost["samples_sampled"] for row in board.rows):
        del columns["sampled"]  # no method of the table learns online
    lead = ["method"], [[row.method] for row in board.rows]
    title = "Cost: means over seeds; s/s is seconds of sampling per generated second"
    return _packed(title, lead, [[header, *texts] for header, texts in columns.items()], width)


def _count(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.0f}"


def _label(row: Row) -> str:
    star = " *" if row.pareto else ""
    return f"{row.method}{star}" if row.status == "done" else f"{row.method}{star} ({row.status})"


def _header(board: Leaderboard, key: str) -> str:
    name, where, _ = parse_key(key)
    up = next((row.metrics[key].higher_is_better for row in board.rows if key in row.metrics), None)
    arrow = "" if up is None else " ↑" if up else " ↓"
    return f"{name}{f'@{where}' if where else ''}{arrow}{UNFIT if key in board.unfit else ''}"


def _cell(row: Row, key: str, verdicts: dict[tuple[str, str], str | None]) -> str:
    score = row.metrics.get(key)
    if score is None or score.value is None:
        return ABSENT
    half = (score.ci[1] - score.ci[0]) / 2 if score.ci else None
    text = number(score.value, half)
    if half is not None:
        text += f" ±{number(half, half)}"
    if score.rank is not None:
        text += f" #{score.rank}"
    return text + {"better": " +", "worse": " !"}.get(verdicts.get((row.method, key)) or "", "")


def _verdicts(board: Leaderboard) -> dict[tuple[str, str], str | None]:
    return {(c["method"], c["metric"]): c["verdict"] for c in board.comparisons if c["than"] == "base"}


def _speed(board: Leaderboard, row: Row, nfe: int | None) -> float | None:
    key = next((k for k in board.scores_at(nfe) if parse_key(k).name == SPEED and k in row.metrics), None)
    return row.metrics[key].value if key else None


def _ratio(reference: float | None, value: float | None) -> str:
    return f"{reference / value:.2f}x" if reference and value else ABSENT


def failures(board: Leaderboard) -> list[str]:
    """One line for each method with failed seeds, each score that could not be measured, and each unused file."""
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
    return lines + [f"{refusal.source}: left out, {refusal.reason}" for refusal in board.refused] + board.notes


def unfit_lines(board: Leaderboard) -> list[str]:
    """One sentence for each metric that its track calls unfit."""
    by_name = {parse_key(key)[:2]: reason for key, reason in board.unfit.items()}
    return [
        f"† {name}{f'@{where}' if where else ''} is unfit here, it does not follow damage of known size: {reason}."
        for (name, where), reason in by_name.items()
    ]


def claim_rows(board: Leaderboard) -> list[list[str]]:
    """A line a claim, with what was measured or why that decides nothing; where it is made of several, a line each,
    unless the same keeps all of them from being made."""
    rows = []
    for claim in board.claims:
        parts = claim["comparisons"]
        if len({part["reason"] for part in parts}) == 1 and all(part["ci"] is None for part in parts):
            parts = parts[:1]
        only = _compared(parts[0]) if len(parts) == 1 else f"{len(parts)} comparisons"
        rows.append([claim["method"], claim["text"], only, claim["verdict"]])
        for part in parts if len(parts) > 1 else ():
            better = "" if part["method"] == claim["method"] else f", {part['method']}"
            what = f"  {part['key'] or 'a score'}{better} over {part['than']}"
            rows.append(["", what, _compared(part), part["verdict"]])
    return rows


def _compared(part: dict[str, Any]) -> str:
    """Improvement with its interval, "x" after a ratio; the reason where there is no verdict."""
    if part["ci"] is None:
        return part["reason"] or ABSENT
    low, high = part["ci"]
    half = (high - low) / 2
    text = f"{number(part['improvement'], half)} [{number(low, half)}, {number(high, half)}]"
    text += "x" if part["ratio"] else ""
    return f"{text}; {part['reason']}" if part["reason"] else text


CLAIM_HEADERS = ["method", "claim", "improvement [95 %]", "verdict"]


def markdown(board: Leaderboard) -> str:
    """The tables, what failed, claims and differences from base, for a README or an issue."""
    parts = ["# Leaderboard", "", f"Protocol `{board.protocol_hash[:12]}`. {_seeds(board)}", ""]
    for block in blocks(board):
        parts += [f"## {block.title}", "", *pipes(block.headers, block.rows), ""]
    parts += [LEGEND + ".", "", *(part for line in unfit_lines(board) for part in (line, ""))]
    for block in nfe_blocks(board):
        parts += [f"## {block.title}", "", *pipes(block.headers, block.rows), ""]
    if lines := failures(board):
        parts += ["## Not measured or left out", "", *(f"- {line}" for line in lines), ""]
    if lines := [f"{row.method}, {warning}" for row in board.rows for warning in row.warnings]:
        parts += ["## Signs of trouble", "", *(f"- {line}" for line in lines), ""]
    if rows := claim_rows(board):
        parts += ["## Claims", "", *pipes(CLAIM_HEADERS, rows), ""]
    if rows := difference_rows(board):
        parts += ["## Differences from base", "", *pipes(DIFFERENCE_HEADERS, rows), ""]
    from halign_bench.leaderboard import RULES

    parts += ["## How to read it", "", *(f"- {name}: {rule}." for name, rule in RULES.items()), ""]
    return "\n".join(parts)


DIFFERENCE_HEADERS = ["method", "score", "difference", "95 %", "Holm p", "verdict"]


def difference_rows(board: Leaderboard) -> list[list[str]]:
    """Paired differences from base at the main NFE."""
    rows = []
    compared = {(c["method"], c["metric"]): c for c in board.comparisons if c["than"] == "base"}
    for entry in (compared.get((row.method, key)) for row in board.rows for key in board.scores_at()):
        if entry is None or entry["difference"] is None:
            continue
        half = (entry["ci"][1] - entry["ci"][0]) / 2 if entry["ci"] else None
        ci = f"{number(entry['ci'][0], half)} to {number(entry['ci'][1], half)}" if entry["ci"] else ABSENT
        p = ABSENT if entry["p_holm"] is None else f"{entry['p_holm']:.2g}"
        verdict = entry["verdict"] or entry["reason"] or ABSENT
        rows.append([entry["method"], entry["metric"], number(entry["difference"], half), ci, p, verdict])
    return rows


def _seeds(board: Leaderboard) -> str:
    counts = {row.n_seeds for row in board.rows if row.metrics}
    if counts == {1}:
        return "One seed: intervals cover the evaluation clips, not how training varies."
    return f"{'/'.join(map(str, sorted(counts)))} seeds." if counts else "No method finished."


def pipes(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    texts = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in [headers, *rows]]
    widths = [max(len(row[i]) for row in texts) for i in range(len(headers))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in texts
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [lines[0], rule, *lines[1:]]


CSV_COLUMNS = (
    "method", "status", "n_seeds", "metric", "extractor", "nfe", "value", "ci_low", "ci_high", "n", "unit",
    "higher_is_better", "rank", "delta_base", "delta_base_low", "delta_base_high", "p_holm", "verdict", "delta_sft",
    "protocol", "reason", "unfit",
)  # fmt: skip


def csv_text(board: Leaderboard) -> str:
    """One line a method and score. A method without scores has one line with its reason. None is an empty field."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    against_base = {(c["method"], c["metric"]): c for c in board.comparisons if c["than"] == "base"}
    for row in board.rows:
        if not row.metrics:
            writer.writerow({"method": row.method, "status": row.status, "n_seeds": row.n_seeds, "reason": row.reason})
        for key in sorted(row.metrics):
            compared = against_base.get((row.method, key), {})
            writer.writerow(_csv_row(board, row, key, row.metrics[key], compared))
    return file.getvalue()


def _csv_row(board: Leaderboard, row: Row, key: str, score: Score, compared: dict[str, Any]) -> dict[str, Any]:
    name, where, _ = parse_key(key)
    low, high = score.ci or (None, None)
    delta_low, delta_high = compared.get("ci") or (None, None)
    return {
        "method": row.method, "status": row.status, "n_seeds": score.n_seeds, "metric": name, "extractor": where,
        "nfe": board.nfe_of(key), "value": score.value, "ci_low": low, "ci_high": high, "n": score.n,
        "unit": score.unit, "higher_is_better": score.higher_is_better, "rank": score.rank,
        "delta_base": score.delta.get("base"), "delta_base_low": delta_low, "delta_base_high": delta_high,
        "p_holm": compared.get("p_holm"), "verdict": compared.get("verdict"), "delta_sft": score.delta.get("sft"),
        "protocol": score.protocol, "reason": score.reason or row.reason,
        "unfit": board.unfit.get(key),
    }  # fmt: skip


def print_tables(board: Leaderboard, console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def show(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], fold: tuple[int, ...] = (0,)) -> None:
        table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left")
        for i, header in enumerate(headers):
            table.add_column(Text(header), overflow="fold", no_wrap=i not in fold, min_width=len(header))
        for row in rows:
            table.add_row(*(Text(text) for text in row))  # Text: brackets of a variant's name are not markup
        console.print(table)

    for block in blocks(board, console.width):
        show(block.title, block.headers, block.rows)
    console.print(Text(f"{_seeds(board)} {LEGEND}."))
    for line in unfit_lines(board):
        console.print(Text(line))
    for block in nfe_blocks(board, console.width):
        show(block.title, block.headers, block.rows)
    for line in failures(board):
        console.print(Text(line))
    if rows := claim_rows(board):
        show("Claims of the papers, on this track", CLAIM_HEADERS, rows, fold=(0, 1, 2))
