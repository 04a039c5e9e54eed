"""The command group `halign-bench assets`. Nothing heavy is imported before a request is known to make sense."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halign_bench.errors import HalignError, Interrupted, RequestError
from halign_bench.printing import print_json, print_table

if TYPE_CHECKING:
    from halign_bench.assets.manifest import Asset
    from halign_bench.assets.store import Store

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    help="Published weights for `score`: what there is, what is here, and getting it. Nothing else downloads.",
    epilog="""Examples:

\b
  halign-bench assets list                                what is known, here, and under which licence
  halign-bench assets fetch inception-fid                 download it, check it, keep it
  halign-bench assets add inception-fid FILE              the same from a file, where there is no network
  halign-bench assets verify                              hash everything that is here again""",
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")]
Names = Annotated[list[str] | None, typer.Argument(help="Names as in `assets list`.", metavar="NAME")]
Folder = Annotated[
    Path | None,
    typer.Option("--dir", help="Folder of weights, instead of $HALIGN_ASSETS or the cache's.", metavar="DIR"),
]


@app.command(
    name="list",
    epilog="""Examples:

\b
  halign-bench assets list
  halign-bench assets list --dir weights/ --json""",
)
def list_assets(folder: Folder = None, as_json: Json = False) -> int:
    """List the published weights that metrics need, and which of them are here."""
    store = _store(folder)
    standings = {name: store.standing(name, "look") for name in store.assets}
    if as_json:
        print_json(
            {
                "schema": "halign-bench/assets/1",
                "folder": str(store.folder),
                "assets": [
                    {
                        **asset.model_dump(mode="json"), "state": standings[name].state,
                        "detail": standings[name].detail, "path": str(store.folder / asset.opens),
                    }
                    for name, asset in store.assets.items()
                ],
            }
        )  # fmt: skip
        return 0
    rows = [
        (name, standings[name].state, _size_words(asset.size), _hash_words(asset), ", ".join(asset.metrics),
         asset.licence)
        for name, asset in store.assets.items()
    ]  # fmt: skip
    header = ("name", "state", "size", "sha256", "needed by", "licence")
    print_table(header, rows, bad=[standing.state == "wrong" for standing in standings.values()])
    print(f"folder: {store.folder}")
    return 0


@app.command(
    epilog="""Examples:

\b
  halign-bench assets fetch inception-fid i3d-torchscript
  halign-bench assets fetch --all --dir weights/
  halign-bench assets fetch s3fd --mirror http://localhost:8000/weights"""
)
def fetch(
    names: Names = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Everything; what cannot be checked only with --trust.")
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(help="Folder on a server with the files under their published names.", metavar="URL"),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Also take files of which nobody states the sha256.")
    ] = False,
    folder: Folder = None,
    as_json: Json = False,
) -> int:
    """Download weights, check them and keep them; the same command goes on after an interruption."""
    store = _store(folder)
    if bool(names) == all_:
        raise RequestError("assets fetch: give names, or --all" if not names else "assets fetch: names or --all?")
    wanted = [store.asset(name) for name in names or store.assets]
    from halign_bench.assets.fetch import mirror_url, permit

    if mirror is not None:
        mirror_url(mirror, "")
    if all_ and not trust:
        for asset in wanted:
            if asset.sha256 is None:
                _say(f"{asset.name}: left out, since nobody states its sha256 (--trust takes it)")
        wanted = [asset for asset in wanted if asset.sha256 is not None]
    for asset in wanted:
        permit(asset, trust)
    report: list[dict[str, Any]] = []
    for asset in wanted:
        report.append(_fetch_one(store, asset, mirror, trust))
        if not as_json and report[-1]["path"]:
            print(f"{asset.name}: {report[-1]['path']}")
    if as_json:
        print_json({"schema": "halign-bench/assets-fetch/1", "assets": report})
    return 2 if any(entry["status"] == "failed" for entry in report) else 0


def _fetch_one(store: Store, asset: Asset, mirror: str | None, trust: bool) -> dict[str, Any]:
    from rich.console import Console

    from halign_bench.assets.fetch import fetch as fetch_asset
    from halign_bench.progress import Progress

    entry: dict[str, Any] = {"name": asset.name, "status": "there", "path": None, "error": None}
    try:
        if not store.standing(asset.name).usable:
            entry["status"] = "fetched"
            progress = Progress(Console(stderr=True))
            progress.say(f"{asset.name}: licence: {asset.licence}")
            with progress.phase(f"{asset.name}, MiB", (asset.size or 0) >> 20) as phase:
                fetch_asset(
                    store, asset.name, mirror=mirror, trust=trust, say=progress.say,
                    report=lambda done, total: phase(done >> 20, (total or done) >> 20),
                )  # fmt: skip
        entry["path"] = str(store.find(asset.name))
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command goes on where it stopped") from None
    except HalignError as problem:
        entry |= {"status": "failed", "error": str(problem)}
        _say(f"halign-bench: {problem}")
    return entry


@app.command(
    epilog="""Examples:

\b
  halign-bench assets add inception-fid ~/Downloads/pt_inception-2015-12-05-6726825d.pth
  halign-bench assets add insightface-buffalo-l ~/.insightface/models/buffalo_l
  halign-bench assets add i3d-videogpt i3d_pretrained_400.pt --trust"""
)
def add(
    name: Annotated[str, typer.Argument(help="As in `assets list`.")],
    file: Annotated[Path, typer.Argument(help="The file; of an archive also a folder of its members.")],
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Take it although it is not the published file, or nobody states its sha256."),
    ] = False,
    folder: Folder = None,
    as_json: Json = False,
) -> int:
    """Check a file that you have and copy it to the weights."""
    store = _store(folder)
    from halign_bench.assets.intake import add as add_asset

    path = add_asset(store, name, file.expanduser(), trust)
    standing = store.standing(name)
    if as_json:
        document = {"name": name, "path": str(path), "state": standing.state, "detail": standing.detail}
        print_json({"schema": "halign-bench/assets-add/1", **document})
    else:
        print(f"{name}: {path} ({standing.state})")
    return 0


@app.command(
    epilog="""Examples:

\b
  halign-bench assets verify
  halign-bench assets verify inception-fid --json"""
)
def verify(names: Names = None, folder: Folder = None, as_json: Json = False) -> int:
    """Hash the weights that are here again; exit code 1 if one is not the right one, or a named one is missing."""
    store = _store(folder)
    wanted = [store.asset(name).name for name in names or store.assets]
    standings = {name: store.standing(name, "again") for name in wanted}
    fine = {
        name: standing.usable or (standing.state == "missing" and not names) for name, standing in standings.items()
    }
    if as_json:
        print_json(
            {
                "schema": "halign-bench/assets-verify/1",
                "passed": all(fine.values()),
                "folder": str(store.folder),
                "assets": [{"name": n, "state": s.state, "detail": s.detail} for n, s in standings.items()],
            }
        )
    else:
        rows = [(name, standing.state, standing.detail) for name, standing in standings.items()]
        print_table(("name", "state", "detail"), rows, bad=[not ok for ok in fine.values()])
    return 0 if all(fine.values()) else 1


def _store(folder: Path | None) -> Store:
    from halign_bench.assets.store import Store

    store = Store(folder)
    if store.folder.exists() and not store.folder.is_dir():
        raise RequestError(f"{store.folder}: is a file; the weights lie in a folder")
    return store


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _size_words(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def _hash_words(asset: Asset) -> str:
    return {"publisher": "published", "others": "known", None: "sha256 not published"}[asset.sha256_from]
