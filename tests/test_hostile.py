"""What others may put before the harness: names, files and folders that mean harm. Each is refused or shown as text."""

from __future__ import annotations

import ast
import csv
import importlib
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import av
import media_files
import numpy as np
import pytest
from records import cell, make_record

import halign_bench
from halign_bench.cli import main
from halign_bench.errors import HalignError, RequestError
from halign_bench.printing import printable
from halign_bench.record import ClaimData, Sign
from halign_bench.results import read_record

NAMES = (
    "<script>alert(1)</script>", '"onmouseover="alert(1)', "javascript:alert(1)",
    "</script><img src=x onerror=alert(1)>", "../../x", "{{7*7}}", "/etc/x", "\x1b[31mred", "a\nb", "\u202egnp.exe",
    "=1+1", "[link=http://x]y[/link]",
    "[x](javascript:alert(1))", "![x](http://x/y.png)", "%$#&_^~\\input{x}",
)  # fmt: skip


def run_of(folder: Path, name: str) -> Path:
    """Records in which `name` stands wherever another person's text may stand."""
    records = folder / "records"
    records.mkdir(parents=True)
    cell(records, "base")
    claim = ClaimData(metric="sync_c", better_than=("base", name), source=name)
    cell(records, "sft", 0, 0.5, claims=(claim,), warnings=[Sign(name=name, value=1.0, text=name)])
    record = read_record(records / "sft-s0.json")
    document = json.loads((records / "sft-s0.json").read_text())
    document.pop("sha256", None)
    document["cell"]["method"] = name
    document["evaluators"] = {name: name}
    document["environment"]["packages"] = {name: name}
    for score in document["metrics"].values():
        score |= {"unit": name, "protocol": name, "failed": {name: 1}}
    document["metrics"]["hkc@toy"] = {**score, "value": None, "ci": None, "reason": name}
    (records / "sft-s0.json").write_text(json.dumps(document))
    failed = make_record("tpo", status="failed", error=name, protocol=record.protocol)
    (records / "tpo-s0.json").write_text(failed.model_dump_json(by_alias=True))
    return folder


