"""The access loop with a TLB (see `tlb.py`), used only where `tlb/entries` is set: the other one pays nothing for it.

The same loop as `run_touches` but for three things: a touch that hits the TLB changes no page byte; one that misses
fills it and sets the bits as a hardware walk does; and a flush that waits, or whose time has come, empties it between
two touches. (Two loops, not one with a switch: what a touch costs hangs on each of its few instructions.)
"""

from __future__ import annotations

import numpy as np

from klrubench.engine.access import (
    AHEAD,
    BLOCK,
    CLOCK,
    DEADLINE,
    FAULTS,
    GAP,
    LOG_FULL,
    LOG_N,
    N_CATEGORIES,
    OP_EVERY,
    OP_START,
    ORIGIN,
    OUT_OF_WORDS,
    STALL,
    TOUCH,
    category,
    op_bin,
    settle,
    touch_pmd,
)
from klrubench.engine.bits import ACCESSED, ID_MASK, PMD_OLD, TRAP
from klrubench.engine.jit import njit, njit_inline
from klrubench.engine.kinds import Int
from klrubench.engine.pointer import call_handler
from klrubench.engine.prefetch import prefetch
from klrubench.engine.tlb import FOREVER, HIT_COUNT_OF, NEXT_SWITCH_PS, PENDING, SWITCH_PS, empty, touch


@njit_inline
def next_switch(tlb: np.ndarray, pte: np.ndarray, clock: Int) -> Int:
    """Empty the TLB where a shootdown or a context switch asks for it; ps of the next context switch that does."""
    due = tlb[SWITCH_PS] > 0 and clock >= tlb[NEXT_SWITCH_PS]
    if due:
        tlb[NEXT_SWITCH_PS] = (clock // tlb[SWITCH_PS] + 1) * tlb[SWITCH_PS]
    if due or tlb[PENDING]:
        empty(tlb, pte)
    return tlb[NEXT_SWITCH_PS] if tlb[SWITCH_PS] > 0 else np.int64(FOREVER)


@njit_inline
def walk_bits(pte: np.ndarray, pte64: np.ndarray, page: int, word: int) -> None:
    """What a hardware walk sets: the accessed bits of PTE and PMD, and the dirty bit for a write."""
    if pte[page] & np.uint8(PMD_OLD):
        touch_pmd(pte64, page)
    pte[page] |= np.uint8(ACCESSED) | np.uint8((word >> np.uint32(31)) << np.uint32(3))


@njit
def run_touches_tlb(
    pte: np.ndarray,
    pte64: np.ndarray,
    words: np.ndarray,
    n_words: int,
    tenant: np.ndarray,
    counts: np.ndarray,
    cost: np.ndarray,
    deadline: int,
    op_len: int,
    op_hist: np.ndarray,
    fault: int,
    fault_ctx: int,
    base: int,
    fault_log: np.ndarray,
    tlb: np.ndarray,
) -> tuple[Int, Int]:
    """`run_touches` with a TLB: same arguments, then `tlb`, i64 state of the tenant's TLB; returns the same."""
    i = np.int64(0)
    clock = tenant[CLOCK]
    touched = tenant[TOUCH]
    gap = tenant[GAP]
    top_cost = np.int64(1)
    for c in range(N_CATEGORIES):
        top_cost = max(top_cost, cost[c])
    reason = OUT_OF_WORDS
    if len(fault_log) > 0 and tenant[LOG_N] >= len(fault_log):
        return i, np.int64(LOG_FULL)
    while i < n_words:
        if clock >= deadline:
            reason = DEADLINE
            break
        if gap > 0:
            clock = max(clock, tenant[ORIGIN] + touched * gap)
        stop = min(deadline, next_switch(tlb, pte, clock))
        phase = touched % OP_EVERY
        if phase == 0:
            tenant[OP_START] = clock
        limit = op_len - phase if phase < op_len else OP_EVERY - phase
        limit = min(limit, max(np.int64(1), (stop - clock + top_cost - 1) // top_cost))
        if gap > 0:
            limit = 1
        limit = min(min(limit, np.int64(BLOCK)), n_words - i)
        block = words[i : i + limit]
        ahead = words[i + AHEAD : i + AHEAD + limit]
        packed = np.uint64(0)
        done = limit
        for j in range(limit):
            word = block[j]
            page = word & np.uint32(ID_MASK)
            prefetch(pte, np.uint64(ahead[j] & np.uint32(ID_MASK)))
            state = pte[page]
            count = HIT_COUNT_OF[(np.uint32(word >> np.uint32(30)) << np.uint32(8)) | np.uint32(state)]
            if count == np.uint64(0):
                if state & np.uint8(TRAP):
                    done = j
                    break
                if touch(tlb, pte, np.int64(page), word >> np.uint32(31)):
                    walk_bits(pte, pte64, np.int64(page), word)
                count = np.uint64(1) << np.uint64(7 * category(word, state))
            packed += count
        clock += settle(packed, counts, cost)
        i += done
        touched += done
        if done < limit:
            word = words[i]
            page = np.int64(word & np.uint32(ID_MASK))
            stall = call_handler(fault, fault_ctx, base + page, clock)
            if stall < 0:
                stall = -1 - stall
                reason = LOG_FULL
            clock += stall
            tenant[STALL] += stall
            tenant[FAULTS] += 1
            if tlb[PENDING]:
                empty(tlb, pte)
            touch(tlb, pte, page, word >> np.uint32(31))
            walk_bits(pte, pte64, page, word)  # a PTE that traps is in no TLB
            pte[page] &= np.uint8(0xFF ^ TRAP)
            kind_of = category(word, pte[page])
            counts[kind_of] += 1
            clock += cost[kind_of]
            i += 1
            touched += 1
            if len(fault_log) > 0:
                n = tenant[LOG_N]
                fault_log[n, 0] = base + page
                fault_log[n, 1] = clock
                tenant[LOG_N] = n + 1
        if touched % OP_EVERY == op_len and i > 0:
            op_hist[op_bin(clock - tenant[OP_START])] += 1
        if len(fault_log) > 0 and tenant[LOG_N] == len(fault_log):
            reason = LOG_FULL
        if reason == LOG_FULL:
            break
    if reason == OUT_OF_WORDS and clock >= deadline:
        reason = DEADLINE
    tenant[CLOCK] = clock
    tenant[TOUCH] = touched
    return i, reason
