"""LRU lists: where a folio lands, isolation, and the generation a page-table access gives it.

Sources: lru_gen_add_folio / lru_gen_folio_seq (include/linux/mm_inline.h), folio_update_gen and folio_inc_gen
(mm/vmscan.c), Linux 6.12 and 6.14+. Where lru_gen/enabled lacks 1 the lists are the classic two:
generation 0 stands for inactive, 1 for active.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import ACTIVE, GEN_MASK, NODE_MASK, REFERENCED, WORKINGSET
from klrubench.engine.byte_masks import change_bytes, lowest, ones, places_of
from klrubench.engine.jit import njit_inline
from klrubench.engine.prefetch import prefetch
from klrubench.mm.folio import folio_nr_pages, folio_ptes, vma_of
from klrubench.mm.state import (
    LARGE_FOLIOS,
    LRU_GEN_CORE,
    LRU_GEN_LACKS,
    MAX_NR_GENS,
    MAX_SEQ,
    MIN_SEQ_ANON,
    NR_PAGES,
    TWO_STEP,
    VMA_FILE,
    VMA_MEMCG,
)  # fmt: skip

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm


@njit_inline
def folio_lruvec(mm: Mm, page: int) -> Int:
    """Row of `lru` of the folio's (memcg, node)."""
    return mm.vma[vma_of(mm, page), VMA_MEMCG] * len(mm.node) + np.int64(mm.pte[page] & np.uint8(NODE_MASK))


@njit_inline
def prefetch_folio(mm: Mm, page: np.uint64) -> None:
    """Prefetch what isolating and moving a folio reads; any number may be given."""
    prefetch(mm.lru_prev, page)
    prefetch(mm.lru_next, page)
    prefetch(mm.folio, page)
    prefetch(mm.pte, page)
    prefetch(mm.pfn, page)


@njit_inline
def list_head(mm: Mm, lruvec: int, generation: int, file: int) -> int:
    """Index of the head of a list in the link arrays."""
    return len(mm.pte) + (lruvec * MAX_NR_GENS + generation) * 2 + file


@njit_inline
def list_del(mm: Mm, page: int) -> None:
    """Unlink a folio."""
    before, after = mm.lru_prev[page], mm.lru_next[page]
    mm.lru_next[before], mm.lru_prev[after] = after, before
    mm.lru_next[page] = mm.lru_prev[page] = page


@njit_inline
def list_add(mm: Mm, page: int, head: int, tail: int) -> None:
    """Link a folio at the head (young end) or the tail (evicted next) of a list."""
    before = mm.lru_prev[head] if tail else head
    after = mm.lru_next[before]
    mm.lru_next[before] = mm.lru_prev[after] = page
    mm.lru_prev[page], mm.lru_next[page] = before, after


@njit_inline
def folio_seq(mm: Mm, lruvec: int, file: int, flags: np.uint8, rotated: bool) -> int:
    """The generation (sequence number) in which a folio lands when it is added to a lruvec."""
    top, low = mm.lru[lruvec, MAX_SEQ], mm.lru[lruvec, MIN_SEQ_ANON + file]
    active, workingset = flags & np.uint8(ACTIVE), flags & np.uint8(WORKINGSET)
    if mm.setting[TWO_STEP]:
        if active:
            return top if workingset else top - 1
        if not file:
            return top - 1
        if rotated:
            return low
        return max(low, top - 2 if workingset else top - 3)
    if active:
        return top
    if not file:
        return top - 1
    return low if rotated or low + 2 >= top else low + 1


INACTIVE_LIST, ACTIVE_LIST = 0, 1


@njit_inline
def is_classic(mm: Mm) -> bool:
    """Whether the kernel runs with the classic two lists."""
    return mm.setting[LRU_GEN_LACKS] & LRU_GEN_CORE != 0


@njit_inline
def landing_list(mm: Mm, lruvec: int, file: int, flags: np.uint8, rotated: bool) -> Int:
    """The list on which a folio lands: a generation, or the classic active or inactive list."""
    if is_classic(mm):
        return np.int64(ACTIVE_LIST if flags & np.uint8(ACTIVE) else INACTIVE_LIST)
    return folio_seq(mm, lruvec, file, flags, rotated) % MAX_NR_GENS


@njit_inline
def lru_add(mm: Mm, page: int, rotated: bool) -> None:
    """Put an isolated folio on the lists of its lruvec."""
    lruvec, file = folio_lruvec(mm, page), mm.vma[vma_of(mm, page), VMA_FILE]
    flags = mm.folio[page]
    generation = landing_list(mm, lruvec, file, flags, rotated)
    mm.folio[page] = (flags & np.uint8(0xFF ^ (GEN_MASK | ACTIVE))) | np.uint8(generation + 1)
    mm.lru[lruvec, NR_PAGES + generation * 2 + file] += folio_nr_pages(mm, page)
    list_add(mm, page, list_head(mm, lruvec, generation, file), rotated)


