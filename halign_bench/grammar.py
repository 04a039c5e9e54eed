"""Reads what is typed for --methods, --seeds and --nfe.

    methods   = pipeline ("," pipeline)*
    pipeline  = method ("+" method)*             trained left to right, each on top of the one before
    method    = name ["[" key "=" value ("," key "=" value)* "]"]

`"diffusion-dpo[beta=500],tpo,tmm+ipa"` is three pipelines. Whether names and keys exist, and what a
value may be, is for the registry and the method's Config to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from halign_bench.errors import RequestError

Part = tuple[str, dict[str, str]]
Pipeline = tuple[Part, ...]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_SEEDS = 10_000  # counted: a larger number was meant as a seed


def parse_methods(text: str) -> list[Pipeline]:
    """`"a[k=1],b+c"` -> `[(("a", {"k": "1"}),), (("b", {}), ("c", {}))]`. Raises `RequestError`."""
    _check_brackets(text)
    pipelines = []
    for written in _split(text, ","):
        if not written.strip():
            where = "is empty" if not text.strip() else "has an empty place beside a comma"
            raise RequestError(f'--methods "{text}" {where}; write for example --methods diffusion-dpo,sft')
        pipelines.append(tuple(_part(part, text) for part in _split(written, "+")))
    return pipelines


def parse_seeds(text: str) -> list[int]:
    """`"3"` -> three seeds, 0 to 2; `"0,7"` -> exactly these; `"7,"` -> seed 7 alone. Raises `RequestError`."""
    if "," in text:
        return _numbers("--seeds", text.rstrip().removesuffix(","), at_least=0)
    (count,) = _numbers("--seeds", text, at_least=0)
    if count == 0:
        raise RequestError("--seeds 0 asks for no seed; write --seeds 1 for one, or --seeds 0, for seed 0 alone")
    if count > MAX_SEEDS:
        raise RequestError(
            f"--seeds {text} asks for {count} seeds, and {MAX_SEEDS} are the most; for that seed alone write {count},"
        )
    return list(range(count))


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "WxH". Raises RequestError.

    >>> parse_size("640x512")
    (512, 640)
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip())
    if not match or not all(16 <= int(side) <= 8192 for side in match.groups()):
        raise RequestError(f"--size {text}: give width and height from 16 to 8192, for example 512x512")
    return int(match.group(2)), int(match.group(1))


def parse_nfe(text: str) -> list[int]:
    """`"100,30"` -> `[100, 30]`, in the order given. Raises `RequestError`."""
    return _numbers("--nfe", text, at_least=1)


def _numbers(option: str, text: str, at_least: int) -> list[int]:
    pieces = [piece.strip() for piece in text.split(",")]
    for piece in pieces:
        if not re.fullmatch(r"[0-9]{1,9}", piece) or int(piece) < at_least:
            raise RequestError(
                f'{option} "{text}": "{piece}" is not a whole number from {at_least} to 999999999; '
                f"write for example {option} 3 or {option} {'0,1,2' if at_least == 0 else '30,10'}"
            )
    numbers = [int(piece) for piece in pieces]
    if len(set(numbers)) < len(numbers):
        raise RequestError(f'{option} "{text}" names a number twice')
    return numbers


def _check_brackets(text: str) -> None:
    opened = False
    for character in text:
        if character == "[" and opened:
            raise RequestError(f'--methods "{text}": a "[" within "[...]"; a value holds no brackets')
        if character == "]" and not opened:
            raise RequestError(f'--methods "{text}": a "]" without its "["')
        opened = character == "[" or (opened and character != "]")
    if opened:
        raise RequestError(f'--methods "{text}": a "[" without its "]"')


def _split(text: str, separator: str) -> Iterator[str]:
    """Splits outside brackets; they are known to be balanced and not nested."""
    return iter(re.split(rf"{re.escape(separator)}(?![^\[]*\])", text))


def _part(written: str, text: str) -> Part:
    name, bracket, rest = written.partition("[")
    name = name.strip()
    if not name:
        raise RequestError(f'--methods "{text}": a method\'s name is missing in "{written.strip()}"')
    if not _NAME.fullmatch(name):
        raise RequestError(f'--methods "{text}": "{name}" is not a name; names hold letters, digits, "-", "_" and "."')
    if not bracket:
        return name, {}
    inside, _, after = rest.partition("]")
    if after.strip():
        raise RequestError(f'--methods "{text}": "{after.strip()}" follows "]"; a "," or "+" belongs between methods')
    settings: dict[str, str] = {}
    for setting in inside.split(","):
        key, equals, value = (piece.strip() for piece in setting.partition("="))
        if not equals or not value or not _KEY.fullmatch(key):
            raise RequestError(
                f'--methods "{text}": "{setting.strip()}" is not a setting; write for example {name}[beta=500]'
            )
        if key in settings:
            raise RequestError(f'--methods "{text}": {name} sets {key} twice')
        settings[key] = value
    return name, settings
