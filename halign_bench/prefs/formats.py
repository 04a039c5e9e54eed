"""Preference files as numbered objects, before anybody asks what these say: JSON Lines, CSV and parquet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from halign_bench.errors import RequestError, first_line

HELP = "docs/preferences.md has the format, and how exports of labelling tools become it"
MAX_ROWS = 1_000_000  # of a parquet table
BOM = b"\xef\xbb\xbf"


class Fault(Exception):
    """What makes a line no object: `field`, and what is wrong with it and what to do."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(field, text)
        self.field, self.text = field, text


def documents(path: Path, content: bytes) -> Iterator[tuple[int, Any | Fault]]:
    """Every line that is not empty with its number from 1, as what it holds or the fault that it has.

    A row of a parquet table counts as a line, as does one of a CSV with the number of its first line in the file.
    Raises RequestError for a file of another kind, or one that cannot be read at all.
    """
    read = {".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv_rows, ".parquet": _parquet_rows}
    if (suffix := path.suffix.lower()) not in read:
        raise RequestError(f"{path}: is neither .jsonl nor .csv nor .parquet; {HELP}")
    return read[suffix](path, content)


def _json_lines(path: Path, content: bytes) -> Iterator[tuple[int, Any | Fault]]:
    for number, raw in enumerate(content.removeprefix(BOM).split(b"\n"), 1):
        if raw.strip():
            yield number, _json(raw)


def _json(raw: bytes) -> Any | Fault:
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except Fault as fault:
        return fault
    except UnicodeDecodeError as error:
        return Fault("line", f"is not UTF-8 (byte {error.start + 1}); save the file as UTF-8")
    except json.JSONDecodeError as error:
        return Fault("line", f"is no JSON (column {error.colno}: {error.msg}); write one JSON object a line")
    except (ValueError, RecursionError):
        return Fault("line", "is nested too deep, or has too long a number; simplify it")


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Fault(key, "stands twice; keep one of them")
        found[key] = value
    return found


def _csv_rows(path: Path, content: bytes) -> Iterator[tuple[int, Any | Fault]]:
    try:
        text = content.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: is not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        first = reader.line_num + 1
        try:
            if (cells := next(reader, None)) is None:
                return
        except csv.Error as error:
            raise RequestError(f"{path}, line {first}: is no CSV ({error}); save the table again") from None
        if not any(cells):
            continue
        if header is None:
            header = _header(path, cells)
        elif len(cells) != len(header):
            yield first, Fault("line", f"has {len(cells)} cells and the header {len(header)}; make them agree")
        else:
            yield first, _nested({name: _number(name, cell) for name, cell in zip(header, cells, strict=True) if cell})


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RequestError(f"{path}, line 1: the column {twice[0]!r} stands twice; keep one of them")
    return names


def _number(name: str, cell: str) -> str | int:
    """A CSV knows only text: a whole number as a video is a candidate's."""
    return int(cell) if name in ("left", "right", "video") and re.fullmatch("[0-9]{1,9}", cell) else cell


def _parquet_rows(path: Path, content: bytes) -> Iterator[tuple[int, Any | Fault]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            if file.metadata.num_rows > MAX_ROWS:  # a few bytes can stand for any number of them
                raise RequestError(f"{path}: has {file.metadata.num_rows} rows, more than {MAX_ROWS}")
            rows = file.read().to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RequestError(f"{path}: is no parquet file that can be read ({first_line(error)})") from None
    return ((number, _nested(row)) for number, row in enumerate(rows, 1))


def _nested(row: dict[str, Any]) -> dict[str, Any] | Fault:
    """The columns `labels.motion` and `labels.hands` are the object `labels`."""
    found = {column: value for column, value in row.items() if "." not in column}
    for column, value in row.items():
        name, dot, inner = column.partition(".")
        if dot and name in row:
            return Fault(column, f"stands beside a column {name}; keep one of them")
        if dot and value is not None:
            found.setdefault(name, {})[inner] = value
    return found


__all__ = ["HELP", "Fault", "documents"]
