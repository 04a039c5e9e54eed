"""What is kept of a cell (method × seed): one JSON record, and its per-clip scores and bootstrap replicates beside it.

`<cell>.json` is the record, `<cell>.clips.parquet` has one row per clip and metric, `<cell>.bootstrap.parquet` one
row per metric and replicate, in single precision. All are written to a temporary name in the same folder, synced and
renamed, and the record comes last: where a record exists, its companions do.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from halign_bench.atomic import atomic_path, atomic_write
from halign_bench.errors import RequestError, first_line
from halign_bench.printing import printable
from halign_bench.track import LARGEST, Refusal

SCHEMA: Literal["halign-bench/record/2"] = "halign-bench/record/2"

Finite = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Shared = Annotated[str, AfterValidator(sys.intern)]  # the same in most records: kept in memory once
Word = Annotated[str, Field(min_length=1)]
Names = Word | Annotated[tuple[Word, ...], Field(min_length=1)]
Status = Literal["done", "diverged", "failed", "timeout"]


COMPANIONS = frozenset({"clips", "bootstrap"})  # kinds of files beside a record that its scores are compared by
OPTIONAL = frozenset({"value", "reason"})  # columns of these files in which a row may have nothing
MAX_ROWS = 5_000_000  # of one of these files
MAX_REPLICATES = 100_000
SEAL = re.compile(rb'  "sha256": "([0-9a-f]{64})"\n}\n$')  # the end of a record as it is written
SPEED = "seconds_per_second"  # measured once a record, by chunks of clips, not clip by clip


# Names of scores


class MetricKey(NamedTuple):
    """`fid@puppet/nfe30` taken apart: metric, extractor or track, NFE where a grid was run."""

    name: str
    where: str | None = None
    nfe: int | None = None


def metric_key(name: str, where: str | None = None, nfe: int | None = None) -> str:
    """The name of a score: metric, "@" extractor or track, "/nfe" network evaluations.

    >>> metric_key("fid", "puppet"), metric_key("fid", "puppet", 30)
    ('fid@puppet', 'fid@puppet/nfe30')
    """
    return f"{name}{f'@{where}' if where else ''}{f'/nfe{nfe}' if nfe is not None else ''}"


@lru_cache(maxsize=4096)  # the same few dozen names stand in every record
def parse_key(key: str) -> MetricKey:
    """The inverse of `metric_key`. Raises `RequestError` when the text is no such name.

    >>> parse_key("fid@puppet/nfe30")
    MetricKey(name='fid', where='puppet', nfe=30)
    >>> parse_key("hkc")
    MetricKey(name='hkc', where=None, nfe=None)
    """
    match = re.fullmatch(r"([^@/\s]+)(?:@([^@/\s]+))?(?:/nfe([0-9]+))?", key)
    if match is None:
        raise RequestError(f"{key!r} does not name a score; write metric@extractor or metric@extractor/nfe30")
    name, where, nfe = match.groups()
    if nfe and len(nfe) > 9:
        raise RequestError(f"{key!r}: no score is measured at so many network evaluations")
    return MetricKey(name, where, int(nfe) if nfe else None)


# The record


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CellIdentity(_Part):
    """Which cell a record is of. `method` is the variant as it stands in tables, e.g. diffusion-dpo[beta=500]."""

    method: str
    seed: Count
    track: str
    backbone: str


class ConfigUsed(_Part):
    given: JsonValue = Field(description="what was asked for")
    effective: JsonValue = Field(description="every number that was used")


class Base(_Part):
    name: str
    sha256: str


class Timings(_Part):
    """Seconds of wall time, apart; None where a step did not happen."""

    train: Seconds | None = None
    sample: Seconds | None = None
    score: Seconds | None = None
    chunks: dict[str, list[Seconds]] = Field(
        default_factory=dict, description="seconds that each chunk of clips took to sample, by NFE"
    )


class Training(_Part):
    """Cost of training alone; evaluation is not charged to it."""

    samples_seen: Count
    samples_sampled: Count = Field(default=0, description="drawn and scored to learn from, beside the budget")
    sampling_passes: Count = Field(default=0, description="samples through the network, without gradients, for these")
    steps: Count
    trained_parameters: Count
    peak_memory_bytes: Count | None = None


class Bootstrap(_Part):
    """Which resamples the replicates belong to; scores pair only where all of it is equal."""

    replicates: Annotated[int, Field(ge=1, le=MAX_REPLICATES)]
    seed: int
    clips: Count
    identities: Count
    sha256: str = Field(description="of the resampled clips, from `stats.bootstrap_signature`")


class MetricValue(_Part):
    """A score, or why there is none."""

    value: Finite | None
    ci: tuple[Finite, Finite] | None = Field(default=None, description="95 %, over clips clustered by identity")
    n: Count = Field(description="clips scored")
    failed: dict[str, Count] = Field(default_factory=dict, description="clips that could not be scored, by reason")
    unit: Shared
    higher_is_better: bool | None
    bounds: tuple[Finite | None, Finite | None] = (None, None)
    protocol: Shared
    reason: str | None = None

    @model_validator(mode="after")
    def _says_why(self) -> MetricValue:
        if self.value is None and not self.reason:
            raise ValueError("a score that could not be measured needs a reason")
        if self.ci is not None and self.ci[0] > self.ci[1]:
            raise ValueError("the interval's ends are in the wrong order")
        return self


class ClaimData(_Part):
    """A method's claim, as `halign_bench.method.Claim` states it."""

    metric: Names
    better_than: Names
    source: str
    margin: Finite = 0.0
    times: Annotated[Finite, Field(gt=0)] | None = None
    of: str = ""

    @model_validator(mode="after")
    def _names_scores(self) -> ClaimData:
        for metric in (self.metric,) if isinstance(self.metric, str) else self.metric:
            try:
                parse_key(metric)
            except RequestError as error:
                raise ValueError(str(error)) from None
        return self


