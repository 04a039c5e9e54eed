"""Checkpoints in the layout of a diffusers pipeline: found in a folder or on the hub, checked, loaded, told apart."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from halign_bench.errors import RequestError

INDEX = "model_index.json"  # by which diffusers knows a pipeline's folder
WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json", "config.json", "scheduler_config.json")


def find(backbone: str, model: str | Path, pipelines: Sequence[str]) -> Path:
    """The folder of a pipeline of one of these classes: `model` itself, or what the hub has under that id.

    A hub id is looked for in the hub's own cache first where there is no network. Raises RequestError.
    """
    folder = Path(model)
    if not folder.is_dir():
        if folder.exists() or str(model).count("/") != 1 or str(model).startswith((".", "~", "/")):
            what = "is a file, not a folder" if folder.exists() else "no such folder"
            raise RequestError(f"--model {model}: {what}")
        folder = _from_hub(str(model))
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8")).get("_class_name")
    except FileNotFoundError:
        raise RequestError(
            f"--model {model}: no {INDEX} there; give the folder of a whole pipeline, as `save_pretrained` writes it"
        ) from None
    except (OSError, ValueError, AttributeError) as problem:
        raise RequestError(f"--model {model}: its {INDEX} cannot be read ({problem})") from None
    if found not in pipelines:
        raise RequestError(f"--model {model}: is a {found}, backbone {backbone} needs a {' or a '.join(pipelines)}")
    return folder


def _from_hub(name: str) -> Path:
    from diffusers import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(name))
    except Exception as problem:  # whatever network and hub raise
        raise RequestError(
            f"--model {name}: neither a folder here nor to be had from the hub ({first_line(problem)})"
        ) from None


def load(folder: Path, dtype: torch.dtype, device: str, component: str) -> Any:
    """The pipeline, its weights frozen, in eval mode, on the device. Raises RequestError where it cannot be read.

    component  whose weights must all be in the files: diffusers fills what is missing with random numbers and goes on
    """
    import diffusers

    name = json.loads((folder / INDEX).read_text(encoding="utf-8"))["_class_name"]
    cls = getattr(diffusers, name, None)
    if cls is None:
        raise RequestError(f"--model {folder}: diffusers {diffusers.__version__} has no {name}; install a newer one")
    needed = {"ftfy"} if name.startswith("Wan") else set()  # for prompts
    if missing := sorted(package for package in needed if importlib.util.find_spec(package) is None):
        raise RequestError(f'{name} needs {", ".join(missing)}: pip install "halign-bench[real]"')
    check_weights(folder)
    level = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = cls.from_pretrained(folder, torch_dtype=dtype)
    except Exception as problem:  # every component has its own way of saying what is wrong with its files
        raise RequestError(f"--model {folder}: cannot be read as a {name} ({first_line(problem)})") from None
    finally:
        diffusers.utils.logging.set_verbosity(level)
    if getattr(pipeline, component) is None:
        raise RequestError(f"--model {folder}: it has no {component}")
    pipeline.set_progress_bar_config(disable=True)
    for part, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
                raise RequestError(f"--model {folder}: weights of its {part} are missing")
            module.to(device).eval().requires_grad_(False)
    _check_complete(folder, component, getattr(pipeline, component))
    return pipeline


def _check_complete(folder: Path, component: str, network: torch.nn.Module) -> None:
    from safetensors import safe_open

    stored: set[str] = set()
    for file in (folder / component).glob("*.safetensors"):
        with safe_open(file, framework="pt") as content:
            stored.update(content.keys())
    missing = [name for name, _ in network.named_parameters() if name not in stored]
    if stored and missing:
        raise RequestError(
            f"--model {folder}: {len(missing)} weights of its {component} are in none of its files, among them "
            f"{missing[0]}"
        )


def check_weights(folder: Path) -> None:
    """That every safetensors file in it is whole and every shard is there. Raises RequestError."""
    from safetensors import SafetensorError, safe_open

    for index in sorted(folder.glob("*/*.safetensors.index.json")):
        wanted = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        for shard in sorted(set(wanted.values())):
            if not (index.parent / shard).is_file():
                raise RequestError(f"--model {folder}: the shard {index.parent.name}/{shard} is missing")
    for file in sorted(folder.glob("*/*.safetensors")):
        try:
            with safe_open(file, framework="pt") as stored:
                stored.keys()
        except (SafetensorError, OSError) as problem:
            raise RequestError(f"--model {folder}: {file.parent.name}/{file.name} is damaged ({problem})") from None


def digest(*folders: Path) -> str:
    """sha256 of the weights and configurations in these folders, by content and name alone."""
    from halign_bench.assets.hashing import Memory
    from halign_bench.folder import cache_dir

    memory, seen = Memory(cache_dir() / "model-hashes.json"), hashlib.sha256()
    for folder in folders:
        files = {file for pattern in WEIGHTS for file in folder.rglob(pattern)}
        for file in sorted(files, key=lambda file: file.relative_to(folder).as_posix()):
            seen.update(f"{file.relative_to(folder).as_posix()}\0{memory.sha256(file)}\0".encode())
    return seen.hexdigest()


def first_line(problem: Exception) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[0] if lines else type(problem).__name__


__all__ = ["digest", "find", "load"]
