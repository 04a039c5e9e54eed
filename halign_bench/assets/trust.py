"""What the user said to trust: hashes of files that nobody published, or that are not the published ones.

Kept in the user's cache folder and not beside the weights: who can write into a shared folder of weights must not be
able to say there that they are to be trusted. Losing it means being asked again.
"""

from __future__ import annotations

import json
from pathlib import Path

from halign_bench.atomic import atomic_write
from halign_bench.documents import parsed
from halign_bench.errors import RequestError
from halign_bench.folder import cache_dir

SCHEMA = "halign-bench/trusted/1"


class Trust:
    """sha256 by file, relative to a folder of assets."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or cache_dir() / "trusted-assets.json"

    def __call__(self, part: str) -> str | None:
        return self._read().get(part)

    def set(self, part: str, sha256: str | None) -> None:
        """Expects this hash from now on; None: only the published one. Raises `RequestError`."""
        before = self._read()
        files = {name: known for name, known in before.items() if name != part}
        if sha256 is not None:
            files[part] = sha256
        if files != before:
            try:
                atomic_write(self.file, json.dumps({"schema": SCHEMA, "files": files}, indent=1) + "\n")
            except OSError as problem:
                raise RequestError(f"{self.file}: cannot be written ({problem.strerror or problem})") from None

    def _read(self) -> dict[str, str]:
        try:
            document = parsed(self.file.read_text(encoding="utf-8"))
            if document["schema"] == SCHEMA:
                return {str(file): str(sha256) for file, sha256 in document["files"].items()}
        except FileNotFoundError:
            return {}
        except OSError as problem:
            raise RequestError(f"{self.file}: cannot be read ({problem.strerror or problem})") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise RequestError(f"{self.file}: not a list of trusted files; delete it and trust anew what you need")


__all__ = ["Trust"]
