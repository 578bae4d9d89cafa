"""Aging: the walk that reclaim makes, the new generation, and the carrying of the oldest one.

Sources: try_to_inc_max_seq, inc_max_seq, inc_min_seq, try_to_inc_min_seq, should_run_aging (mm/vmscan.c, 6.12 and
6.14+). There is no periodic aging: without pressure max_seq stands still.
Not modelled: the tie between min_seq of anon and of file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import GEN_MASK, REFERENCED, WORKINGSET
from klrubench.engine.jit import njit, njit_inline
from klrubench.mm.lru import list_add, list_del, list_head, set_generation
from klrubench.mm.mglru.mm_list import iterate_mm_list, iterate_mm_list_nowalk
from klrubench.mm.mglru.trylock import missed
from klrubench.mm.mglru.walk import DONE, FORCE, NEXT, SEQ, SLOTS, WRAPPED, YOUNG, walk_at
from klrubench.mm.state import (
    BORN_MS,
    LRU_GEN_LACKS,
    LRU_GEN_MM_WALK,
    MAX_NR_GENS,
    MAX_SEQ,
    MAX_SEQ_ADVANCES,
    MIN_NR_GENS,
    MIN_SEQ_ANON,
    MIN_SEQ_FILE,
    MM_SEQ,
    NO_MM,
    NOW_MS,
    NR_PAGES,
    PGAGING_PTE,
    PGAGING_YOUNG,
    PGCARRIED,
    TWO_STEP,
)  # fmt: skip
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Flag
    from klrubench.mm.state import Mm


@njit_inline
def generation_pages(mm: Mm, lruvec: int, seq: int, file: int) -> int:
    """Pages counted in a generation."""
    return mm.lru[lruvec, NR_PAGES + (seq % MAX_NR_GENS) * 2 + file]


@njit_inline
def inc_min_seq(mm: Mm, lruvec: int, file: int) -> None:
    """Carry what is left in the oldest generation to the next one."""
    row = mm.lru[lruvec]
    old = row[MIN_SEQ_ANON + file] % MAX_NR_GENS
    new = (old + 1) % MAX_NR_GENS
    head = list_head(mm, lruvec, old, file)
    while mm.lru_prev[head] != head:
        page = mm.lru_prev[head]
        generation = np.int64(mm.folio[page] & np.uint8(GEN_MASK)) - 1
        list_del(mm, page)
        if generation == old:
            set_generation(mm, page, lruvec, new)
            mm.folio[page] &= np.uint8(
                0xFF ^ (REFERENCED if mm.setting[TWO_STEP] else REFERENCED | WORKINGSET)
            )  # folio_inc_gen
            generation = new
            mm.stat[PGCARRIED] += 1
        list_add(mm, page, list_head(mm, lruvec, generation, file), True)
    row[MIN_SEQ_ANON + file] += 1


@njit_inline
def list_empty(mm: Mm, lruvec: int, seq: int, file: int) -> bool:
    """Whether the list of a generation holds no folio."""
    head = list_head(mm, lruvec, seq % MAX_NR_GENS, file)
    return mm.lru_next[head] == head


@njit_inline
def try_to_inc_min_seq(mm: Mm, lruvec: int) -> bool:
    """Let min_seq pass generations whose lists are empty, down to the two youngest."""
    row = mm.lru[lruvec]
    moved = False
    for file in range(2):
        while row[MIN_SEQ_ANON + file] + MIN_NR_GENS <= row[MAX_SEQ] and list_empty(
            mm, lruvec, row[MIN_SEQ_ANON + file], file
        ):
            row[MIN_SEQ_ANON + file] += 1
            moved = True
    return moved


@njit_inline
def inc_max_seq(mm: Mm, lruvec: int) -> None:
    """Make a new youngest generation."""
    row = mm.lru[lruvec]
    for file in range(2):
        if row[MAX_SEQ] - row[MIN_SEQ_ANON + file] + 1 == MAX_NR_GENS:
            inc_min_seq(mm, lruvec, file)
    row[MAX_SEQ] += 1
    row[BORN_MS + row[MAX_SEQ] % MAX_NR_GENS] = mm.setting[NOW_MS]
    mm.stat[MAX_SEQ_ADVANCES] += 1


@njit_inline
def walk_list(mm: Mm, lruvec: int, memcg: int, node: int, walk: np.ndarray) -> bool:
    """Walk the address spaces of a memcg that are left to this walker; True if it came to the end of the list."""
    nothing = np.empty(0, np.uint32)
    while True:
        space = iterate_mm_list(mm, lruvec, memcg, node, walk, False)
        if space == NO_MM:
            return walk[WRAPPED] != 0
        walk[NEXT] = 0
        if not missed(mm):
            while walk_at(mm.address, walk, space, lruvec, node, nothing) != DONE:
                pass


@njit_inline
def try_to_inc_max_seq(mm: Mm, lruvec: int, memcg: int, node: int, force_scan: bool, walk: np.ndarray) -> bool:
    """One aging pass of a lruvec: walk, then a new generation. False if a pass for this sequence was already made.

    Where lru_gen/enabled lacks 2 nothing is walked: the new generation comes all the same.
    """
    walk[:] = 0
    walk[SEQ] = mm.lru[lruvec, MAX_SEQ]
    walk[FORCE] = force_scan
    if walk[SEQ] <= mm.lru[lruvec, MM_SEQ]:
        return False
    if mm.setting[LRU_GEN_LACKS] & LRU_GEN_MM_WALK:
        ended = iterate_mm_list_nowalk(mm, lruvec, walk)
    else:
        ended = walk_list(mm, lruvec, memcg, node, walk)
    mm.stat[PGAGING_PTE] += walk[SLOTS] - walk[YOUNG]  # PTEs of other nodes included, accessed or not
    mm.stat[PGAGING_YOUNG] += walk[YOUNG]
    if ended:
        inc_max_seq(mm, lruvec)
    return ended


@njit_inline
def should_run_aging(mm: Mm, lruvec: int) -> Flag:
    """Whether reclaim is to make a new generation before it evicts (anon and file together): it must where only two are
    left; where three are, up to 6.13 if much is young or little old, from 6.14 on always.
    """
    row = mm.lru[lruvec]
    top = row[MAX_SEQ]
    low = top
    for file in range(2):
        evictable = 0
        for seq in range(row[MIN_SEQ_ANON + file], top + 1):
            evictable += generation_pages(mm, lruvec, seq, file)
        if evictable > 0:
            low = min(low, row[MIN_SEQ_ANON + file])
    if low + MIN_NR_GENS > top:
        return True
    if low + MIN_NR_GENS < top:
        return False
    if mm.setting[TWO_STEP]:
        return True
    total = young = old = np.int64(0)
    for file in range(2):
        for seq in range(row[MIN_SEQ_ANON + file], top + 1):
            pages = generation_pages(mm, lruvec, seq, file)
            total += pages
            if seq == top:
                young += pages
            elif seq + MIN_NR_GENS == top:
                old += pages
    return young * MIN_NR_GENS > total or old * (MIN_NR_GENS + 2) < total


DONE_OK, ERANGE, EEXIST = 0, -34, -17


@njit
def _run_aging(address: int, lruvec: int, memcg: int, node: int, force_scan: bool, walk: np.ndarray) -> int:
    mm = mm_at(address)
    row = mm.lru[lruvec]
    full = min(row[MIN_SEQ_ANON], row[MIN_SEQ_FILE]) + MAX_NR_GENS - 1 <= row[MAX_SEQ]
    if not mm.setting[TWO_STEP] and not force_scan and full:
        return ERANGE
    return DONE_OK if try_to_inc_max_seq(mm, lruvec, memcg, node, force_scan, walk) else EEXIST


def run_aging(mm: Mm, lruvec: int, memcg: int, node: int, force_scan: bool, walk: np.ndarray) -> int:
    """The debugfs command "+ memcg node max_seq": 0, EEXIST (a pass for this sequence was made already) or ERANGE.

    Up to 6.13 an unforced command is refused with ERANGE while four generations exist.
    """
    return int(_run_aging(mm.address, lruvec, memcg, node, force_scan, walk))
