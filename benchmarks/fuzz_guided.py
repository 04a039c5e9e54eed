"""Parsers of text under attack, led by coverage: `python benchmarks/fuzz_guided.py records --cases 100000`.

    grammar      what is typed after --methods, --seeds, --nfe and --size
    records      one record
    preferences  one preference file in JSON Lines
    manifest     the manifest of assets

Needs atheris (`pip install atheris`), which keeps what reaches new lines and changes it further; `fuzz.py` damages
whole inputs of nine kinds at random, and needs nothing. Each input must be accepted, or refused with printable
sentences, in 20 s. The first that is not ends the run with a traceback and exit code 77 (70 where it was too slow), and
is kept in the current folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent / "tests")]
with atheris.instrument_imports(include=["halign_bench"]):
    from fuzzing import assets, labels, options
    from fuzzing.guarding import unfit

    from halign_bench.assets import manifest
    from halign_bench.errors import HalignError
    from halign_bench.grammar import parse_methods, parse_nfe, parse_seeds, parse_size
    from halign_bench.prefs import reading
    from halign_bench.results import read_record

NAMES = ("grammar", "records", "preferences", "manifest")


def grammar(text: str, path: Path) -> Iterator[Callable[[], object]]:
    for parse in (parse_methods, parse_seeds, parse_nfe, parse_size):
        yield lambda parse=parse: parse(text)


def records(text: str, path: Path) -> Iterator[Callable[[], object]]:
    yield lambda: read_record(path)


def preferences(text: str, path: Path) -> Iterator[Callable[[], object]]:
    yield lambda: reading.read_preferences(path)


def manifests(text: str, path: Path) -> Iterator[Callable[[], object]]:
    yield lambda: manifest.read(text, "manifest.json")


READERS = {"grammar": grammar, "records": records, "preferences": preferences, "manifest": manifests}


def seeds(target: str, scratch: Path) -> list[bytes]:
    """Whole inputs, which the first changes are made to."""
    if target == "grammar":
        return [text.encode() for text in (*options.METHODS, *options.SEEDS, *options.NFES, *options.SIZES)]
    if target == "preferences":
        return [labels.as_lines(labels.lines()), *(labels.as_lines([line]) for line in labels.lines())]
    if target == "manifest":
        return [json.dumps(assets.Manifest()._known()).encode()]
    from records import make_record

    from halign_bench.results import write_record

    write_record(path := scratch / "seed.json", make_record())
    document = json.loads(path.read_text())
    del document["sha256"]  # as whoever means harm would
    return [json.dumps(document).encode()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--cases", type=int, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        if child := os.fork():  # atheris ends its process
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        fuzz(given.target, given.cases, given.seed, Path(scratch))
    return 0


def fuzz(target: str, cases: int, seed: int, scratch: Path) -> None:
    corpus, path = scratch / "corpus", scratch / "labels.jsonl"
    corpus.mkdir()
    for number, content in enumerate(seeds(target, scratch)):
        (corpus / str(number)).write_bytes(content)
    for name in ("a.mp4", "b.mp4", "ref.png", "pose.npy", "sound.wav"):
        (scratch / name).touch()

    def one(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        path.write_bytes(data)
        for read in READERS[target](text, path):
            try:
                read()
            except HalignError as refusal:
                for part in refusal.args:
                    assert unfit(str(part)) is None, f"a refusal that {unfit(str(part))}: {str(part)!r}"

    longest = max(file.stat().st_size for file in corpus.iterdir())
    limits = [f"-runs={cases}", f"-seed={seed}", f"-max_len={2 * longest}", "-timeout=20"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
