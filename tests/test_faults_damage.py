"""A bit that changed on the disk is never used silently: each kind of file that is read back, one bit flipped."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from records import cell
from runs import METHODS, Runs
from test_runner import assert_same
from tiny import TinyBackbone

from halign_bench.adapters import adapter_parameters, attach_lora, load_adapters, remove_adapters, save_adapters
from halign_bench.checkpoints import Checkpoints, State
from halign_bench.chunks import read_chunk, write_chunk
from halign_bench.companions import read_clips, read_replicates
from halign_bench.errors import RequestError
from halign_bench.results import read_record
from halign_bench.samples import SampleStore
from halign_bench.scoring.cache import MISSING, Cache
from halign_bench.sealing import intact, seal
from halign_bench.track import Unscorable

REFUSED = object()
FLIPS = 150


def flipped(file: Path, flips: int = FLIPS, seed: int = 0) -> Iterator[int]:
    """The file with one bit changed, then another one; as it was in the end."""
    whole, chance = file.read_bytes(), random.Random(seed)
    places = sorted(chance.sample(range(len(whole)), min(flips, len(whole))))
    try:
        for place in places:
            changed = bytearray(whole)
            changed[place] ^= 1 << chance.randrange(8)
            file.write_bytes(changed)
            yield place
    finally:
        file.write_bytes(whole)


def never_silently(file: Path, read: Callable[[], Any], flips: int = FLIPS) -> None:
    """`read` gives what it gave, or refuses, whichever bit is flipped or wherever the file ends."""
    wanted, refused = read(), 0
    assert wanted is not REFUSED
    for place in flipped(file, flips):
        found = read()
        assert found is REFUSED or found == wanted, f"{file.name}: a flip in byte {place} was used"
        refused += found is REFUSED
    assert refused > flips / 2, refused
    whole = file.read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        found = read()  # of some, the last byte is an end of line
        assert found is REFUSED or (found == wanted and size > len(whole) // 2), f"{file.name}: {size} bytes were used"
    file.write_bytes(whole)
    assert read() == wanted


def plain(value: Any) -> Any:
    """Comparable by ==."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return np.asarray(value).tobytes()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


@pytest.mark.fault("training: checkpoint.pt is cut, or flipped in a bit", "not used; training begins anew")
def test_a_checkpoint(tmp_path: Path) -> None:
    module = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    files = Checkpoints(tmp_path, "this request")
    files.log_path.write_text(json.dumps({"step": 1}) + "\n")
    files.save(module, [], optimizer, State(steps=1, seconds=1.5))

    def read() -> Any:
        found = files.load()
        return REFUSED if found is None else plain(found)

    never_silently(tmp_path / "checkpoint.pt", read)
    files.log_path.write_text('{"step": ')  # what the checkpoint says was done is not on record
    assert files.load() is None


@pytest.mark.fault("training: result.json is cut, or flipped in a bit", "not used; trained again")
def test_the_end_of_a_training(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, "this request")
    files.write_result({"status": "done", "samples_seen": 256, "heldout": [{"accuracy": 0.75}], "error": None})

    def read() -> Any:
        found = files.read_result()
        return REFUSED if found is None else found

    never_silently(tmp_path / "result.json", read, 300)


@pytest.mark.fault("adapters: a file is cut, or flipped in a bit", "refused by name; in a run: trained again")
def test_adapters(tmp_path: Path) -> None:
    module = TinyBackbone().denoiser
    for parameter in attach_lora(module, "one", ["to_q"], 2, 4, seed=3):
        parameter.data += 1
    save_adapters(module, ["one"], tmp_path / "adapters")
    remove_adapters(module)
    (file,) = (tmp_path / "adapters").rglob("*.safetensors")

    def read() -> Any:
        try:
            load_adapters(module, tmp_path / "adapters")
        except RequestError as problem:
            assert str(file) in str(problem) and "\n" not in str(problem)
            return REFUSED
        found = plain(dict(adapter_parameters(module, "one")))
        remove_adapters(module)
        return found

    never_silently(file, read, 80)


