"""Every metric over the same clips at each level of each damage that it should follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from halign_bench.fitness.damages import Damage, Spoilt, Subject
from halign_bench.fitness.rule import Verdict, correlation, exact_share, judge, mean_correlation
from halign_bench.metric import Metric, Scored
from halign_bench.record import metric_key
from halign_bench.track import Extractor, Unscorable


@dataclass(frozen=True)
class Ladder:
    """One metric under one damage.

    totals    the metric's score over all clips at each level; empty when nothing could be measured
    clips     that were scored at every level; no others are in the totals
    failed    how many were not, by reason
    spearman  see `rule`
    exact     share of cases in which the score moved by exactly the level, where the damage asks for it
    """

    damage: str
    unit: str
    metric: str
    key: str
    sign: int
    levels: tuple[float, ...]
    totals: tuple[float | None, ...] = ()
    clips: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    spearman: float | None = None
    exact: float | None = None
    verdict: Verdict = "not measured"
    reason: str | None = None
    protocol: str | None = None


class Rungs:
    """A metric's scores at each level, of clips that have one at every level."""

    def __init__(self, cls: type[Metric], extractor: Extractor | None, levels: tuple[float, ...]) -> None:
        self.levels = levels
        self.metrics = [cls(extractor) for _ in levels]
        self.failed: Counter[str] = Counter()

    def add(self, rows: list[Scored] | Unscorable) -> None:
        """One clip at all levels, or why it could not be damaged."""
        if isinstance(rows, Unscorable):
            self.failed[rows.reason] += 1
            return
        values = [metric.value(scored) for metric, scored in zip(self.metrics, rows, strict=True)]
        missing = next((value for value in values if isinstance(value, Unscorable)), None)
        if missing is not None:
            self.failed[missing.reason] += 1
            return
        for metric, scored, value in zip(self.metrics, rows, values, strict=True):
            metric.add(scored.clip.id, value)

    def totals(self) -> tuple[float | None, ...]:
        return tuple(metric.compute() for metric in self.metrics)

    def by_clip(self) -> list[list[float]]:
        """Scores of each clip at the levels; of metrics that score single clips."""
        return [list(row) for row in zip(*(metric.values for metric in self.metrics), strict=True)]


class Measurement:
    """Takes subjects one after the other; `ladders` is the answer at any time.

    damages     by kind
    metrics     classes that may be asked, by name; each needs its extractor
    extractors  by feature
    where       what metrics of the frames themselves have after the @
    """

    def __init__(
        self, damages: Mapping[str, Damage], metrics: Mapping[str, type[Metric]], extractors: Mapping[str, Extractor],
        where: str = "pixels",
    ) -> None:  # fmt: skip
        self.metrics, self.extractors, self.where = metrics, extractors, where
        asked = {kind: [name for name in damage.follows if name in metrics] for kind, damage in damages.items()}
        self.damages = {kind: damages[kind] for kind, names in asked.items() if names}
        self.rungs = {
            (kind, name): Rungs(metrics[name], self._extractor(name), damages[kind].levels)
            for kind, names in asked.items()
            for name in names
        }

    def add(self, subject: Subject, tick: Callable[[], None] = lambda: None) -> None:
        """All damages of one clip; `tick` is called after each. What goes wrong with a clip is counted."""
        subject = replace(subject, extractors=self.extractors)
        for kind, damage in self.damages.items():
            names = [name for its_kind, name in self.rungs if its_kind == kind]
            features = list(dict.fromkeys(f for name in names if (f := self.metrics[name].feature) is not None))
            scored = self._scored(subject, kind, damage, features)
            for name in names:
                if isinstance(scored, Unscorable):
                    self.rungs[kind, name].add(scored)
                else:
                    self.rungs[kind, name].add([level[self.metrics[name].feature] for level in scored])
            tick()

    def _scored(
        self, subject: Subject, kind: str, damage: Damage, features: Iterable[str]
    ) -> list[dict[str | None, Scored]] | Unscorable:
        """At each level, what a metric is given, by the feature that it reads."""
        clean = subject.long if damage.sound else subject.clip
        rows = []
        for level in damage.levels:
            spoilt: Spoilt | Unscorable = Spoilt(clean, clean)
            if level != 0:
                spoilt = damage.spoil(subject, level, subject.rng(kind))
            if isinstance(spoilt, Unscorable):
                return spoilt
            given: dict[str | None, Scored] = {None: Scored(spoilt.clip, spoilt.condition)}
            for feature in features:
                true = subject.clean(feature, damage.sound)
                ours = true if level == 0 else self.extractors[feature]([spoilt.clip], [spoilt.condition])[0]
                given[feature] = Scored(spoilt.clip, spoilt.condition, ours, true)
            rows.append(given)
        return rows

    def ladders(self) -> list[Ladder]:
        return [self._ladder(kind, name, rungs) for (kind, name), rungs in self.rungs.items()]

    def _ladder(self, kind: str, name: str, rungs: Rungs) -> Ladder:
        damage, metric = self.damages[kind], rungs.metrics[0]
        clips, sign = len(metric.values), damage.follows[name]
        key = metric_key(name, metric.extractor.name if metric.extractor is not None else self.where)
        ladder = Ladder(
            kind, damage.unit, name, key, sign, damage.levels, clips=clips,
            failed=dict(rungs.failed), protocol=metric.protocol,
        )  # fmt: skip
        if not clips:
            why = "; ".join(f"{reason} ({count} clips)" for reason, count in sorted(rungs.failed.items()))
            return replace(ladder, reason=why or "no clips")
        totals = rungs.totals()
        if any(total is None for total in totals):
            return replace(ladder, reason=metric.reason())
        rank: float | None
        exact = None
        if metric.per_clip:
            rank = mean_correlation(damage.levels, rungs.by_clip())
            exact = exact_share(damage.levels, rungs.by_clip()) if damage.exact == name else None
        else:
            rank = correlation(damage.levels, [total for total in totals if total is not None])
        verdict, reason = judge(sign, clips, rank, exact)
        return replace(ladder, totals=totals, spearman=rank, exact=exact, verdict=verdict, reason=reason)

    def _extractor(self, name: str) -> Extractor | None:
        feature = self.metrics[name].feature
        return self.extractors[feature] if feature is not None else None


__all__ = ["Ladder", "Measurement", "Rungs"]
