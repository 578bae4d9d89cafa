"""The vector operations on 64 page bytes against the same in numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench.engine.byte_masks import LANES, change_bytes, lowest, ones, places_of
from klrubench.engine.jit import njit
from klrubench.mm.mglru.walk import first_places, places_between

BYTES, WORDS = st.integers(0, 255), st.integers(0, 2**64 - 1)
PAGES = st.lists(BYTES, min_size=LANES, max_size=3 * LANES)


@njit
def _places(array, first, mask, value):
    return places_of(array, np.uint64(first), np.uint8(mask), np.uint8(value))


@njit
def _change(array, first, places, keep, put):
    change_bytes(array, np.uint64(first), np.uint64(places), np.uint8(keep), np.uint8(put))


@njit
def _bits(word):
    return ones(np.uint64(word)), lowest(np.uint64(word))


def bits(flags: np.ndarray) -> int:
    """A word with bit k set where flag k is."""
    return sum(1 << k for k in np.flatnonzero(flags).tolist())


@settings(deadline=None)
@given(PAGES, st.data(), BYTES, BYTES)
def test_places_of(pages, data, mask, value):
    first = data.draw(st.integers(0, len(pages) - LANES))
    array = np.array(pages, np.uint8)
    value &= data.draw(st.sampled_from([mask, 255]))  # mostly one that the mask lets through
    assert _places(array, first, mask, value) == bits(array[first : first + LANES] & mask == value)


@settings(deadline=None)
@given(PAGES, st.data(), WORDS, BYTES, BYTES)
def test_change_bytes(pages, data, places, keep, put):
    first = data.draw(st.integers(0, len(pages) - LANES))
    array = np.array(pages, np.uint8)
    wanted = array.copy()
    for k in range(LANES):
        if places >> k & 1:
            wanted[first + k] = wanted[first + k] & keep | put
    _change(array, first, np.uint64(places), keep, put)
    assert array.tolist() == wanted.tolist()


@settings(deadline=None)
@given(WORDS.filter(bool), st.integers(0, LANES))
def test_bits_of_a_word(word, n):
    assert _bits(np.uint64(word)) == (word.bit_count(), (word & -word).bit_length() - 1)
    lowest_n = [k for k in range(LANES) if word >> k & 1][:n]
    if n <= word.bit_count():
        assert first_places(np.uint64(word), n) == sum(1 << k for k in lowest_n)


@settings(deadline=None)
@given(st.integers(0, LANES - 1), st.data())
def test_places_between(first, data):
    last = data.draw(st.integers(first + 1, LANES))
    assert places_between(first, last) == sum(1 << k for k in range(first, last))
