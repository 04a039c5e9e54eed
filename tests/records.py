"""Records made by hand, for tests of what reads them."""

from __future__ import annotations

from typing import Any

from halign_bench.results import Base, CellIdentity, ConfigUsed, Environment, MetricValue, Record, config_hash


def score(value: float | None, ci: tuple[float, float] | None = None, n: int = 48, **changes: Any) -> MetricValue:
    fields = {"unit": "points", "higher_is_better": True, "protocol": "toy"} | changes
    return MetricValue(value=value, ci=ci, n=n, **fields)


def make_record(method: str = "base", seed: int = 0, **changes: Any) -> Record:
    protocol = changes.pop("protocol", {"training": {"samples": 256}})
    fields: dict[str, Any] = {
        "cell": CellIdentity(method=method, seed=seed, track="toy", backbone="tiny"),
        "status": "done",
        "config": ConfigUsed(given={}, effective={"beta": 1}),
        "protocol": protocol,
        "protocol_hash": config_hash(protocol),
        "base": Base(name="tiny", sha256="0" * 64),
        "evaluators": {"image": "toy"},
        "environment": Environment(python="3.11", packages={}, hardware={"cores": 2}),
    }
    return Record(**(fields | changes))
