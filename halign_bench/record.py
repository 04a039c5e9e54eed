"""What is kept of a cell (method × seed): the record, field by field, and the names of the scores in it."""

from __future__ import annotations

import json
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, PrivateAttr, model_validator

from halign_bench.atomic import atomic_write
from halign_bench.errors import RequestError
from halign_bench.track import LARGEST

SCHEMA: Literal["halign-bench/record/2"] = "halign-bench/record/2"

Finite = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Shared = Annotated[str, AfterValidator(sys.intern)]  # the same in most records: kept in memory once
Word = Annotated[str, Field(min_length=1)]
Names = Word | Annotated[tuple[Word, ...], Field(min_length=1)]
Status = Literal["done", "diverged", "failed", "timeout"]

MAX_REPLICATES = 100_000
SPEED = "seconds_per_second"  # measured once a record, by chunks of clips, not clip by clip


# Names of scores


class MetricKey(NamedTuple):
    """`fid@puppet/nfe30` taken apart: metric, extractor or track, NFE where a grid was run."""

    name: str
    where: str | None = None
    nfe: int | None = None


def metric_key(name: str, where: str | None = None, nfe: int | None = None) -> str:
    """The name of a score: metric, "@" extractor or track, "/nfe" network evaluations.

    >>> metric_key("fid", "puppet"), metric_key("fid", "puppet", 30)
    ('fid@puppet', 'fid@puppet/nfe30')
    """
    return f"{name}{f'@{where}' if where else ''}{f'/nfe{nfe}' if nfe is not None else ''}"


@lru_cache(maxsize=4096)  # the same few dozen names stand in every record
def parse_key(key: str) -> MetricKey:
    """The inverse of `metric_key`. Raises `RequestError` when the text is no such name.

    >>> parse_key("fid@puppet/nfe30")
    MetricKey(name='fid', where='puppet', nfe=30)
    >>> parse_key("hkc")
    MetricKey(name='hkc', where=None, nfe=None)
    """
    match = re.fullmatch(r"([^@/\s]+)(?:@([^@/\s]+))?(?:/nfe([0-9]+))?", key)
    if match is None:
        raise RequestError(f"{key!r} does not name a score; write metric@extractor or metric@extractor/nfe30")
    name, where, nfe = match.groups()
    if nfe and len(nfe) > 9:
        raise RequestError(f"{key!r}: no score is measured at so many network evaluations")
    return MetricKey(name, where, int(nfe) if nfe else None)


# The record


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CellIdentity(_Part):
    """Which cell a record is of. `method` is the variant as it stands in tables, e.g. diffusion-dpo[beta=500]."""

    method: str
    seed: Count
    track: str
    backbone: str


class ConfigUsed(_Part):
    given: JsonValue = Field(description="what was asked for")
    effective: JsonValue = Field(description="every number that was used")


class Base(_Part):
    name: str
    sha256: str


class Timings(_Part):
    """Seconds of wall time, apart; None where a step did not happen."""

    train: Seconds | None = None
    sample: Seconds | None = None
    score: Seconds | None = None
    chunks: dict[str, list[Seconds]] = Field(
        default_factory=dict, description="seconds that each chunk of clips took to sample, by NFE"
    )


class Training(_Part):
    """Cost of training alone; evaluation is not charged to it."""

    samples_seen: Count
    samples_sampled: Count = Field(default=0, description="drawn and scored to learn from, beside the budget")
    sampling_passes: Count = Field(default=0, description="samples through the network, without gradients, for these")
    steps: Count
    trained_parameters: Count
    peak_memory_bytes: Count | None = None


class Bootstrap(_Part):
    """Which resamples the replicates belong to; scores pair only where all of it is equal."""

    replicates: Annotated[int, Field(ge=1, le=MAX_REPLICATES)]
    seed: int
    clips: Count
    identities: Count
    sha256: str = Field(description="of the resampled clips, from `stats.bootstrap_signature`")


