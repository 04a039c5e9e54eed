"""Records made by hand, for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from halign_bench.companions import ClipScore
from halign_bench.protocol import sha256_of
from halign_bench.record import (
    Base,
    Bootstrap,
    CellIdentity,
    ClaimData,
    ConfigUsed,
    Environment,
    MetricValue,
    Record,
    Timings,
    Training,
)
from halign_bench.results import write_record
from halign_bench.stats import bootstrap_indices, bootstrap_signature, percentile_interval, resampled_means


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
        "protocol_hash": sha256_of(protocol),
        "base": Base(name="tiny", sha256="0" * 64),
        "evaluators": {"image": "toy"},
        "environment": Environment(python="3.11", packages={}, hardware={"cores": 2}),
    }
    return Record(**(fields | changes))


PEOPLE, EACH, B = 12, 4, 200
IDS = [f"clip{i:02d}" for i in range(PEOPLE * EACH)]
NAMES = [f"person{i // EACH:02d}" for i in range(PEOPLE * EACH)]
DRAWS = bootstrap_indices(IDS, NAMES, B, 0)
PLAN = Bootstrap(
    replicates=B, seed=0, clips=len(IDS), identities=PEOPLE, sha256=bootstrap_signature(IDS, NAMES, B, 0)
)  # fmt: skip
DIFFICULTY = np.repeat(np.random.default_rng(0).normal(0, 1, PEOPLE), EACH)  # shared by all methods: pairing removes it


def edit(path: Path, old: str, new: str) -> None:
    """Changes a record as somebody does who means it."""
    document = json.loads(path.read_text().replace(old, new))
    del document["sha256"]
    path.write_text(json.dumps(document))


def cell(
    folder: Path, method: str, seed: int = 0, gain: float = 0.0, *, nfes: tuple[int, ...] = (),
    missing: tuple[int, ...] = (), claims: tuple[ClaimData, ...] = (), **changes,
) -> Record:  # fmt: skip
    """A finished cell: sync_c per clip (higher is better), fid of the set (lower is better), speed, motion.

    A network evaluation takes 0.1 s per generated second, a little more or less in each of six chunks of clips.
    """
    rng, clock = (np.random.default_rng([seed, *more, *method.encode()]) for more in ((), (1,)))
    metrics, clips, replicates, chunks = {}, [], {}, {}
    for nfe in nfes or (None,):
        at = f"/nfe{nfe}" if nfe else ""
        loss = 0.0 if nfe is None else 5.0 / nfe
        values = 5 + DIFFICULTY + gain - loss + rng.normal(0, 0.3, len(IDS))
        listed = [None if i in missing else float(v) for i, v in enumerate(values)]
        for key, row in ((f"sync_c@toy{at}", listed), (f"motion@toy{at}", [float(v / 5) for v in values])):
            known = [v for v in row if v is not None]
            reps = resampled_means(row, DRAWS)
            metrics[key] = score(
                float(np.mean(known)), percentile_interval(float(np.mean(known)), reps, PEOPLE), n=len(known),
                higher_is_better=True if key.startswith("sync") else None,
                failed={"no face": len(row) - len(known)} if len(known) < len(row) else {},
            )  # fmt: skip
            clips += [
                ClipScore(i, who, key, v, None if v is not None else "no face")
                for i, who, v in zip(IDS, NAMES, row, strict=True)
            ]
        fid = 30 - 4 * gain + loss + rng.normal(0, 0.05)
        shared = np.random.default_rng(7).normal(0.5, 1.0, B)  # a resample is hard for every method alike
        draws = fid + shared + rng.normal(0, 0.1, B)
        metrics[f"fid@toy{at}"] = score(fid, percentile_interval(fid, draws, PEOPLE), higher_is_better=False)
        replicates[f"fid@toy{at}"] = [float(v) for v in draws]
        metrics[f"seconds_per_second@toy{at}"] = score((nfe or 10) / 10, None, higher_is_better=False)
        chunks[str(nfe or 10)] = [float((nfe or 10) * took) for took in 1 + 0.02 * clock.standard_normal(6)]
    changes.setdefault("timings", Timings(chunks=chunks))
    changes.setdefault("training", Training(samples_seen=256, steps=16, trained_parameters=1000))
    protocol = {"evaluation": {"nfe": list(nfes)}, "training": {"samples": 256}} if nfes else None
    record = make_record(
        method, seed, metrics=metrics, bootstrap=PLAN, claims=list(claims),
        **({"protocol": protocol} if protocol else {}), **changes,
    )  # fmt: skip
    write_record(folder / f"{method}-s{seed}.json", record, clips, replicates)
    return record
