"""What `halign-bench doctor` looks at: would a run work here, and how fast could it be?"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from halign_bench import registry

PACKAGES = {
    "torch": "torch",
    "diffusers": "diffusers", "peft": "peft", "accelerate": "accelerate", "safetensors": "safetensors",
    "av": "av", "numpy": "numpy", "scipy": "scipy", "pandas": "pandas", "pyarrow": "pyarrow", "pillow": "PIL",
    "torchmetrics": "torchmetrics", "matplotlib": "matplotlib", "pydantic": "pydantic", "filelock": "filelock",
}  # fmt: skip
RUN_DISK = 2 * 2**30  # bytes that a default run with its cache stays well below
RUN_MEMORY = 6 * 2**30


@dataclass(frozen=True)
class Finding:
    """`failed`: a run would not work; `warning`: it would, with less."""

    subject: str
    status: Literal["ok", "warning", "failed"]
    detail: str


def examine() -> list[Finding]:
    """Every finding, in a fixed order. What cannot even be examined is a failure with its error."""
    findings: list[Finding] = []
    for look in (python, packages, processor, memory, devices, disk, cache, video, weights, assets, plugins):
        findings += _safely(look)
    return findings


def _safely(look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except Exception as problem:  # a broken installation may fail in any way, and the other findings still help
        return [Finding(look.__name__, "failed", f"{type(problem).__name__}: {problem}")]


def python() -> Iterator[Finding]:
    recent = sys.version_info >= (3, 10)
    yield Finding("python", "ok" if recent else "failed", f"{platform.python_version()} on {platform.platform()}")


def packages() -> Iterator[Finding]:
    for distribution, module in PACKAGES.items():
        try:
            importlib.import_module(module)
            yield Finding(distribution, "ok", metadata.version(distribution))
        except Exception as problem:
            advice = f"python -m pip install --upgrade {distribution}"
            yield Finding(distribution, "failed", f"{type(problem).__name__}: {problem}; try `{advice}`")


def processor() -> Iterator[Finding]:
    from halign_bench.environment import hardware

    found = hardware()
    cores, threads = found["cores"], found.get("threads")
    detail = f"{found['processor'] or found['machine']}, {cores} cores, torch uses {threads} threads"
    yield Finding("processor", "ok", detail)


def memory() -> Iterator[Finding]:
    from halign_bench.environment import hardware

    total = hardware()["memory_bytes"]
    if total is None:
        yield Finding("memory", "warning", "unknown here")
    else:
        enough = total >= RUN_MEMORY
        yield Finding(
            "memory", "ok" if enough else "warning", f"{_gib(total)}; a default run stays below {_gib(RUN_MEMORY)}"
        )


def devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Finding(f"cuda:{index}", "ok", f"{properties.name}, {_gib(properties.total_memory)}")
    elif torch.backends.mps.is_available():
        yield Finding("mps", "ok", "Apple GPU")
    else:
        yield Finding("gpu", "ok", "none; the embedded track and backbone are sized for the CPU")


def disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    detail = f"{_gib(free)} free in this folder"
    yield Finding("disk", "ok" if free >= RUN_DISK else "warning", detail)


def cache() -> Iterator[Finding]:
    from halign_bench.folder import cache_dir

    folder = cache_dir()
    where = f"{folder} ({'HALIGN_CACHE' if os.environ.get('HALIGN_CACHE') else 'default; HALIGN_CACHE moves it'})"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        yield Finding("cache", "failed", f"{where} cannot be written: {problem.strerror or problem}")
    else:
        yield Finding("cache", "ok", where)


def video() -> Iterator[Finding]:
    """That the decoder has what videos are usually made of."""
    import av

    missing = [name for name in ("h264", "hevc", "vp9", "aac", "pcm_s16le") if name not in av.codecs_available]
    version = ".".join(map(str, av.library_versions["libavcodec"]))
    detail = f"libavcodec {version}" + (f", without {', '.join(missing)}" if missing else "")
    yield Finding("video", "warning" if missing else "ok", detail)


def weights() -> Iterator[Finding]:
    """That the shipped backbones and evaluators are there and whole."""
    from halign_bench.backbones._puppet import SHIPPED

    for folder in sorted(file.parent for file in SHIPPED.glob("*/base.json")):
        backbone: Any = registry.get("backbone", folder.name)
        found = backbone.load().base_sha256
        stated = json.loads((folder / "base.json").read_text())["base_sha256"]
        advice = "" if found == stated else f", not {stated[:12]} as shipped: reinstall halign-bench"
        yield Finding(folder.name, "failed" if advice else "ok", f"base {found[:12]}{advice}")
    track = registry.get("track", "puppet")()
    for key, extractor in track.extractors().items():
        yield Finding(f"evaluator {key}", "ok", extractor.protocol)


def assets() -> Iterator[Finding]:
    """Which of the published weights that `score` can use are here; none of them is needed for a run."""
    from halign_bench.assets.store import Store

    store = Store()
    states = {name: store.standing(name, "look").state for name in store.assets}
    here = [name for name, state in states.items() if state != "missing"]
    wrong = [name for name, state in states.items() if state == "wrong"]
    detail = f"{len(here)} of {len(states)} in {store.folder}" + (f": {', '.join(here)}" if here else "")
    advice = f"; wrong: {', '.join(wrong)}, see `halign-bench assets verify`" if wrong else ""
    yield Finding("assets", "warning" if wrong else "ok", detail + advice)


def plugins() -> Iterator[Finding]:
    infos = registry.describe()
    broken = [info for info in infos if info.error is not None]
    for info in broken:
        # Someone else's broken plug-in does not keep ours from running.
        yield Finding(
            f"{info.kind} {info.name}", "failed" if info.origin == "halign-bench" else "warning", info.error or ""
        )
    counts = ", ".join(f"{sum(info.kind == kind for info in infos)} {kind}s" for kind in registry.KINDS)
    yield Finding("plug-ins", "ok", f"{counts}; {len(broken)} broken")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
