"""`halign-bench assets` as its users meet it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import bad_server as bad
import pytest

from halign_bench import cli, doctor

FILE = "i3d_pretrained_400.pt"  # of the one asset whose content is not fixed by its hash


@pytest.fixture
def server():
    with bad.serving() as running:
        running.files[f"/{FILE}"] = b"weights" * 10_000
        yield running


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A cache and a folder of assets of this test's own."""
    monkeypatch.setenv("HALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HALIGN_ASSETS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def assets(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["assets", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def states(capsys, *arguments: str) -> dict[str, str]:
    _, out, _ = assets(capsys, *arguments, "--json")
    return {asset["name"]: asset["state"] for asset in json.loads(out)["assets"]}


def test_the_list_tells_sizes_licences_and_what_is_not_known(capsys, here):
    code, out, err = assets(capsys, "list")
    lines = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert code == 0 and err == "" and f"folder: {here}" in out
    assert "91.2 MiB" in lines["inception-fid"] and "fid, kid" in lines["inception-fid"]
    assert "sha256 not published" in lines["i3d-videogpt"] and "unknown" in lines["i3d-videogpt"]
    assert "non-commercial research only" in lines["insightface-buffalo-l"]
    assert not here.exists()  # looking leaves nothing behind


def test_the_list_as_json_is_one_document(capsys, here):
    code, out, _ = assets(capsys, "list", "--json")
    document = json.loads(out)
    entry = next(asset for asset in document["assets"] if asset["name"] == "s3fd")
    assert code == 0 and document["schema"] == "halign-bench/assets/1"
    assert (entry["state"], entry["path"], entry["size"]) == ("missing", str(here / "sfd_face.pth"), 89844381)


def test_fetched_trusted_verified_and_noticed_when_damaged(capsys, here, server):
    code, out, err = assets(capsys, "fetch", "i3d-videogpt", "--trust", "--mirror", server.url)
    assert (code, out) == (0, f"i3d-videogpt: {here / FILE}\n") and "licence: none stated" in err
    assert states(capsys, "list")["i3d-videogpt"] == "trusted"
    assert assets(capsys, "verify")[0] == 0
    (here / FILE).write_bytes(b"wEights" * 10_000)
    assert states(capsys, "verify")["i3d-videogpt"] == "wrong"
    code, out, _ = assets(capsys, "verify")
    assert code == 1 and "the one you trusted" in out


def test_fetching_what_is_there_asks_nobody(capsys, here, server):
    command = ["fetch", "i3d-videogpt", "--trust", "--mirror", server.url, "--json"]
    first, second = (json.loads(assets(capsys, *command)[1])["assets"][0] for _ in range(2))
    assert (first["status"], second["status"]) == ("fetched", "there") and first["path"] == second["path"]
    assert len(server.asked) == 1


def test_one_that_cannot_be_fetched_does_not_keep_the_others(capsys, here, server):
    server.files["/sfd_face.pth"] = b"another file"
    code, out, err = assets(capsys, "fetch", "s3fd", "i3d-videogpt", "--trust", "--mirror", server.url, "--json")
    failed, fetched = json.loads(out)["assets"]
    assert code == 2 and (failed["status"], fetched["status"]) == ("failed", "fetched")
    assert failed["error"] == "s3fd: 127.0.0.1 offers 12 bytes, the published file has 89844381"
    assert f"halign-bench: {failed['error']}\n" in err
    assert (here / FILE).exists() and not (here / "sfd_face.pth").exists()


def test_all_leaves_out_what_cannot_be_checked(capsys, here, server):
    code, out, err = assets(capsys, "fetch", "--all", "--mirror", server.url, "--json")
    tried = [entry["name"] for entry in json.loads(out)["assets"]]
    assert code == 2 and len(tried) == 12 and "i3d-videogpt" not in tried
    assert "i3d-videogpt: left out" in err


def test_verify_says_no_to_a_named_one_that_is_missing(capsys):
    assert assets(capsys, "verify")[0] == 0
    assert assets(capsys, "verify", "s3fd")[0] == 1


def test_add_takes_a_file_for_where_there_is_no_network(capsys, here, tmp_path):
    source = tmp_path / "mine.pt"
    source.write_bytes(b"mine")
    code, _, err = assets(capsys, "add", "inception-fid", str(source))
    assert code == 2 and "not the published pt_inception" in err and err.count("\n") == 1
    code, out, _ = assets(capsys, "add", "inception-fid", str(source), "--trust", "--json")
    assert code == 0 and json.loads(out)["state"] == "trusted"
    assert states(capsys, "list")["inception-fid"] == "trusted"


def test_a_folder_given_is_used_and_stands_in_the_advice(capsys, here, tmp_path):
    (tmp_path / "file").write_text("")
    assert states(capsys, "list", "--dir", str(tmp_path / "other"))["s3fd"] == "missing"
    code, _, err = assets(capsys, "list", "--dir", str(tmp_path / "file"))
    assert code == 2 and "is a file" in err


def test_an_interrupted_fetch_ends_with_130_and_says_that_it_goes_on(server, here):
    server.answers = [bad.stalled(1000)]
    command = [sys.executable, "-m", "halign_bench", "assets", "fetch", "i3d-videogpt", "--trust"]
    with subprocess.Popen([*command, "--mirror", server.url], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("i3d-videogpt, MiB"):
                break
        while not server.asked:  # the transfer is under way
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(100) == 130
    assert rest == "halign-bench: interrupted; the same command goes on where it stopped\n"
    assert not (here / FILE).exists()


def test_doctor_tells_in_one_line_what_is_here(here):
    (finding,) = doctor.assets()
    assert (finding.subject, finding.status) == ("assets", "ok") and finding.detail == f"0 of 13 in {here}"
    here.mkdir()
    (here / "sfd_face.pth").write_bytes(b"cut off")
    (finding,) = doctor.assets()
    assert finding.status == "warning" and "1 of 13" in finding.detail and "wrong: s3fd" in finding.detail
