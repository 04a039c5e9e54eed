"""The command `halign-bench score`. Nothing heavy is imported before a request is known to make sense."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halign_bench import registry
from halign_bench.errors import Interrupted, RequestError
from halign_bench.executors.choice import Where
from halign_bench.executors.options import ExecutorName, RayAddress, TaskCpus, TaskGpus
from halign_bench.grammar import parse_size

if TYPE_CHECKING:
    from halign_bench.scoring.scorer import Scorer

EPILOG = """Examples:

\b
  halign-bench score generated/ --reference real/           everything that there are weights for
  halign-bench score generated/                             only what needs no reference: Sync, hands
  halign-bench score generated/ --audio speech/             the sound is in other files of the same names
  halign-bench score generated/ --reference real/ --metrics fid,fvd --use inception-clean
  halign-bench score result.mp4 --reference truth.mp4 --json
  halign-bench score generated/ --reference real/ --shard 2/4   a quarter of it, see docs/scale.md

\b
--use takes, in place of the usual extractor: inception-clean, inception-pytorch-fid (fid, kid); i3d-common-metrics,
i3d-videogpt (fvd); syncnet-reference (sync); rtmw (hands); lpips-vgg (lpips).
Files are paired by their names. Weights: halign-bench assets list. What is computed of a clip is kept in the cache
folder ($HALIGN_CACHE), so the same again takes seconds, and one more clip only its own time.

\b
Exit codes: 0 scored, what could not be is counted; 1 not a single clip could be; 2 the request is wrong; 130
interrupted, resumable."""


def score(
    generated: Annotated[Path, typer.Argument(help="Folder of generated videos, or one.", metavar="GENERATED")],
    reference: Annotated[
        Path | None, typer.Option(help="Folder of the real videos of the same names, or one.", metavar="PATH")
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(help="Folder of sounds (or videos) of the same names; else NAME.wav beside, else the file's own.",
                     metavar="PATH"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the persons' pictures, for CSIM; else the reference's first frame.",
                     metavar="PATH"),
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="Only these.", metavar="A,B…")] = None,
    use: Annotated[
        str | None, typer.Option(help="Other extractors than the usual ones, see below.", metavar="A,B…")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Scale and crop every video to it; else each keeps its own.", metavar="WxH")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.", metavar="DIR")] = Path("scores/latest"),
    assets: Annotated[
        Path | None, typer.Option(help="Folder of weights, instead of $HALIGN_ASSETS or the cache's.", metavar="DIR")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", metavar="NAME")] = "auto",
    shard: Annotated[
        str | None,
        typer.Option(help="Only the K-th of N parts of the clips, into the cache; all of them then as usual.",
                     metavar="K/N"),
    ] = None,
    shards: Annotated[
        int | None, typer.Option(help="As so many parts, where --executor says.", min=1, metavar="N")
    ] = None,
    executor: ExecutorName = "local",
    ray_address: RayAddress = None,
    task_cpus: TaskCpus = None,
    task_gpus: TaskGpus = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")
    ] = False,
) -> int:
    """Score videos by the published metrics; whatever cannot be scored is counted, with the reason."""
    where = Where(executor, ray_address, task_cpus, task_gpus)
    where.check(device)
    share = _share(shard, shards, where)
    wanted = _metric_names(metrics)
    pixels = parse_size(size) if size is not None else None
    used = tuple(name.strip() for name in use.split(",") if name.strip()) if use else ()

    from rich.console import Console

    from halign_bench.folder import cache_dir
    from halign_bench.locking import locked
    from halign_bench.machine import out_of_memory
    from halign_bench.progress import Progress, Stop
    from halign_bench.scoring import report
    from halign_bench.scoring.footage import DECODING
    from halign_bench.scoring.opening import ScoreRequest, open_scoring
    from halign_bench.scoring.scorer import scored_anything
    from halign_bench.scoring.shards import add_all, on_shards, part

    scoring = open_scoring(ScoreRequest(
        generated, reference, audio, images, tuple(wanted), used, pixels, assets, device, cache_dir() / "score"
    ))  # fmt: skip
    with contextlib.ExitStack() as held, Stop().listening() as stop:
        if share is None:  # parts write to the cache alone
            busy = "another score is working there; wait for it or choose another folder"
            held.enter_context(locked(out / ".lock", f"--out {out}", busy))
        stop.gentle = True
        progress = Progress(Console(stderr=True), stop)
        scorer = scoring.scorer()
        try:
            if share is not None:
                add_all(scorer, part(scoring.inputs.items, *share), progress, "clips")
                return _shard_done(scorer, f"{share[0]}/{share[1]}", scoring.cache.folder, as_json)
            if shards is not None:
                on_shards(scoring, shards, where, progress)
            add_all(scorer, scoring.inputs.items, progress, "clips")
            with progress.phase("totals and intervals", len(scoring.metrics)) as phase:
                scores = scorer.totals(phase)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted("interrupted; the clips that are done are kept, and the same command goes on") from None
        except OSError as problem:
            if out_of_memory(problem):
                raise
            raise RequestError(
                f"{scoring.cache.folder}: cannot be written ({problem.strerror or problem}); the clips that are done "
                "are kept, and the same command goes on"
            ) from None
        decoding = DECODING + (f"; every frame scaled and cropped to {size}" if size else "")
        whole = report.document(scores, scoring.inputs, decoding)
        try:
            report.write(out, scores, whole)
        except OSError as problem:
            raise RequestError(f"--out {out}: cannot be written ({problem.strerror or problem})") from None
    if as_json:
        from halign_bench.printing import print_json

        print_json(whole)
    else:
        report.show(scores, scoring.inputs, out)
    return 0 if scored_anything(scores) else 1


def _share(shard: str | None, shards: int | None, where: Where) -> tuple[int, int] | None:
    """The part that is asked for and how many there are, as "2/4" says; None is all of them."""
    if where.executor != "local" and shards is None:
        raise RequestError(f"--executor {where.executor}: say into how many parts, with --shards N")
    if shard is None:
        return None
    if shards is not None:
        raise RequestError(f"--shard {shard} is one part, --shards {shards} are all of them: choose one")
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise RequestError(f"--shard {shard}: write it as K/N with K from 1 to N, for example 2/4")
    return number, count


def _shard_done(scorer: Scorer, share: str, cache: Path, as_json: bool) -> int:
    if as_json:
        from dataclasses import asdict

        from halign_bench.printing import print_json

        clips = [asdict(report) for report in scorer.reports]
        print_json({"schema": "halign-bench/score-shard/1", "shard": share, "clips": clips})
    else:
        print(f"Part {share}: {len(scorer.reports)} clips, in {cache}.")
        print("When every part is there, the same command without --shard puts them together.")
    return 0


def _metric_names(text: str | None) -> list[str]:
    known = registry.names("metric")
    if text is None:
        return list(known)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        registry.check("metric", name)
    return list(dict.fromkeys(names))


__all__ = ["EPILOG", "score"]
