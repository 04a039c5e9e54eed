"""A grid of frames: the same clip from the same noise, a row for each method and a column for each moment.

Runs keep no videos once they are scored: methods are sampled again from their saved adapters and the same noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from halign_bench.errors import RequestError
from halign_bench.figures.source import NoData, Row, Source
from halign_bench.figures.style import Look, text_width
from halign_bench.track import FPS

MOMENTS = 5  # frames of a clip
METHODS = 12  # on a page
REAL = "real clip"


def rows(source: Source) -> list[Row]:
    """A line for each method and frame of one clip: the middle one in the order of mean ranks, the commonest seed.

    `_video` is the method's whole sample, uint8 `[T, H, W, 3]`, and not for the CSV. Raises NoData where there is
    nothing to sample from, RequestError where `source.origin` is not what the records are of.
    """
    from rich.console import Console

    from halign_bench.progress import Progress, Stop
    from halign_bench.report.clips import gallery_seed, of_seed, ranked
    from halign_bench.report.resample import NoSamples, Sampler, adapter_folders, psnr_of, variant_of

    ranks, seed, nfe = ranked(source), gallery_seed(source), source.table.main_nfe
    records = of_seed(source, seed)
    if nfe is None or not any(adapter_folders(record) for record in records.values()):
        raise NoData("no adapters lie beside these records; give the --out folder of the run itself")
    name = ranks[len(ranks) // 2].id
    videos: dict[str, np.ndarray] = {}
    with Stop().listening() as stop:
        stop.gentle = True
        progress = Progress(Console(stderr=True), stop)
        try:
            with progress.phase("samples: load", 1):
                sampler = Sampler(next(iter(records.values())), source.origin)
                clip = sampler.clips([name], stop.check)[name]
        except (NoSamples, KeyError) as problem:
            raise NoData(str(problem)) from None
        with progress.phase("samples: sample again", len(records)) as phase:
            for method, record in records.items():
                try:
                    ((_, videos[method]),) = sampler.videos(record, variant_of(record), nfe, [clip], phase.check)
                except NoSamples as problem:
                    progress.say(f"samples: {method}: left out, {problem}")
                phase.advance()
    frames = np.unique(np.linspace(0, len(clip.video) - 1, MOMENTS).round().astype(int)).tolist()
    return [
        {
            "method": method, "clip": name, "seed": seed, "nfe": nfe, "frame": frame, "seconds": frame / FPS,
            "psnr": None if method == REAL else psnr_of(video, clip), "_video": video,
        }
        for method, video in {REAL: clip.video, **videos}.items() for frame in frames
    ]  # fmt: skip


def pages(rows: Sequence[Row]) -> list[list[Row]]:
    """Each with the real clip on top."""
    methods = list(dict.fromkeys(row["method"] for row in rows if row["method"] != REAL))
    parts = [methods[start : start + METHODS] for start in range(0, len(methods), METHODS)]
    return [[row for row in rows if row["method"] in (REAL, *part)] for part in parts]


def draw_rows(rows: Sequence[Row], look: Look) -> Any:
    return draw({row["method"]: row["_video"] for row in rows}, sorted({row["frame"] for row in rows}), look, FPS)


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


__all__ = ["draw", "draw_rows", "pages", "rows"]
