"""Preference data: candidates sampled from the base, scored by the track's annotator, kept in a cache.

For each prompt K candidates are sampled from fixed noise and scored on every criterion. Which of a
prompt's candidates is better is told in standard deviations among candidates of one prompt, so that
the criteria weigh alike in "overall", which is their mean. Then

- a **pair** of a prompt is its best against its worst candidate, if they differ by more than
  `min_margin` of these standard deviations (identical scores never make a pair);
- a **winner** of a prompt is its best candidate, if any two differ;
- a **candidate** is every scored sample, with its standardised score as its reward: how far it is
  from the mean of its prompt.

Candidates are sampled without guidance, so that they are draws from the base itself: to imitate all of
them alike changes nothing, and what a method gains is what the labels say. Imitating guided samples moves
the base towards guidance, which is then applied once more; few steps likewise teach their own blur.

The last prompts are held out: never trained on, used to measure implicit accuracy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from halign_bench.chunks import read_chunk, write_chunk
from halign_bench.errors import HalignError, RequestError
from halign_bench.joined import Joined, Stored
from halign_bench.loading import annotator_of
from halign_bench.processes import here
from halign_bench.sampling import Progress, initial_noise, sample

if TYPE_CHECKING:
    import numpy as np
    import torch

    from halign_bench.backbone import Backbone
    from halign_bench.track import Annotator, Clip, SkeletonLayout, Track

FORMAT = "halign-bench/preferences/2"
OVERALL = "overall"


class PreferenceSpec(BaseModel):
    """What to collect. Part of the cache key, so a change of any field samples anew."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = Field(default=96, ge=2, description="prompts asked for; a split with fewer gives what it has")
    candidates: int = Field(default=4, ge=2, description="samples of the base for each prompt")
    nfe: int = Field(default=16, ge=1, description="network evaluations for each candidate")
    guidance: float = Field(default=1.0, ge=0.0, description="classifier-free guidance; 1 is off")
    shift: float = Field(default=1.0, gt=0.0, description="shift of the sampling grid; 1 is uniform")
    seed: int = 0
    min_margin: float = Field(default=0.0, ge=0.0, description="standard deviations a winner must be ahead")
    heldout: float = Field(default=0.25, gt=0.0, lt=1.0, description="share of the prompts that is never trained on")
    chunk: int = Field(default=8, ge=1, description="prompts sampled together and written as one file")


