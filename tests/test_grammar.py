"""--methods, --seeds and --nfe: what is written is what is read, and anything else is one clear sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halign_bench.errors import RequestError
from halign_bench.grammar import parse_methods, parse_nfe, parse_seeds

names = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,12}", fullmatch=True)
keys = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
values = st.text(st.characters(exclude_characters="[],", codec="utf-8"), min_size=1, max_size=8).filter(
    lambda value: value == value.strip() and value
)
parts = st.tuples(names, st.dictionaries(keys, values, max_size=3))
pipelines = st.lists(st.lists(parts, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4)
space = st.sampled_from(["", " ", "  "])


@given(pipelines, space)
def test_what_is_written_is_read(given_pipelines, gap):
    def written(part):
        name, settings = part
        inside = f"{gap},".join(f"{gap}{key}{gap}={gap}{value}" for key, value in settings.items())
        return f"{gap}{name}{gap}[{inside}{gap}]" if settings else f"{gap}{name}{gap}"

    text = ",".join("+".join(map(written, pipeline)) for pipeline in given_pipelines)
    assert parse_methods(text) == given_pipelines


def test_the_documented_example():
    assert parse_methods("diffusion-dpo[beta=500],tpo,tmm+ipa") == [
        (("diffusion-dpo", {"beta": "500"}),), (("tpo", {}),), (("tmm", {}), ("ipa", {})),
    ]  # fmt: skip
    # A sign or a comma within brackets separates nothing.
    assert parse_methods("a[lr=1e+3,b=2]+c") == [(("a", {"lr": "1e+3", "b": "2"}), ("c", {}))]


@given(st.text(st.sampled_from("ab,+[]= .-é\n"), max_size=20))
def test_anything_else_is_refused_in_one_sentence_quoting_it(text):
    try:
        read = parse_methods(text)
    except RequestError as error:
        assert " ".join(text.split()) in " ".join(str(error).split()) and str(error).isprintable()
    else:
        assert read and all(name for pipeline in read for name, _ in pipeline)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"), (" ", "is empty"), ("a,,b", "beside a comma"), ("a,", "beside a comma"),
        ("a+", "name is missing"), ("[k=1]", "name is missing"), ("a[k=1", 'without its "]"'),
        ("a]k", 'without its "["'), ("a[b[c]]", "no brackets"), ("a[k]", "not a setting"), ("a[]", "not a setting"),
        ("a[k=]", "not a setting"), ("a[=1]", "not a setting"), ("a[k=1,k=2]", "sets k twice"),
        ("a[k=1]b", "follows"), ("a b", "not a name"), ("../a", "not a name"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_own_words(text, complaint):
    with pytest.raises(RequestError, match=complaint.replace("[", r"\[").replace("]", r"\]")):
        parse_methods(text)


@given(st.integers(1, 50))
def test_a_single_number_counts_seeds(count):
    assert parse_seeds(str(count)) == list(range(count))


@given(st.lists(st.integers(0, 10**9 - 1), min_size=1, max_size=6, unique=True))
def test_a_list_names_seeds(seeds):
    assert parse_seeds(", ".join(map(str, seeds)) + ",") == seeds
    if len(seeds) > 1:
        assert parse_seeds(",".join(map(str, seeds))) == seeds


def test_a_number_that_was_meant_as_a_seed_is_no_count() -> None:
    assert len(parse_seeds("10000")) == 10_000
    with pytest.raises(RequestError, match=r"asks for 88088000 seeds.*for that seed alone write 88088000,"):
        parse_seeds("088088000")
    assert parse_seeds("88088000,") == [88_088_000]


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1,,2", "1,1", "1.5", "²", ","])
def test_wrong_seeds_are_refused(text):
    with pytest.raises(RequestError, match="--seeds"):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["0", "30,0", "", "a", "30,30"])
def test_wrong_nfe_are_refused(text):
    with pytest.raises(RequestError, match="--nfe"):
        parse_nfe(text)


def test_nfe_keep_their_order():
    assert parse_nfe("100, 30,10") == [100, 30, 10]
