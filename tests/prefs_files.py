"""Preference files and small videos for tests of the tiny track (tests/tiny.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from halign_bench.media import write_video

FRAMES, SIZE = 5, 16  # of the tiny backbone


def video(path: Path, seed: int, frames: int = FRAMES) -> Path:
    """A video of its own for each seed."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 255, (frames, SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
    write_video(path, blocks.repeat(8, 1).repeat(8, 2))
    return path


def jsonl(path: Path, *lines: Any) -> Path:
    """Texts as they are, everything else as JSON."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def pair(clip: str = "tiny/prompts/000", left: Any = "a.mp4", right: Any = "b.mp4", **fields: Any) -> dict[str, Any]:
    return {"clip": clip, "left": left, "right": right, "labels": {"motion": "left"}, **fields}


def labelled(folder: Path, prompts: int = 8, **fields: Any) -> Path:
    """One pair for each prompt of the tiny track: the left one better in motion, every second right one in fidelity."""
    lines = []
    for number in range(prompts):
        names = [video(folder / "videos" / f"{number}-{side}.mp4", 2 * number + side).name for side in (0, 1)]
        labels = {"motion": "left", "fidelity": "right" if number % 2 else "tie"}
        left, right = (f"videos/{name}" for name in names)
        lines.append(pair(f"tiny/prompts/{number:03d}", left, right, labels=labels, **fields))
    return jsonl(folder / "labels.jsonl", *lines)