@dataclass(frozen=True)
class Pairs:
    """Row i says: of prompt `prompt[i]`, candidate `winner[i]` beats `loser[i]` by `margin[i]` standard deviations.

    A margin of 1 each where people said so.
    """

    prompt: list[int]
    winner: list[int]
    loser: list[int]
    margin: list[float]

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True)
class Examples:
    """Latents to learn from without pairs: candidate `candidate[i]` of prompt `prompt[i]`; None is the real clip.

    reward  standardised score of each, or what people's labels say in [-1, 1]; None for real clips
    """

    prompt: list[int]
    candidate: list[int] | None
    reward: list[float] | None = None

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass
class PreferenceSet:
    """Everything that training reads: tensors in memory, or `Joined` ones in the files of a cache.

    ids, identities  of the P prompts
    latents          `[P, K, C, T, H, W]`, candidates of the base
    real             `[P, C, T, H, W]`, the prompts' own clips, encoded
    condition        what the model is told, `[P, …]` each
    hand_mask        `[P, 1, T, H, W]` in [0, 1], or None when no clip has a skeleton
    scores           `[P, K, len(criteria)]`, higher is better, NaN where the annotator could not tell
    n_train          prompts [0, n_train) are trained on, the rest is held out
    annotate         (prompt, uint8 videos `[B, T, H, W, 3]`) -> `[B, len(criteria)]`, new samples scored as the
                     candidates were; None where the set comes without its annotator
    """

    ids: list[str]
    identities: list[str]
    latents: torch.Tensor | Joined
    real: torch.Tensor | Joined
    condition: Mapping[str, torch.Tensor | Joined]
    hand_mask: torch.Tensor | Joined | None
    criteria: tuple[str, ...]
    scores: np.ndarray
    n_train: int
    min_margin: float
    provenance: dict[str, Any] = field(default_factory=dict)
    reference: dict[Any, Any] = field(default_factory=dict, repr=False)  # errors of the base, measured once a process
    annotate: Callable[[int, np.ndarray], np.ndarray] | None = field(default=None, repr=False)

    def named(self, criterion: str) -> tuple[str, ...]:
        """The annotator's criteria that "motion", "motion+fidelity" or "overall" (all there are) stand for.

        Raises RequestError for one that this track's annotator does not give.
        """
        names = self.criteria if criterion == OVERALL else tuple(criterion.split("+"))
        for name in names:
            self._check(name)
        return names

    def _check(self, criterion: str) -> None:
        if criterion not in self.criteria:
            known = ", ".join((*self.criteria, OVERALL))
            raise RequestError(f"no preferences for the criterion {criterion}: this track's annotator gives {known}")

    def standardised(self, criterion: str) -> np.ndarray:
        """`[P, K]`: scores from the mean of their prompt, in standard deviations among the candidates of one prompt.

        Only candidates of one prompt are ever compared. Between prompts scores differ several times as much, which
        tells easy prompts from hard ones and nothing about the policy.
        """
        import numpy as np

        if criterion == OVERALL:
            return np.mean([self.standardised(name) for name in self.criteria], axis=0)
        self._check(criterion)
        scores = self.scores[..., self.criteria.index(criterion)]
        scores = np.where(np.isfinite(scores), scores, np.nan)
        count = np.maximum(np.isfinite(scores).sum(axis=1, keepdims=True), 1)
        apart = scores - np.nansum(scores, axis=1, keepdims=True) / count
        rounding = 1e-9 * float(np.nan_to_num(np.abs(scores[: self.n_train])).max(initial=0.0))
        apart = np.where(np.abs(apart) <= rounding, 0.0, apart)
        free = (count[: self.n_train] - 1).sum()
        spread = float(np.sqrt(np.nansum(apart[: self.n_train] ** 2) / free)) if free else 0.0
        return apart / spread if spread > 0 else apart

    def pairs(self, criterion: str = OVERALL, heldout: bool = False) -> Pairs:
        """Best against worst of each prompt. Raises RequestError when there is not a single one.

        "motion+fidelity" is the union of both: a prompt gives a pair for each, which may even contradict.
        """
        import numpy as np

        pairs = Pairs([], [], [], [])
        if "+" in criterion:
            for part in (self.pairs(name, heldout) for name in criterion.split("+")):
                pairs.prompt.extend(part.prompt)
                pairs.winner.extend(part.winner)
                pairs.loser.extend(part.loser)
                pairs.margin.extend(part.margin)
            return pairs
        scores = self.standardised(criterion)
        for prompt in self._prompts(heldout):
            row = scores[prompt]
            if np.isfinite(row).sum() < 2:
                continue
            best, worst = int(np.nanargmax(row)), int(np.nanargmin(row))
            margin = float(row[best] - row[worst])
            if margin > 0 and margin >= self.min_margin:
                pairs.prompt.append(prompt)
                pairs.winner.append(best)
                pairs.loser.append(worst)
                pairs.margin.append(margin)
        if not pairs:
            raise RequestError(
                f"no {'held-out ' if heldout else ''}preference pair for {criterion}: of none of the "
                f"{len(self._prompts(heldout))} prompts do two candidates differ by more than {self.min_margin:g} "
                "standard deviations; sample more candidates or prompts, or lower the margin"
            )
        return pairs

    def winners(self, criterion: str = OVERALL, limit: int | None = None) -> Examples:
        """The best candidate of each training prompt; with `limit` the so many furthest ahead of their prompt's mean.

        Raises RequestError when there is none, or fewer than `limit`.
        """
        import numpy as np

        scores = self.standardised(criterion)
        rows = [(p, int(np.nanargmax(scores[p]))) for p in self._prompts(False) if np.isfinite(scores[p]).any()]
        kept = [row for row in rows if scores[row] > 0]
        if not kept:
            raise RequestError(
                f"no winner for {criterion}: of none of the {self.n_train} training prompts do two candidates differ; "
                "sample more candidates or prompts"
            )
        if limit is not None:
            if len(kept) < limit:
                raise RequestError(
                    f"{limit} winners for {criterion} asked for and there are {len(kept)}; ask for fewer, or sample "
                    "more prompts"
                )
            kept = sorted(sorted(kept, key=lambda row: -scores[row])[:limit])  # the best, in the order of prompts
        return Examples([p for p, _ in kept], [best for _, best in kept], [float(scores[row]) for row in kept])

    def candidates(self, criterion: str = OVERALL) -> Examples:
        """Every scored candidate of the training prompts. Raises RequestError when none is scored."""
        import numpy as np

        scores = self.standardised(criterion)[: self.n_train]
        rows = [(int(prompt), int(candidate)) for prompt, candidate in np.argwhere(np.isfinite(scores))]
        if not rows:
            raise RequestError(f"no candidate was scored on {criterion}; sample more candidates or prompts")
        return Examples([p for p, _ in rows], [k for _, k in rows], [float(scores[row]) for row in rows])

    def clips(self) -> Examples:
        """The real clips of the training prompts."""
        return Examples(list(self._prompts(False)), None)

    def _prompts(self, heldout: bool) -> range:
        return range(self.n_train, len(self.ids)) if heldout else range(self.n_train)

    def summary(self) -> dict[str, Any]:
        """Counts for a record: how many pairs and winners each criterion gives, what could not be scored."""
        import numpy as np

        counts: dict[str, Any] = {}
        for criterion in (*self.criteria, OVERALL):
            entry: dict[str, int] = {}
            for key, rows in (
                ("pairs", lambda c=criterion: self.pairs(c)),
                ("heldout_pairs", lambda c=criterion: self.pairs(c, heldout=True)),
                ("winners", lambda c=criterion: self.winners(c)),
            ):
                try:
                    entry[key] = len(rows())
                except RequestError:
                    entry[key] = 0
            counts[criterion] = entry
        return {
            "prompts": len(self.ids), "train_prompts": self.n_train, "candidates": int(self.latents.shape[1]),
            "unscored": int((~np.isfinite(self.scores)).any(axis=-1).sum()), "criteria": counts,
        }


