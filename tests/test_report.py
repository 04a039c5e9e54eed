"""The report's folder: what its pages say and from what, and how it is replaced. The page itself: test_report_page."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import media_files
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import run_tiny  # noqa: F401 (registers the tiny track and backbone)
from records import IDS, cell, edit
from report_records import (
    EVIL,
    FRAMES,
    LACKS_ALL,
    LACKS_ONE,
    QUOTED,
    MadeUp,
    frame_in,
    unsealed,
    with_made_up_samples,
    write_run,
)

from halign_bench.cli import main
from halign_bench.figures.make import KINDS
from halign_bench.figures.source import read
from halign_bench.report import clips, panels, writing
from halign_bench.results import read_records
from halign_bench.track import SAMPLE_RATE

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "halign_bench" / "report" / "static"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """A report with made-up samples of six clips."""
    out = tmp_path_factory.mktemp("made") / "report"
    with pytest.MonkeyPatch.context() as patch:
        with_made_up_samples(patch)
        assert main(["report", str(run), "--out", str(out), "--clips", "6"]) == 0
    return out


class Page(HTMLParser):
    """Its text, and every element with its attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.words.append(text)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def files(out: Path) -> Path:
    (folder,) = out.glob("files-*")
    return folder


def data(out: Path, name: str):
    """What a script of the report gives to the page."""
    found = re.fullmatch(r"halign\.receive\((\"[^\"]+\"),(.*)\);\n", (files(out) / name).read_text(), re.DOTALL)
    return json.loads(found[2])


# What it says


def test_the_page_says_scores_claims_settings_environment_and_what_went_wrong(made):
    text = Page(made / "index.html").text
    for words in (
        "sync_c better than base", "supported", "the paper, table 2 <b>", "diffusion-dpo", "beta : null → 123.0",
        "Python 3.11", "cores 2", "training.samples 256", "tpo: seed 0 failed: out of memory <i>",
        "cut-s0.json: left out", "sft, seed 0: samples are over-exposed", "figure timesteps",
    ):  # fmt: skip
        assert words in text.replace("hardware: ", ""), words


def test_settings_that_are_not_defaults_are_told_from_those_that_are(made):
    source = (made / "index.html").read_text()
    methods = source[source.index('<section id="methods"') :]
    row = re.search(r'<tr><th scope="row">diffusion-dpo</th>\s*<td class="fold">(.*?)</td>', methods, re.DOTALL)[1]
    changed = dict(re.findall(r"<code>(\w+)</code>.*?<ins>(.*?)</ins>", row))
    assert changed == {"beta": "123.0", "form": "flow"}
    assert "no defaults to compare with" in re.search(r"evil: (.*?)</p>", source, re.DOTALL)[1]


def test_names_that_are_markup_are_text_everywhere(made):
    page = Page(made / "index.html")
    assert EVIL in page.text and "</script><img src=x>" in page.text
    assert all(attributes.get("src", "").startswith("files-") for tag, attributes in page.elements if tag == "script")
    assert {tag for tag, _ in page.elements} & {"img", "iframe", "i", "object"} == set()
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    for path in files(made).glob("data/*.js"):
        assert "<" not in path.read_text(), path.name
    assert QUOTED in [clip["id"] for clip in data(made, "data/gallery.js")["clips"]]


def test_scores_in_the_leaderboard_are_those_of_the_table(made, run):
    board = read([run]).table
    source = (made / "index.html").read_text()
    table = re.search(r'<table id="leaderboard-table".*?</table>', source, re.DOTALL)[0]
    rows = {}
    for row in re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", table, re.DOTALL):
        method, nfe = re.match(r"([^<]*)", row)[1].strip(), re.search(r'data-order="(\d+)"', row)[1]
        rows[method, nfe] = [float(v) for v in re.findall(r'<td data-order="([-\d.e]+)"', row)[1:]]
    keys = {"20": [], "10": []}
    for key in board.scores_at(20):
        if not key.startswith("seconds"):
            keys["20"].append(key)
            keys["10"].append(key.replace("nfe20", "nfe10"))
    for one in board.rows:
        for nfe in ("20", "10"):
            if one.metrics and not one.method.startswith("<"):
                expected = [one.metrics[key].value for key in keys[nfe]]
                assert rows[one.method, nfe][: len(expected)] == pytest.approx(expected)
    assert ("tpo", "20") in rows and ("tpo", "10") not in rows  # a failure stands once


