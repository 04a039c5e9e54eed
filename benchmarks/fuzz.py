"""Attacks what reads files and options of others with damaged ones: `python benchmarks/fuzz.py grammar records …`.

    grammar      --methods with its settings, --set, --seeds, --nfe, --size
    records      a record and the files beside it, through leaderboard, validate and report
    table        records that are well formed and hold odd values, through every form of the table
    preferences  preference files (JSON Lines, CSV, parquet) and what they name, and labelling sessions
    manifest     the manifest of assets, and archives of weights
    trusted      what the user said to trust, remembered hashes, and files that were not trusted
    weights      checkpoints in the published layouts: state dicts, safetensors, ONNX, TorchScript
    video        video files: probed, decoded, their sound too
    sound        sound files

Each case is a seeded change to a real input (--seed, so that the same command does the same), and runs in a process
that another one watches. It must end as accepted, or refused with one printable sentence. Everything else is a
finding: another exception, a signal, more than --seconds-per-case, more than 1.5 GB of memory, a file written outside
of the case's folder, code run out of a file. Findings are kept in --findings (`--replay FOLDER` runs one again), and
the exit code is 1.

--clips DIR takes videos and sounds of that folder as seeds too, cut to short small ones first.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fuzzing.guarding import Outcome
from fuzzing.worker import NAMES, serve

START = 300.0  # seconds that a worker has to make its seeds
MEMORY = Path("/dev/shm")  # cases are many small files, some written with fsync


@dataclass
class Tally:
    """What became of a target's cases."""

    target: str
    cases: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest: float = 0.0
    megabytes: float = 0.0
    findings: list[tuple[int, str]] = field(default_factory=list)


class Worker:
    """A process that runs cases; another one takes its place when it dies or is too slow."""

    def __init__(self, scratch: Path, clips: Path | None, seed: int) -> None:
        self.scratch, self.clips, self.seed = scratch, clips, seed
        self.context = multiprocessing.get_context("spawn")
        self.process: Any = None
        self.line: Connection | None = None

    def run(self, target: str, index: int | None, limit: float, replay: Path | None = None) -> Outcome:
        """`index` None: makes the seeds of a target ready."""
        if self.process is None:
            self.line, theirs = self.context.Pipe()
            arguments = theirs, self.scratch, self.clips, self.seed
            self.process = self.context.Process(target=serve, args=arguments, daemon=True)
            self.process.start()
            theirs.close()
        assert self.line is not None
        try:
            self.line.send((target, index, replay))
            if not self.line.poll(limit):
                self.stop()
                return Outcome("finding", f"not done after {limit:g} s")
            return Outcome(*self.line.recv())
        except (EOFError, OSError):
            self.process.join(10)
            code = self.process.exitcode
            self.stop()
            return Outcome("finding", f"the process ended with {code}" + (" (a signal)" if code and code < 0 else ""))

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def attack(target: str, cases: Sequence[int], worker: Worker, limit: float, keep: Path) -> Tally:
    tally = Tally(target)
    ready = worker.run(target, None, START)
    if ready.kind != "accepted":
        raise SystemExit(f"{target}: its seeds cannot be made: {ready.text}")
    started = time.monotonic()
    for index in cases:
        before = time.monotonic()
        found = worker.run(target, index, limit)
        tally.slowest = max(tally.slowest, time.monotonic() - before)
        tally.megabytes = max(tally.megabytes, found.megabytes)
        tally.cases += 1
        tally.kinds[found.kind] += 1
        if found.kind == "finding":
            tally.findings.append((index, found.text))
            place = keep / f"{target}-{worker.seed}-{index}"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            if (worker.scratch / "case").is_dir():
                shutil.copytree(worker.scratch / "case", place, symlinks=True, dirs_exist_ok=True)
            about = {"target": target, "seed": worker.seed, "case": index, "finding": found.text}
            (place / "finding.json").write_text(json.dumps(about, indent=2) + "\n")
            print(f"{target} case {index}: {found.text.strip().splitlines()[-1][:300]}\n  {place}", file=sys.stderr)
    tally.seconds = time.monotonic() - started
    return tally


def table(tallies: Sequence[Tally]) -> str:
    lines = [f"{'target':<12} {'cases':>7} {'accepted':>9} {'refused':>8} {'findings':>9} {'seconds':>8} "
             f"{'slowest':>8} {'most MB':>8}"]  # fmt: skip
    for t in tallies:
        accepted, refused = t.kinds["accepted"], t.kinds["refused"]
        lines.append(
            f"{t.target:<12} {t.cases:>7} {accepted:>9} {refused:>8} {len(t.findings):>9} {t.seconds:>8.1f} "
            f"{t.slowest:>8.2f} {t.megabytes:>8.0f}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; all of them unless given")
    parser.add_argument("--cases", type=int, default=1000, metavar="N", help="of each target (1000)")
    parser.add_argument("--case", type=int, metavar="N", help="this one alone")
    parser.add_argument("--clips", type=Path, metavar="DIR", help="folder of real videos and sounds")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--seconds-per-case", type=float, default=20.0, metavar="S", help="longer is a finding (20)")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), metavar="DIR", help="kept there")
    parser.add_argument("--replay", type=Path, metavar="DIR", help="run what was kept there again, and say all of it")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.targets if name not in NAMES]:
        parser.error(f"unknown target {unknown[0]}; there are {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        worker = Worker(Path(scratch), given.clips.absolute() if given.clips else None, given.seed)
        try:
            if given.replay is not None:
                target = json.loads((given.replay / "finding.json").read_text())["target"]
                worker.run(target, None, START)
                found = worker.run(target, 0, given.seconds_per_case, given.replay.absolute())
                print(f"{found.kind}: {found.text}")
                return 1 if found.kind == "finding" else 0
            cases = range(given.cases) if given.case is None else [given.case]
            tallies = []
            for target in given.targets or NAMES:
                tallies.append(attack(target, cases, worker, given.seconds_per_case, given.findings))
                worker.stop()  # each target has a process of its own, without what others left in memory
        finally:
            worker.stop()
    print(table(tallies))
    return 1 if any(tally.findings for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
