"""One tenant alone: the access loop with the 10 ms quanta solved inside, so that Python is not asked 100 times a second."""

from __future__ import annotations

import numpy as np

from klrubench.engine.access import CLOCK, LOG_FULL, N_CATEGORIES, OUT_OF_WORDS, run_touches
from klrubench.engine.jit import njit
from klrubench.engine.latency import QUANTUM_PS, solve_latency

# int64 state of the quantum clock
NEXT_PS, START_PS = range(2)


@njit
def end_quantum(quantum, now_ps, tenants, counts, at_start, mix, other_ps, params, latency, nodes, traffic, factor, cost):
    """Close the quantum that ends at or before `now_ps`: solve the latencies of the next one from its mix."""
    total = np.int64(0)
    for t in range(len(tenants)):
        busy = 0.0
        for c in range(N_CATEGORIES):
            delta = counts[t, c] - at_start[t, c]
            total += delta
            busy += delta * cost[t, c]
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


@njit
def run_alone(
    pte, pte64, words, n_words, tenants, counts, cost, deadline, op_len, op_hist, fault, fault_ctx, fault_log,
    quantum, at_start, mix, other_ps, params, latency, nodes, traffic, factor,
):  # fmt: skip
    """Serve touches of the only tenant up to `deadline`, solving latencies at each quantum; (touches served, reason)."""
    served = np.int64(0)
    while True:
        limit = min(deadline, quantum[NEXT_PS])
        n, reason = run_touches(
            pte, pte64, words[served:], n_words - served, tenants[0], counts[0], cost[0], limit, op_len, op_hist,
            fault, fault_ctx, 0, fault_log,
        )  # fmt: skip
        served += n
        clock = tenants[0, CLOCK]
        if clock >= quantum[NEXT_PS]:
            end_quantum(
                quantum, clock, tenants, counts, at_start, mix, other_ps, params, latency, nodes, traffic, factor, cost
            )
        if reason == LOG_FULL or reason == OUT_OF_WORDS or clock >= deadline:
            return served, reason
