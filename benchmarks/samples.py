"""The README's picture, from a finished run: `python benchmarks/samples.py runs/latest docs/samples.png`.

A row is an evaluation clip: reference image, skeleton, real clip, then the same frames as the base and
each method of the run make them from the same noise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from halign_bench.adapters import attached, load_adapters, remove_adapters
from halign_bench.backbones.puppet_dit import PuppetDiT
from halign_bench.results import read_records
from halign_bench.sampling import initial_noise, sample
from halign_bench.skeleton import draw_skeleton
from halign_bench.tracks.puppet import PuppetTrack

CLIPS, FRAMES, SCALE, NFE = (1, 6, 13, 22), (2, 9, 16), 2, 30


def main(run: Path, out: Path) -> None:
    backbone, track = PuppetDiT.load(), PuppetTrack()
    clips = [track.clip("eval", index) for index in CLIPS]
    condition, noise = backbone.condition(clips), initial_noise(backbone, [clip.id for clip in clips], seed=0)
    records = [r for r in read_records([run])[0] if r.cell.seed == 0]
    records.sort(key=lambda record: (record.cell.method != "base", record.cell.method != "sft", record.cell.method))
    columns = [("reference", [[clip.reference] for clip in clips])]
    drawn = [draw_skeleton(c.skeleton, c.layout, (64, 64)) for c in clips if c.skeleton is not None and c.layout]
    columns.append(("skeleton", [[video[FRAMES[1]]] for video in drawn]))
    columns.append(("real clip", [[clip.video[k] for k in FRAMES] for clip in clips]))
    for record in records:
        remove_adapters(backbone.denoiser)
        if "adapters" in record.files:
            for folder in sorted((run / "records" / record.files["adapters"]).glob("*/adapters")):
                load_adapters(backbone.denoiser, folder)
        active = attached(backbone.denoiser)
        videos = backbone.decode(sample(backbone, condition, noise, nfe=NFE, active=lambda t, on=active: on))
        columns.append((record.cell.method, [[video[k] for k in FRAMES] for video in videos]))
    blocks = [np.concatenate([np.concatenate(row, 1) for row in rows], 0) for _, rows in columns]
    gap, head = 6, 16
    width = sum(block.shape[1] * SCALE + gap for block in blocks) - gap
    picture = Image.new("RGB", (width, head + blocks[0].shape[0] * SCALE), "white")
    pen, left = ImageDraw.Draw(picture), 0
    for (title, _), block in zip(columns, blocks, strict=True):
        pen.text((left + 2, 2), title, fill="black")
        size = (block.shape[1] * SCALE, block.shape[0] * SCALE)
        picture.paste(Image.fromarray(block).resize(size, Image.Resampling.LANCZOS), (left, head))
        left += size[0] + gap
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
