"""The command `halign-bench check`. As in `cli`, nothing heavy is imported before a request makes sense."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halign_bench.errors import RequestError
from halign_bench.printing import print_json, print_table

if TYPE_CHECKING:
    from halign_bench.checking.margins import Margins

EPILOG = """Examples:

\b
  halign-bench check runs/mine --against leaderboards/puppet/puppet-dit/leaderboard.json
  halign-bench check runs/mine --against runs/before --margin 5%,fid=0.5 --junit check.xml
  halign-bench check runs/before --plan --margin hkc=0.02 how many clips and seeds that takes

\b
Exit codes: 0 no regression, and everything could be told; 1 a regression; 2 something could not be told, or the
request is wrong. A gate that should only stop what is known to be worse takes --allow-cannot-tell."""


def check(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of records.", metavar="RUN")],
    against: Annotated[
        Path | None,
        typer.Option(help="What to compare with: such a folder, or its leaderboard.json.", metavar="BASELINE"),
    ] = None,
    margin: Annotated[
        list[str] | None,
        typer.Option(
            help="A loss that does not matter: 5% of the baseline's value for all scores, fid=0.5 in its own unit, "
            "hkc=2%. Unless given: 0.2 dB, 0.25 frames, 0.02 of a score bounded by 1, 5% of others.",
            metavar="[SCORE=]N[%],…",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say how many clips and seeds the margins need, from the variance on record.")
    ] = False,
    allow_cannot_tell: Annotated[
        bool, typer.Option("--allow-cannot-tell", help="Exit with 0 where some scores could not be told.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML.", metavar="FILE")] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Markdown; on GitHub the job's summary unless given.", metavar="FILE")
    ] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Annotations for GitHub; on GitHub without being asked.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")
    ] = False,
) -> int:
    """Has a run become worse than a baseline, by more than a margin?"""
    from halign_bench.checking.margins import parse_margins

    margins = parse_margins(margin or [])
    if plan:
        unused = {"--junit": junit, "--summary": summary, "--allow-cannot-tell": allow_cannot_tell, "--github": github}
        if given := [name for name, value in unused.items() if value]:
            raise RequestError(f"--plan judges nothing: leave {' and '.join(given)} out")
        return _plan(run, against, margins, as_json)
    if against is None:
        raise RequestError("check: say what to compare with, --against BASELINE, or how much it takes, --plan")
    from halign_bench.checking.measuring import pair
    from halign_bench.checking.verdicts import exit_code, judged

    pairing = pair(run, against, margins)
    outcomes = judged(pairing.scores, pairing.losses)
    if not outcomes:
        raise RequestError(f"{run} and {against} have no score with a better side in common")
    code = exit_code(outcomes, allow_cannot_tell)
    from halign_bench.checking import junit as xml
    from halign_bench.checking import texts

    if junit is not None:
        _write("--junit", junit, xml.junit(outcomes, allow_cannot_tell))
    if summary is not None:
        _write("--summary", summary, texts.markdown(outcomes, pairing.notes))
    elif job := os.environ.get("GITHUB_STEP_SUMMARY"):
        _append("GITHUB_STEP_SUMMARY", Path(job), texts.markdown(outcomes, pairing.notes))
    notes = [texts.printable(note) for note in pairing.notes]
    lines = texts.workflow_commands(outcomes) if github or os.environ.get("GITHUB_ACTIONS") == "true" else []
    if as_json:
        print_json(texts.document(outcomes, pairing.notes, code))
        _say(lines, error=True)
        return code
    # Names in the table may look like commands to GitHub's runner; those of ours come after it.
    pause = secrets.token_hex(16) if lines else ""
    _say([f"::stop-commands::{pause}"] if pause else [])
    print_table(texts.HEADERS, texts.rows(outcomes), bad=[one.verdict == "regression" for one in outcomes])
    _say([texts.total(outcomes), *notes])
    _say([f"::{pause}::"] if pause else [])
    _say(lines)
    return code


def _plan(run: Path, against: Path | None, margins: Margins, as_json: bool) -> int:
    from halign_bench.checking import planning, texts

    needed = planning.planned(planning.sources(run, against, margins))
    if as_json:
        print_json(planning.document(needed))
        return 0
    print_table(texts.PLAN_HEADERS, texts.plan_rows(needed), bad=[False] * len(needed))
    _say([texts.PLAN_LEGEND])
    return 0


def _say(lines: list[str], error: bool = False) -> None:
    for line in lines:
        typer.echo(line, err=error)


def _write(option: str, path: Path, text: str) -> None:
    from halign_bench.atomic import atomic_write

    if path.is_dir():
        raise RequestError(f"{option} {path}: cannot be written (is a folder)")
    try:
        atomic_write(path, text)
    except OSError as problem:
        raise RequestError(f"{option} {path}: cannot be written ({problem.strerror or problem})") from None


def _append(name: str, path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as problem:
        raise RequestError(f"{name} {path}: cannot be written ({problem.strerror or problem})") from None
