"""Fill kernels of the generated workloads: ranges of pages by weight, sweeps, records by age.

Each writes touches `first`, `first + 1`, ... into a u32 array, page number and write bit, as a pure function of the
number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from klrubench.engine.alias_table import pick
from klrubench.engine.bits import WRITE_BIT
from klrubench.engine.jit import njit
from klrubench.engine.random import GOLDEN, below, is_write, mix64, second_word

__all__ = [
    "Ranges",
    "fill_range",
    "fill_ranges",
    "fill_sweep",
    "fill_two_ranges",
    "newest_records",
    "records_to_pages",
    "sweep_ranges",
]

BLOCK = 512
_WRITE, _READ, _NUMBER = np.uint32(WRITE_BIT), np.uint32(0), np.uint32(WRITE_BIT - 1)
_LOW32 = np.uint64((1 << 32) - 1)
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_PAGE_SHIFT = np.uint64(12)


class Ranges(NamedTuple):
    """Ranges of pages that are drawn by weight, each touched uniformly or swept, as the kernels take them.

    Attributes:
        table: alias table over the ranges, u64[K].
        first, pages: each range's first page and number of pages, u64[K].
        cut: each range's chance, in 2^-20, of a write, u64[K].
        step: pages that a sweep moves on a touch of the stream, f64[K]; 0: uniformly at random.
    """

    table: np.ndarray
    first: np.ndarray
    pages: np.ndarray
    cut: np.ndarray
    step: np.ndarray


@njit
def _touch(start: np.uint64, pages: np.uint64, second: np.uint64, cut: np.uint64) -> np.uint32:
    """One of the pages `start` .. `start + pages - 1`, all alike, and the write bit."""
    return np.uint32(start + below(second, pages)) | (_WRITE if is_write(second, cut) else _READ)


@njit
def fill_range(out: np.ndarray, first: np.uint64, key: np.uint64, ranges: Ranges) -> None:
    """The pages of the first range, all alike."""
    start, pages, cut = ranges.first[0], ranges.pages[0], ranges.cut[0]
    base = key + first * GOLDEN
    for i in range(out.size):
        out[i] = _touch(start, pages, second_word(mix64(base + np.uint64(i) * GOLDEN)), cut)


@njit
def fill_two_ranges(out: np.ndarray, first: np.uint64, key: np.uint64, ranges: Ranges, share: np.uint64) -> None:
    """The pages of the first range with chance `share` / 2^32, else those of the second."""
    start_0, pages_0, cut_0 = ranges.first[0], ranges.pages[0], ranges.cut[0]
    start_1, pages_1, cut_1 = ranges.first[1], ranges.pages[1], ranges.cut[1]
    base = key + first * GOLDEN
    for i in range(out.size):
        word = mix64(base + np.uint64(i) * GOLDEN)
        hot = (word & _LOW32) < share
        start, pages, cut = (start_0, pages_0, cut_0) if hot else (start_1, pages_1, cut_1)
        out[i] = _touch(start, pages, second_word(word), cut)


@njit
def fill_ranges(out: np.ndarray, first: np.uint64, key: np.uint64, ranges: Ranges, shift: np.uint64) -> None:
    """A range by weight, then one of its pages, all alike."""
    drawn = np.empty(BLOCK, np.uint64)
    start, pages, cut = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
    for begin in range(0, out.size, BLOCK):
        block = out[begin : begin + BLOCK]
        base = key + (first + np.uint64(begin)) * GOLDEN
        for i in range(block.size):
            drawn[i] = mix64(base + np.uint64(i) * GOLDEN)
        for i in range(block.size):
            chosen = pick(drawn[i], ranges.table, shift)
            start[i], pages[i], cut[i] = ranges.first[chosen], ranges.pages[chosen], ranges.cut[chosen]
        for i in range(block.size):
            block[i] = _touch(start[i], pages[i], second_word(drawn[i]), cut[i])


@njit
def sweep_ranges(
    out: np.ndarray, first: np.uint64, key: np.uint64, ranges: Ranges, shift: np.uint64, origin: np.uint64
) -> None:
    """Replace the touches of swept ranges: `step` pages on for each touch of the stream since touch `origin`."""
    base = key + first * GOLDEN
    for i in range(out.size):
        chosen = pick(mix64(base + np.uint64(i) * GOLDEN), ranges.table, shift)
        if ranges.step[chosen] > 0.0:
            moved = np.uint64(np.float64(first + np.uint64(i) - origin) * ranges.step[chosen])
            page = ranges.first[chosen] + moved % ranges.pages[chosen]
            out[i] = np.uint32(page) | (out[i] & _WRITE)


@njit
def fill_sweep(out: np.ndarray, first: np.uint64, origin: np.uint64, pages: np.uint64, lines: np.uint64) -> None:
    """Every page in turn, `lines` touches each, from page `origin`, over and over."""
    page, line = (origin + first // lines) % pages, first % lines
    for i in range(out.size):
        out[i] = np.uint32(page)
        line += _ONE
        if line == lines:
            line = _ZERO
            page += _ONE
            if page == pages:
                page = _ZERO


@njit
def newest_records(
    out: np.ndarray,
    ages: np.ndarray,
    first: np.uint64,
    key: np.uint64,
    inserts: float,
    records: np.uint64,
    fold: np.uint64,
    cut: np.uint64,
) -> None:
    """Ages (0: the newest record) to records of a ring of which `inserts` a touch are replaced, oldest first.

    A write goes to the newest record, a read to the record of that age; each is then folded (record >> fold).
    """
    base = key + first * GOLDEN
    begun = np.uint64(np.float64(first) * inserts)
    rounds = begun - begun % records  # subtracting is cheaper than a division for each touch
    for i in range(out.size):
        write = is_write(mix64(base + np.uint64(i) * GOLDEN), cut)
        newest = np.uint64(np.float64(first + np.uint64(i)) * inserts) - rounds
        while newest >= records:
            newest -= records
        age = _ZERO if write else ages[i]
        record = newest - age if newest >= age else newest + records - age
        out[i] = np.uint32(record >> fold) | (_WRITE if write else _READ)


@njit
def records_to_pages(ids: np.ndarray, record_bytes: np.uint64) -> None:
    """Numbers of records that lie end to end, to the 4 KiB pages on which they begin."""
    for i in range(ids.size):
        page = (np.uint64(ids[i] & _NUMBER) * record_bytes) >> _PAGE_SHIFT
        ids[i] = np.uint32(page) | (ids[i] & _WRITE)
