"""Makes the tables in `leaderboards/` again from the records there: `python -m halign_bench.tables.committed FOLDER`.

Every folder below it that holds `records/` gets its leaderboard.md, .csv and .json, and in `figures/` the CSV of each
figure that records alone can give. The README's part between the two marks shows each of them: scores and cost.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from halign_bench.atomic import atomic_write
from halign_bench.errors import HalignError, RequestError
from halign_bench.figures.make import KINDS, csv_text, pages
from halign_bench.figures.source import NoData, Source
from halign_bench.gathering import gather
from halign_bench.leaderboard import Leaderboard, build
from halign_bench.record import Record
from halign_bench.results import read_records
from halign_bench.tables.content import LEGEND, blocks, left_out, seeds
from halign_bench.tables.markdown import pipes

START = "<!-- made by python -m halign_bench.tables.committed leaderboards; do not edit down to the end mark -->"
END = "<!-- end -->"


def boards(root: Path) -> Iterator[tuple[Path, list[Record], Leaderboard]]:
    """Folder, its records and their table, by path."""
    folders = sorted(path.parent for path in root.glob("**/records") if path.is_dir())
    if not folders:
        raise RequestError(f"{root}: no folder below it holds records/")
    for folder in folders:
        records, refused = read_records([folder])
        yield folder, records, build(records, refused)


def section(root: Path, folder: Path, records: list[Record], board: Leaderboard) -> str:
    """What the README shows of a folder."""
    path = folder.relative_to(root).as_posix()
    cell = records[0].cell
    lines = [
        f"### [{path}]({path}/leaderboard.md)",
        "",
        f"Track {cell.track}, backbone {cell.backbone}, {len(board.rows)} methods, {len(records)} records, "
        f"protocol `{board.protocol_hash[:12]}`. {seeds(board)} {LEGEND}.",
        "",
    ]
    for block in blocks(board):
        lines += [f"{block.title}:", "", *pipes(block.headers, block.rows), ""]
    return "\n".join([*lines, *(f"- {line}" for line in left_out(board))])


def figures_data(records: list[Record], board: Leaderboard) -> dict[str, str]:
    """File name -> CSV of every figure that these records can give."""
    source = Source(board, gather(records))
    found: dict[str, str] = {}
    for name in KINDS:
        with suppress(NoData):
            found |= {f"{stem}.csv": csv_text(rows) for stem, rows in pages(name, source).items()}
    return found


def readme(text: str, sections: list[str]) -> str:
    """The README with these sections between the marks. Raises `RequestError` where it has no marks."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise RequestError(f"the README has no place for the tables; put these two lines into it: {START} {END}")
    return f"{before}{START}\n\n" + "\n".join(sections) + f"\n{END}{after}"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as problem:
        raise RequestError(f"{file}: cannot be read ({problem.strerror or problem})") from None


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m halign_bench.tables.committed FOLDER", file=sys.stderr)
        return 2
    root = Path(arguments[0])
    try:
        sections = []
        for folder, records, board in boards(root):
            board.write_all(folder)
            (folder / "figures").mkdir(exist_ok=True)
            for file, text in figures_data(records, board).items():
                atomic_write(folder / "figures" / file, text)
            sections.append(section(root, folder, records, board))
        page = root / "README.md"
        atomic_write(page, readme(_text(page), sections))
    except HalignError as error:
        print(f"halign-bench: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
