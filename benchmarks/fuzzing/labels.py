"""Preference files of three formats, the conditions that they name, and a labelling session with its answers."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.mutating import TEXTS, damaged, odd, odd_document, odd_json
from fuzzing.worker import Input

CLIPS, JOINTS, FRAMES, SIZE = 4, 44, 5, (16, 16)


def lines() -> list[dict[str, Any]]:
    """Pairs and single videos of clips, of files and of a session."""
    found: list[dict[str, Any]] = []
    for n in range(CLIPS):
        found.append({"clip": f"tiny/prompts/{n:03d}", "left": "a.mp4", "right": "b.mp4", "annotator": "ann",
                      "labels": {"motion": "left", "fidelity": ("left", "right")[n % 2]}})  # fmt: skip
    found.append({"clip": "tiny/prompts/000", "video": "a.mp4", "labels": {"motion": "good"}})
    condition = {"reference": "ref.png", "audio": "sound.wav", "skeleton": "pose.npy", "identity": "someone"}
    found.append({"condition": condition, "left": "a.mp4", "right": "b.mp4", "labels": {"motion": "right"}})
    found.append({"session": "session", "clip": "tiny/prompts/001", "left": 0, "right": 1,
                  "labels": {"motion": "right"}})  # fmt: skip
    return found


def session() -> dict[str, Any]:
    prompts = [
        {"clip": f"tiny/prompts/{n:03d}", "identity": f"person-{n}", "index": n, "reference": f"videos/{n}.png",
         "candidates": [{"video": f"videos/{n}-{k}.mp4", "noise": {"name": f"{n}/{k}", "seed": 0},
                         "scores": {"motion": 0.1 * k - n}} for k in range(2)]} for n in range(CLIPS)
    ]  # fmt: skip
    return {"schema": "halign-bench/prefs-session/1", "key": "0" * 64, "sources": {"spec": {}, "track": "tiny"},
            "criteria": ["motion"], "prompts": prompts}  # fmt: skip


def answers() -> list[dict[str, Any]]:
    return [
        {"clip": f"tiny/prompts/{n:03d}", "left": 0, "right": 1, "criterion": "motion", "shown": [1, 0],
         "label": "left" if n % 2 else "tie", "seconds": 1.5, "time": "2025-01-01T00:00:00+00:00"} for n in range(CLIPS)
    ]  # fmt: skip


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    flat = [{k if not isinstance(v, dict) else f"{k}.{inner}": v if not isinstance(v, dict) else v[inner]
             for k, v in row.items() for inner in (v if isinstance(v, dict) else (None,))} for row in rows]  # fmt: skip
    names = list(dict.fromkeys(name for row in flat for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue().encode("utf-8", "surrogatepass")


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    kept = [row for row in rows if not any(isinstance(value, int) for value in row.values())]
    names = list(dict.fromkeys(name for row in kept for name in row))
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in kept])
    pq.write_table(table, buffer)
    return buffer.getvalue()


def as_lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


class Preferences:
    def seeds(self, scratch: Path, clips: Path | None) -> list[Input]:
        import wave

        import scipy.stats  # noqa: F401  whose import runs lscpu with old numpy: before anybody watches
        from PIL import Image

        made: Input = {"a.mp4": b"left", "b.mp4": b"right"}
        rng = np.random.default_rng(0)
        picture, pose, sound = io.BytesIO(), io.BytesIO(), io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (24, 20, 3), dtype=np.uint8)).save(picture, "PNG")
        np.save(pose, rng.normal(size=(FRAMES, JOINTS, 3)).astype(np.float32))
        with wave.open(sound, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(rng.integers(-9000, 9000, 4000).astype("<i2").tobytes())
        made |= {"ref.png": picture.getvalue(), "pose.npy": pose.getvalue(), "sound.wav": sound.getvalue()}
        made |= {"session/session.json": json.dumps(session()).encode()}
        made |= {"session/answers/ann.jsonl": as_lines(answers())}
        return [made]

    def change(self, seeds: list[Input], rng: random.Random) -> Input:
        made, rows, kind = dict(seeds[0]), lines(), rng.random()
        suffix = rng.choice(("jsonl", "jsonl", "csv", "parquet"))
        if kind < 0.5:  # a line
            row = rng.randrange(len(rows))
            rows[row] = odd_document(rows[row], rng)
        elif kind < 0.6:  # what it names
            for name in ("ref.png", "pose.npy", "sound.wav"):
                made[name] = damaged(made[name], rng)
        elif kind < 0.75:
            made["session/session.json"] = odd_json(session(), rng)
        elif kind < 0.85:
            made["session/answers/ann.jsonl"] = as_lines([*answers(), odd_document(answers()[0], rng), odd(rng)])
        write = {"jsonl": as_lines, "csv": as_csv, "parquet": as_parquet}[suffix]
        try:
            content = write(rows)
        except Exception:  # pyarrow and csv cannot write everything that JSON can
            content, suffix = as_lines(rows), "jsonl"
        if kind >= 0.85:
            content = damaged(content, rng, [rng.choice(TEXTS).encode("utf-8", "surrogatepass")])
        return {**made, f"labels.{suffix}": content}

    def run(self, folder: Path) -> None:
        from halign_bench.errors import HalignError
        from halign_bench.prefs.agreement import agreement
        from halign_bench.prefs.answers import read_all
        from halign_bench.prefs.conditions import own_clip
        from halign_bench.prefs.reading import read_preferences
        from halign_bench.prefs.session import read_session
        from halign_bench.prefs.votes import votes
        from halign_bench.track import SkeletonLayout

        hands = {"left_hand": slice(2, 23), "right_hand": slice(23, 44)}
        layout = SkeletonLayout(body=("nose", "neck"), edges=((0, 1),), **hands)
        refusal: HalignError | None = None
        try:
            (path,) = folder.glob("labels.*")
            file = read_preferences(path)
            assert len(file.contents_sha256) == 64
            for criterion in file.labels.criteria:
                file.labels.winners(criterion)
            for prompt in file.prompts:
                if prompt.condition is not None:
                    own_clip(prompt.name, prompt.condition, folder, FRAMES, SIZE, layout)
        except HalignError as problem:
            refusal = problem
        sitting = read_session(folder / "session")
        agreement(sitting, votes(sitting, read_all(sitting.folder)))
        if refusal is not None:
            raise refusal


TARGETS = {"preferences": Preferences}
