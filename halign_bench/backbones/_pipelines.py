"""Checkpoints in the layout of a diffusers pipeline: found in a folder or on the hub, checked, loaded, told apart."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.documents import parsed
from halign_bench.errors import RequestError, first_line
from halign_bench.machine import out_of_memory
from halign_bench.pretrained import load_whole, quiet

if TYPE_CHECKING:
    import torch

INDEX = "model_index.json"  # by which diffusers knows a pipeline's folder
HUB_ID = r"[\w-][\w.-]*/[\w.-]+"
HASHED = ("*.safetensors", "*.bin", "*.safetensors.index.json", "config.json", "scheduler_config.json")
PRECISE = ("vae", "image_encoder")  # small, and loaded in fp32 by diffusers' own examples


def read_index(model: str | Path) -> dict[str, Any]:
    """What the pipeline in this folder, or on the hub under this id, says of itself: its class and its components.

    Without a network the hub's own cache is looked into. Raises RequestError.
    """
    from transformers.utils import cached_file

    folder = Path(model)
    if folder.is_file():
        raise RequestError(f"--model {model}: is a file, not a folder")
    if not folder.is_dir() and not re.fullmatch(HUB_ID, str(model)):
        raise RequestError(f"--model {model}: no such folder")
    if folder.is_dir() and not (folder / INDEX).is_file():
        raise RequestError(
            f"--model {model}: no {INDEX} there; give the folder of a whole pipeline, as `save_pretrained` writes it"
        )
    try:
        file = folder / INDEX if folder.is_dir() else Path(cached_file(str(model), INDEX) or "")
    except Exception as problem:  # whatever network and hub raise
        raise _not_on_the_hub(model, problem) from None
    try:
        return dict(parsed(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as problem:
        raise RequestError(f"--model {model}: its {INDEX} cannot be read ({first_line(problem)})") from None


def folder_of(model: str | Path) -> Path:
    """The folder itself, or that of the hub's cache into which the id's files are fetched. Raises RequestError."""
    from diffusers import DiffusionPipeline

    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(DiffusionPipeline.download(str(model)))
    except Exception as problem:
        raise _not_on_the_hub(model, problem) from None


def _not_on_the_hub(model: str | Path, problem: Exception) -> RequestError:
    return RequestError(f"--model {model}: neither a folder here nor to be had from the hub ({first_line(problem)})")


def load(
    folder: Path, index: Mapping[str, Any], dtype: torch.dtype, device: str, stays: str | None = None
) -> Any:
    """The pipeline, its weights frozen, in eval mode, on the device. Raises RequestError where it cannot be read.

    stays  the component that is left on the CPU, to be divided from there
    """
    import diffusers

    name = index["_class_name"]
    cls = getattr(diffusers, name, None)
    if cls is None:
        raise RequestError(f"--model {folder}: diffusers {diffusers.__version__} has no {name}; install a newer one")
    if name.startswith("Wan") and importlib.util.find_spec("ftfy") is None:  # its prompts go through it
        raise RequestError(f'{name} needs ftfy: pip install "halign-bench[real]"')
    check_files(folder)
    networks = {}
    for part, entry in index.items():
        if isinstance(entry, list) and entry[0] in ("diffusers", "transformers") and _weights(folder / part):
            network = _network(folder / part, entry[0], entry[1], dtype)
            networks[part] = network if part == stays else network.to(device)
    try:
        with quiet():
            pipeline = cls.from_pretrained(folder, **networks)
    except Exception as problem:  # tokenizers, schedulers, and what has no weights at all
        if out_of_memory(problem):
            raise
        raise RequestError(f"--model {folder}: cannot be read as a {name} ({first_line(problem)})") from None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _network(folder: Path, library: str, name: str, dtype: torch.dtype) -> Any:
    import torch

    where = f"--model {folder.parent}: its {folder.name}"
    cls = getattr(importlib.import_module(library), name, None)
    if cls is None:
        raise RequestError(f"{where} is a {name}, which the installed {library} does not have")
    variant = "fp16" if all(".fp16" in file.name for file in _weights(folder)) else None
    dtype = torch.float32 if folder.name in PRECISE else dtype
    return load_whole(cls, folder, where, torch_dtype=dtype, variant=variant)


def _weights(folder: Path) -> list[Path]:
    return sorted((*folder.glob("*.safetensors"), *folder.glob("*.bin")))


def check_files(folder: Path) -> None:
    """That every safetensors file in it is whole and every shard is there. Raises RequestError."""
    from safetensors import SafetensorError, safe_open

    for index in sorted(folder.glob("*/*.safetensors.index.json")):
        try:
            shards = set(parsed(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            where = f"{index.parent.name}/{index.name}"
            raise RequestError(f"--model {folder}: {where} cannot be read ({first_line(problem)})") from None
        for shard in sorted(shards):
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
        files = {file for pattern in HASHED for file in folder.rglob(pattern)}
        for file in sorted(files, key=lambda file: file.relative_to(folder).as_posix()):
            seen.update(f"{file.relative_to(folder).as_posix()}\0{memory.sha256(file)}\0".encode())
    return seen.hexdigest()


__all__ = ["digest", "folder_of", "load", "read_index"]
