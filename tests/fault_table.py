"""The table of faults that the tests try: made by the run of the tests itself, and by nothing else.

    @pytest.mark.fault("run: the disk is full", "one sentence; the same command goes on once there is room")
    def test_a_full_disk(...): ...

    pytest -m fault --faults-table docs/faults.md

The first text begins with the command or part that the fault hits, as rows are sorted by it. A test with parameters is
one row, unless its parameters bear marks of their own; its outcome is the worst of them.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

WORST_FIRST = ("failed", "skipped", "passed")


@dataclass
class Row:
    done: str
    wanted: str
    test: str
    outcomes: list[tuple[str, str]] = field(default_factory=list)  # (passed | failed | skipped, why)

    @property
    def outcome(self) -> str:
        worst = min((word for word, _ in self.outcomes), key=WORST_FIRST.index, default="not run")
        count = sum(word == worst for word, _ in self.outcomes)
        cases = f" ({count} of {len(self.outcomes)} cases)" if len(self.outcomes) > 1 else ""
        reasons = sorted({why for word, why in self.outcomes if word == worst and why})
        return f"{worst}{cases}{': ' if reasons else ''}{'; '.join(reasons)}"


class FaultTable:
    """A plug-in of pytest: collects what became of the tests that are marked `fault`, and writes it at the end."""

    def __init__(self, path: Path, chosen: str) -> None:
        self.path, self.chosen = path, chosen  # the latter by -m
        self.rows: dict[tuple[str, str], Row] = {}
        self.of: dict[str, tuple[str, str]] = {}  # node -> row

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            if (fault := fault_of(item)) is not None:
                test = item.nodeid.split("[")[0]
                key = (test.replace("\\", "/").rsplit("tests/", 1)[-1], fault[0])
                self.rows.setdefault(key, Row(*fault, key[0]))
                self.of[item.nodeid] = key

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid not in self.of:
            return
        outcomes = self.rows[self.of[report.nodeid]].outcomes
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            outcomes.append(("skipped", reason.removeprefix("Skipped: ")))
        elif report.failed:
            outcomes.append(("failed", f"in its {report.when}" if report.when != "call" else ""))
        elif report.when == "call":
            outcomes.append(("passed", ""))

    def pytest_sessionfinish(self) -> None:
        if not self.rows:
            return  # nothing was tried: a table that is there says more
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(page(list(self.rows.values()), self.chosen), encoding="utf-8")


def fault_of(item: pytest.Item) -> tuple[str, str] | None:
    """What was done and what must come of it, from the nearest mark. Raises UsageError for a mark of another form."""
    mark = item.get_closest_marker("fault")
    if mark is None:
        return None
    if len(mark.args) != 2 or mark.kwargs or not all(isinstance(text, str) and text for text in mark.args):
        raise pytest.UsageError(f"{item.nodeid}: write fault('what was done', 'what must come of it')")
    done, wanted = mark.args
    return done, wanted


def page(rows: list[Row], chosen: str) -> str:
    counts = [f"{sum(row.outcome.startswith(word) for row in rows)} {word}" for word in reversed(WORST_FIRST)]
    lines = [
        "# Faults tried, and what came of them",
        "",
        "Made by the tests, which really do what stands in the first column: "
        f'`pytest -m "{chosen}" --faults-table docs/faults.md`.',
        f"{len(rows)} faults: {', '.join(counts)}. {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, torch {version('torch')}.",
        "",
        "| what was done | what must come of it | outcome | test |",
        "|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row.done, row.test)):
        file, _, name = row.test.partition("::")
        cells = row.done, row.wanted, row.outcome, f"[{name}](../tests/{file})"
        lines.append("| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def add_option(parser: Any) -> None:
    parser.addoption(
        "--faults-table", metavar="FILE", help="write what became of the tests marked `fault` there, as Markdown"
    )


def configure(config: pytest.Config) -> None:
    if given := config.getoption("--faults-table"):
        if config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
            raise pytest.UsageError("--faults-table counts in one process; leave out -n")
        path = Path(given)
        # Tests change the current folder; what was asked for is of the one where pytest was started.
        path = path if path.is_absolute() else config.invocation_params.dir / path
        config.pluginmanager.register(FaultTable(path, config.getoption("markexpr")))


__all__ = ["FaultTable", "Row", "add_option", "configure", "fault_of", "page"]
