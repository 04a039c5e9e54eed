"""Figures from records: what is drawn and from what, what is said where data are missing, and how it is saved."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pypdf import PdfReader
from records import IDS, cell, edit, make_record

from halign_bench.cli import main
from halign_bench.companions import read_clips
from halign_bench.errors import RequestError
from halign_bench.figures import commands, make, quality, samples, source, style, training
from halign_bench.figures.labels import label
from halign_bench.leaderboard import build
from halign_bench.record import ConfigUsed
from halign_bench.results import read_records

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # a letter without a glyph, axes without room
TIMESTEPS = Path(__file__).resolve().parent.parent / "leaderboards" / "puppet" / "timesteps"
ALL_WINNERS = {"preferences": {"criteria": {"overall": {"winners": 192}}}}


def used(method, **config):
    return ConfigUsed(given={}, effective=[{"method": method, "config": config}])


def write_log(run, record, part, entries, tail=""):
    folder = run / "cells" / f"{record.source.stem}-{record.cell_hash[:8]}" / "train" / part
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + tail)


def steps(stage, count=20, **quantities):
    return [
        {"stage": stage, "step": i + 1, "samples": 16 * (i + 1), **{k: f(i) for k, f in quantities.items()}}
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with everything that there are figures of; base has two seeds, variants have one."""
    run = tmp_path_factory.mktemp("run")
    folder, grid = run / "records", {"nfes": (20, 10)}
    folder.mkdir()
    for seed in (0, 1):
        cell(folder, "base", seed, **grid)
        dpo = cell(folder, "diffusion-dpo", seed, 0.5, cell_hash=f"{seed}" * 64, **grid)
        write_log(run, dpo, "0-diffusion-dpo", steps(
            "diffusion-dpo", winner_gap=lambda i, s=seed: -1e-4 * i * (1 + s), loser_gap=lambda i: 1e-4 * i,
            implicit_accuracy=lambda i: 0.5 + 0.01 * i,
        ), tail='{"stage": "diffu')  # fmt: skip
    cell(folder, "sft", 0, **grid)
    for fold, gain in (("4", 0.4), ("2", 0.2), ("none", 0.0)):
        name = "tmm" if fold == "4" else f"tmm[fold={fold}]"
        cell(folder, name, 0, gain, config=used("tmm", fold=fold, skeleton=True), **grid)
    cell(folder, "tmm[skeleton=false]", 0, 0.1, config=used("tmm", fold="4", skeleton=False), **grid)
    for winners, gain in ((None, 0.3), (8, -0.3)):
        name = "ipa" if winners is None else f"ipa[winners={winners}]"
        config = used("ipa", criterion="overall", winners=winners)
        made = cell(folder, name, 0, gain, config=config, provenance=ALL_WINNERS, cell_hash=f"a{winners}" * 16, **grid)
        write_log(run, made, "0-tmm", steps("tmm-audio", 5))
        write_log(run, made, "1-ipa", steps("ipa", 10, winner_gap=lambda i: -0.01 * i))
    return run


