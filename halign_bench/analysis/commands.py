"""The command group `halign-bench analyze`. As in `cli`, nothing heavy is imported before a request makes sense."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from halign_bench import registry
from halign_bench.errors import RequestError
from halign_bench.model_choice import AudioEncoderOption, FramesOption, ModelChoice, ModelOption, SizeOption

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    help="Analyse a model: a table, a figure, an answer.",
    epilog="""Examples:

\b
  halign-bench analyze timesteps                          where to put TPO's t_mid on the embedded model""",
)


@app.callback()
def _group() -> None:
    """Keeps `timesteps` a command of a group, which a single one would otherwise not be."""


@app.command(
    epilog="""Examples:

\b
  halign-bench analyze timesteps
  halign-bench analyze timesteps --nfe 30 --levels 0.9,0.7,0.5,0.3,0.1 --out runs/levels
  halign-bench analyze timesteps --track clips --data videos/ --clips 16"""
)
def timesteps(
    backbone: Annotated[str, typer.Option(help="The model that is analysed.", metavar="NAME")] = "puppet-dit",
    model: ModelOption = None,
    audio_encoder: AudioEncoderOption = None,
    frames: FramesOption = None,
    size: SizeOption = None,
    track: Annotated[str, typer.Option(help="Where clips and scores come from.", metavar="NAME")] = "puppet",
    data: Annotated[Path | None, typer.Option(help="Folder of videos, for --track clips.", metavar="DIR")] = None,
    clips: Annotated[
        int | None, typer.Option(help="How many prompts; 64, or all there are, unless given.", min=2, metavar="N")
    ] = None,
    nfe: Annotated[int, typer.Option(help="Network evaluations of a whole path.", min=2, metavar="N")] = 16,
    levels: Annotated[
        str | None,
        typer.Option(help="Noise levels between 0 and 1 (0.75,0.5); seven even ones unless given.", metavar="A,B…"),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for timesteps.csv, .json, .pdf, .svg and .png.", metavar="DIR")
    ] = Path("runs/timesteps"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", metavar="NAME")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")
    ] = False,
) -> int:
    """When are motion and fidelity decided, and what `t_mid` for tpo follows?"""
    given = None if levels is None else parse_levels(levels)
    registry.check("track", track)
    registry.check("backbone", backbone)
    choice = ModelChoice.of(model, audio_encoder, frames, size)
    if data is not None and not data.is_dir():
        raise RequestError(f"--data {data}: {'not a folder' if data.exists() else 'no such folder'}")
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out}: is a file; give a folder")
    from halign_bench.analysis.timesteps.run import Request, run

    spec = {"clips": clips, "nfe": nfe, "levels": given}
    return run(Request(track, backbone, data, spec, out, device, as_json, choice))


def parse_levels(text: str) -> tuple[float, ...]:
    """ "0.75,0.5" -> (0.75, 0.5), from high to low. Raises `RequestError` for what is no level between 0 and 1."""
    levels = set()
    for part in text.split(","):
        try:
            level = float(part)
        except ValueError:
            level = 0.0
        if not 0 < level < 1:
            raise RequestError(
                f"--levels {text}: {part.strip() or 'nothing'} is no noise level between 0 and 1; "
                "write them as --levels 0.75,0.5,0.25"
            )
        levels.add(level)
    return tuple(sorted(levels, reverse=True))
