"""The samples that records are of, made again: from the saved adapters, the same noise and the same steps.

A run keeps no video once it is scored. What is made here is checked against the record by the PSNR of each clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench import registry
from halign_bench.errors import HalignError, RequestError
from halign_bench.model_choice import ModelChoice
from halign_bench.record import Record

if TYPE_CHECKING:
    import numpy as np

    from halign_bench.backbone import Backbone
    from halign_bench.plan import Variant
    from halign_bench.track import Clip, Track


@dataclass(frozen=True)
class Origin:
    """Where what a run was given lies: the videos of its track, the weights of its backbone, its audio encoder."""

    data: Path | None = None
    model: str | None = None
    audio_encoder: str | None = None


class NoSamples(Exception):
    """There is no video to show; the message is one sentence that says why."""


def adapter_folders(record: Record) -> list[Path]:
    """Of every part of a cell's pipeline in order; empty where none lie beside the record."""
    if record.source is None or "adapters" not in record.files:
        return []
    parts = list((record.source.parent / record.files["adapters"]).glob("*-*/adapters"))
    numbered = {path: path.parent.name.partition("-")[0] for path in parts}
    return sorted((path for path in parts if numbered[path].isdigit()), key=lambda path: int(numbered[path]))


def variant_of(record: Record) -> Variant:
    """The method as installed here. Raises NoSamples where that is none, has other numbers, or lacks its adapters."""
    from halign_bench.plan import variant_named

    try:
        variant = variant_named(record.cell.method)
    except HalignError as problem:
        raise NoSamples(str(problem)) from None
    if variant.config != record.config.effective:
        raise NoSamples("the method that is installed here has other numbers than the record")
    trained = sum(bool(part.method.stages()) for part in variant.parts)
    if len(adapter_folders(record)) < trained:
        raise NoSamples("no adapters lie beside its record, only in the folder of its run")
    return variant


def _choice(record: Record, origin: Origin) -> ModelChoice:
    """Clips as long and large as the records' where weights were given; else all is the backbone's own."""
    if origin.model is None:
        return ModelChoice()
    said: Mapping[str, Any] = record.protocol.get("backbone") or {}  # type: ignore[assignment]
    height, width = said["size"]
    return ModelChoice(origin.model, origin.audio_encoder, said["frames"], (height, width))


class Sampler:
    """The base and the clips that these records are of.

    Raises NoSamples where either is not to be had here, RequestError where what `origin` says is not theirs.
    """

    def __init__(self, record: Record, origin: Origin) -> None:
        from halign_bench.loading import load_backbone, load_track

        self.evaluation: Mapping[str, Any] = record.protocol.get("evaluation") or {}  # type: ignore[assignment]
        try:
            self.backbone: Backbone = load_backbone(record.cell.backbone, "auto", _choice(record, origin))
        except (HalignError, OSError) as problem:
            if origin.model is not None:
                raise RequestError(str(problem)) from None
            raise NoSamples(str(problem)) from None
        if self.backbone.base_sha256 != record.base.sha256:
            if origin.model is not None:
                raise RequestError(f"--model {origin.model}: has other weights than the records are of")
            raise NoSamples(f"{record.cell.backbone} is installed here with another base than the records are of")
        try:
            self.track: Track = load_track(record.cell.track, origin.data, self.backbone)
            print_of_track = {"name": self.track.name, **self.track.fingerprint()}
        except (HalignError, OSError) as problem:
            if origin.data is not None:
                raise RequestError(str(problem)) from None
            raise NoSamples(str(problem)) from None
        if _plain(print_of_track) != record.protocol.get("track"):
            if origin.data is not None:
                raise RequestError(f"--data {origin.data}: holds other clips than the records are of")
            raise NoSamples(f"track {record.cell.track} has other clips here than the records are of")

    def clips(self, ids: Sequence[str], tick: Callable[[], None]) -> dict[str, Clip]:
        """Those evaluation clips of these names that there are. `tick` is called for each clip that is looked at."""
        found: dict[str, Clip] = {}
        for index in range(min(int(self.evaluation.get("clips", 0)), self.track.splits().get("eval", 0))):
            clip = self.track.clip("eval", index)
            if clip.id in ids:
                found[clip.id] = clip
            tick()
            if len(found) == len(ids):
                break
        return {name: found[name] for name in ids if name in found}

    def videos(
        self, record: Record, variant: Variant, nfe: int, clips: Sequence[Clip], check: Callable[[], None]
    ) -> Iterator[tuple[Clip, np.ndarray]]:
        """Each clip with the cell's sample of it, uint8 `[T, H, W, 3]`. `check` may raise to stop between two steps.

        variant  the method of the record, from `variant_of`
        Raises NoSamples where the adapters cannot be put on the base.
        """
        from halign_bench.sampling import initial_noise, sample

        self._attach(record, variant)

        def active(t: float) -> Sequence[str]:
            check()
            return variant.active_adapters(t)

        size = int(self.evaluation.get("chunk", 16))
        for start in range(0, len(clips), size):
            together = clips[start : start + size]
            noise = initial_noise(self.backbone, [clip.id for clip in together], record.cell.seed)
            latents = sample(
                self.backbone, self.backbone.condition(together), noise, nfe=nfe,
                guidance=float(self.evaluation.get("guidance", 1.0)), active=active, segments=variant.segments(),
            )  # fmt: skip
            yield from zip(together, self.backbone.decode(latents), strict=True)

    def _attach(self, record: Record, variant: Variant) -> None:
        from halign_bench.adapters import attach, load_adapters, remove_adapters

        remove_adapters(self.backbone.denoiser)
        stages = {stage.adapter: stage for part in variant.parts for stage in part.method.stages()}
        condition = self.backbone.condition([self.track.clip("eval", 0)])

        def attach_named(name: str) -> None:
            attach(self.backbone, stages[name], condition, 1, 1.0, 0)  # rank and seed: of LoRAs, which inserts are not

        try:
            for folder in adapter_folders(record):
                load_adapters(self.backbone.denoiser, folder, attach_named)
        except (HalignError, KeyError) as problem:
            raise NoSamples(f"its adapters cannot be loaded: {problem}") from None


def psnr_of(video: np.ndarray, clip: Clip) -> float | None:
    """As the metric of a run has it; None where it cannot be had."""
    from halign_bench.metric import Scored
    from halign_bench.track import Clip, Unscorable

    metric: Any = registry.get("metric", "psnr")
    made = Clip(clip.id, clip.identity, video, clip.reference, clip.audio, layout=clip.layout)
    value = metric().value(Scored(made, clip, None, None))
    return None if isinstance(value, Unscorable) else float(value)


def _plain(value: Any) -> Any:
    """As it is read back from JSON."""
    import json

    return json.loads(json.dumps(value))


__all__ = ["NoSamples", "Sampler", "adapter_folders", "psnr_of", "variant_of"]
