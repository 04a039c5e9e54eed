"""Reads a record and its protocol, naming everything that the schema does not allow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from halign_bench.protocol import SCHEMA
from halign_bench.record import Bootstrap, Record, metric_key, parse_key
from halign_bench.results import check_sha256, refuse_constant, whole
from halign_bench.validation.finding import Problem


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Named(_Part):
    name: str


class _Backbone(_Named):
    base_sha256: str
    frames: Annotated[int, Field(ge=1)]


class _Budget(_Part):
    samples: Annotated[int, Field(ge=1)]


class _Evaluation(_Part):
    clips: Annotated[int, Field(ge=1)]
    clips_sha256: str
    nfe: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    chunk: Annotated[int, Field(ge=1)]
    bootstrap: Bootstrap


class Agreed(BaseModel):
    """What the checks need of a protocol; other keys are its own affair."""

    version: Literal["halign-bench/protocol/1"] = SCHEMA
    track: _Named
    backbone: _Backbone
    training: _Budget
    evaluation: _Evaluation
    metrics: dict[str, str]

    def expected(self) -> dict[str, str]:
        """Every score that a finished record has -> its protocol string."""
        grid = [nfe if len(self.evaluation.nfe) > 1 else None for nfe in self.evaluation.nfe]
        parsed = [(*parse_key(key)[:2], text) for key, text in self.metrics.items()]
        return {metric_key(name, where, nfe): text for name, where, text in parsed for nfe in grid}


def read(path: Path) -> tuple[Record | None, list[Problem]]:
    """The record, or every reason why the file holds none."""
    try:
        document = json.loads(data := path.read_bytes(), parse_constant=refuse_constant, parse_int=whole)
        record = Record.model_validate(document)
        check_sha256(data, record.sha256)
    except OSError as error:
        return None, [("file", f"cannot be read ({error.strerror or error})")]
    except ValidationError as error:
        return None, schema_problems(error)
    except (ValueError, RecursionError) as error:
        return None, [("file", str(error) if "sha256" in str(error) else f"is no JSON document: {error}")]
    record.source = path
    return record, []


def schema_problems(error: ValidationError, prefix: str = "") -> list[Problem]:
    return [
        (prefix + (".".join(map(str, found["loc"])) or "record"), f"{found['msg'][:1].lower()}{found['msg'][1:]}")
        for found in error.errors()
    ]


def agreed(record: Record) -> tuple[Agreed | None, list[Problem]]:
    """The record's protocol, or what it lacks."""
    try:
        return Agreed.model_validate(record.protocol), []
    except ValidationError as error:
        return None, schema_problems(error, "protocol.")


__all__ = ["Agreed", "agreed", "read", "schema_problems"]
