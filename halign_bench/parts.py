"""In how many parts a batch goes through the network where the loss does not care: memory for one part is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from halign_bench.backbone import Backbone
    from halign_bench.batch import ClipBatch, PairBatch
    from halign_bench.method import AlignmentMethod

# Latent cells that a part has at least. At half of that a step on a processor took a
CELLS = {"cpu": 1024}
ELSEWHERE = 2**15


def parts(rows: int, cells: int, device: str) -> int:
    """As many as divide `rows` of `cells` latent cells each into equal parts that keep this device busy; at least 1."""
    least = CELLS.get(device.split(":")[0], ELSEWHERE)
    return max((n for n in range(1, rows + 1) if rows % n == 0 and rows // n * cells >= least), default=1)


def parts_of(method: AlignmentMethod, backbone: Backbone, batch: ClipBatch | PairBatch) -> int:
    """1 for a method whose loss of a sample depends on its batch."""
    from halign_bench.batch import PairBatch

    if not method.separable:
        return 1
    _, frames, height, width = backbone.latent_shape()
    clips = 2 if isinstance(batch, PairBatch) else 1
    return parts(len(batch), clips * frames * height * width, backbone.device)


__all__ = ["parts", "parts_of"]
