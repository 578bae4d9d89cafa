"""An optional TLB: a touch whose translation it holds leaves the accessed bits of PTE and PMD alone.

Off by default (sysctl `tlb/entries` 0); then none of this runs. A Xeon's second level has 1536 entries in 12 ways
that 4 KiB and 2 MiB pages share (Intel 64 and IA-32 Architectures Optimization Reference Manual, 248966-045, table
2-15).

One set-associative TLB a tenant, its second level alone, with bit pseudo-LRU: a bit for each entry, set by a touch;
when all of a set would have it, only the last one keeps it; the victim is an empty way, else the first without the
bit. Intel's TLBs were found to be pseudo-LRU, some mixed with a rule of their own (A. Tatar et al., "TLB;DR:
Enhancing TLB-based Attacks with TLB Desynchronized Reverse Engineering", USENIX Security 2022); this is the simplest
one of the kind, and with it a hit on a recently used entry is free.

T threads have a TLB each, and each serves a T-th of the stream. What a TLB misses depends on the order of touches
only, and a T-th of a stream whose touches are independent is a stream of the same kind: so one TLB of the size of one
thread's that sees all touches has the misses of the T together. Lost: after a flush T TLBs set a bit T times, one
after the other, where this one sets it once; threads that do unlike work; sweeps that one thread makes alone.

Two bits of the page byte belong to it (IN_TLB, RECENT), so that a hit needs no look-up. There is none for the dirty
bit as the entry caches it: nothing clears a PTE's dirty bit here, so both are always equal.

Not modelled: the first level, whose hits keep the second from learning of a touch; paging-structure caches, which
leave a PMD's bit alone at a miss too; hyper-threads that share; speculative walks; the time that a walk takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types

from klrubench.engine.access import CACHED
from klrubench.engine.bits import DIRTY, NODE_MASK, TRAP
from klrubench.engine.jit import intrinsic, njit, njit_inline
from klrubench.errors import ScaleError

IN_TLB = 0x40
RECENT = 0x80
BOTH = IN_TLB | RECENT
FOREVER = 1 << 62

# int64 columns of a tenant's TLB: sets - 1; ways; whether a shootdown empties it; whether one waits for the next touch;
# ps between flushes by context switches (0: none) and the next of them; first page; misses and flushes so far; from
# N_HEAD on, each set: bits of recently used ways, with those of valid ways in the upper half, then the page in each way
SET_MASK, WAYS, SHOOT_ALL, PENDING, SWITCH_PS, NEXT_SWITCH_PS, FIRST_PAGE, MISSES, FLUSHES, N_HEAD = range(10)


def new_tlb(entries: int, ways: int, shoot_all: bool, fold: int, first_pages: Sequence[int]) -> np.ndarray:
    """State of the TLBs of a run: i64 [tenants, columns], no rows if they are off.

    Args:
        entries: of a thread's TLB, full size; 0: off. `ways` times a power of two.
        ways: entries a set, 1 to 32.
        shoot_all: a shootdown empties the TLB (x86), else it drops the pages that are named.
        fold: full-size pages a simulated page; the number of sets is divided by it.
        first_pages: first page id of each tenant.
    Raises:
        ScaleError: less than one set is left.
    """
    if not entries:
        return np.zeros((0, N_HEAD), np.int64)
    sets = entries // ways
    if sets < fold:
        raise ScaleError(
            f"scale 1/{fold} leaves less than one set of tlb/entries ({entries} in {sets} sets of {ways}); "
            f"use --scale 1/{sets} or larger"
        )
    tlb = np.zeros((len(first_pages), N_HEAD + (sets // fold) * (ways + 1)), np.int64)
    tlb[:, [SET_MASK, WAYS, SHOOT_ALL]] = sets // fold - 1, ways, int(shoot_all)
    tlb[:, FIRST_PAGE] = first_pages
    return tlb


def _counts_by_state() -> np.ndarray:
    """u64 [1024] by (cached and write bits of the word, page byte): what a recent entry's hit adds; 0: slow path."""
    table = np.zeros(1024, np.uint64)
    for kind in range(4):
        write, cached = kind >> 1, kind & 1
        for state in range(256):
            need = BOTH | (DIRTY if write else 0)
            if state & (need | TRAP) == need:
                table[kind << 8 | state] = 1 << 7 * (CACHED if cached else (state & NODE_MASK) + 4 * write)
    return table


