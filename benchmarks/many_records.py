"""How long the table of many records takes, and how much memory: `python benchmarks/many_records.py`.

Makes synthetic records in a temporary folder, runs `halign-bench leaderboard` on them in a process of its own, and
prints its seconds (wall and processor) and its peak memory. Two tables:

    records  100,000 records (--records) of 20 methods (--methods) with 4 scores each and no files beside them; with
             --full they hold what a record of `run` holds today, 37 scores in 30 kB
    clips    20 methods x 5 seeds x 200 clips x 5 scores: 100,000 scores of clips beside 100 records, all compared

Measured on one core of a Xeon, another core busy: 100,000 records of 20 methods 9.0 s and 1.34 GB, of 1,000 methods
7.7 s and 1.34 GB; the scores of clips 3.4 s and 0.29 GB. Full records take 0.37 ms and 66 kB each, so that the same
time and memory hold 27,000 of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from halign_bench.companions import ClipScore
from halign_bench.protocol import sha256_of
from halign_bench.record import (
    Base,
    Bootstrap,
    CellIdentity,
    ConfigUsed,
    Environment,
    MetricValue,
    Record,
    Timings,
    Training,
)
from halign_bench.results import write_record
from halign_bench.stats import bootstrap_indices, bootstrap_signature, percentile_interval, resampled_means

LEADERBOARDS = Path(__file__).resolve().parent.parent / "leaderboards"
COMMITTED = LEADERBOARDS / "puppet" / "puppet-dit" / "records" / "sft-s0.json"
NAMES = ("fid", "sync_c", "hkc", "ssim", "psnr")


def small(scores: int = 4) -> dict:
    protocol = {"training": {"samples": 1600}, "metrics": {f"{name}@toy": "synthetic" for name in NAMES[:scores]}}
    record = Record(
        cell=CellIdentity(method="m", seed=0, track="toy", backbone="tiny"), status="done", protocol=protocol,
        protocol_hash=sha256_of(protocol), base=Base(name="tiny", sha256="0" * 64), evaluators={"image": "synthetic"},
        config=ConfigUsed(given={}, effective={"beta": 1}), timings=Timings(train=1.0, sample=2.0),
        environment=Environment(python="3.11", packages={"torch": "2"}, hardware={"cores": 2}),
        training=Training(samples_seen=1600, steps=100, trained_parameters=1000, peak_memory_bytes=10**9),
        metrics={
            f"{name}@toy": MetricValue(
                value=1.0, ci=(0.5, 1.5), n=96, unit="points", higher_is_better=name != "fid", protocol="synthetic"
            )
            for name in NAMES[:scores]
        },
    )  # fmt: skip
    return record.model_dump(mode="json", by_alias=True)


def full() -> dict:
    """A record of a real run, without the files beside it."""
    return json.loads(COMMITTED.read_text(encoding="utf-8")) | {"files": {}}


def write_many(folder: Path, document: dict, count: int, methods: int) -> int:
    """Bytes written. Every record is a text of its own, with its own method, seed and scores."""
    folder.mkdir()
    values = [score for score in document["metrics"].values() if score["value"] is not None]
    centres = [score["value"] for score in values]
    rng = np.random.default_rng(0)
    written = 0
    for number in range(count):
        method = number % methods
        document["cell"]["method"] = ("base", "sft")[method] if method < 2 else f"method-{method}"
        document["cell"]["seed"] = number // methods
        for score, centre, factor in zip(values, centres, rng.uniform(0.99, 1.01, len(values)), strict=True):
            score["value"] = centre * factor
            score["ci"] = [score["value"] - 0.1, score["value"] + 0.1]
        text = json.dumps(document, indent=2, ensure_ascii=False)
        written += (folder / f"{number:06d}.json").write_bytes(text.encode())
    return written


def write_clips(folder: Path, methods: int = 20, seeds: int = 5, clips: int = 200) -> None:
    ids, people = [f"clip{i:03d}" for i in range(clips)], [f"person{i // 4:02d}" for i in range(clips)]
    draws = bootstrap_indices(ids, people, 1000)
    plan = Bootstrap(
        replicates=1000, seed=0, clips=clips, identities=clips // 4, sha256=bootstrap_signature(ids, people, 1000, 0)
    )
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=clips)
    for method in range(methods):
        name = ("base", "sft")[method] if method < 2 else f"method-{method}"
        for seed in range(seeds):
            record = Record.model_validate(small(len(NAMES)))
            record.cell = CellIdentity(method=name, seed=seed, track="toy", backbone="tiny")
            record.bootstrap = plan
            rows = []
            for key, score in record.metrics.items():
                values = [float(v) for v in 5 + difficulty + 0.02 * method + rng.normal(0, 0.3, clips)]
                score.value = float(np.mean(values))
                score.ci = percentile_interval(score.value, resampled_means(values, draws), clips // 4)
                rows += [ClipScore(i, who, key, v) for i, who, v in zip(ids, people, values, strict=True)]
            write_record(folder / f"{name}-s{seed}.json", record, rows, {})


def measured(folder: Path, form: str) -> str:
    """Of one process that reads the folder and writes the table."""
    code = "import resource, sys; from halign_bench.cli import main; code = main(sys.argv[1:]); " \
        "used = resource.getrusage(resource.RUSAGE_SELF); " \
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr); sys.exit(code)"  # fmt: skip
    out = folder.parent / f"table.{form}"
    command = [sys.executable, "-c", code, "leaderboard", str(folder), "--format", form, "--out", str(out)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    processor, peak = done.stderr.split()[-2:]
    unit = 1024 if sys.platform != "darwin" else 1
    return (
        f"{wall:.1f} s ({float(processor):.1f} s of processor), {int(peak) * unit / 1e9:.2f} GB, "
        f"{out.stat().st_size / 1e3:.0f} kB of {form}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--methods", type=int, default=20)
    parser.add_argument("--format", default="md")
    parser.add_argument("--full", action="store_true", help="records as large as those of a run")
    parser.add_argument("--no-clips", action="store_true", help="leave out the table with scores of clips")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        many = Path(temporary, "records")
        size = write_many(many, full() if arguments.full else small(), arguments.records, arguments.methods)
        each = f"{size / arguments.records / 1e3:.1f} kB each"
        said = measured(many, arguments.format)
        print(f"{arguments.records:,} records of {arguments.methods:,} methods, {each}: {said}", flush=True)
        if not arguments.no_clips:
            clips = Path(temporary, "clips")
            write_clips(clips)
            print(f"100 records with 100,000 scores of clips: {measured(clips, arguments.format)}")


if __name__ == "__main__":
    main()