class MetricValue(_Part):
    """A score, or why there is none."""

    value: Finite | None
    ci: tuple[Finite, Finite] | None = Field(default=None, description="95 %, over clips clustered by identity")
    n: Count = Field(description="clips scored")
    failed: dict[str, Count] = Field(default_factory=dict, description="clips that could not be scored, by reason")
    unit: Shared
    higher_is_better: bool | None
    bounds: tuple[Finite | None, Finite | None] = (None, None)
    protocol: Shared
    reason: str | None = None

    @model_validator(mode="after")
    def _says_why(self) -> MetricValue:
        if self.value is None and not self.reason:
            raise ValueError("a score that could not be measured needs a reason")
        if self.ci is not None and self.ci[0] > self.ci[1]:
            raise ValueError("the interval's ends are in the wrong order")
        return self


class ClaimData(_Part):
    """A method's claim, as `halign_bench.method.Claim` states it."""

    metric: Names
    better_than: Names
    source: str
    margin: Finite = 0.0
    times: Annotated[Finite, Field(gt=0)] | None = None
    of: str = ""

    @model_validator(mode="after")
    def _names_scores(self) -> ClaimData:
        for metric in (self.metric,) if isinstance(self.metric, str) else self.metric:
            try:
                parse_key(metric)
            except RequestError as error:
                raise ValueError(str(error)) from None
        return self


class Sign(_Part):
    """A sign of trouble that was seen: a warning, not a failure. `step` is of its stage, None for samples."""

    name: str
    step: Count | None = None
    value: Finite
    text: str


class Environment(_Part):
    """The software and the machine. No host, user or path names."""

    python: str
    packages: dict[str, str]
    git_commit: str | None = None
    git_dirty: bool | None = None
    hardware: dict[str, JsonValue]


class Record(_Part):
    """One cell: what was asked, what was used, what came out. A failure is a record too, with its error."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    # 1 had no checksums; it is read as what it is and written no more.
    schema_: Literal["halign-bench/record/1", "halign-bench/record/2"] = Field(default=SCHEMA, alias="schema")
    cell: CellIdentity
    cell_hash: str | None = Field(default=None, description="what must be equal for this record to stand for a cell")
    status: Status
    error: str | None = None
    config: ConfigUsed
    protocol: dict[str, JsonValue]
    protocol_hash: str
    base: Base
    evaluators: dict[str, str] = Field(description="protocol string, with the weights' hash, of each extractor")
    environment: Environment
    timings: Timings = Timings()
    training: Training | None = None
    provenance: dict[str, JsonValue] = Field(default_factory=dict, description="of preferences and other data")
    metrics: dict[str, MetricValue] = Field(default_factory=dict)
    bootstrap: Bootstrap | None = None
    claims: list[ClaimData] = Field(default_factory=list)
    warnings: list[Sign] = Field(default_factory=list, description="signs of trouble, in training and in samples")
    files: dict[str, str] = Field(default_factory=dict, description="what lies beside the record, by kind")
    started: str | None = None
    finished: str | None = None

    sha256s: dict[str, str] = Field(default_factory=dict, description="of the files beside it, by their kind")
    sha256: str | None = Field(default=None, description="of all that stands before it in the file, as it was written")

    _source: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _explains_failure(self) -> Record:
        if self.schema_ != SCHEMA and (self.sha256 or self.sha256s):
            raise ValueError(f"a record of {self.schema_} has no checksums")
        if self.status != "done" and not self.error:
            raise ValueError(f"a record with status {self.status!r} needs its error")
        for key in self.metrics:
            try:
                parse_key(key)
            except RequestError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def source(self) -> Path | None:
        """The file it was read from or written to."""
        return self._source

    @source.setter
    def source(self, path: Path) -> None:
        self._source = path

    @property
    def name(self) -> str:
        return f"{self.cell.method} seed {self.cell.seed}"


def record_schema() -> dict[str, Any]:
    """The JSON schema of a record."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Record.model_json_schema()}


def write_schema(path: Path) -> None:
    atomic_write(path, json.dumps(record_schema(), indent=2, ensure_ascii=False) + "\n")
