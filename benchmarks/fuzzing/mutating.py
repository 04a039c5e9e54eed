"""Seeded damage to real inputs: bytes, JSON documents and texts. The same generator gives the same damage."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

EXTREMES = (
    0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 10**9, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
TEXTS = (
    "", " ", "\n", "a\nb", "\r", "\0", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u2028", "\u202eevil", "\ud800",
    "<script>alert(1)</script>", '" onmouseover="alert(1)', "javascript:alert(1)", "</script><img src=x>", "{{7*7}}",
    "../../x", "/etc/passwd", "..\\x", "a/../../b", "C:\\x", "file:///etc/passwd", "http://127.0.0.1:9/", "con", ".",
    "=1+1", "@SUM(A1)", "-2+3", "\\input{x}", "%$#&_^~", "[red]x[/red]", "[link=http://x]y[/link]", "NaN", "null",
    "1e999", "a" * 5000, "é", "\u00e9" * 300, "base", "sft", "fid@puppet", "x[y=1]", "x@y/nfe0", "\t|\t|",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2, 0.5, -0.0, 1e-320, 1e308, -1e308, 1e400, float("nan"), float("-inf"), 2**31, 2**63, 10**30, 10**400,
)  # fmt: skip


def damaged(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """One to four of: flips, other bytes, a cut, a piece moved, repeated, zeroed or taken out, an extreme number."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not found:
            return bytes(found)
        rng.choice(_BYTES)(found, rng, others)
    return bytes(found)


def _flip(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _other(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 4))):
        data[_place(data, rng)] = rng.randrange(256)


def _cut(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    del data[_place(data, rng) :]


def _splice(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    source = rng.choice([bytes(data), *others]) or b"\0"
    start = rng.randrange(len(source))
    piece = source[start : start + rng.choice((1, 4, 16, 64, 256))]
    at = _place(data, rng)
    data[at : at + (len(piece) if rng.random() < 0.5 else 0)] = piece


def _repeat(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    at = _place(data, rng)
    piece = bytes(data[at : at + rng.choice((1, 8, 64))])
    data[at:at] = piece * rng.choice((1, 2, 50))


def _zero(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    at, length = _place(data, rng), rng.choice((1, 4, 16, 256))
    data[at : at + length] = bytes(len(data[at : at + length]))


def _remove(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 2, 4, 16, 256))]


def _extreme(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    width, order = rng.choice((1, 2, 4, 8)), rng.choice("<>")
    value = rng.choice(EXTREMES) & (2 ** (8 * width) - 1)
    at = _place(data, rng)
    written = struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[width], value)
    data[at : at + width] = written


def _place(data: bytearray, rng: random.Random) -> int:
    """Half of the damage goes to the first and last 200 bytes, where headers and indices are."""
    end = len(data)
    near = rng.random()
    if near < 0.3:
        return rng.randrange(min(end, 200))
    if near < 0.5:
        return end - 1 - rng.randrange(min(end, 200))
    return rng.randrange(end)


_BYTES: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    _flip, _flip, _other, _cut, _splice, _repeat, _zero, _remove, _extreme, _extreme,
)  # fmt: skip


def odd(rng: random.Random, depth: int = 0) -> Any:
    """A JSON value that nobody expects there."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(TEXTS)
    if kind < 0.75:
        return rng.choice(NUMBERS)
    if kind < 0.85 or depth > 2:
        return rng.choice((None, True, False))
    if kind < 0.95:
        return [odd(rng, depth + 1) for _ in range(rng.choice((0, 1, 3)))]
    return {rng.choice(TEXTS): odd(rng, depth + 1) for _ in range(rng.choice((0, 1, 2)))}


def odd_document(document: Any, rng: random.Random) -> Any:
    """A copy with one to three of its values changed, taken out, moved, doubled or renamed."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holders = list(_holders(document))
        if not holders:
            return odd(rng)
        holder = rng.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key, action = rng.choice(keys), rng.random()
        if action < 0.6:
            holder[key] = odd(rng)
        elif action < 0.75:
            del holder[key]
        elif action < 0.85 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        elif action < 0.92:
            other = rng.choice(holders)
            holder[key] = json.loads(json.dumps(next(iter(other.values())) if isinstance(other, dict) else other[0]))
        elif isinstance(holder, list):
            holder.append(holder[key])
        else:
            holder[rng.choice(TEXTS)] = odd(rng)
    return document


def _holders(value: Any) -> Any:
    """Every object and list that is not empty."""
    if isinstance(value, dict | list):
        if value:
            yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


def odd_json(document: Any, rng: random.Random) -> bytes:
    """A document as text, most often still JSON; NaN and Infinity as careless programs write them."""
    if rng.random() < 0.03:  # nested deeper than any parser follows
        depth = rng.choice((200, 5000, 100_000))
        return b"[" * depth + b"]" * depth
    changed = odd_document(document, rng)
    text = json.dumps(changed, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 2)))
    data = text.encode("utf-8", "surrogatepass")
    return damaged(data, rng) if rng.random() < 0.15 else data


def odd_text(text: str, rng: random.Random, alphabet: str, tokens: Sequence[str] = ()) -> str:
    """Characters and tokens put in, taken out and repeated."""
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(text) + 1)
        action = rng.random()
        if action < 0.4:
            text = text[:at] + rng.choice(alphabet) + text[at:]
        elif action < 0.6:
            text = text[:at] + rng.choice((*TEXTS, *tokens)) + text[at:]
        elif action < 0.8:
            text = text[:at] + text[at + rng.choice((1, 1, 2, 8)) :]
        elif action < 0.9:
            text = text[:at] + text[at : at + 6] * rng.choice((2, 3, 200)) + text[at:]
        else:
            text = rng.choice((text.upper(), text[::-1], text + text, text[:at]))
    return text