def collect(
    backbone: Backbone, track: Track, spec: PreferenceSpec, cache_dir: Path, progress: Progress | None = None
) -> PreferenceSet:
    """Samples, scores and caches candidates; what a former call left in `cache_dir` is not done again.

    The entry is addressed by everything that it depends on; each chunk of prompts is one file that is
    written atomically and carries the checksum of its content, so that a killed collection goes on
    where it was and a damaged file is made again. `progress` counts candidates.
    """
    annotator = annotator_of(track, "there are no preferences to learn from", "run only methods that need none")
    return collect_candidates(backbone, track, annotator, spec, cache_dir, progress)


def collect_candidates(
    backbone: Backbone, track: Track, annotator: Annotator | None, spec: PreferenceSpec, cache_dir: Path,
    progress: Progress | None = None,
) -> PreferenceSet:
    """As `collect`; without an annotator the candidates are sampled alone, and there are no criteria."""
    sources = sources_of(backbone, track, annotator, spec)
    key, count = key_of(sources), int(sources["prompts"])
    folder = cache_dir / "preferences" / key[:32]
    chunks = [range(start, min(start + spec.chunk, count)) for start in range(0, count, spec.chunk)]
    found: dict[int, dict[str, Any]] = {}
    for index in range(len(chunks)):
        if (chunk := _stored(folder / f"{index:05d}.safetensors", key)) is not None:
            found[index] = chunk
    processes, total = here(), count * spec.candidates
    missing = processes.from_main(lambda: [index for index in range(len(chunks)) if index not in found])
    done = total - sum(len(chunks[index]) * spec.candidates for index in missing)
    with processes.settled():
        if progress is not None:
            progress(done, total)
        for together in processes.rounds(missing):
            number, own = processes.share(together)
            if number is not None:
                clips = [track.clip("prompts", prompt) for prompt in chunks[number]]
                chunk = _sample_chunk(backbone, annotator, spec, clips)
                if own:
                    file = folder / f"{number:05d}.safetensors"
                    write_chunk(file, key, chunk)
                    if (written := _stored(file, key)) is None:
                        raise HalignError(f"{file} does not read back as it was written; its disk may be failing")
                    found[number] = written
            done += sum(len(chunks[index]) * spec.candidates for index in together)
            with processes.settled():  # where one of them is stopped, all stop
                if progress is not None:
                    progress(done, total)
    for index in range(len(chunks)):
        if index not in found:  # another process made it
            if (chunk := _stored(folder / f"{index:05d}.safetensors", key)) is None:
                raise RequestError(f"{folder}: the processes of this launch do not see each other's files there")
            found[index] = chunk
    data = _assemble(backbone, annotator, spec, sources, key, [found[index] for index in range(len(chunks))])
    if (known := annotator) is not None:
        data.annotate = lambda prompt, videos: _scores(known, videos, [track.clip("prompts", prompt)] * len(videos))
    return data


def _stored(file: Path, key: str) -> dict[str, Any] | None:
    """What `read_chunk` says, which reads all of it once for its checksum, with tensors that stay in the file."""
    if (chunk := read_chunk(file, key)) is None:
        return None
    tensors = {name: Stored(file, name, tuple(tensor.shape)) for name, tensor in chunk["tensors"].items()}
    return {**chunk, "tensors": tensors}


