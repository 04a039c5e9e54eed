"""Finds methods, metrics, backbones and tracks: ours by their files, third parties' by entry points.

Names are listed without importing anything. A plug-in is imported when it is asked for, and one
that does not import is reported by name and breaks nothing else.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Literal, TypeVar, get_args

from halign_bench.errors import PluginError
from halign_bench.machine import out_of_memory

Kind = Literal["method", "metric", "backbone", "track"]
KINDS: tuple[Kind, ...] = get_args(Kind)
T = TypeVar("T", bound=type)

_registered: dict[tuple[str, str], type] = {}


@dataclass(frozen=True)
class Entry:
    """Where a plug-in is to be found; nothing is imported yet.

    origin  "halign-bench", or the name of the distribution or module it comes from
    target  its module, or the `module:attribute` of an entry point
    """

    kind: Kind
    name: str
    origin: str
    target: str
    entry_point: EntryPoint | None = None

    def __str__(self) -> str:
        return f"{self.origin} ({self.target})"


@dataclass(frozen=True)
class PluginInfo:
    """One line of `halign-bench list`. `error` says why it cannot be used; None when it can."""

    kind: Kind
    name: str
    origin: str
    target: str
    summary: str
    error: str | None

    @property
    def status(self) -> str:
        return "ok" if self.error is None else "broken"


def register(cls: T) -> T:
    """Class decorator: makes a plug-in known under its `kind` and `name`.

    Raises PluginError when either is missing or the name is taken by another class.
    """
    kind, name = getattr(cls, "kind", None), getattr(cls, "name", None)
    where = f"{cls.__module__}.{cls.__qualname__}"
    if kind not in KINDS:
        raise PluginError(f"{where} has kind {kind!r}; a plug-in derives from one of: {', '.join(KINDS)}.")
    if not isinstance(name, str) or not name or name != name.lower():
        raise PluginError(f"{where} has name {name!r}; a plug-in needs a lower-case `name`.")
    other = _registered.get((kind, name))
    if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise PluginError(
            f"Two {kind}s are called '{name}': {other.__module__}.{other.__qualname__} and {where}; rename one of them."
        )
    _registered[kind, name] = cls
    return cls


def entries(kind: Kind) -> list[Entry]:
    """Every plug-in of a kind, sorted by name; one name twice when two plug-ins claim it."""
    found = [*_built_in(kind), *_third_party(kind)]
    known = {entry.name for entry in found}
    # Classes that a script or a test registered in this process.
    found += [
        Entry(kind, name, cls.__module__, cls.__qualname__)
        for (its_kind, name), cls in _registered.items()
        if its_kind == kind and name not in known
    ]
    return sorted(found, key=lambda entry: (entry.name, entry.origin, entry.target))


def names(kind: Kind) -> list[str]:
    """The names of every plug-in of a kind, broken ones included, sorted."""
    return sorted({entry.name for entry in entries(kind)})


def get(kind: Kind, name: str) -> type:
    """The class of a plug-in; raises PluginError when it is unknown, claimed twice or does not import."""
    return _load(check(kind, name))


def check(kind: Kind, name: str) -> Entry:
    """The entry of a plug-in, without importing it; raises PluginError when unknown or claimed twice."""
    claims = [entry for entry in entries(kind) if entry.name == name]
    if not claims:
        raise PluginError(unknown(kind, name, names(kind)))
    if len(claims) > 1:
        raise PluginError(
            f"Two {kind}s are called '{name}': {' and '.join(map(str, claims))}; uninstall or rename one of them."
        )
    return claims[0]


def describe(kinds: Iterable[Kind] = KINDS) -> list[PluginInfo]:
    """Every plug-in with its summary, or with why it cannot be used."""
    infos = []
    for kind in kinds:
        for entry in entries(kind):
            summary, error = "", None
            try:
                cls = get(kind, entry.name)
                summary = getattr(cls, "summary", "") or (cls.__doc__ or "").strip().split("\n")[0]
            except PluginError as problem:
                error = str(problem)
            infos.append(PluginInfo(kind, entry.name, entry.origin, entry.target, summary, error))
    return infos


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """One sentence for a name that does not exist, with the nearest one that does."""
    known = list(known)
    near = nearest(given, known)
    hint = f": did you mean '{near}'?" if near else ""
    return f"Unknown {what} '{given}'{hint} (available: {', '.join(known) or 'none'})"


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name most like `given`; a part between dashes counts too ("dpo" is near "diffusion-dpo")."""
    wanted = given.lower().replace("_", "-")

    def likeness(name: str) -> float:
        whole = name.lower().replace("_", "-")
        return max(difflib.SequenceMatcher(None, wanted, part).ratio() for part in {whole, *whole.split("-")} if part)

    best = max(sorted(known), key=likeness, default=None)
    return best if best and likeness(best) >= 0.5 else None


def _built_in(kind: Kind) -> list[Entry]:
    package = importlib.import_module(f"halign_bench.{kind}s")
    found = []
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            name = module.name if kind == "metric" else module.name.replace("_", "-")
            found.append(Entry(kind, name, "halign-bench", f"{package.__name__}.{module.name}"))
    return found


def _third_party(kind: Kind) -> list[Entry]:
    found = {}
    for point in entry_points(group=f"halign_bench.{kind}s"):
        origin = point.dist.name if point.dist else "an unnamed distribution"
        found[origin, point.name, point.value] = Entry(kind, point.name, origin, point.value, point)
    return list(found.values())


def _load(entry: Entry) -> type:
    key = (entry.kind, entry.name)
    label = f"{entry.kind} '{entry.name}' from {entry}"
    loaded: object = None
    try:
        if entry.entry_point is not None:
            loaded = entry.entry_point.load()
        elif entry.origin == "halign-bench":
            importlib.import_module(entry.target)
    except PluginError:
        raise
    except (Exception, SystemExit) as problem:  # whatever a plug-in does on import must not take the harness down
        if out_of_memory(problem):  # which is not its fault: a run must not go on without it
            raise
        raise PluginError(f"The {label} does not import: {type(problem).__name__}: {problem}") from problem
    cls = loaded if isinstance(loaded, type) else _registered.get(key)
    if cls is None:
        raise PluginError(f"The {label} registers no class with name = '{entry.name}'.")
    if (getattr(cls, "kind", None), getattr(cls, "name", None)) != key:
        raise PluginError(
            f"The {label} is a class with kind {getattr(cls, 'kind', None)!r} and name {getattr(cls, 'name', None)!r}."
        )
    return register(cls)
