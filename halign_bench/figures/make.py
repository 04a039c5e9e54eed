"""All figures by name: which there are, and how one is made, page by page, with the CSV that it was drawn from."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halign_bench.atomic import atomic_write
from halign_bench.figures import ablations, pareto, quality, samples, timesteps, training, wins
from halign_bench.figures.source import NoData, Row, Source
from halign_bench.figures.style import Look, save, settings
from halign_bench.tables.spreadsheet import Rows


def _one_page(rows: Sequence[Row]) -> list[list[Row]]:
    return [list(rows)]


@dataclass(frozen=True)
class Kind:
    """rows   what is shown, from the records; raises NoData
    draw   rows of a page -> matplotlib Figure
    pages  where one picture would hold too much
    caption  what has to be known to read it
    """

    rows: Callable[[Source], list[Row]]
    draw: Callable[[Sequence[Row], Look], Any]
    caption: str
    pages: Callable[[Sequence[Row]], list[list[Row]]] = _one_page


PAIRED = "paired 95 % interval of the difference from base"
FILLED = "Filled markers: different from base, Holm p < 0.05 over the table."
LINES = (
    "Black: base. Others: base's value plus the paired difference from it, over the seeds that both have, with its "
    "95 % interval."
)
KINDS = {
    "quality-nfe": Kind(
        quality.nfe_rows, quality.draw_nfe,
        f"Quality against network evaluations. {LINES} {FILLED}", quality.pages,
    ),
    "quality-seconds": Kind(
        quality.seconds_rows, quality.draw_seconds,
        f"Quality against seconds of sampling per generated second, at each NFE. {LINES} The same holds of seconds. "
        f"{FILLED}", quality.pages,
    ),
    "pareto": Kind(
        pareto.rows, pareto.draw,
        f"Two scores against each other, as differences from base. Bars: {PAIRED}. Grey area: better than base in "
        "both. Filled markers and the grey steps: the Pareto front of these two scores.",
    ),
    "win-rates": Kind(
        wins.rows, wins.draw,
        "Share of evaluation clips on which a method scores better than base on the same clip from the same noise; "
        "ties count half. Bars: 95 % over clips clustered by identity, and over seeds. Filled markers: the interval "
        "leaves out one half (not corrected for the number of scores).",
    ),
    "training": Kind(
        training.rows, training.draw,
        "Training: error of the policy less the reference's on winners and losers (Δ error; the error itself where a "
        "method has no reference), and implicit accuracy of its batches. Faint: single batches, means over seeds. "
        "Strong: their running mean over a tenth of a stage.", training.pages,
    ),
    "timesteps": Kind(
        timesteps.rows, timesteps.draw,
        "When motion and fidelity are decided. Left or above: correlation of a sample's score with that of its remake "
        "from noise level t; then how far the clean estimate at t is from the finished sample's score, and what "
        "skipping everything above t changes, in standard deviations. Bands: 95 %.", timesteps.pages,
    ),
    "fold": Kind(
        ablations.fold_rows, ablations.draw_fold,
        f"TMM's fold: how many of its four video frames a latent frame is told of. Bars: {PAIRED}. {FILLED}",
    ),
    "data-efficiency": Kind(
        ablations.winners_rows, ablations.draw_winners,
        f"IPA by the number of winners that it learns from. Bars: {PAIRED}. {FILLED}",
    ),
    "samples": Kind(
        samples.rows, samples.draw_rows,
        "One evaluation clip, in the middle of all by mean rank, and each method's sample of it from the same noise.",
        samples.pages,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A figure that was drawn: its pictures and CSVs, a page after the other."""

    name: str
    caption: str
    files: list[Path]


def make(name: str, source: Source, width: float, formats: Sequence[str], folder: Path) -> Made:
    """Draws one figure into `folder`, which exists: `name.pdf`, `name.csv`, and `name-2.pdf` and so on.

    width  in inches. Raises NoData where the records do not hold what it shows, and OSError.
    """
    kind = KINDS[name]
    look = Look(width, source.methods)
    files: list[Path] = []
    for stem, rows in pages(name, source).items():
        with settings():
            files += save(kind.draw(rows, look), folder, stem, formats)
        files.append(folder / f"{stem}.csv")
        atomic_write(files[-1], csv_text(rows))
    return Made(name, kind.caption, files)


def pages(name: str, source: Source) -> dict[str, list[Row]]:
    """What each page of a figure is drawn from, by the page's name. Raises NoData as `make` does."""
    kind = KINDS[name]
    numbered = enumerate(kind.pages(kind.rows(source)), 1)
    return {name if number == 1 else f"{name}-{number}": rows for number, rows in numbered}


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as they are, all with the same columns but those that begin with _; None is an empty field."""
    text = io.StringIO()
    columns = [name for name in rows[0] if not name.startswith("_")]
    writer = Rows(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


__all__ = ["KINDS", "Made", "NoData", "csv_text", "make", "pages"]