@pytest.mark.fault("preferences: a file of the cache is cut, or flipped in a bit", "counts as absent; made again")
def test_a_chunk_of_preferences(tmp_path: Path) -> None:
    file = tmp_path / "00000.safetensors"
    write_chunk(file, "key", {"tensors": {"latents": torch.randn(2, 3)}, "ids": ["a", "b"], "identities": ["x", "y"]})

    def read() -> Any:
        found = read_chunk(file, "key")
        return REFUSED if found is None else plain(found)

    never_silently(file, read)


@pytest.mark.fault("run: decoded samples are cut, or flipped in a bit", "count as absent; sampled again")
def test_samples(tmp_path: Path) -> None:
    store = SampleStore(tmp_path, [["a"]], seed=0)
    videos = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 4, 3), dtype=np.uint8)
    store.write(0, 4, videos, 1.5)

    def read() -> Any:
        found = store.read(0, 4)
        return REFUSED if found is None else plain(found)

    never_silently(store.path(0, 4), read)


@pytest.mark.fault("score: an entry of the cache is cut, or flipped in a bit", "counts as absent; computed again")
@pytest.mark.parametrize("value", [
    np.arange(60, dtype=np.float32), {"frames": np.arange(9), "fps": 25.0}, 0.123456789, [1, None, "reason"],
    Unscorable("no face in it"),
])  # fmt: skip
def test_an_entry_of_the_cache(tmp_path: Path, value: Any) -> None:
    cache = Cache(tmp_path)
    cache.put("0123", value)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())

    def read() -> Any:
        found = cache.get("0123")
        if isinstance(found, Unscorable):
            return "unscorable", found.reason
        return REFUSED if found is MISSING else plain(found)

    never_silently(file, read)


@pytest.mark.fault("records: a record is flipped in a bit", "refused by name (leaderboard, report); made again (run)")
def test_a_record(tmp_path: Path) -> None:
    file = cell(tmp_path, "base").source
    assert file is not None

    def read() -> Any:
        try:
            return read_record(file).model_dump()
        except RequestError as problem:
            assert str(file) in str(problem) and "\n" not in str(problem)
            return REFUSED

    never_silently(file, read, 400)


@pytest.mark.fault(
    "records: the parquet beside a record is cut, or flipped in a bit",
    "refused by name, not compared (leaderboard); made again (run)",
)
def test_what_lies_beside_a_record(tmp_path: Path) -> None:
    record = cell(tmp_path, "base")
    for kind, reader in (("clips", read_clips), ("bootstrap", read_replicates)):
        assert record.source is not None
        file = record.source.parent / record.files[kind]

        def read(reader: Callable[[Any], Any] = reader, file: Path = file) -> Any:
            try:
                return reader(record)
            except RequestError as problem:
                assert str(file) in str(problem) and "\n" not in str(problem)
                return REFUSED

        never_silently(file, read)


def test_a_seal_is_of_the_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for size in (0, 1, 2**20, 2**20 + 1):
        file.write_bytes(bytes(size))
        assert not intact(file)
        seal(file)
        assert intact(file)
        assert all(not intact(file) for _ in flipped(file, 20))


@pytest.mark.fault(
    "run: one bit is flipped in a record, in a parquet, in saved adapters, in the cache of preferences",
    "what was damaged is made again, and equals what it was",
)
def test_a_run_makes_again_what_was_damaged(runs: Runs, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    code, _, progress = runs(whole, *METHODS)
    assert code == 0, progress
    shutil.copytree(whole, out)
    chance = random.Random(1)

    def damage(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content) * 2 // 3, len(content) - 100)] ^= 4
        file.write_bytes(content)

    damage(out / "records" / "base-s0.clips.parquet")
    record = out / "records" / "sft-s0.json"
    record.write_text(record.read_text().replace('"value": 0.', '"value": 1.', 1))
    (out / "records" / "diffusion-dpo-s0.json").unlink()  # so that its adapters are looked at again
    (adapters,) = out.glob("cells/diffusion-dpo-*/train/*/adapters/*/*.safetensors")
    damage(adapters)
    for chunk in (runs.folder / "cache").rglob("00000.safetensors"):
        damage(chunk)
    code, _, progress = runs(out, *METHODS)
    assert code == 0 and "diffusion-dpo seed 0: train" in progress, progress
    assert "cells are done already" not in progress
    assert_same(out, whole)
