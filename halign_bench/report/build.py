"""Makes a report: reads the records, draws on what figures and tables have, and writes the folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.errors import Interrupted, RequestError
from halign_bench.figures.make import KINDS, csv_text
from halign_bench.figures.source import NoData, Source, read
from halign_bench.figures.style import COLOURS, LINES, MARKERS, Look
from halign_bench.plan import check_data
from halign_bench.progress import Progress, Stop
from halign_bench.report import configs, document, gallery, panels
from halign_bench.report.resample import Origin
from halign_bench.report.writing import Files, replacing, script

if TYPE_CHECKING:
    from rich.console import Console

TITLES = {
    "quality-nfe": "Quality against network evaluations", "quality-seconds": "Quality against seconds",
    "pareto": "Two scores against each other", "win-rates": "Wins on single clips", "training": "Trainings",
    "timesteps": "Noise levels", "fold": "TMM's fold", "data-efficiency": "IPA's data efficiency",
}  # fmt: skip
TEMPLATE = "page.html"
DIGITS = 6  # of a number in a figure's data; its CSV has all


def make(runs: Sequence[Path], out: Path, clips: int, origin: Origin, console: Console) -> list[str]:
    """Writes the report of these runs to the folder `out`, and returns what it had to leave out.

    clips  how many to show videos of
    Raises RequestError, PluginError, Interrupted on Ctrl-C; the folder then stays as it was.
    """
    source = read(runs)
    if source.board is None:
        raise RequestError("a report is of records; give the --out folder of a run, and analyses beside it if you like")
    said = document.context(source) | {"configs": configs.configs(source)}
    if origin.data is not None:
        check_data(said["track"], origin.data)
    try:
        with Stop().listening() as stop, replacing(out) as files:
            stop.gentle = True
            _bundle(files)
            files.text("data/styles.js", script("styles", _styles(source)))
            figures, absent = _figures(source, files)
            shown, without = _gallery(source, clips, origin, files, Progress(console, stop))
            said |= {"figures": figures, "absent": absent, "gallery": shown}
            files.index = lambda folder: _page({**said, "folder": folder})
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted(f"interrupted; {out} is as it was before") from None
    except OSError as problem:
        raise RequestError(f"--out {out}: cannot be written ({problem.strerror or problem})") from None
    return absent + without


def _bundle(files: Files) -> None:
    """The page's own scripts and styles, and the libraries with their licences."""
    for name, item in _walk(resources.files("halign_bench.report") / "static"):
        if name != TEMPLATE:
            files.path(f"static/{name}").write_bytes(item.read_bytes())


def _walk(folder: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        found += _walk(item, f"{prefix}{item.name}/") if item.is_dir() else [(prefix + item.name, item)]
    return found


def _figures(source: Source, files: Files) -> tuple[list[dict[str, Any]], list[str]]:
    """Those that the records have data for, with their CSV; and why the others are left out."""
    made: list[dict[str, Any]] = []
    absent: list[str] = []
    for name, kind in KINDS.items():
        if name not in TITLES:  # samples are the gallery's
            continue
        try:
            rows = kind.rows(source)
        except NoData as problem:
            absent.append(f"figure {name}: {problem}")
            continue
        found = [_plain(asdict(panel)) for panel in panels.panels(name, rows)]
        files.text(f"data/{name}.js", script(name, found))
        files.text(f"data/{name}.csv", csv_text(rows))
        caption = kind.caption.removeprefix(f"{TITLES[name]}. ").replace("Black: base.", "Colour of the text: base.")
        made.append({"name": name, "title": TITLES[name], "caption": caption, "panels": len(found)})
    return made, absent


def _gallery(
    source: Source, clips: int, origin: Origin, files: Files, progress: Progress
) -> tuple[dict[str, Any] | None, list[str]]:
    """What the gallery shows, and what it has to do without."""
    try:
        shown = gallery.make(source, clips, origin, files, progress)
    except NoData as problem:
        return None, [f"gallery: {problem}"]
    files.text("data/gallery.js", script("gallery", shown))
    return shown, [] if any(clip["video"] for clip in shown["clips"]) else [shown["note"]]


def _plain(value: Any) -> Any:
    """Numbers as short as a figure shows them, and no fields that hold nothing."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items() if _holds(one)}
    return value


def _holds(value: Any) -> bool:
    return value is not None and value is not False and value != ""  # 0 holds something, although it equals False


def _styles(source: Source) -> dict[str, Any]:
    """How methods look, as in figures for a paper: None is the colour of the text. Series of others take turns."""
    look = Look(1.0, source.methods)
    methods = {name: look.of(name) for name in source.methods}
    return {
        "methods": {
            name: {"colour": None if name == "base" else of["color"], "marker": of["marker"],
                   "dash": _dash(of["linestyle"])} for name, of in methods.items()
        },
        "others": [
            {"colour": colour, "marker": marker, "dash": _dash(line)}
            for colour, marker, line in zip(COLOURS, ("o", *MARKERS), ("-", *LINES), strict=False)
        ],
    }  # fmt: skip


def _dash(line: Any) -> list[float]:
    """Lengths of strokes and gaps, of a line style of matplotlib."""
    named: dict[str, list[float]] = {"-": [], "--": [6, 3], "-.": [6, 3, 1, 3], ":": [1.5, 2.5]}
    return named[line] if isinstance(line, str) else list(line[1])


def _page(said: Mapping[str, Any]) -> str:
    return str(_template().render(said)) + "\n"


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    template = (resources.files("halign_bench.report") / "static" / TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return environment.from_string(template)


__all__ = ["make"]
