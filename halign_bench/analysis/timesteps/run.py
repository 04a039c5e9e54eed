"""`halign-bench analyze timesteps`: loads, measures, writes, prints."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.errors import Interrupted, RequestError
from halign_bench.folder import cache_dir
from halign_bench.model_choice import ModelChoice
from halign_bench.plan import check_data
from halign_bench.progress import Progress, Stop

if TYPE_CHECKING:
    from rich.console import Console

    from halign_bench.analysis.timesteps.analyse import Analysis
    from halign_bench.analysis.timesteps.measure import Spec


@dataclass(frozen=True)
class Request:
    """What was asked for; `spec` are fields of `measure.Spec`."""

    track: str = "puppet"
    backbone: str = "puppet-dit"
    data: Path | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    out: Path = Path("runs/timesteps")
    device: str = "auto"
    json: bool = False
    model: ModelChoice = field(default_factory=ModelChoice)


def run(request: Request, console: Console | None = None) -> int:
    """Measures, writes timesteps.{csv,json,pdf,svg,png} and timesteps-scores.csv into `request.out`, prints; returns 0.

    Raises RequestError for what cannot be answered, and Interrupted on Ctrl-C; the same request then goes on.
    console  for progress, by default on stderr; the table, or with `json` the document, goes to stdout
    """
    check_data(request.track, request.data)
    from rich.console import Console

    from halign_bench.analysis.timesteps.measure import Spec

    spec = Spec(**request.spec)
    console = console or Console(stderr=True)
    with Stop().listening() as stop:
        progress = Progress(console, stop)
        try:
            # Whatever plug-ins and libraries print must not end up in the table or the JSON document.
            with contextlib.redirect_stdout(sys.stderr):
                analysis, source = _measure(request, spec, progress, stop)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted("interrupted; what is sampled is kept, and the same command goes on from there") from None
    written = _write(analysis, source, request.out)
    if request.json:
        print(written[0].read_text(encoding="utf-8"), end="")
    else:
        _print(analysis, source)
    progress.say(f"written: {', '.join(map(str, written))}")
    return 0


def _measure(request: Request, spec: Spec, progress: Progress, stop: Stop) -> tuple[Analysis, dict[str, Any]]:
    from halign_bench.analysis.timesteps.analyse import analyse
    from halign_bench.analysis.timesteps.measure import SPLIT, UNLABELLED, choose_levels, measure
    from halign_bench.loading import annotator_of, load_backbone, load_track
    from halign_bench.sampling import path

    with progress.phase(f"load {request.backbone} and {request.track}", 1):
        backbone = load_backbone(request.backbone, request.device, request.model)
        track = load_track(request.track, request.data, backbone)
        protocol = annotator_of(track, *UNLABELLED).protocol
    for refusal in track.refusals():
        progress.say(f"left out {refusal.source}: {refusal.reason}")
    spec = spec.model_copy(update={"guidance": backbone.guidance})
    steps = path(spec.nfe, spec.guidance, shift=backbone.shift)
    levels = choose_levels(steps, spec.levels)
    if moved := [t for t in spec.levels or () if min(abs(t - level) for level in levels) > 1e-9]:
        progress.say(
            f"levels {_list(moved)} are measured where the sampler steps, at {_list(levels)} in all; a higher "
            "--nfe steps closer"
        )
    stop.gentle = True
    with progress.phase("sample and score", 1) as phase:
        scores = measure(backbone, track, spec, cache_dir(), phase)
    source = {
        "backbone": {"name": backbone.name, "base_sha256": backbone.base_sha256, "precision": backbone.precision},
        "track": {"name": track.name, **track.fingerprint()},
        "annotator": protocol,
        "split": SPLIT,
        "spec": spec.model_dump(mode="json"),
    }
    return analyse(scores, spec.nfe, steps[0].cost), source


def _write(analysis: Analysis, source: dict[str, Any], folder: Path) -> list[Path]:
    from halign_bench.analysis.timesteps import figure, report
    from halign_bench.atomic import atomic_write

    document = json.dumps(report.to_document(analysis, source), indent=2, ensure_ascii=False, allow_nan=False)
    texts = {
        "timesteps.json": document + "\n",
        "timesteps.csv": report.to_csv(analysis),
        "timesteps-scores.csv": report.scores_csv(analysis),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            atomic_write(folder / name, text)
        return [*(folder / name for name in texts), *figure.write(analysis, folder)]
    except OSError as problem:
        raise RequestError(
            f"--out {folder}: cannot be written ({problem.strerror or problem}); what is sampled is kept, and the same "
            "command with another folder goes on from there"
        ) from None


def _print(analysis: Analysis, source: dict[str, Any]) -> None:
    from rich.console import Console

    from halign_bench.analysis.timesteps.report import LEGEND, sentences, to_table

    scores = analysis.scores
    # Into a pipe or a file nothing is folded: a line there is for grep.
    console = Console() if sys.stdout.isatty() else Console(width=10_000)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=not sys.stdout.isatty())

    say(
        f"{source['backbone']['name']} on {source['track']['name']}: {len(scores.ids)} clips of "
        f"{len(set(scores.identities))} identities, {source['spec']['candidates']} candidates each, "
        f"NFE {analysis.nfe}\n"
    )
    console.print(to_table(analysis))
    say(LEGEND + "\n")
    for text in (*analysis.notes, *sentences(analysis)):
        say(text)


def _list(levels: Any) -> str:
    return ", ".join(f"{t:.4g}" for t in levels)


__all__ = ["Request", "run"]
