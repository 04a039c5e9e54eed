"""Videos of the gallery's clips: the real one and each method's sample of it, their sound, and their skeleton.

Pictures are H.264 without sound, enlarged by whole numbers so that no pixel is blurred. The sound lies beside them as
samples: with a sound of its own each video of a page would run on the clock of its own output, and those start tens of
milliseconds apart.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from halign_bench.figures.source import Source
from halign_bench.record import Record, parse_key
from halign_bench.report.clips import clip_keys
from halign_bench.report.resample import NoSamples, Origin, Sampler, adapter_folders, psnr_of, variant_of
from halign_bench.report.writing import Files, script
from halign_bench.track import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np

    from halign_bench.progress import Progress
    from halign_bench.track import Clip

SIDE = 256  # pixels that the shorter side of a video has at least
REAL = "real"  # the file of the real clip; methods are m00, m01, …


@dataclass(frozen=True)
class Films:
    """made    clip -> what the page has to know to play it
    absent  method -> why it has no videos
    note    how close the samples are to those that were scored
    """

    made: dict[str, dict[str, Any]]
    absent: dict[str, str]
    note: str


def film(
    source: Source, records: Mapping[str, Record], ids: Sequence[str], origin: Origin, files: Files,
    progress: Progress,
) -> Films:  # fmt: skip
    """Writes the videos of these clips, one after the other in folders `gallery/00`, `gallery/01`, …

    records  method -> its record of the seed that is shown
    Raises NoSamples where there can be none, RequestError where `origin` is not what the records are of.
    """
    nfe = _possible(source, records, ids)
    first = next(iter(records.values()))
    with progress.phase(f"gallery: load {first.cell.backbone} and {first.cell.track}", 1):
        sampler = Sampler(first, origin)
    with progress.phase("gallery: find the clips", int(sampler.evaluation.get("clips", 0))) as phase:
        clips = list(sampler.clips(ids, phase.advance).values())
    if not clips:
        raise NoSamples("none of the clips that the records name is in the track's evaluation split")
    made = {clip.id: _real(f"gallery/{number:02d}", clip, files) for number, clip in enumerate(clips)}
    absent: dict[str, str] = {}
    errors: list[float] = []
    for number, (method, record) in enumerate(records.items()):
        try:
            variant = variant_of(record)
            recorded = _psnr_on_record(source, record)
            with progress.phase(f"gallery: sample {method}", len(clips)) as phase:
                for clip, video in sampler.videos(record, variant, nfe, clips, phase.check):
                    _write(files, f"{made[clip.id]['folder']}/m{number:02d}.mp4", video)
                    made[clip.id]["methods"].append(number)
                    now, then = psnr_of(video, clip), recorded.get(clip.id)
                    if now is not None and then is not None:
                        errors.append(abs(now - then))
                    phase.advance()
        except NoSamples as problem:
            absent[method] = str(problem)
    return Films(made, absent, _closeness(errors))


def _possible(source: Source, records: Mapping[str, Record], ids: Sequence[str]) -> int:
    """The NFE to sample at. Raises NoSamples where that can be known to come to nothing."""
    import av

    if not ids:
        raise NoSamples("--clips 0 asks for none")
    if not any(adapter_folders(record) for record in records.values()):
        raise NoSamples("no adapters lie beside these records; give the --out folder of the run itself")
    if "libx264" not in av.codec.codecs_available:
        raise NoSamples("this PyAV has no encoder for H.264, which browsers play")
    if source.table.main_nfe is None:
        raise NoSamples("the records do not say how many network evaluations a sample took")
    return source.table.main_nfe


def _psnr_on_record(source: Source, record: Record) -> dict[str, float | None]:
    key = next((key for key in clip_keys(source, [record]) if parse_key(key).name == "psnr"), "")
    return {clip: value for clip, (_, value) in source.records.scores.clips(record).get(key, {}).items()}


def _closeness(errors: Sequence[float]) -> str:
    said = "Runs keep no videos: these were sampled again from the saved adapters and the same noise"
    if not errors:
        return f"{said}; no PSNR is on record to compare them by."
    worst = max(errors)
    same = f"differs from that on record by at most {worst:.2g} dB" if worst > 0 else "is exactly that on record"
    return f"{said}; the PSNR of each of the {len(errors)} samples {same}."


# Files


def _real(folder: str, clip: Clip, files: Files) -> dict[str, Any]:
    """Writes the real clip, its sound and its skeleton; `methods` is filled as theirs come."""
    _write(files, f"{folder}/{REAL}.mp4", clip.video)
    skeleton = clip.skeleton is not None and clip.layout is not None
    for name, there, content in (("sound", clip.audio is not None, _sound), ("skeleton", skeleton, _skeleton)):
        if there:
            files.text(f"{folder}/{name}.js", script(f"{folder}/{name}", content(clip)))
    return {
        "folder": folder, "frames": len(clip.video), "width": clip.video.shape[2], "height": clip.video.shape[1],
        "sound": clip.audio is not None, "skeleton": skeleton, "methods": [],
    }  # fmt: skip


def _write(files: Files, name: str, video: np.ndarray) -> None:
    import numpy as np

    from halign_bench.media import write_video

    times = max(1, -(-SIDE // min(video.shape[1:3])))
    write_video(files.path(name), np.repeat(np.repeat(video, times, axis=1), times, axis=2))


def _sound(clip: Clip) -> dict[str, Any]:
    """samples  16-bit integers, mono, as base64"""
    import numpy as np

    assert clip.audio is not None
    samples = np.clip(np.round(clip.audio * 32767), -32767, 32767).astype("<i2")
    return {"rate": SAMPLE_RATE, "samples": base64.b64encode(samples.tobytes()).decode("ascii")}


def _skeleton(clip: Clip) -> dict[str, Any]:
    """points  [frame][joint] of x, y in [0, 1] of the picture, None where it is not seen; edges with their colours"""
    from halign_bench.skeleton import edge_colours

    assert clip.skeleton is not None and clip.layout is not None
    height, width = clip.video.shape[1:3]
    return {
        "points": [
            [[round(float(x) / width, 4), round(float(y) / height, 4)] if seen > 0.5 else None for x, y, seen in frame]
            for frame in clip.skeleton
        ],
        "edges": [list(edge) for edge in clip.layout.edges],
        "colours": [f"#{bytes(colour).hex()}" for colour in edge_colours(clip.layout)],
    }  # fmt: skip


__all__ = ["Films", "film"]