def test_figures_show_the_rows_of_the_figures_command(made, run, tmp_path):
    assert main(["figures", str(run), "--out", str(tmp_path), "--format", "svg"]) == 0
    drawn = {path.stem.rstrip("-0123456789") for path in tmp_path.glob("*.csv")}
    assert drawn == {path.stem for path in files(made).glob("data/*.csv")} == {
        "quality-nfe", "quality-seconds", "pareto", "win-rates", "training"
    }
    for name in drawn:
        theirs = [row for path in sorted(tmp_path.glob(f"{name}*.csv")) for row in csv.reader(path.open())]
        ours = list(csv.reader((files(made) / "data" / f"{name}.csv").open()))
        assert {tuple(row) for row in ours} == {tuple(row) for row in theirs}, name


def test_points_stand_where_their_rows_say(run, made):
    source = read([run])
    rows = KINDS["quality-nfe"].rows(source)
    shown = data(made, "data/quality-nfe.js")
    assert [panel["title"] for panel in shown] == ["FID@toy ↓", "Sync-C@toy ↑"]
    dpo = next(series for series in shown[0]["series"] if series["name"] == "diffusion-dpo")
    of = [row for row in rows if (row["method"], row["metric"]) == ("diffusion-dpo", "fid@toy")]
    for point, row in zip(dpo["points"], sorted(of, key=lambda row: row["nfe"]), strict=True):
        start = row["shown"] - row["difference"]
        assert (point["x"], point["y"]) == (row["nfe"], pytest.approx(row["shown"], rel=1e-5))
        low, high = start + row["difference_low"], start + row["difference_high"]
        assert point["y_range"] == pytest.approx([low, high], rel=1e-5)
        assert point.get("told", False) == (row["verdict"] in ("better", "worse"))
    wins = {s["name"]: s["points"][0] for s in data(made, "data/win-rates.js")[0]["series"]}
    for row in KINDS["win-rates"].rows(source):
        assert wins[row["method"]]["x"] == pytest.approx(row["win_rate"], rel=1e-5)
    (errors, accuracy) = data(made, "data/training.js")
    strong = [series for series in errors["series"] if not series.get("faint")]
    assert [series["name"] for series in strong] == ["winner", "loser"] and len(strong[0]["points"]) == 20
    assert accuracy["series"][0]["points"][3]["y"] == pytest.approx(0.53)


def test_every_figure_has_a_drawing_here():
    assert set(panels.DRAWINGS) == set(KINDS) - {"samples"}  # which the gallery has


@pytest.mark.parametrize(("up", "corner"), [(True, (0.0, 2.0)), (False, (1.0, 1.0))])
def test_steps_of_a_front_are_what_it_beats(up, corner):
    """With more of both better a front falls to the right: the corner of two points is below one, left of the other."""
    ys = (2.0, 1.0) if up else (1.0, 2.0)
    rows = [
        {"method": name, "x": "a@t", "y": "b@t", "x_higher_is_better": up, "y_higher_is_better": True, "on_front": True,
         "x_difference": x, "y_difference": y, "x_low": x, "x_high": x, "y_low": y, "y_high": y}
        for name, x, y in (("m", 0.0, ys[0]), ("n", 1.0, ys[1]))
    ]  # fmt: skip
    (panel,) = panels.panels("pareto", rows)
    assert panel.steps is not None and panel.steps[1] == ((0.0, ys[1]) if up else (1.0, ys[0]))
    assert panel.better == (up, True)


# Clips


def test_clips_are_ordered_by_their_mean_rank(run):
    source = read([run])
    found = clips.ranked(source)
    places = []
    for record in read_records([run])[0]:
        if record.status == "done":
            table = pd.read_parquet(record.source.with_name(record.files["clips"]))
            scores = table[table.metric == "sync_c@toy/nfe20"].set_index("clip")["value"].dropna()
            places.append((scores.rank() - 1) / (len(scores) - 1))
    expected = pd.concat(places, axis=1).mean(axis=1)
    assert [one.rank for one in found] == sorted(one.rank for one in found)
    assert {one.id: one.rank for one in found} == pytest.approx(expected.to_dict())
    assert len(found) == len(IDS) and all(0 <= one.rank <= 1 for one in found)


