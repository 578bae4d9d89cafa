"""The access loop with the 10 ms quanta solved inside, for one tenant and for several:
Python is not asked 100 times a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from klrubench.engine.access import AHEAD, CLOCK, DEADLINE, LOG_FULL, N_CATEGORIES, OUT_OF_WORDS, run_touches
from klrubench.engine.access_tlb import run_touches_tlb
from klrubench.engine.array_table import reader
from klrubench.engine.jit import njit, njit_inline
from klrubench.engine.kthread import (
    AT,
    DUE_PS,
    FOREVER,
    NOW_PS,
    PS_PER_MS,
    RANK,
    TURN,
    UNCOMPILED,
    first_thread,
    step_thread,
    wake_threads,
)
from klrubench.engine.latency import QUANTUM_PS, solve_latency
from klrubench.engine.pointer import array_u32

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int

# int64 state of the quantum clock
NEXT_PS, START_PS = range(2)
# int64 columns of a tenant's span of stream: address of its next word, words before Python must look
# (FINISHED: its work is done)
WORD_AT, WORDS_LEFT = range(2)
FINISHED = -1
# int64 state of a round over the tenants: how many have had their turn; whether the turn now is over;
# whether Python must look at the end
HAD_TURN, OVER, LOOK = range(3)
ROUND_OVER, NO_TURN = -1, -2


class Engine(NamedTuple):
    """Everything the access loop works on but the stream. Kernels get it as addresses:
    unpacking 20 arrays costs 10 us a call.

    pte, pte64: the machine's page bytes. tenants: i64 [t, TENANT_WORDS]. counts, cost, at_start, mix: i64 [t, 9].
    op_hist: i64 [t, bins]. fault: i64 [2], handler and context addresses. fault_log: i64 [n, 2]. quantum: i64 [2].
    other_ps: f64 [t]. params: f64 [t, 6]. latency: f64 [t, nodes, 2]. nodes: f64 [nodes, 4]. traffic: f64 [nodes, 2].
    factor: f64 [nodes]. shape: i64 [t, 4], first page, pages, touches an operation of each tenant, and the column of
    `mms` (i64 [t or more, columns]) from which on it is marked as having run since a node's last walk.
    tlb: i64 [t or 0, columns], rows only where a TLB is modelled. spent: i64 [t, 9], ps of the closed quanta's touches.
    clock: i64 [CLOCK_WORDS], kthreads: i64 [MAX_THREADS, ROW_WORDS], board: i64 [t, BOARD_WORDS] and shootdown: f64
    [SHOOTDOWN_WORDS], see kthread.py. now_ms: i64 [1], the kernel's time in ms.
    """

    pte: np.ndarray
    pte64: np.ndarray
    tenants: np.ndarray
    counts: np.ndarray
    cost: np.ndarray
    at_start: np.ndarray
    mix: np.ndarray
    op_hist: np.ndarray
    fault: np.ndarray
    fault_log: np.ndarray
    quantum: np.ndarray
    other_ps: np.ndarray
    params: np.ndarray
    latency: np.ndarray
    nodes: np.ndarray
    traffic: np.ndarray
    factor: np.ndarray
    shape: np.ndarray
    tlb: np.ndarray
    spent: np.ndarray
    clock: np.ndarray
    kthreads: np.ndarray
    board: np.ndarray
    shootdown: np.ndarray
    now_ms: np.ndarray
    mms: np.ndarray


engine_at: Callable[[int], Engine] = reader(
    "Engine",
    pte=(np.uint8, 1), pte64=(np.uint64, 1), tenants=(np.int64, 2), counts=(np.int64, 2), cost=(np.int64, 2),
    at_start=(np.int64, 2), mix=(np.int64, 2), op_hist=(np.int64, 2), fault=(np.int64, 1), fault_log=(np.int64, 2),
    quantum=(np.int64, 1), other_ps=(np.float64, 1), params=(np.float64, 2), latency=(np.float64, 3),
    nodes=(np.float64, 2), traffic=(np.float64, 2), factor=(np.float64, 1), shape=(np.int64, 2), tlb=(np.int64, 2),
    spent=(np.int64, 2), clock=(np.int64, 1), kthreads=(np.int64, 2), board=(np.int64, 2), shootdown=(np.float64, 1),
    now_ms=(np.int64, 1), mms=(np.int64, 2),
)  # fmt: skip


@njit_inline
def end_quantum(e: Engine, now_ps: int) -> None:
    """Close the quantum that ends at or before `now_ps`: solve the latencies of the next one from its mix.

    `spent` gets the picoseconds that its touches took, by category.
    """
    total = np.int64(0)
    for t in range(len(e.tenants)):
        busy = 0.0
        for c in range(N_CATEGORIES):
            delta = e.counts[t, c] - e.at_start[t, c]
            total += delta
            busy += delta * e.cost[t, c]
            e.spent[t, c] += delta * e.cost[t, c]
        e.other_ps[t] = max(0.0, (now_ps - e.quantum[START_PS]) - busy)
    if total > 0:
        for t in range(len(e.tenants)):
            for c in range(N_CATEGORIES):
                e.mix[t, c] = e.counts[t, c] - e.at_start[t, c]
                e.at_start[t, c] = e.counts[t, c]
    stretch = QUANTUM_PS / max(1.0, float(now_ps - e.quantum[START_PS]))
    for k in range(len(e.nodes)):
        e.traffic[k, 0] *= stretch
        e.traffic[k, 1] *= stretch
    solve_latency(e.mix, e.other_ps, e.params, e.latency, e.nodes, e.traffic, e.factor, e.cost)
    for k in range(len(e.nodes)):
        e.traffic[k, 0] = 0.0
        e.traffic[k, 1] = 0.0
    e.quantum[START_PS] = now_ps
    e.quantum[NEXT_PS] = (now_ps // QUANTUM_PS + 1) * QUANTUM_PS


@njit_inline
def run_tenant(e: Engine, t: int, words: np.ndarray, n_words: int, deadline: int, tlb: bool | None) -> tuple[int, int]:
    """Serve touches of one tenant up to a deadline; (touches served, why it stopped).

    tlb: None where there is none: a constant of the type, so that only the loop that is run is compiled.
    """
    first, pages = e.shape[t, 0], e.shape[t, 1]
    if tlb is not None:
        return run_touches_tlb(
            e.pte[first : first + pages], e.pte64[first // 8 : (first + pages) // 8], words, n_words, e.tenants[t],
            e.counts[t], e.cost[t], deadline, e.shape[t, 2], e.op_hist[t], e.fault[0], e.fault[1], first, e.fault_log,
            e.tlb[t],
        )  # fmt: skip
    return run_touches(
        e.pte[first : first + pages], e.pte64[first // 8 : (first + pages) // 8], words, n_words, e.tenants[t],
        e.counts[t], e.cost[t], deadline, e.shape[t, 2], e.op_hist[t], e.fault[0], e.fault[1], first, e.fault_log,
    )  # fmt: skip


@njit_inline
def lru_gen_use_mm(e: Engine, t: int) -> None:
    """The address space of a tenant has run."""
    e.mms[t, e.shape[t, 3] :] = 1


@njit_inline
def take_turn(e: Engine, t: int, spans: np.ndarray, limit: int, tlb: bool | None) -> int:
    """One tenant up to `limit` or the end of its words; why it stopped."""
    words = array_u32(spans[t, WORD_AT], spans[t, WORDS_LEFT] + AHEAD)
    served, reason = run_tenant(e, t, words, spans[t, WORDS_LEFT], limit, tlb)
    spans[t, WORD_AT] += 4 * served
    spans[t, WORDS_LEFT] -= served
    if served > 0:
        lru_gen_use_mm(e, t)
    return reason


@njit_inline
def run_due(e: Engine, clock: int, event_ps: int, event_rank: int) -> None:
    """Let the compiled threads take the turns that are due at `clock`, up to the next event that Python handles, or to
    one that is not compiled yet (UNCOMPILED is set).
    """
    wake_threads(e.clock, e.kthreads)
    while True:
        number = first_thread(e.clock, e.kthreads)
        row = e.kthreads[number]
        if row[AT] > clock or event_ps < row[AT] or (event_ps == row[AT] and event_rank < row[RANK]):
            return
        if row[TURN] == 0:
            e.clock[UNCOMPILED], e.clock[DUE_PS] = number + 1, clock
            return
        e.clock[NOW_PS] = max(e.clock[NOW_PS], row[AT])
        e.now_ms[0] = e.clock[NOW_PS] // PS_PER_MS
        step_thread(e.clock, row, e.tenants, e.board, e.shootdown)
        wake_threads(e.clock, e.kthreads)


@njit
def run_together(address: int, spans: np.ndarray, turns: np.ndarray, deadline: int, tlb: bool | None) -> Int:
    """Serve several tenants up to `deadline`: each up to the next quantum or compiled thread's turn, in an order that
    rotates; then the quantum is solved for all, and the thread takes its turn.

    Args:
        spans: i64 [t, 2], the stream of each tenant. turns: i64 [3], where the round stands.
        tlb: None if no TLB is modelled, else True.
    Returns:
        The tenant that has run out of words: call again when it has new ones. ROUND_OVER at the end of a round, when
        all have reached `deadline` or Python must look. NO_TURN when a thread's turn has to be compiled first.
    """
    e = engine_at(address)
    n = len(spans)
    while True:
        due = e.kthreads[first_thread(e.clock, e.kthreads), AT]
        limit = min(min(deadline, due), e.quantum[NEXT_PS])
        first = e.quantum[NEXT_PS] // QUANTUM_PS % n
        while turns[HAD_TURN] < n:
            t = (first + turns[HAD_TURN]) % n
            if spans[t, WORDS_LEFT] == 0:
                return t
            if not turns[OVER] and spans[t, WORDS_LEFT] > 0 and e.tenants[t, CLOCK] < limit:
                if take_turn(e, t, spans, limit, tlb) == LOG_FULL:
                    turns[OVER] = turns[LOOK] = 1
                if spans[t, WORDS_LEFT] == 0:
                    return t
            turns[OVER] = 0
            turns[HAD_TURN] += 1
        turns[HAD_TURN] = 0
        now = np.int64(-1)
        for t in range(n):
            if spans[t, WORDS_LEFT] != FINISHED:
                now = e.tenants[t, CLOCK] if now < 0 else min(now, e.tenants[t, CLOCK])
        if now < 0:
            now = limit
        if now >= e.quantum[NEXT_PS]:
            end_quantum(e, now)
        if turns[LOOK] or now >= deadline:
            turns[LOOK] = 0
            return np.int64(ROUND_OVER)
        if now >= due:
            e.clock[NOW_PS] = max(e.clock[NOW_PS], min(now, due))
            run_due(e, now, FOREVER, 0)
            if e.clock[UNCOMPILED]:
                return np.int64(NO_TURN)


@njit
def run_threads(address: int, clock: int, event_ps: int, event_rank: int, begun: bool) -> None:
    """`run_due`, from Python; `begun`: whether the time has been set to that of the first event."""
    e = engine_at(address)
    if not begun:
        first = min(event_ps, e.kthreads[first_thread(e.clock, e.kthreads), AT])
        e.clock[NOW_PS] = max(e.clock[NOW_PS], min(clock, first))
    run_due(e, clock, event_ps, event_rank)


@njit
def run_alone(address: int, words: np.ndarray, n_words: int, deadline: int, tlb: bool | None) -> tuple[Int, int]:
    """Serve touches of the only tenant up to `deadline`, solving latencies at each quantum and letting compiled threads
    take their turns; (touches served, reason).
    """
    e = engine_at(address)
    served = np.int64(0)
    while True:
        first = e.kthreads[first_thread(e.clock, e.kthreads), AT]
        if e.tenants[0, CLOCK] < first:
            limit = min(min(deadline, first), e.quantum[NEXT_PS])
            n, reason = run_tenant(e, 0, words[served:], n_words - served, limit, tlb)
            served += n
            if n > 0:
                lru_gen_use_mm(e, 0)
            if e.tenants[0, CLOCK] >= e.quantum[NEXT_PS]:
                end_quantum(e, e.tenants[0, CLOCK])
            if reason in (LOG_FULL, OUT_OF_WORDS):
                return served, reason
        clock = e.tenants[0, CLOCK]
        if clock >= deadline or served == n_words:
            return served, DEADLINE
        if clock >= first:
            e.clock[NOW_PS] = max(e.clock[NOW_PS], min(clock, first))
            run_due(e, clock, FOREVER, 0)
            if e.clock[UNCOMPILED] or e.tenants[0, CLOCK] >= deadline:
                return served, DEADLINE
