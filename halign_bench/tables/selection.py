"""The scores and methods that a table is to show, in the order asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from halign_bench.errors import RequestError
from halign_bench.record import SPEED, parse_key
from halign_bench.rows import stands_for, with_front

if TYPE_CHECKING:
    from halign_bench.leaderboard import Leaderboard


def select(board: Leaderboard, metrics: str | None = None, methods: str | None = None) -> Leaderboard:
    """A table of these alone ("fid,sync_c@puppet", "base,ipa[hand_weight=1]"); None takes all.

    Ranks, corrections and claims stay those of the whole table, so that choosing what to show cannot improve them;
    the Pareto front is that of the chosen scores among all methods. The cost keeps the speed.
    Raises `RequestError` for a name that nothing in the table has.
    """
    rows, compared, claims, order = list(board.rows), board.comparisons, board.claims, board.order
    if metrics is not None:
        order = tuple(_split(metrics))
        known = {key for row in rows for key in row.metrics}
        for text in order:
            parse_key(text)
            if not any(stands_for(text, key) for key in known):
                raise _unknown("--metrics", text, {parse_key(key).name for key in known})
        kept = {key for key in known if any(stands_for(text, key) for text in order)}
        rows = with_front(
            [replace(row, metrics={key: score for key, score in row.metrics.items() if key in kept}) for row in rows],
            board.main_nfe, speed=any(parse_key(key).name == SPEED for key in kept),
        )  # fmt: skip
        speeds = {key for key in known if parse_key(key).name == SPEED}
        rows = [
            replace(row, metrics={k: s for k, s in before.metrics.items() if k in kept | speeds})
            for row, before in zip(rows, board.rows, strict=True)
        ]
        compared = [entry for entry in compared if entry["metric"] in kept]
    if methods is not None:
        by_name = {row.method: row for row in rows}
        names = list(_split(methods))
        for name in names:
            if name not in by_name:
                raise _unknown("--methods", name, by_name)
        rows = [by_name[name] for name in names]
        compared = [entry for entry in compared if entry["method"] in names]
        claims = [claim for claim in claims if claim["method"] in names]
    return replace(board, rows=rows, comparisons=compared, claims=claims, order=order)


def _split(text: str) -> list[str]:
    """At commas outside of brackets, each name once."""
    names = [name.strip() for name in re.split(r",(?![^\[]*\])", text)]
    return list(dict.fromkeys(name for name in names if name))


def _unknown(option: str, text: str, known: Iterable[str]) -> RequestError:
    from difflib import get_close_matches

    names = sorted(known)
    close = get_close_matches(text, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
    return RequestError(f"{option} {text}: the table has none; {hint}")


__all__ = ["select"]
