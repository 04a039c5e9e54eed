"""Fetching an asset: where from, one process at a time, checked, and in its place only when whole and right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from halign_bench.assets.download import Patience, Report, Say, download
from halign_bench.assets.intake import take
from halign_bench.assets.store import Store
from halign_bench.errors import RequestError
from halign_bench.locking import locked

if TYPE_CHECKING:
    from halign_bench.assets.manifest import Asset


def fetch(
    store: Store,
    name: str,
    *,
    mirror: str | None = None,
    trust: bool = False,
    patience: Patience | None = None,
    report: Report = lambda done, total: None,
    say: Say = lambda text: None,
) -> Path:
    """Fetches what is missing of an asset and returns where it lies; what is there and right is left alone.

    `mirror` is a folder on an http(s) server that holds files under their published names, and is used instead of
    the published addresses. `trust` takes a file of which nobody states the sha256, and expects the same from then
    on; it excuses no file that differs from a known hash. After an interruption the same call goes on. Raises
    `RequestError`.
    """
    asset = store.asset(name)
    permit(asset, trust)
    place = store.folder / asset.opens
    if store.standing(name).usable:
        return place
    busy = f"another process is fetching {asset.file} there; wait for it"
    with locked(store.folder / f".{asset.file}.lock", str(store.folder), busy):
        if store.standing(name).usable:  # another process was quicker
            return place
        part = store.folder / f".{asset.file}.part"
        urls = asset.urls if mirror is None else (mirror_url(mirror, asset.file),)
        plain = mirror is not None and urlsplit(mirror).scheme == "http"
        try:
            found = download(
                urls, part, asset.size, asset.sha256, http=plain, patience=patience, report=report, say=say
            )
        except RequestError as problem:
            raise RequestError(f"{name}: {problem}") from None
        # Only a file without a published hash is taken on trust.
        take(store, name, part, found, trust=asset.sha256 is None)
    return place


def permit(asset: Asset, trust: bool) -> None:
    """Raises `RequestError` for what could not be checked once it is here, unless the user trusts it."""
    if asset.sha256 is None and not trust:
        raise RequestError(
            f"{asset.name}: nobody states its sha256, so that a download cannot be checked; --trust takes what comes "
            "and expects the same file from then on"
        )


def mirror_url(mirror: str, file: str) -> str:
    """
    >>> mirror_url("http://localhost:8000/weights", "i3d.pt")
    'http://localhost:8000/weights/i3d.pt'
    """
    parts = urlsplit(mirror)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise RequestError(f"--mirror {mirror}: not the address of a folder, like https://host/weights")
    return f"{mirror.rstrip('/')}/{quote(file)}"


__all__ = ["fetch", "mirror_url", "permit"]
