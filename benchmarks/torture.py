"""Kills real commands with SIGKILL at random moments, starts them again, and compares what comes out in the end.

    python benchmarks/torture.py                     `run --profile smoke`, 50 kills
    python benchmarks/torture.py score --kills 10    on videos made on the spot, or on --clips FOLDER
    python benchmarks/torture.py fetch --kills 10    from a server on this machine
    python benchmarks/torture.py pretrain --kills 5  by a recipe of a few steps

First the command runs undisturbed, and how long each of its phases takes is read from its own progress. Then every
kill (of the whole process group) has an aim: in turn each phase, and the whole of the time, in an order drawn from
--seed; within it the moment is drawn evenly. Whatever a process did before its kill stays, so the work gets on; when
it is finished before its kill, it is compared, and the next kill hits one that begins anew. After each kill no file
that stands under its name may be torn, and at the end of each round everything must equal the undisturbed run but for
measured times, with no temporary file left. Exit code 1 where that is not so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
START, END, ANY = "start", "end", "any time"
PATIENCE = 3600.0  # seconds without an end: the command hangs
TIMES = re.compile(r"(^|_)seconds|^timings$|^(started|finished)$|^peak_memory_bytes$|^environment$|^cost$|^sha256s?$")


@dataclass(frozen=True)
class Trial:
    """What is tormented.

    command  its words, for an output folder
    phase    a line of its progress -> the phase that begins there, or None
    check    raises where a file of a folder is torn, at any time
    result   of a finished folder: everything that must not depend on how it came about, by name
    """

    name: str
    command: Callable[[Path], Sequence[str]]
    phase: Callable[[str], str | None]
    check: Callable[[Path], None]
    result: Callable[[Path], dict[str, Any]]


@dataclass
class Report:
    """What was done, and what came of it."""

    kills: list[tuple[str, str]] = field(default_factory=list)  # (phase that was hit, outcome)
    rounds: int = 0
    undisturbed_seconds: float = 0.0
    differences: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        return not self.differences and all(outcome == "whole" for _, outcome in self.kills)

    def table(self) -> str:
        outcomes = sorted({outcome for _, outcome in self.kills})
        rows = [("killed in", "times", *outcomes)]
        for phase in sorted({phase for phase, _ in self.kills}):
            here = [outcome for hit, outcome in self.kills if hit == phase]
            rows.append((phase, str(len(here)), *(str(here.count(outcome)) for outcome in outcomes)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


class Process:
    """A command in a process group of its own, and the phases that it says it is in."""

    def __init__(self, trial: Trial, out: Path, cache: Path) -> None:
        environment = os.environ | {"HALIGN_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
        self.trial, self.began = trial, time.monotonic()
        self.seen: list[tuple[str, float]] = [(START, 0.0)]  # phases, and when they began
        self.said: list[str] = []
        self.popen = subprocess.Popen(
            trial.command(out), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert self.popen.stderr is not None
        self.reader = threading.Thread(target=self._read, args=(self.popen.stderr,), daemon=True)
        self.reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.said.append(line.rstrip())
            if (phase := self.trial.phase(line)) is not None:
                self.seen.append((phase, time.monotonic() - self.began))

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def wait_for(self, happened: Callable[[], bool]) -> bool:
        """Until it has happened (True) or the process has ended (False)."""
        while not happened():
            if self.popen.poll() is not None:
                return False
            if self.seconds > PATIENCE:
                self.kill()
                raise TimeoutError(f"{self.trial.name} hangs; the last it said: {self.said[-1:]}")
            time.sleep(0.005)
        return self.popen.poll() is None

    def kill(self) -> None:
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        self.reader.join(10)

    def end(self) -> int:
        self.wait_for(lambda: False)
        self.reader.join(10)
        return self.popen.returncode


def torment(trial: Trial, kills: int, seed: int, work: Path, say: Callable[[str], None]) -> Report:
    """Raises RuntimeError where the command does not even work undisturbed."""
    report, chance = Report(), random.Random(seed)
    whole = work / "undisturbed"
    process = Process(trial, whole, work / "cache-undisturbed")
    if (code := process.end()) != 0:
        raise RuntimeError(f"{trial.name} ends with {code} undisturbed: " + "\n".join(process.said[-5:]))
    report.undisturbed_seconds = process.seconds
    wanted = trial.result(whole)
    spans = lengths(process.seen, process.seconds)
    say(f"{trial.name}: {process.seconds:.0f} s undisturbed; longest of each phase: "
        + ", ".join(f"{phase} {max(times):.1f} s" for phase, times in spans.items()))  # fmt: skip
    aims: list[str] = []
    while len(report.kills) < kills or report.rounds == 0:
        report.rounds += 1
        out, cache = work / f"round{report.rounds}", work / f"cache{report.rounds}"
        while True:
            process = Process(trial, out, cache)
            if len(report.kills) < kills:
                if not aims:
                    aims = [*spans, ANY]
                    chance.shuffle(aims)
                if hit := struck(process, aims[-1], spans, chance):
                    aims.pop()
                    report.kills.append((hit, torn(trial, out)))
                    say(f"kill {len(report.kills)} of {kills}: {hit}, after {process.seconds:.1f} s: "
                        f"{report.kills[-1][1]}")  # fmt: skip
                    continue
                aims.insert(0, aims.pop())  # it was done before, or too soon: another one's turn
            code = process.end()
            break
        problems = [f"ends with {code}: {' / '.join(process.said[-3:])}"] if code else compared(
            wanted, trial.result(out), [out, cache]
        )  # fmt: skip
        report.differences += [f"round {report.rounds}: {problem}" for problem in problems]
        say(f"round {report.rounds}: {'; '.join(problems) or 'equal to the undisturbed run'}")
        for folder in () if problems else (out, cache):
            shutil.rmtree(folder, ignore_errors=True)
    return report


def struck(process: Process, aim: str, spans: dict[str, list[float]], chance: random.Random) -> str | None:
    """Kills it within the phase that is aimed at; the phase that was hit. None when it ended before that."""
    if aim == ANY:
        moment = chance.uniform(0, sum(map(sum, spans.values())))
        alive = process.wait_for(lambda: process.seconds >= moment)
    else:
        which = chance.randrange(len(spans[aim]))  # of its occurrences, as far as there are so many left
        wait = chance.uniform(0, spans[aim][which])

        def there() -> bool:
            times = [since for phase, since in process.seen if phase == aim]
            return bool(times) and process.seconds >= times[-1] + wait

        alive = process.wait_for(there)
    if not alive:
        return None
    hit = process.seen[-1][0]
    process.kill()
    return hit


def lengths(seen: Sequence[tuple[str, float]], end: float) -> dict[str, list[float]]:
    """Seconds of each occurrence of each phase."""
    found: dict[str, list[float]] = {}
    for (phase, since), (_, until) in zip(seen, [*seen[1:], ("", end)], strict=True):
        found.setdefault(phase, []).append(until - since)
    return found


def torn(trial: Trial, out: Path) -> str:
    try:
        trial.check(out)
    except Exception as problem:
        return f"torn: {type(problem).__name__}: {problem}"
    return "whole"


def compared(wanted: dict[str, Any], found: dict[str, Any], folders: Sequence[Path]) -> list[str]:
    problems = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"{name} is too much" for name in sorted(found.keys() - wanted.keys())]
    problems += [f"{name} differs" for name in sorted(wanted.keys() & found.keys()) if wanted[name] != found[name]]
    for folder in folders:
        left = [path for path in folder.rglob(".*") if path.name.endswith((".tmp", ".partial", ".part"))]
        problems += [f"{path.relative_to(folder.parent)} is left" for path in sorted(left)]
    return problems


def timeless(value: Any) -> Any:
    """JSON without what a clock or the state of the machine says; hashes of files that hold such go too."""
    if isinstance(value, dict):
        return {
            key: timeless(one) for key, one in value.items()
            if not TIMES.search(key) and not key.startswith("seconds_per_second")
        }  # fmt: skip
    return [timeless(one) for one in value] if isinstance(value, list) else value


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The commands


def checked_run(out: Path) -> None:
    """Every record there reads, and so does what lies beside it; tables are whole."""
    from halign_bench.companions import read_clips, read_replicates
    from halign_bench.results import read_record

    for file in (out / "records").glob("*.json"):
        record = read_record(file)
        if record.status == "done":
            read_clips(record), read_replicates(record)
    for name in ("run.json", "leaderboard.json"):
        if (out / name).exists():
            json.loads((out / name).read_text())
    for file in out.glob("cells/*/train/*/result.json"):
        json.loads(file.read_text())


def result_of_run(out: Path) -> dict[str, Any]:
    from halign_bench.companions import read_clips, read_replicates
    from halign_bench.results import read_record

    found: dict[str, Any] = {}
    for file in (out / "records").glob("*.json"):
        record = read_record(file)
        own = timeless(json.loads(file.read_text()))
        found[file.name] = (own, read_clips(record), read_replicates(record))
    for file in out.glob("cells/*/train/*/adapters/*/*"):
        found[str(file.relative_to(out))] = digest(file)
    for file in out.glob("cells/*/train/*/train.jsonl"):
        found[str(file.relative_to(out))] = [timeless(json.loads(line)) for line in file.read_text().splitlines()]
    return found


def phase_of_run(line: str) -> str | None:
    """From lines like "[2/3] sft seed 0: train ..." and "[2/3] sft seed 0: score: done in 3 s"."""
    if line.startswith("["):
        if found := re.search(r": (train|sample|score)[^:]* \.\.\.$", line):
            return found[1]
        return "write" if re.search(r": score: done in ", line) else None
    if line.endswith(" ...\n"):
        return line.split()[0].rstrip(":")
    return None


def run_trial(program: Sequence[str] = ("-m", "halign_bench"), options: Sequence[str] = ()) -> Trial:
    options = options or ("--methods", "diffusion-dpo", "--profile", "smoke")

    def command(out: Path) -> list[str]:
        return [sys.executable, *program, "run", *options, "--out", str(out)]

    return Trial("run", command, phase_of_run, checked_run, result_of_run)


def score_trial(clips: Path) -> Trial:
    def command(out: Path) -> list[str]:
        return [sys.executable, "-m", "halign_bench", "score", str(clips), "--reference", str(clips),
                "--out", str(out)]  # fmt: skip

    def check(out: Path) -> None:
        import pyarrow.parquet as pq

        if (out / "score.json").exists():
            json.loads((out / "score.json").read_text())
        if (out / "clips.parquet").exists():
            pq.read_table(out / "clips.parquet")

    def result(out: Path) -> dict[str, Any]:
        scores = json.loads((out / "score.json").read_text())
        return {"score.json": {**timeless(scores), "files": [clip["sha256s"] for clip in scores["clips"]]},
                "clips.parquet": digest(out / "clips.parquet")}  # fmt: skip

    def phase(line: str) -> str | None:
        if line.startswith("totals and intervals: done"):
            return "write"
        return line.split()[0] if line.endswith(" ...\n") else None

    return Trial("score", command, phase, check, result)


FETCH = """
import json, sys
from halign_bench.assets import manifest
from halign_bench.assets.manifest import Asset
found = {one["name"]: Asset.model_validate(one) for one in json.loads(sys.argv[1])}
manifest.published = lambda: found
from halign_bench.cli import main
raise SystemExit(main(sys.argv[2:]))
"""


@contextmanager
def fetch_trial(size: int = 24 * 2**20, pause: float = 0.02) -> Iterator[Trial]:
    """The command `assets fetch` as it is, with a manifest of files that a slow server here has."""
    import io
    import zipfile

    import bad_server as bad

    def slowly(handler: Any, data: bytes) -> None:
        handler.body_head(data)
        for at in range(handler.start, len(data), 2**18):
            handler.wfile.write(data[at : at + 2**18])
            time.sleep(pause)

    chance = random.Random(0)
    net, member = chance.randbytes(size), chance.randbytes(size)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("models/part.onnx", member)
    files = {"/net.pth": net, "/pack.zip": packed.getvalue()}
    about = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "sha256_from": "publisher"}
        for name, data in {**files, "member": member}.items()
    }  # fmt: skip
    common = {"summary": "noise", "licence": "none", "metrics": ["fid"]}
    inside = {"file": "part.onnx", "size": about["member"]["size"], "sha256": about["member"]["sha256"]}
    manifest = [
        {"name": "net", "file": "net.pth", "urls": ["https://invalid/net.pth"], "format": "state-dict",
         **common, **about["/net.pth"]},
        {"name": "pack", "file": "pack.zip", "urls": ["https://invalid/pack.zip"], "format": "archive",
         "members": [inside], **common, **about["/pack.zip"]},
    ]  # fmt: skip
    whole = {"net.pth": about["/net.pth"]["sha256"], "pack/part.onnx": about["member"]["sha256"]}
    with bad.serving() as server:
        server.files = files
        server.answers = _Always(slowly)  # type: ignore[assignment]

        def command(out: Path) -> list[str]:
            return [sys.executable, "-c", FETCH, json.dumps(manifest), "assets", "fetch", "net", "pack",
                    "--dir", str(out), "--mirror", server.url]  # fmt: skip

        def result(out: Path) -> dict[str, Any]:
            return {
                str(path.relative_to(out)): digest(path) for path in out.rglob("*")
                if path.is_file() and not path.name.endswith(".lock")
            }  # fmt: skip

        def check(out: Path) -> None:
            for name, sha256 in whole.items():
                if (out / name).exists() and digest(out / name) != sha256:
                    raise ValueError(f"{name} is not whole")

        def phase(line: str) -> str | None:
            return f"fetch {line.split(',')[0]}" if line.endswith(" ...\n") else None

        yield Trial("assets fetch", command, phase, check, result)


class _Always(list):
    """Answers that do not run out."""

    def __init__(self, answer: Any) -> None:
        super().__init__([answer])

    def pop(self, index: Any = -1) -> Any:
        return self[0]


PRETRAIN = """
import sys
from dataclasses import replace

