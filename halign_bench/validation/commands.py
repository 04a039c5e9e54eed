"""The command `halign-bench validate`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halign_bench.errors import RequestError
from halign_bench.printing import print_json, printable

if TYPE_CHECKING:
    from halign_bench.validation.finding import Finding

SCHEMA = "halign-bench/validation/1"
EPILOG = """Examples:

\b
  halign-bench validate runs/mine
  halign-bench validate leaderboards runs/mine      also against what is committed: copies, and another base
  halign-bench validate leaderboards --json

\b
Exit code 1 when something is wrong."""


def validate(
    records: Annotated[
        list[Path], typer.Argument(help="Records, run folders, or folders that hold any of them.", metavar="PATH…")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")
    ] = False,
) -> int:
    """Check records before they join a leaderboard: schema, hashes, plausibility, and the files beside them."""
    files = list(dict.fromkeys(file for path in records for file in _files(path)))
    found = check(files)
    if as_json:
        listed = [{"file": f.source, "field": f.field, "finding": f.text} for f in found]
        print_json({"schema": SCHEMA, "records": len(files), "findings": listed})
    else:
        for finding in found:
            print(finding)
        said = f"{len(found)} findings" if len(found) != 1 else "1 finding"
        print(f"{len(files)} records checked, {said if found else 'nothing found wrong'}")
    return 1 if found else 0


def check(files: Iterable[Path]) -> list[Finding]:
    """Everything that is wrong with these records, file by file, then between them."""
    from halign_bench.validation import companions, document, reading, together
    from halign_bench.validation.finding import Finding

    found: list[Finding] = []
    checked: list[together.Checked] = []
    for file in files:
        record, problems = reading.read(file)
        if record is not None:
            protocol, missing = reading.agreed(record)
            problems += missing
            if protocol is not None:
                problems += document.problems(record, protocol)
                beside = companions.Companions()
                if record.status == "done" and not any(field.startswith("files.") for field, _ in problems):
                    beside = companions.read(record)
                    problems += companions.problems(record, protocol, beside)
                checked.append(together.Checked(str(file), record, together.fingerprints(beside.clips)))
        found += [Finding(str(file), field, text) for field, text in problems]
    return [Finding(*map(printable, finding)) for finding in (*found, *together.findings(checked))]


def _files(path: Path) -> list[Path]:
    """As `leaderboard` takes them; where a folder has no records itself, those of every run below it."""
    from halign_bench.results import record_files

    below = sorted(path.glob("**/records/*.json"))
    if below and not (path / "records").is_dir() and path.name != "records":
        return below
    try:
        return record_files(path)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror or error})") from None


__all__ = ["EPILOG", "check", "validate"]
