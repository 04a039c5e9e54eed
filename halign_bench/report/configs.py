"""What each method's numbers are, and which of them are not the method's defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from halign_bench import registry
from halign_bench.errors import HalignError
from halign_bench.figures.source import Source, effective


@dataclass(frozen=True)
class Setting:
    """One number of a method. `default` and `about` are "" where the method is not installed, or has no such number."""

    name: str
    default: str
    used: str
    changed: bool
    about: str


@dataclass(frozen=True)
class Part:
    """One method of a pipeline. `note` says where its defaults could not be looked up."""

    method: str
    settings: list[Setting]
    note: str = ""

    @property
    def changed(self) -> list[Setting]:
        return [setting for setting in self.settings if setting.changed]


@dataclass(frozen=True)
class Used:
    """A row of the table: its parts, and seeds that used other numbers than its first one."""

    method: str
    parts: list[Part]
    differing_seeds: list[int]


def configs(source: Source) -> list[Used]:
    """Of every method of the table, finished or not."""
    found = []
    for method in source.methods:
        records = source.records.methods[method]
        differing = [r.cell.seed for r in records if r.config.effective != records[0].config.effective]
        parts = [_part(str(part.get("method", method)), part["config"]) for part in effective(records[0])]
        if not parts:  # kept in some form of its own, by somebody else's harness
            used = records[0].config.effective
            numbers = used if isinstance(used, dict) else {"config": used}
            parts = [_against(method, numbers, {}, {}, "its numbers are shown as its record keeps them")]
        found.append(Used(method, parts, differing))
    return found


def _part(method: str, config: dict[str, Any]) -> Part:
    try:
        cls: Any = registry.get("method", method)
        defaults = cls.Config().model_dump(mode="json")
        about = {name: field.description or "" for name, field in cls.Config.model_fields.items()}
    except (HalignError, ValueError) as problem:  # not installed here, or without a default for everything
        return _against(method, config, {}, {}, f"no defaults to compare with: {problem}")
    return _against(method, config, defaults, about, "")


def _against(method: str, config: dict[str, Any], defaults: dict[str, Any], about: dict[str, str], note: str) -> Part:
    settings = [
        Setting(
            name, _text(defaults[name]) if name in defaults else "", _text(value),
            not note and (name not in defaults or defaults[name] != value), about.get(name, ""),
        )
        for name, value in config.items()
    ]  # fmt: skip
    return Part(method, settings, note)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


__all__ = ["Part", "Setting", "Used", "configs"]