if __name__ == "__main__":  # workers of the corpus import this file again
    from halign_bench import pretrain
    from halign_bench.cli import main

    pretrain.RECIPES = {name: replace(recipe, latent_channels=8, codec_width=8, codec_clips=16, codec_steps=40,
        audio_clips=16, audio_steps=40, audio_width=8, clips=32, width=48, layers=1, heads=2, batch=4)
        for name, recipe in pretrain.RECIPES.items()}
    raise SystemExit(main(sys.argv[1:]))
"""


def pretrain_trial(work: Path, steps: int = 40) -> Trial:
    """The command `pretrain` as it is, with a recipe that ends soon."""
    program = work / "pretrain_small.py"
    program.write_text(PRETRAIN)

    def command(out: Path) -> list[str]:
        return [sys.executable, str(program), "pretrain", "--out", str(out), "--steps", str(steps)]

    def check(out: Path) -> None:
        from safetensors.numpy import load_file

        for file in (out / "work").rglob("[!.]*.safetensors"):
            load_file(file)
        if (out / "work" / "recipe.json").exists():
            json.loads((out / "work" / "recipe.json").read_text())

    def result(out: Path) -> dict[str, Any]:
        return {str(path.relative_to(out)): digest(path) for path in out.rglob("*.safetensors")} | {
            "base.json": json.loads((out / "base.json").read_text())
        }

    def phase(line: str) -> str | None:
        if line.startswith("base: done"):
            return "write"
        return line.split()[0] if line.endswith(" ...\n") else None

    return Trial("pretrain", command, phase, check, result)


def made_clips(folder: Path, count: int = 8) -> Path:
    from media_files import textured, write

    folder.mkdir(parents=True)
    for number in range(count):
        write(folder / f"clip{number}.mp4", textured(50, 128, 128, seed=number))
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="run", choices=["run", "score", "fetch", "pretrain"])
    parser.add_argument("--kills", type=int, default=50, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments")
    parser.add_argument("--clips", type=Path, metavar="FOLDER", help="videos for score, instead of made ones")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args(arguments)
    sys.path.insert(0, str(TESTS))
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torture-")))
        if given.what == "score":
            trial = score_trial(given.clips.absolute() if given.clips else made_clips(work / "clips"))
        elif given.what == "fetch":
            trial = stack.enter_context(fetch_trial())
        else:
            trial = run_trial() if given.what == "run" else pretrain_trial(work)
        report = torment(trial, given.kills, given.seed, work, lambda text: print(text, file=sys.stderr, flush=True))
    if given.json:
        counts: dict[str, dict[str, int]] = {}
        for phase, outcome in report.kills:
            counts.setdefault(phase, {}).setdefault(outcome, 0)
            counts[phase][outcome] += 1
        print(json.dumps({
            "what": given.what, "kills": len(report.kills), "seed": given.seed, "rounds": report.rounds,
            "undisturbed_seconds": round(report.undisturbed_seconds, 1), "by_phase": counts,
            "differences": report.differences, "fine": report.fine,
        }, indent=2))  # fmt: skip
    else:
        end = "every round ended like the undisturbed run" if report.fine else "; ".join(report.differences)
        print(f"{report.table()}\n{len(report.kills)} kills in {report.rounds} rounds; {end}")
    return 0 if report.fine else 1


if __name__ == "__main__":
    sys.exit(main())