def test_less_is_better_turns_the_order_round(tmp_path):
    cell(tmp_path, "base")
    cell(tmp_path, "sft")
    forth = {one.id: one.rank for one in clips.ranked(read([tmp_path]))}
    for path in tmp_path.glob("*.json"):
        document = json.loads(path.read_text())
        document["metrics"]["sync_c@toy"]["higher_is_better"] = False
        path.write_text(json.dumps(unsealed(document)))
    back = {one.id: 1 - one.rank for one in clips.ranked(read([tmp_path]))}
    assert back == pytest.approx(forth) and len(set(forth.values())) > 10


def test_the_gallery_shows_the_worst_and_the_best_and_says_what_it_lacks(made, run):
    gallery = data(made, "data/gallery.js")
    order = [one.id for one in clips.ranked(read([run]))]
    assert [clip["id"] for clip in gallery["clips"]] == order
    filmed = [clip for clip in gallery["clips"] if clip["video"]]
    assert [clip["id"] for clip in filmed] == order[:3] + order[-3:]
    names = [method["name"] for method in gallery["methods"]]
    assert set(names) == {"base", "sft", "diffusion-dpo", EVIL, "ipa"} and gallery["missing"] == ["tpo"]
    assert {m["name"] for m in gallery["methods"] if m["absent"]} == {LACKS_ALL}
    for number, clip in enumerate(filmed):
        folder = files(made) / clip["video"]["folder"]
        have = {names[index] for index in clip["video"]["methods"]}
        assert have == set(names) - {LACKS_ALL} - ({LACKS_ONE} if number == 0 else set())
        wanted = {"real.mp4", "sound.js", "skeleton.js", *(f"m{index:02d}.mp4" for index in clip["video"]["methods"])}
        assert {path.name for path in folder.iterdir()} == wanted
    assert "no PSNR is on record" in gallery["note"] and gallery["seed"] == 0


def test_scores_of_a_clip_are_those_on_record(made, run):
    gallery = data(made, "data/gallery.js")
    records = {r.cell.method: r for r in read_records([run])[0] if r.cell.seed == 0 and r.status == "done"}
    column = [score["name"] + score["where"] for score in gallery["scores"]].index("Sync-C ↑@toy")
    for number, method in enumerate(gallery["methods"]):
        record = records[method["name"]]
        table = pd.read_parquet(record.source.with_name(record.files["clips"]))
        known = table[table.metric == "sync_c@toy/nfe20"].set_index("clip")["value"]
        for clip in gallery["clips"]:
            value, shown = known[clip["id"]], clip["values"][number][column]
            assert shown is None if np.isnan(value) else shown == pytest.approx(value, rel=1e-3)


