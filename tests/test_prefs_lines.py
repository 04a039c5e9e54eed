"""Lines of preference files: what is read, and one sentence with line, field and advice for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefs_files import pair

from halign_bench.errors import RequestError
from halign_bench.prefs.lines import Pair, Single, parse, parse_line

FILE = Path("labels.jsonl")


def parsed(*lines) -> list:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return parse(FILE, text.encode())


def refused(*lines) -> str:
    with pytest.raises(RequestError) as caught:
        parsed(*lines)
    return str(caught.value)


def test_pairs_and_single_videos_with_their_line_numbers():
    single = {"condition": {"reference": "anna.png", "audio": None}, "video": 2 * "a", "labels": {"overall": "good"}}
    found = parsed(pair(), "", single, "  ")
    assert [number for number, _ in found] == [1, 3]
    assert isinstance(found[0][1], Pair) and found[0][1].videos == {"left": "a.mp4", "right": "b.mp4"}
    assert isinstance(found[1][1], Single) and found[1][1].condition.audio is None
    assert parse(FILE, b"\xef\xbb\xbf" + json.dumps(pair()).encode())[0][1] == found[0][1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1, line: is no JSON (column 2: Expecting property name enclosed in double quotes); write one"),
        ("[1]", "line 1, line: is no JSON object; write one object a line"),
        ('{"clip": "a", "clip": "b"}', "line 1, clip: stands twice; keep one"),
        ("[" * 100_000, "line 1, line: is nested too deep"),
        (pair(lables={}), "lables: is no field here, which are clip, condition, session, annotator, left, right, "
                          "labels; did you mean labels?"),
        (pair(labels={}), "labels: is empty; give at least one criterion"),
        (pair(labels={"motion": "lft"}), "labels.motion: \"lft\" is no label; write 'left', 'right' or 'tie'"),
        (pair(labels={"Motion": "left"}), 'labels: "Motion" is no name of a criterion'),
        (pair(labels={"a+b": "left"}), 'labels: "a+b" is no name of a criterion'),
        (pair(labels="left"), 'labels: "left" cannot be used; input should be a valid dictionary'),
        (pair(left=True), "left: true names no video; write a file's name, or a candidate's number"),
        (pair(left=-1), "left: -1 names no video"),
        (pair(left=1.5), "left: 1.5 names no video"),
        (pair(left=""), 'left: "" names no video'),
        (pair(left=0), "left: 0 is a candidate's number, and no session is named"),
        (pair(left=None), "left: is missing; add it"),
        (pair(right="a.mp4"), "right: is the same video as left (a.mp4); a pair has two"),
        (pair(clip=None), "clip: is missing; name the clip of the track, or give a condition"),
        (pair(clip=""), "clip: is empty; name something"),
        (pair(clip=3), "clip: 3 cannot be used; input should be a valid string"),
        (pair(condition={"reference": "a.png"}), "condition: stands beside clip; leave one of them out"),
        (pair(clip=None, condition={"refrence": "a.png"}), "condition.refrence: is no field here, which are reference, "
                                                           "audio, skeleton, identity; did you mean reference?"),
        (pair(video="c.mp4"), "video: stands beside left or right; give a pair"),
        ({"clip": "a", "labels": {"motion": "good"}}, "left: is missing; name the videos of a pair as left and right"),
        ({"clip": "a", "video": "a.mp4", "labels": {"motion": "left"}}, "labels.motion: \"left\" is no label; write "
                                                                       "'good' or 'bad'"),
        ({"session": ".", "video": 1, "labels": {"motion": "good"}}, "clip: is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_line_field_and_advice(line, said):
    message = refused(line)
    assert said in message and message.startswith("labels.jsonl") and "of the file was used" in message


def test_bytes_that_are_no_utf8_are_a_problem_of_their_line():
    with pytest.raises(RequestError, match=r"line 2, line: is not UTF-8 \(byte 2\)"):
        parse(FILE, json.dumps(pair()).encode() + b"\n\"\xff\"\n")


def test_several_problems_are_told_together_and_no_more_than_ten():
    message = refused(*[pair(labels={"motion": f"side{number}"}) if number % 2 else pair() for number in range(8)])
    assert message.splitlines()[0] == "labels.jsonl: 4 problems, and nothing of the file was used"
    assert [line.split(",")[0] for line in message.splitlines()[1:]] == ["  line 2", "  line 4", "  line 6", "  line 8"]
    many = refused(*[pair(labels={"motion": f"side{number}"}) for number in range(30)]).splitlines()
    assert len(many) == 12 and many[-1] == "  and 20 more"


def test_what_is_wrong_with_every_line_is_told_once():
    """As with a column too many in a table that a tool has exported."""
    lead_time = "lead_time: is no field here"
    assert refused(*[pair(lead_time=1)] * 2).startswith(f"labels.jsonl, lines 1 and 2, {lead_time}")
    message = refused(pair(), *[pair(lead_time=1)] * 500, pair(labels={})).splitlines()
    assert message[0] == "labels.jsonl: 501 problems, and nothing of the file was used"
    assert message[1].startswith(f"  lines 2, 3, 4, 5, 6 and 495 more, {lead_time}") and len(message) == 3


def test_control_characters_in_a_file_do_not_reach_the_terminal():
    assert "\x1b" not in refused(pair(**{"\x1b[2J": 1})) and "\x1b" not in refused(pair(labels={"motion": "\x1b[2J"}))


def test_a_file_without_a_line_and_one_of_another_kind_are_refused():
    assert "has no line with a label" in refused("", "  ")
    for name in ("labels.tsv", "labels.json", "labels"):
        with pytest.raises(RequestError, match=r"neither \.jsonl nor \.csv nor \.parquet; docs/preferences\.md"):
            parse(Path(name), b"")


def test_parquet_holds_the_same_with_its_rows_counted(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = [pair(), pair(annotator="kim", labels={"motion": "tie", "fidelity": "right"})]
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.Table.from_pylist(lines), path)
    pq.write_table(pa.Table.from_pylist(lines[1:] + lines[:1]), path)
    assert parse(path, path.read_bytes()) == [(n, line) for n, (_, line) in enumerate(reversed(parsed(*lines)), 1)]
    pq.write_table(pa.Table.from_pylist([*lines, pair(left="")]), path)
    with pytest.raises(RequestError, match="row 3, left"):
        parse(path, path.read_bytes())
    flat = {"clip": "tiny/prompts/000", "left": "a.mp4", "right": "b.mp4", "labels.motion": "left"}  # as of pandas
    pq.write_table(pa.Table.from_pylist([{**flat, "condition.reference": None}]), path)
    assert parse(path, path.read_bytes()) == parsed(pair())
    with pytest.raises(RequestError, match="is no parquet file that can be read"):
        parse(path, path.read_bytes()[:-10])


CSV = Path("labels.csv")


def test_a_csv_has_a_column_for_each_criterion():
    text = (
        "\ufeffclip,left,right,labels.motion,labels.fidelity,annotator,session,condition.reference\r\n"
        "tiny/prompts/000,a.mp4,b.mp4,left,,kim,,\r\n"
        '"tiny/\n001",0,12,tie,right,,session,\r\n'
        "\r\n"
        ",a.mp4,b.mp4,left,,,,anna.png\r\n"
    )
    found = dict(parse(CSV, text.encode()))
    expected = {
        2: pair(annotator="kim"),
        3: pair("tiny/\n001", 0, 12, labels={"motion": "tie", "fidelity": "right"}, session="session"),
        6: pair(None, condition={"reference": "anna.png"}),
    }
    assert found == {number: parse_line(document)[0] for number, document in expected.items()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clip,left,right,labels.motion\na,b,c,lft\n", "labels.csv, line 2, labels.motion: \"lft\" is no label"),
        ("clip,left,right,labels.motion\na,b,c,left,d\n", "line 2, line: has 5 cells and the header 4"),
        ("clip,left,right,labels.motion\na,b,0,left\n", "line 2, right: 0 is a candidate's number, and no session"),
        ("clip,left,right,labels.motion\na,b,c,\n", "line 2, labels: is missing; add it"),
        ("clip,left,right,labels,labels.motion\na,b,c,left,left\n", "labels.motion: stands beside a column labels"),
        ("clip,clip\na,b\n", "the column 'clip' stands twice"),
        ("clip;left;right\na;b;c\n", "line 2, left: is missing"),
        ('clip,left\n"a,b\n', "labels.csv, line 2: is no CSV"),
        ("clip,left,right,labels.motion\n", "has no line with a label"),
        ("\udcff", "is not UTF-8 (byte 1)"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_csv_is_said(text, said):
    with pytest.raises(RequestError) as caught:
        parse(CSV, text.encode("utf-8", "surrogateescape"))
    assert said in str(caught.value)


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6,
)  # fmt: skip
FIELDS = ("clip", "condition", "session", "annotator", "left", "right", "video", "labels")
criterion = st.from_regex(r"\A[a-z][a-z0-9_-]{0,10}\Z")
name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), json_value))
def test_any_object_is_a_line_or_has_problems_and_never_both(document):
    line, problems = parse_line(document)
    assert (line is None) == bool(problems)
    assert all(field and text for field, text in problems)
    if line is not None:
        assert parse_line(json.loads(line.model_dump_json())) == (line, [])


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from((FILE, CSV)))
def test_any_bytes_are_lines_or_one_error(content, path):
    try:
        assert parse(path, content)
    except RequestError as problem:
        assert str(problem).startswith(str(path))


@settings(deadline=None)
@given(
    name, st.lists(name, min_size=2, max_size=2, unique=True), st.none() | name,
    st.dictionaries(criterion, st.sampled_from(["left", "right", "tie"]), min_size=1, max_size=4),
)  # fmt: skip
def test_every_pair_that_the_format_allows_is_read_as_written(clip, videos, annotator, labels):
    written = {"clip": clip, "left": videos[0], "right": videos[1], "labels": labels, "annotator": annotator}
    ((number, line),) = parsed(written)
    assert (number, line.model_dump(exclude_none=True)) == (1, {k: v for k, v in written.items() if v is not None})
