"""Records for tests of the report: everything that it shows, names that are markup, and samples made up on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from records import IDS, cell, make_record
from tiny import LAYOUT

from halign_bench.record import ClaimData, ConfigUsed, Record, Sign
from halign_bench.report import films
from halign_bench.report.resample import NoSamples
from halign_bench.track import SAMPLE_RATE, Clip

EVIL = "<script>alert(1)</script>"
QUOTED = "clip \"x\" onerror='alert(2)' <img src=x> & co"
LACKS_ONE, LACKS_ALL = "sft", "ipa"
FRAMES, SIDE, BITS = 50, 32, 6
STRIPE = SIDE // BITS


def used(method: str, **config: Any) -> ConfigUsed:
    return ConfigUsed(given={}, effective=[{"method": method, "config": config}])


def write_run(run: Path) -> Path:
    """Two seeds of base and diffusion-dpo at two NFEs, four more methods, a failure, and a file that is no record."""
    folder, grid = run / "records", {"nfes": (20, 10)}
    folder.mkdir(parents=True)
    claim = ClaimData(metric="sync_c", better_than="base", source="the paper, table 2 <b>")
    for seed in (0, 1):
        cell(folder, "base", seed, **grid)
        dpo = cell(folder, "diffusion-dpo", seed, 0.5, claims=(claim,), cell_hash=f"{seed}" * 64,
                   config=used("diffusion-dpo", beta=123.0, form="flow"), **grid)  # fmt: skip
        write_log(run, dpo)
    cell(folder, "sft", 0, -0.5, missing=(3,), warnings=[Sign(name="x", value=1.0, text="samples are over-exposed")],
         **grid)  # fmt: skip
    cell(folder, "ipa", 0, 0.3, **grid)
    cell(folder, "evil", 0, 0.1, config=used("evil", note="</script><img src=x>"), **grid)
    rename(folder / "evil-s0.json", "evil", EVIL)
    protocol = {"evaluation": {"nfe": [20, 10]}, "training": {"samples": 256}}
    failed = make_record("tpo", status="failed", error="out of memory <i>", protocol=protocol)
    (folder / "tpo-s0.json").write_text(failed.model_dump_json(by_alias=True))
    (folder / "cut-s0.json").write_text('{"schema": "halign-bench/record/1", "cell": {')
    for path in folder.glob("*.clips.parquet"):
        table = pq.read_table(path)
        clips = [QUOTED if name == IDS[0] else name for name in table.column("clip").to_pylist()]
        pq.write_table(table.set_column(table.column_names.index("clip"), "clip", pa.array(clips)), path)
    for path in folder.glob("*-s?.json"):
        if path.name != "cut-s0.json":
            path.write_text(json.dumps(unsealed(json.loads(path.read_text()))))
    return run


def rename(path: Path, before: str, after: str) -> None:
    document = json.loads(path.read_text())
    assert document["cell"]["method"] == before
    document["cell"]["method"] = after
    path.write_text(json.dumps(unsealed(document)))


def unsealed(document: dict) -> dict:
    """Of a record that is changed on purpose, or whose companions are."""
    return {key: value for key, value in document.items() if key not in ("sha256", "sha256s")}


def write_log(run: Path, record: Record) -> None:
    assert record.source is not None and record.cell_hash is not None
    folder = run / "cells" / f"{record.source.stem}-{record.cell_hash[:8]}" / "train" / "0-diffusion-dpo"
    folder.mkdir(parents=True)
    entries = [
        {"stage": "diffusion-dpo", "step": i + 1, "samples": 16 * (i + 1), "winner_gap": -1e-4 * i,
         "loser_gap": 1e-4 * i, "implicit_accuracy": 0.5 + 0.01 * i} for i in range(20)
    ]  # fmt: skip
    (folder / "train.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


class MadeUp:
    """In the place of `resample.Sampler`: two seconds of videos that say which frame they show."""

    def __init__(self, record: Record, data: Path | None) -> None:
        self.evaluation = {"clips": len(IDS)}

    def clips(self, ids: Sequence[str], tick: Callable[[], None]) -> dict[str, Clip]:
        return {name: self.clip(name) for name in ids}

    @classmethod
    def clip(cls, name: str) -> Clip:
        tone = np.sin(2 * np.pi * 330 * np.arange(FRAMES * SAMPLE_RATE // 25) / SAMPLE_RATE).astype(np.float32) / 4
        skeleton = np.full((FRAMES, 44, 3), SIDE / 2, np.float32)
        skeleton[:, 1, 0], skeleton[:, :, 2] = np.linspace(0, SIDE - 1, FRAMES), 1
        return Clip(name, name, cls.video(120), np.zeros((SIDE, SIDE, 3), np.uint8), tone, skeleton, LAYOUT)

    @staticmethod
    def video(shade: int) -> np.ndarray:
        """Which frame it is stands in it, in black and white: a stripe for each bit, the lowest above."""
        video = np.full((FRAMES, SIDE, SIDE, 3), shade, np.uint8)
        for frame in range(FRAMES):
            for bit in range(BITS):
                video[frame, bit * STRIPE : (bit + 1) * STRIPE, SIDE // 4 : -SIDE // 4] = 255 * (frame >> bit & 1)
        return video

    def videos(
        self, record: Record, variant: Any, nfe: int, clips: Sequence[Clip], check: Callable[[], None]
    ) -> Iterator[tuple[Clip, np.ndarray]]:
        check()
        if record.cell.method == LACKS_ALL:
            raise NoSamples("its adapters cannot be loaded: <b>gone</b>")
        for number, clip in enumerate(clips):
            if record.cell.method != LACKS_ONE or number:  # not the worst clip
                yield clip, self.video(60)


def with_made_up_samples(patch: Any) -> None:
    patch.setattr(films, "Sampler", MadeUp)
    patch.setattr(films, "adapter_folders", lambda record: [Path("adapters")])
    patch.setattr(films, "variant_of", lambda record: None)


def frame_in(picture: np.ndarray) -> int:
    """Which frame of a made-up video this picture `[H, W]` of it in grey shows, whatever its size."""
    height, width = picture.shape
    rows = [round((bit + 0.5) * STRIPE / SIDE * height) for bit in range(BITS)]
    return sum(int(picture[row, width // 2] > 127) << bit for bit, row in enumerate(rows))