def test_videos_are_what_browsers_play_and_their_sound_lies_beside_them(made):
    import av

    (clip, *_) = (clip for clip in data(made, "data/gallery.js")["clips"] if clip["video"])
    for name in ("real.mp4", "m00.mp4"):
        path = files(made) / clip["video"]["folder"] / name
        with av.open(str(path)) as container:
            (video,) = container.streams  # with a sound of its own it would not keep time with the others
            assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert float(video.average_rate) == 25
            shown = [frame_in(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
            assert shown == list(range(clip["video"]["frames"])) == list(range(FRAMES))
        start = path.read_bytes()
        assert start.index(b"moov") < start.index(b"mdat")  # plays before all of it is there
    sound = data(made, f"{clip['video']['folder']}/sound.js")
    samples = np.frombuffer(base64.b64decode(sound["samples"]), "<i2") / 32767
    assert sound["rate"] == SAMPLE_RATE
    assert np.abs(samples - MadeUp.clip(clip["id"]).audio).max() < 1e-4


def test_samples_are_made_again_exactly_from_what_a_run_keeps(tmp_path, capsys, monkeypatch):
    """The path without any stand-in: train, score, delete the samples, and sample them again for the gallery."""
    run, out = tmp_path / "run", tmp_path / "report"
    tiny = ["--track", "tiny-scored", "--backbone", "tiny-dit", "--profile", "tiny"]
    assert main(["run", "--methods", "tpo", *tiny, "--out", str(run)]) == 0
    assert not list(run.glob("cells/*/eval/*"))
    assert main(["report", str(run), "--out", str(out), "--clips", "3"]) == 0
    gallery = data(out, "data/gallery.js")
    assert {m["name"]: m["absent"] for m in gallery["methods"]} == {"base": None, "sft": None, "tpo": None}
    assert len([clip for clip in gallery["clips"] if clip["video"]]) == 3
    worst = re.search(r"at most ([\d.e-]+) dB", gallery["note"])
    assert "exactly that on record" in gallery["note"] or float(worst[1]) < 0.01
    # Adapters of another method are not shown in its place, and a lost one is said.
    for path in run.glob("cells/sft-*/train/*/adapters/*/*.safetensors"):
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
    assert main(["report", str(run), "--out", str(out), "--clips", "3"]) == 0
    absent = {m["name"]: m["absent"] for m in data(out, "data/gallery.js")["methods"]}
    assert absent["base"] is None and "no adapters lie beside its record" in absent["sft"]


def test_videos_of_a_folder_are_sampled_again_from_that_folder_alone(tmp_path, capsys):
    """`--data` with a track that reads a folder: the run's own is taken, any other is refused, none is said."""
    folder, run, out = tmp_path / "videos", tmp_path / "run", tmp_path / "report"
    folder.mkdir()
    for number in range(4):
        sound = media_files.tone(0.84, 44_100) if number else None
        media_files.write(folder / f"person{number}.mp4", media_files.textured(21, seed=number), sound=sound)
    tiny = ["--backbone", "tiny-dit", "--profile", "tiny", "--track", "clips", "--data", str(folder)]
    assert main(["run", "--methods", "sft", *tiny, "--out", str(run)]) == 0
    report = ["report", str(run), "--out", str(out), "--clips", "2"]
    assert main([*report, "--data", str(folder)]) == 0
    gallery = data(out, "data/gallery.js")
    filmed = [clip for clip in gallery["clips"] if clip["video"]]
    assert [clip["video"]["methods"] for clip in filmed] == [[0, 1]] * 2
    assert {clip["video"]["sound"] for clip in filmed} == {True} and not any(c["video"]["skeleton"] for c in filmed)
    assert "exactly that on record" in gallery["note"] or "at most" in gallery["note"]
    whole = listing(out)
    capsys.readouterr()
    (folder / "person1.mp4").unlink()
    empty = tmp_path / "empty"
    empty.mkdir()
    for given, words in ((folder, "holds other clips than the records are of"), (empty, "no usable video")):
        assert main([*report, "--data", str(given)]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"halign-bench: --data {given}: ") and words in last and listing(out) == whole
    assert main(report) == 0
    assert "say which with --data DIR" in capsys.readouterr().err
    assert not any(clip["video"] for clip in data(out, "data/gallery.js")["clips"])


def test_a_folder_for_a_track_that_makes_its_own_clips_is_refused(tmp_path, capsys):
    folder = tmp_path / "run"
    cell(folder, "base")
    path = folder / "base-s0.json"
    edit(path, '"track": "toy"', '"track": "puppet"')
    assert main(["report", str(folder), "--out", str(tmp_path / "out"), "--data", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.err == f"halign-bench: --data {tmp_path}: track puppet makes its own clips; leave --data out\n"
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_with_records_is_said_by_name_and_the_rest_is_shown(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "report"
    for method in ("base", "sft", "ipa", "kto", "tpo"):
        path = cell(run, method).source
        path.write_text(json.dumps(unsealed(json.loads(path.read_text())), indent=2))
    good = (run / "sft-s0.json").read_text()
    (run / "nan-s0.json").write_text(re.sub(r'"value": [\d.e-]+', '"value": NaN', good, count=1))
    (run / "newer-s0.json").write_text(good.replace("halign-bench/record/2", "halign-bench/record/9"))
    (run / "cut-s0.json").write_text(good[: len(good) // 2])
    (run / "again-s0.json").write_text(good)
    lacking = json.loads((run / "kto-s0.json").read_text())
    del lacking["metrics"]["fid@toy"]
    (run / "kto-s0.json").write_text(json.dumps(unsealed(lacking)))
    scores = run / "ipa-s0.clips.parquet"
    scores.write_bytes(scores.read_bytes()[:200])
    scores = run / "tpo-s0.clips.parquet"
    columns = pq.read_table(scores).to_pydict()
    columns["value"][3] = float("nan")
    pq.write_table(pa.table(columns), scores)
    assert main(["report", str(run), "--out", str(out)]) == 0
    source = (out / "index.html").read_text()
    problems = Page(out / "index.html").text.split("Failed, not measured or left out")[1]
    for words in (
        "nan-s0.json: left out, not a valid record, it contains NaN", "newer-s0.json: left out, not a valid record",
        "halign-bench/record/2; update", "cut-s0.json: left out, not a valid record", "sft seed 0 was given twice",
        "kto: fid@toy not in its record", "ipa-s0.clips.parquet: cannot be read", "tpo-s0.clips.parquet: holds NaN",
    ):  # fmt: skip
        assert words in problems, words
    table = re.search(r'<table id="leaderboard-table".*?</table>', source, re.DOTALL)[0]
    assert re.findall(r'<tr><th scope="row">(\w+)', table) == ["base", "sft", "ipa", "kto", "tpo"]
    assert source.count("data-left-out") == 2  # every line has the same NFE and status
    gallery = data(out, "data/gallery.js")
    names = [method["name"] for method in gallery["methods"]]
    assert names == ["base", "sft", "ipa", "kto", "tpo"]
    for clip in gallery["clips"]:
        known = [name for name, values in zip(names, clip["values"], strict=True) if None not in values]
        assert known == ["base", "sft", "kto"]


def test_records_without_adapters_have_scores_and_say_why_they_have_no_videos(run, tmp_path, capsys):
    out = tmp_path / "report"
    assert main(["report", str(run), "--out", str(out)]) == 0
    assert "no adapters lie beside these records" in capsys.readouterr().err
    gallery = data(out, "data/gallery.js")
    assert not any(clip["video"] for clip in gallery["clips"]) and len(gallery["clips"]) == len(IDS)
    assert "no adapters lie beside these records" in Page(out / "index.html").text


def test_records_with_nothing_beside_them_have_no_gallery(tmp_path, capsys):
    folder = tmp_path / "bare"
    cell(folder, "base")
    for path in folder.glob("*.parquet"):
        path.unlink()
    assert main(["report", str(folder), "--out", str(tmp_path / "report")]) == 0
    assert "left out, gallery: no score of single clips" in capsys.readouterr().err
    assert "There is no gallery" in Page(tmp_path / "report" / "index.html").text


def test_an_analysis_of_noise_levels_is_drawn_and_alone_is_no_report(run, tmp_path, capsys):
    timesteps = ROOT / "leaderboards" / "puppet" / "timesteps"
    assert main(["report", str(run), str(timesteps), "--out", str(tmp_path / "report")]) == 0
    shown = data(tmp_path / "report", "data/timesteps.js")
    assert len(shown) == 3 and {series["name"] for series in shown[0]["series"]} == {"motion", "fidelity"}
    assert main(["report", str(timesteps), "--out", str(tmp_path / "other")]) == 2
    assert "a report is of records" in capsys.readouterr().err and not (tmp_path / "other").exists()


# The folder


def listing(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_records_give_the_same_files_and_others_replace_them(tmp_path):
    run, out = tmp_path / "run", tmp_path / "report"
    cell(run, "base")
    cell(run, "sft")
    assert main(["report", str(run), "--out", str(out)]) == 0
    first = listing(out)
    assert main(["report", str(run), "--out", str(out)]) == 0
    assert listing(out) == first
    (out / "mine.txt").write_text("kept")
    (files(out) / "also-mine.txt").write_text("kept")
    before = files(out)
    cell(run, "kto")
    assert main(["report", str(run), "--out", str(out)]) == 0
    after = next(folder for folder in out.glob("files-*") if folder != before)
    assert [path.name for path in before.rglob("*")] == ["also-mine.txt"] and (out / "mine.txt").read_text() == "kept"
    listed = json.loads((out / "report.json").read_text())["files"]
    there = {path for path in listing(out) if path not in ("mine.txt", "report.json", ".lock")}
    assert set(listed) == there - {f"{before.name}/also-mine.txt"}
    assert f'src="{after.name}/static/halign.js"' in (out / "index.html").read_text()


@pytest.mark.fault("report: stopped while it is put in place", "the old one stays whole; the next one clears up")
def test_a_report_that_is_killed_leaves_the_old_one_whole_and_is_cleared_by_the_next(tmp_path, monkeypatch):
    run, out = tmp_path / "run", tmp_path / "report"
    cell(run, "base")
    assert main(["report", str(run), "--out", str(out)]) == 0
    old = listing(out)
    cell(run, "sft")
    replace, moved = os.replace, []

    def killed(source, target):
        moved.append(target)
        if len(moved) > 4:
            raise KeyboardInterrupt  # nothing after it runs but what ends a context, as little as possible
        replace(source, target)

    monkeypatch.setattr(writing.os, "replace", killed)
    assert main(["report", str(run), "--out", str(out)]) == 130
    monkeypatch.undo()
    now = listing(out)
    assert all(now[name] == content for name, content in old.items() if name != "report.json")
    assert len(now) > len(old)  # it had begun
    assert main(["report", str(run), "--out", str(out)]) == 0
    assert set(json.loads((out / "report.json").read_text())["files"]) == set(listing(out)) - {"report.json", ".lock"}


def test_a_first_report_that_is_interrupted_leaves_nothing(run, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("halign_bench.report.gallery.make", interrupted)
    assert main(["report", str(run), "--out", str(tmp_path / "report")]) == 130
    assert "is as it was before" in capsys.readouterr().err and not (tmp_path / "report").exists()
    (tmp_path / "report").mkdir()
    assert main(["report", str(run), "--out", str(tmp_path / "report")]) == 130
    assert list((tmp_path / "report").iterdir()) == []


def test_two_reports_are_not_made_in_one_folder_at_once(run, tmp_path, capsys):
    out = tmp_path / "report"
    with writing.replacing(out) as made:
        made.index = lambda version: "first"
        made.text("data/x.js", "x")
        assert main(["report", str(run), "--out", str(out)]) == 2
        assert "another report is being made there" in capsys.readouterr().err
    assert (out / "index.html").read_text() == "first"


def test_only_folders_of_reports_are_written_to(run, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "index.html").write_text("mine")
    assert main(["report", str(run), "--out", str(other)]) == 2
    assert "is not empty and holds no report" in capsys.readouterr().err
    assert listing(other) == {"index.html": b"mine"}
    for text in ('{"schema": "x"}', '{"schema": "halign-bench/report/1", "files": ["../outside.txt"]}', "[]", "{"):
        (tmp_path / "outside.txt").write_text("mine")
        (other / "report.json").write_text(text)
        assert main(["report", str(run), "--out", str(other)]) == 2
        assert "was not written by halign-bench report" in capsys.readouterr().err
        assert (tmp_path / "outside.txt").exists() and (other / "index.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--out", "out"], ["nowhere: no such file or folder"]),
        (["RUN", "--out", "FILE"], ["--out", "is a file; give a folder"]),
        (["RUN", "--out", "FILE/in"], ["--out"]),
        (["RUN", "--out", "out", "--data", "nowhere"], ["--data nowhere: no such folder"]),
        (["RUN", "--out", "out", "--clips", "-1"], ["--clips"]),
        (["RUN"], ["Missing option '--out'"]),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(run, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    given = [text.replace("RUN", str(run)).replace("FILE", "file") for text in arguments]
    assert main(["report", *given]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and [word for word in words if word not in said.err] == []
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


# What it is made of


def test_every_library_is_named_with_version_and_has_its_licence_beside_it():
    folder = STATIC / "vendor"
    table = (folder / "README.md").read_text()
    for path in folder.iterdir():
        if path.suffix in (".js", ".css"):
            assert f"`{path.name}`" in table
            assert list(folder.glob(f"{path.name.split('.')[0]}.LICENSE*")), path.name
            assert re.search(r"https?://\S*(unpkg|jsdelivr|registry)", path.read_text()) is None
    versions = dict(re.findall(r"\| `(\S+)` \| `\S+` \| (\S+) \|", table))
    assert f"DataTables {versions['dataTables.min.js']}" in (folder / "dataTables.min.js").read_text()[:200]
    assert f'"{versions["echarts.min.js"]}"' in (folder / "echarts.min.js").read_text()


def test_the_page_and_its_libraries_are_small():
    assert sum(path.stat().st_size for path in STATIC.rglob("*") if path.is_file()) < 2 * 2**20


def test_without_adapters_no_report_imports_torch(run, tmp_path):
    code = (
        "import sys; from halign_bench.cli import main; code = main(['report', *sys.argv[1:]]); "
        "sys.exit(99 if 'torch' in sys.modules else code)"
    )
    command = [sys.executable, "-c", code, str(run), "--out", str(tmp_path / "report")]
    assert subprocess.run(command, capture_output=True, timeout=600).returncode == 0
