"""A video in a spool gives what the array would give, a part at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halign_bench.errors import RequestError
from halign_bench.spool import Frames, Spool

VIDEO = np.random.default_rng(0).integers(0, 256, (7, 3, 5, 3), np.uint8)


@pytest.fixture(scope="module")
def frames() -> Frames:
    spool = Spool()
    spool.append(b"something else", of="a test")
    return Frames(spool, spool.append(VIDEO.tobytes(), of="a test"), VIDEO.shape)


def test_it_has_the_form_of_the_array(frames):
    assert (len(frames), frames.shape, frames.dtype, frames.ndim) == (7, VIDEO.shape, VIDEO.dtype, 4)
    assert frames.nbytes == VIDEO.nbytes
    np.testing.assert_array_equal(np.asarray(frames), VIDEO)
    assert np.asarray(frames, dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(np.stack(list(frames)), VIDEO)


whole = st.integers(-9, 9)
index = st.one_of(
    whole, st.slices(7), st.lists(st.integers(-7, 6)), st.tuples(st.integers(-7, 6), st.slices(3), st.slices(5)),
    st.tuples(st.slices(7), st.slices(3)), st.tuples(st.lists(st.integers(0, 6), min_size=1), st.slices(3)),
)  # fmt: skip


@given(index)
def test_any_index_gives_what_the_array_gives(frames, index):
    index_of_array = np.array(index, int) if isinstance(index, list) else index
    try:
        expected = VIDEO[index_of_array]
    except IndexError:
        with pytest.raises(IndexError):
            frames[index]
        return
    np.testing.assert_array_equal(frames[index], expected)


def test_a_mask_chooses_frames(frames):
    mask = np.arange(7) % 3 == 0
    np.testing.assert_array_equal(frames[mask], VIDEO[mask])


def test_no_room_is_one_sentence(tmp_path):
    spool = Spool()
    with open("/dev/full", "wb", buffering=0) as full:
        spool._file = full
        with pytest.raises(RequestError, match=r"clip.mp4: no room for decoded frames in .*No space left.*TMPDIR"):
            spool.append(b"pictures", of="clip.mp4")
