"""The folder of assets: nothing is used on its name, nothing is hashed twice, and archives do no harm."""

from __future__ import annotations

import doctest
import hashlib
import importlib
import io
import os
import re
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halign_bench.assets import archive, hashing
from halign_bench.assets.intake import add
from halign_bench.assets.manifest import Asset
from halign_bench.assets.store import Store
from halign_bench.errors import RequestError

NET, DETECTOR, RECOGNISER = b"net " * 1000, b"detector " * 1000, b"recogniser " * 1000


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def asset(name: str, file: str, data: bytes, **changes) -> Asset:
    stated = {
        "name": name, "summary": "a net", "file": file, "urls": [f"https://host.invalid/{file}"], "size": len(data),
        "sha256": sha(data), "sha256_from": "publisher", "licence": "MIT", "metrics": ["fid"], "format": "state-dict",
    }  # fmt: skip
    return Asset.model_validate(stated | changes)


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            file.writestr(name, data)
    return buffer.getvalue()


PACK = zipped(("pack/det.onnx", DETECTOR), ("pack/rec.onnx", RECOGNISER), ("pack/age.onnx", b"unwanted"))
MEMBERS = [
    {"file": "det.onnx", "size": len(DETECTOR), "sha256": sha(DETECTOR)},
    {"file": "rec.onnx", "size": len(RECOGNISER), "sha256": sha(RECOGNISER)},
]
ASSETS = {
    "net": asset("net", "net.pth", NET),
    "script": asset("script", "script.pt", NET, format="torchscript"),
    "unknown": asset("unknown", "unknown.pt", NET, size=None, sha256=None, sha256_from=None),
    "pack": asset("pack", "pack.zip", PACK, format="archive", members=MEMBERS),
    "single": asset("single", "single.zip", PACK, format="archive", members=MEMBERS[:1]),
}


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("HALIGN_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "weights", ASSETS)


def put(store: Store, file: str, data: bytes) -> Path:
    path = store.folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def given_file(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


# Where


def test_the_folder_is_the_one_given_else_the_environments_else_the_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("HALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HALIGN_ASSETS", raising=False)
    assert Store().folder == tmp_path / "cache" / "assets"
    monkeypatch.setenv("HALIGN_ASSETS", str(tmp_path / "offline"))
    assert Store().folder == tmp_path / "offline"
    assert Store(tmp_path / "mine").folder == tmp_path / "mine"


def test_an_unknown_name_is_told_with_the_nearest(store):
    with pytest.raises(RequestError, match="Unknown asset 'netz': did you mean 'net'"):
        store.find("netz")


# Finding


def test_a_file_put_there_by_hand_is_found_once_it_was_hashed(store):
    path = put(store, "net.pth", NET)
    assert store.standing("net", "look").state == "unchecked"
    assert store.find("net") == path
    assert store.standing("net", "look").state == "verified"


def test_what_is_missing_is_told_with_the_command_that_gets_it(store):
    with pytest.raises(RequestError) as refusal:
        store.find("net")
    assert str(refusal.value) == (
        f"net: {store.folder}/net.pth is not there; get it: `halign-bench assets fetch net --dir {store.folder}`, or "
        f"without a network `halign-bench assets add net FILE --dir {store.folder}`"
    )


def test_a_missing_file_without_a_hash_is_fetched_with_trust(store):
    with pytest.raises(RequestError, match=r"fetch unknown --trust --dir .* FILE --trust"):
        store.find("unknown")


@pytest.mark.parametrize("data", [NET[:-1], NET[:-1] + b"x", b""])
def test_a_wrong_file_is_never_found(store, data):
    put(store, "net.pth", data)
    with pytest.raises(RequestError, match=r"net\.pth has (\d+ bytes|sha256 [0-9a-f]{12}…), the published file"):
        store.find("net")
    assert store.standing("net", "look").state == "wrong"


def test_a_file_that_nobody_states_the_hash_of_is_not_found_until_it_is_trusted(store):
    path = put(store, "unknown.pt", NET)
    with pytest.raises(RequestError, match=re.escape(f"`halign-bench assets add unknown {path} --trust")):
        store.find("unknown")
    assert add(store, "unknown", path, trust=True) == path
    assert store.find("unknown") == path
    put(store, "unknown.pt", NET + b"changed")
    with pytest.raises(RequestError, match=r"the one you trusted"):
        store.find("unknown")


def test_a_name_that_is_a_folder_is_missing(store):
    (store.folder / "net.pth").mkdir(parents=True)
    assert store.standing("net").state == "missing"


# Hashing


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The names of the files that were read in order to hash them."""
    real, names = hashing.sha256_of, []

    def counting(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(hashing, "sha256_of", counting)
    return names


def test_a_file_is_hashed_once_also_by_the_next_process(store, hashed):
    put(store, "net.pth", NET)
    store.find("net")
    store.find("net")
    Store(store.folder, ASSETS).find("net")
    assert hashed == ["net.pth"]


def test_a_file_that_was_added_is_not_hashed_again(store, hashed, tmp_path):
    add(store, "net", given_file(tmp_path, "download", NET))
    store.find("net")
    assert hashed == []


def test_a_changed_file_is_hashed_again(store, hashed):
    path = put(store, "net.pth", NET)
    store.find("net")
    os.utime(path, ns=(1, 1))
    store.find("net")
    path.write_bytes(NET[::-1])
    assert store.standing("net").state == "wrong"
    assert len(hashed) == 3


def test_verifying_reads_everything_again(store, hashed):
    path = put(store, "net.pth", NET)
    store.find("net")
    before = path.stat()
    path.write_bytes(NET[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.standing("net", "again").state == "wrong"
    assert len(hashed) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "x"}', '{"schema": "halign-bench/hashes/1"}'])
def test_a_damaged_memory_costs_time_alone(store, content):
    put(store, "net.pth", NET)
    store.memory.file.parent.mkdir(parents=True, exist_ok=True)
    store.memory.file.write_text(content)
    assert store.find("net") == store.folder / "net.pth"


def test_a_memory_that_cannot_be_written_costs_time_alone(store, hashed, tmp_path):
    store.memory = hashing.Memory(given_file(tmp_path, "file", b"") / "memory.json")
    put(store, "net.pth", NET)
    store.find("net")
    store.find("net")
    assert len(hashed) == 2


# Trust


def test_what_runs_code_is_opened_only_with_the_published_bytes_or_with_trust(store, tmp_path):
    mine = given_file(tmp_path, "mine.pt", b"mine")
    with pytest.raises(RequestError, match=r"opening a torchscript file runs what is in it; if you trust it: `halign"):
        store.require_trust("script", mine)
    store.require_trust("script", given_file(tmp_path, "copy.pt", NET))
    with pytest.raises(RequestError, match=r"not the published script\.pt"):
        add(store, "script", mine)
    add(store, "script", mine, trust=True)
    store.require_trust("script", mine)
    assert store.standing("script").state == "trusted"
    assert not store.trusted("net", mine)  # trust is for one asset alone


def test_what_runs_code_is_hashed_whatever_is_remembered(store):
    path = put(store, "script.pt", NET)
    store.find("script")
    before = path.stat()
    path.write_bytes(NET[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(RequestError, match="not the published script"):
        store.require_trust("script", path)


def test_the_published_file_ends_the_trust_in_another(store, tmp_path):
    mine = given_file(tmp_path, "mine.pt", b"mine")
    add(store, "net", mine, trust=True)
    add(store, "net", given_file(tmp_path, "right.pt", NET))
    assert store.standing("net").state == "verified"
    assert not store.trusted("net", mine)


def test_trust_is_the_users_and_does_not_lie_beside_the_weights(store, tmp_path):
    add(store, "net", given_file(tmp_path, "mine.pt", b"mine"), trust=True)
    assert [path.name for path in store.folder.iterdir()] == ["net.pth"]
    assert store.trust.file.parent == tmp_path / "cache"


def test_a_damaged_list_of_what_is_trusted_is_told_and_not_guessed(store, tmp_path):
    store.trust.file.parent.mkdir(parents=True, exist_ok=True)
    store.trust.file.write_text("{}")
    with pytest.raises(RequestError, match=r"trusted-assets\.json: not a list of trusted files"):
        store.find("net")


# Adding


def test_a_right_file_is_copied_under_the_published_name(store, tmp_path):
    source = given_file(tmp_path, "download (1).pth", NET)
    assert add(store, "net", source) == store.folder / "net.pth"
    assert store.find("net").read_bytes() == NET and source.read_bytes() == NET


def test_a_wrong_file_changes_nothing(store, tmp_path):
    put(store, "net.pth", NET)
    with pytest.raises(RequestError, match=rf"which has {len(NET)} bytes and sha256 {sha(NET)}: this has 5 bytes"):
        add(store, "net", given_file(tmp_path, "wrong", b"wrong"))
    assert [path.name for path in store.folder.iterdir()] == ["net.pth"] and store.find("net").read_bytes() == NET


@pytest.mark.parametrize(("name", "source"), [("net", "nowhere"), ("net", "."), ("pack", "net.pth")])
def test_what_cannot_be_added_is_told(store, tmp_path, monkeypatch, name, source):
    monkeypatch.chdir(tmp_path)
    given_file(tmp_path, "net.pth", NET)
    with pytest.raises(RequestError, match=f"^{re.escape(source)}: "):
        add(store, name, Path(source))
    assert not store.folder.exists() or not list(store.folder.iterdir())


def test_a_folder_that_cannot_be_written_is_told(store, tmp_path):
    given_file(tmp_path, "weights", b"a file")
    with pytest.raises(RequestError, match=r"cannot be (written|read)"):
        add(store, "net", given_file(tmp_path, "net", NET))


# Archives


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_wanted_members_are_taken_and_nothing_else(store, tmp_path, form):
    source = given_file(tmp_path, "pack.zip", PACK)
    if form == "folder":
        with zipfile.ZipFile(source) as file:
            file.extractall(tmp_path)
        source = tmp_path / "pack"
    assert add(store, "pack", source) == store.folder / "pack"
    assert sorted(path.name for path in store.find("pack").iterdir()) == ["det.onnx", "rec.onnx"]
    assert (store.folder / "pack" / "rec.onnx").read_bytes() == RECOGNISER


def test_the_only_member_is_what_is_found_and_may_be_given_itself(store, tmp_path):
    assert add(store, "single", given_file(tmp_path, "x.onnx", DETECTOR)) == store.folder / "single" / "det.onnx"
    assert store.find("single").read_bytes() == DETECTOR


def test_an_archive_left_in_the_folder_is_told_how_to_unpack(store):
    path = put(store, "pack.zip", PACK)
    with pytest.raises(RequestError, match=re.escape(f"unpack it: `halign-bench assets add pack {path} --dir")):
        store.find("pack")


def test_half_of_an_archive_is_missing_and_a_wrong_half_wrong(store):
    put(store, "pack/det.onnx", DETECTOR)
    assert store.standing("pack").state == "missing"
    put(store, "pack/rec.onnx", RECOGNISER[::-1])
    assert store.standing("pack").state == "wrong"
    put(store, "pack/rec.onnx", RECOGNISER)
    assert store.standing("pack").state == "verified"


def link(name: str, kind: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return info


def backslashed(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = name
    return info


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("/det.onnx", "is an absolute path"),
        ("C:/det.onnx", "is an absolute path"),
        ("../det.onnx", "leads out of the archive"),
        ("a/../../det.onnx", "leads out of the archive"),
        (backslashed("..\\det.onnx"), "leads out of the archive"),
        (link("pack/age.onnx"), "is a link"),
        (link("pack/age.onnx", stat.S_IFIFO), "is neither a file nor a folder"),
    ],
    ids=lambda value: getattr(value, "filename", None),
)
def test_an_archive_that_could_do_harm_is_refused_as_a_whole(store, tmp_path, entry, words):
    data = zipped(("pack/det.onnx", DETECTOR), ("pack/rec.onnx", RECOGNISER), (entry, b"/etc/passwd"))
    with pytest.raises(RequestError, match=f"{words}; nothing was unpacked"):
        add(store, "pack", given_file(tmp_path, "evil.zip", data), trust=True)
    assert not store.folder.exists()


def test_an_encrypted_archive_is_refused(store, tmp_path):
    data = bytearray(PACK)
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1
    with pytest.raises(RequestError, match="is encrypted"):
        add(store, "pack", given_file(tmp_path, "pack.zip", bytes(data)))


def test_an_archive_has_bounds(store, tmp_path, monkeypatch):
    many = given_file(tmp_path, "many.zip", zipped(*((f"{index}", b"") for index in range(archive.MAX_ENTRIES + 1))))
    with pytest.raises(RequestError, match="more than the 1000 allowed"):
        add(store, "pack", many)
    monkeypatch.setattr(archive, "MAX_BYTES", 5000)
    with pytest.raises(RequestError, match="unpacks to 9000 bytes, more than the 5000 allowed"):
        add(store, "pack", given_file(tmp_path, "pack.zip", PACK))


def test_a_member_that_says_it_is_smaller_than_it_is_yields_no_more_than_it_says(store, tmp_path):
    """The bomb's trick: a small size in the directory, and much behind it."""
    data = bytearray(zipped(("pack/det.onnx", b"\0" * 10**6), ("pack/rec.onnx", RECOGNISER)))
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = len(DETECTOR).to_bytes(4, "little")
    with pytest.raises(RequestError, match="not a whole zip archive"):
        add(store, "pack", given_file(tmp_path, "pack.zip", bytes(data)), trust=True)
    assert list(store.folder.rglob("*.onnx")) == []


def test_two_members_of_one_name_are_refused(store, tmp_path):
    data = zipped(("a/det.onnx", DETECTOR), ("b/det.onnx", DETECTOR), ("b/rec.onnx", RECOGNISER))
    with pytest.raises(RequestError, match=r"holds 2 files det\.onnx, not one"):
        add(store, "pack", given_file(tmp_path, "pack.zip", data))


@settings(deadline=None)
@given(cut=st.integers(0, len(PACK) - 1), flip=st.integers(0, len(PACK) - 1))
def test_a_damaged_archive_is_refused_or_harmless(tmp_path_factory, cut, flip):
    """Cut off and with a bit turned anywhere: an error in one sentence, or exactly the right members."""
    folder = tmp_path_factory.mktemp("damaged")
    for data in (PACK[:cut], PACK[:flip] + bytes([PACK[flip] ^ 1]) + PACK[flip + 1 :]):
        store = Store(folder / "weights", ASSETS)
        try:
            add(store, "pack", given_file(folder, "pack.zip", data))
        except RequestError as refusal:
            assert len(str(refusal).splitlines()) == 1
        else:
            assert store.standing("pack", "again").state == "verified"
        for path in store.folder.rglob("*.onnx"):
            assert path.read_bytes() in (DETECTOR, RECOGNISER)


@pytest.mark.parametrize("name", ["archive", "fetch"])
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(f"halign_bench.assets.{name}")).failed == 0
