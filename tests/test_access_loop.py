"""The access loop against a plain-Python twin that takes one touch at a time, without blocks or packed counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench.engine.access import (
    AHEAD,
    CACHED,
    CLOCK,
    DEADLINE,
    FAULTS,
    GAP,
    LOG_FULL,
    LOG_N,
    N_CATEGORIES,
    OP_BINS,
    OP_EVERY,
    OP_START,
    ORIGIN,
    OUT_OF_WORDS,
    STALL,
    TENANT_WORDS,
    TOUCH,
    op_bin,
    run_touches,
)  # fmt: skip
from klrubench.engine.bits import ACCESSED, DIRTY, ID_MASK, NODE_MASK, PMD_OLD, TRAP
from klrubench.engine.jit import cfunc
from klrubench.engine.pointer import array_i64, array_u8
from klrubench.mm.fault import SIGNATURE
from klrubench.mm.mglru.walk import clear_table_young, table_young
from klrubench.mm.state import new_mm
from klrubench.simulate.instruments import op_quantile_ps

TABLES = 3
PAGES = 512 * TABLES
BASE = 7 * 512  # id of the tenant's first page
FOREVER = 1 << 62


@cfunc(SIGNATURE)
def odd_handler(context: Any, page: Any, now_ps: Any) -> Any:
    """Stalls by page and time, moves every third page to the next node, asks for a stop at every `c[1]`-th fault."""
    c = array_i64(context, 5)
    c[0] += 1
    pte = array_u8(c[2], c[3])
    if c[0] % 3 == 0:
        at = page - c[4]
        pte[at] = (pte[at] & np.uint8(0xFC)) | np.uint8((pte[at] + 1) & 3)
    stall = (page * 7919 + now_ps) % 1009
    if c[1] > 0 and c[0] % c[1] == 0:
        return -1 - stall
    return stall


@dataclass
class Case:
    """One tenant, its stream, and when it is stopped."""

    pte: np.ndarray
    words: np.ndarray
    cost: list[int]
    deadlines: list[int]
    op_len: int
    gap: int
    origin: int
    log_size: int
    stop_every: int
    start_touch: int


@dataclass
class Outcome:
    """Everything that a run leaves behind, and the state at each stop."""

    pte: list[int]
    tenant: dict[str, int]
    counts: list[int]
    hist: dict[int, int]
    log: list[tuple[int, int]]
    stops: list[tuple[int, int, int]] = field(default_factory=list)


def make_case(
    seed: int, n: int, cached: float, traps: float, old: float, gap: bool, log_size: int, op_len: int, stop_every: int
) -> Case:
    rng = np.random.default_rng(seed)
    flags = rng.choice([0, ACCESSED], PAGES) | rng.choice([0, DIRTY], PAGES)
    pte = (rng.integers(0, 4, PAGES) | flags).astype(np.uint8)
    pte |= (rng.random(PAGES) < traps).astype(np.uint8) * np.uint8(TRAP)
    pte |= np.repeat((rng.random(TABLES) < old).astype(np.uint8) * np.uint8(PMD_OLD), 512)
    words = rng.integers(0, PAGES, n).astype(np.uint32)
    words |= (rng.random(n) < cached).astype(np.uint32) << np.uint32(30)
    words |= (rng.random(n) < 0.3).astype(np.uint32) << np.uint32(31)
    cost = [int(c) for c in rng.integers(1, 900, N_CATEGORIES)]
    span = n * (np.mean(cost) + traps * 500)
    deadlines = [*sorted(int(d) for d in rng.random(int(rng.integers(0, 12))) * span), FOREVER]
    return Case(
        pte, words, cost, deadlines, op_len, int(rng.integers(1, 1200)) if gap else 0,
        int(rng.integers(0, 5000)) if gap else 0, log_size, stop_every, int(rng.integers(0, 2 * OP_EVERY)),
    )  # fmt: skip


def slow_bin(latency: int) -> int:
    """64 bins an octave, by doubling edges."""
    shift = 0
    while latency >= 128 << shift:
        shift += 1
    return min(OP_BINS - 1, 64 * shift + (latency >> shift))


def slow_run(case: Case) -> Outcome:
    """One touch at a time."""
    pte, faults, stalled = [int(b) for b in case.pte], 0, 0
    clock, touch, start = 0, case.start_touch, 0
    counts, hist, log, stops, logged = [0] * N_CATEGORIES, {}, [], [], 0
    deadlines = list(case.deadlines)
    for word in case.words.tolist():
        while clock >= deadlines[0]:
            stops.append((DEADLINE, touch, clock))
            del deadlines[0]
        if case.gap:
            clock = max(clock, case.origin + touch * case.gap)
        if touch % OP_EVERY == 0:
            start = clock
        page, write, cached, stop = word & ID_MASK, word >> 31, (word >> 30) & 1, False
        trapped = pte[page] & TRAP
        if trapped:
            faults += 1
            stall = ((BASE + page) * 7919 + clock) % 1009
            if faults % 3 == 0:
                pte[page] = (pte[page] & ~NODE_MASK) | ((pte[page] + 1) & NODE_MASK)
            stop = case.stop_every > 0 and faults % case.stop_every == 0
            clock += stall
            stalled += stall
        if pte[page] & PMD_OLD:
            first = page // 512 * 512
            for other in range(first, first + 512):
                pte[other] &= ~PMD_OLD
        pte[page] = (pte[page] | ACCESSED | (DIRTY if write else 0)) & ~TRAP
        kind = CACHED if cached else (pte[page] & NODE_MASK) + 4 * write
        counts[kind] += 1
        clock += case.cost[kind]
        touch += 1
        if trapped and case.log_size:
            log.append((BASE + page, clock))
            logged += 1
        if touch % OP_EVERY == case.op_len:
            index = slow_bin(clock - start)
            hist[index] = hist.get(index, 0) + 1
        if stop or (case.log_size and logged == case.log_size):
            stops.append((LOG_FULL, touch, clock))
            logged = 0  # the log is read at every stop
    while clock >= deadlines[0]:
        stops.append((DEADLINE, touch, clock))
        del deadlines[0]
    tenant = {"clock": clock, "touch": touch, "stall": stalled, "faults": faults, "op_start": start}
    return Outcome(pte, tenant, counts, hist, log, stops)


def fast_run(case: Case, chunks: np.random.Generator | None) -> Outcome:
    """The kernel, given the stream whole or in random chunks."""
    pte = case.pte.copy()
    words = np.zeros(len(case.words) + AHEAD, np.uint32)
    words[: len(case.words)] = case.words
    tenant, counts, hist = (
        np.zeros(TENANT_WORDS, np.int64),
        np.zeros(N_CATEGORIES, np.int64),
        np.zeros(OP_BINS, np.int64),
    )
    tenant[[TOUCH, GAP, ORIGIN]] = case.start_touch, case.gap, case.origin
    context = np.array([0, case.stop_every, pte.ctypes.data, len(pte), BASE], np.int64)
    log, seen, stops = np.zeros((case.log_size, 2), np.int64), [], []
    deadlines, at = list(case.deadlines), 0
    while True:
        left = len(case.words) - at
        n = left if chunks is None else min(left, int(chunks.integers(1, 400)))
        served, reason = run_touches(
            pte, pte.view(np.uint64), words[at:], n, tenant, counts, np.array(case.cost, np.int64), deadlines[0],
            case.op_len, hist, odd_handler.address, context.ctypes.data, BASE, log,
        )  # fmt: skip
        at += served
        if reason == LOG_FULL:
            seen += [tuple(row) for row in log[: tenant[LOG_N]].tolist()]
            tenant[LOG_N] = 0
        if reason == DEADLINE:
            del deadlines[0]
        if reason != OUT_OF_WORDS:
            stops.append((int(reason), int(tenant[TOUCH]), int(tenant[CLOCK])))
        elif at == len(case.words):
            break
    seen += [tuple(row) for row in log[: tenant[LOG_N]].tolist()]
    names = {"clock": CLOCK, "touch": TOUCH, "stall": STALL, "faults": FAULTS, "op_start": OP_START}
    left_behind = {name: int(tenant[k]) for name, k in names.items()}
    bins = {int(k): int(hist[k]) for k in np.flatnonzero(hist)}
    return Outcome(pte.tolist(), left_behind, counts.tolist(), bins, seen, stops)


@settings(deadline=None, max_examples=120)
@given(
    seed=st.integers(0, 2**32), n=st.integers(1, 4000), cached=st.sampled_from([0.0, 0.3, 1.0]),
    traps=st.sampled_from([0.0, 0.02, 0.9]),
    old=st.sampled_from([0.0, 0.6, 1.0]), gap=st.booleans(), log_size=st.sampled_from([0, 1, 7, 10_000]),
    op_len=st.sampled_from([1, 2, 8, 127, 128, 512]), stop_every=st.sampled_from([0, 0, 1, 5]),
)  # fmt: skip
def test_the_loop_equals_one_touch_at_a_time(
    seed: int, n: int, cached: float, traps: float, old: float, gap: bool, log_size: int, op_len: int, stop_every: int
) -> None:
    """Page bytes, clock, counts, stops, fault log and operation latencies; whole and in random chunks."""
    case = make_case(seed, n, cached, traps, old, gap, log_size, op_len, stop_every)
    expected = slow_run(case)
    assert fast_run(case, None) == expected
    assert fast_run(case, np.random.default_rng(seed + 1)) == expected


def test_a_full_fault_log_stops_the_loop_before_the_next_fault() -> None:
    """Called again without draining, the loop serves nothing instead of writing past the log's end."""
    case = make_case(5, 600, 0.0, 0.5, 0.0, False, 4, 8, 0)
    log, tenant = np.zeros((4, 2), np.int64), np.zeros(TENANT_WORDS, np.int64)
    tenant[LOG_N] = 4
    words = np.concatenate([case.words, np.zeros(AHEAD, np.uint32)])
    counts, hist = np.zeros(N_CATEGORIES, np.int64), np.zeros(OP_BINS, np.int64)
    served, reason = run_touches(
        case.pte, case.pte.view(np.uint64), words, 600, tenant, counts, np.ones(N_CATEGORIES, np.int64), FOREVER, 8,
        hist, odd_handler.address, 0, BASE, log,
    )  # fmt: skip
    assert (served, reason) == (0, LOG_FULL)


