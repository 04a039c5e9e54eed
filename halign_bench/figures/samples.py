"""A grid of frames: the same clip from the same noise, a row for each method and a column for each moment.

Runs keep no videos once they are scored, so this takes arrays; `docs/draw_samples.py` samples a run's methods again
and draws them with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from halign_bench.errors import RequestError
from halign_bench.figures.style import Look, text_width


def draw(videos: Mapping[str, np.ndarray], frames: Sequence[int], look: Look, fps: float = 25.0) -> Any:
    """A matplotlib Figure; to be used within `style.settings`.

    videos  row's name -> uint8 `[T, H, W, 3]`, all of one shape; their order is that of the rows
    frames  which frames to show, from 0; titles say when they are, at `fps`

    Raises `RequestError` where shapes differ, nothing is given, or a frame is not there.
    """
    shapes = {np.shape(video) for video in videos.values()}
    if len(shapes) != 1 or not frames:
        raise RequestError(f"videos of one shape and at least one frame are needed; shapes given: {sorted(shapes)}")
    (length, height, width, _) = shapes.pop()
    if min(frames) < 0 or max(frames) >= length:
        raise RequestError(f"frames {', '.join(map(str, frames))} asked for of videos with {length}")
    names = max(map(text_width, videos)) + 0.1
    cell = (look.width - names) / len(frames)
    figure, axes = look.panels(len(videos) * len(frames), len(frames), cell * height / width, extra=0.15)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    cells = np.array(axes).reshape(len(videos), len(frames))
    for row, (name, video) in zip(cells, videos.items(), strict=True):
        for axis, frame in zip(row, frames, strict=True):
            axis.imshow(np.asarray(video[frame], np.uint8), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axis, frame in zip(cells[0], frames, strict=True):
        axis.set_title(f"{frame / fps:.2f} s")
    return figure


__all__ = ["draw"]
