"""From a preference file to what trainings read: conditions and videos encoded, labels as pairs and winners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from halign_bench.decoding import MediaError
from halign_bench.errors import RequestError
from halign_bench.loading import annotator_if_any
from halign_bench.preferences import (
    OVERALL,
    Examples,
    Pairs,
    PreferenceSet,
    PreferenceSpec,
    collect_candidates,
    key_of,
    sources_of,
)
from halign_bench.prefs.conditions import ConditionError, own_clip, prompt_places
from halign_bench.prefs.labels import HELDOUT, Labels
from halign_bench.prefs.lines import Problem, refuse
from halign_bench.prefs.reading import PreferenceFile, Prompt, Video
from halign_bench.prefs.session import Session

if TYPE_CHECKING:
    import torch

    from halign_bench.backbone import Backbone
    from halign_bench.sampling import Progress
    from halign_bench.track import Clip, Track

FORMAT = "halign-bench/labelled/1"
TOGETHER = 8  # prompts whose videos are in memory at once


@dataclass
class LabelledSet(PreferenceSet):
    """A PreferenceSet whose pairs, winners and rewards are people's labels.

    `scores` are the rewards by criterion, in [-1, 1], NaN without a label; rows of `latents` without a video are 0.
    """

    labels: Labels | None = None

    @property
    def _labels(self) -> Labels:
        assert self.labels is not None
        return self.labels

    def pairs(self, criterion: str = OVERALL, heldout: bool = False) -> Pairs:
        return self._labels.pairs(criterion, heldout)

    def winners(self, criterion: str = OVERALL, limit: int | None = None) -> Examples:
        return self._labels.winners(criterion, limit)

    def candidates(self, criterion: str = OVERALL) -> Examples:
        return self._labels.candidates(criterion)

    def clips(self) -> Examples:
        return self._labels.clips()


def protocol_of(file: PreferenceFile) -> dict[str, Any]:
    """What a run's protocol says of its preferences: contents, not places. Raises RequestError."""
    return {"format": FORMAT, "file_sha256": file.sha256, "contents_sha256": file.contents_sha256, "heldout": HELDOUT}


def load(
    file: PreferenceFile, backbone: Backbone, track: Track, cache_dir: Path, progress: Progress | None = None
) -> LabelledSet:
    """Raises RequestError with everything that is wrong with what the file names. `progress` counts prompts."""
    return _Loader(file, backbone, track, cache_dir).load(progress)


