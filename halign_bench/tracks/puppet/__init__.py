"""Track `puppet`: a procedural talking puppet whose pose, mouth, identity and defects are known exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from halign_bench.errors import RequestError
from halign_bench.registry import register
from halign_bench.track import Annotator, Clip, Extractor, Track, Unfit

FITNESS = Path(__file__).parents[2] / "weights" / "puppet" / "fitness.json"  # by `halign-bench fitness --out`


@register
class PuppetTrack(Track):
    """Half-body puppet, 25 fps, with formant speech that drives its mouth and two 21-keypoint hands."""

    name = "puppet"
    summary = "procedural talking puppet with known pose, speech and defects; needs no download"

    def __init__(self, data: Path | None = None, frames: int = 17, size: tuple[int, int] = (64, 64)) -> None:
        if data is not None:
            raise RequestError("track puppet makes its own clips: leave out --data, or choose --track clips")
        if size[0] != size[1]:
            raise RequestError(f"track puppet draws square frames, not {size[0]}x{size[1]}")
        super().__init__(data, frames, size)

    def splits(self) -> Mapping[str, int]:
        from halign_bench.tracks.puppet.clips import SPLITS

        return {name: split.size for name, split in SPLITS.items()}

    def clip(self, split: str, index: int) -> Clip:
        from halign_bench.tracks.puppet.clips import draw_clip

        return draw_clip(split, index, self.frames, self.size[0])

    def extractors(self, device: str = "cpu") -> Mapping[str, Extractor]:
        from halign_bench.tracks.puppet.evaluators import load

        return load(device)

    def annotator(self) -> Annotator:
        from halign_bench.tracks.puppet.annotator import PuppetAnnotator

        return PuppetAnnotator()

    @classmethod
    def unfit(cls) -> Mapping[str, Unfit]:
        from halign_bench.fitness.report import read_unfit

        return read_unfit(FITNESS)

    def fingerprint(self) -> dict[str, Any]:
        from halign_bench.tracks.puppet.clips import VERSION

        return {"track": self.name, "renderer": VERSION, "frames": self.frames, "size": list(self.size)}
