"""The gallery: clips from the worst to the best with every method's scores, and videos of those at both ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from halign_bench.figures.labels import parted
from halign_bench.figures.source import Source, direction, unit
from halign_bench.record import Record
from halign_bench.report.clips import RULE, ClipRank, clip_keys, extremes, gallery_seed, of_seed, ranked
from halign_bench.report.films import Films, film
from halign_bench.report.resample import NoSamples, Origin
from halign_bench.report.writing import Files
from halign_bench.track import FPS

if TYPE_CHECKING:
    from halign_bench.progress import Progress


def make(source: Source, count: int, origin: Origin, files: Files, progress: Progress) -> dict[str, Any]:
    """What the page's gallery shows; writes its videos, sounds and skeletons.

    count  how many clips to show videos of
    Raises NoData where clips have no scores, RequestError where `origin` is not what the records are of.
    """
    ranks, seed = ranked(source), gallery_seed(source)
    records = of_seed(source, seed)
    try:
        films = film(source, records, [rank.id for rank in extremes(ranks, count)], origin, files, progress)
    except NoSamples as problem:
        films = Films({}, {}, f"No videos: {problem}.")
    board, keys = source.table, clip_keys(source, list(records.values()))
    return {
        "rule": RULE, "seed": seed, "nfe": board.main_nfe, "fps": FPS, "note": films.note,
        "methods": [{"name": name, "absent": films.absent.get(name)} for name in records],
        "missing": [name for name in source.methods if name not in records],
        "scores": [_score(key, direction(board, key), unit(board, key)) for key in keys],
        "clips": [_clip(source, rank, list(records.values()), keys, films.made.get(rank.id)) for rank in ranks],
    }  # fmt: skip


def _score(key: str, better: bool | None, unit: str) -> dict[str, Any]:
    name, where = parted(key, better)
    return {"name": name, "where": where, "better": better, "unit": unit}


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


__all__ = ["make"]