class _Loader:
    def __init__(self, file: PreferenceFile, backbone: Backbone, track: Track, cache_dir: Path) -> None:
        self.file, self.backbone, self.track, self.cache_dir = file, backbone, track, cache_dir
        self.problems: list[Problem] = []
        self.drawn: dict[Path, PreferenceSet] = {}

    def load(self, progress: Progress | None) -> LabelledSet:
        import torch

        def sampled(done: int, total: int) -> None:
            if progress is not None:  # counts prompts; but here too the user may stop
                progress(0, len(self.file.prompts))

        for folder, session in self.file.sessions.items():
            self.drawn[folder] = self._drawn(session, sampled)
        known = {prompt.clip: prompt.index for s in self.file.sessions.values() for prompt in s.prompts}
        wanted = {prompt.clip for prompt in self.file.prompts if prompt.clip is not None}
        places = prompt_places(self.track, wanted, known)
        parts: list[dict[str, Any]] = []
        most = max(len(prompt.videos) for prompt in self.file.prompts)
        for start in range(0, len(self.file.prompts), TOGETHER):
            if progress is not None:
                progress(start, len(self.file.prompts))
            prompts = self.file.prompts[start : start + TOGETHER]
            clips = [self._clip(prompt, places) for prompt in prompts]
            parts.append(self._encoded(prompts, clips, most))
        if self.problems:
            refuse(self.file.path, self.problems)
        if progress is not None:
            progress(len(self.file.prompts), len(self.file.prompts))
        masks = torch.cat([part["hand_mask"] for part in parts])
        return self._set(
            {name: torch.cat([part["condition"][name] for part in parts]) for name in parts[0]["condition"]},
            torch.cat([part["latents"] for part in parts]), torch.cat([part["real"] for part in parts]),
            masks if any(part["skeletons"] for part in parts) else None,
            [name for part in parts for name in part["identities"]],
        )  # fmt: skip

    def _drawn(self, session: Session, progress: Progress) -> PreferenceSet:
        """The candidates of a session: from the cache, or sampled again from their noise."""
        try:
            spec = PreferenceSpec.model_validate(session.sources.get("spec"))
        except ValidationError:
            raise RequestError(
                f"{session.folder}: its manifest does not say how it was sampled; make it again with `halign-bench "
                "prefs sample`, or name video files"
            ) from None
        annotator = annotator_if_any(self.track)
        ours, theirs = sources_of(self.backbone, self.track, annotator, spec), session.sources
        if key_of(ours) != session.key:
            differing = [name for name in ours if ours[name] != theirs.get(name)]
            raise RequestError(
                f"{session.folder}: its candidates were made with another {' and '.join(differing) or 'version'} than "
                "this run has; `halign-bench prefs export --videos` names their video files instead"
            )
        return collect_candidates(self.backbone, self.track, annotator, spec, self.cache_dir, progress)

    def _clip(self, prompt: Prompt, places: dict[str, int]) -> Clip | None:
        if prompt.clip is not None:
            if prompt.clip in places:
                return self.track.clip("prompts", places[prompt.clip])
            self.problems.append(Problem(
                prompt.line, "clip", f"{prompt.clip} is no training clip of track {self.track.name}; correct it, or "
                "give a condition instead",
            ))  # fmt: skip
            return None
        assert prompt.condition is not None
        layout = self.track.clip("prompts", 0).layout
        try:
            return own_clip(
                prompt.name, prompt.condition, self.file.path.parent, self.backbone.frames, self.backbone.size, layout
            )
        except ConditionError as problem:
            self.problems.append(Problem(prompt.line, f"condition.{problem.field}", problem.reason))
            return None

    def _encoded(self, prompts: Sequence[Prompt], clips: Sequence[Clip | None], most: int) -> dict[str, Any]:
        """Tensors of some prompts, batch first; nothing of use once there are problems."""
        import numpy as np
        import torch

        from halign_bench.masks import hand_mask

        shape = self.backbone.latent_shape()
        latents = torch.zeros(len(prompts), most, *shape)
        for row, prompt in enumerate(prompts):
            for k, video in enumerate(prompt.videos):
                made = self._latent(prompt, video)
                if made is not None and not self.problems:
                    latents[row, k] = made
        found = [clip for clip in clips if clip is not None]
        if self.problems or len(found) < len(prompts):
            return {}
        real = torch.zeros(len(prompts), *shape)
        rows = [row for row, prompt in enumerate(prompts) if prompt.clip is not None]
        if rows:
            videos = np.stack([found[row].video for row in rows])
            real[rows] = self.backbone.encode(videos).float().cpu()
        condition = self.backbone.condition(found)
        return {
            "latents": latents, "real": real, "identities": [clip.identity for clip in found],
            "condition": {name: value.cpu() for name, value in condition.items()},
            "hand_mask": torch.stack([hand_mask(clip, shape) for clip in found]),
            "skeletons": sum(clip.skeleton is not None and clip.layout is not None for clip in found),
        }  # fmt: skip

    def _latent(self, prompt: Prompt, video: Video) -> torch.Tensor | None:
        from halign_bench.media import read_video

        if video.session is not None:
            drawn = self.drawn[video.session]
            return drawn.latents[drawn.ids.index(str(prompt.clip)), video.number]
        assert video.file is not None
        frames = self.backbone.frames
        try:
            pictures = read_video(video.file, self.backbone.size, frames=frames, least=frames).frames
        except MediaError as problem:
            text = f"{video.file.name} {problem.reason}; replace the file, or leave out the lines that name it"
            self.problems.append(Problem(video.line, video.place, text))
            return None
        return self.backbone.encode(pictures[None])[0].float().cpu()

    def _set(
        self, condition: dict[str, torch.Tensor], latents: torch.Tensor, real: torch.Tensor, mask: torch.Tensor | None,
        identities: list[str],
    ) -> LabelledSet:
        import numpy as np

        labels, criteria = self.file.labels, self.file.labels.criteria
        scores = np.full((*latents.shape[:2], len(criteria)), np.nan)
        for column, criterion in enumerate(criteria):
            for place, reward in labels.rewards(criterion).items():
                scores[place][column] = reward
        data = LabelledSet(
            [prompt.name for prompt in self.file.prompts], identities, latents, real, condition, mask, criteria,
            scores, labels.n_train, 0.0, labels=labels,
        )  # fmt: skip
        sources = {
            **protocol_of(self.file), "name": self.file.path.name, "backbone": self.backbone.name,
            "base_sha256": self.backbone.base_sha256, "precision": self.backbone.precision,
            "track": self.track.fingerprint(),
        }  # fmt: skip
        key = key_of({name: value for name, value in sources.items() if name != "name"})
        data.provenance = {**sources, "key": key, "lines": len(labels.judgements), **data.summary()}
        return data


__all__ = ["LabelledSet", "load", "protocol_of"]
