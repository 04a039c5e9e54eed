r"""Text and columns of numbers for LaTeX.

Only commands of LaTeX itself, booktabs and siunitx are used: a package that the reader's preamble lacks would keep the
table from compiling, which is why a general converter of Unicode is not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from halign_bench.tables.cells import ABSENT, LARGE, Shown, decimals

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\ensuremath{<}", ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}", '"': "{''}", "[": "{[}", "]": "{]}", "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}", "*": "{*}", "↑": r"\ensuremath{\uparrow}", "↓": r"\ensuremath{\downarrow}",
    "→": r"\ensuremath{\to}", "±": r"\ensuremath{\pm}", "×": r"\ensuremath{\times}",
    "†": r"\ensuremath{\dagger}",
}  # fmt: skip
ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0304": "=", "\u030c": "v"}


def escape(text: str) -> str:
    r"""Any text as it is to be read, on one line. What pdflatex has no sign for is written as its code point.

    >>> escape("a_b[β=50%]"), escape("café 中")
    ('a\\_b{[}\\ensuremath{\\beta}=50\\%{]}', "caf\\'{e} U+4E2D")
    """
    return "".join(_character(character) for character in " ".join(text.split())).replace("--", "-{}-")


def _character(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    if " " <= character <= "~":
        return character
    greek = unicodedata.name(character, "").partition("GREEK SMALL LETTER ")[2].lower()
    if greek.isalpha() and greek not in ("omicron", "lamda"):
        return rf"\ensuremath{{\{greek}}}"
    base, *marks = list(unicodedata.normalize("NFD", character))
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in ACCENTS:
        return rf"\{ACCENTS[marks[0]]}{{{base}}}"
    return f"U+{ord(character):04X}"


def comment(text: str) -> str:
    """A line that LaTeX passes over, whatever the text holds."""
    return "% " + " ".join(text.split())


@dataclass(frozen=True)
class Column:
    """`width` is about how many characters wide it will be."""

    specification: str
    header: str
    cells: list[str]
    width: int


def text_column(header: str, texts: Sequence[str]) -> Column:
    """Texts that need no alignment by their point, on the right."""
    cells = ["--" if text == ABSENT else escape(text) for text in texts]
    return Column("r", escape(header), cells, max(map(len, [header, *texts])))


def number_column(header: str, width: int, shown: Sequence[Shown | None]) -> Column:
    """An S column, its numbers with the same places after the point; place 1 is bold, place 2 underlined.

    header  LaTeX, about `width` characters wide
    Numbers without any interval are set to four digits, very large and small ones as powers of ten.
    """
    errors = [decimals(cell.half) for cell in shown if cell and cell.half]
    if not errors or any(cell and max(abs(cell.value), cell.half or 0.0) >= LARGE for cell in shown):
        texts = ["--" if cell is None else _powers(cell) for cell in shown]
        styles: dict[int | None, str] = {1: r"{\bfseries %s}", 2: r"\underline{%s}"}
        cells = [styles.get(cell.place if cell else 0, "%s") % text for cell, text in zip(shown, texts, strict=True)]
        return Column("r", header, cells, max(width, 9))
    places = min(max(errors), min(errors) + 1)  # one score that hardly varies does not lend its digits to all
    values = ["" if cell is None else f"{cell.value:.{places}f}" for cell in shown]
    halves = [str(round(cell.half * 10**places)) if cell and cell.half else "" for cell in shown]  # no ± 0
    form = _Format(
        places, before=max(len(_whole(value)) for value in values), signed=any(value[:1] == "-" for value in values),
        digits=max(map(len, halves)),
    )  # fmt: skip
    cells = [
        "{--}" if cell is None else form.cell(value, half, cell.place)
        for cell, value, half in zip(shown, values, halves, strict=True)
    ]
    return Column(form.specification, header, cells, max(width, form.width))


def _powers(cell: Shown) -> str:
    """A number of four digits, as a power of ten where it is very large or small, and half of its interval."""
    return rf"\num{{{cell.value:.4g}}}" + (rf" $\pm$ \num{{{cell.half:.2g}}}" if cell.half else "")


def _whole(value: str) -> str:
    return value.lstrip("-").partition(".")[0]


@dataclass(frozen=True)
class _Format:
    """What siunitx reserves for the numbers of a column: places after the point, digits before it, a sign, and the
    digits of the half interval counted in units of the last place."""

    places: int
    before: int
    signed: bool
    digits: int

    @property
    def specification(self) -> str:
        return f"S[table-format={'-' * self.signed}{self.before}.{self.places}({self.digits})]"

    @property
    def width(self) -> int:
        return self.signed + self.before + 1 + self.places + 3 + self._whole_digits(self.digits) + 1 + self.places

    def _whole_digits(self, digits: int) -> int:
        return max(digits - self.places, 1)

    def cell(self, value: str, half: str, place: int | None) -> str:
        written = f"{value}({half})" if half else value
        if place == 1:
            return rf"\bfseries {written}"
        if place != 2:
            return written
        # siunitx cannot underline a number that it aligns; a text is centred, and lies right when it is as wide.
        left = "-" * (self.signed and value[0] != "-") + "0" * (self.before - len(_whole(value)))
        if half:
            right = "0" * (self._whole_digits(self.digits) - self._whole_digits(len(half)))
        else:
            right = rf"{{}}\pm{'0' * self._whole_digits(self.digits)}{'.' * bool(self.places)}{'0' * self.places}"
        return rf"{{{_phantom(left)}\underline{{\num{{{written}}}}}{_phantom(right)}}}"


def _phantom(text: str) -> str:
    return rf"$\phantom{{{text}}}$" if text else ""


__all__ = ["Column", "comment", "escape", "number_column", "text_column"]
