"""Draws the picture of the README from a finished run: `python docs/draw_samples.py runs/latest docs/samples.png`.

A row for each of four evaluation clips: reference, skeleton, three frames of the real clip, and the same three of
each method's sample (seed 0, the run's main NFE), all from the same noise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from halign_bench.adapters import load_adapters, remove_adapters
from halign_bench.loading import load_backbone
from halign_bench.plan import variant_named
from halign_bench.results import read_records
from halign_bench.sampling import initial_noise, sample
from halign_bench.skeleton import draw_skeleton
from halign_bench.tracks.puppet import PuppetTrack

CLIPS, FRAMES, SCALE, GAP, TITLE = (3, 8, 17, 30), (4, 9, 14), 2, 6, 16


def main(run: Path, out: Path) -> None:
    done = {r.cell.method: r for r in read_records([run])[0] if r.cell.seed == 0 and r.status == "done"}
    order = sorted(done, key=lambda method: (method != "base", method != "sft", method))
    if not done:
        sys.exit(f"{run}: no finished record of seed 0 here")
    backbone, track = load_backbone(next(iter(done.values())).cell.backbone, "auto"), PuppetTrack()
    clips = [track.clip("eval", index) for index in CLIPS]
    skeletons = [draw_skeleton(clip.skeleton, clip.layout, backbone.size)[FRAMES[0]] for clip in clips]
    columns = {
        "reference": [[clip.reference] for clip in clips],
        "skeleton": [[skeleton] for skeleton in skeletons],
        "real clip": [[clip.video[k] for k in FRAMES] for clip in clips],
    }
    condition, noise = backbone.condition(clips), initial_noise(backbone, [clip.id for clip in clips], 0)
    for method in order:
        record = done[method]
        variant, asked = variant_named(method), record.protocol["evaluation"]
        remove_adapters(backbone.denoiser)
        folders = sorted((run / "records" / record.files.get("adapters", "none")).glob("*/adapters"))
        if variant.needs_data() and not folders:
            sys.exit(f"{run}: no adapters of {method}, which lie in the folder of its run")
        for folder in folders:
            load_adapters(backbone.denoiser, folder)
        active, segments = variant.active_adapters, variant.segments()
        made = sample(
            backbone, condition, noise, nfe=asked["nfe"][0], guidance=asked["guidance"], active=active,
            segments=segments,
        )  # fmt: skip
        videos = backbone.decode(made)
        columns[method] = [[video[k] for k in FRAMES] for video in videos]
    paint(columns).save(out)


def paint(columns: dict[str, list[list[np.ndarray]]]) -> Image.Image:
    side = next(iter(columns.values()))[0][0].shape[0] * SCALE
    width = sum(len(rows[0]) * side + GAP for rows in columns.values()) - GAP
    sheet = Image.new("RGB", (width, TITLE + side * len(CLIPS)), "white")
    draw, x = ImageDraw.Draw(sheet), 0
    for title, rows in columns.items():
        draw.text((x + 2, 2), title, fill="black")
        for row, frames in enumerate(rows):
            for k, frame in enumerate(frames):
                big = Image.fromarray(np.asarray(frame, np.uint8)).resize((side, side), Image.Resampling.NEAREST)
                sheet.paste(big, (x + k * side, TITLE + row * side))
        x += len(rows[0]) * side + GAP
    return sheet


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
