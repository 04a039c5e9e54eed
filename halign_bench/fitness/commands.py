"""The command `halign-bench fitness`. Nothing heavy is imported before a request is known to make sense."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from halign_bench import registry
from halign_bench.errors import RequestError
from halign_bench.grammar import parse_size

EPILOG = """Examples:

\b
  halign-bench fitness                                      the embedded track's metrics
  halign-bench fitness --metrics sync_c,sync_d,sync_offset  only these
  halign-bench fitness --data videos/                       the published metrics, on your own real videos
  halign-bench fitness --data videos/ --use rtmw --clips 20 --out fitness.json

\b
Clips are spoilt by known amounts (blurred, shuffled, with shifted or wrong sound, fingers removed, another person's
face, ...), and a metric is fit where its score follows the amount. Of real videos, windows of 5 s are taken."""


def fitness(
    data: Annotated[
        Path | None, typer.Option(help="Folder of real videos, or one; else the embedded track.", metavar="PATH")
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(help="How many; 64 of the embedded track, 8 windows of real videos unless given.", min=1,
                     metavar="N"),
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="Only these.", metavar="A,B…")] = None,
    use: Annotated[
        str | None, typer.Option(help="Other published extractors than the usual ones, see score.", metavar="A,B…")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Scale and crop real videos to it; else their longer side has at most 512 pixels.",
                     metavar="WxH"),
    ] = None,
    assets: Annotated[
        Path | None, typer.Option(help="Folder of weights, instead of $HALIGN_ASSETS or the cache's.", metavar="DIR")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write it there too, as JSON or (.md) Markdown.", metavar="FILE")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", metavar="NAME")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")
    ] = False,
) -> int:
    """Test whether metrics follow damage of known size: which are fit, which are not, and why."""
    wanted = _names(metrics) if metrics is not None else None
    for name in wanted or ():
        registry.check("metric", name)
    pixels = parse_size(size) if size is not None else None
    if data is None:
        for option, value in (("--use", use), ("--size", size), ("--assets", assets)):
            if value is not None:
                raise RequestError(f"{option} is for real videos: give a folder of them with --data")
    elif not data.exists():
        raise RequestError(f"--data {data}: no such file or folder")
    if out is not None and out.is_dir():
        raise RequestError(f"--out {out}: is a folder; give a file")
    from halign_bench.fitness.run import Request, run

    return run(Request(data, clips, wanted, tuple(_names(use or "")), pixels, assets, out, device, as_json))


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


__all__ = ["EPILOG", "fitness"]
