"""The published extractors that `score` can use, by name. Nothing is loaded before a clip needs it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench import registry
from halign_bench.errors import RequestError
from halign_bench.scoring.cache import MISSING, key_of

if TYPE_CHECKING:
    from halign_bench.assets.store import Store
    from halign_bench.scoring.cache import Cache
    from halign_bench.track import Clip, Extractor

Build = Callable[[Sequence[Path], str], "Extractor"]


@dataclass(frozen=True)
class Choice:
    """One published extractor.

    feature   what metrics know it by: image, video, sync, hands, identity, perceptual
    assets    its weights, by their names in the manifest
    build     from their files and a device
    follows   what of the condition the features of a clip depend on: video, audio, reference
    packages  whose version makes a difference
    """

    name: str
    feature: str
    assets: tuple[str, ...]
    build: Build
    follows: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


def _inception(preprocessing: str) -> Build:
    def build(files: Sequence[Path], device: str) -> Extractor:
        from halign_bench.extractors.inception import Inception

        return Inception(files[0], device, preprocessing)

    return build


def _i3d(files: Sequence[Path], device: str, preprocessing: str = "stylegan-v") -> Extractor:
    from halign_bench.extractors.i3d import I3DTorchScript

    return I3DTorchScript(files[0], device, trust=True, preprocessing=preprocessing)  # `Chosen` has asked the store


def _i3d_common(files: Sequence[Path], device: str) -> Extractor:
    return _i3d(files, device, "common-metrics")


def _i3d_videogpt(files: Sequence[Path], device: str) -> Extractor:
    from halign_bench.extractors.i3d import I3DVideoGPT

    return I3DVideoGPT(files[0], device)


def _sync(mode: Any) -> Build:
    def build(files: Sequence[Path], device: str) -> Extractor:
        from halign_bench.extractors.sync import SyncExtractor

        return SyncExtractor(files[0], files[1], device, mode)

    return build


def _wholebody(name: str) -> Build:
    def build(files: Sequence[Path], device: str) -> Extractor:
        from halign_bench.extractors import wholebody

        found: Extractor = getattr(wholebody, name)(files[0], files[1], device)
        return found

    return build


def _arcface(files: Sequence[Path], device: str) -> Extractor:
    from halign_bench.extractors.arcface import ArcFace

    return ArcFace(files[0], device)


def _lpips(name: str) -> Build:
    def build(files: Sequence[Path], device: str) -> Extractor:
        from halign_bench.extractors import lpips

        found: Extractor = getattr(lpips, name)(files[0], files[1], device)
        return found

    return build


_ONNX = ("onnxruntime",)
# The first of each feature is what is used unless another one is asked for.
CHOICES: dict[str, Choice] = {
    choice.name: choice
    for choice in (
        Choice("inception", "image", ("inception-fid",), _inception("torch-fidelity")),
        Choice("inception-clean", "image", ("inception-fid",), _inception("clean")),
        Choice("inception-pytorch-fid", "image", ("inception-fid",), _inception("pytorch-fid")),
        Choice("i3d", "video", ("i3d-torchscript",), _i3d),
        Choice("i3d-common-metrics", "video", ("i3d-torchscript",), _i3d_common),
        Choice("i3d-videogpt", "video", ("i3d-videogpt",), _i3d_videogpt),
        Choice("syncnet", "sync", ("syncnet-v2", "s3fd"), _sync("fast"), ("audio",)),
        Choice("syncnet-reference", "sync", ("syncnet-v2", "s3fd"), _sync("reference"), ("audio",)),
        Choice("dwpose", "hands", ("yolox-l", "dwpose-l"), _wholebody("DWPose"), ("video",), _ONNX),
        Choice("rtmw", "hands", ("yolox-l", "rtmw-l"), _wholebody("RTMW"), ("video",), _ONNX),
        Choice("arcface", "identity", ("insightface-buffalo-l",), _arcface, ("reference",), (*_ONNX, "insightface")),
        Choice("lpips-alex", "perceptual", ("lpips-alex", "alexnet"), _lpips("LPIPSAlex"), ("video",)),
        Choice("lpips-vgg", "perceptual", ("lpips-vgg", "vgg16"), _lpips("LPIPSVGG"), ("video",)),
    )
}


def chosen(names: Sequence[str]) -> dict[str, Choice]:
    """By feature: the named ones, and the first of every other feature. Raises RequestError."""
    found: dict[str, Choice] = {}
    for name in names:
        if name not in CHOICES:
            raise RequestError(registry.unknown("extractor", name, CHOICES))
        choice = CHOICES[name]
        if choice.feature in found:
            raise RequestError(f"--use: {found[choice.feature].name} and {name} are for the same metrics; choose one")
        found[choice.feature] = choice
    for choice in CHOICES.values():
        found.setdefault(choice.feature, choice)
    return found


def opened(
    features: Iterable[str], choices: Mapping[str, Choice], store: Store, device: str, cache: Cache
) -> tuple[dict[str, LazyExtractor], dict[str, str]]:
    """By feature: the extractors that can be used here, and of the others why not.

    Before any clip is looked at: one that was never used before is loaded, and so is found out what is wrong with it.
    """
    found: dict[str, LazyExtractor] = {}
    reasons: dict[str, str] = {}
    for feature in dict.fromkeys(features):
        if feature not in choices:
            reasons[feature] = f"no published extractor gives '{feature}'"
            continue
        try:
            extractor = LazyExtractor(choices[feature], store, device, cache)
            extractor.describe()
            found[feature] = extractor
        except RequestError as problem:
            reasons[feature] = str(problem)
    return found, reasons


class LazyExtractor:
    """An extractor whose weights are here and right, loaded when it is first called.

    `sha256` identifies what it computes: its weights, the code that reads them, the versions of its packages.
    Raises RequestError, with the command that helps, when weights are missing or not trusted.
    """

    def __init__(self, choice: Choice, store: Store, device: str, cache: Cache) -> None:
        self.choice, self.device, self._cache = choice, device, cache
        missing = [name for name in choice.assets if store.standing(name).state == "missing"]
        if missing:
            names = " ".join(missing)
            raise RequestError(
                f"no weights here; get them with `halign-bench assets fetch {names}{store.option}`, or without a "
                f"network one by one with `halign-bench assets add {missing[0]} FILE{store.option}`"
            )
        self._files = [store.find(name) for name in choice.assets]
        for name, path in zip(choice.assets, self._files, strict=True):
            if store.asset(name).format == "torchscript":
                store.require_trust(name, path)
        weights = [store.sha256s(name) for name in choice.assets]
        versions = {package: _version(package) for package in choice.packages}
        self.sha256 = key_of(extractor=choice.name, weights=weights, code=code_sha256(), versions=versions)

    @cached_property
    def _loaded(self) -> Extractor:
        from halign_bench.loading import resolve_device

        return self.choice.build(self._files, resolve_device(self.device))

    def describe(self) -> None:
        """Learns name and protocol, without loading it where a former run has told them. Raises RequestError."""
        assert self._described

    @cached_property
    def _described(self) -> dict[str, str]:
        key = key_of(kind="extractor", extractor=self.sha256)
        found = self._cache.get(key)
        if found is MISSING:
            found = {"name": self._loaded.name, "protocol": self._loaded.protocol}
            self._cache.put(key, found)
        return dict(found)

    @property
    def name(self) -> str:
        return self._described["name"]

    @property
    def protocol(self) -> str:
        return self._described["protocol"]

    def __call__(self, clips: Sequence[Clip], conditions: Sequence[Clip]) -> list[Any]:
        return list(self._loaded(clips, conditions))


@cache
def code_sha256() -> str:
    """Of the source that decodes, extracts and measures: what it gave before a change is not taken for its answer."""
    import halign_bench.metrics as metrics
    from halign_bench import decoding, extractors, media, metric
    from halign_bench.scoring import footage

    files = [Path(str(module.__file__)) for module in (decoding, footage, media, metric)]
    for folder in (extractors, metrics):
        files += sorted(Path(str(folder.__file__)).parent.glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


__all__ = ["CHOICES", "Choice", "LazyExtractor", "chosen", "code_sha256", "opened"]
