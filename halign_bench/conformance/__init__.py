"""One suite a kind, run on any plug-in, ours or a third party's: does it keep its contract?

A check is a function whose name says what must hold. It returns a detail worth showing or None,
raises `Broken` where the contract is, and `Skipped` where it cannot tell. Anything else that a
plug-in raises is a failure too, with its error.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from halign_bench import registry
from halign_bench.errors import PluginError

if TYPE_CHECKING:
    from halign_bench.model_choice import ModelChoice


class Broken(Exception):
    """The plug-in does not do what its kind promises."""


class Skipped(Exception):
    """This cannot be checked on this plug-in, and why."""


@dataclass(frozen=True)
class Check:
    name: str
    status: Literal["passed", "failed", "skipped"]
    detail: str = ""


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def check_plugin(kind: registry.Kind, name: str, choice: ModelChoice | None = None) -> list[Check]:
    """Every check of a kind on one plug-in, in a fixed order; a plug-in that does not import fails the first.

    choice  backbones only: which weights, and clips how long and large
    """
    try:
        cls = registry.get(kind, name)
    except PluginError as problem:
        return [Check("can be imported", "failed", str(problem))]
    return [Check("can be imported", "passed"), *check_class(kind, cls, choice)]


def check_class(kind: registry.Kind, cls: type, choice: ModelChoice | None = None) -> list[Check]:
    """The checks of a kind on a class, registered or not; `choice` as in `check_plugin`."""
    suite = importlib.import_module(f"halign_bench.conformance.{kind}")
    subject = suite.Subject(cls) if choice is None else suite.Subject(cls, choice)
    return run_checks([says_what_it_is, *suite.CHECKS], subject)


def run_checks(checks: Sequence[Callable[[Any], str | None]], subject: Any) -> list[Check]:
    return [_run(check, subject) for check in checks]


def _run(check: Callable[[Any], str | None], subject: Any) -> Check:
    name = check.__name__.replace("_", " ")
    try:
        return Check(name, "passed", check(subject) or "")
    except Skipped as reason:
        return Check(name, "skipped", str(reason))
    except Broken as problem:
        return Check(name, "failed", str(problem))
    except Exception as problem:  # a third party's code may raise anything, and each check stands for itself
        return Check(name, "failed", f"{type(problem).__name__}: {problem}")


def says_what_it_is(subject: Any) -> str | None:
    cls = subject.cls
    require(bool((cls.__doc__ or "").strip()), "the class has no docstring")
    require(bool(cls.summary.strip()) and "\n" not in cls.summary, "`summary` must be one line that says what it is")
    return None
