"""The access loop with the 10 ms quanta solved inside, for one tenant and for several:
Python is not asked 100 times a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from klrubench.engine.access import AHEAD, CLOCK, LOG_FULL, N_CATEGORIES, OUT_OF_WORDS, run_touches
from klrubench.engine.access_tlb import run_touches_tlb
from klrubench.engine.jit import njit, njit_inline
from klrubench.engine.latency import QUANTUM_PS, solve_latency
from klrubench.engine.pointer import (
    array_f64,
    array_i64,
    array_u8,
    array_u32,
    array_u64,
    cube_f64,
    table_f64,
    table_i64,
)

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


@njit
def end_quantum(
    quantum: np.ndarray,
    now_ps: int,
    tenants: np.ndarray,
    counts: np.ndarray,
    at_start: np.ndarray,
    mix: np.ndarray,
    other_ps: np.ndarray,
    params: np.ndarray,
    latency: np.ndarray,
    nodes: np.ndarray,
    traffic: np.ndarray,
    factor: np.ndarray,
    cost: np.ndarray,
    spent: np.ndarray,
) -> None:
    """Close the quantum that ends at or before `now_ps`: solve the latencies of the next one from its mix.

    `spent` (i64 [tenants, 9]) gets the picoseconds that its touches took, by category.
    """
    total = np.int64(0)
    for t in range(len(tenants)):
        busy = 0.0
        for c in range(N_CATEGORIES):
            delta = counts[t, c] - at_start[t, c]
            total += delta
            busy += delta * cost[t, c]
            spent[t, c] += delta * cost[t, c]
        other_ps[t] = max(0.0, (now_ps - quantum[START_PS]) - busy)
    if total > 0:
        for t in range(len(tenants)):
            for c in range(N_CATEGORIES):
                mix[t, c] = counts[t, c] - at_start[t, c]
                at_start[t, c] = counts[t, c]
    stretch = QUANTUM_PS / max(1.0, float(now_ps - quantum[START_PS]))
    for k in range(len(nodes)):
        traffic[k, 0] *= stretch
        traffic[k, 1] *= stretch
    solve_latency(mix, other_ps, params, latency, nodes, traffic, factor, cost)
    for k in range(len(nodes)):
        traffic[k, 0] = 0.0
        traffic[k, 1] = 0.0
    quantum[START_PS] = now_ps
    quantum[NEXT_PS] = (now_ps // QUANTUM_PS + 1) * QUANTUM_PS


class Engine(NamedTuple):
    """Everything the access loop works on but the stream. Kernels get it as addresses:
    unpacking 20 arrays costs 10 us a call.

    pte, pte64: the machine's page bytes. tenants: i64 [t, TENANT_WORDS]. counts, cost, at_start, mix: i64 [t, 9].
    op_hist: i64 [t, bins]. fault: i64 [2], handler and context addresses. fault_log: i64 [n, 2]. quantum: i64 [2].
    other_ps: f64 [t]. params: f64 [t, 6]. latency: f64 [t, nodes, 2]. nodes: f64 [nodes, 4]. traffic: f64 [nodes, 2].
    factor: f64 [nodes]. shape: i64 [t, 3], first page, pages and touches an operation of each tenant.
    tlb: i64 [t or 0, columns], rows only where a TLB is modelled. spent: i64 [t, 9], ps of the closed quanta's touches.
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


N_ARRAYS = len(Engine._fields)


@njit_inline
def engine_at(address: int) -> Engine:
    """The `Engine` whose table of addresses stands at an address."""
    c = array_i64(address, 3 * N_ARRAYS)
    return Engine(
        array_u8(c[0], c[1]), array_u64(c[3], c[4]), table_i64(c[6], c[7], c[8]), table_i64(c[9], c[10], c[11]),
        table_i64(c[12], c[13], c[14]), table_i64(c[15], c[16], c[17]), table_i64(c[18], c[19], c[20]),
        table_i64(c[21], c[22], c[23]), array_i64(c[24], c[25]), table_i64(c[27], c[28], c[29]),
        array_i64(c[30], c[31]), array_f64(c[33], c[34]), table_f64(c[36], c[37], c[38]), cube_f64(c[39], c[40], c[41]),
        table_f64(c[42], c[43], c[44]), table_f64(c[45], c[46], c[47]), array_f64(c[48], c[49]),
        table_i64(c[51], c[52], c[53]), table_i64(c[54], c[55], c[56]),
        table_i64(c[57], c[58], c[59]),
    )  # fmt: skip


@njit_inline
def close_quantum(e: Engine, now_ps: int) -> None:
    """`end_quantum` on an engine."""
    end_quantum(
        e.quantum,
        now_ps,
        e.tenants,
        e.counts,
        e.at_start,
        e.mix,
        e.other_ps,
        e.params,
        e.latency,
        e.nodes,
        e.traffic,
        e.factor,
        e.cost,
        e.spent,
    )


@njit_inline
def run_tenant(e: Engine, t: int, words: np.ndarray, n_words: int, deadline: int) -> tuple[int, int]:
    """Serve touches of one tenant up to a deadline; (touches served, why it stopped)."""
    first, pages = e.shape[t, 0], e.shape[t, 1]
    if len(e.tlb) > 0:
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
def take_turn(e: Engine, t: int, spans: np.ndarray, limit: int) -> int:
    """One tenant up to `limit` or the end of its words; why it stopped."""
    words = array_u32(spans[t, WORD_AT], spans[t, WORDS_LEFT] + AHEAD)
    served, reason = run_tenant(e, t, words, spans[t, WORDS_LEFT], limit)
    spans[t, WORD_AT] += 4 * served
    spans[t, WORDS_LEFT] -= served
    return reason


@njit
def run_together(address: int, spans: np.ndarray, turns: np.ndarray, deadline: int) -> Int:
    """Serve several tenants up to `deadline`: each up to the next quantum in turn, in an order that rotates,
    then it is solved for all.

    Args:
        spans: i64 [t, 2], the stream of each tenant. turns: i64 [3], where the round stands.
    Returns:
        The tenant that has run out of words: call again when it has new ones. -1 at the end of a round, when all have
        reached `deadline` or Python must look.
    """
    e = engine_at(address)
    n = len(spans)
    while True:
        limit = min(deadline, e.quantum[NEXT_PS])
        first = e.quantum[NEXT_PS] // QUANTUM_PS % n
        while turns[HAD_TURN] < n:
            t = (first + turns[HAD_TURN]) % n
            if spans[t, WORDS_LEFT] == 0:
                return t
            if not turns[OVER] and spans[t, WORDS_LEFT] > 0 and e.tenants[t, CLOCK] < limit:
                if take_turn(e, t, spans, limit) == LOG_FULL:
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
            close_quantum(e, now)
        if turns[LOOK] or now >= deadline:
            turns[LOOK] = 0
            return np.int64(-1)


@njit
def run_alone(address: int, words: np.ndarray, n_words: int, deadline: int) -> tuple[Int, int]:
    """Serve touches of the only tenant up to `deadline`, solving latencies at each quantum;
    (touches served, reason).
    """
    e = engine_at(address)
    served = np.int64(0)
    while True:
        limit = min(deadline, e.quantum[NEXT_PS])
        n, reason = run_tenant(e, 0, words[served:], n_words - served, limit)
        served += n
        clock = e.tenants[0, CLOCK]
        if clock >= e.quantum[NEXT_PS]:
            close_quantum(e, clock)
        if reason in (LOG_FULL, OUT_OF_WORDS) or clock >= deadline:
            return served, reason