class Page(HTMLParser):
    """What a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str | None] = []
        self.bad: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script":
            self.scripts.append(given.get("src"))
        self.bad += [f"{tag} {name}" for name in given if name.startswith("on")]
        targets = [(given.get(name) or "").strip().lower() for name in ("href", "src", "action")]
        self.bad += [f"{tag} {target}" for target in targets if target.startswith("javascript:")]
        if tag in ("img", "iframe", "object", "embed", "base"):
            self.bad.append(tag)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fault(
    "leaderboard, report: records of others with markup, scripts, formulas, escape codes and paths for names",
    "text in every form: no tag, no handler, no link, no command of LaTeX, nothing that a terminal acts on",
)
def test_names_are_text_in_every_form(tmp_path, capsys, name):
    run = run_of(tmp_path / "run", name)
    said = {}
    for form in ("table", "md", "csv", "json", "latex", "html"):
        assert main(["leaderboard", str(run), "--format", form]) == 0
        said[form] = capsys.readouterr().out
    for form in ("table", "md", "latex", "html"):
        assert all(c.isprintable() or c == "\n" for c in said[form].replace("\u00a0", " ")), form
    page = Page(said["html"])
    assert not page.scripts and not page.bad
    shown = printable(name)
    assert shown in json.dumps(json.loads(said["json"]), ensure_ascii=False).replace('\\"', '"').replace("\\\\", "\\")
    assert not re.search(r"(?<!\\)<(script|img)", said["md"]) and not re.search(r"\]\([a-z]+:", said["md"])
    assert not any(r"\input{" in line for line in said["latex"].splitlines() if not line.startswith("%"))
    for row in csv.reader(io.StringIO(said["csv"])):
        for field in row:
            try:
                float(field)
            except ValueError:
                assert not field.startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("name", NAMES[:5])
@pytest.mark.fault(
    "report: records of others with markup, scripts and paths for names",
    "text in every form: no script and no handler but the page's own, no file outside of --out",
)
def test_names_are_text_in_a_report(tmp_path, capsys, name):
    run = run_of(tmp_path / "run", name)
    before = {path for path in tmp_path.rglob("*")}
    assert main(["report", str(run), "--out", str(tmp_path / "report"), "--clips", "2"]) == 0
    assert all(tmp_path / "report" in (path, *path.parents) for path in set(tmp_path.rglob("*")) - before)
    page = Page((tmp_path / "report" / "index.html").read_text())
    assert not page.bad and all(source and source.startswith("files-") for source in page.scripts), page.scripts
    for file in (tmp_path / "report").rglob("data/*.js"):
        assert "<" not in file.read_text()


@pytest.mark.fault("report: its folder holds links to elsewhere, and lists files behind them as its own",
                   "nothing behind a link is written or deleted")  # fmt: skip
def test_links_in_an_output_folder_lead_nowhere(tmp_path, capsys):
    run, out, elsewhere = run_of(tmp_path / "run", "x"), tmp_path / "report", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.txt").write_text("mine")
    assert main(["report", str(run), "--out", str(out), "--clips", "0"]) == 0
    listed = json.loads((out / "report.json").read_text())
    (out / "link").symlink_to(elsewhere)
    (out / ".partial").symlink_to(elsewhere)
    listed["files"].append("link/precious.txt")
    (out / "report.json").write_text(json.dumps(listed))
    (run / "records" / "tpo-s0.json").unlink()
    assert main(["report", str(run), "--out", str(out), "--clips", "0"]) == 0
    assert [path.name for path in elsewhere.iterdir()] == ["precious.txt"]
    assert (elsewhere / "precious.txt").read_text() == "mine"
    listed["files"] = ["../elsewhere/precious.txt"]
    (out / "report.json").write_text(json.dumps(listed))
    assert main(["report", str(run), "--out", str(out), "--clips", "0"]) == 2
    assert "was not written by halign-bench report" in capsys.readouterr().err


@pytest.mark.parametrize("beside", ["../../secret.parquet", "/etc/secret.parquet", "sub/x.parquet"])
@pytest.mark.fault("leaderboard, validate: a record says that its scores of clips lie in another folder",
                   "said, and not read")  # fmt: skip
def test_files_beside_a_record_lie_beside_it(tmp_path, capsys, beside):
    run = run_of(tmp_path / "run", "x")
    path = run / "records" / "base-s0.json"
    document = json.loads(path.read_text())
    document["files"]["clips"] = beside
    document.pop("sha256", None)  # as whoever means harm would
    path.write_text(json.dumps(document))
    assert main(["leaderboard", str(run)]) == 0
    assert "must be a file in the same folder" in " ".join(capsys.readouterr().out.split())
    assert main(["validate", str(run)]) == 1


@pytest.mark.parametrize("name", ["\x1b[2Jx", "a\nb", "\u202efdp", "\udcff\udcfe"])
@pytest.mark.fault("any command: file names with escape codes, line breaks, signs that turn text, bytes of no text",
                   "shown escaped, on one line")  # fmt: skip
def test_names_of_files_are_shown_escaped(tmp_path, capsys, name):
    folder = tmp_path / "records"
    folder.mkdir()
    try:
        (folder / f"{name}.json").write_text("{")
        cell(folder, "base")
    except (OSError, UnicodeError):
        pytest.skip("no such name on this file system")
    for words in (["leaderboard", str(folder)], ["leaderboard", str(folder), "--format", "json"],
                  ["validate", str(folder)], ["validate", str(folder), "--json"],
                  ["leaderboard", str(tmp_path / name)], ["report", str(tmp_path / name), "--out", str(tmp_path / "r")],
                  ["score", str(tmp_path / name), "--metrics", name], ["run", "--methods", name],
                  ["prefs", "agreement", str(tmp_path / name)], ["assets", "add", name, name],
                  [name], ["run", f"--{name}"], ["leaderboard", "--format", name, str(folder)]):  # fmt: skip
        code = main(words)
        said, told = capsys.readouterr()
        assert code in (0, 1, 2), words
        assert all(c.isprintable() or c == "\n" for c in said + told), (words, said, told)
        assert code != 2 or len(told.strip().splitlines()) == 1, told


def test_a_sentence_is_one_line_whatever_it_quotes():
    error = RequestError("a\nb\x1b[31m", "second\rline")
    assert str(error) == "a b\\x1b[31m\n  second line"
    assert len(str(RequestError("x" * 10**6))) <= 2000
    assert str(type(error)(*error.args)) == str(error)  # as when it comes from another process


# What may run, and what must not, in the installed package.

ASKED_FOR = {"torch.jit.load": {"extractors/i3d.py"}}  # after the file's hash was compared, or with --trust


def calls(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_nothing_in_the_package_runs_what_it_reads():
    root = Path(halign_bench.__file__).parent
    folders = [root, *(Path(importlib.import_module(f"halign_bench.{name}").__file__).parent
                       for name in ("methods", "metrics"))]  # fmt: skip
    files = sorted({file for folder in folders for file in folder.rglob("*.py")})
    assert len(files) > 150
    found = []
    for file in files:
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        for called, node in calls(ast.parse(file.read_text(encoding="utf-8"))):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            last = called.rsplit(".", 1)[-1]
            wrong = (
                called in ("eval", "exec", "compile", "os.system", "os.popen", "__import__", "yaml.load")
                or called.startswith(("pickle.", "cPickle.", "dill.", "cloudpickle.", "joblib.", "marshal."))
                or (called == "torch.load" and given.get("weights_only") != "True")
                or (called == "torch.jit.load" and name not in ASKED_FOR["torch.jit.load"])
                or (called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False")
                or given.get("shell", "False") != "False"
                or given.get("trust_remote_code", "False") != "False"
                or (last in ("read_pickle", "unsafe_load", "full_load"))
            )
            if wrong:
                found.append(f"{name}:{node.lineno} {called}")
    assert found == []


def test_the_search_for_what_runs_finds_it():
    sample = "eval('1'); subprocess.run(x, shell=True); torch.load(f); torch.load(f, weights_only=True)"
    assert [called for called, _ in calls(ast.parse(sample))] == ["eval", "subprocess.run", "torch.load", "torch.load"]


# Headers that promise more than any machine holds.


def claims(folder: Path) -> dict[str, Path]:
    """Small files of which a header says something vast."""
    made = {}
    tone = media_files.tone(0.4, 44_100)
    plain = media_files.write(folder / "plain.mp4", media_files.textured(10, 32, 48), sound=tone)
    data = plain.read_bytes()

    def changed(name: str, *edits: tuple[bytes, int, int, int]) -> None:
        new = bytearray(data)
        for box, offset, width, value in edits:
            at = new.index(box) + 4 + offset
            new[at : at + width] = value.to_bytes(width, "big")
        made[name] = folder / f"{name}.mp4"
        made[name].write_bytes(new)

    changed("a billion frames", (b"stts", 8, 4, 10**9), (b"stsz", 8, 4, 10**9))
    changed("a billion frames of one size", (b"stsz", 4, 4, 1), (b"stsz", 8, 4, 10**9), (b"stts", 8, 4, 10**9))
    changed("65535 x 65535", (b"mp4v", 24, 2, 65535), (b"mp4v", 26, 2, 65535))
    changed("65535 x 65535 as shown", (b"tkhd", 76, 4, 65535 << 16), (b"tkhd", 80, 4, 65535 << 16))
    century = [(box, at, 4, value) for box in (b"mvhd", b"mdhd") for at, value in ((12, 1), (16, 2**32 - 1))]
    changed("a century", *century)
    changed("frames years apart", (b"mdhd", 12, 4, 1), (b"stts", 12, 4, 2**31 - 1))
    changed("a box of 2^63 bytes", (b"moov", -8, 4, 1), (b"mdat", -8, 4, 2**31))
    sound = media_files.write_wav(folder / "plain.wav", media_files.tone(0.3, 16_000))
    wav = bytearray(sound.read_bytes())
    wav[4:8] = wav[40:44] = (2**32 - 1).to_bytes(4, "little")
    made["4 GB of sound"] = folder / "huge.wav"
    made["4 GB of sound"].write_bytes(wav)
    wav[24:28] = (1).to_bytes(4, "little")  # one sample a second
    made["a sample a second"] = folder / "slow.wav"
    made["a sample a second"].write_bytes(wav)
    wav[22:24], wav[24:28] = (65535).to_bytes(2, "little"), (2**31 - 1).to_bytes(4, "little")
    made["65535 channels"] = folder / "wide.wav"
    made["65535 channels"].write_bytes(wav)
    with av.open(str(folder / "gap.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        for number in range(2):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            frame.pts = number
            for packet in stream.encode(frame):
                packet.pts = packet.dts = number * 100 * 3600 * 25
                container.mux(packet)
    made["two frames 100 hours apart"] = folder / "gap.mkv"
    jpeg = bytearray((folder / "gap.mkv").read_bytes())
    while (at := jpeg.find(b"\xff\xc0\x00\x11\x08\x00\x20")) >= 0:  # what the decoder itself goes by
        jpeg[at + 5 : at + 9] = b"\xff" * 4
    made["pictures of 65535 x 65535"] = folder / "pictures.mkv"
    made["pictures of 65535 x 65535"].write_bytes(jpeg)
    return made


READ = """
import json, sys
from halign_bench.decoding import MediaError
from halign_bench.media import VideoReader, probe, read_audio, read_video
for path in sys.argv[1:]:
    told = []
    for read in (probe, lambda p: read_video(p, (32, 32), frames=8), read_audio, lambda p: read_audio(p, 0.4),
                 lambda p: sum(1 for _ in VideoReader(p, (32, 32)))):
        try:
            read(path)
            told.append("read")
        except MediaError as problem:
            told.append(str(problem))
    status = open("/proc/self/status").read()  # ru_maxrss begins with what the parent had
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"file": path, "told": told, "peak": peak}))
"""


@pytest.mark.fault(
    "clips and score: headers that claim 10^9 frames, 65535 x 65535 pixels, a century, 4 GB of sound",
    "read as far as it goes, or one sentence; within 1.5 GB of memory",
)
def test_headers_that_claim_the_impossible(tmp_path):
    files = claims(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, files.values())], capture_output=True, text=True, timeout=300,
        check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(zip(files, map(json.loads, done.stdout.splitlines()), strict=True))
    for name, one in found.items():
        assert one["peak"] < 1500, (name, one)
        assert all(text == "read" or (text.startswith(one["file"]) and text.isprintable()) for text in one["told"]), one
    assert "not a single whole frame" in found["pictures of 65535 x 65535"]["told"][0]
    assert "is longer than 3600 s" in found["two frames 100 hours apart"]["told"][-1]


def test_every_refusal_of_the_package_is_a_sentence_of_its_own():
    """Whatever derives from HalignError and does not keep to one line would be seen here."""
    seen, waiting = [], [HalignError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        seen.append(kind)
    assert len(seen) > 5
    for kind in seen:
        assert "__str__" not in vars(kind) or kind is HalignError
