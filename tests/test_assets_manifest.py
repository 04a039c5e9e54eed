"""The manifest: what is committed is sound, and what is not is told in one sentence."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halign_bench import registry
from halign_bench.assets.manifest import PUBLISHED, SCHEMA, published, read
from halign_bench.errors import RequestError

NEEDED = {
    "inception-fid", "i3d-torchscript", "i3d-videogpt", "syncnet-v2", "s3fd", "yolox-l", "dwpose-l", "rtmw-l",
    "insightface-buffalo-l", "lpips-alex", "lpips-vgg", "alexnet", "vgg16",
}  # fmt: skip


def test_every_extractor_finds_its_weights_there():
    assert set(published()) == NEEDED


def test_every_metric_that_is_named_is_one_or_is_planned():
    planned = {"ssim_hand", "psnr_hand", "lpips"}
    named = {metric for asset in published().values() for metric in asset.metrics}
    assert named <= set(registry.names("metric")) | planned


def test_hashes_agree_with_what_torch_hub_writes_into_file_names():
    stated = {a.name: re.search(r"-([0-9a-f]{8})\.pth$", a.file) for a in published().values()}
    prefixes = {name: found[1] for name, found in stated.items() if found}
    assert set(prefixes) == {"inception-fid", "alexnet", "vgg16"}
    assert all(published()[name].sha256.startswith(prefix) for name, prefix in prefixes.items())


def test_what_nobody_states_is_null_and_what_runs_code_is_pinned():
    assert [a.name for a in published().values() if a.sha256 is None] == ["i3d-videogpt"]
    assert [a.name for a in published().values() if a.executable] == ["i3d-torchscript"]


def test_restricted_licences_are_named():
    assert "non-commercial research only" in published()["insightface-buffalo-l"].licence


def test_parts_lie_in_the_folder_of_their_archive():
    buffalo, rtmw, s3fd = (published()[name] for name in ("insightface-buffalo-l", "rtmw-l", "s3fd"))
    assert [part.file for part in buffalo.parts] == ["buffalo_l/det_10g.onnx", "buffalo_l/w600k_r50.onnx"]
    assert buffalo.opens == "buffalo_l" and rtmw.opens.endswith("20231122/end2end.onnx")
    assert s3fd.opens == s3fd.parts[0].file == "sfd_face.pth"


# Reading

SHA = "0123456789abcdef" * 4
ENTRY = {
    "name": "net", "summary": "a net", "file": "net.pth", "urls": ["https://host/net.pth"], "size": 3, "sha256": SHA,
    "sha256_from": "others", "licence": "MIT", "metrics": ["fid"], "format": "state-dict",
}  # fmt: skip
ZIP = ENTRY | {"format": "archive", "file": "net.zip", "members": [{"file": "a.onnx", "size": 1, "sha256": SHA}]}


def manifest(*entries: dict) -> str:
    return json.dumps({"schema": SCHEMA, "assets": list(entries)})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (ENTRY | {"name": "Net"}, "assets.0.name"),
        (ENTRY | {"name": "net\n"}, "assets.0.name"),
        (ENTRY | {"file": "../net.pth"}, "assets.0.file"),
        (ENTRY | {"file": ".net.pth"}, "assets.0.file"),
        (ENTRY | {"file": "a/net.pth"}, "assets.0.file"),
        (ENTRY | {"urls": ["http://host/net.pth"]}, "no https address"),
        (ENTRY | {"urls": []}, "assets.0.urls"),
        (ENTRY | {"size": 0}, "assets.0.size"),
        (ENTRY | {"size": "3"}, "assets.0.size"),
        (ENTRY | {"sha256": SHA[:-1]}, "assets.0.sha256"),
        (ENTRY | {"sha256": SHA.upper()}, "assets.0.sha256"),
        (ENTRY | {"sha256": None}, "sha256 and sha256_from go together"),
        (ENTRY | {"format": "tarball"}, "assets.0.format"),
        (ENTRY | {"format": "archive"}, "an archive names its members"),
        (ENTRY | {"members": ZIP["members"]}, "an archive names its members"),
        (ENTRY | {"licence": " "}, "assets.0.licence"),
        (ENTRY | {"colour": "red"}, "assets.0.colour"),
        ({key: value for key, value in ENTRY.items() if key != "licence"}, "assets.0.licence"),
        (ZIP | {"members": [{"file": "../a.onnx", "size": 1, "sha256": SHA}]}, "assets.0.members.0.file"),
        (ZIP | {"members": ZIP["members"] * 2}, "names the member a.onnx twice"),
        (ZIP | {"members": [{"file": "a.onnx", "size": 1, "sha256": None}]}, "has one for each member"),
    ],
)
def test_a_wrong_entry_is_told_with_its_place(entry, words):
    with pytest.raises(RequestError, match=re.escape(words)):
        read(manifest(entry), "mine.json")


def test_names_and_files_are_distinct():
    with pytest.raises(RequestError, match="net stands there twice"):
        read(manifest(ENTRY, ENTRY))
    with pytest.raises(RequestError, match=r"two assets would lie under net\.pth"):
        read(manifest(ENTRY, ENTRY | {"name": "other", "file": "NET.pth"}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": "other/1", "assets": []}', "[" * 9999])
def test_what_is_no_manifest_is_told(text):
    with pytest.raises(RequestError, match=r"^mine\.json: "):
        read(text, "mine.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(field=st.sampled_from(sorted(ZIP)) | st.text(), value=json_values)
def test_whatever_stands_in_a_field_is_read_or_refused_in_one_sentence(field, value):
    try:
        (asset,) = read(manifest(ZIP | {field: value})).values()
    except RequestError as refusal:
        assert len(str(refusal).splitlines()) == 1
    else:
        assert asset.model_dump(mode="json") == ZIP | {field: value}


@settings(deadline=None)
@given(json_values)
def test_any_json_is_read_or_refused(value):
    try:
        assert read(json.dumps(value)) is not None
    except RequestError as refusal:
        assert str(refusal)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text):
    with pytest.raises(RequestError):
        read(text)


def test_the_committed_manifest_is_written_as_it_is_read():
    document = json.loads(PUBLISHED.read_text())
    assert [asset.model_dump(mode="json", exclude_unset=True) for asset in published().values()] == document["assets"]
