"""The manifest of assets, archives of weights, and what is said to be trusted."""

from __future__ import annotations

import hashlib
import io
import json
import random
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

from fuzzing.mutating import TEXTS, damaged, odd_json
from fuzzing.worker import Input

MEMBERS = {"det.onnx": b"detector" * 40, "rec.onnx": bytes(range(256))}
PLAIN = b"weights " * 100
NAMES = (
    "../../x", "/tmp/fuzz-x", "..\\x", "a/../../x", "C:\\x", "C:/x", "\\\\host\\x", "./det.onnx", "det.onnx/", "~/x",
    "nul", "a\0b", "sub/det.onnx", "det.onnx", "é", "\u202eonnx.det", "\x1b[31m", "a\nb", "", "x" * 300,
)  # fmt: skip


def document() -> dict[str, Any]:
    def entry(name: str, **more: Any) -> dict[str, Any]:
        return {
            "name": name, "summary": "weights", "urls": [f"https://example.org/{name}"], "licence": "none",
            "sha256_from": "publisher", "metrics": ["fid"], "needs": [], **more,
        }  # fmt: skip

    members = [{"file": n, "size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in MEMBERS.items()]
    packed = archive(list(MEMBERS.items()))
    plain = {"size": len(PLAIN), "sha256": hashlib.sha256(PLAIN).hexdigest()}
    return {"schema": "halign-bench/manifest/1", "assets": [
        entry("plain", file="plain.pth", format="state-dict", **plain),
        entry("packed", file="packed.zip", size=len(packed), sha256=hashlib.sha256(packed).hexdigest(),
              format="archive", members=members),
        entry("script", file="script.pt", size=None, sha256=None, format="torchscript") | {"sha256_from": None},
    ]}  # fmt: skip


def archive(entries: list[tuple[str, bytes]], links: frozenset[str] = frozenset(), method: int = 8) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as file:
        warnings.simplefilter("ignore")  # of names that stand twice
        for name, content in entries:
            about = zipfile.ZipInfo("x", (2024, 1, 1, 0, 0, 0))
            about.filename = about.orig_filename = name
            if name in links:
                about.external_attr = (stat.S_IFLNK | 0o777) << 16
            about.compress_type = method
            file.writestr(about, content)
    return buffer.getvalue()


class Manifest:
    """A damaged manifest, read; a damaged or hostile archive, unpacked by a whole one."""

    def seeds(self, scratch: Path, clips: Path | None) -> list[Input]:
        from halign_bench.assets.manifest import read

        read(json.dumps(self._known()))
        return [{}]

    def _known(self) -> dict[str, Any]:
        """With the fields that an asset has."""
        from halign_bench.assets.manifest import Asset

        made = document()
        for entry in made["assets"]:
            for name in set(entry) - set(Asset.model_fields):
                del entry[name]
        return made

    def change(self, seeds: list[Input], rng: random.Random) -> Input:
        made: Input = {"manifest.json": json.dumps(self._known()).encode(), "plain.pth": PLAIN}
        kind = rng.random()
        if kind < 0.4:
            made["manifest.json"] = odd_json(self._known(), rng)
            return {**made, "packed.zip": archive(list(MEMBERS.items()))}
        entries, links = list(MEMBERS.items()), set()
        for _ in range(rng.choice((0, 1, 1, 2))):
            entries.insert(rng.randrange(3), (rng.choice(NAMES), rng.choice((b"", b"/etc/passwd", b"x" * 50))))
            if rng.random() < 0.3:
                links.add(rng.choice(entries)[0])
        if rng.random() < 0.05:
            entries += [(f"many/{n}", b"") for n in range(1500)]
        if rng.random() < 0.05:  # much from little
            entries[0] = (entries[0][0], bytes(rng.choice((10**6, 10**7))))
        packed = archive(entries, frozenset(links), rng.choice((0, 8, 8, 12, 14)))
        return {**made, "packed.zip": damaged(packed, rng) if rng.random() < 0.6 else packed}

    def run(self, folder: Path) -> None:
        from halign_bench.assets.intake import add
        from halign_bench.assets.manifest import read
        from halign_bench.assets.store import Store

        known = read((folder / "manifest.json").read_text(encoding="utf-8", errors="surrogateescape"), "manifest.json")
        store = Store(folder / "assets", known)
        for name in known:
            store.standing(name)
        # `--trust` is what makes the contents of an archive be taken as they are.
        for name, trust in (("plain", False), ("packed", False), ("packed", True)):
            if name not in known:
                continue
            source = folder / ("packed.zip" if name == "packed" else "plain.pth")
            path = add(store, name, source, trust)
            inside = store.folder.resolve()
            for file in [path, *path.rglob("*")]:
                if file.is_symlink() or not file.resolve().is_relative_to(inside):
                    raise AssertionError(f"{file} leads out of the folder of assets")
            store.standing(name, "again")


class Trusted:
    """Lists of trusted files and remembered hashes, damaged, beside files that are trusted and files that are not."""

    def seeds(self, scratch: Path, clips: Path | None) -> list[Input]:
        return [{}]

    def change(self, seeds: list[Input], rng: random.Random) -> Input:
        script = b"torchscript" if rng.random() < 0.5 else rng.choice(TEXTS).encode("utf-8", "surrogatepass")
        right = hashlib.sha256(b"torchscript").hexdigest()
        trusted = {"schema": "halign-bench/trusted/1", "files": {"script.pt": right}}
        hashes = {"schema": "halign-bench/hashes/1", "files": {"/somewhere/script.pt": {
            "stat": [len(script), 0, 0], "sha256": right,
        }}}  # fmt: skip
        made: Input = {"assets/script.pt": script, "assets/plain.pth": PLAIN}
        which = rng.random()
        text = json.dumps(trusted).encode()
        if which < 0.6:
            text = odd_json(trusted, rng)
        elif which < 0.7:
            text = damaged(text, rng)
        made["cache/trusted-assets.json"] = text
        made["cache/asset-hashes.json"] = odd_json(hashes, rng) if which > 0.5 else json.dumps(hashes).encode()
        return made

    def run(self, folder: Path) -> None:
        from halign_bench.assets.manifest import Asset, read
        from halign_bench.assets.store import Store

        made = document()
        for entry in made["assets"]:
            for name in set(entry) - set(Asset.model_fields):
                del entry[name]
        store = Store(folder / "assets", read(json.dumps(made)))
        script = store.folder / "script.pt"
        store.trust.set("plain.pth", None)
        for effort in ("look", "once", "again"):
            store.standing("script", effort)  # type: ignore[arg-type]
        told = store.trust("script.pt")
        if store.find("script") and told != hashlib.sha256(script.read_bytes()).hexdigest():
            raise AssertionError("a file is opened whose hash nobody trusted")
        store.require_trust("script", script)


TARGETS = {"manifest": Manifest, "trusted": Trusted}