@njit_inline
def lru_isolate(mm: Mm, page: int, reclaiming: bool) -> bool:
    """Take a folio off its list; outside reclaim one of the two youngest generations leaves as active
    (classic: the active list always).
    """
    flags = mm.folio[page]
    generation = np.int64(flags & np.uint8(GEN_MASK)) - 1
    if generation < 0:
        return False
    lruvec, file = folio_lruvec(mm, page), mm.vma[vma_of(mm, page), VMA_FILE]
    mm.lru[lruvec, NR_PAGES + generation * 2 + file] -= folio_nr_pages(mm, page)
    list_del(mm, page)
    flags &= np.uint8(0xFF ^ GEN_MASK)
    top = mm.lru[lruvec, MAX_SEQ]
    if is_classic(mm):
        flags |= np.uint8(ACTIVE if generation == ACTIVE_LIST else 0)
    elif not reclaiming and (generation == top % MAX_NR_GENS or generation == (top - 1) % MAX_NR_GENS):
        flags |= np.uint8(ACTIVE)
    mm.folio[page] = flags
    return True


@njit_inline
def set_generation(mm: Mm, page: int, lruvec: int, generation: int) -> None:
    """Change the generation in the flags (the list follows lazily, at eviction); counters follow at once."""
    flags = mm.folio[page]
    old = np.int64(flags & np.uint8(GEN_MASK)) - 1
    file = mm.vma[vma_of(mm, page), VMA_FILE]
    n = folio_nr_pages(mm, page)
    mm.lru[lruvec, NR_PAGES + old * 2 + file] -= n
    mm.lru[lruvec, NR_PAGES + generation * 2 + file] += n
    mm.folio[page] = (flags & np.uint8(0xFF ^ GEN_MASK)) | np.uint8(generation + 1)


@njit_inline
def folio_update_gen(mm: Mm, page: int, lruvec: int) -> int:
    """What a page-table access does to the generation of a folio; returns 1 if that changed.

    Up to 6.13 the first observation moves the folio to max_seq. From 6.14 the first only sets PG_referenced, the second
    sets PG_workingset and moves it. A folio that reclaim has isolated (its own other PTEs are met by look-around) is
    marked up to 6.13, and left alone from 6.14 on.
    """
    flags = mm.folio[page]
    if not flags & np.uint8(GEN_MASK):
        if not mm.setting[TWO_STEP]:
            mm.folio[page] = flags | np.uint8(REFERENCED)
        return 0
    if mm.setting[TWO_STEP]:
        if not flags & np.uint8(REFERENCED | WORKINGSET):
            mm.folio[page] = flags | np.uint8(REFERENCED)
            return 0
        mm.folio[page] = (flags & np.uint8(0xFF ^ REFERENCED)) | np.uint8(WORKINGSET)
    else:
        mm.folio[page] = flags & np.uint8(0xFF ^ (REFERENCED | WORKINGSET))
    generation = mm.lru[lruvec, MAX_SEQ] % MAX_NR_GENS
    if np.int64(flags & np.uint8(GEN_MASK)) - 1 == generation:
        return 0
    set_generation(mm, page, lruvec, generation)
    return 1


@njit_inline
def update_generations(mm: Mm, first: np.uint64, places: np.uint64, lruvec: int, file: int) -> Int:
    """`folio_update_gen` of the 4 KiB folios `first` + each set bit of `places`, all on a list and of one VMA; returns
    how many changed.
    """
    folio, row = mm.folio, mm.lru[lruvec]
    generation = row[MAX_SEQ] % MAX_NR_GENS
    fresh, flags = np.uint8(generation + 1), REFERENCED | WORKINGSET
    if mm.setting[TWO_STEP]:
        once = places & places_of(folio, first, np.uint8(flags), np.uint8(0))
        change_bytes(folio, first, once, np.uint8(0xFF), np.uint8(REFERENCED))
        places ^= once
        fresh |= np.uint8(WORKINGSET)
    changed = np.int64(0)
    for old in range(MAX_NR_GENS):
        if old != generation:
            leaving = ones(places & places_of(folio, first, np.uint8(GEN_MASK), np.uint8(old + 1)))
            row[NR_PAGES + old * 2 + file] -= leaving
            changed += leaving
    row[NR_PAGES + generation * 2 + file] += changed
    change_bytes(folio, first, places, np.uint8(0xFF ^ (flags | GEN_MASK)), fresh)
    return changed


@njit_inline
def update_folios(mm: Mm, first: np.uint64, places: np.uint64, lruvec: int, last: int) -> tuple[Int, Int]:
    """`folio_update_gen` of the folios that the PTEs `first` + each set bit belong to, once for a run of PTEs of one
    folio (the walk's `last`); returns (folios that changed, the last one met). `last`: the one met before, or -1.
    """
    changed, ptes = np.int64(0), folio_ptes(mm, np.int64(first))
    while places:
        head = np.int64(first + lowest(places)) & -ptes
        places &= places - np.uint64(1)
        if head != last:
            changed += folio_update_gen(mm, head, lruvec)
            last = head
    return changed, np.int64(last)


@njit_inline
def places_on_lru(mm: Mm, first: np.uint64, places: np.uint64) -> np.uint64:
    """Those of the PTEs `first` + each set bit whose folio is on a list; all of one VMA."""
    if not mm.setting[LARGE_FOLIOS]:
        return places & ~places_of(mm.folio, first, np.uint8(GEN_MASK), np.uint8(0))
    listed, ptes, left = np.uint64(0), folio_ptes(mm, np.int64(first)), places
    while left:
        place = lowest(left)
        left &= left - np.uint64(1)
        if mm.folio[np.int64(first + place) & -ptes] & np.uint8(GEN_MASK):
            listed |= np.uint64(1) << place
    return listed
