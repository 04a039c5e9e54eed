"""Samples the evaluation clips with a trained cell, once a grid point, and scores them by every metric."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.companions import ClipScore
from halign_bench.concluding import conclude, not_measured
from halign_bench.errors import Diverged, PluginError, RequestError
from halign_bench.metric import Metric, Scored
from halign_bench.processes import here
from halign_bench.record import SPEED, Bootstrap, MetricValue, Sign, metric_key, parse_key
from halign_bench.samples import SampleStore
from halign_bench.signs import in_samples, over_exposed
from halign_bench.track import FPS, Clip, Track

if TYPE_CHECKING:
    import numpy as np

    from halign_bench.backbone import Backbone
    from halign_bench.method import Segment
    from halign_bench.progress import Progress
    from halign_bench.protocol import Profile

KEEP_BYTES = 256 * 2**20  # real clips held in memory between cells; what does not fit is read again
BOOTSTRAP_SEED = 0


@dataclass
class Evaluation:
    """Scores of one cell, ready for its record.

    sample_seconds  of all chunks, also of those that an earlier run left
    chunk_seconds   of each chunk, by NFE
    score_seconds   of this process
    signs           of trouble, seen in the samples
    """

    metrics: dict[str, MetricValue] = field(default_factory=dict)
    clips: list[ClipScore] = field(default_factory=list)
    replicates: dict[str, list[float | None]] = field(default_factory=dict)
    sample_seconds: float = 0.0
    chunk_seconds: dict[str, list[float]] = field(default_factory=dict)
    score_seconds: float = 0.0
    signs: list[Sign] = field(default_factory=list)


class Evaluator:
    """All of the evaluation that is the same for every cell of a run: clips, extractors, resamples."""

    def __init__(self, backbone: Backbone, track: Track, profile: Profile) -> None:
        from halign_bench import registry

        self.backbone, self.track, self.profile = backbone, track, profile
        available = track.splits().get("eval", 0)
        if available < 2:
            raise RequestError(f"track {track.name}: {available} evaluation clips; give it at least 2")
        self._kept: dict[int, Clip] = {}
        self._kept_bytes = 0
        count = min(profile.eval_clips, available)
        names = [(clip.id, clip.identity) for clip in map(self.clip, range(count))]  # one clip after the other
        self.ids, self.identities = [clip for clip, _ in names], [identity for _, identity in names]
        self.extractors = dict(track.extractors(backbone.device))
        self._target_features: dict[tuple[str, int], list[Any]] = {}
        self._warm = False
        self.metrics: list[type[Metric]] = []
        self.broken: list[str] = []  # metrics that do not import, with the reason
        for name in registry.names("metric"):
            try:
                self.metrics.append(registry.get("metric", name))
            except PluginError as problem:
                self.broken.append(str(problem))

    # What goes into the protocol and the record

    def protocols(self) -> dict[str, str]:
        """Protocol string of each metric by its key without NFE; why not, where there is no extractor."""
        found = {self._key(cls): self._missing(cls) or self._make(cls).protocol for cls in self.metrics}
        return found | {metric_key(SPEED, self.track.name): self._speed_protocol()}

    def specification(self) -> dict[str, Any]:
        """What is sampled and resampled."""
        return {
            "clips": len(self.ids), "clips_sha256": hashlib.sha256(json.dumps(self.ids).encode()).hexdigest(),
            "noise": "initial_noise(clip id, seed)",
            "scheduler": "even timesteps unless a method divides its NFE, Euler or DDIM"
            + (f", shifted by {self.backbone.shift:g}" if self.backbone.shift != 1 else ""),
            "nfe": list(self.profile.nfe), "guidance": self.backbone.guidance, "chunk": self.profile.chunk,
            "bootstrap": self.bootstrap().model_dump(),
        }  # fmt: skip

    def bootstrap(self) -> Bootstrap:
        from halign_bench.stats import bootstrap_signature

        signature = bootstrap_signature(self.ids, self.identities, self.profile.replicates, BOOTSTRAP_SEED)
        return Bootstrap(
            replicates=self.profile.replicates, seed=BOOTSTRAP_SEED, clips=len(self.ids),
            identities=len(set(self.identities)), sha256=signature,
        )  # fmt: skip

    def clip(self, index: int) -> Clip:
        """Evaluation clip `index`, kept in memory as far as `KEEP_BYTES` go."""
        if index in self._kept:
            return self._kept[index]
        clip = self.track.clip("eval", index)
        if self._kept_bytes + clip.video.nbytes <= KEEP_BYTES:
            self._kept[index] = clip
            self._kept_bytes += clip.video.nbytes
        return clip

    def chunks(self) -> list[range]:
        size, count = self.profile.chunk, len(self.ids)
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    @property
    def weight(self) -> float:
        """Work of one cell's evaluation in network evaluations, for the time left."""
        return len(self.ids) * (sum(self.profile.nfe) + len(self.profile.nfe) * SCORE_WEIGHT)

    # One cell

    def provide(self, folder: Path, nfe: int, seed: int, video: Callable[[int], np.ndarray]) -> None:
        """Puts given videos (evaluation clip -> uint8 `[T, H, W, 3]`) where `evaluate` would put its samples."""
        import numpy as np

        store = self._store(folder, seed)
        for number, indices in enumerate(self.chunks()):
            store.write(number, nfe, np.stack([video(index) for index in indices]), math.nan)

    def remove(self, folder: Path) -> None:
        """Deletes the decoded samples of a finished cell, and nothing else."""
        self._store(folder, 0).remove(self.profile.nfe)

    def evaluate(
        self, active: Callable[[float], Sequence[str]], seed: int, folder: Path, progress: Progress, label: str,
        segments: Sequence[Segment] = (),
    ) -> Evaluation:
        """Samples into `folder` what is not there yet, then scores all of it.

        active    noise level -> adapters that are on there
        folder    of this cell alone: decoded chunks, each written atomically, so that a killed run goes on
        segments  how the method spends each NFE of the grid; none of them is evenly
        Raises `Interrupted` at the next step once the user asked to stop.
        The processes of a launch share the sampling; the first one scores, and the others return without scores.
        """
        result, processes = Evaluation(), here()
        store = self._store(folder, seed)
        with processes.settled():
            self._sample(active, segments, store, progress, label)
        if not processes.main:
            return result
        started = time.perf_counter()
        points = len(self.ids) * len(self.profile.nfe)
        with progress.phase(f"{label}: score", points, points * SCORE_WEIGHT) as phase:
            for nfe in self.profile.nfe:
                self._score(nfe, store, phase, result)
        result.score_seconds = time.perf_counter() - started
        return result

    def _sample(
        self, active: Callable[[float], Sequence[str]], segments: Sequence[Segment], store: SampleStore,
        progress: Progress, label: str,
    ) -> None:
        from halign_bench.sampling import initial_noise, sample

        grid, guidance, chunks = self.profile.nfe, self.backbone.guidance, self.chunks()
        processes = here()
        with progress.phase(f"{label}: sample", len(self.ids) * sum(grid), len(self.ids) * sum(grid)) as phase:

            def active_or_stop(t: float) -> Sequence[str]:
                if processes.sharded:  # all of them go through the network together, or none
                    with processes.settled():
                        phase.check()
                else:
                    phase.check()  # called at every step, so Ctrl-C is answered within one
                return active(t)

            wanted = [(c, nfe) for c in range(len(chunks)) for nfe in grid]
            lacking = processes.from_main(lambda: [[c, nfe] for c, nfe in wanted if store.read(c, nfe) is None])
            missing = {(c, nfe) for c, nfe in lacking}
            phase.already(sum(len(chunks[c]) * nfe for c, nfe in wanted if (c, nfe) not in missing))
            for together in processes.rounds(sorted({c for c, _ in missing})):
                number, own = processes.share(together)
                if number is None:
                    break
                clips = [self.clip(index) for index in chunks[number]]
                condition = self.backbone.condition(clips)
                noise = initial_noise(self.backbone, [clip.id for clip in clips], store.seed)
                if not self._warm:  # allocations and kernel choice of the first call are not the model's speed
                    sample(self.backbone, condition, noise, nfe=2, guidance=guidance, active=active_or_stop)
                    self._warm = True
                for nfe in (nfe for nfe in grid if any((c, nfe) in missing for c in together)):
                    lacked = own and (number, nfe) in missing
                    if not lacked and not processes.sharded:
                        continue
                    self._synchronise()
                    started = time.perf_counter()
                    latents = sample(
                        self.backbone, condition, noise, nfe=nfe, guidance=guidance, active=active_or_stop,
                        segments=segments,
                    )
                    self._synchronise()
                    seconds = time.perf_counter() - started
                    _check_finite(latents, [clip.id for clip in clips], nfe)
                    if lacked:
                        store.write(number, nfe, self.backbone.decode(latents), seconds)
                    phase.advance(sum(len(chunks[c]) * nfe for c in together if (c, nfe) in missing))

    def _score(self, nfe: int, store: SampleStore, phase: Any, result: Evaluation) -> None:
        """Each extractor sees each clip once; every metric then reads what it gave."""
        usable = [self._make(cls) for cls in self.metrics if not self._missing(cls)]
        chunk_seconds: list[float] = []
        exposed = 0
        for number, indices in enumerate(self.chunks()):
            stored = store.read(number, nfe)
            if stored is None:
                raise OSError(f"{store.path(number, nfe)}: sampled a moment ago and now missing or damaged")
            videos, took = stored
            chunk_seconds.append(took)
            targets = [self.clip(index) for index in indices]
            exposed += sum(over_exposed(video, t.video) for video, t in zip(videos, targets, strict=True))
            clips = [
                Clip(target.id, target.identity, video, target.reference, target.audio, layout=target.layout)
                for video, target in zip(videos, targets, strict=True)
            ]
            nothing = [None] * len(clips)
            ours = {m.feature: nothing for m in usable} | {
                name: list(self.extractors[name](clips, targets))
                for name in sorted({m.feature for m in usable if m.feature is not None})
            }
            theirs = {m.feature: nothing for m in usable} | {
                name: self._targets(name, number, targets)
                for name in sorted({m.feature for m in usable if m.feature is not None and m.compares})
            }
            for metric in usable:
                rows = zip(clips, targets, ours[metric.feature], theirs[metric.feature], strict=True)
                for clip, target, features, target_features in rows:
                    metric.update(Scored(clip, target, features, target_features))
            phase.advance(len(clips))
        point = nfe if len(self.profile.nfe) > 1 else None
        for cls in self.metrics:
            key, missing = self._key(cls, point), self._missing(cls)
            if missing:
                result.metrics[key] = not_measured(cls, missing)
        for metric in usable:
            self._conclude(metric, self._key(type(metric), point), result, phase)
        result.signs += in_samples(nfe, exposed, [row for row in result.clips if parse_key(row.metric).nfe == point])
        seconds = sum(chunk_seconds)
        if sampled := math.isfinite(seconds):
            result.sample_seconds += seconds
            result.chunk_seconds[str(nfe)] = chunk_seconds
        generated = len(self.ids) * self.backbone.frames / FPS
        result.metrics[metric_key(SPEED, self.track.name, point)] = MetricValue(
            value=seconds / generated if sampled else None, n=len(self.ids) if sampled else 0,
            unit="seconds per generated second", higher_is_better=False, bounds=(0, None),
            protocol=f"{self._speed_protocol()}; on {device_name(self.backbone.device)}, {self.backbone.precision}"
            + (f", weights divided among {here().world} processes" if here().sharded else ""),
            reason=None if sampled else "the videos were given, not sampled",
        )  # fmt: skip

    def _conclude(self, metric: Metric, key: str, result: Evaluation, phase: Any) -> None:
        found = conclude(metric, key, self.identities, self._draws(), phase.check)
        result.metrics[key] = found.value
        result.clips += found.clips
        if not metric.per_clip:
            result.replicates[key] = found.replicates

    # Small parts

    def _store(self, folder: Path, seed: int) -> SampleStore:
        return SampleStore(folder, [[self.ids[index] for index in chunk] for chunk in self.chunks()], seed)

    def _draws(self) -> list[np.ndarray]:
        from halign_bench.stats import bootstrap_indices

        return bootstrap_indices(self.ids, self.identities, self.profile.replicates, BOOTSTRAP_SEED)

    def _make(self, cls: type[Metric]) -> Metric:
        return cls(self.extractors[cls.feature] if cls.feature is not None else None)

    def _missing(self, cls: type[Metric]) -> str | None:
        """Why this track cannot feed a metric, or None when it can."""
        if cls.feature is None or cls.feature in self.extractors:
            return None
        return f"track {self.track.name} has no {cls.feature} extractor"

    def _key(self, cls: type[Metric], nfe: int | None = None) -> str:
        extractor = self.extractors.get(cls.feature) if cls.feature is not None else None
        return metric_key(cls.name, extractor.name if extractor is not None else self.track.name, nfe)

    def _speed_protocol(self) -> str:
        return f"sampling alone, without decoding, {self.profile.chunk} clips together, first call excluded"

    def _targets(self, feature: str, number: int, targets: Sequence[Clip]) -> list[Any]:
        """Features of the real clips of a chunk, extracted once a run."""
        key = (feature, number)
        if key not in self._target_features:
            self._target_features[key] = list(self.extractors[feature](targets, targets))
        return self._target_features[key]

    def _synchronise(self) -> None:
        if self.backbone.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self.backbone.device)


def _check_finite(latents: Any, ids: Sequence[str], nfe: int) -> None:
    """Decoded, numbers gone wrong would be pictures like others. Raises Diverged."""
    finite = latents.flatten(1).isfinite().all(1).tolist()
    wrong = [name for name, fine in zip(ids, finite, strict=True) if not fine]
    if wrong:
        more = f" and {len(wrong) - 1} more clips" if len(wrong) > 1 else ""
        raise Diverged(f"samples of {wrong[0]}{more} at NFE {nfe} hold numbers that are not finite")


SCORE_WEIGHT = 4.0  # of one clip, in network evaluations; only the estimate of the time left rests on it


def device_name(device: str) -> str:
    """What a speed was measured on: the GPU's name, or the processor's with the threads used."""
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    from halign_bench.environment import hardware

    found = hardware()
    return f"{found['processor'] or found['machine']}, {torch.get_num_threads()} threads"


__all__ = ["SPEED", "Evaluation", "Evaluator", "device_name"]
