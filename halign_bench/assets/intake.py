"""How files get into the folder of assets: checked while they are copied, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from halign_bench.assets.archive import MAX_BYTES, opened
from halign_bench.assets.hashing import CHUNK
from halign_bench.assets.store import Store
from halign_bench.atomic import atomic_path
from halign_bench.errors import RequestError

if TYPE_CHECKING:
    from halign_bench.assets.manifest import Asset, Part


def add(store: Store, name: str, source: Path, trust: bool = False) -> Path:
    """Copies a file into the folder, if it is the right one or `trust` says to take it as it is.

    For an archive, `source` may be the archive, a folder with its members, or its only member. What is hashed is
    what is written, so that a file that changes meanwhile cannot slip in; a file that lies at its place already is
    only hashed. With `trust` the hash of what was given is recorded and expected from then on. Raises
    `RequestError`; a file that was in the folder then still is.
    """
    asset = store.asset(name)
    if asset.sha256 is None and not trust:
        raise RequestError(
            f"{name}: nobody states its sha256, so that {source} cannot be checked; --trust takes it as it is, "
            "and expects the same file from then on"
        )
    if not source.exists():
        raise RequestError(f"{source}: no such file")
    for part in asset.parts:
        path = store.folder / part.file
        if path.exists() and source.samefile(path):
            _accept(store, part, store.memory.look(path), path.stat().st_size, source, trust)
            continue
        with _readable(asset, part, source, trust) as stream:
            _put(store, part, stream, source, trust)
    return store.folder / asset.opens


def take(store: Store, name: str, fetched: Path, sha256: str, trust: bool) -> None:
    """Moves a downloaded file with this hash to its place, or unpacks it there and deletes it.

    Raises `RequestError` where `add` does.
    """
    asset = store.asset(name)
    if asset.members:
        for part in asset.parts:
            with _readable(asset, part, fetched, trust) as stream:
                _put(store, part, stream, fetched, trust)
        fetched.unlink()
        return
    (part,) = asset.parts
    _accept(store, part, sha256, fetched.stat().st_size, fetched, trust)
    path = store.folder / part.file
    with _writing(path):
        os.replace(fetched, path)
    store.memory.remember(path, sha256)


@contextlib.contextmanager
def _readable(asset: Asset, part: Part, source: Path, trust: bool) -> Iterator[IO[bytes]]:
    """The bytes of a part, wherever in `source` they are."""
    name = Path(part.file).name
    with contextlib.ExitStack() as stack:
        try:
            if asset.members and source.is_dir():
                if not (source / name).is_file():
                    raise RequestError(f"{source}: holds no file {name}")
                stream: IO[bytes] = stack.enter_context((source / name).open("rb"))
            elif asset.members and (".zip" in source.suffixes or len(asset.parts) > 1):
                archive = stack.enter_context(opened(source))
                stream = stack.enter_context(archive.member(name, None if trust else part.size))
            else:
                stream = stack.enter_context(source.open("rb"))
        except OSError as problem:
            raise RequestError(f"{source}: cannot be read ({problem.strerror or problem})") from None
        yield stream


def _put(store: Store, part: Part, stream: IO[bytes], source: Path, trust: bool) -> None:
    path = store.folder / part.file
    digest, size = hashlib.sha256(), 0
    with _writing(path), atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                if size > MAX_BYTES:
                    raise RequestError(f"{source}: has more than the {MAX_BYTES} bytes allowed")
                file.write(chunk)
        _accept(store, part, digest.hexdigest(), size, source, trust)
    store.memory.remember(path, digest.hexdigest())


def _accept(store: Store, part: Part, found: str, size: int, source: Path, trust: bool) -> None:
    """Raises `RequestError` for a file that is neither the published one nor trusted; records the trust."""
    if found != part.sha256 and not trust:
        name = Path(part.file).name
        published = f"{part.size} bytes and sha256 {part.sha256}"
        raise RequestError(
            f"{source}: not the published {name}, which has {published}: this has {size} bytes and sha256 {found}; "
            "it was not taken (--trust takes it as it is)"
        )
    store.trust.set(part.file, None if found == part.sha256 else found)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise RequestError(f"{path}: cannot be written ({problem.strerror or problem})") from None


__all__ = ["add", "take"]