class Sign(_Part):
    """A sign of trouble that was seen: a warning, not a failure. `step` is of its stage, None for samples."""

    name: str
    step: Count | None = None
    value: Finite
    text: str


class Environment(_Part):
    """The software and the machine. No host, user or path names."""

    python: str
    packages: dict[str, str]
    git_commit: str | None = None
    git_dirty: bool | None = None
    hardware: dict[str, JsonValue]


class Record(_Part):
    """One cell: what was asked, what was used, what came out. A failure is a record too, with its error."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    # 1 had no checksums; it is read as what it is and written no more.
    schema_: Literal["halign-bench/record/1", "halign-bench/record/2"] = Field(default=SCHEMA, alias="schema")
    cell: CellIdentity
    cell_hash: str | None = Field(default=None, description="what must be equal for this record to stand for a cell")
    status: Status
    error: str | None = None
    config: ConfigUsed
    protocol: dict[str, JsonValue]
    protocol_hash: str
    base: Base
    evaluators: dict[str, str] = Field(description="protocol string, with the weights' hash, of each extractor")
    environment: Environment
    timings: Timings = Timings()
    training: Training | None = None
    provenance: dict[str, JsonValue] = Field(default_factory=dict, description="of preferences and other data")
    metrics: dict[str, MetricValue] = Field(default_factory=dict)
    bootstrap: Bootstrap | None = None
    claims: list[ClaimData] = Field(default_factory=list)
    warnings: list[Sign] = Field(default_factory=list, description="signs of trouble, in training and in samples")
    files: dict[str, str] = Field(default_factory=dict, description="what lies beside the record, by kind")
    started: str | None = None
    finished: str | None = None

    sha256s: dict[str, str] = Field(default_factory=dict, description="of the files beside it, by their kind")
    sha256: str | None = Field(default=None, description="of all that stands before it in the file, as it was written")

    _source: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _explains_failure(self) -> Record:
        if self.schema_ != SCHEMA and (self.sha256 or self.sha256s):
            raise ValueError(f"a record of {self.schema_} has no checksums")
        if self.status != "done" and not self.error:
            raise ValueError(f"a record with status {self.status!r} needs its error")
        for key in self.metrics:
            try:
                parse_key(key)
            except RequestError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def source(self) -> Path | None:
        """The file it was read from or written to."""
        return self._source

    @property
    def name(self) -> str:
        return f"{self.cell.method} seed {self.cell.seed}"


@dataclass(frozen=True)
class ClipScore:
    """One row of `<cell>.clips.parquet`: a score, or why there is none."""

    clip: str
    identity: str
    metric: str
    value: float | None
    reason: str | None = None


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def config_hash(value: Any) -> str:
    """sha256 of a JSON-able value; keep paths and other circumstances of a run out of it."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def record_schema() -> dict[str, Any]:
    """The JSON schema of a record."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Record.model_json_schema()}


def write_schema(path: Path) -> None:
    atomic_write(path, json.dumps(record_schema(), indent=2, ensure_ascii=False) + "\n")


# Writing


def write_record(
    path: Path,
    record: Record,
    clips: Sequence[ClipScore] | None = None,
    replicates: Mapping[str, Sequence[float | None]] | None = None,
) -> None:
    """Writes `<cell>.json`, after its companions when they are given (replicates: metric key -> B values).

    Raises ValueError when the record holds NaN or infinity: such a score is None with a reason.
    """
    files, sha256s = dict(record.files), dict(record.sha256s)
    if clips is not None:
        files["clips"] = f"{path.stem}.clips.parquet"
        _write_parquet(path.with_name(files["clips"]), _clip_columns(clips))
    if replicates is not None:
        files["bootstrap"] = f"{path.stem}.bootstrap.parquet"
        _write_parquet(path.with_name(files["bootstrap"]), _replicate_columns(replicates))
    for kind in COMPANIONS & files.keys():
        if (beside := path.with_name(files[kind])).is_file():
            sha256s[kind] = hashlib.sha256(beside.read_bytes()).hexdigest()
    record.schema_, record.files, record.sha256s, record.sha256 = SCHEMA, files, sha256s, None
    document = Record.model_validate(record.model_dump(by_alias=True)).model_dump(mode="json", by_alias=True)
    del document["sha256"]
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}") + ",\n"
    record.sha256 = hashlib.sha256(text.encode()).hexdigest()
    atomic_write(path, f'{text}  "sha256": "{record.sha256}"\n}}\n')
    record._source = path


def write_clips(path: Path, clips: Sequence[ClipScore]) -> None:
    """Scores of single clips as parquet, by themselves."""
    _write_parquet(path, _clip_columns(clips))


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

# What pydantic's own parser lets pass in free-form parts: NaN, numbers that are too large, escaped control characters.
_LARGE = re.compile(r"[0-9](?:[eE]\+?[0-9]{3,}\s*[],}]|[0-9]{18})")
_ESCAPED = re.compile(r'\\[^"\\]')
MAX_WHOLE = 2**53  # no count, seed or number of bytes is above it, and beyond it not every number is a float


def read_record(path: Path) -> Record:
    """Raises `RequestError` naming the file and what is wrong with it."""
    try:
        data = path.read_bytes()
        record = _parsed(data)
        check_sha256(data, record.sha256)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValidationError as error:
        raise RequestError(f"{path}: not a valid record, {_first_problem(error)}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: not a valid record, {error}") from None
    record._source = path
    return record


def _parsed(data: bytes) -> Record:
    """By pydantic's own parser, which is twice as fast. Where that finds anything, and where there may be a NaN, which
    it lets pass in free-form parts, or a control character, the strict one has the word: raises ValueError with its
    reason."""
    text = data.decode("utf-8")
    if text.replace("\n", "").isprintable() and not _special(text):
        with contextlib.suppress(ValidationError):
            return Record.model_validate_json(text)
    document = _printable(json.loads(text, parse_constant=refuse_constant, parse_int=whole))
    record = Record.model_validate(document)
    json.dumps(document, allow_nan=False)  # 1e999 is JSON, and no number that can be written again
    return record


def _special(text: str) -> bool:
    # Not one expression of all: without a first character to look for it takes four times as long.
    return "NaN" in text or "Infinity" in text or bool(_LARGE.search(text) or _ESCAPED.search(text))


def _printable(value: Any) -> Any:
    """The same with the control characters of all texts escaped: they come into tables, pages and terminals."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(inner) for inner in value]
    if isinstance(value, dict):
        return {printable(key): _printable(inner) for key, inner in value.items()}
    return value


