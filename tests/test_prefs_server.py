"""The labelling page's server, over real HTTP: answers that are kept, videos that seek, and nothing else."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from PIL import Image
from prefs_files import video

from halign_bench.errors import RequestError, RunLocked
from halign_bench.prefs import server
from halign_bench.prefs.answers import AnswerLog, answers_path, read_all, read_answers
from halign_bench.prefs.labelling import label
from halign_bench.prefs.session import MANIFEST, read_session
from halign_bench.prefs.sitting import Sitting

PROMPTS = 3


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """Three prompts of two candidates each, asked for motion and fidelity."""
    return make_session(tmp_path / "session")


def make_session(folder: Path, candidates: int = 2, frames: int = 25) -> Path:
    prompts = []
    for row in range(PROMPTS):
        made = []
        for k in range(candidates):
            video(folder / f"videos/{row:05d}-{k}.mp4", 10 * row + k, frames)
            noise = {"name": f"clip{row}#candidate{k}", "seed": 0}
            made.append({"video": f"videos/{row:05d}-{k}.mp4", "noise": noise, "scores": {"motion": float(k)}})
        Image.new("RGB", (16, 16), (80 * row, 0, 0)).save(folder / f"videos/{row:05d}.png")
        prompts.append({
            "clip": f"clip{row}", "identity": f"person{row}", "index": row, "reference": f"videos/{row:05d}.png",
            "candidates": made,
        })  # fmt: skip
    document = {
        "schema": "halign-bench/prefs-session/1", "key": "k" * 64, "sources": {}, "criteria": ["motion", "fidelity"],
        "prompts": prompts,
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(document))
    return folder


class Page:
    """What a browser says to the server."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        self.host, self.base = split.netloc, split.path

    def __call__(self, place: str, body: object = None, path: str | None = None, **headers: str) -> SimpleNamespace:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        method = headers.pop("method", "GET" if body is None else "POST")
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path or self.base + place, data, headers)
        reply = connection.getresponse()
        found = SimpleNamespace(status=reply.status, headers=reply.headers, content=reply.read())
        connection.close()
        found.json = json.loads(found.content) if "json" in reply.headers["Content-Type"] else None
        return found

    def answer(self, side: int, seconds: float = 2.0) -> SimpleNamespace:
        following = self("state").json["next"]
        return self("answer", {"pair": following["pair"], "criterion": following["criterion"], "side": side,
                               "seconds": seconds})  # fmt: skip


@contextlib.contextmanager
def serving(session: Path, annotator: str = "kim") -> Iterator[tuple[Page, server.Server]]:
    with AnswerLog.open(session, annotator) as log:
        running = server.Server(Sitting(read_session(session), annotator, log))
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Page(running.url), running
        finally:
            running.shutdown()
            thread.join()
            running.server_close()


def labels(session: Path, annotator: str = "kim") -> list[tuple[str, str, str]]:
    return [(a.clip, a.criterion, a.label) for a in read_answers(answers_path(session, annotator))]


