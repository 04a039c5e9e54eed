"""Measures trained evaluators on held-out people and writes weights, numbers and model card together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from halign_bench.atomic import atomic_path
from halign_bench.progress import Progress
from halign_bench.track import Clip, Extractor
from halign_bench.tracks.puppet import evaluator_data as data
from halign_bench.tracks.puppet import nets
from halign_bench.tracks.puppet.body import LAYOUT
from halign_bench.tracks.puppet.evaluators import NAMES, load, pack
from halign_bench.tracks.puppet.fitness import DAMAGES, measure

SPLIT = "evaluator-test"
SHIFTS = (-4, -3, -2, -1, 0, 1, 2, 3, 4)
FRAMES = 17
TARGETS = {"sync_exact": 0.95, "pck": 0.95, "auc": 0.98}


def cut(clips: dict[str, np.ndarray], i: int, start: int, voice: int) -> Clip:
    """17 frames of long clip `i` from frame `start`, with the sound from frame `voice` on."""
    video = clips["video"][i, start : start + FRAMES]
    return Clip(
        id=str(i), identity=str(clips["person"][i]), video=video, reference=video[0],
        audio=clips["audio"][i, voice * nets.HOP : (voice + FRAMES) * nets.HOP].astype(np.float32),
        skeleton=clips["skeleton"][i, start : start + FRAMES], layout=LAYOUT,
    )  # fmt: skip


def sync_quality(clips: dict[str, np.ndarray], extractor: Extractor) -> dict[str, Any]:
    """Share of clips whose offset is found exactly, by shift of the sound; confidence in and out of sync."""
    from halign_bench.metrics.sync_c import sync_scores

    count = len(clips["video"])
    exact: dict[int, list[bool]] = {shift: [] for shift in SHIFTS}
    confidence, other = [], []
    for i in range(count):
        for shift in SHIFTS:
            start = data.ROOM - shift // 2
            clip = cut(clips, i, start, start + shift)
            found = extractor([clip], [clip])[0]
            score = sync_scores(found["video"], found["audio"], found["vshift"])
            exact[shift].append(score.offset == shift)
            if shift == 0:
                confidence.append(score.confidence)
                stranger = cut(clips, (i + 1) % count, data.ROOM, data.ROOM)
                wrong = extractor([clip], [stranger])[0]
                other.append(sync_scores(found["video"], wrong["audio"], found["vshift"]).confidence)
    shares = {shift: float(np.mean(hits)) for shift, hits in exact.items()}
    return {
        "clips": count,
        "sync_exact": float(np.mean([shares[s] for s in SHIFTS if s])),
        "exact_by_shift": {str(shift): share for shift, share in shares.items()},
        "sync_c_in_sync": float(np.mean(confidence)),
        "sync_c_of_another_voice": float(np.mean(other)),
    }


def hand_quality(clips: dict[str, np.ndarray], extractor: Extractor) -> dict[str, Any]:
    """PCK@0.1: joints found within a tenth of the diagonal of the hand's box, all 21 joints of clean hands."""
    near, confidence, seen = [], [], 0
    for i in range(len(clips["video"])):
        clip = cut(clips, i, 0, 0)
        found = extractor([clip], [clip])[0]
        assert clip.skeleton is not None
        true = np.stack([clip.skeleton[:, rows, :2] for rows in LAYOUT.hands], 1)
        size = np.linalg.norm(true.max(2) - true.min(2), axis=-1)
        hit = np.linalg.norm(found["keypoints"] - true, axis=-1) <= 0.1 * size[..., None]
        near.append(hit[found["expected"]].mean())
        confidence.append(found["confidence"][found["expected"]].mean())
        seen += int(found["expected"].sum())
    return {"clips": len(near), "hands": seen, "pck": float(np.mean(near)), "hkc_clean": float(np.mean(confidence))}