HIT_COUNT_OF = _counts_by_state()


@intrinsic
def lowest_bit(typingctx: Any, word: Any) -> Any:
    """Number of the lowest bit that is set in an int64 that is not 0."""
    signature = types.int64(types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], context.get_constant(types.boolean, True))

    return signature, codegen


@njit_inline
def make_recent(tlb: np.ndarray, pte: np.ndarray, base: int, way: int) -> None:
    """Set a way's bit; when all would have it, only this one keeps it."""
    ways = tlb[WAYS]
    full = (np.int64(1) << ways) - 1
    word = tlb[base] | (np.int64(1) << way)
    if word & full == full:
        for other in range(ways):
            if other != way:
                pte[tlb[base + 1 + other]] &= np.uint8(0xFF ^ RECENT)
        word = (word & ~full) | (np.int64(1) << way)
    tlb[base] = word


@njit
def refresh(tlb: np.ndarray, pte: np.ndarray, page: int) -> None:
    """A hit on an entry that was not recently used."""
    base = N_HEAD + (page & tlb[SET_MASK]) * (tlb[WAYS] + 1)
    way = np.int64(0)
    while tlb[base + 1 + way] != page:
        way += 1
    pte[page] |= np.uint8(RECENT)
    make_recent(tlb, pte, base, way)


@njit
def fill(tlb: np.ndarray, pte: np.ndarray, page: int) -> None:
    """A miss: the page takes an empty way of its set, else the first that was not recently used."""
    ways = tlb[WAYS]
    full = (np.int64(1) << ways) - 1
    base = N_HEAD + (page & tlb[SET_MASK]) * (ways + 1)
    word = tlb[base]
    choice = ~(word >> 32) & full
    if choice == 0:
        choice = ~word & full
        way = lowest_bit(choice) if choice else np.int64(0)
        pte[tlb[base + 1 + way]] &= np.uint8(0xFF ^ BOTH)
    else:
        way = lowest_bit(choice)
        tlb[base] = word | (np.int64(1) << (32 + way))
    tlb[base + 1 + way] = page
    tlb[MISSES] += 1
    pte[page] |= np.uint8(BOTH)
    make_recent(tlb, pte, base, way)


@njit
def drop(tlb: np.ndarray, pte: np.ndarray, page: int) -> None:
    """Flush one page that the TLB holds."""
    ways = tlb[WAYS]
    base = N_HEAD + (page & tlb[SET_MASK]) * (ways + 1)
    way = np.int64(0)
    while tlb[base + 1 + way] != page or not (tlb[base] >> (32 + way)) & 1:
        way += 1
    tlb[base] &= ~((np.int64(1) << (32 + way)) | (np.int64(1) << way))
    pte[page] &= np.uint8(0xFF ^ BOTH)


@njit
def empty(tlb: np.ndarray, pte: np.ndarray) -> None:
    """Flush all."""
    ways = tlb[WAYS]
    base = np.int64(N_HEAD)
    for _ in range(tlb[SET_MASK] + 1):
        for way in range(ways):
            if (tlb[base] >> (32 + way)) & 1:
                pte[tlb[base + 1 + way]] &= np.uint8(0xFF ^ BOTH)
        tlb[base] = 0
        base += ways + 1
    tlb[PENDING] = 0
    tlb[FLUSHES] += 1


@njit_inline
def touch(tlb: np.ndarray, pte: np.ndarray, page: int, write: int) -> bool:
    """Look a page up; True if the hardware walks the page table (a miss, or the first write) and sets its bits."""
    state = pte[page]
    if not state & np.uint8(IN_TLB):
        fill(tlb, pte, page)
        return True
    if not state & np.uint8(RECENT):
        refresh(tlb, pte, page)
    return write != 0 and not state & np.uint8(DIRTY)
