"""What a run is to do: its request, checked, and the cells (method variant x seed) that follow from it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from halign_bench.errors import RequestError
from halign_bench.executors.choice import LOCAL, Where
from halign_bench.method import AlignmentMethod, Segment, row
from halign_bench.model_choice import ModelChoice
from halign_bench.protocol import Profile, profile_named, sha256_of

ALWAYS = ("base", "sft")  # stand in every table


@dataclass(frozen=True)
class RunRequest:
    """What `halign-bench run` was asked for. `methods` are grammar strings, `overrides` "method.key=value".

    out  a folder, or the fsspec URL of one
    """

    methods: Sequence[str]
    track: str = "puppet"
    backbone: str = "puppet-dit"
    model: ModelChoice = field(default_factory=ModelChoice)
    data: Path | None = None
    profile: str = "default"
    seeds: Sequence[int] = (0,)
    nfe: Sequence[int] | None = None
    overrides: Sequence[str] = ()
    out: Path | str = Path("runs/latest")
    fresh: bool = False
    where: Where = LOCAL
    device: str = "auto"
    json: bool = False
    preferences: Path | None = None
    compile: bool = False

    def absolute(self) -> RunRequest:
        """The same for a process in another folder."""
        named = vars(self).items()
        paths: dict[str, Any] = {name: value.absolute() for name, value in named if isinstance(value, Path)}
        return replace(self, **paths, model=self.model.absolute())


@dataclass(frozen=True)
class Part:
    """One method with its numbers."""

    method: AlignmentMethod
    label: str  # the name, with the numbers that differ from its defaults


@dataclass(frozen=True)
class Variant:
    """A row of the leaderboard: one part, or several trained one on top of the other."""

    parts: tuple[Part, ...]

    @property
    def label(self) -> str:
        return "+".join(part.label for part in self.parts)

    @property
    def slug(self) -> str:
        """A file name: the label where it is one, else made safe and kept distinct by a hash."""
        safe = re.sub(r"[^a-z0-9+-]+", "_", self.label.lower()).strip("_")
        if safe == self.label and len(safe) <= 80:
            return safe
        return f"{safe[:60]}-{hashlib.sha256(self.label.encode()).hexdigest()[:8]}"

    @property
    def config(self) -> list[dict[str, Any]]:
        """Effective numbers of every part."""
        return [{"method": p.method.name, "config": p.method.config.model_dump(mode="json")} for p in self.parts]

    def active_adapters(self, t: float) -> tuple[str, ...]:
        """Those of every part: what was trained first stays on below what was trained on top of it."""
        return tuple(name for part in self.parts for name in part.method.active_adapters(t))

    def segments(self) -> tuple[Segment, ...]:
        """How sampling spends its NFE: as the one part says that says anything."""
        return next((tuple(found) for part in self.parts if (found := part.method.segments())), ())

    def needs_data(self) -> bool:
        return any(stage.data != "none" for part in self.parts for stage in part.method.stages())


@dataclass(frozen=True)
class Cell:
    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant.slug}-s{self.seed}"

    def sha256(self, protocol_sha256: str) -> str:
        """What must be unchanged for a finished record to count as this cell's."""
        return sha256_of({"protocol": protocol_sha256, "pipeline": self.variant.config, "seed": self.seed})


@dataclass(frozen=True)
class Plan:
    profile: Profile
    cells: tuple[Cell, ...]

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple({cell.variant.label: cell.variant for cell in self.cells}.values())


def plan(request: RunRequest) -> Plan:
    """Checks what can be checked before any model is loaded. Raises `RequestError` or `PluginError`."""
    from halign_bench import registry

    request.where.check(request.device)
    if request.fresh and isinstance(request.out, str):
        raise RequestError(f"--fresh: {request.out} is not cleared from here; delete it there, or choose another --out")
    seeds = tuple(dict.fromkeys(request.seeds))
    if not seeds or min(seeds) < 0:
        raise RequestError(f"--seeds {','.join(map(str, seeds))}: give at least one seed, none below 0")
    check_data(request.track, request.data)
    profile = profile_named(request.profile, tuple(request.nfe) if request.nfe is not None else None)
    registry.check("backbone", request.backbone)  # by name alone: loading it imports torch
    variants = _variants(request)
    _check_sampling(variants, profile)
    # Seed by seed: an interrupted run has comparable rows as early as possible.
    return Plan(profile, tuple(Cell(variant, seed) for seed in seeds for variant in variants))


