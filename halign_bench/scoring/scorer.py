"""Clip by clip: features, scores, totals. A clip is decoded once for all metrics, if something of it is not known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from halign_bench.assets.hashing import sha256_of
from halign_bench.companions import ClipScore
from halign_bench.concluding import conclude, not_measured
from halign_bench.decoding import MediaError, shown
from halign_bench.metric import Metric, Scored
from halign_bench.record import Bootstrap, MetricValue, metric_key
from halign_bench.scoring.cache import MISSING, Cache, key_of, released
from halign_bench.scoring.choices import LazyExtractor, code_sha256
from halign_bench.scoring.footage import DECODING, Condition, Footage
from halign_bench.track import Clip, Unscorable

if TYPE_CHECKING:
    from halign_bench.progress import Phase
    from halign_bench.scoring.inputs import Item

PIXELS = "pixels"  # what metrics of the frames themselves have after the @
REPLICATES = 1000
SET_REPLICATES = 200  # of distances between sets, which take a moment each
BOOTSTRAP_SEED = 0


@dataclass
class ClipReport:
    """What became of one generated file.

    sha256s  of the files by their part: generated, reference, audio, image
    frames   of the generated clip and of its reference, [T, H, W]; None where one was not looked at or not readable
    notes    what is amiss with the files
    error    why nothing of it could be scored
    """

    name: str
    files: dict[str, str]
    sha256s: dict[str, str] = field(default_factory=dict)
    frames: dict[str, list[int] | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: str | None = None


@dataclass
class Scores:
    """Totals by metric key, one row a clip and metric, and what became of each file."""

    metrics: dict[str, MetricValue]
    clips: list[ClipScore]
    reports: list[ClipReport]
    bootstrap: Bootstrap
    left_out: dict[str, str]  # metrics that were not asked, with the reason


class Scorer:
    """Scores items by metrics, each with its extractor.

    metrics     classes; those that nothing could be asked of are in `left_out`, with the reason
    extractors  by feature
    size        (height, width) that every video is scaled and cropped to; None keeps each file's own
    """

    def __init__(
        self, metrics: Sequence[type[Metric]], extractors: Mapping[str, LazyExtractor], cache: Cache,
        size: tuple[int, int] | None = None, left_out: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.extractors, self.cache, self.size = extractors, cache, size
        self.metrics = [cls(cast(Any, self._extractor(cls))) for cls in metrics]
        self.left_out = dict(left_out or {})
        self.reports: list[ClipReport] = []
        self._given: dict[str, list[str]] = {metric.name: [] for metric in self.metrics}  # what totals are of

    def add(self, item: Item) -> None:
        """Takes one item. Whatever is wrong with its files ends up in the reports and in the metrics' failures."""
        pair = _Pair(item, self.size, self.cache)
        self.reports.append(pair.report)
        features: dict[tuple[str, str], Any] = {}
        for metric in self.metrics:
            value = self._value(metric, pair, features)
            metric.add(item.name, tuple(map(released, value)) if isinstance(value, tuple) else value)
            known = value.reason if isinstance(value, Unscorable) else self._key(metric, pair)
            self._given[metric.name].append(known)
        pair.finish()

    def totals(self, phase: Phase) -> Scores:
        """Scores over everything that was added; each metric is a step of the phase."""
        from halign_bench.stats import bootstrap_indices, bootstrap_signature

        names = [report.name for report in self.reports]
        bootstrap = Bootstrap(
            replicates=REPLICATES, seed=BOOTSTRAP_SEED, clips=len(names), identities=len(names),
            sha256=bootstrap_signature(names, names, REPLICATES, BOOTSTRAP_SEED),
        )  # fmt: skip
        draws = bootstrap_indices(names, names, REPLICATES, BOOTSTRAP_SEED)
        scores = Scores({}, [], self.reports, bootstrap, self.left_out)
        for metric in self.metrics:
            key = self.key(type(metric))
            if not any(not isinstance(value, Unscorable) for value in metric.values):
                scores.metrics[key] = not_measured(type(metric), metric.reason()).model_copy(
                    update={"failed": metric.failures()}
                )
                scores.clips += _rows(names, key, metric)
            else:
                self._conclude(metric, key, names, draws, scores, phase.check)
            phase.advance()
        return scores

    def key(self, cls: type[Metric]) -> str:
        extractor = self._extractor(cls)
        return metric_key(cls.name, extractor.name if extractor is not None else PIXELS)

    def _extractor(self, cls: type[Metric]) -> LazyExtractor | None:
        return self.extractors[cls.feature] if cls.feature is not None else None

    def _conclude(
        self, metric: Metric, key: str, names: list[str], draws: Any, scores: Scores, check: Callable[[], None]
    ) -> None:
        """Distances between sets are kept too: their intervals take long."""
        if metric.per_clip:
            found = conclude(metric, key, names, draws, check)
            scores.metrics[key] = found.value
            scores.clips += found.clips
            return
        kept = key_of(
            kind="total", metric=metric.name, clips=self._given[metric.name], names=names, code=code_sha256(),
            bootstrap=scores.bootstrap.sha256, replicates=SET_REPLICATES,
        )  # fmt: skip
        document = self.cache.get(kept)
        if document is MISSING:
            document = conclude(metric, key, names, draws[:SET_REPLICATES], check).value.model_dump(mode="json")
            self.cache.put(kept, document)
        scores.metrics[key] = MetricValue.model_validate(document)
        scores.clips += _rows(names, key, metric)

    def _value(self, metric: Metric, pair: _Pair, features: dict[tuple[str, str], Any]) -> Any:
        """What a metric keeps of one pair, from the cache where it is known."""
        if pair.report.error is not None:
            return Unscorable(pair.report.error)
        if not metric.alone and pair.real is None:
            return Unscorable(pair.why_no_reference)
        key = self._key(metric, pair)
        if metric.per_clip and (known := self.cache.get(key)) is not MISSING:
            return known
        try:
            value = metric.lacking(cast(Clip, pair.condition)) or self._measured(metric, pair, features)
        except MediaError as problem:
            return pair.unreadable(problem)
        except Exception as problem:
            return _failed(metric.name, pair, problem)
        if isinstance(value, _Failed):
            return value
        if metric.per_clip:
            self.cache.put(key, value)
        return value

    def _measured(self, metric: Metric, pair: _Pair, features: dict[tuple[str, str], Any]) -> Any:
        ours = theirs = None
        if metric.feature is not None:
            ours = self._features(metric.feature, "ours", pair, features)
            theirs = self._features(metric.feature, "theirs", pair, features) if metric.compares else None
        for given in (ours, theirs):
            if isinstance(given, _Failed):
                return given
        return metric.value(Scored(cast(Clip, pair.clip), cast(Clip, pair.condition), ours, theirs))

    def _key(self, metric: Metric, pair: _Pair) -> str:
        """Of what a metric keeps of one pair."""
        extractor = self._extractor(type(metric))
        return key_of(
            kind="score", metric=f"{type(metric).__module__}.{type(metric).__qualname__}", code=code_sha256(),
            extractor=extractor.sha256 if extractor is not None else None,
            pair=pair.key(("video", "audio", "reference")),
        )  # fmt: skip

    def _features(self, feature: str, side: str, pair: _Pair, features: dict[tuple[str, str], Any]) -> Any:
        """Of the generated clip ("ours") or of the real one ("theirs"), once for all metrics."""
        if (feature, side) not in features:
            features[feature, side] = self._extracted(self.extractors[feature], side, pair)
        return features[feature, side]

    def _extracted(self, extractor: LazyExtractor, side: str, pair: _Pair) -> Any:
        of = pair.key(extractor.choice.follows) if side == "ours" else pair.real_key
        key = key_of(kind="features", extractor=extractor.sha256, of=of)
        if (known := self.cache.get(key)) is not MISSING:
            return known
        clip, condition = (pair.clip, pair.condition) if side == "ours" else (pair.real, pair.real)
        try:
            found = extractor([cast(Clip, clip)], [cast(Clip, condition)])[0]
        except MediaError as problem:
            return pair.unreadable(problem)
        except Exception as problem:
            return _failed(extractor.choice.name, pair, problem)
        self.cache.put(key, found)
        return self.cache.get(key) if not isinstance(found, Unscorable) else found  # from disk: not held in memory


