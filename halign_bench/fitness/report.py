"""What `fitness` prints and writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from halign_bench.documents import parsed
from halign_bench.errors import RequestError
from halign_bench.fitness.measuring import Ladder
from halign_bench.fitness.rule import RULE, overall
from halign_bench.printing import print_table
from halign_bench.track import Refusal, Unfit

SCHEMA = "halign-bench/fitness/1"
HEADER = ("damage", "unit", "metric", "levels", "scores", "clips", "Spearman", "verdict")


def document(
    ladders: Sequence[Ladder], left_out: Mapping[str, str], of: Mapping[str, Any], clips: int,
    refusals: Sequence[Refusal] = (),
) -> dict[str, Any]:  # fmt: skip
    """JSON-able: what was measured on which clips, and what follows for each metric.

    of  what identifies the clips
    """
    return {
        "schema": SCHEMA,
        "of": dict(of),
        "clips": clips,
        "rule": RULE,
        "metrics": metrics(ladders),
        "left_out": dict(left_out),
        "ladders": [asdict(ladder) for ladder in ladders],
        "refusals": [{"source": refusal.source, "reason": refusal.reason} for refusal in refusals],
    }


def to_json(whole: Mapping[str, Any]) -> str:
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def metrics(ladders: Sequence[Ladder]) -> dict[str, dict[str, Any]]:
    """By metric: key, verdict over all of its damages, why not "fit", and the protocol that this holds for."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(ladder.metric for ladder in ladders):
        own = [ladder for ladder in ladders if ladder.metric == name]
        verdict = overall([ladder.verdict for ladder in own])
        reasons = [f"{ladder.damage}: {ladder.reason}" for ladder in own if ladder.verdict == verdict and ladder.reason]
        protocol = own[0].protocol or ""
        found[name] = {
            "key": own[0].key, "verdict": verdict, "reason": "; ".join(reasons) or None, "protocol": protocol,
            "protocol_sha256": protocol_sha256(protocol),
        }  # fmt: skip
    return found


def protocol_sha256(protocol: str) -> str:
    """By which a verdict is known to be about the scores of a record."""
    return hashlib.sha256(protocol.encode()).hexdigest()


def read_unfit(path: Path) -> dict[str, Unfit]:
    """Metrics that a document written by `--out` calls unfit. Raises RequestError when it cannot be read."""
    try:
        found = parsed(path.read_text(encoding="utf-8"))["metrics"]
        return {
            name: Unfit(metric["reason"], metric["protocol_sha256"])
            for name, metric in found.items()
            if metric["verdict"] == "unfit"
        }
    except (OSError, ValueError, KeyError, TypeError) as problem:
        what = f"{type(problem).__name__}: {problem}"
        raise RequestError(f"{path}: no result of `halign-bench fitness` ({what}); reinstall halign-bench") from None


def show(whole: Mapping[str, Any]) -> None:
    """The table, the answer for each metric, what is missing and why, and the rule."""
    ladders = whole["ladders"]
    print_table(HEADER, [_row(ladder) for ladder in ladders], [ladder["verdict"] == "unfit" for ladder in ladders])
    for line in _answers(whole):
        print(line)


def markdown(whole: Mapping[str, Any]) -> str:
    """The same as Markdown."""
    from halign_bench.tables.markdown import pipes

    of = whole["of"]
    title = f"track `{of['track']}`" if "track" in of else "real clips"
    parts = [f"# Fitness of metrics on {title}", "", *pipes(HEADER, [_row(ladder) for ladder in whole["ladders"]]), ""]
    return "\n".join(parts + [f"- {line.strip()}" for line in _answers(whole)]) + "\n"


def _answers(whole: Mapping[str, Any]) -> list[str]:
    lines = []
    for verdict in ("fit", "unfit"):
        keys = [metric["key"] for metric in whole["metrics"].values() if metric["verdict"] == verdict]
        lines.append(f"{verdict}: {', '.join(keys) or 'none'}")
    missing: dict[str, list[str]] = {}
    for metric in whole["metrics"].values():
        if metric["verdict"] == "not measured":
            missing.setdefault(metric["reason"], []).append(metric["key"])
    for name, reason in whole["left_out"].items():
        missing.setdefault(reason, []).append(name)
    lines += [f"not measured: {', '.join(names)} ({reason})" for reason, names in missing.items()]
    lines += [f"{refusal['source']}: {refusal['reason']}" for refusal in whole["refusals"]]
    return [*lines, f"{whole['rule']}."]


def _row(ladder: Mapping[str, Any]) -> tuple[str, ...]:
    levels = ", ".join(f"{level:g}" for level in ladder["levels"])
    scores = ", ".join(f"{total:.3g}" for total in ladder["totals"]) or "-"
    rank = "-" if ladder["spearman"] is None else f"{ladder['spearman']:.2f}"
    if ladder["exact"] is not None:
        rank += f", exact {ladder['exact']:.1%}"
    arrow = "↑" if ladder["sign"] > 0 else "↓"
    verdict = f"{ladder['verdict']}: {ladder['reason']}" if ladder["reason"] else ladder["verdict"]
    lost = sum(ladder["failed"].values())
    if lost and ladder["clips"]:
        verdict += f" ({'; '.join(f'{count} clips not scored: {why}' for why, count in ladder['failed'].items())})"
    metric, clips = f"{ladder['key']} {arrow}", str(ladder["clips"])
    return ladder["damage"], ladder["unit"], metric, levels, scores, clips, rank, verdict


__all__ = ["SCHEMA", "document", "markdown", "metrics", "protocol_sha256", "read_unfit", "show", "to_json"]
