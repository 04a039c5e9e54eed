"""What one number of a method does: TMM's fold, and how many winners IPA learns from. Paired differences from base."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from halign_bench.figures.labels import label
from halign_bench.figures.source import NoData, Row, Source, against_base, direction, effective, headline
from halign_bench.figures.style import Look
from halign_bench.record import Record, metric_key, parse_key

FRAMES = {"none": 1, "2": 2, "4": 4}  # video frames that a latent frame is told of, by TMM's fold
SCORES = ("sync_c", "sync_d", "hkc", "fid")


def fold_rows(source: Source) -> list[Row]:
    """A line for each score and fold of `tmm`. Raises NoData where fewer than two folds were run."""
    return _rows(
        source, "tmm", "fold", lambda value, _: FRAMES.get(str(value)), "run tmm,tmm[fold=2],tmm[fold=none] for it"
    )


def winners_rows(source: Source) -> list[Row]:
    """A line for each score and number of winners of `ipa`. Raises NoData where fewer than two were run."""
    return _rows(source, "ipa", "winners", _winners, "run ipa,ipa[winners=8],ipa[winners=32] for it")


def _winners(value: Any, record: Record) -> int | None:
    """As set; None is all that there are, which the record of the preferences tells."""
    if value is not None:
        return int(value)
    criterion = effective(record)[0]["config"].get("criterion", "overall")
    found: Any = record.provenance.get("preferences")
    for name in ("criteria", criterion, "winners"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, int) else None


def _rows(
    source: Source, method: str, setting: str, place: Callable[[Any, Record], int | None], advice: str
) -> list[Row]:
    board = source.table
    compared = against_base(board)
    variants = _variants(source, method, setting, place)
    if len(variants) < 2:
        raise NoData(f"{'one' if variants else 'no'} {setting} of {method} is among the records; {advice}")
    rows: list[Row] = []
    for key in headline(board, SCORES):
        name, where, _ = parse_key(key)
        for x, variant in sorted(variants.items()):
            if (variant, key) in compared:
                entry = compared[variant, key]
                score = next(row for row in board.rows if row.method == variant).metrics[key]
                rows.append({
                    "metric": metric_key(name, where), "higher_is_better": direction(board, key), "method": variant,
                    setting: x, "difference": entry["difference"], "difference_low": entry["ci"][0],
                    "difference_high": entry["ci"][1], "verdict": entry["verdict"], "value": score.value,
                    "n": entry["n"], "n_seeds": entry["n_seeds"],
                })  # fmt: skip
    if not rows:
        raise NoData(f"the variants of {method} could not be compared with base")
    return rows


def _variants(
    source: Source, method: str, setting: str, place: Callable[[Any, Record], int | None]
) -> dict[int, str]:
    """Value of the setting -> row of the table: of those that differ in nothing else, the ones with the most values."""
    groups: dict[str, dict[int, str]] = {}
    for name in source.methods:
        done = source.records.done(name)
        parts = effective(done[0]) if done else []
        if len(parts) != 1 or parts[0].get("method") != method:
            continue
        config = dict(parts[0]["config"])
        at = place(config.pop(setting, None), done[0])
        if at is not None:
            groups.setdefault(json.dumps(config, sort_keys=True), {}).setdefault(at, name)
    return max(groups.values(), key=len, default={})


def draw_fold(rows: Sequence[Row], look: Look) -> Any:
    """A matplotlib Figure; to be used within `style.settings`."""
    return _draw(rows, look, "fold", "video frames told to a latent frame", "linear")


def draw_winners(rows: Sequence[Row], look: Look) -> Any:
    """Likewise."""
    return _draw(rows, look, "winners", "winners learnt from", "log")


def _draw(rows: Sequence[Row], look: Look, setting: str, what: str, scale: str) -> Any:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    columns = 4 if look.wide else 2
    figure, axes = look.panels(len(metrics), columns, 1.6 if look.wide else 1.2)
    seeds = {row[setting]: row["n_seeds"] for row in rows}
    ticks = sorted(seeds)
    if len(set(seeds.values())) > 1:  # an interval from one seed does not hold how training varies
        what += f" ({', '.join(str(seeds[x]) for x in ticks)} seeds)"
    for axis, metric in zip(axes, metrics, strict=True):
        of = [row for row in rows if row["metric"] == metric]
        axis.axhline(0, color="black", linewidth=0.8, zorder=1)
        xs, ys = [row[setting] for row in of], [row["difference"] for row in of]
        colour = "#0072B2"
        axis.plot(xs, ys, color=colour, linewidth=0.8, linestyle="--", zorder=2)
        for row in of:
            told = row["verdict"] not in (None, "undecided")
            axis.vlines(row[setting], row["difference_low"], row["difference_high"], color=colour, linewidth=1)
            axis.plot([row[setting]], [row["difference"]], color=colour, marker="o",
                      markerfacecolor=colour if told else "white", zorder=3)  # fmt: skip
        axis.set_title(label(metric, of[0]["higher_is_better"]))
        axis.set_xscale(scale)
        axis.minorticks_off()
        axis.set_xticks(ticks, [str(x) for x in ticks])
        above = sum(ys) > 0  # the line lies at the bottom of the panel, so that its name stands above it
        axis.annotate(
            "base", (1, 0), (0, 2 if above else -2), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", va="bottom" if above else "top", fontsize="small",
        )  # fmt: skip
        axis.margins(x=0.15)
        axis.locator_params(axis="y", nbins=5)
    for axis in axes[::columns]:
        axis.set_ylabel("Δ from base")
    figure.supxlabel(what, fontsize="medium")
    return figure


__all__ = ["draw_fold", "draw_winners", "fold_rows", "winners_rows"]
