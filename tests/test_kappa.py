"""κ of two and of several annotators, against the papers' own numbers and against independent implementations."""

from __future__ import annotations

import doctest
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from halign_bench.prefs import kappa
from halign_bench.prefs.kappa import cohen_kappa, fleiss_kappa

LABELS = ("left", "right", "tie")
one = st.sampled_from(LABELS)

# Fleiss 1971, table 1: 30 patients, each put by 6 psychiatrists into one of 5 classes of diagnosis.
FLEISS_1971 = [
    (0, 0, 0, 6, 0), (0, 3, 0, 0, 3), (0, 1, 4, 0, 1), (0, 0, 0, 0, 6), (0, 3, 0, 3, 0), (2, 0, 4, 0, 0),
    (0, 0, 4, 0, 2), (2, 0, 3, 1, 0), (2, 0, 0, 4, 0), (0, 0, 0, 0, 6), (1, 0, 0, 5, 0), (1, 1, 0, 4, 0),
    (0, 3, 3, 0, 0), (1, 0, 0, 5, 0), (0, 2, 0, 3, 1), (0, 0, 5, 0, 1), (3, 0, 0, 1, 2), (5, 1, 0, 0, 0),
    (0, 2, 0, 4, 0), (1, 0, 2, 0, 3), (0, 0, 0, 0, 6), (0, 1, 0, 5, 0), (0, 2, 0, 1, 3), (2, 0, 0, 4, 0),
    (1, 0, 0, 4, 1), (0, 5, 0, 1, 0), (4, 0, 0, 0, 2), (0, 2, 0, 4, 0), (1, 0, 5, 0, 0), (0, 0, 0, 0, 6),
]  # fmt: skip


def test_doctests():
    assert doctest.testmod(kappa).failed == 0


def test_fleiss_paper():
    items = [[label for label, count in enumerate(row) for _ in range(count)] for row in FLEISS_1971]
    found = fleiss_kappa(items)
    assert (round(found.value, 3), round(found.observed, 3), found.items) == (0.430, 0.556, 30)


def test_cohen_by_hand():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = 0.7, p_e = 0.5·0.6 + 0.5·0.4 = 0.5.
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = cohen_kappa(first, second)
    assert found.value == pytest.approx(0.4) and found.observed == pytest.approx(0.7) and found.items == 50


@settings(deadline=None)  # its first example imports scikit-learn
@given(st.lists(st.tuples(one, one), min_size=2, max_size=40))
def test_cohen_is_scikit_learns(pairs):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn, which it is compared with, is not installed")
    first, second = zip(*pairs, strict=True)
    found = cohen_kappa(first, second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where κ is 0/0, which ours says in words
        theirs = metrics.cohen_kappa_score(first, second)
    if found.value is None:
        assert np.isnan(theirs) and "same label throughout" in found.reason
    else:
        assert found.value == pytest.approx(theirs, abs=1e-12) and found.reason is None


@settings(deadline=None)
@given(st.integers(2, 6).flatmap(lambda m: st.lists(st.lists(one, min_size=m, max_size=m), min_size=2, max_size=25)))
def test_fleiss_is_statsmodels(items):
    theirs = pytest.importorskip("statsmodels.stats.inter_rater", reason="statsmodels is not installed")
    found = fleiss_kappa(items)
    table = np.array([[labels.count(label) for label in LABELS] for labels in items])
    if found.value is None:
        assert len({label for labels in items for label in labels}) == 1
    else:
        assert found.value == pytest.approx(theirs.fleiss_kappa(table, method="fleiss"), abs=1e-9)


@given(st.lists(st.tuples(one, one), min_size=2, max_size=30), st.randoms())
def test_the_order_of_items_and_annotators_does_not_matter(pairs, random):
    found = cohen_kappa(*zip(*pairs, strict=True))
    assume(found.value is not None)
    shuffled = [pair[::-1] for pair in random.sample(pairs, len(pairs))]
    assert cohen_kappa(*zip(*shuffled, strict=True)).value == pytest.approx(found.value)
    assert -1 <= found.value <= 1 and (found.value == 1) == all(a == b for a, b in pairs)


def test_what_cannot_be_computed_has_a_reason_and_is_not_0():
    assert cohen_kappa([], []).reason == "no pairs to compare; at least 2 are needed"
    alone = kappa.Kappa(None, 1.0, 1, "1 pair to compare; at least 2 are needed")
    assert cohen_kappa(["left"], ["left"]) == alone
    assert fleiss_kappa([]).value is None and fleiss_kappa([["left", "left"]]).value is None
    alike = fleiss_kappa([["tie"] * 3] * 5)
    assert alike.value is None and alike.observed == 1.0 and "same label throughout" in alike.reason
    with pytest.raises(ValueError, match="one an item expected"):
        cohen_kappa(["left"], [])
    with pytest.raises(ValueError, match="same number of labels"):
        fleiss_kappa([["left", "left"], ["left"]])
    with pytest.raises(ValueError, match="at least 2"):
        fleiss_kappa([["left"], ["left"]])
