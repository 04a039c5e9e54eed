"""What `score` was asked for, and what that needs, as a process has it open: files, metrics, extractors, cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from halign_bench import registry
from halign_bench.errors import PluginError, RequestError

if TYPE_CHECKING:
    from halign_bench.metric import Metric
    from halign_bench.scoring.cache import Cache
    from halign_bench.scoring.choices import LazyExtractor
    from halign_bench.scoring.inputs import Inputs
    from halign_bench.scoring.scorer import Scorer


@dataclass(frozen=True)
class ScoreRequest:
    """The options of `score`; `metrics` and `use` are names, `size` is (height, width), `cache` the folder of it."""

    generated: Path
    reference: Path | None
    audio: Path | None
    images: Path | None
    metrics: tuple[str, ...]
    use: tuple[str, ...]
    size: tuple[int, int] | None
    assets: Path | None
    device: str
    cache: Path


@dataclass(frozen=True)
class Scoring:
    """A request as a process has it open.

    left_out  metrics that cannot be asked, with the reason
    reasons   features that cannot be extracted, likewise
    """

    request: ScoreRequest
    inputs: Inputs
    metrics: list[type[Metric]]
    extractors: dict[str, LazyExtractor]
    cache: Cache
    left_out: dict[str, str]
    reasons: dict[str, str]

    def scorer(self) -> Scorer:
        from halign_bench.scoring.scorer import Scorer

        return Scorer(self.metrics, self.extractors, self.cache, self.request.size, self.left_out)


def open_scoring(request: ScoreRequest) -> Scoring:
    """Raises RequestError where there is nothing to score, or nothing to score it by."""
    from halign_bench.scoring.choices import chosen, opened

    choices = chosen(request.use)
    from halign_bench.scoring.inputs import find_inputs

    inputs = find_inputs(request.generated, request.reference, request.audio, request.images)

    from halign_bench.assets.store import Store
    from halign_bench.scoring.cache import Cache

    if request.device not in ("auto", "cpu"):
        from halign_bench.loading import resolve_device

        resolve_device(request.device)
    cache = Cache(request.cache)
    classes, left_out = _usable(request.metrics, request.reference is not None)
    features = [cls.feature for cls in classes if cls.feature is not None]
    extractors, reasons = opened(features, choices, Store(request.assets), request.device, cache)
    left_out |= {cls.name: reasons[cls.feature] for cls in classes if cls.feature in reasons}
    classes = [cls for cls in classes if cls.feature not in reasons]
    if not classes:
        why = "; ".join(sorted(set(left_out.values())))
        raise RequestError(f"score: nothing can be measured ({why})")
    return Scoring(request, inputs, classes, extractors, cache, left_out, reasons)


def _usable(names: tuple[str, ...], has_reference: bool) -> tuple[list[type[Metric]], dict[str, str]]:
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


__all__ = ["ScoreRequest", "Scoring", "open_scoring"]
