"""Downloads against a server that truncates, stalls, lies and serves something else."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import bad_server as bad
import pytest

from halign_bench.assets import download as downloading
from halign_bench.assets.download import Patience, download
from halign_bench.assets.fetch import fetch
from halign_bench.assets.manifest import Asset
from halign_bench.assets.store import Store
from halign_bench.errors import RequestError, RunLocked

DATA = bytes(range(256)) * 1024  # 256 KiB
SIZE, SHA = len(DATA), hashlib.sha256(DATA).hexdigest()
HASTY = Patience(stall=20.0, least=10_000, attempts=3, progress=10_000, pause=0.01)
STALLS = replace(HASTY, stall=0.5)  # only where a stall is waited for: a busy machine is slow too


@pytest.fixture
def server():
    with bad.serving() as running:
        running.files["/net.pth"] = DATA
        yield running


@pytest.fixture
def part(tmp_path) -> Path:
    return tmp_path / ".net.pth.part"


def get(server, part, *, size=SIZE, sha256=SHA, path="/net.pth", patience=HASTY, **options) -> bytes:
    found = download([server.url + path], part, size, sha256, http=True, patience=patience, **options)
    content = part.read_bytes()
    assert found == hashlib.sha256(content).hexdigest()
    return content


def ranges(server) -> list[str | None]:
    return [given for _, given in server.asked]


def test_a_whole_file_comes_in_one_request_and_progress_ends_at_its_size(server, part):
    reports = []
    assert get(server, part, report=lambda done, total: reports.append((done, total))) == DATA
    assert ranges(server) == [None]
    assert reports[0] == (0, len(DATA)) and reports[-1] == (len(DATA), len(DATA)) and reports == sorted(reports)


@pytest.mark.fault("assets fetch: the connection breaks in the middle", "goes on where it stopped")
def test_a_truncated_transfer_goes_on_where_it_stopped(server, part):
    server.answers = [bad.truncated(100_000), bad.truncated(100_000)]
    said = []
    assert get(server, part, say=said.append) == DATA
    assert ranges(server) == [None, "bytes=100000-", "bytes=200000-"]
    assert said[0].startswith(f"127.0.0.1 ended after 100000 of {len(DATA)} bytes; trying again")


@pytest.mark.fault("assets fetch: the server goes silent", "given up in time, and goes on")
def test_a_stalled_transfer_is_given_up_in_time_and_goes_on(server, part):
    server.answers = [bad.stalled(100_000)]
    said = []
    assert get(server, part, patience=STALLS, say=said.append) == DATA
    assert "sent nothing for 0.5 s" in said[0]
    assert ranges(server)[:2] == [None, "bytes=100000-"]


@pytest.mark.fault("assets fetch: a byte now and then", "counts as silence")
def test_a_trickle_counts_as_a_stall(server, part):
    server.answers = [bad.trickling]
    said = []
    assert get(server, part, patience=STALLS, say=said.append) == DATA
    assert "sent only" in said[0]
    assert 0 < int(ranges(server)[1][6:-1]) < 1000


def test_who_never_answers_is_refused_after_some_attempts_and_what_came_is_kept(server, part):
    server.answers = [bad.truncated(5000)] * 3
    with pytest.raises(RequestError, match=r"^127\.0\.0\.1 ended after 15000 of 262144 bytes, 3 times in a row$"):
        get(server, part)
    assert part.read_bytes() == DATA[:15000]
    assert get(server, part) == DATA
    assert ranges(server)[-1] == "bytes=15000-"


def test_attempts_that_bring_much_are_not_counted(server, part):
    server.answers = [bad.truncated(20_000)] * 10
    assert get(server, part) == DATA
    assert len(server.asked) == 11


@pytest.mark.fault("assets fetch: the server states a wrong length", "refused")
@pytest.mark.parametrize("lie", [len(DATA) - 1000, len(DATA) + 1000, 0])
def test_a_lie_about_the_length_is_refused(server, part, lie):
    server.answers = [bad.announcing(lie)]
    with pytest.raises(RequestError, match=rf"offers {lie} bytes, the published file has {len(DATA)}"):
        get(server, part)


def test_a_length_that_nobody_states_does_not_hide_a_lie(server, part):
    """Without a published size the server's is believed, and too few bytes are noticed."""
    server.answers = [bad.announcing(len(DATA) + 1000)] * 3
    with pytest.raises(RequestError, match=rf"ended after {len(DATA)} of {len(DATA) + 1000} bytes"):
        get(server, part, size=None)


def test_a_server_without_ranges_starts_again(server, part):
    server.answers = [bad.truncated(100_000), bad.without_ranges]
    assert get(server, part) == DATA
    assert len(server.asked) == 2


def test_bytes_from_another_place_are_not_taken(server, part):
    server.answers = [bad.truncated(100_000), bad.another_range]
    assert get(server, part) == DATA
    assert ranges(server) == [None, "bytes=100000-", None]


