"""The access loop: the one compiled loop that serves every policy.

It stops only where the state says so: a deadline in virtual time, a touch number, a full fault log. The end of the
chunk of stream that it is given is never visible in the result: time is a sum of integers (picoseconds) and samples of
operation latency go by touch number. The counts of a block of up to 127 touches live in nine 7-bit fields of one
register, so that a touch costs one byte of state, one shift and one add (an array of counters costs 2-4 times as much).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import ACCESSED, DIRTY, ID_MASK, NODE_MASK, PMD_OLD, PMD_OLD_WORD, PTRS_PER_TABLE, TRAP
from klrubench.engine.jit import njit, njit_inline
from klrubench.engine.pointer import call_handler
from klrubench.engine.prefetch import prefetch

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int

N_CATEGORIES = 9  # node (0-3) + 4 * write, and 8: served by the CPU cache
CACHED = 8
BLOCK = 127
AHEAD = 64  # touches of prefetch distance; streams must be readable that far past their end
# A touch that changes its PTE costs 18 ns (a branch foretold wrong), storing at every touch 0.5 ns a touch. So every so
# many touches one in 8 of a block is looked at: where any would change its PTE, all touches store until the next look.
LOOK_STEP, LOOK_EVERY = 8, 2048
OP_EVERY = 1024  # every so many touches one operation's latency is measured
OP_SUB = 64  # histogram bins an octave: 1.1 % resolution
OP_BINS = 48 * OP_SUB

# int64 state of a tenant
CLOCK, TOUCH, OP_START, LOG_N, STALL, GAP, FAULTS, ORIGIN = range(8)
TENANT_WORDS = 8

# why the loop stopped
OUT_OF_WORDS, DEADLINE, LOG_FULL = range(3)


def _counts_by_state() -> np.ndarray:
    """u64 [256] by (cached and write bits of the word, six bits of the PTE): what a touch adds to the packed counts.

    0 where the touch changes the PTE (an accessed or dirty bit to set, pmd_old to clear) or traps: the slow path. One
    load of this 2 KiB table replaces some ten operations a touch.
    """
    table = np.zeros(256, np.uint64)
    for kind in range(4):
        write, cached = kind >> 1, kind & 1
        for state in range(64):
            need = ACCESSED | (DIRTY if write else 0)
            if state & (need | TRAP | PMD_OLD) == need:
                table[kind << 6 | state] = 1 << 7 * (CACHED if cached else (state & NODE_MASK) + 4 * write)
    return table


COUNT_OF = _counts_by_state()


@njit
def op_bin(latency_ps: int) -> int:
    """Histogram bin of a latency in picoseconds: 64 linear bins an octave (HDR style)."""
    if latency_ps < OP_SUB:
        return max(latency_ps, 0)
    shift = 0
    while (latency_ps >> shift) >= 2 * OP_SUB:
        shift += 1
    return min(OP_BINS - 1, shift * OP_SUB + (latency_ps >> shift))


@njit
def touch_pmd(pte64: np.ndarray, page: int) -> None:
    """A touch below a PMD whose accessed bit is clear sets it: pmd_old goes from all 512 bytes."""
    first = (page // PTRS_PER_TABLE) * (PTRS_PER_TABLE // 8)
    words = pte64[first : first + PTRS_PER_TABLE // 8]
    keep = ~np.uint64(PMD_OLD_WORD)
    for k in range(len(words)):
        words[k] &= keep


@njit
def settle(packed: np.uint64, counts: np.ndarray, cost: np.ndarray) -> Int:
    """Add the packed counts of a block to `counts` and return the picoseconds they take."""
    elapsed = np.int64(0)
    for c in range(N_CATEGORIES):
        n = np.int64((packed >> np.uint64(7 * c)) & np.uint64(127))
        counts[c] += n
        elapsed += n * cost[c]
    return elapsed


@njit_inline
def bits_set(word: np.uint32) -> np.uint8:
    """PTE bits that a touch sets: accessed, and dirty for a write."""
    return np.uint8(ACCESSED) | np.uint8((word >> np.uint32(31)) << np.uint32(3))


@njit_inline
def count_index(word: np.uint32, state: np.uint8) -> np.uint32:
    """Place in `COUNT_OF` of a touch."""
    return (np.uint32(word >> np.uint32(30)) << np.uint32(6)) | np.uint32(state & np.uint8(0x3F))


@njit
def category(word: np.uint32, state: np.uint8) -> Int:
    """Cost category of a touch: by node and write, or cache-served."""
    if word & np.uint32(0x40000000):
        return CACHED
    return np.int64(state & np.uint8(3)) + 4 * np.int64(word >> np.uint32(31))


@njit
def run_touches(
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
) -> tuple[Int, Int]:
    """Serve up to `n_words` touches of one tenant; returns (touches served, why it stopped).

    Args:
        pte: u8 [pages of the tenant, padded to 512], its slice of the page state; `pte64` the same bytes as u64.
        words: u32 stream, readable AHEAD words past `n_words`.
        tenant: i64 [TENANT_WORDS] state (clock in ps, touch number ...).
        counts: i64 [9] touches by category, added to.
        cost: i64 [9] picoseconds of the tenant's clock a touch, by category.
        deadline: ps; the loop stops after the touch or fault that reaches it.
        op_len: touches an operation; op_hist: i64 [OP_BINS] of clock differences.
        fault: address of a compiled handler (ctx address, page, now_ps) -> stall in ps of the tenant's clock; -1 -
            stall asks for a stop after this touch (a thread was woken).
        base: id of the tenant's first page; fault_log: i64 [capacity, 2] of (page, ps), capacity 0 for none.
    """
    i = np.int64(0)
    clock = tenant[CLOCK]
    touch = tenant[TOUCH]
    gap = tenant[GAP]
    top_cost = np.int64(1)
    for c in range(N_CATEGORIES):
        top_cost = max(top_cost, cost[c])
    reason = OUT_OF_WORDS
    to_look = storing = np.int64(0)
    if len(fault_log) > 0 and tenant[LOG_N] >= len(fault_log):
        return i, np.int64(LOG_FULL)
    while i < n_words:
        if clock >= deadline:
            reason = DEADLINE
            break
        if gap > 0:
            clock = max(clock, tenant[ORIGIN] + touch * gap)
        phase = touch % OP_EVERY
        if phase == 0:
            tenant[OP_START] = clock
        limit = op_len - phase if phase < op_len else OP_EVERY - phase
        # After k - 1 touches of at most top_cost the deadline cannot have passed, so the block stops exactly at it.
        limit = min(limit, max(np.int64(1), (deadline - clock + top_cost - 1) // top_cost))
        if gap > 0:
            limit = 1  # open loop: every touch may have to wait for its arrival
        limit = min(min(limit, np.int64(BLOCK)), n_words - i)
        block = words[i : i + limit]
        ahead = words[i + AHEAD : i + AHEAD + limit]
        packed = np.uint64(0)
        done = limit
        if to_look <= 0:
            to_look, storing = np.int64(LOOK_EVERY), np.int64(0)
            for j in range(0, limit, LOOK_STEP):
                storing += np.int64(~pte[block[j] & np.uint32(ID_MASK)] & np.uint8(ACCESSED))
        to_look -= limit
        if storing:  # as below, without the branch before the store (a helper would count references to its arrays)
            for j in range(limit):
                word = block[j]
                page = word & np.uint32(ID_MASK)
                prefetch(pte, np.uint64(ahead[j] & np.uint32(ID_MASK)))
                state = pte[page] | bits_set(word)
                count = COUNT_OF[count_index(word, state)]
                if count == np.uint64(0):
                    if state & np.uint8(TRAP):
                        done = j
                        break
                    touch_pmd(pte64, np.int64(page))
                    state &= np.uint8(0xFF ^ PMD_OLD)
                    count = np.uint64(1) << np.uint64(7 * category(word, state))
                pte[page] = state
                packed += count
        else:
            for j in range(limit):
                word = block[j]
                page = word & np.uint32(ID_MASK)
                prefetch(pte, np.uint64(ahead[j] & np.uint32(ID_MASK)))
                state = pte[page]
                count = COUNT_OF[count_index(word, state)]
                if count == np.uint64(0):
                    if state & np.uint8(TRAP):
                        done = j
                        break
                    if state & np.uint8(PMD_OLD):
                        touch_pmd(pte64, np.int64(page))
                    pte[page] |= bits_set(word)
                    count = np.uint64(1) << np.uint64(7 * category(word, state))
                packed += count
        clock += settle(packed, counts, cost)
        i += done
        touch += done
        if done < limit:
            word = words[i]
            page = np.int64(word & np.uint32(ID_MASK))
            stall = call_handler(fault, fault_ctx, base + page, clock)
            if stall < 0:  # the handler asks for a stop: -1 - stall
                stall = -1 - stall
                reason = LOG_FULL
            clock += stall
            tenant[STALL] += stall
            tenant[FAULTS] += 1
            if pte[page] & np.uint8(PMD_OLD):
                touch_pmd(pte64, page)
            pte[page] = (pte[page] | bits_set(word)) & np.uint8(0xFF ^ TRAP)
            kind_of = category(word, pte[page])
            counts[kind_of] += 1
            clock += cost[kind_of]
            i += 1
            touch += 1
            if len(fault_log) > 0:
                n = tenant[LOG_N]
                fault_log[n, 0] = base + page
                fault_log[n, 1] = clock
                tenant[LOG_N] = n + 1
        if touch % OP_EVERY == op_len and i > 0:
            op_hist[op_bin(clock - tenant[OP_START])] += 1
        if len(fault_log) > 0 and tenant[LOG_N] == len(fault_log):
            reason = LOG_FULL
        if reason == LOG_FULL:
            break
    if reason == OUT_OF_WORDS and clock >= deadline:
        reason = DEADLINE
    tenant[CLOCK] = clock
    tenant[TOUCH] = touch
    return i, reason
