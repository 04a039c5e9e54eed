"""What is held equal for every method: the profiles' numbers, and the protocol written into each record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from halign_bench.errors import RequestError

SCHEMA: Literal["halign-bench/protocol/1"] = "halign-bench/protocol/1"


class Profile(BaseModel):
    """How much of everything a run spends. Every number is ours, chosen for the time stated in `summary`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str
    prompts: int = Field(ge=2, description="prompts that candidates are sampled for; their clips are the plain data")
    candidates: int = Field(ge=2, description="samples of the base for each prompt")
    preference_nfe: int = Field(ge=1, description="network evaluations for each candidate, without guidance")
    samples: int = Field(ge=1, description="training budget of each method: samples that pass the network")
    batch_size: int = Field(ge=1, description="samples in an optimiser step; a pair is two")
    learning_rate: float = Field(gt=0)
    rank: int = Field(ge=1, description="of every LoRA")
    eval_clips: int = Field(ge=2)
    nfe: tuple[int, ...] = Field(min_length=1, description="grid to evaluate at; the first is the headline")
    replicates: int = Field(ge=20, description="bootstrap replicates")
    chunk: int = Field(default=16, ge=1, description="clips sampled together; part of the protocol for bit-equality")


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke", summary="does the path work: under 2 minutes on two cores, too little data to rank anything",
            prompts=16, candidates=2, preference_nfe=6, samples=256, batch_size=8, learning_rate=1e-4, rank=8,
            eval_clips=24, nfe=(8,), replicates=200, chunk=8,
        ),
        Profile(
            name="default", summary="a leaderboard of base, sft and one method in about 10 minutes on two cores",
            prompts=256, candidates=4, preference_nfe=20, samples=1600, batch_size=16, learning_rate=1e-4, rank=16,
            eval_clips=96, nfe=(20, 10), replicates=1000,
        ),
        Profile(
            name="paper", summary="enough clips and training to report; for a GPU or a night",
            prompts=512, candidates=4, preference_nfe=30, samples=40_000, batch_size=32, learning_rate=1e-4, rank=32,
            eval_clips=512, nfe=(100, 30, 10), replicates=2000,
        ),
    )
}


def profile_named(name: str, nfe: tuple[int, ...] | None = None) -> Profile:
    """The profile, with its grid of network evaluations replaced when `nfe` is given. Raises `RequestError`."""
    from difflib import get_close_matches

    if name not in PROFILES:
        close = get_close_matches(name, PROFILES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise RequestError(f"--profile {name}: there are {', '.join(PROFILES)}{hint}")
    profile = PROFILES[name]
    if nfe is None:
        return profile
    if not nfe or min(nfe) < 1:
        raise RequestError(f"--nfe {','.join(map(str, nfe))}: give whole numbers from 1 up, for example --nfe 30,10")
    return profile.model_copy(update={"nfe": tuple(dict.fromkeys(nfe))})


class Protocol(BaseModel):
    """Everything that two records must share before their scores may stand in one table.

    Paths, executor, device name and number of seeds are circumstances of a run, not part of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal["halign-bench/protocol/1"] = SCHEMA
    profile: str
    track: dict[str, Any]
    backbone: dict[str, Any]
    preferences: dict[str, Any]
    training: dict[str, Any]
    evaluation: dict[str, Any]
    metrics: dict[str, str] = Field(description="metric key -> protocol string")

    @property
    def sha256(self) -> str:
        return sha256_of(self.model_dump(mode="json"))

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Where another protocol (as read back from JSON) differs: "training.samples 3200 here, 256 there"."""
        mine, theirs = _flat(self.model_dump(mode="json")), _flat(other)
        return [
            f"{key}: {_short(mine.get(key, 'absent'))} now, {_short(theirs.get(key, 'absent'))} there"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def sha256_of(value: Any) -> str:
    """Of a JSON-able value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(inner, Mapping):
            flat |= _flat(inner, name)
        else:
            flat[name] = inner
    return flat


def _short(value: Any, width: int = 48) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= width else text[: width - 3] + "..."


__all__ = ["PROFILES", "Profile", "Protocol", "profile_named", "sha256_of"]
