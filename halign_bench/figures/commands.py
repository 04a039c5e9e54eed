"""The command `halign-bench figures`. Nothing heavy is imported before a request is known to make sense."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from halign_bench import registry
from halign_bench.errors import RequestError
from halign_bench.model_choice import AudioEncoderOption, ModelOption

# As in `make.KINDS` and `style`, which importing here would make every `--help` slower.
NAMES = (
    "quality-nfe", "quality-seconds", "pareto", "win-rates", "training", "timesteps", "fold", "data-efficiency",
    "samples",
)  # fmt: skip
FORMATS = ("pdf", "svg", "png")
WIDTHS = ("column", "page")
EPILOG = f"""Examples:

\b
  halign-bench figures runs/latest --out figures
  halign-bench figures runs/latest runs/timesteps --out figures --width page
  halign-bench figures runs/latest --out figures --only pareto,win-rates --format pdf

\b
Figures: {", ".join(NAMES[:5])},
{", ".join(NAMES[5:])}. Beside each lies the CSV that it was drawn from, and
captions.md says how to read them."""


def figures(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs, records, or folders of analyze timesteps.", metavar="RUN…")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the figures.", metavar="DIR")],
    only: Annotated[str | None, typer.Option(help="Only these.", metavar="NAME,…")] = None,
    format_: Annotated[str, typer.Option("--format", help="Of each figure.", metavar="A,B…")] = ",".join(FORMATS),
    width: Annotated[
        str, typer.Option(help="column (3.33 inches) or page (6.9, both columns).", metavar="NAME")
    ] = "column",
    data: Annotated[
        Path | None, typer.Option(help="For samples: the folder of videos that the run was given.", metavar="DIR")
    ] = None,
    model: ModelOption = None,
    audio_encoder: AudioEncoderOption = None,
) -> int:
    """Draw figures for a paper; what the records have no data for is said and left out."""
    names = _among("figure", only, NAMES) if only is not None else list(NAMES)
    formats = _among("--format", format_, FORMATS)
    if width not in WIDTHS:
        raise RequestError(registry.unknown("--width", width, WIDTHS))
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out}: is a file; give a folder")
    if data is not None and not data.is_dir():
        raise RequestError(f"--data {data}: {'not a folder' if data.exists() else 'no such folder'}")
    from halign_bench.figures import style
    from halign_bench.figures.make import NoData, make
    from halign_bench.figures.source import read
    from halign_bench.report.resample import Origin

    source = replace(read(runs), origin=Origin(data, model, audio_encoder))
    made, absent = [], []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            try:
                made.append(make(name, source, style.WIDTHS[width], formats, out))
            except NoData as problem:
                absent.append(f"{name}: {problem}")
        if made:
            _captions(out, [(one.name, one.caption) for one in made], source.remarks())
    except OSError as problem:
        raise RequestError(f"--out {out}: cannot be written ({problem.strerror or problem})") from None
    if not made:
        raise RequestError(f"nothing to draw: {'; '.join(absent)}")
    for path in (path for one in made for path in one.files):
        print(path)
    for line in absent:
        print(f"left out, {line}", file=sys.stderr)
    return 0


def _among(what: str, text: str, known: Sequence[str]) -> list[str]:
    """ "pdf,svg" -> each once, as given; raises `RequestError` for what is not among `known`."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise RequestError(registry.unknown(what, name, known))
    return names


def _captions(folder: Path, captions: Sequence[tuple[str, str]], remarks: Sequence[str]) -> None:
    from halign_bench.atomic import atomic_write

    lines = ["# Figures", "", *(f"- **{name}**: {caption}" for name, caption in captions)]
    if remarks:
        lines += ["", "Of all of them:", "", *(f"- {remark}" for remark in remarks)]
    atomic_write(folder / "captions.md", "\n".join(lines) + "\n")


__all__ = ["EPILOG", "NAMES", "figures"]