def sources_of(backbone: Backbone, track: Track, annotator: Annotator | None, spec: PreferenceSpec) -> dict[str, Any]:
    """Everything that candidates depend on (JSON-able). Raises RequestError where the track has too few prompts."""
    available = track.splits().get("prompts", 0)
    count = min(spec.prompts, available)
    if count < 2:
        raise RequestError(f"track {track.name}: {available} prompts; at least 2 are needed, one of them held out")
    return {
        "format": FORMAT,
        "spec": spec.model_dump(mode="json"),
        "backbone": backbone.name,
        "base_sha256": backbone.base_sha256,
        "precision": backbone.precision,
        "track": track.fingerprint(),
        "annotator": annotator.protocol if annotator is not None else "none",
        "prompts": count,
    }


def key_of(sources: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()


def split(prompts: int, heldout: float) -> int:
    """How many of at least 2 prompts are trained on: all but this share, at least one on either side."""
    return prompts - min(max(1, round(heldout * prompts)), prompts - 1)


def noise_name(clip_id: str, candidate: int) -> str:
    """Of the initial noise of a candidate: its own, common to everything that samples with this spec's seed."""
    return f"{clip_id}#candidate{candidate}"


def _sample_chunk(
    backbone: Backbone, annotator: Annotator | None, spec: PreferenceSpec, clips: Sequence[Clip]
) -> dict[str, Any]:
    import numpy as np
    import torch

    from halign_bench.masks import hand_mask

    condition = backbone.condition(clips)
    latents, scores = [], []
    for candidate in range(spec.candidates):
        noise = initial_noise(backbone, [noise_name(clip.id, candidate) for clip in clips], spec.seed)
        made = sample(backbone, condition, noise, nfe=spec.nfe, guidance=spec.guidance, shift=spec.shift)
        latents.append(made.float().cpu())
        found = np.zeros((len(clips), 0)) if annotator is None else _scores(annotator, backbone.decode(made), clips)
        found[~made.flatten(1).isfinite().all(1).cpu().numpy()] = np.nan  # of pictures made of no numbers
        scores.append(found)
    tensors = {
        "latents": torch.stack(latents, dim=1),
        "real": backbone.encode_clips(clips).float().cpu(),
        "scores": torch.from_numpy(np.stack(scores, axis=1)),
        **{f"condition.{name}": value.cpu().contiguous() for name, value in condition.items()},
    }
    layouts: list[SkeletonLayout | None] = [clip.layout for clip in clips]
    if any(clip.skeleton is not None and layout is not None for clip, layout in zip(clips, layouts, strict=True)):
        tensors["hand_mask"] = torch.stack([hand_mask(clip, backbone.latent_shape(), backbone.slots) for clip in clips])
    return {
        "tensors": tensors,
        "ids": [clip.id for clip in clips],
        "identities": [clip.identity for clip in clips],
    }


def _scores(annotator: Annotator, videos: np.ndarray, targets: Sequence[Clip]) -> np.ndarray:
    """`[B, criteria]`, fp64, of each video against its target."""
    import numpy as np

    given = [annotator(video, target) for video, target in zip(videos, targets, strict=True)]
    return np.array([[row[name] for name in annotator.criteria] for row in given], dtype=np.float64)


def _assemble(
    backbone: Backbone, annotator: Annotator | None, spec: PreferenceSpec, sources: dict[str, Any], key: str,
    chunks: Sequence[dict[str, Any]],
) -> PreferenceSet:
    import torch

    def joined(name: str) -> Joined:
        return Joined([chunk["tensors"][name] for chunk in chunks])

    shared = set.intersection(*(set(chunk["tensors"]) for chunk in chunks))
    masks = None
    if any("hand_mask" in chunk["tensors"] for chunk in chunks):
        nothing = torch.zeros(1, 1, *chunks[0]["tensors"]["real"].shape[2:])
        masks = Joined([  # a chunk without any skeleton has no hand in it
            chunk["tensors"].get("hand_mask", nothing.expand(len(chunk["ids"]), *nothing.shape[1:])) for chunk in chunks
        ])
    ids = [name for chunk in chunks for name in chunk["ids"]]
    data = PreferenceSet(
        ids=ids,
        identities=[name for chunk in chunks for name in chunk["identities"]],
        latents=joined("latents"),
        real=joined("real"),
        condition={
            name.removeprefix("condition."): joined(name) for name in sorted(shared) if name.startswith("condition.")
        },
        hand_mask=masks,
        criteria=tuple(annotator.criteria) if annotator is not None else (),
        scores=joined("scores")[:].numpy(),
        n_train=split(len(ids), spec.heldout),
        min_margin=spec.min_margin,
    )
    data.provenance = {**sources, "key": key, **(data.summary() if annotator is not None else {})}
    return data


__all__ = [
    "OVERALL", "Examples", "Pairs", "PreferenceSet", "PreferenceSpec", "collect", "collect_candidates", "key_of",
    "noise_name", "sources_of", "split",
]
