"""The software and the machine a cell ran with, for its record. No host, user or path names."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from halign_bench.processes import here
from halign_bench.record import Environment

PACKAGES = (
    "halign-bench", "torch", "diffusers", "peft", "accelerate", "torchmetrics", "numpy", "scipy", "pandas", "av",
    "safetensors", "pydantic", "pyarrow",
)  # fmt: skip


def capture_environment() -> Environment:
    """Versions, git state of the source tree (None for an installed copy), hardware and processes of the launch."""
    commit, dirty = git_state(Path(__file__).resolve().parent)
    processes = here()
    launch = {"processes": processes.world, "weights_divided": processes.sharded} if processes.world > 1 else {}
    return Environment(
        python=platform.python_version(), packages=_versions(), git_commit=commit, git_dirty=dirty,
        hardware={**hardware(), **launch},
    )  # fmt: skip


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_state(package: Path) -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout that tracks this package.

    (None, None) for a copy in site-packages, even where that folder lies inside some other repository.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def hardware() -> dict[str, Any]:
    """Operating system, processor, usable cores, memory, and GPUs where torch is loaded and sees some."""
    found: dict[str, Any] = {
        "system": platform.system(), "machine": platform.machine(), "processor": _processor(), "cores": _cores(),
        "memory_bytes": _memory(), "gpus": [],
    }  # fmt: skip
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return found


def _cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _processor() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or None
