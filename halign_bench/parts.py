"""In how many parts a batch goes through the network where the loss does not care: memory for one part is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from halign_bench.backbone import Backbone
    from halign_bench.method import AlignmentMethod, Stage

CELLS = {"cpu": 2048}  # that a part has at least, of latents: 3.2 pairs of the embedded track's clips
ELSEWHERE = 2**15  # a GPU is busy with a clip of a video model, and not with many of the embedded track's


def parts(rows: int, cells: int, device: str) -> int:
    """As many as divide `rows` of `cells` latent cells each into equal parts that keep this device busy; at least 1."""
    least = CELLS.get(device.split(":")[0], ELSEWHERE)
    return max((n for n in range(1, rows + 1) if rows % n == 0 and rows // n * cells >= least), default=1)


def in_parts(method: AlignmentMethod, stage: Stage, backbone: Backbone, rows: int, asked: int) -> int:
    """How many parts a batch of so many rows (clips, or pairs) comes in: as many as asked for, or a multiple of that.

    Not more for a method whose loss of a sample depends on its batch.
    """
    if not method.separable:
        return asked
    _, frames, height, width = backbone.latent_shape()
    clips = 2 if stage.data == "pairs" else 1
    return asked * parts(rows // asked, clips * frames * height * width, backbone.device)


__all__ = ["in_parts", "parts"]
