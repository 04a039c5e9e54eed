"""Files of tensors that are whole, intact and of the right key, or do not count: what a cache is made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.atomic import atomic_path
from halign_bench.documents import parsed

if TYPE_CHECKING:
    import torch


def checksum(tensors: dict[str, torch.Tensor], text: str = "") -> str:
    """sha256 of names, shapes, types and content, and of a text that goes with them."""
    import torch

    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype}".encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_chunk(path: Path, key: str, chunk: dict[str, Any]) -> None:
    from halign_bench.tensor_files import save_tensors

    names = json.dumps([chunk["ids"], chunk["identities"]])
    metadata = {
        "key": key, "sha256": checksum(chunk["tensors"]), "names": names,
        "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
    }  # fmt: skip
    with atomic_path(path) as temporary:
        save_tensors(chunk["tensors"], temporary, metadata)


def read_chunk(path: Path, key: str) -> dict[str, Any] | None:
    """The chunk, or None when it is absent, unreadable, of another key, or not what was written.

    Its tensors are the file itself, mapped into memory; all of it is read here once, for its checksum.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        names = metadata.get("names", "")
        intact = (
            metadata.get("key") == key
            and metadata.get("sha256") == checksum(tensors)
            and metadata.get("names_sha256") == hashlib.sha256(names.encode()).hexdigest()
        )
    except (OSError, SafetensorError, ValueError):
        return None
    if not intact:
        return None
    ids, identities = parsed(names)
    return {"tensors": tensors, "ids": ids, "identities": identities}


__all__ = ["checksum", "read_chunk", "write_chunk"]
