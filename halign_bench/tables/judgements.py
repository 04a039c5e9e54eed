"""Claims and differences from base as rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from halign_bench.tables.cells import ABSENT, number

if TYPE_CHECKING:
    from halign_bench.leaderboard import Leaderboard

CLAIM_HEADERS = ["method", "claim", "improvement [95 %]", "verdict"]
DIFFERENCE_HEADERS = ["method", "score", "difference", "95 %", "Holm p", "verdict"]


def claim_rows(board: Leaderboard) -> list[list[str]]:
    """A line a claim, with what was measured or why that decides nothing; where it is made of several, a line each,
    unless the same keeps all of them from being made. Those of `rivals_not_run` are left out."""
    rows = []
    for claim in board.claims:
        if _not_run(board, claim):
            continue
        parts = claim["comparisons"]
        if len({part["reason"] for part in parts}) == 1 and all(part["ci"] is None for part in parts):
            parts = parts[:1]
        only = outcome(parts[0]) if len(parts) == 1 else f"{len(parts)} comparisons"
        rows.append([claim["method"], claim["text"], only, claim["verdict"]])
        for part in parts if len(parts) > 1 else ():
            better = "" if part["method"] == claim["method"] else f", {part['method']}"
            what = f"  {part['key'] or 'a score'}{better} over {part['than']}"
            rows.append(["", what, outcome(part), part["verdict"]])
    return rows


def rivals_not_run(board: Leaderboard) -> list[str]:
    """One line about all claims that a variant takes over from its method and that nobody ran the rivals for."""
    missing = [_not_run(board, claim) for claim in board.claims]
    count = sum(map(bool, missing))
    if not count:
        return []
    names = ",".join(dict.fromkeys(name for found in missing for name in found))
    claims = "1 claim that a variant takes over waits" if count == 1 else f"{count} claims that variants take over wait"
    return [f"{claims} for rows that were not run: --methods {names}"]


def _not_run(board: Leaderboard, claim: dict[str, Any]) -> list[str]:
    """Variants that a variant's claim needs beside it, where that keeps the whole claim from being judged."""
    rows = {row.method for row in board.rows}
    absent = [part["than"] for part in claim["comparisons"] if part["ci"] is None and part["than"] not in rows]
    variants = "[" in claim["method"] and all("[" in name for name in absent)
    return absent if variants and len(absent) == len(claim["comparisons"]) else []


def outcome(part: dict[str, Any]) -> str:
    """Improvement with its interval, "x" after a ratio; the reason where there is no verdict."""
    if part["ci"] is None:
        return part["reason"] or ABSENT
    low, high = part["ci"]
    half = (high - low) / 2
    text = f"{number(part['improvement'], half)} [{number(low, half)}, {number(high, half)}]"
    text += "x" if part["ratio"] else ""
    return f"{text}; {part['reason']}" if part["reason"] else text


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


__all__ = ["CLAIM_HEADERS", "DIFFERENCE_HEADERS", "claim_rows", "difference_rows", "outcome", "rivals_not_run"]
