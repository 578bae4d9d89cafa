"""DAMON's access checks on physical addresses: one random page a region and sampling interval, by rmap.

Sources: damon_pa_prepare_access_checks, damon_pa_check_accesses, damon_folio_mkold, damon_folio_young
(mm/damon/paddr.c, ops-common.c). Clearing an accessed bit saves it in PG_young, so that reclaim still sees it. A frame
taken over by another page since it was picked reads as accessed, since that page is not idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from klrubench.engine.bits import GEN_MASK, IDLE, YOUNG
from klrubench.engine.jit import njit, njit_inline
from klrubench.engine.pointer import array_u64, table_i64
from klrubench.mm.damon.regions import END, NOTHING, NR_ACCESSES, REGION_ROWS, SAMPLED, START, random_below
from klrubench.mm.folio import is_young, page_folio, test_and_clear_young
from klrubench.mm.state import CAPACITY, FIRST_FRAME, FIRST_HUGE, VMA_LEAF_ORDER
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm

HUGE_SHIFT = 9


class Space(NamedTuple):
    """The monitored addresses of a node, in pages of 4 KiB: `base_pages` frames from `first_frame` on,
    then 2 MiB frames from `first_huge` on.
    """

    pages: int
    base_pages: int
    first_frame: int
    first_huge: int


def node_space(mm: Mm, node: int) -> Space:
    """The frames of a node: 4 KiB ones if any mapping has such pages, 2 MiB ones likewise."""
    row, orders = mm.node[node], set(mm.vma[:, VMA_LEAF_ORDER].tolist())
    base = int(row[CAPACITY]) if 0 in orders else 0
    huge = int(row[CAPACITY]) >> HUGE_SHIFT << HUGE_SHIFT if HUGE_SHIFT in orders else 0
    return Space(base + huge, base, int(row[FIRST_FRAME]), int(row[FIRST_HUGE]))


@njit_inline
def page_at(mm: Mm, address: int, base_pages: int, first_frame: int, first_huge: int) -> np.int64:
    """The folio whose frame holds an address, tail frames too (6.15 and later): -1 if that is free or the folio not on
    an LRU list (damon_get_folio).
    """
    if address < base_pages:
        page = np.int64(mm.frame_page[first_frame + address])
    else:
        page = np.int64(mm.frame_page[first_huge + ((address - base_pages) >> HUGE_SHIFT)])
    if page < 0:
        return np.int64(-1)
    head = page_folio(mm, page)
    return head if mm.folio[head] & np.uint8(GEN_MASK) else np.int64(-1)


@njit_inline
def folio_mkold(mm: Mm, page: int) -> None:
    """damon_folio_mkold: clear the accessed bit (saved in PG_young), mark the folio idle."""
    flags = mm.folio[page] | np.uint8(IDLE)
    if test_and_clear_young(mm, page):
        flags |= np.uint8(YOUNG)
    mm.folio[page] = flags


@njit_inline
def folio_young(mm: Mm, page: int) -> bool:
    """damon_folio_young: accessed since mkold, or no longer idle."""
    return is_young(mm, page) or (mm.folio[page] & np.uint8(IDLE)) == 0


@njit_inline
def check_accesses(mm: Mm, r: np.ndarray, n: int, base_pages: int, first_frame: int, first_huge: int) -> Int:
    """damon_pa_check_accesses: look at the page picked last time in each region;
    returns the largest count of any region.
    """
    most = np.int64(0)
    for k in range(n):
        address = r[SAMPLED, k]
        if address != NOTHING:
            page = page_at(mm, address, base_pages, first_frame, first_huge)
            if page >= 0 and folio_young(mm, page):
                r[NR_ACCESSES, k] += 1
        most = max(most, r[NR_ACCESSES, k])
    return most


@njit_inline
def prepare_checks(
    mm: Mm, r: np.ndarray, n: int, base_pages: int, first_frame: int, first_huge: int, rng: np.ndarray
) -> None:
    """damon_pa_prepare_access_checks: pick a random page in each region and make it old."""
    for k in range(n):
        address = r[START, k] + random_below(rng, r[END, k] - r[START, k])
        r[SAMPLED, k] = address
        page = page_at(mm, address, base_pages, first_frame, first_huge)
        if page >= 0:
            folio_mkold(mm, page)


@njit
def _sample(
    address: int,
    table: int,
    capacity: int,
    n: int,
    base_pages: int,
    first_frame: int,
    first_huge: int,
    rng_at: int,
    check: bool,
    prepare: bool,
) -> Int:
    mm = mm_at(address)
    r = table_i64(table, REGION_ROWS, capacity)
    most = np.int64(0)
    if check:
        most = check_accesses(mm, r, n, base_pages, first_frame, first_huge)
    if prepare:
        prepare_checks(mm, r, n, base_pages, first_frame, first_huge, array_u64(rng_at, 2))
    return most


class Sampling:
    """The checks of one context, by address: a call each sampling interval has to be cheap."""

    def __init__(self, mm: Mm, space: Space, table: np.ndarray, rng: np.ndarray) -> None:
        self.kept = table, rng
        self.first = mm.address, table.ctypes.data, table.shape[1]
        self.last = *space[1:], rng.ctypes.data

    def step(self, n: int, check: bool = True, prepare: bool = True) -> int:
        """Check the pages picked last time, pick new ones (either can be left out);
        returns the largest count of any region.
        """
        return _sample(*self.first, n, *self.last, check, prepare)