def area_under_curve(same: np.ndarray, different: np.ndarray) -> float:
    """Probability that a same pair scores above a different one."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([same, different]))
    n = len(same)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(different)))


def identity_quality(people: dict[str, np.ndarray], extractor: Extractor) -> dict[str, Any]:
    """AUC over all pairs of unseen people: as they are, and when same means other clothes and wall."""
    views = people["views"]
    vectors = np.stack([
        extractor([_still(v)], [_still(v)])[0]["embedding"] for v in views
    ])  # [P, 4, D]; views 0 and 1 as they are, 2 and 3 in other clothes  # fmt: skip
    result: dict[str, Any] = {"people": len(views)}
    for name, (a, b) in {"auc": (0, 1), "auc_other_clothes": (0, 2)}.items():
        similar = vectors[:, a] @ vectors[:, b].T
        same = np.eye(len(views), dtype=bool)
        result[name] = area_under_curve(similar[same], similar[~same])
    return result


def _still(video: np.ndarray) -> Clip:
    return Clip(id="still", identity="", video=video, reference=video[0])


def measure_all(
    extractors: dict[str, Extractor], work: Path, progress: Progress, clips: int = 500, damaged: int = 100
) -> dict[str, Any]:
    """Everything on the card."""
    progress.say("measuring on held-out people ...")
    long_clips = data.load(SPLIT, "clips", clips, work)
    people = data.load(SPLIT, "people", min(250, clips), work)
    quality: dict[str, Any] = {
        "sync": sync_quality(long_clips, extractors["sync"]),
        "hands": hand_quality(long_clips, extractors["hands"]),
        "identity": identity_quality(people, extractors["identity"]),
    }
    ladders = []
    for kind in DAMAGES:
        with progress.phase(f"damage: {kind}", damaged) as phase:
            rows = [data.spread(SPLIT, i) for i in range(damaged)]
            ladders += measure(kind, extractors, rows, SPLIT, tick=phase.advance)
    quality["damage"] = [
        {"kind": f.kind, "metric": f.metric, "unit": DAMAGES[f.kind].unit, "levels": list(f.levels),
         "values": list(f.values), "spearman": f.spearman, "follows": f.follows, "clips": f.clips}
        for f in ladders
    ]  # fmt: skip
    return quality


def publish(
    trained: dict[str, nn.Module], facts: dict[str, Any], out: Path, work: Path, progress: Progress
) -> dict[str, Any]:
    """Measures the weights as shipped (half precision, read back from the file), then puts all files in place."""
    draft = work / "draft"
    draft.mkdir(parents=True, exist_ok=True)
    content = pack(trained)
    card: dict[str, Any] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "trained": facts}
    (draft / NAMES[0]).write_bytes(content)
    (draft / NAMES[1]).write_text(json.dumps(card), encoding="utf-8")
    card["quality"] = measure_all(load(folder=draft), work, progress)
    (draft / NAMES[1]).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (draft / "evaluators.md").write_text(card_text(card), encoding="utf-8")
    for name in (*NAMES, "evaluators.md"):
        with atomic_path(out / name) as temporary:
            temporary.write_bytes((draft / name).read_bytes())
    progress.say(f"wrote {out / NAMES[0]} ({len(content) / 1e6:.2f} MB)")
    return card


def card_text(card: dict[str, Any]) -> str:
    """The model card, made of the numbers beside it."""
    quality, facts = card["quality"], card["trained"]
    sync, hands, identity = quality["sync"], quality["hands"], quality["identity"]
    shifts = " | ".join(f"{float(share):.3f}" for share in sync["exact_by_shift"].values())
    lines = [
        "# Evaluators of track `puppet`",
        "",
        "Small nets that measure generated puppet clips. They mean something for this track's clips and for nothing",
        "else; a score made with them carries `@puppet`. Written by",
        "`python -m halign_bench.tracks.puppet.train_evaluators`.",
        "",
        f"- Weights: `{NAMES[0]}`, {card['bytes'] / 1e6:.2f} MB, half precision, sha256 `{card['sha256']}`",
        f"- Trained on split `evaluator-train` alone (renderer {facts['renderer']}, seed {facts['seed']}): "
        f"{facts['clips']} clean clips of 23 frames, "
        f"{facts['hand_frames']} frames re-rendered with known damage to hands, portraits of {facts['people']} people",
        "- Steps: " + ", ".join(f"{name} {steps}" for name, steps in facts["steps"].items()),
        f"- Measured on split `{SPLIT}` (no person in common), with the weights as shipped",
        "",
        "| What | Measured | Asked for |",
        "|---|---|---|",
        f"| sync: shifted offset found exactly ({sync['clips']} clips, shifts ±1 to ±4) "
        f"| {sync['sync_exact']:.3f} | {TARGETS['sync_exact']} |",
        f"| hands: PCK@0.1 of the hand's box ({hands['clips']} clips, {hands['hands']} hands) "
        f"| {hands['pck']:.4f} | {TARGETS['pck']} |",
        f"| identity: AUC, unseen people ({identity['people']}) | {identity['auc']:.4f} | {TARGETS['auc']} |",
        f"| identity: AUC, same person in other clothes before another wall | {identity['auc_other_clothes']:.4f} | |",
        "",
        f"Sync-C in sync {sync['sync_c_in_sync']:.3f}, of another clip's voice {sync['sync_c_of_another_voice']:.3f}; "
        f"HKC of clean hands {hands['hkc_clean']:.3f}.",
        "",
        "Offset found exactly, by shift of the sound in frames:",
        "",
        "| " + " | ".join(sync["exact_by_shift"]) + " |",
        "|" + "---|" * len(sync["exact_by_shift"]),
        f"| {shifts} |",
        "",
        f"Damage of known size ({quality['damage'][0]['clips']} clips a level; Spearman's correlation of clip scores "
        "with the level, for fid and fvd of the levels' scores):",
        "",
        "| Damage | Levels | Metric | Values | Spearman | Follows at every step |",
        "|---|---|---|---|---|---|",
    ]
    for row in quality["damage"]:
        levels = ", ".join(f"{level:g}" for level in row["levels"])
        values = ", ".join("none" if value is None else f"{value:.3g}" for value in row["values"])
        rank = "none" if row["spearman"] is None else f"{row['spearman']:.2f}"
        follows = "yes" if row["follows"] else "no"
        lines.append(f"| {row['kind']} ({row['unit']}) | {levels} | {row['metric']} | {values} | {rank} | {follows} |")
    return "\n".join(lines) + "\n"
