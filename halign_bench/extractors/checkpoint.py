"""Published weight files: state dicts that are read without running anything in them."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from halign_bench.decoding import shown
from halign_bench.errors import RequestError


def opened(content: bytes) -> Any:
    """What `torch.save` wrote, where it is made of tensors and plain values; anything else, and TorchScript, is not
    opened, since it would have to be run. Raises whatever torch raises, which is any Exception."""
    with warnings.catch_warnings():  # of other protocols of pickle, and of TorchScript, which are refused anyway
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def read_state_dict(path: Path, asset: str) -> tuple[dict[str, Tensor], str]:
    """(tensors by name, sha256 of the file) of a state dict that `torch.save` wrote.

    `asset` is what the file should be, for messages. Raises RequestError when it cannot be read, or holds
    anything but tensors (which would have to be run to be opened).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{asset} weights cannot be read from {shown(path)}: {error.strerror or error}") from None
    try:
        found = opened(content)
    except Exception:  # of a damaged file torch, pickle, zipfile and tokenize each raise their own
        raise RequestError(f"{shown(path)} is not a state dict of {asset}: it cannot be opened as one") from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise RequestError(f"{shown(path)} is not a state dict of {asset}: it holds other things than tensors")
    return found, hashlib.sha256(content).hexdigest()


def load_published(module: nn.Module, path: Path, asset: str) -> str:
    """Fills `module` from a file in the published layout, sets it to evaluation, and returns the file's sha256.

    Counters of batch normalisation may be missing: files from before they existed are in use. Raises RequestError
    when the layout is another one.
    """
    tensors, sha256 = read_state_dict(path, asset)
    expected = module.state_dict()
    missing = [name for name in expected if name not in tensors and not name.endswith("num_batches_tracked")]
    unknown = [name for name in tensors if name not in expected]
    shapes = [name for name in expected if name in tensors and tensors[name].shape != expected[name].shape]
    for what, names in (("lacks", missing), ("has an unknown", unknown), ("has another shape of", shapes)):
        if names:
            raise RequestError(f"{shown(path)} does not have the layout of {asset}: it {what} {names[0]}")
    module.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=False)
    module.eval().requires_grad_(False)
    return sha256
