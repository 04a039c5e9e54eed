"""Records as files: `<cell>.json`, written after what lies beside it, and read back one by one or by the folder.

All are written to a temporary name in the same folder, synced and renamed, and the record comes last: where a record
exists, its companions do.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from halign_bench.assets.hashing import sha256_of
from halign_bench.atomic import atomic_write
from halign_bench.companions import COMPANIONS, ClipScore, write_clips, write_replicates
from halign_bench.errors import RequestError
from halign_bench.printing import printable
from halign_bench.record import SCHEMA, Record
from halign_bench.track import Refusal

SEAL = re.compile(rb'  "sha256": "([0-9a-f]{64})"\n}\n$')  # the end of a record as it is written

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
        write_clips(path.with_name(files["clips"]), clips)
    if replicates is not None:
        files["bootstrap"] = f"{path.stem}.bootstrap.parquet"
        write_replicates(path.with_name(files["bootstrap"]), replicates)
    for kind in COMPANIONS & files.keys():
        if (beside := path.with_name(files[kind])).is_file():
            sha256s[kind] = sha256_of(beside)
    record.schema_, record.files, record.sha256s, record.sha256 = SCHEMA, files, sha256s, None
    document = Record.model_validate(record.model_dump(by_alias=True)).model_dump(mode="json", by_alias=True)
    del document["sha256"]
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}") + ",\n"
    record.sha256 = hashlib.sha256(text.encode()).hexdigest()
    atomic_write(path, f'{text}  "sha256": "{record.sha256}"\n}}\n')
    record.source = path


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
    record.source = path
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
