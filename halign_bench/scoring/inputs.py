"""Which files are scored, and with which reference, sound and picture each goes.

Files are paired by name: the path below their folder without extension, or, where that finds nothing, the bare name
if only one file on the other side has it. A single file goes with a single file whatever their names are, and a
single sound or picture with every clip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from halign_bench.errors import RequestError
from halign_bench.files import files_below
from halign_bench.media import VIDEO_SUFFIXES, shown
from halign_bench.track import Refusal

SOUND_SUFFIXES = frozenset((".wav", ".mp3", ".aac", ".m4a", ".flac", ".ogg", ".oga", ".opus")) | VIDEO_SUFFIXES
PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp"))


@dataclass(frozen=True)
class Item:
    """One generated file with what belongs to it.

    name       its path below the folder without extension, printable; distinct
    generated  the file
    reference  the real video it is compared with
    audio      where the sound it should follow is from; None is the generated file itself
    image      the picture of the person that it was made from; None is the reference's first frame
    """

    name: str
    generated: Path
    reference: Path | None = None
    audio: Path | None = None
    image: Path | None = None


@dataclass
class Inputs:
    """Items in order of their names, and what was left out."""

    items: list[Item] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    ignored: int = 0  # files in the generated folder that are no videos by their extension
    unused: int = 0  # references that no generated file has the name of


def find_inputs(
    generated: Path, reference: Path | None = None, audio: Path | None = None, images: Path | None = None
) -> Inputs:
    """Raises RequestError where there is nothing to score, or nothing of what was given belongs to anything."""
    found = Inputs()
    paths, found.refusals, found.ignored = _files(generated, VIDEO_SUFFIXES, "GENERATED")
    if not paths:
        raise RequestError(f"{shown(generated)}: no video in it ({found.ignored} other files)")
    references = _Others(reference, VIDEO_SUFFIXES, "--reference", one_for_all=len(paths) == 1)
    sounds = _Others(audio, SOUND_SUFFIXES, "--audio", one_for_all=True)
    images_found = _Others(images, PICTURE_SUFFIXES, "--images", one_for_all=True)
    taken: dict[str, Path] = {}
    for path in paths:
        name = _name(path, generated)
        if name in taken:
            reason = f"has the name of {shown(taken[name].name)}, which is taken instead"
            found.refusals.append(Refusal(shown(path.name), reason))
            continue
        taken[name] = path
        sound = sounds.of(name) if audio is not None else _beside(path)
        found.items.append(Item(name, path, references.of(name), sound, images_found.of(name)))
    for others in (references, sounds, images_found):
        others.require_use([item.name for item in found.items])
    found.unused = references.unused()
    return found


class _Others:
    """Files of one option, by the name that a generated file may have too."""

    def __init__(self, place: Path | None, suffixes: Collection[str], option: str, one_for_all: bool) -> None:
        self.place, self.option = place, option
        self.used: set[Path] = set()
        self.by_name: dict[str, Path] = {}
        by_stem: dict[str, list[Path]] = defaultdict(list)
        paths = _files(place, suffixes, option)[0] if place is not None else []
        self.for_all = paths[0] if one_for_all and place is not None and not place.is_dir() else None
        for path in paths:
            assert place is not None
            self.by_name.setdefault(_name(path, place), path)
            by_stem[path.stem].append(path)
        self.by_stem = {stem: some[0] for stem, some in by_stem.items() if len(some) == 1}

    def of(self, name: str) -> Path | None:
        path = self.for_all or self.by_name.get(name) or self.by_stem.get(name.rsplit("/", 1)[-1])
        if path is not None:
            self.used.add(path)
        return path

    def unused(self) -> int:
        return len(self.by_name) - len(self.used)

    def require_use(self, names: list[str]) -> None:
        if self.place is None or self.used:
            return
        theirs = ", ".join(list(self.by_name)[:3]) or "none that can be used"
        raise RequestError(
            f"{self.option} {shown(self.place)}: no file has the name of a generated one, and files are paired by name "
            f"(here: {theirs}; generated: {', '.join(names[:3])})"
        )


def _files(place: Path, suffixes: Collection[str], option: str) -> tuple[list[Path], list[Refusal], int]:
    if place.is_dir():
        return files_below(place, suffixes)
    if not place.exists():
        raise RequestError(f"{option} {shown(place)}: no such file or folder")
    return [place], [], 0


def _name(path: Path, place: Path) -> str:
    below = path.relative_to(place) if place.is_dir() else Path(path.name)
    return shown(below.with_suffix("").as_posix())


def _beside(path: Path) -> Path | None:
    """`name.wav` beside `name.mp4`: this field ships sound so."""
    sound = path.with_suffix(".wav")
    return sound if sound.is_file() else None


__all__ = ["Inputs", "Item", "find_inputs"]
