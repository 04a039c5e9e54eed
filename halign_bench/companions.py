"""What lies beside a cell's record: the scores of its clips and its bootstrap replicates, as parquet.

`<cell>.clips.parquet` has one row per clip and metric, `<cell>.bootstrap.parquet` one row per metric and replicate, in
single precision.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halign_bench.assets.hashing import sha256_of
from halign_bench.atomic import atomic_path
from halign_bench.errors import RequestError, first_line
from halign_bench.record import Record
from halign_bench.track import LARGEST

COMPANIONS = frozenset({"clips", "bootstrap"})  # kinds of files beside a record that its scores are compared by
OPTIONAL = frozenset({"value", "reason"})  # columns of these files in which a row may have nothing
MAX_ROWS = 5_000_000  # of one of these files


@dataclass(frozen=True)
class ClipScore:
    """One row of `<cell>.clips.parquet`: a score, or why there is none."""

    clip: str
    identity: str
    metric: str
    value: float | None
    reason: str | None = None


# Writing


def write_clips(path: Path, clips: Sequence[ClipScore]) -> None:
    """Raises ValueError where a row has both a score and a reason, or neither, or where a score is NaN or infinity."""
    _write_parquet(path, _clip_columns(clips))


def write_replicates(path: Path, replicates: Mapping[str, Sequence[float | None]]) -> None:
    """metric key -> its B values. Raises ValueError where one is NaN or infinity."""
    _write_parquet(path, _replicate_columns(replicates))


def _clip_columns(clips: Sequence[ClipScore]) -> dict[str, tuple[str, list[Any]]]:
    for row in clips:
        if (row.value is None) == (row.reason is None):
            raise ValueError(f"{row.metric} of clip {row.clip}: give either a value or a reason")
    return {
        "clip": ("string", [row.clip for row in clips]),
        "identity": ("string", [row.identity for row in clips]),
        "metric": ("string", [row.metric for row in clips]),
        "value": ("double", [row.value for row in clips]),
        "reason": ("string", [row.reason for row in clips]),
    }


def _replicate_columns(replicates: Mapping[str, Sequence[float | None]]) -> dict[str, tuple[str, list[Any]]]:
    rows = [(key, number, value) for key, values in replicates.items() for number, value in enumerate(values)]
    return {
        "metric": ("string", [row[0] for row in rows]),
        "replicate": ("int32", [row[1] for row in rows]),
        "value": ("float", [row[2] for row in rows]),
    }


def _write_parquet(path: Path, columns: Mapping[str, tuple[str, list[Any]]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = [name for name, (kind, _) in columns.items() if kind in ("double", "float")]
    for name in numbers:
        if any(value is not None and not abs(value) <= LARGEST for value in columns[name][1]):
            raise ValueError(f"column {name} for {path.name} holds NaN or infinity; give None instead")
    arrays = {name: pa.array(values, type=pa.type_for_alias(kind)) for name, (kind, values) in columns.items()}
    with atomic_path(path) as temporary:
        others = [name for name in columns if name not in numbers]  # a dictionary of numbers is longer than they are
        pq.write_table(
            pa.table(arrays), temporary, compression="zstd", use_dictionary=others, use_byte_stream_split=numbers
        )


# Reading


def read_clips(record: Record) -> dict[str, dict[str, tuple[str, float | None]]]:
    """metric key -> clip id -> (identity, score or None). Raises `RequestError` when the file is absent or damaged."""
    scores: dict[str, dict[str, tuple[str, float | None]]] = {}
    columns = _read_parquet(record, "clips", ("metric", "clip", "identity", "value"))
    for metric, clip, identity, value in zip(*columns, strict=True):
        scores.setdefault(metric, {})[clip] = (identity, value)
    return scores


def read_replicates(record: Record) -> dict[str, list[float | None]]:
    """metric key -> its B values, in order. Raises `RequestError` when the file is absent or damaged."""
    values: dict[str, list[tuple[int, float | None]]] = {}
    columns = _read_parquet(record, "bootstrap", ("metric", "replicate", "value"))
    for metric, number, value in zip(*columns, strict=True):
        values.setdefault(metric, []).append((number, value))
    return {metric: [value for _, value in sorted(rows, key=lambda row: row[0])] for metric, rows in values.items()}


def companions_intact(record: Record) -> bool:
    """Whether what a record names beside it is there, and what was written."""
    assert record.source is not None
    try:
        for kind in COMPANIONS & record.files.keys():
            digest = sha256_of(record.source.parent / record.files[kind])
            if record.sha256s.get(kind, digest) != digest:
                return False
    except OSError:
        return False
    return True


def _read_parquet(record: Record, kind: str, names: Sequence[str]) -> list[list[Any]]:
    if kind not in record.files or record.source is None:
        raise RequestError(f"{record.source or record.name}: has no {kind} file beside it")
    path = record.source.parent / record.files[kind]
    if path.name != record.files[kind]:
        raise RequestError(f"{record.source}: files.{kind} is {path}, and must be a file in the same folder")
    import pyarrow as pa

    try:
        columns = parquet_columns(path, names, record.sha256s.get(kind))
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        problem = f"cannot be read ({first_line(error)})" if os.path.lexists(path) else "is missing"
        raise RequestError(f"{path}: {problem}; run again to make it, or leave this record out") from None
    if not all(value is None or abs(value) <= LARGEST for value in columns[list(names).index("value")]):
        raise RequestError(f"{path}: holds NaN or infinity; a score that could not be measured is null")
    return columns


def parquet_columns(path: Path, names: Sequence[str], sha256: str | None = None) -> list[list[Any]]:
    """Columns of a file beside a record, as lists. Raises OSError, KeyError, pyarrow's errors, and ValueError where it
    is not the file of this sha256, or a column does not hold what it should: texts, whole numbers of replicates,
    numbers; null only in `OPTIONAL`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():  # a pipe would be waited for
        raise OSError("it is no file")
    data = path.read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("its content is not what was written")
    kinds = {"value": pa.types.is_floating, "replicate": pa.types.is_integer}
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        if file.metadata.num_rows > MAX_ROWS:  # a few bytes can stand for any number of them
            raise ValueError(f"it has {file.metadata.num_rows} rows, more than {MAX_ROWS}")
        table = file.read(columns=list(names))
    columns = []
    for name in names:
        column = table.column(name)
        is_kind = kinds.get(name, lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind))
        nothing = name in OPTIONAL and pa.types.is_null(column.type)
        if not (is_kind(column.type) or nothing):
            raise ValueError(f"its column {name} is of {column.type}")
        if column.null_count and name not in OPTIONAL:
            raise ValueError(f"its column {name} has an empty place")
        columns.append(column.to_pylist())
    return columns