def check_data(track_name: str, data: Path | None) -> None:
    """A track that reads a folder is given one, and no other is. Raises `RequestError` or `PluginError`."""
    from halign_bench import registry

    track: Any = registry.get("track", track_name)
    if track.needs_data and data is None:
        raise RequestError(f"--track {track_name} reads clips from a folder: say which with --data DIR")
    if data is not None and not track.needs_data:
        raise RequestError(f"--data {data}: track {track_name} makes its own clips; leave --data out")


def _variants(request: RunRequest) -> tuple[Variant, ...]:
    from halign_bench import registry
    from halign_bench.grammar import Pipeline, parse_methods

    asked = [pipeline for text in request.methods for pipeline in parse_methods(text)]
    if not asked:
        raise RequestError("--methods names no method; `halign-bench list methods` shows them")
    pipelines: list[Pipeline] = [((name, {}),) for name in ALWAYS]
    pipelines += asked
    named = {name for pipeline in pipelines for name, _ in pipeline}
    shared = _overrides(request.overrides, named)
    methods = {name: registry.get("method", name) for name in sorted(named)}  # each looks at every installed package
    found: dict[str, Variant] = {}
    for pipeline in pipelines:
        parts = tuple(_part(methods[name], {**shared.get(name, {}), **own}) for name, own in pipeline)
        variant = Variant(parts)
        _check_pipeline(variant)
        found.setdefault(variant.label, variant)
    return tuple(found.values())


def variant_named(text: str) -> Variant:
    """What a text such as "ipa[hand_weight=1]" or "tmm+tpo" names. Raises `RequestError` or `PluginError`."""
    from halign_bench import registry
    from halign_bench.grammar import parse_methods

    pipelines = parse_methods(text)
    if len(pipelines) != 1:
        raise RequestError(f'"{text}" names {len(pipelines)} rows, one is expected')
    variant = Variant(tuple(_part(registry.get("method", name), settings) for name, settings in pipelines[0]))
    _check_pipeline(variant)
    return variant


def _overrides(settings: Sequence[str], named: set[str]) -> dict[str, dict[str, str]]:
    """`--set method.key=value`, by method. Brackets on a variant win over it."""
    shared: dict[str, dict[str, str]] = {}
    for setting in settings:
        match = re.fullmatch(r"\s*([^.=\s]+)\.([^=\s]+)\s*=\s*(.*?)\s*", setting)
        if match is None:
            raise RequestError(f"--set {setting}: write it as method.key=value, for example diffusion-dpo.beta=500")
        name, key, value = match.groups()
        if name not in named:
            raise RequestError(f"--set {setting}: {name} is not among the methods of this run{_hint(name, named)}")
        shared.setdefault(name, {})[key] = value
    return shared


def _part(method: Any, overrides: Mapping[str, Any]) -> Part:
    from pydantic import ValidationError

    name = method.name
    fields = method.Config.model_fields
    for key in overrides:
        if key not in fields:
            known = f"it has {', '.join(fields)}" if fields else "it has none"
            raise RequestError(f"{name} has no setting {key}{_hint(key, fields)}: {known}")
    try:
        config = method.Config(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "settings"
        raise RequestError(f"{name}: {key}={overrides.get(key, '')} is refused: {first['msg']}") from None
    default, effective = method.Config().model_dump(mode="json"), config.model_dump(mode="json")
    return Part(method(config), row(name, {key: effective[key] for key in effective if effective[key] != default[key]}))


def _check_pipeline(variant: Variant) -> None:
    """A pipeline's parts must train something, under adapter names of their own."""
    if len(variant.parts) == 1:
        return
    seen: dict[str, str] = {}
    for part in variant.parts:
        adapters = {stage.adapter for stage in part.method.stages()}
        if not adapters:
            raise RequestError(f"{variant.label}: {part.label} trains nothing, so it cannot be part of a pipeline")
        for adapter in sorted(adapters):
            if adapter in seen:
                raise RequestError(f"{variant.label}: {seen[adapter]} and {part.label} both train adapter {adapter}")
            seen[adapter] = part.label


def _check_sampling(variants: Sequence[Variant], profile: Profile) -> None:
    """Every variant can spend every NFE of the grid, before hours of training show that one cannot."""
    from halign_bench.sampling import path

    for variant in variants:
        if sum(bool(part.method.segments()) for part in variant.parts) > 1:
            raise RequestError(f"{variant.label}: more than one part says how sampling spends its NFE; leave it to one")
        for nfe in profile.nfe:
            try:
                path(nfe, segments=variant.segments())  # which there are enough of for any guidance, or for none
            except RequestError as problem:
                raise RequestError(f"{variant.label}: {problem}") from None


def _hint(word: str, known: Any) -> str:
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


__all__ = [
    "ALWAYS", "Cell", "Part", "Plan", "RunRequest", "Variant", "check_data", "plan", "variant_named",
]