@pytest.mark.fault("assets fetch: the server gives another file", "refused, nothing of it is kept")
def test_a_wrong_file_is_refused_and_nothing_of_it_is_kept(server, part):
    server.answers = [bad.giving(DATA[::-1])]
    with pytest.raises(RequestError, match=f"gave another file, with sha256 [0-9a-f]{{64}} instead of {SHA}"):
        get(server, part)
    assert part.read_bytes() == b""


@pytest.mark.fault("assets fetch: bytes kept from before are wrong", "fetched again, once")
def test_a_wrong_beginning_from_an_earlier_time_is_fetched_again_once(server, part):
    part.write_bytes(b"x" * 1000)
    assert get(server, part) == DATA
    assert ranges(server) == ["bytes=1000-", None]


def test_a_wrong_file_in_pieces_ends_too(server, part):
    def pieces(handler, data):
        bad.truncated(200_000)(handler, DATA[::-1])

    server.answers = [pieces] * 20
    with pytest.raises(RequestError, match="gave another file"):
        get(server, part)
    assert len(server.asked) == 4


def test_more_on_disk_than_the_file_has_is_no_obstacle(server, part):
    part.write_bytes(DATA + b"more")
    assert get(server, part) == DATA
    assert ranges(server) == [f"bytes={len(DATA) + 4}-", None]


def test_a_file_that_is_whole_already_is_not_asked_for(server, part):
    part.write_bytes(DATA)
    assert get(server, part) == DATA
    assert server.asked == []


def test_what_is_not_there_is_refused_at_once(server, part):
    with pytest.raises(RequestError, match=r"^127\.0\.0\.1 answers 404 Not Found$"):
        get(server, part, path="/other.pth")
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again_after_the_time_it_names(server, part, monkeypatch):
    waits = []
    monkeypatch.setattr(downloading.time, "sleep", waits.append)
    server.answers = [bad.saying(503, Retry_After=7), bad.saying(429)]
    assert get(server, part) == DATA
    assert waits == [7.0, 0.02]


def test_a_server_that_stays_busy_is_refused(server, part):
    server.answers = [bad.saying(503)] * 3
    with pytest.raises(RequestError, match="answers 503 Service Unavailable, 3 times in a row"):
        get(server, part)


@pytest.mark.fault("assets fetch: a web page instead of the file", "refused")
def test_a_web_page_is_not_taken_for_the_file(server, part):
    server.answers = [bad.page]
    with pytest.raises(RequestError, match="answers with a web page"):
        get(server, part)


def test_a_redirect_is_followed_and_keeps_the_range(server, part):
    server.files["/elsewhere"] = DATA
    part.write_bytes(DATA[:1000])
    server.answers = [bad.saying(308, Location=f"{server.url}/elsewhere")]
    assert get(server, part) == DATA
    assert server.asked == [("/net.pth", "bytes=1000-"), ("/elsewhere", "bytes=1000-")]


@pytest.mark.fault("assets fetch: https redirects to plain http", "refused")
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_https_is_never_left(server, part, code):
    server.answers = [bad.saying(code, Location=f"{server.url}/elsewhere")]
    with pytest.raises(RequestError, match=r"leads to http://.*, which is not https"):
        download([f"{server.url}/net.pth"], part, len(DATA), SHA, http=False, patience=HASTY)


