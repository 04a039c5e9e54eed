"""Decoded samples of a cell on disk, chunk by chunk, until it is scored: what makes sampling resumable."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from halign_bench.atomic import atomic_path
from halign_bench.sealing import intact, seal

if TYPE_CHECKING:
    import numpy as np


class SampleStore:
    """One file for each (chunk, NFE), stamped with its clips and seed, so that nothing foreign is taken for it."""

    def __init__(self, folder: Path, chunks: Sequence[Sequence[str]], seed: int) -> None:
        self.folder, self.chunks, self.seed = folder, chunks, seed

    def path(self, number: int, nfe: int) -> Path:
        return self.folder / f"nfe{nfe}-{number:05d}.npz"

    def _stamp(self, number: int, nfe: int) -> str:
        return json.dumps([list(self.chunks[number]), nfe, self.seed])

    def write(self, number: int, nfe: int, videos: np.ndarray, seconds: float) -> None:
        """uint8 `[B, T, H, W, 3]` and the seconds that sampling them took (NaN: they were not sampled). Atomic."""
        import numpy as np

        with atomic_path(self.path(number, nfe)) as temporary:
            with open(temporary, "wb") as file:
                np.savez(file, videos=videos, seconds=np.float64(seconds), stamp=np.str_(self._stamp(number, nfe)))
            seal(temporary)

    def read(self, number: int, nfe: int) -> tuple[np.ndarray, float] | None:
        """Videos and seconds; None when absent, damaged or of other clips."""
        import numpy as np

        path = self.path(number, nfe)
        try:
            if not intact(path):  # a damaged archive fails in many ways
                return None
            with np.load(path, allow_pickle=False) as stored:
                videos, seconds, stamp = stored["videos"], float(stored["seconds"]), str(stored["stamp"])
        except Exception:  # absent or damaged: numpy, zipfile and tokenize each raise their own
            return None
        if stamp != self._stamp(number, nfe) or len(videos) != len(self.chunks[number]):
            return None
        return videos, seconds

    def remove(self, grid: Sequence[int]) -> None:
        """Deletes the chunks, and the folder unless something else is in it."""
        if not self.folder.is_dir():
            return
        for number in range(len(self.chunks)):
            for nfe in grid:
                self.path(number, nfe).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


__all__ = ["SampleStore"]