def test_a_whole_sitting_and_what_is_kept_of_it(session):
    with serving(session) as (page, running):
        before = page("state").json
        assert before["next"] == {"pair": 0, "criterion": "motion", "given": {}}
        assert (before["answered"], before["questions"], before["seconds_left"]) == (0, 2 * PROMPTS, None)
        for turn in range(2 * PROMPTS):
            assert page.answer(turn % 3, seconds=4.0).status == 200
        after = page("state").json
        assert after["next"] is None and after["answered"] == 2 * PROMPTS and after["seconds_left"] == 0
        shown = [running.sitting.shown(n) for n in range(PROMPTS)]
    kept = read_answers(answers_path(session, "kim"))
    assert [(a.clip, a.criterion) for a in kept] == [
        (f"clip{row}", criterion) for row in range(PROMPTS) for criterion in ("motion", "fidelity")
    ]
    for turn, answer in enumerate(kept):
        side, sides = turn % 3, shown[turn // 2]
        assert answer.shown == sides and answer.seconds == 4.0
        assert answer.label == ("tie" if side == 0 else ("left", "right")[sides[side - 1]])


def test_time_left_is_the_median_of_answers_times_what_is_left(session):
    with serving(session) as (page, _):
        for seconds in (2.0, 100.0, 4.0):
            reply = page.answer(1, seconds)
        assert reply.json["seconds_left"] == 4.0 * 3


def test_undo_takes_back_the_last_answer_and_asks_again(session):
    with serving(session) as (page, _):
        assert page("undo", {}).json["answered"] == 0  # nothing to take back
        for _ in range(3):
            page.answer(1)
        back = page("undo", {}).json
        assert back["next"] == {"pair": 1, "criterion": "motion", "given": {}}
        back = page("undo", {}).json
        assert back["next"]["pair"] == 0 and back["next"]["criterion"] == "fidelity" and back["next"]["given"]
        page.answer(0)
    assert [row[1:] for row in labels(session)][-1] == ("fidelity", "tie") and len(labels(session)) == 2


def test_sides_are_drawn_for_each_annotator_and_pair_and_stay(tmp_path):
    found = read_session(make_session(tmp_path / "s", candidates=4))
    sides = {name: [Sitting(found, name, SimpleNamespace(answers=[])).shown(n) for n in range(len(found.questions))]
             for name in ("kim", "lee")}  # fmt: skip
    assert sides["kim"] != sides["lee"]
    again = Sitting(found, "kim", SimpleNamespace(answers=[]))
    assert [again.shown(n) for n in range(len(found.questions))] == sides["kim"]
    first = [shown[0] == question.left for shown, question in zip(sides["kim"], found.questions, strict=True)]
    assert 3 <= sum(first) <= 15  # of 18


def test_a_first_pair_of_each_prompt_comes_before_any_second(tmp_path):
    questions = read_session(make_session(tmp_path / "s", candidates=3)).questions
    assert [tuple(q) for q in questions[:4]] == [(0, 0, 1), (1, 0, 1), (2, 0, 1), (0, 0, 2)] and len(questions) == 9


def test_an_answer_sent_twice_or_from_an_old_page_counts_once(session):
    with serving(session) as (page, _):
        given = {"pair": 0, "criterion": "motion", "side": 1, "seconds": 1}
        assert page("answer", given).status == 200
        again = page("answer", given)
        assert again.status == 409 and again.json["next"]["criterion"] == "fidelity" and again.json["error"]
    assert len(labels(session)) == 1


@pytest.mark.parametrize(
    "body",
    [[], b"{", b"\xff", {}, {"pair": 0, "criterion": "motion", "side": 3, "seconds": 1},
     {"pair": "0", "criterion": "motion", "side": 1, "seconds": 1}, {"pair": True, "criterion": "motion", "side": 1,
     "seconds": 1}, {"pair": 0, "criterion": "motion", "side": 1, "seconds": -1}, b'{"pair": 0, "criterion": "motion", '
     b'"side": 1, "seconds": NaN}'],
)  # fmt: skip
def test_what_is_no_answer_is_refused_and_not_kept(session, body):
    with serving(session) as (page, _):
        reply = page("answer", body)
        assert reply.status == 400 and reply.json["error"]
        assert page("answer", b"x" * 5000).status == 413
        assert page.answer(1).status == 200
    assert len(labels(session)) == 1


def test_nothing_is_served_without_the_secret_or_for_another_host(session):
    with serving(session) as (page, running):
        for path in ("/", "/state", f"/{running.token}x/state", f"/{running.token[:-1]}/", "/x/pair/0/1"):
            assert page("", path=path).status == 403, path
        given = {"pair": 0, "criterion": "motion", "side": 1, "seconds": 1}
        for headers in ({"Host": "evil.example"}, {"Host": f"evil.example:{running.server_port}"},
                        {"Origin": "http://evil.example"}, {"Origin": "null"}):  # fmt: skip
            assert page("state", **headers).status == 403
            assert page("answer", given, **headers).status == 403
        assert labels(session) == []
        assert page("state", Origin=f"http://{page.host}").status == 200
        assert page("state", Host=f"localhost:{running.server_port}").status == 200
        assert page("answer", {"pair": 0}, path="/wrong/answer").status == 403
        assert running.server_address[0] == "127.0.0.1"


def test_no_file_but_the_page_and_the_videos_can_be_had(session, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    with serving(session) as (page, running):
        for place in ("../session.json", "%2e%2e/session.json", "session.json", "answers/kim.jsonl", "page.html",
                      "pair/0/3", "pair/99/1", "pair/0/../../session.json", "pair/-1/1", "/etc/passwd",
                      "page.js/../page.css"):  # fmt: skip
            assert page(place).status == 404, place
        name = read_session(session).prompts[0].candidates[running.sitting.shown(0)[0]].video
        (session / name).unlink()
        (session / name).symlink_to(tmp_path / "secret.txt")
        reply = page("pair/0/1")
        assert reply.status == 404 and b"secret" not in reply.content
    assert read_session(session).missing() == [name]


def test_a_manifest_that_leads_out_of_the_folder_is_refused(session):
    manifest = session / MANIFEST
    manifest.write_text(manifest.read_text().replace("videos/00000-0.mp4", "../videos/00000-0.mp4"))
    with pytest.raises(RequestError, match=r"session\.json: is no session of this version \(prompts\.0"):
        read_session(session)


def test_pages_forbid_everything_that_is_not_theirs(session):
    with serving(session) as (page, _):
        for place, kind in (("", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")):
            reply = page(place)
            assert reply.status == 200 and reply.headers["Content-Type"].startswith(kind)
            assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
            assert reply.headers["Referrer-Policy"] == "no-referrer" and reply.headers["Cache-Control"] == "no-store"
            assert page(place, method="HEAD").content == b""


def test_a_pair_is_two_videos_on_their_sides_and_the_reference(session):
    with serving(session) as (page, running):
        for number in range(PROMPTS):
            for side, candidate in enumerate(running.sitting.shown(number), 1):
                reply = page(f"pair/{number}/{side}")
                whole = read_session(session).video(number, candidate).read_bytes()
                assert (reply.status, reply.headers["Content-Type"], reply.content) == (200, "video/mp4", whole)
                assert page(f"pair/{number}/{side}", method="HEAD").headers["Content-Length"] == str(len(whole))
            reply = page(f"pair/{number}/reference")
            assert reply.headers["Content-Type"] == "image/png"
            assert reply.content == (session / f"videos/{number:05d}.png").read_bytes()


def test_two_annotators_at_once_and_one_twice(session):
    with serving(session, "kim") as (kim, _), serving(session, "lee") as (lee, _):
        threads = [threading.Thread(target=lambda page=page: [page.answer(1) for _ in range(4)]) for page in (kim, lee)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(RunLocked, match="kim is labelling there already"), AnswerLog.open(session, "kim"):
            pass
    assert {name: len(found) for name, found in read_all(session).items()} == {"kim": 4, "lee": 4}


@pytest.mark.parametrize("name", ["", "Kim", "../kim", "kim/lee", ".kim", "a" * 41, "kím", "kim\n"])
def test_a_name_that_is_no_file_name_is_refused(session, name):
    with pytest.raises(RequestError, match="write a name of small letters"), AnswerLog.open(session, name):
        pass


@pytest.mark.parametrize("round_", range(3))
def test_a_kill_in_the_middle_of_answering_loses_nothing_that_was_told(session, round_):
    process, killed = start(session, "kim")
    told = [0]

    def answer_and_undo() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                told.append((killed.answer(1) if told[-1] < 4 else killed("undo", {})).json["answered"])

    with process:
        thread = threading.Thread(target=answer_and_undo)
        thread.start()
        time.sleep(0.3 + 0.05 * round_)
        process.kill()
        thread.join()
    assert len(told) > 4  # it was in the middle of it
    assert abs(len(labels(session)) - told[-1]) <= 1  # what was sent last may have been kept, and nobody was told
    with serving(session) as (page, _):
        assert page("state").json["answered"] == len(labels(session))
        assert page.answer(0).status == 200


def test_a_damaged_line_is_named_and_not_passed_over(session):
    with serving(session) as (page, _):
        page.answer(1)
        page.answer(2)
    path = answers_path(session, "kim")
    whole = path.read_bytes()
    path.write_bytes(b"oops\n" + whole.splitlines(keepends=True)[1])
    with pytest.raises(RequestError, match=r"kim\.jsonl, line 1: is damaged"):
        read_all(session)
    path.write_bytes(whole[:-9])
    with pytest.raises(RequestError, match=r"kim\.jsonl, line 2: is damaged"), AnswerLog.open(session, "kim"):
        pass
    assert path.read_bytes() == whole[:-9]


def test_an_answer_that_cannot_be_written_is_not_counted_and_leaves_no_trace(session):
    with serving(session) as (page, _):
        page.answer(1)
        before = answers_path(session, "kim").read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), limits[1]))  # as on a full disk
        try:
            replies = page.answer(2), page("undo", {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert replies[0].status == 507 and "could not be kept" in replies[0].json["error"]
        assert replies[1].status == 200  # an empty file is small enough
        assert labels(session) == [] and {p.name for p in (session / "answers").iterdir()} == {"kim.jsonl", ".kim.lock"}
        assert page.answer(2).json["answered"] == 1
    assert len(labels(session)) == 1


def test_after_the_end_of_a_sitting_nothing_is_written(session):
    with serving(session) as (page, running):
        page.answer(1)
    with pytest.raises(OSError):
        running.sitting.answer(0, "fidelity", 1, 1.0)
    assert len(labels(session)) == 1 and running.sitting.state()["answered"] == 1


def test_a_port_in_use_and_a_session_without_its_videos_are_told(session):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=f"--port {port}: cannot be used"):
            label(session, "kim", port, browser=False)
    (session / "videos" / "00001-0.mp4").unlink()
    with pytest.raises(RequestError, match=r"1 of its files are missing, videos/00001-0\.mp4 first"):
        label(session, "kim", 0, browser=False)


def start(session: Path, annotator: str) -> tuple[subprocess.Popen[str], Page]:
    command = [sys.executable, "-m", "halign_bench", "prefs", "label", str(session), "--annotator", annotator]
    process = subprocess.Popen([*command, "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:"), line + process.stderr.read()
    return process, Page(line.strip())


def test_after_a_kill_everything_that_was_answered_is_there(session):
    process, page = start(session, "kim")
    with process:
        for side in (1, 2, 0):
            page.answer(side)
        kept = page("state").json
        process.kill()
    process, page = start(session, "kim")
    with process:
        resumed = page("state").json
        assert resumed == kept and resumed["answered"] == 3
        page.answer(1)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 0 and "4 of 6 answers" in said and "same command goes on" in said
    assert len(labels(session)) == 4
