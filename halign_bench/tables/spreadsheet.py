"""A leaderboard as CSV: one line a method and score, every number in full."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from halign_bench.record import parse_key

if TYPE_CHECKING:
    from halign_bench.leaderboard import Leaderboard
    from halign_bench.rows import Row, Score

COLUMNS = (
    "method", "status", "n_seeds", "metric", "extractor", "nfe", "value", "ci_low", "ci_high", "n", "unit",
    "higher_is_better", "rank", "delta_base", "delta_base_low", "delta_base_high", "p_holm", "verdict", "delta_sft",
    "protocol", "reason", "unfit",
)  # fmt: skip


class Rows(csv.DictWriter):
    """Rows of a CSV. A spreadsheet takes a text that begins with =, +, - or @ for a formula, and texts come from
    records of others: such a one gets an apostrophe before it. Numbers stay as they are."""

    def __init__(self, file: io.StringIO, columns: Sequence[str]) -> None:
        super().__init__(file, columns, lineterminator="\n", extrasaction="ignore")

    def writerow(self, row: Mapping[str, Any]) -> Any:
        return super().writerow({name: _no_formula(value) for name, value in row.items()})

    def writerows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self.writerow(row)


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def csv_text(board: Leaderboard) -> str:
    """None is an empty field. A method without scores has one line with its reason.

    So has, without a method, each file that could not be used (status "left out") and each remark (status "note").
    """
    file = io.StringIO()
    writer = Rows(file, COLUMNS)
    writer.writeheader()
    against_base = {(c["method"], c["metric"]): c for c in board.comparisons if c["than"] == "base"}
    for row in board.rows:
        if not row.metrics:
            writer.writerow({"method": row.method, "status": row.status, "n_seeds": row.n_seeds, "reason": row.reason})
        for key in sorted(row.metrics):
            compared = against_base.get((row.method, key), {})
            writer.writerow(_line(board, row, key, row.metrics[key], compared))
    for refusal in board.refused:
        writer.writerow({"status": "left out", "reason": f"{refusal.source}: {refusal.reason}"})
    for note in board.notes:
        writer.writerow({"status": "note", "reason": note})
    return file.getvalue()


def _line(board: Leaderboard, row: Row, key: str, score: Score, compared: dict[str, Any]) -> dict[str, Any]:
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


__all__ = ["COLUMNS", "Rows", "csv_text"]
