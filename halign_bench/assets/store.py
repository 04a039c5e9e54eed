"""The folder of assets: where weights lie, and whether they are the right ones.

The folder is the one given, else `$HALIGN_ASSETS`, else `assets` in the cache folder. Files lie in it under their
published names, members of an archive in a folder of the archive's name; so a folder filled by hand or copied from
another machine works too, also one that cannot be written. Nothing is taken on its name: a file is hashed before it
is first used, and the result is remembered (`hashing`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from halign_bench.assets.hashing import Memory, sha256_of
from halign_bench.assets.trust import Trust
from halign_bench.errors import RequestError
from halign_bench.folder import cache_dir
from halign_bench.registry import unknown

if TYPE_CHECKING:
    from halign_bench.assets.manifest import Asset, Part

State = Literal["verified", "trusted", "unchecked", "untrusted", "wrong", "missing"]
WORST_FIRST: tuple[State, ...] = ("missing", "wrong", "untrusted", "unchecked", "trusted", "verified")


@dataclass(frozen=True)
class Standing:
    """How an asset stands.

    verified   every file has the published hash
    trusted    every file has the hash that the user trusted, or the published one
    unchecked  there, and not hashed since it came (never the answer when hashing was asked for)
    untrusted  there, but nobody states its hash and the user has not said that it is trusted
    wrong      a file is neither the published nor a trusted one
    missing    not there, or not all of it
    """

    state: State
    detail: str

    @property
    def usable(self) -> bool:
        return self.state in ("verified", "trusted")


class Store:
    """Assets in a folder, which need not exist."""

    def __init__(self, folder: Path | None = None, assets: Mapping[str, Asset] | None = None) -> None:
        if assets is None:
            from halign_bench.assets.manifest import published

            assets = published()
        in_environment = os.environ.get("HALIGN_ASSETS")
        chosen = folder or (Path(in_environment) if in_environment else cache_dir() / "assets")
        self.assets = assets
        self.folder = chosen.expanduser().absolute()
        self.option = "" if folder is None else f" --dir {folder}"  # what commands told to the user need
        self.memory = Memory(cache_dir() / "asset-hashes.json")
        self.trust = Trust()

    def asset(self, name: str) -> Asset:
        """Raises `RequestError` for a name that is not in the manifest, with the nearest one."""
        if name not in self.assets:
            raise RequestError(unknown("asset", name, self.assets))
        return self.assets[name]

    def find(self, name: str) -> Path:
        """The file of an asset, or the folder of an archive's members, after checking that they are right.

        Raises `RequestError`: one sentence that says what is wrong and the command that helps.
        """
        asset, standing = self.asset(name), self.standing(name)
        if standing.usable:
            return self.folder / asset.opens
        raise RequestError(f"{name}: {standing.detail}; {self._advice(asset, standing.state)}")

    def sha256s(self, name: str) -> list[str]:
        """Hashes of an asset's files. Raises `OSError` when one is not there."""
        return [self.memory.sha256(self.folder / part.file) for part in self.asset(name).parts]

    def standing(self, name: str, effort: Literal["look", "once", "again"] = "once") -> Standing:
        """How an asset stands. `look` reads no weights, `once` hashes what is not known, `again` hashes everything.

        Raises `RequestError` for a file that is there and cannot be read.
        """
        found = []
        for part in self.asset(name).parts:
            found.append(self._part_standing(part, effort))
            if found[-1].state in ("missing", "wrong"):
                break
        return min(found, key=lambda standing: WORST_FIRST.index(standing.state))

    def _part_standing(self, part: Part, effort: str) -> Standing:
        path, trusted = self.folder / part.file, self.trust(part.file)
        try:
            if not path.is_file():
                return Standing("missing", f"{path} is not there")
            size = path.stat().st_size
            if trusted is None and part.size not in (None, size):
                return Standing("wrong", f"{path} has {size} bytes, the published file {part.size}")
            if trusted is None and part.sha256 is None:
                return Standing("untrusted", f"{path} cannot be checked, since nobody states its sha256")
            hashed = {"look": self.memory.known, "once": self.memory.sha256, "again": self.memory.look}[effort](path)
        except OSError as problem:
            raise RequestError(f"{path}: cannot be read ({problem.strerror or problem})") from None
        if hashed is None:
            return Standing("unchecked", f"{path} has not been hashed yet")
        if hashed == part.sha256:
            return Standing("verified", f"sha256 {hashed}")
        if hashed == trusted:
            return Standing("trusted", f"sha256 {hashed}, trusted by you")
        expected = f"the one you trusted {trusted[:12]}…" if trusted else f"the published file {str(part.sha256)[:12]}…"
        return Standing("wrong", f"{path} has sha256 {hashed[:12]}…, {expected}")

    def trusted(self, name: str, path: Path) -> bool:
        """Whether the bytes of `path` are the published ones of this asset, or ones that the user said to trust.

        `path` may lie anywhere. It is hashed now, whatever is remembered: this is asked before something is opened
        that can run code. Raises `RequestError` when it cannot be read.
        """
        parts = self.asset(name).parts
        try:
            return sha256_of(path) in {hashed for part in parts for hashed in (part.sha256, self.trust(part.file))}
        except OSError as problem:
            raise RequestError(f"{path}: cannot be read ({problem.strerror or problem})") from None

    def require_trust(self, name: str, path: Path) -> None:
        """To be called before a file of an executable format is opened. Raises `RequestError` if it is not trusted."""
        if not self.trusted(name, path):
            raise RequestError(
                f"{path}: not the published {name}, and opening a {self.asset(name).format} file runs what is in it; "
                f"if you trust it: `halign-bench assets add {name} {path} --trust{self.option}`"
            )

    def _advice(self, asset: Asset, state: State) -> str:
        add = f"`halign-bench assets add {asset.name} {{}}{self.option}`"
        archive = self.folder / asset.file
        if state == "untrusted":
            return f"if you trust it: {add.format(f'{archive} --trust')}"
        if state == "missing" and asset.members and archive.is_file():
            return f"unpack it: {add.format(archive)}"
        trust = " --trust" if asset.sha256 is None else ""
        fetch = f"`halign-bench assets fetch {asset.name}{trust}{self.option}`"
        return f"get it: {fetch}, or without a network {add.format(f'FILE{trust}')}"


__all__ = ["Standing", "State", "Store"]
