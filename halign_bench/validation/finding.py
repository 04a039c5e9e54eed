"""What a check has to say."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """Something that is wrong: in which file, in which field of it, and what."""

    source: str
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.source}: {self.field}: {self.text}"


Problem = tuple[str, str]  # field and text, before the file is known

__all__ = ["Finding", "Problem"]