def check_sha256(data: bytes, given: str | None) -> None:
    """Raises ValueError where a file has a checksum and is not what `write_record` made it of."""
    if given is None:
        return
    written = SEAL.search(data[-100:])
    if not written or hashlib.sha256(data[: len(data) - len(written[0])]).hexdigest() != given:
        raise ValueError("its content is not what was written, by the sha256 at its end; make it again (whoever "
                         "changed it on purpose takes that line out)")  # fmt: skip


def read_records(paths: Iterable[Path]) -> tuple[list[Record], list[Refusal]]:
    """Records from files, run folders (their `records/`) or folders of records; what is wrong is named, the rest kept.

    Raises `RequestError` for a path that does not exist or a folder without any record.
    """
    records: list[Record] = []
    refused: list[Refusal] = []
    shared: dict[str, Record] = {}
    with collector_paused():
        for file in dict.fromkeys(file for path in paths for file in record_files(Path(path))):
            try:
                records.append(_shared(read_record(file), shared))
            except RequestError as error:
                name = printable(str(file))
                refused.append(Refusal(name, str(error).removeprefix(f"{name}: ")))
    return records, refused


def _shared(record: Record, known: dict[str, Record]) -> Record:
    """Equal parts of records become one object: most of a record is what all records of a protocol say alike."""
    other = known.setdefault(record.protocol_hash, record)
    for name in ("protocol", "evaluators", "environment", "base", "bootstrap", "claims"):
        if getattr(record, name) == getattr(other, name):
            record.__dict__[name] = getattr(other, name)
    return record


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """While many records are read and put into a table: they hold no cycles, and looking for some among a hundred
    thousand of them takes as long as reading them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def record_files(path: Path) -> list[Path]:
    """Of a run folder, its `records/` or a folder of records; a file stands for itself. Raises `RequestError`."""
    if not path.is_dir():
        if not path.exists():
            raise RequestError(f"{path}: no such file or folder; give a run folder, its records/ or a record")
        return [path]
    folder = path / "records" if (path / "records").is_dir() else path
    files = sorted(folder.glob("*.json"), key=lambda file: file.name)
    files = [file for file in files if not file.name.startswith(".")]
    # A folder may hold tables and manifests too; only what calls itself a record, or is unreadable, counts.
    files = [file for file in files if _claims_to_be_record(file)]
    if not files:
        raise RequestError(f"{path}: holds no records; give the --out folder of a run")
    return files


def _claims_to_be_record(file: Path) -> bool:
    if file.parent.name == "records":
        return True
    try:
        with open(file, "rb") as opened:
            if re.match(rb'\s*{\s*"schema"\s*:\s*"halign-bench/record/', opened.read(100)):
                return True  # as records are written; others are looked into
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(document, dict) and str(document.get("schema", "")).startswith("halign-bench/record/")


def whole(text: str) -> int:
    """For `json.loads(parse_int=…)`."""
    if len(text) > 20 or abs(number := int(text)) > MAX_WHOLE:
        raise ValueError(f"it contains the whole number {text[:30]}, and none may be above 2^53")
    return number


def refuse_constant(name: str) -> float:
    """For `json.loads(parse_constant=…)`."""
    raise ValueError(f"it contains {name}, which is no JSON number; a score that could not be measured is null")


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    if newer := later_version(first):
        return newer
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def later_version(problem: Mapping[str, Any]) -> str | None:
    """What to say of a record that a later version of this program wrote, by one of pydantic's errors of it."""
    found = re.fullmatch(r"halign-bench/record/(\d{1,9})", str(problem["input"]))
    if tuple(problem["loc"]) != ("schema",) or not found or int(found[1]) <= int(SCHEMA.rpartition("/")[2]):
        return None
    return f"it is of schema {found[0]}, and this version reads up to {SCHEMA}; update halign-bench"


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
            digest = hashlib.sha256((record.source.parent / record.files[kind]).read_bytes()).hexdigest()
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
