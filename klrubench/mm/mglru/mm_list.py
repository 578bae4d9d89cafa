"""The list of address spaces of a memcg, and how walkers share it.

Sources: lru_gen_add_mm, lru_gen_del_mm, iterate_mm_list, get_next_mm, iterate_mm_list_nowalk (mm/vmscan.c). Each lruvec
has a cursor (head), a marker (tail: the first address space that was added since the last pass, or the list's own head
for none) and the sequence number of its last pass. Walkers that come while another is under way take the next address
spaces: they divide the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.jit import njit, njit_inline
from klrubench.mm.mglru.bloom import bloom_reset
from klrubench.mm.mglru.effects import AGING, BLOOM, STICKY_FORCE
from klrubench.mm.mglru.walk import FORCE, OWN_FILTER_SEQ, REPAIRS, SEQ, WRAPPED
from klrubench.mm.state import (
    MM_HEAD,
    MM_MEMCG,
    MM_NEXT,
    MM_PREV,
    MM_RAN,
    MM_SEQ,
    MM_TAIL,
    NO_MM,
    OWN_HEAD,
    OWN_SEQ,
    OWN_TAIL,
)
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm


@njit_inline
def list_of(mm: Mm, memcg: int) -> int:
    """Row of `mms` that is the head of a memcg's list."""
    return len(mm.mms) - len(mm.lru) // len(mm.node) + memcg


@njit_inline
def takes(mm: Mm, space: int, node: int, walk: np.ndarray) -> bool:
    """get_next_mm: whether an address space is walked; one that did not run since the last walk is skipped,
    unless forced.
    """
    if not walk[FORCE] and not mm.mms[space, MM_RAN + node]:
        return False
    mm.mms[space, MM_RAN + node] = 0
    return True


@njit_inline
def iterate_mm_list(mm: Mm, lruvec: int, memcg: int, node: int, walk: np.ndarray, callback: bool) -> Int:
    """The next address space for a walker, or NO_MM when there is none;
    walk[WRAPPED] says whether this call ended the pass.

    A walker at or behind the lruvec's sequence number has nothing to do, unless it comes with a callback (patch 1/2
    takes that check away). An address space added since the last pass is walked by force, and force_scan stays set for
    those behind it.
    """
    row, fifo = mm.lru[lruvec], list_of(mm, memcg)
    own = callback and walk[REPAIRS] & AGING != 0
    seq, head, tail = (OWN_SEQ, OWN_HEAD, OWN_TAIL) if own else (MM_SEQ, MM_HEAD, MM_TAIL)
    walk[WRAPPED] = 0
    if not callback and walk[SEQ] <= row[seq]:
        return np.int64(NO_MM)
    if row[head] == NO_MM:
        row[head] = fifo
    first, taken = row[head] == fifo, False
    while not taken:
        row[head] = mm.mms[row[head], MM_NEXT]
        if row[head] == fifo:
            row[seq] += 1
            if callback and not own:
                row[OWN_SEQ] += 1
            walk[WRAPPED] = 1
            return np.int64(NO_MM)
        added = row[tail] == NO_MM or row[tail] == row[head]
        if added:
            row[tail] = mm.mms[row[head], MM_NEXT]
            walk[FORCE] = 1
        elif walk[REPAIRS] & STICKY_FORCE:
            walk[FORCE] = 0
        taken = takes(mm, row[head], node, walk)
    if first:
        if callback and walk[REPAIRS] & BLOOM:
            bloom_reset(mm, lruvec, row[OWN_SEQ] + 1, True)
        else:
            bloom_reset(mm, lruvec, walk[SEQ] + 1, False)
    walk[OWN_FILTER_SEQ] = row[OWN_SEQ]
    return row[head]


@njit_inline
def iterate_mm_list_nowalk(mm: Mm, lruvec: int, walk: np.ndarray) -> bool:
    """A pass of a lruvec that walks nothing (lru_gen/enabled without 2):
    False if one for this sequence was already made.
    """
    row = mm.lru[lruvec]
    if walk[SEQ] <= row[MM_SEQ]:
        return False
    row[MM_HEAD] = row[MM_TAIL] = NO_MM
    row[MM_SEQ] += 1
    return True


@njit
def _next_mm(address: int, lruvec: int, memcg: int, node: int, walk: np.ndarray) -> Int:
    return iterate_mm_list(mm_at(address), lruvec, memcg, node, walk, True)


def next_mm(mm: Mm, lruvec: int, memcg: int, node: int, walk: np.ndarray) -> int:
    """`iterate_mm_list` for a walker with a callback."""
    return int(_next_mm(mm.address, lruvec, memcg, node, walk))


def lru_gen_add_mm(mm: Mm, space: int, memcg: int) -> None:
    """A newborn address space joins the end of its memcg's list: the next pass walks it, and what comes after it,
    by force.
    """
    fifo = len(mm.mms) - len(mm.lru) // len(mm.node) + memcg
    for lruvec in range(memcg * len(mm.node), (memcg + 1) * len(mm.node)):
        for tail in (MM_TAIL, OWN_TAIL):
            if mm.lru[lruvec, tail] == fifo:
                mm.lru[lruvec, tail] = space
    last = int(mm.mms[fifo, MM_PREV])
    mm.mms[space, [MM_MEMCG, MM_PREV, MM_NEXT]] = memcg, last, fifo
    mm.mms[last, MM_NEXT] = mm.mms[fifo, MM_PREV] = space
    mm.mms[space, MM_RAN:] = 1


def lru_gen_del_mm(mm: Mm, space: int) -> None:
    """An address space that ends leaves its list; a cursor on it steps back, a marker on it steps on."""
    memcg, before, after = (int(n) for n in mm.mms[space, [MM_MEMCG, MM_PREV, MM_NEXT]])
    for lruvec in range(memcg * len(mm.node), (memcg + 1) * len(mm.node)):
        for column, other in ((MM_HEAD, before), (OWN_HEAD, before), (MM_TAIL, after), (OWN_TAIL, after)):
            if mm.lru[lruvec, column] == space:
                mm.lru[lruvec, column] = other
    mm.mms[before, MM_NEXT], mm.mms[after, MM_PREV] = after, before
    mm.mms[space, [MM_MEMCG, MM_PREV, MM_NEXT]] = NO_MM