def test_a_circle_of_redirects_ends(server, part):
    server.answers = [bad.saying(302, Location=f"{server.url}/net.pth")] * 30
    with pytest.raises(RequestError, match="answers 302"):
        get(server, part)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[bad"])
def test_a_redirect_to_something_else_is_refused(server, part, target):
    server.answers = [bad.saying(302, Location=target)] * 3
    with pytest.raises(RequestError, match=r"is not https|is not allowed|answers what is no HTTP"):
        get(server, part)


def test_the_next_address_goes_on_with_what_the_first_gave(server, part):
    server.files["/mirror.pth"] = DATA
    server.answers = [bad.truncated(100_000), bad.saying(404)]
    urls = [f"{server.url}/net.pth", f"{server.url}/mirror.pth"]
    assert download(urls, part, len(DATA), SHA, http=True, patience=HASTY) == SHA
    assert server.asked[-1] == ("/mirror.pth", "bytes=100000-")


def test_every_address_that_refused_is_named(server, part):
    urls = [f"{server.url}/a", "http://127.0.0.1:9/b"]
    with pytest.raises(RequestError, match=r"answers 404 Not Found; 127\.0\.0\.1 cannot be reached \(.*\), 3 times"):
        download(urls, part, len(DATA), SHA, http=True, patience=HASTY)


# Without a published hash


def test_a_file_without_a_hash_is_never_pieced_together(server, part):
    part.write_bytes(b"left by another server")
    server.answers = [bad.truncated(100_000)]
    assert get(server, part, size=None, sha256=None) == DATA
    assert ranges(server) == [None, None]


def test_a_file_without_a_hash_and_a_stated_length_could_be_a_part(server, part):
    server.answers = [bad.without_length]
    with pytest.raises(RequestError, match="does not say how long the file is"):
        get(server, part, size=None, sha256=None)


def test_chunks_have_an_end_of_their_own(server, part):
    server.answers = [bad.chunked(upto=100_000), bad.chunked()]
    assert get(server, part, size=None, sha256=None) == DATA
    assert len(server.asked) == 2


def test_a_truncating_server_without_a_hash_ends_too(server, part):
    server.answers = [bad.truncated(100_000)] * 9
    with pytest.raises(RequestError, match="3 times in a row"):
        get(server, part, size=None, sha256=None)


@pytest.mark.fault("assets fetch: a file that never ends", "cut off and refused")
def test_an_endless_file_is_cut_off(server, part, monkeypatch):
    monkeypatch.setattr(downloading, "MAX_BYTES", 50_000)
    with pytest.raises(RequestError, match="sends more than the 50000 bytes expected"):
        get(server, part, size=None, sha256=None)
    assert part.stat().st_size == 0


# Into the folder of assets


def asset(**changes) -> Asset:
    stated = {
        "name": "net", "summary": "a net", "file": "net.pth", "urls": ["https://host.invalid/net.pth"],
        "size": len(DATA), "sha256": SHA, "sha256_from": "publisher", "licence": "MIT", "metrics": ["fid"],
        "format": "state-dict",
    }  # fmt: skip
    return Asset.model_validate(stated | changes)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("HALIGN_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "weights", {"net": asset()})


def names(store: Store) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_stands_under_its_name_only_when_whole_and_right(server, store):
    seen = set()

    def look(done: int, total: int | None) -> None:
        seen.update(names(store))

    server.answers = [bad.truncated(100_000)]
    place = fetch(store, "net", mirror=server.url, patience=HASTY, report=look)
    assert seen == {".net.pth.part"} and names(store) == ["net.pth"]
    assert place.read_bytes() == DATA and store.find("net") == place


def test_what_is_there_and_right_is_not_fetched_again(server, store):
    fetch(store, "net", mirror=server.url)
    fetch(store, "net", mirror=server.url)
    assert len(server.asked) == 1


def test_a_wrong_file_stays_until_the_right_one_has_come(server, store):
    store.folder.mkdir()
    (store.folder / "net.pth").write_bytes(b"old")
    server.answers = [bad.saying(404)]
    with pytest.raises(RequestError, match=r"^net: 127"):
        fetch(store, "net", mirror=server.url, patience=HASTY)
    assert (store.folder / "net.pth").read_bytes() == b"old"
    assert fetch(store, "net", mirror=server.url).read_bytes() == DATA


def test_trust_is_no_excuse_for_a_file_with_a_known_hash(server, store):
    server.answers = [bad.giving(DATA[::-1])]
    with pytest.raises(RequestError, match="gave another file"):
        fetch(store, "net", mirror=server.url, trust=True, patience=HASTY)
    assert not (store.folder / "net.pth").exists()


def test_a_file_without_a_hash_is_fetched_on_trust_alone_and_then_expected(server, store):
    store.assets = {"net": asset(size=None, sha256=None, sha256_from=None)}
    with pytest.raises(RequestError, match="nobody states its sha256"):
        fetch(store, "net", mirror=server.url)
    assert server.asked == []
    fetch(store, "net", mirror=server.url, trust=True)
    assert store.standing("net").state == "trusted"
    (store.folder / "net.pth").write_bytes(b"changed")
    assert store.standing("net").state == "wrong"


@pytest.mark.fault("assets fetch: two at once for one file", "the second says so")
def test_two_processes_do_not_write_the_same_part(server, store):
    def second(done: int, total: int | None) -> None:
        with pytest.raises(RunLocked, match=r"another process is fetching net\.pth"):
            fetch(Store(store.folder, store.assets), "net", mirror=server.url)

    fetch(store, "net", mirror=server.url, report=second)
    assert len(server.asked) == 1


@pytest.mark.parametrize("mirror", ["host/weights", "ftp://host/", "file:///weights", "http://host/?a=b", "https://"])
def test_a_mirror_is_an_address_of_a_folder(store, mirror):
    with pytest.raises(RequestError, match="not the address of a folder"):
        fetch(store, "net", mirror=mirror)


FETCHING = """
import sys
from pathlib import Path
from halign_bench.assets.fetch import fetch
from halign_bench.assets.manifest import Asset
from halign_bench.assets.store import Store
asset = Asset.model_validate_json(sys.argv[1])
fetch(Store(Path(sys.argv[2]), {"net": asset}), "net", mirror=sys.argv[3])
"""


@pytest.mark.fault(
    "assets fetch: killed in the middle of a transfer",
    "the same command goes on where it stopped; no lock is left behind",
)
def test_a_killed_download_goes_on(server, store):
    server.answers = [bad.stalled(100_000)]
    command = [sys.executable, "-c", FETCHING, asset().model_dump_json(), str(store.folder), server.url]
    part = store.folder / ".net.pth.part"
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 100
        while not (part.exists() and part.stat().st_size == 100_000):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert names(store) == [".net.pth.part"]
    assert fetch(store, "net", mirror=server.url, patience=HASTY).read_bytes() == DATA
    assert ranges(server) == [None, "bytes=100000-"] and names(store) == ["net.pth"]
