"""The manifest of published weights, typed: what each is, where it lies, its size, hash and licence, who needs it.

`manifest.json` pins what could be found out. `sha256_from` says by whom: `publisher` (stated at the place of
publication, or the file lies in the publisher's git repository), or `others` (several independent projects that
downloaded the file record the same hash and size; of torch hub's names `…-6726825d.pth` the publisher states the
first eight digits). null means that nobody could be found who states it; such a file is opened only if the user
trusts it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from halign_bench.errors import RequestError

SCHEMA = "halign-bench/manifest/1"
PUBLISHED = Path(__file__).with_name("manifest.json")
EXECUTABLE = frozenset(("torchscript", "pickle"))  # opening one runs what its author wrote


def _https(url: str) -> str:
    if not url.startswith("https://") or any(character.isspace() for character in url):
        raise ValueError("is no https address")
    return url


Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]  # never a path
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(gt=0, strict=True)]
Words = Annotated[str, Field(pattern=r"\S")]
Url = Annotated[str, AfterValidator(_https)]


class Part(BaseModel):
    """One file as it lies in the folder of assets. `file` is relative to that folder (in the manifest: a name)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    size: Size | None
    sha256: Sha256 | None


class Member(Part):
    """A file that is taken out of an archive, by its name there, in whichever folder."""

    file: FileName


class Asset(BaseModel):
    """One published file. `size` is in bytes; `urls` are tried in this order; `metrics` are those that need it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    summary: Words
    file: FileName
    urls: Annotated[tuple[Url, ...], Field(min_length=1)]
    size: Size | None
    sha256: Sha256 | None
    sha256_from: Literal["publisher", "others"] | None
    licence: Words
    metrics: Annotated[tuple[Words, ...], Field(min_length=1)]
    format: Literal["state-dict", "torchscript", "onnx", "pickle", "archive"]
    members: tuple[Member, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Asset:
        if (self.sha256 is None) != (self.sha256_from is None):
            raise ValueError("sha256 and sha256_from go together")
        if (self.format == "archive") != bool(self.members):
            raise ValueError("an archive names its members, and nothing else does")
        if self.sha256 and not all(member.sha256 for member in self.members):
            raise ValueError("an archive with a sha256 has one for each member")
        if repeated := _repeated(member.file for member in self.members):
            raise ValueError(f"names the member {repeated} twice")
        return self

    @property
    def executable(self) -> bool:
        return self.format in EXECUTABLE

    @property
    def parts(self) -> tuple[Part, ...]:
        """What lies in the folder of assets once it is there: the file, or an archive's members in a folder."""
        if not self.members:
            return (Part(file=self.file, size=self.size, sha256=self.sha256),)
        folder = Path(self.file).stem
        return tuple(Part(file=f"{folder}/{m.file}", size=m.size, sha256=m.sha256) for m in self.members)

    @property
    def opens(self) -> str:
        """What a reader is given, relative to the folder: the only file, or the folder of several members."""
        return self.parts[0].file if len(self.parts) == 1 else Path(self.file).stem


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_: Literal["halign-bench/manifest/1"] = Field(alias="schema")
    assets: tuple[Asset, ...]

    @model_validator(mode="after")
    def _distinct(self) -> _Manifest:
        if repeated := _repeated(asset.name for asset in self.assets):
            raise ValueError(f"{repeated} stands there twice")
        # Also where a file system does not tell upper from lower case.
        if repeated := _repeated(asset.opens.split("/")[0].lower() for asset in self.assets):
            raise ValueError(f"two assets would lie under {repeated}")
        return self


def read(text: str, source: str = "manifest") -> dict[str, Asset]:
    """The assets of a manifest by name, in its order. Raises `RequestError`: one sentence that names the entry."""
    try:
        return {asset.name: asset for asset in _Manifest.model_validate(json.loads(text)).assets}
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        place = " ".join(".".join(str(part) for part in first["loc"]).split())
        message = first["msg"].removeprefix("Value error, ")
        raise RequestError(f"{source}: {f'{place}: ' if place else ''}{message}") from None
    except (ValueError, RecursionError) as problem:
        raise RequestError(f"{source}: not JSON ({problem})") from None


@cache
def published() -> Mapping[str, Asset]:
    """The assets that this version of halign-bench knows."""
    return read(PUBLISHED.read_text(encoding="utf-8"), PUBLISHED.name)


def _repeated(values: Any) -> str | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)


__all__ = ["EXECUTABLE", "Asset", "Member", "Part", "published", "read"]
