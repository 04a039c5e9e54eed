"""Records of others: read, put into tables, validated, reported."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.guarding import unfit
from fuzzing.mutating import NUMBERS, TEXTS, damaged, odd_document, odd_json
from fuzzing.worker import Input

COMMITTED = Path(__file__).resolve().parents[2] / "leaderboards" / "puppet" / "puppet-dit" / "records"
CELLS = ("base-s0", "sft-s0")
SCORES = ("fid", "ssim", "seconds_per_second")
REPLICATES, CLIPS = 40, 12


class Finding(Exception):
    """What was accepted is not as it should be."""


def small(cell: str) -> Input:
    """A committed record with a few of its scores, clips and resamples; `validate` finds nothing in it."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from halign_bench.protocol import sha256_of
    from halign_bench.record import SPEED, parse_key
    from halign_bench.stats import bootstrap_indices, bootstrap_signature, percentile_interval, resampled_means
    from halign_bench.track import FPS

    document = json.loads((COMMITTED / f"{cell}.json").read_text())
    document.pop("sha256", None)  # of what it was, and of the files beside it
    document.pop("sha256s", None)
    protocol, times = document["protocol"], document["timings"]
    protocol["metrics"] = {k: v for k, v in protocol["metrics"].items() if parse_key(k).name in SCORES}
    document["metrics"] = metrics = {k: v for k, v in document["metrics"].items() if parse_key(k).name in SCORES}
    tables = {kind: pq.read_table(COMMITTED / f"{cell}.{kind}.parquet") for kind in ("clips", "bootstrap")}
    tables = {kind: t.filter(pc.is_in(t["metric"], pa.array(list(metrics)))) for kind, t in tables.items()}
    tables["bootstrap"] = tables["bootstrap"].filter(pc.less(tables["bootstrap"]["replicate"], REPLICATES))
    ids = list(dict.fromkeys(tables["clips"]["clip"].to_pylist()))[:CLIPS]
    tables["clips"] = tables["clips"].filter(pc.is_in(tables["clips"]["clip"], pa.array(ids)))
    identity = dict(zip(tables["clips"]["clip"].to_pylist(), tables["clips"]["identity"].to_pylist(), strict=True))
    people = [identity[clip] for clip in ids]
    plan = protocol["evaluation"]["bootstrap"] | {
        "replicates": REPLICATES, "clips": CLIPS, "identities": len(set(people)),
        "sha256": bootstrap_signature(ids, people, REPLICATES, 0),
    }  # fmt: skip
    document["bootstrap"] = plan
    protocol["evaluation"] |= {
        "bootstrap": plan, "clips": CLIPS, "clips_sha256": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
    }  # fmt: skip
    chunks = -(-CLIPS // protocol["evaluation"]["chunk"])
    times["chunks"] = {nfe: seconds[:chunks] for nfe, seconds in times["chunks"].items()}
    times["sample"] = sum(map(sum, times["chunks"].values()))
    draws = bootstrap_indices(ids, people, REPLICATES, 0)
    for key, score in metrics.items():
        name, _, nfe = parse_key(key)
        found = {kind: t.filter(pc.equal(t["metric"], key))["value"].to_pylist() for kind, t in tables.items()}
        score["n"] = CLIPS
        if name == SPEED:
            score["value"] = sum(times["chunks"][str(nfe)]) / (CLIPS * protocol["backbone"]["frames"] / FPS)
            continue
        resampled = np.array(found["bootstrap"], float)
        if not len(resampled):
            score["value"], resampled = float(np.mean(found["clips"])), resampled_means(found["clips"], draws)
        score["ci"] = percentile_interval(score["value"], resampled, plan["identities"], tuple(score["bounds"]))
    document["protocol_hash"] = sha256_of(protocol)
    cell_hash = {"protocol": document["protocol_hash"], "pipeline": document["config"]["effective"],
                 "seed": document["cell"]["seed"]}  # fmt: skip
    document["cell_hash"] = sha256_of(cell_hash)
    made = {f"{cell}.json": json.dumps(document).encode()}
    for kind, table in tables.items():
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        made[f"{cell}.{kind}.parquet"] = buffer.getvalue()
    return made


class Records:
    """Two cells, one of them damaged: its JSON, or a file beside it."""

    def seeds(self, scratch: Path, clips: Path | None) -> list[Input]:
        import matplotlib.pyplot  # noqa: F401 (before the first case: it makes a cache)

        from halign_bench.validation.commands import check

        found = [small(cell) for cell in CELLS]
        for files in found:
            for name, content in files.items():
                (scratch / name).write_bytes(content)
        if wrong := check(sorted(scratch.glob("*.json"))):
            raise SystemExit(f"the seeds are not valid: {wrong[:3]}")
        return found

    def change(self, seeds: list[Input], rng: random.Random) -> Input:
        from halign_bench.protocol import sha256_of

        made = {name: content for seed in seeds for name, content in seed.items()}
        cell = rng.choice(CELLS)
        kind = rng.random()
        if kind < 0.25:
            name = f"{cell}.{rng.choice(('clips', 'bootstrap'))}.parquet"
            made[name] = self._odd_parquet(made[name], rng) if rng.random() < 0.6 else damaged(made[name], rng)
            return {f"records/{name}": content for name, content in made.items()}
        document = json.loads(made[f"{cell}.json"])
        if kind < 0.6:
            made[f"{cell}.json"] = odd_json(document, rng)
        else:  # of a part that lies deep, in all cells alike where that is what a protocol must be
            place = rng.choice(("cell", "config", "metrics", "timings", "training", "files", "claims", "protocol"))
            document[place] = odd_document(document[place], rng) if document[place] else [{"metric": "x", "source": 1}]
            for other in CELLS if place == "protocol" else (cell,):
                theirs = json.loads(made[f"{other}.json"]) | {place: document[place]}
                with contextlib.suppress(ValueError, UnicodeEncodeError):
                    theirs["protocol_hash"] = sha256_of(theirs["protocol"])
                made[f"{other}.json"] = json.dumps(theirs).encode()
        return {f"records/{name}": content for name, content in made.items()}

    def _odd_parquet(self, content: bytes, rng: random.Random) -> bytes:
        """A table that is well formed: odd values, types, columns and rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(io.BytesIO(content))
        name = rng.choice(table.column_names)
        values: list[Any] = table.column(name).to_pylist()
        action = rng.random()
        if action < 0.5:
            odd = [v for v in (NUMBERS if isinstance(values[0], int | float) else TEXTS) if v != "\ud800"]
            for _ in range(rng.choice((1, 5, len(values)))):
                values[rng.randrange(len(values))] = rng.choice([*odd, None])
        elif action < 0.7:
            values = [None if v is None else str(v) if not isinstance(v, str) else len(v) for v in values]
        elif action < 0.8:
            values = [[v] for v in values]
        try:
            column = pa.array(values)
        except (pa.ArrowException, OverflowError, TypeError):
            column = pa.array([float(v) if isinstance(v, int) and abs(v) < 1e300 else 0.0 for v in values])
        table = table.set_column(table.column_names.index(name), name, column)
        if action > 0.9:
            table = table.drop_columns([name])
        elif action > 0.8:
            table = table.slice(0, rng.choice((0, 1, 7))) if rng.random() < 0.5 else pa.concat_tables([table, table])
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()

    def run(self, folder: Path) -> None:
        from halign_bench.figures.make import KINDS
        from halign_bench.figures.source import NoData, read
        from halign_bench.report import document
        from halign_bench.report.build import _page
        from halign_bench.validation.commands import check

        for finding in check(sorted((folder / "records").glob("*.json"))):
            if wrong := unfit(str(finding)):
                raise Finding(f"a finding of validate that {wrong}: {str(finding)!r:.500}")
        source = read([folder])
        strict(source.table.to_json())
        said = document.context(source)
        for kind in KINDS.values():
            try:
                kind.rows(source)
            except NoData as problem:
                if wrong := unfit(str(problem)):
                    raise Finding(f"a figure left out with what {wrong}: {str(problem)!r:.500}") from None
        _page({**said, "figures": [], "absent": [], "gallery": None, "configs": [], "folder": "x"})


class Tables:
    """Cells with odd names, numbers and sentences in places that the schema leaves open, in every form of a table."""

    def seeds(self, scratch: Path, clips: Path | None) -> list[Input]:
        return [{f"{cell}.json": small(cell)[f"{cell}.json"]} for cell in CELLS]

    def change(self, seeds: list[Input], rng: random.Random) -> Input:
        documents = [json.loads(next(iter(seed.values()))) for seed in seeds]
        for document in documents:
            document["files"], document["bootstrap"] = {}, None
        for _ in range(rng.choice((1, 2, 4))):
            document = rng.choice(documents[1:])
            self._odd(document, rng)
        return {f"records/{n}.json": json.dumps(document).encode() for n, document in enumerate(documents)}

    def _odd(self, document: Any, rng: random.Random) -> None:
        if not document["metrics"]:
            return
        score = rng.choice(list(document["metrics"].values()))
        text, number = rng.choice(TEXTS), rng.choice([n for n in NUMBERS if -1e308 <= n <= 1e308])
        what = rng.randrange(9)
        if what == 0:
            document["cell"]["method"] = text
        elif what == 1:
            document |= {"status": rng.choice(("failed", "diverged", "timeout")), "error": text or "x", "metrics": {}}
        elif what == 2:
            score |= {"value": None, "ci": None, "reason": text or "x"}
        elif what == 3:
            score |= {"value": number, "ci": rng.choice((None, [min(number, 1.0), max(number, 1.0)]))}
        elif what == 4:
            score |= {"unit": text, "higher_is_better": rng.choice((True, False, None))}
        elif what == 5:
            score["failed"] = {text: 3}
        elif what == 6:
            name = "".join(c for c in text if not c.isspace() and c not in "@/") or "x"
            document["metrics"][f"{name}@{name}"] = dict(score)
        elif what == 7:
            document["claims"] = [{
                "metric": "fid", "source": text,
                "better_than": rng.choice((text or "x", "base", ["base", text or "x"])),
                "margin": number if abs(number) < 1e300 else 0.0,
            }]  # fmt: skip
        else:
            document["warnings"] = [{"name": text, "step": 3, "value": 1.0, "text": text}]
            document["timings"]["train"] = abs(number)

    def run(self, folder: Path) -> None:
        from rich.console import Console

        from halign_bench.leaderboard import build
        from halign_bench.results import read_records
        from halign_bench.tables.spreadsheet import COLUMNS

        board = build(*read_records([folder]))
        strict(board.to_json())
        markdown, latex, html = board.to_markdown(), board.to_latex(), board.to_html()
        printed = io.StringIO()
        board.print(Console(file=printed, width=100))
        for form, text in (("terminal", printed.getvalue()), ("markdown", markdown), ("latex", latex), ("html", html)):
            if odd := [c for c in text if not c.isprintable() and c not in "\n\u00a0"]:
                raise Finding(f"{form} holds {odd[0]!r}: {text[max(text.index(odd[0]) - 80, 0) :][:160]!r}")
        for line in csv.reader(io.StringIO(board.to_csv())):
            if len(line) != len(COLUMNS):
                raise Finding(f"a line of the CSV has {len(line)} fields: {line!r:.300}")
        for bad in ("<script", "<img", "</script", "\" onmouseover"):
            if bad in html:
                raise Finding(f"html holds {bad}")
            if bad.startswith("<") and re.search(rf"(?<!\\){re.escape(bad)}", markdown):
                raise Finding(f"markdown holds {bad}")


def strict(text: str) -> Any:
    """JSON without NaN, that can be written as UTF-8."""

    def refuse(name: str) -> float:
        raise Finding(f"JSON holds {name}")

    text.encode("utf-8")
    return json.loads(text, parse_constant=refuse)


TARGETS = {"records": Records, "table": Tables}
