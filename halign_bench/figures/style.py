"""What all figures share: widths, fonts, colours with markers that differ in grey too, and how they are saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halign_bench.atomic import atomic_path

FORMATS = ("pdf", "svg", "png")
WIDTHS = {"column": 3.33, "page": 6.9}  # inches: a column and both columns of the usual conference styles
DPI = 300  # of png
HANDLE = 0.4  # inches of line, marker and space beside each label
# Okabe and Ito's colours for colour-blind readers, without their yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES: tuple[Any, ...] = ("--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
BASE = {"color": "black", "marker": "o", "linestyle": "-"}
SETTINGS: dict[str, Any] = {
    "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path",  # embedded, or drawn: the same on every machine
    "svg.hashsalt": "halign-bench", "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans",  # which matplotlib brings along
    "font.size": 7, "axes.titlesize": 7, "axes.labelsize": 6.5, "xtick.labelsize": 6, "ytick.labelsize": 6,
    "legend.fontsize": 6.5, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.major.size": 2, "ytick.major.size": 2, "xtick.major.pad": 2, "ytick.major.pad": 2, "axes.labelpad": 2,
    "axes.titlepad": 3, "lines.linewidth": 1.0, "lines.markersize": 3.5, "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2, "legend.handletextpad": 0.5, "legend.labelspacing": 0.3,
    "axes.formatter.useoffset": False, "axes.formatter.use_mathtext": True, "axes.formatter.limits": (-3, 4),
    "figure.constrained_layout.h_pad": 0.03, "figure.constrained_layout.w_pad": 0.05,
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How a figure is to look: its width in inches, and the methods of the table, which look alike in all figures."""

    width: float
    methods: tuple[str, ...] = ()

    @property
    def wide(self) -> bool:
        return self.width > (WIDTHS["column"] + WIDTHS["page"]) / 2

    def of(self, method: str) -> dict[str, Any]:
        """Colour, marker and line style of a method. base is black; eleven others have markers of their own."""
        if method == "base":
            return BASE
        others = [name for name in self.methods if name != "base"]
        i = others.index(method) if method in others else 0
        return {
            "color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "linestyle": LINES[i % len(LINES)]
        }  # fmt: skip

    def panels(self, count: int, columns: int, height: float, extra: float = 0.0, **options: Any) -> tuple[Any, list]:
        """A Figure with `count` axes, `columns` beside each other, `height` inches each, and room for a legend."""
        from matplotlib.figure import Figure

        columns = min(columns, count)
        lines = -(-count // columns)
        figure = Figure(figsize=(self.width, lines * height + extra), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, **options).ravel()
        for axis in grid[count:]:
            axis.set_visible(False)
        return figure, list(grid[:count])

    def fitting(self, labels: Sequence[str]) -> int:
        """How many columns of a legend fit beside each other; each is as wide as its longest label."""
        texts = [text_width(label) for label in labels]
        for columns in range(len(labels), 1, -1):
            each, more = divmod(len(labels), columns)  # matplotlib gives the first columns one more
            ends = [(i + 1) * each + min(i + 1, more) for i in range(columns)]
            widest = [max(texts[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
            if 1.06 * sum(widest) + len(widest) * HANDLE <= self.width:  # hinted letters are a little wider
                return columns
        return 1

    def legend(self, figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
        """Above the panels: below stands what the x axis is."""
        figure.legend(handles, labels, loc="outside upper center", ncols=self.fitting(labels))

    def legend_height(self, labels: Sequence[str]) -> float:
        """Inches that `legend` takes."""
        return 0.14 * -(-len(labels) // self.fitting(labels)) + 0.06


def text_width(text: str) -> float:
    """Inches that a label of a legend, or of a row, takes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=SETTINGS["font.family"], size=SETTINGS["legend.fontsize"])
    return float(TextPath((0, 0), text, prop=font).get_extents().width) / 72


def balanced(names: Sequence[str], most: int) -> list[list[str]]:
    """Groups of at most `most`, as few and as equal as can be.

    >>> balanced(["a", "b", "c", "d", "e"], 4)
    [['a', 'b', 'c'], ['d', 'e']]
    """
    groups = -(-len(names) // most)
    ends = [round(len(names) * (i + 1) / groups) for i in range(groups)]
    return [list(names[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


@contextmanager
def settings() -> Iterator[None]:
    """Fonts and styles of figures, without a window and without touching anybody's own settings."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        yield


def save(figure: Any, folder: Path, name: str, formats: Sequence[str] = FORMATS, dpi: int = DPI) -> list[Path]:
    """Writes `folder/name.pdf` and so on, the same bytes for the same figure. To be used within `settings`."""
    paths = []
    for kind in formats:
        # No date within, so that a file changes only where the numbers do.
        metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
        path = folder / f"{name}.{kind}"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata)
        paths.append(path)
    return paths


__all__ = ["FORMATS", "WIDTHS", "Look", "balanced", "save", "settings", "text_width"]
