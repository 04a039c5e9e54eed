"""The gallery: the worst and the best clips, each with every method's sample of it from the same noise.

Videos are kept small and playable everywhere: H.264 with AAC, enlarged by whole numbers so that no pixel is blurred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halign_bench.figures.labels import label
from halign_bench.figures.source import Source, direction
from halign_bench.report.clips import RULE, ClipRank, clip_keys, extremes, gallery_seed, of_seed, ranked
from halign_bench.report.resample import NoSamples, Sampler, adapter_folders, psnr_of, variant_of
from halign_bench.report.writing import Files, script
from halign_bench.results import Record, parse_key
from halign_bench.track import FPS

if TYPE_CHECKING:
    import numpy as np

    from halign_bench.progress import Progress
    from halign_bench.track import Clip

SIDE = 256  # pixels that the shorter side of a video has at least
REAL = "real"  # the file of the real clip; methods are m00, m01, …


def make(source: Source, count: int, data: Path | None, files: Files, progress: Progress) -> dict[str, Any]:
    """What the page's gallery shows; writes its videos and skeletons. Raises NoData where clips have no scores.

    count  how many clips to show videos of; data  folder of the track's videos, where it reads one
    """
    ranks, seed = ranked(source), gallery_seed(source)
    records = of_seed(source, seed)
    shown = extremes(ranks, count)
    notes: list[str] = []
    try:
        films = _Films(source, records, shown, data, files, progress)
        videos, absent = films.made, films.absent
        notes += films.notes
    except NoSamples as problem:
        videos, absent = {}, {}
        notes.append(f"No videos: {problem}.")
    keys = clip_keys(source, list(records.values()))
    board = source.table
    return {
        "rule": RULE, "seed": seed, "nfe": board.main_nfe, "fps": FPS, "notes": notes,
        "methods": [{"name": name, "absent": absent.get(name)} for name in records],
        "missing": [name for name in source.methods if name not in records],
        "scores": [
            {"name": label(key, direction(board, key)), "better": direction(board, key),
             "unit": next((r.metrics[key].unit for r in records.values() if key in r.metrics), "")} for key in keys
        ],
        "clips": [_clip(source, rank, list(records.values()), keys, videos.get(rank.id)) for rank in ranks],
    }  # fmt: skip


def _clip(
    source: Source, rank: ClipRank, records: Sequence[Record], keys: Sequence[str], video: dict[str, Any] | None
) -> dict[str, Any]:
    """values  [method][score] on this clip, None where it has none"""
    by_record = [source.records.scores.clips(record) for record in records]
    return {
        "id": rank.id, "identity": rank.identity, "rank": round(rank.rank, 4), "spread": round(rank.spread, 4),
        "values": [[_short(scores.get(key, {}).get(rank.id, ("", None))[1]) for key in keys] for scores in by_record],
        "video": video,
    }  # fmt: skip


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


class _Films:
    """made    clip -> what the page has to know to play it
    absent  method -> why it has no videos
    """

    def __init__(
        self, source: Source, records: Mapping[str, Record], shown: Sequence[ClipRank], data: Path | None,
        files: Files, progress: Progress,
    ) -> None:
        import av

        if not shown:
            raise NoSamples("--clips 0 asks for none")
        if not any(adapter_folders(record) for record in records.values()):
            raise NoSamples("no adapters lie beside these records; give the --out folder of the run itself")
        if "libx264" not in av.codec.codecs_available:
            raise NoSamples("this PyAV has no encoder for H.264, which browsers play")
        if source.table.main_nfe is None:
            raise NoSamples("the records do not say how many network evaluations a sample took")
        self.files, self.progress, self.source, self.nfe = files, progress, source, source.table.main_nfe
        self.made: dict[str, dict[str, Any]] = {}
        self.absent: dict[str, str] = {}
        self.notes: list[str] = []
        self._errors: list[float] = []
        first = next(iter(records.values()))
        with progress.phase(f"gallery: load {first.cell.backbone} and {first.cell.track}", 1):
            sampler = Sampler(first, data)
        with progress.phase("gallery: find the clips", int(sampler.evaluation.get("clips", 0))) as phase:
            clips = list(sampler.clips([rank.id for rank in shown], phase.advance).values())
        if not clips:
            raise NoSamples("none of the clips that the records name is in the track's evaluation split")
        for number, clip in enumerate(clips):
            self.made[clip.id] = self._real(number, clip)
        for number, (method, record) in enumerate(records.items()):
            self._method(number, method, record, sampler, clips)
        self._compare()

    def _real(self, number: int, clip: Clip) -> dict[str, Any]:
        folder = f"gallery/{number:02d}"
        self._write(f"{folder}/{REAL}.mp4", clip.video, clip)
        skeleton = clip.skeleton is not None and clip.layout is not None
        if skeleton:
            self.files.text(f"{folder}/skeleton.js", script(f"{folder}/skeleton", _skeleton(clip)))
        return {
            "folder": folder, "frames": len(clip.video), "width": clip.video.shape[2], "height": clip.video.shape[1],
            "sound": clip.audio is not None, "skeleton": skeleton, "methods": [],
        }  # fmt: skip

    def _method(self, number: int, method: str, record: Record, sampler: Sampler, clips: Sequence[Clip]) -> None:
        key = next((key for key in clip_keys(self.source, [record]) if parse_key(key).name == "psnr"), "")
        recorded = self.source.records.scores.clips(record).get(key, {})
        try:
            variant_of(record)
            with self.progress.phase(f"gallery: sample {method}", len(clips)) as phase:
                for clip, video in sampler.videos(record, self.nfe, clips, phase.check):
                    self._write(f"{self.made[clip.id]['folder']}/m{number:02d}.mp4", video, clip)
                    self.made[clip.id]["methods"].append(number)
                    now, then = psnr_of(video, clip), recorded.get(clip.id, ("", None))[1]
                    if now is not None and then is not None:
                        self._errors.append(abs(now - then))
                    phase.advance()
        except NoSamples as problem:
            self.absent[method] = str(problem)

    def _write(self, name: str, video: np.ndarray, clip: Clip) -> None:
        import numpy as np

        from halign_bench.media import write_video

        times = max(1, -(-SIDE // min(video.shape[1:3])))
        write_video(self.files.path(name), np.repeat(np.repeat(video, times, axis=1), times, axis=2), clip.audio)

    def _compare(self) -> None:
        """Says how close the samples are to those that were scored."""
        said = "Runs keep no videos: these were sampled again from the saved adapters and the same noise"
        if not self._errors:
            self.notes.append(f"{said}; no PSNR is on record to compare them by.")
            return
        worst = max(self._errors)
        same = f"differs from that on record by at most {worst:.2g} dB" if worst > 0 else "is exactly that on record"
        self.notes.append(f"{said}; the PSNR of each of the {len(self._errors)} samples {same}.")


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


__all__ = ["make"]
