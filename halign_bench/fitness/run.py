"""What the command does: finds clips, damages, metrics and extractors, measures, writes, prints."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench import registry
from halign_bench.errors import HalignError, Interrupted, PluginError, RequestError
from halign_bench.fitness import report
from halign_bench.fitness.damages import Damage, Subject
from halign_bench.fitness.measuring import Measurement
from halign_bench.machine import out_of_memory
from halign_bench.progress import Progress, Stop
from halign_bench.track import Clip, Extractor, Refusal, Unscorable

if TYPE_CHECKING:
    from halign_bench.metric import Metric
    from halign_bench.scoring.choices import LazyExtractor

EMBEDDED_CLIPS, REAL_CLIPS = 64, 8


@dataclass(frozen=True)
class Request:
    """What was asked for; `data` None is the embedded track, `clips` and `metrics` None the usual ones."""

    data: Path | None = None
    clips: int | None = None
    metrics: Sequence[str] | None = None
    use: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    assets: Path | None = None
    out: Path | None = None
    device: str = "auto"
    json: bool = False


def run(request: Request) -> int:
    """Returns 0: the answer is the table. Raises RequestError, and Interrupted on Ctrl-C."""
    from rich.console import Console

    with Stop().listening() as stop:
        progress = Progress(Console(stderr=True), stop)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # whatever libraries print is not part of the answer
                whole = (_embedded if request.data is None else _real)(request, progress, stop)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted("interrupted; nothing was written") from None
    if request.out is not None:
        from halign_bench.atomic import atomic_write

        as_text = report.markdown if request.out.suffix == ".md" else report.to_json
        try:
            atomic_write(request.out, as_text(whole))
        except OSError as problem:
            raise RequestError(f"--out {request.out}: cannot be written ({problem.strerror or problem})") from None
    if request.json:
        from halign_bench.printing import print_json

        print_json(whole)
    else:
        report.show(whole)
    return 0


def _embedded(request: Request, progress: Progress, stop: Stop) -> dict[str, Any]:
    from halign_bench.loading import resolve_device
    from halign_bench.tracks.puppet import PuppetTrack
    from halign_bench.tracks.puppet.evaluator_data import spread
    from halign_bench.tracks.puppet.fitness import damages, subject_of

    track = PuppetTrack()
    count = request.clips or EMBEDDED_CLIPS
    if count > track.splits()["eval"]:
        raise RequestError(f"--clips {count}: track {track.name} has {track.splits()['eval']} evaluation clips")
    kinds = damages()
    classes, left_out = _followed(request.metrics, kinds)
    extractors = track.extractors(resolve_device(request.device))
    for name in [name for name, cls in classes.items() if cls.feature not in (None, *extractors)]:
        left_out[name] = f"track {track.name} has no {classes.pop(name).feature} extractor"
    _require(classes, left_out)
    measurement = Measurement(kinds, classes, extractors, track.name)
    subjects = (subject_of("eval", spread("eval", index), track.frames, track.size[0]) for index in range(count))
    _measure(measurement, subjects, count, progress, stop)
    return report.document(measurement.ladders(), left_out, {**track.fingerprint(), "split": "eval"}, count)


def _real(request: Request, progress: Progress, stop: Stop) -> dict[str, Any]:
    from halign_bench.fitness.damages import DAMAGES
    from halign_bench.fitness.folder import LONG, SHORT, SIDE, Folder

    assert request.data is not None
    classes, left_out = _followed(request.metrics, DAMAGES)
    extractors = _published(classes, left_out, request)
    _require(classes, left_out)
    folder, most = Folder(request.data, request.size), request.clips or REAL_CLIPS
    measurement = Measurement(DAMAGES, classes, extractors)
    count = _measure(measurement, folder.subjects(most), folder.estimate(most), progress, stop)
    if not count:
        reasons = "; ".join(f"{refusal.source} {refusal.reason}" for refusal in folder.refusals[:3])
        raise RequestError(f"--data {request.data}: no video that can be used ({reasons})")
    if count < most:
        folder.refusals.append(Refusal("windows", f"{most} were asked for, the videos give {count}"))
    of = {
        "windows": folder.windows, "frames": {"pictures": SHORT, "sound": LONG},
        "size": list(request.size) if request.size else f"longer side at most {SIDE}",
    }  # fmt: skip
    return report.document(measurement.ladders(), left_out, of, count, folder.refusals)


def _followed(
    wanted: Sequence[str] | None, kinds: Mapping[str, Damage]
) -> tuple[dict[str, type[Metric]], dict[str, str]]:
    """Classes of the metrics that some damage should move, and why the others are left out."""
    moved = {name for damage in kinds.values() for name in damage.follows}
    classes: dict[str, type[Metric]] = {}
    left_out: dict[str, str] = {}
    for name in wanted if wanted is not None else registry.names("metric"):
        if name not in moved:
            left_out[name] = "no damage here moves it in a known way"
            continue
        try:
            classes[name] = registry.get("metric", name)
        except PluginError as problem:
            left_out[name] = str(problem)
    return classes, left_out


def _published(classes: dict[str, type[Metric]], left_out: dict[str, str], request: Request) -> dict[str, Extractor]:
    """Published extractors by feature; metrics that lack theirs go from `classes` to `left_out`."""
    from halign_bench.assets.store import Store
    from halign_bench.folder import cache_dir
    from halign_bench.scoring.cache import Cache
    from halign_bench.scoring.choices import chosen, opened

    features = [cls.feature for cls in classes.values() if cls.feature is not None]
    store, cache = Store(request.assets), Cache(cache_dir() / "score")
    found, reasons = opened(features, chosen(request.use), store, request.device, cache)
    for name in [name for name, cls in classes.items() if cls.feature in reasons]:
        left_out[name] = reasons[str(classes.pop(name).feature)]
    return {feature: Guarded(extractor) for feature, extractor in found.items()}


class Guarded:
    """An extractor that something about a clip made fail gives the reason in place of features."""

    def __init__(self, extractor: Extractor | LazyExtractor) -> None:
        self.extractor = extractor
        self.name, self.protocol = extractor.name, extractor.protocol

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list[Any]:
        try:
            return list(self.extractor(clips, conditions))
        except HalignError:
            raise
        except Exception as problem:
            if out_of_memory(problem):
                raise
            first = (str(problem).strip().splitlines() or [""])[0][:200]
            return [Unscorable(f"{self.name} failed: {type(problem).__name__}: {first}")] * len(clips)


def _require(classes: Mapping[str, type[Metric]], left_out: Mapping[str, str]) -> None:
    if not classes:
        raise RequestError(f"fitness: nothing can be measured ({'; '.join(sorted(set(left_out.values())))})")


def _measure(
    measurement: Measurement, subjects: Iterable[Subject], expected: int, progress: Progress, stop: Stop
) -> int:
    """How many clips there were."""
    count, stop.gentle = 0, True
    with progress.phase("damages", expected * len(measurement.damages)) as phase:
        for subject in subjects:
            measurement.add(subject, phase.advance)
            count += 1
    return count


__all__ = ["EMBEDDED_CLIPS", "REAL_CLIPS", "Guarded", "Request", "run"]
