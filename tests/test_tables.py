"""The forms of a leaderboard: what each says, how it marks, and what it makes of hostile names and broken records."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import cell, make_record, score

from halign_bench.cli import main
from halign_bench.leaderboard import build
from halign_bench.results import write_record
from halign_bench.tables.cells import Cells, Shown, keys_shown
from halign_bench.tables.selection import select
from halign_bench.tables.tex import comment, escape, number_column

FORMATS = ("table", "md", "csv", "latex", "html", "json")
HOSTILE = r"""<script>alert(1)</script> [b]\input{x} 50%_#&^~$"'|"""


def rendered(capsys, *arguments: object) -> str:
    assert main(["leaderboard", *map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """good before base before bad, told apart; NFE 20 and 10."""
    path = tmp_path_factory.mktemp("records")
    for method, gain in {"base": 0.0, "good": 0.5, "best": 1.0, "bad": -0.5}.items():
        cell(path, method, 0, gain, nfes=(20, 10))
    return path


class Reader(HTMLParser):
    """Elements of a page, and the text of each cell."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[tuple[str, dict, str]] = []
        self.open: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(self.tags[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, "elements are closed in the order in which they were opened"

    def handle_data(self, data):
        if data.strip():
            self.texts.append((*self.open[-1], data))


# LaTeX


def test_latex_marks_the_best_and_the_next_of_each_score_by_rank(folder, capsys):
    text = rendered(capsys, folder, "--format", "latex", "--metrics", "sync_c").split(r"\end{table}")[0]
    rows = {line.split()[0].removesuffix(r"$^{\ast}$"): line for line in text.splitlines() if " & " in line}
    assert r"\bfseries" in rows["best"] and r"\underline" in rows["good"]
    assert not any(mark in rows[name] for name in ("base", "bad") for mark in (r"\bfseries", r"\underline"))
    assert re.search(r"S\[table-format=\d\.\d\(\d+\)\]", text) and r"\toprule" in text and r"\sisetup" in text
    assert re.search(r"bad & \d\.\d+\(\d+\)", text), "a value with its ± in the last digits"


def test_latex_marks_nothing_where_nothing_is_told_apart(tmp_path, capsys):
    cell(tmp_path, "base")
    cell(tmp_path, "sft")
    text = rendered(capsys, tmp_path, "--format", "latex").split(r"\midrule", 1)[1]
    assert r"\bfseries" not in text and r"\underline" not in text


def test_numbers_of_a_column_have_the_same_places():
    given = (10.123, 3.0), (9.4567, 0.28), (8, None)
    column = number_column("x", 1, [Shown(value, half, None, None, None) for value, half in given])
    assert column.cells == ["10.12(300)", "9.46(28)", "8.00"] and column.specification == "S[table-format=2.2(3)]"
    column = number_column("x", 1, [None, Shown(-0.5, 0.1, None, None, None), Shown(3.25, 0.25, None, 2, None)])
    assert column.specification == "S[table-format=-1.2(2)]"
    assert column.cells == ["{--}", "-0.50(10)", r"{$\phantom{-}$\underline{\num{3.25(25)}}}"]
    column = number_column("x", 1, [Shown(1234567.0, None, 1, 1, None), Shown(2.0, None, None, None, None), None])
    assert column.cells == [r"{\bfseries \num{1.235e+06}}", r"\num{2}", "--"]


@given(st.text())
def test_escaped_text_has_no_character_that_latex_acts_on(text):
    """Without the commands that `escape` itself writes, only letters, digits and harmless signs are left."""
    ours = r"\\ensuremath\{(\\[a-z]+|[<>|])\}|\\text[a-z]+\{\}|\\[`'^~\"=v]\{[a-zA-Z]\}|\\[{}$&#%_]"
    left = re.sub(ours, "", escape(text))
    left = re.sub(r"\{(''|\[|\]|\*|)\}", "", left)
    assert re.fullmatch(r"[A-Za-z0-9 !()+,\-./:;=?@]*", left), left
    assert "\n" not in comment(text) and comment(text).startswith("% ")


def latex_document(*tables: str) -> str:
    return "\n".join([
        r"\documentclass{article}", r"\usepackage{booktabs,siunitx}", r"\begin{document}", *tables, r"\end{document}",
    ])  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_and_fits_the_page(folder, tmp_path, capsys):
    """Also with names that are all special characters, with a failure, and without any interval."""
    record = make_record(HOSTILE, metrics={"fid@toy": score(12.0), "odd_name@x_y": score(-1e9)})
    write_record(tmp_path / "odd" / "a.json", record)
    write_record(tmp_path / "odd" / "b.json", make_record("βé中 --", status="failed", error="100 % wrong\n\\end{x}"))
    tables = [rendered(capsys, path, "--format", "latex") for path in (folder, tmp_path / "odd")]
    (tmp_path / "table.tex").write_text(latex_document(*tables), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Overfull" not in done.stdout and "Missing character" not in (tmp_path / "table.log").read_text("latin-1")


# HTML


def test_the_page_is_accessible_and_complete(folder, capsys):
    page = Reader(rendered(capsys, folder, "--format", "html"))
    assert not page.open
    names = [tag for tag, _ in page.tags]
    assert names.count("table") == names.count("caption") >= 3 and page.tags[0] == ("html", {"lang": "en"})
    assert not {"script", "link", "img", "iframe"} & set(names), "nothing is fetched and nothing runs"
    assert {attributes.get("scope") for tag, attributes in page.tags if tag == "th"} == {"col", "row"}
    cells = {text: attributes.get("class") for tag, attributes, text in page.texts if tag == "td"}
    ranks = {text.split("#")[1][0]: kind for text, kind in cells.items() if "#" in text}
    assert ranks == {"1": "first", "2": "second", "3": None, "4": None}
    said = [text for _, _, text in page.texts]
    assert any("sync_c@toy" in text for text in said) and "How to read it" in said


def test_no_name_becomes_markup(tmp_path, capsys):
    write_record(tmp_path / "a.json", make_record(HOSTILE, metrics={"fid@toy": score(1.0)}))
    write_record(tmp_path / "b.json", make_record("sft", status="failed", error="<img src=x onerror=alert(1)>"))
    page = Reader(rendered(capsys, tmp_path, "--format", "html"))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert any(HOSTILE in text for _, _, text in page.texts)
    assert r"\<script>" in rendered(capsys, tmp_path, "--format", "md")


# What is shown


def test_chosen_scores_and_methods_come_in_the_order_asked_for(folder, capsys):
    text = rendered(capsys, folder, "--metrics", "sync_c,fid", "--methods", "good,base", "--format", "md")
    scores = text.split("## Cost")[0]
    first = [line.split()[1] for line in scores.splitlines() if line.startswith("| ")]
    assert first == ["score", "sync_c@toy", "fid@toy"]
    assert scores.index("good") < scores.index("base") and "best" not in text and "motion" not in text


def test_choosing_changes_no_rank_and_the_front_is_of_the_chosen_scores(folder):
    from halign_bench.results import read_records

    whole = build(*read_records([folder]))
    part = select(whole, "fid@toy/nfe20", "bad,good")
    assert [row.method for row in part.rows] == ["bad", "good"] and keys_shown(part) == ["fid@toy/nfe20"]
    for row in part.rows:
        before = next(r for r in whole.rows if r.method == row.method)
        assert row.metrics["fid@toy/nfe20"] == before.metrics["fid@toy/nfe20"]
        assert row.pareto is False, "best, which is not shown, is better"
    fast = select(whole, "fid,seconds_per_second")
    assert "seconds_per_second@toy/nfe20" in keys_shown(fast) and "seconds_per_second" in fast.to_markdown()
    assert select(whole) == whole


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [("--metrics", "fod", "did you mean fid?"), ("--methods", "goood", "did you mean good?"),
     ("--methods", "zzz", "there are bad, base, best, good"), ("--metrics", "fid@", "does not name a score")],
)  # fmt: skip
def test_what_is_not_in_the_table_cannot_be_chosen(folder, capsys, option, text, said):
    assert main(["leaderboard", str(folder), option, text]) == 2
    assert said in capsys.readouterr().err


def test_the_cost_names_the_nfe_and_the_memory_of_training(folder, capsys):
    text = rendered(capsys, folder, "--format", "csv")
    assert {line["nfe"] for line in csv.DictReader(io.StringIO(text))} == {"20", "10"}
    cost = rendered(capsys, folder, "--format", "md").split("## Cost")[1].split("##")[0]
    assert "peak memory of training alone" in cost and re.search(r"\| NFE \|", cost) and "| 20  |" in cost


# Broken records


BROKEN = {
    "nan": (lambda text: re.sub(r'"value": [0-9.]+', '"value": NaN', text, count=1), "NaN"),
    "version": (lambda text: text.replace("halign-bench/record/2", "halign-bench/record/9"), "schema"),
    "truncated": (lambda text: text[: len(text) // 2], "not a valid record"),
    "empty": (lambda text: "", "not a valid record"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_record_is_said_by_name_and_the_rest_is_rendered(tmp_path, capsys, form, kind):
    change, word = BROKEN[kind]
    scores = {"fid@toy": score(12.0), "hkc@toy": score(0.75)}
    for name in ("base", "sft", "broken"):
        write_record(tmp_path / "records" / f"{name}-s0.json", make_record(name, metrics=scores))
    file = tmp_path / "records" / "broken-s0.json"
    file.write_text(change(file.read_text()))
    assert main(["leaderboard", str(tmp_path), "--format", form]) == 0
    said = capsys.readouterr()
    assert "broken-s0.json" in said.err and word in said.err, "where the form is piped elsewhere, it is still seen"
    text = said.out.replace("\n", " ")
    assert "broken-s0.json" in re.sub(r"\s", "", text)
    assert "sft" in text and "12" in text and "0.75" in text


@pytest.mark.parametrize("form", FORMATS)
def test_a_missing_score_is_a_gap_and_a_cell_given_twice_is_said(tmp_path, capsys, form):
    write_record(tmp_path / "records" / "a.json", make_record("base", metrics={"fid@toy": score(12.0)}))
    more = {"fid@toy": score(11.0), "hkc@toy": score(0.75), "kid@toy": score(None, n=0, reason="no frames")}
    write_record(tmp_path / "records" / "b.json", make_record("sft", metrics=more))
    write_record(tmp_path / "records" / "c.json", make_record("sft", metrics=more))
    text = rendered(capsys, tmp_path, "--format", form).replace("\n", " ")
    assert "0.75" in text and "sft seed 0 was given twice" in text
    if form == "json":
        rows = {row["method"]: row["metrics"] for row in json.loads(text)["rows"]}
        assert "hkc@toy" not in rows["base"] and rows["sft"]["kid@toy"]["value"] is None
    if form != "latex":  # a score that nobody has has no column there
        assert "no frames" in text


def test_the_place_of_a_score_is_its_rank_or_the_next_one_there_is():
    ranks = {"a": 1, "b": 1, "c": 3, "d": 4, "e": None}
    board = build([make_record(name, metrics={"fid@toy": score(1.0)}) for name in ranks])
    rows = [
        replace(row, metrics={"fid@toy": replace(row.metrics["fid@toy"], rank=ranks[row.method])}) for row in board.rows
    ]
    cells = Cells(replace(board, rows=rows))
    assert [cells.at(row, "fid@toy").place for row in rows] == [1, 1, 2, None, None]
