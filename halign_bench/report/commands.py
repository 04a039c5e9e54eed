"""The command `halign-bench report`. Nothing heavy is imported before a request is known to make sense."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from halign_bench.errors import RequestError
from halign_bench.model_choice import AudioEncoderOption, ModelOption

EPILOG = """Examples:

\b
  halign-bench report runs/latest --out report
  halign-bench report runs/latest runs/timesteps --out report --clips 24
  halign-bench report runs/real --data FOLDER --model FOLDER --out report
  halign-bench report leaderboards/puppet/puppet-dit --out report

\b
Open report/index.html; the folder needs neither a server nor the network. Runs keep no videos: the gallery's are
sampled again from the adapters in the run's folder, and records without them have scores alone."""


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs, records, or folders of analyze timesteps.", metavar="RUN…")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report; an older one there is replaced.", metavar="DIR")],
    clips: Annotated[
        int, typer.Option(help="Show videos of so many clips, the worst and the best.", min=0, metavar="N")
    ] = 12,
    data: Annotated[
        Path | None, typer.Option(help="Folder of videos, as the run was given it.", metavar="DIR")
    ] = None,
    model: ModelOption = None,
    audio_encoder: AudioEncoderOption = None,
) -> int:
    """Make a folder of pages to look at: tables, figures and a gallery."""
    if data is not None and not data.is_dir():
        raise RequestError(f"--data {data}: {'not a folder' if data.exists() else 'no such folder'}")
    from rich.console import Console

    from halign_bench.report.build import make
    from halign_bench.report.resample import Origin

    absent = make(runs, out, clips, Origin(data, model, audio_encoder), Console(stderr=True))
    print(out / "index.html")
    for line in absent:
        print(f"left out, {line}", file=sys.stderr)
    return 0


__all__ = ["EPILOG", "report"]