@pytest.fixture(scope="module")
def drawn(run, tmp_path_factory):
    """Everything at column width in all formats."""
    out = tmp_path_factory.mktemp("figures")
    assert main(["figures", str(run), str(TIMESTEPS), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def board(run):
    return build(*read_records([run]))


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def number(text):
    return float(text) if text else None


# Files


def test_every_figure_comes_in_every_format_with_its_csv_and_a_caption(drawn):
    captions = (drawn / "captions.md").read_text()
    for name in set(commands.NAMES) - {"samples"}:  # whose run has adapters
        for kind in ("pdf", "svg", "png", "csv"):
            assert (drawn / f"{name}.{kind}").stat().st_size > 100, (name, kind)
        assert f"**{name}**" in captions
    assert "Seeds: 1 of " in captions and "does not cover how training varies" in captions
    assert {path.suffix for path in drawn.iterdir()} == {".pdf", ".svg", ".png", ".csv", ".md"}  # nothing left behind


def test_the_names_of_the_command_are_those_there_are():
    assert tuple(make.KINDS) == commands.NAMES
    assert (style.FORMATS, tuple(style.WIDTHS)) == (commands.FORMATS, commands.WIDTHS)


def fonts(page):
    for font in page["/Resources"].get("/Font", {}).values():
        font = font.get_object()
        for inner in font.get("/DescendantFonts", [font]):
            yield font["/Subtype"], inner.get_object()["/FontDescriptor"]


def test_pdfs_are_a_column_wide_and_embed_all_their_fonts_as_truetype(drawn):
    for path in drawn.glob("*.pdf"):
        (page,) = PdfReader(path).pages
        assert float(page.mediabox.width) == pytest.approx(3.33 * 72, abs=0.5)
        assert float(page.mediabox.height) < 9.2 * 72  # a page's text is no higher
        found = list(fonts(page))
        assert found and all(kind != "/Type3" and "/FontFile2" in descriptor for kind, descriptor in found), path
    text = PdfReader(drawn / "quality-nfe.pdf").pages[0].extract_text()
    assert "network evaluations" in text and "diffusion-dpo" in text  # which is text, not pictures of it


def test_svgs_need_no_font_and_pngs_have_300_dots_per_inch(drawn):
    for path in drawn.glob("*.svg"):
        text = path.read_text()
        assert "<text" not in text and not re.search(r'(href|src)="(?!#)(?!data:)', text)
    for path in drawn.glob("*.png"):
        with Image.open(path) as image:
            assert image.width == 999 and round(image.info["dpi"][0]) == 300


def test_page_width_and_one_format(run, tmp_path, capsys):
    arguments = ["--width", "page", "--format", "png", "--only", "pareto, fold"]
    assert main(["figures", str(run), "--out", str(tmp_path / "new" / "folder"), *arguments]) == 0
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["captions.md", "fold.csv", "fold.png", "pareto.csv", "pareto.png"]
    printed = capsys.readouterr().out.splitlines()
    assert [Path(line).name for line in printed] == ["pareto.png", "pareto.csv", "fold.png", "fold.csv"]
    with Image.open(tmp_path / "new" / "folder" / "fold.png") as image:
        assert image.width == 2070


def test_the_same_records_give_the_same_bytes(run, drawn, tmp_path):
    assert main(["figures", str(run), "--out", str(tmp_path), "--only", "quality-nfe", "--format", "pdf,svg"]) == 0
    for name in ("quality-nfe.pdf", "quality-nfe.svg", "quality-nfe.csv"):
        assert (tmp_path / name).read_bytes() == (drawn / name).read_bytes()


# What is drawn


def test_quality_is_what_the_table_says_and_lines_stand_at_the_paired_difference_from_base(drawn, board):
    scores = {row.method: row.metrics for row in board.rows}
    compared = {(c["method"], c["metric"]): c for c in board.comparisons if c["than"] == "base"}
    rows = [row for path in sorted(drawn.glob("quality-nfe*.csv")) for row in table(path)]
    assert {row["method"] for row in rows} == set(scores)
    assert {(row["metric"], row["nfe"]) for row in rows} == {
        (metric, nfe) for metric in ("fid@toy", "sync_c@toy") for nfe in ("20", "10")
    }
    for row in rows:
        key = f"{row['metric']}/nfe{row['nfe']}"
        score, base = scores[row["method"]][key], scores["base"][key]
        assert (number(row["value"]), number(row["ci_low"])) == (score.value, score.ci[0])
        assert int(row["n_seeds"]) == score.n_seeds
        if row["method"] == "base":
            assert number(row["shown"]) == score.value and row["difference"] == ""
            continue
        entry = compared[row["method"], key]
        assert (number(row["difference"]), number(row["difference_low"])) == (entry["difference"], entry["ci"][0])
        assert row["verdict"] == entry["verdict"]
        assert number(row["shown"]) == pytest.approx(base.value + entry["difference"])
    one_seed = next(row for row in rows if row["method"] == "sft")  # base has another seed too, which moves its mean
    assert abs(number(one_seed["shown"]) - number(one_seed["value"])) > 1e-4


def test_curves_and_bands_hold_the_numbers_of_their_csv(run):
    rows = quality.nfe_rows(source.read([run]))
    look = style.Look(3.33, ("base", "sft", "diffusion-dpo"))
    with style.settings():
        figure = quality.draw_nfe(rows, look)
    axis = next(axis for axis in figure.axes if axis.get_title() == "FID@toy ↓")
    own = [row for row in rows if (row["method"], row["metric"]) == ("diffusion-dpo", "fid@toy")][::-1]
    line = next(line for line in axis.lines if line.get_color() == look.of("diffusion-dpo")["color"])
    assert list(line.get_xdata()) == [10, 20] and list(line.get_ydata()) == [row["shown"] for row in own]
    filled = axis.lines[axis.lines.index(line) + 1]
    assert len(filled.get_xdata()) == sum(row["verdict"] in ("better", "worse") for row in own) > 0
    drawn = np.concatenate([band.get_paths()[0].vertices for band in axis.collections])
    for row in own:
        for end in ("difference_low", "difference_high"):
            place = row["shown"] + row[end] - row["difference"]
            assert np.any(np.isclose(drawn[:, 0], row["nfe"]) & np.isclose(drawn[:, 1], place))


def test_seconds_are_base_s_and_what_the_same_chunks_took_more(drawn, board):
    rows = [row for row in table(drawn / "quality-seconds.csv") if row["metric"] == "fid@toy"]
    base = {row["nfe"]: number(row["shown_seconds"]) for row in rows if row["method"] == "base"}
    assert base == {"20": pytest.approx(2.0), "10": pytest.approx(1.0)}
    assert all(number(row["shown_seconds"]) == pytest.approx(base[row["nfe"]], rel=0.1) for row in rows)


def test_pareto_is_of_paired_differences_with_base_at_the_origin(drawn, board):
    compared = {(c["method"], c["metric"]): c for c in board.comparisons if c["than"] == "base"}
    rows = {row["method"]: row for row in table(drawn / "pareto.csv")}
    assert (rows["base"]["x"], rows["base"]["y"]) == ("sync_c@toy", "fid@toy")
    assert number(rows["base"]["x_difference"]) == number(rows["base"]["y_difference"]) == 0
    for method, row in rows.items():
        if method != "base":
            entry = compared[method, "fid@toy/nfe20"]
            assert (number(row["y_difference"]), number(row["y_high"])) == (entry["difference"], entry["ci"][1])

    def beats(a, b):
        x, y = (number(a[f"{axis}_difference"]) - number(b[f"{axis}_difference"]) for axis in "xy")
        return x >= 0 >= y and (x, y) != (0, 0)  # sync_c higher, fid lower

    for row in rows.values():
        assert (row["on_front"] == "True") == (not any(beats(other, row) for other in rows.values()))


def test_win_rates_are_counted_clip_by_clip_against_base(drawn, run, board):
    clips = {(r.cell.method, r.cell.seed): read_clips(r)["sync_c@toy/nfe20"] for r in read_records([run])[0]}
    rows = {row["method"]: row for row in table(drawn / "win-rates.csv")}
    assert {row["metric"] for row in rows.values()} == {"sync_c@toy"}  # fid has no clips, motion no better side
    assert set(rows) == {row.method for row in board.rows} - {"base"}
    for method, seeds in (("diffusion-dpo", (0, 1)), ("sft", (0,))):
        won = [clips[method, s][clip][1] > clips["base", s][clip][1] for s in seeds for clip in IDS]
        assert number(rows[method]["win_rate"]) == pytest.approx(np.mean(won))
        assert int(rows[method]["n_seeds"]) == len(seeds) and int(rows[method]["clips"]) == len(IDS)
    strong, same = rows["diffusion-dpo"], rows["sft"]
    assert number(strong["ci_low"]) > 0.5 and number(strong["ci_high"]) <= 1
    assert number(same["ci_low"]) < 0.5 < number(same["ci_high"])


def test_a_tie_is_half_a_win_and_where_less_is_better_less_wins(tmp_path):
    base = cell(tmp_path, "base")
    scores = source.gather([base, cell(tmp_path, "sft")])
    assert scores.wins("base", "base", "sync_c@toy").points.tolist() == [0.5]
    more, less = (
        scores.scores.wins([(scores.methods["sft"][0], base)], "sync_c@toy", up).points[0] for up in (True, False)
    )
    assert more + less == pytest.approx(1) and more != less
    assert "clip by clip" in scores.wins("sft", "base", "fid@toy").reason


def test_folds_and_winners_of_variants_that_differ_in_nothing_else(drawn, board):
    compared = {(c["method"], c["metric"]): c for c in board.comparisons if c["than"] == "base"}
    for name, setting, expected in (
        ("fold", "fold", {"1": "tmm[fold=none]", "2": "tmm[fold=2]", "4": "tmm"}),
        ("data-efficiency", "winners", {"8": "ipa[winners=8]", "192": "ipa"}),
    ):
        rows = table(drawn / f"{name}.csv")
        assert {row[setting]: row["method"] for row in rows} == expected
        for row in rows:
            entry = compared[row["method"], f"{row['metric']}/nfe20"]
            ends = [number(row[f"difference{end}"]) for end in ("", "_low", "_high")]
            assert ends == [entry["difference"], *entry["ci"]] and row["verdict"] == entry["verdict"]


def test_trainings_are_means_over_seeds_with_samples_counted_on_through_a_pipeline(drawn):
    rows = [row for path in drawn.glob("training*.csv") for row in table(path)]
    gap = [row for row in rows if (row["method"], row["quantity"]) == ("diffusion-dpo", "winner_gap")]
    assert [number(row["value"]) for row in gap] == pytest.approx([-1.5e-4 * i for i in range(20)])
    assert [number(row["running_mean"]) for row in gap][2] == pytest.approx(-1.5e-4 * 1.5)  # two of twenty steps
    assert {row["n_seeds"] for row in gap} == {"2"}
    ipa = [row for row in rows if row["method"] == "ipa"]
    assert {row["quantity"] for row in ipa} == {"winner_gap"}
    assert int(ipa[0]["samples"]) == 16 * 5 + 16  # after the part below it
    assert {row["method"] for row in rows} == {"diffusion-dpo", "ipa", "ipa[winners=8]"}


def test_the_analysis_is_drawn_from_what_it_left(drawn):
    ours, theirs = table(drawn / "timesteps.csv"), table(TIMESTEPS / "timesteps.csv")
    assert [{name: row[name] for name in theirs[0]} for row in ours] == theirs
    assert {row["backbone"] for row in ours} == {"puppet-dit"}


def test_many_methods_go_on_several_pages_with_base_on_each(tmp_path):
    names = ["base", "sft", *(f"method-{i:02d}" for i in range(10))]
    for name in names:
        cell(tmp_path, name, nfes=(20, 10))
    pages = quality.pages(quality.nfe_rows(source.read([tmp_path])))
    on = [list(dict.fromkeys(row["method"] for row in page)) for page in pages]
    assert sorted(map(len, on)) == [4, 5, 5] and all(methods[0] == "base" for methods in on)
    assert sorted({method for methods in on for method in methods}) == sorted(names)
    look = style.Look(3.33, tuple(names))
    assert len({look.of(name)["marker"] for name in names}) == len(names)  # told apart without any colour
    for methods in on:
        for what in ("color", "linestyle"):
            assert len({str(look.of(name)[what]) for name in methods}) == len(methods)


def test_panels_of_a_picture_do_not_overlap_and_nothing_is_cut_off(run):
    """At column width, where it is tightest; titles, ticks and labels included."""
    found = source.read([run, TIMESTEPS])
    for name, kind in make.KINDS.items():
        if name == "samples":
            continue
        for width in style.WIDTHS.values():
            for page in kind.pages(kind.rows(found)):
                with style.settings():
                    figure = kind.draw(page, style.Look(width, found.methods))
                    figure.draw_without_rendering()
                boxes = [axis.get_tightbbox() for axis in figure.axes if axis.get_visible()]
                boxes += [legend.get_window_extent() for legend in figure.legends]
                edges = figure.bbox
                for i, box in enumerate(boxes):
                    assert box.x0 >= edges.x0 - 1 and box.x1 <= edges.x1 + 1, name
                    assert box.y0 >= edges.y0 - 1 and box.y1 <= edges.y1 + 1, name
                    for other in boxes[:i]:
                        wide = min(box.x1, other.x1) - max(box.x0, other.x0)
                        high = min(box.y1, other.y1) - max(box.y0, other.y0)
                        assert wide < 1 or high < 1, (name, width)


# What is missing, and what is wrong


@pytest.fixture
def bare(tmp_path):
    """base and one method at one NFE, without logs."""
    folder = tmp_path / "bare"
    folder.mkdir()
    cell(folder, "base")
    cell(folder, "sft", gain=0.2)
    return folder


def test_what_records_have_no_data_for_is_said_and_the_rest_is_drawn(bare, tmp_path, capsys):
    assert main(["figures", str(bare), "--out", str(tmp_path / "out"), "--format", "svg"]) == 0
    said = capsys.readouterr().err.splitlines()
    reasons = {line.split(", ", 1)[1].split(": ")[0]: line for line in said}
    assert set(reasons) == {"quality-nfe", "training", "timesteps", "fold", "data-efficiency", "samples"}
    assert "no adapters lie beside" in reasons["samples"]
    assert "--nfe 100,30,10" in reasons["quality-nfe"] and "--out folder of the run" in reasons["training"]
    assert "analyze timesteps" in reasons["timesteps"] and "tmm[fold=2]" in reasons["fold"]
    drawn = {path.stem for path in (tmp_path / "out").glob("*.svg")}
    assert drawn == {"quality-seconds", "pareto", "win-rates"}


def test_times_of_different_machines_are_not_drawn_against_each_other(bare, tmp_path, capsys):
    path = bare / "sft-s0.json"
    edit(path, '"cores": 2', '"cores": 64')
    assert main(["figures", str(bare), "--out", str(tmp_path / "out"), "--only", "quality-seconds"]) == 2
    assert "different machines" in capsys.readouterr().err


def test_without_base_nothing_is_compared(tmp_path, capsys):
    cell(tmp_path, "sft", nfes=(20, 10))
    assert main(["figures", str(tmp_path), "--out", str(tmp_path / "out"), "--only", "quality-nfe,pareto"]) == 2
    assert capsys.readouterr().err.count("base is not among the finished records") == 2


def test_failed_cells_and_missing_companions_leave_out_what_they_concern(bare, tmp_path, capsys):
    failed = make_record("tpo", status="failed", error="out of memory")
    (bare / "tpo-s0.json").write_text(failed.model_dump_json(by_alias=True))
    (bare / "sft-s0.clips.parquet").unlink()
    out = tmp_path / "out"
    assert main(["figures", str(bare), "--out", str(out), "--only", "win-rates,quality-seconds"]) == 0
    assert "left out, win-rates: " in capsys.readouterr().err
    assert "sft-s0.clips.parquet: is missing" in (out / "captions.md").read_text()
    rows = table(out / "quality-seconds.csv")
    assert {row["method"] for row in rows} == {"base", "sft"}
    assert {row["metric"] for row in rows if row["shown"] and row["method"] == "sft"} == {"fid@toy"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "pareto,wim-rates"], ["Unknown figure 'wim-rates'", "did you mean 'win-rates'"]),
        (["--only", ""], ["Unknown figure ''"]),
        (["--format", "pfd"], ["--format 'pfd'", "did you mean 'pdf'"]),
        (["--width", "colum"], ["--width 'colum'", "did you mean 'column'"]),
        (["--widht", "page"], ["No such option '--widht'", "did you mean '--width'"]),
    ],
)
def test_a_mistake_is_one_sentence_and_draws_nothing(bare, tmp_path, capsys, arguments, words):
    assert main(["figures", str(bare), "--out", str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and [word for word in words if word not in said.err] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"schema": "x"}', "not an analysis of noise levels"), ("{", "no JSON"), ("[]", "not an analysis")],
)
def test_what_is_no_analysis_is_named(tmp_path, capsys, text, words):
    (tmp_path / "timesteps.json").write_text(text)
    assert main(["figures", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert words in said and str(tmp_path / "timesteps.json") in said


def test_out_that_is_a_file_and_runs_that_are_not_there(bare, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["figures", str(bare), "--out", str(tmp_path / "file")]) == 2
    assert main(["figures", str(bare), "--out", str(tmp_path / "file" / "in")]) == 2
    assert main(["figures", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere: no such file or folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


# Samples


def test_a_grid_of_samples_shows_the_frames_of_each_method():
    videos = {name: np.full((17, 8, 12, 3), 10 * i, np.uint8) for i, name in enumerate(("real", "base", "sft"))}
    videos["sft"][9] = 200
    with style.settings():
        figure = samples.draw(videos, (0, 9), style.Look(3.33))
    cells = [axis.images[0].get_array() for axis in figure.axes]
    assert len(cells) == 6 and [int(image[0, 0, 0]) for image in cells] == [0, 0, 10, 10, 20, 200]
    assert [axis.get_title() for axis in figure.axes[:2]] == ["0.00 s", "0.36 s"]
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == list(videos)


@pytest.mark.parametrize(
    ("shapes", "frames"),
    [([(17, 8, 8, 3), (13, 8, 8, 3)], (0,)), ([(17, 8, 8, 3)], (17,)), ([(17, 8, 8, 3)], ()), ([], (0,))],
)
def test_videos_that_do_not_fit_together_are_refused(shapes, frames):
    videos = {str(i): np.zeros(shape, np.uint8) for i, shape in enumerate(shapes)}
    with pytest.raises(RequestError):
        samples.draw(videos, frames, style.Look(3.33))


# Small things


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(1, 50))
def test_a_running_mean_stays_within_what_it_averages(values, window):
    means = training.running_mean(values, window)
    assert len(means) == len(values) and means[0] == values[0]
    for i, mean in enumerate(means):
        seen = values[max(0, i + 1 - window) : i + 1]
        assert math.isclose(mean, sum(seen) / len(seen), rel_tol=1e-9, abs_tol=1e-6)


@given(st.integers(1, 60), st.integers(1, 9))
def test_pages_are_as_few_and_as_equal_as_can_be(count, most):
    names = [str(i) for i in range(count)]
    groups = style.balanced(names, most)
    assert [name for group in groups for name in group] == names
    sizes = [len(group) for group in groups]
    assert len(groups) == math.ceil(count / most) and max(sizes) <= most and max(sizes) - min(sizes) <= 1


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text("abcdefgh+[]=", min_size=1, max_size=30), min_size=1, max_size=25))
def test_a_legend_is_as_wide_as_fits_and_always_there(labels):
    column, page = (style.Look(width).fitting(labels) for width in style.WIDTHS.values())
    assert 1 <= column <= page <= len(labels)
    assert column == 1 or sum(sorted(map(style.text_width, labels))[:column]) < 3.33


def test_names_of_scores_say_what_measured_them_and_which_side_is_better():
    assert label("fid@inception/nfe30", False) == "FID@inception ↓"
    assert label("mine", None) == "mine"


def test_no_figure_imports_torch(tmp_path):
    code = (
        "import sys; from halign_bench.cli import main; "
        f"code = main(['figures', {str(TIMESTEPS)!r}, '--out', sys.argv[1], '--format', 'svg']); "
        "sys.exit(99 if 'torch' in sys.modules else code)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, timeout=300).returncode == 0