class _Failed(Unscorable):
    """Not the clip's doing, perhaps; not kept."""


def _failed(what: str, pair: _Pair, problem: Exception) -> _Failed:
    """One clip that something cannot cope with leaves all others as they are."""
    from halign_bench.errors import HalignError
    from halign_bench.machine import out_of_memory

    if isinstance(problem, HalignError) or out_of_memory(problem):
        raise problem
    first = (str(problem).strip().splitlines() or [""])[0][:200]
    print(f"halign-bench: {pair.report.name}: {what} failed: {type(problem).__name__}: {first}", file=sys.stderr)
    return _Failed(f"{what} failed: {type(problem).__name__}: {first}")


class _Pair:
    """A generated clip, its reference, and what both are by content."""

    def __init__(self, item: Item, size: tuple[int, int] | None, cache: Cache) -> None:
        self.item, self.cache = item, cache
        self.clip = Footage(item.name, item.generated, size, item.audio)
        self.real = Footage(item.name, item.reference, size) if item.reference is not None else None
        self.condition = Condition(self.clip, self.real, item.image)
        self.why_no_reference = "no reference clip"
        parts = {
            "generated": item.generated, "reference": item.reference, "audio": item.audio, "image": item.image,
        }  # fmt: skip
        given = {part: path for part, path in parts.items() if path is not None}
        self.report = ClipReport(item.name, {part: shown(path) for part, path in given.items()})
        for part, path in given.items():
            try:
                self.report.sha256s[part] = sha256_of(path)
            except OSError as problem:
                reason = f"cannot be read ({problem.strerror or problem})"
                if part == "generated":
                    self.report.error = reason
                self._without(part, f"{part} {reason}")
        self._decoding = [DECODING, list(size) if size is not None else None]

    def key(self, follows: Sequence[str]) -> list[Any]:
        """What features of the generated clip depend on, if they follow these parts of the condition."""
        known = self.report.sha256s
        own = known.get("generated")
        following = {
            "video": known.get("reference"),
            "audio": known.get("audio", own),
            "reference": known.get("image", known.get("reference")),
        }
        return [self._decoding, own, {part: following[part] for part in follows}]

    @property
    def real_key(self) -> list[Any]:
        """The same of the real clip, which is its own condition."""
        own = self.report.sha256s.get("reference")
        return [self._decoding, own, "itself"]

    def unreadable(self, problem: MediaError) -> Unscorable:
        """Which of the files it is decides what can still be scored."""
        if problem.path == self.item.generated:
            self.report.error = problem.reason
            return _Failed(problem.reason)
        part = "reference" if problem.path == self.item.reference else "image"
        reason = f"{part} {problem.reason}"
        self._without(part, reason)
        return _Failed(reason)

    def _without(self, part: str, reason: str) -> None:
        if part == "reference":
            self.real = None
            self.why_no_reference = reason
        if part == "image":
            self.condition.image = None
        self.report.notes.append(reason)

    def finish(self) -> None:
        """Completes the report: sizes and notes, kept for a run that does not decode the clip again."""
        for part, footage in (("generated", self.clip), ("reference", self.real)):
            sha256 = self.report.sha256s.get(part)
            if footage is None or sha256 is None:
                continue
            sound = self.report.sha256s.get("audio", sha256) if part == "generated" else None
            key = key_of(kind="footage", of=[self._decoding, sha256, sound])
            if "video" in footage.__dict__:
                known = {"frames": list(footage.video.shape[:3]), "notes": footage.notes}
                self.cache.put(key, known)
            else:
                known = self.cache.get(key)
            if known is not MISSING:
                self.report.frames[part] = known["frames"]
                self.report.notes += [note if part == "generated" else f"reference: {note}" for note in known["notes"]]
        lengths = [shape[0] for shape in self.report.frames.values() if shape is not None]
        if len(lengths) == 2 and lengths[0] != lengths[1]:
            self.report.notes.append(f"{lengths[0]} frames, its reference has {lengths[1]}")


def scored_anything(scores: Scores) -> bool:
    return any(value.value is not None for value in scores.metrics.values())


def _rows(names: Sequence[str], key: str, metric: Metric) -> list[ClipScore]:
    """Of the clips that a distance of sets is without."""
    pairs = zip(names, metric.values, strict=True)
    return [ClipScore(name, name, key, None, value.reason) for name, value in pairs if isinstance(value, Unscorable)]


__all__ = ["ClipReport", "Scorer", "Scores", "scored_anything"]