@pytest.mark.parametrize("deadline", [1, 999, 1000, 1001, 12_345])
def test_the_loop_stops_at_the_touch_that_reaches_the_deadline(deadline: int) -> None:
    """Not one touch earlier or later, whatever the block length."""
    words = np.zeros(2000 + AHEAD, np.uint32)
    pte = np.full(512, ACCESSED, np.uint8)
    tenant, counts, hist = (
        np.zeros(TENANT_WORDS, np.int64),
        np.zeros(N_CATEGORIES, np.int64),
        np.zeros(OP_BINS, np.int64),
    )
    cost = np.array([10, *[5000] * 8], np.int64)
    served, reason = run_touches(
        pte,
        pte.view(np.uint64),
        words,
        2000,
        tenant,
        counts,
        cost,
        deadline,
        8,
        hist,
        0,
        0,
        0,
        np.zeros((0, 2), np.int64),
    )
    assert reason == DEADLINE
    assert served == -(-deadline // 10)
    assert tenant[CLOCK] == served * 10


def test_a_pmd_cleared_over_accessed_pages_is_young_again_after_one_touch() -> None:
    """The touched page's own bit was set already: only pmd_old tells that the PMD's bit must be set again."""
    mm = new_mm([(1024, 0, False, 0)], [1024, 1024], [0, 1], 1, 64)
    mm.pte[:] = 1 | ACCESSED | DIRTY
    clear_table_young(mm, 1)
    assert table_young(mm, 0) and not table_young(mm, 1)
    assert (mm.pte & ACCESSED).all()
    words = np.zeros(1 + AHEAD, np.uint32)
    words[0] = 700 | 1 << 31
    tenant, counts, hist = (
        np.zeros(TENANT_WORDS, np.int64),
        np.zeros(N_CATEGORIES, np.int64),
        np.zeros(OP_BINS, np.int64),
    )
    run_touches(
        mm.pte,
        mm.pte64,
        words,
        1,
        tenant,
        counts,
        np.ones(N_CATEGORIES, np.int64),
        FOREVER,
        8,
        hist,
        0,
        0,
        0,
        np.zeros((0, 2), np.int64),
    )
    assert table_young(mm, 1)
    assert not (mm.pte & PMD_OLD).any()


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 10**15))
def test_latency_bins_are_narrow_and_ordered(latency: int) -> None:
    """A bin's middle is within 1/64 of what fell into it; longer latencies never fall into lower bins."""
    index = int(op_bin(latency))
    assert index == slow_bin(latency)
    hist = np.zeros(OP_BINS, np.int64)
    hist[index] = 1
    assert abs(op_quantile_ps(hist, 0.5) - latency) <= max(1, latency / 64)
    assert op_bin(latency + 1 + latency // 50) >= index
