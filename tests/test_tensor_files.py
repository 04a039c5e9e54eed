"""The same tensors make the same file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from halign_bench.tensor_files import save_tensors

NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__")


@settings(max_examples=60, deadline=None)
@given(
    tensors=st.dictionaries(  # not without any: safetensors 0.4 writes such a file without its beginning
        NAMES, st.sampled_from([torch.arange(6.0).view(2, 3), torch.ones(4, dtype=torch.int8)]), min_size=1
    ),
    metadata=st.dictionaries(st.text(max_size=8), st.text(max_size=20), min_size=1, max_size=6),
)
def test_what_is_written_is_read_and_depends_on_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    folder: Path = tmp_path_factory.mktemp("files")
    written = set()
    for number, entries in enumerate((metadata, dict(reversed(metadata.items())), metadata)):
        save_tensors(tensors, folder / f"{number}", entries)
        written.add((folder / f"{number}").read_bytes())
    assert len(written) == 1
    with safe_open(str(folder / "0"), framework="pt") as stored:
        assert stored.metadata() == metadata
        assert set(stored.keys()) == set(tensors)
        assert all(torch.equal(stored.get_tensor(name), tensor) for name, tensor in tensors.items())
