"""The command `halign-bench score`. Nothing heavy is imported before a request is known to make sense."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halign_bench import registry
from halign_bench.errors import Interrupted, PluginError, RequestError
from halign_bench.grammar import parse_size

if TYPE_CHECKING:
    from halign_bench.metric import Metric

EPILOG = """Examples:

\b
  halign-bench score generated/ --reference real/           everything that there are weights for
  halign-bench score generated/                             only what needs no reference: Sync, hands
  halign-bench score generated/ --audio speech/             the sound is in other files of the same names
  halign-bench score generated/ --reference real/ --metrics fid,fvd --use inception-clean
  halign-bench score result.mp4 --reference truth.mp4 --json

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
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")
    ] = False,
) -> int:
    """Score videos by the published metrics; whatever cannot be scored is counted, with the reason."""
    wanted = _metric_names(metrics)
    pixels = parse_size(size) if size is not None else None
    from halign_bench.scoring.choices import chosen, opened

    choices = chosen([name.strip() for name in use.split(",") if name.strip()] if use else [])
    from halign_bench.scoring.inputs import find_inputs

    inputs = find_inputs(generated, reference, audio, images)

    from rich.console import Console

    from halign_bench.assets.store import Store
    from halign_bench.folder import cache_dir
    from halign_bench.progress import Progress, Stop
    from halign_bench.scoring import report
    from halign_bench.scoring.cache import Cache
    from halign_bench.scoring.footage import DECODING
    from halign_bench.scoring.scorer import Scorer, scored_anything

    if device not in ("auto", "cpu"):
        from halign_bench.loading import resolve_device

        resolve_device(device)
    cache = Cache(cache_dir() / "score")
    classes, left_out = _usable(wanted, reference is not None)
    features = [cls.feature for cls in classes if cls.feature is not None]
    extractors, reasons = opened(features, choices, Store(assets), device, cache)
    left_out |= {cls.name: reasons[cls.feature] for cls in classes if cls.feature in reasons}
    classes = [cls for cls in classes if cls.feature not in reasons]
    if not classes:
        why = "; ".join(sorted(set(left_out.values())))
        raise RequestError(f"score: nothing can be measured ({why})")
    scorer = Scorer(classes, extractors, cache, pixels, left_out)
    with Stop().listening() as stop:
        stop.gentle = True
        progress = Progress(Console(stderr=True), stop)
        try:
            with progress.phase("clips", len(inputs.items)) as phase:
                for item in inputs.items:
                    scorer.add(item)
                    phase.advance()
            with progress.phase("totals and intervals", len(classes)) as phase:
                scores = scorer.totals(phase)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted("interrupted; the clips that are done are kept, and the same command goes on") from None
        except OSError as problem:
            raise RequestError(f"{cache.folder}: cannot be written ({problem.strerror or problem})") from None
    decoding = DECODING + (f"; every frame scaled and cropped to {size}" if size else "")
    whole = report.document(scores, inputs, decoding)
    try:
        report.write(out, scores, whole)
    except OSError as problem:
        raise RequestError(f"--out {out}: cannot be written ({problem.strerror or problem})") from None
    if as_json:
        from halign_bench.printing import print_json

        print_json(whole)
    else:
        report.show(scores, inputs, out)
    return 0 if scored_anything(scores) else 1


def _metric_names(text: str | None) -> list[str]:
    known = registry.names("metric")
    if text is None:
        return list(known)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        registry.check("metric", name)
    return list(dict.fromkeys(names))


def _usable(names: list[str], has_reference: bool) -> tuple[list[type[Metric]], dict[str, str]]:
    """Classes of the metrics that can be asked, and why not of the others."""
    classes: list[type[Metric]] = []
    left_out: dict[str, str] = {}
    for name in names:
        try:
            cls: type[Metric] = registry.get("metric", name)
        except PluginError as problem:
            left_out[name] = str(problem)
            continue
        if not cls.alone and not has_reference:
            left_out[name] = "compares with real videos, and --reference is not given"
        elif "skeleton" in cls.needs:
            left_out[name] = "needs skeletons, which video files do not have"
        else:
            classes.append(cls)
    return classes, left_out


__all__ = ["EPILOG", "score"]
