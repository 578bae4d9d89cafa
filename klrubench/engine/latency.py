"""Latency under load: solved once a 10 ms quantum, by bisection on the closed-loop equation.

Fed back with a lag (last quantum's bandwidth sets this quantum's latency) a closed loop oscillates for ever; solved, it
does not.
L(u) = L0 * (1 + alpha * u**beta / (1 - u)), u the share of the node's bandwidth in use.
"""

from __future__ import annotations

import numpy as np

from klrubench.engine.access import CACHED, N_CATEGORIES
from klrubench.engine.jit import njit

QUANTUM_PS = 10_000_000_000  # 10 ms
LINE_BYTES = 64.0
TOP_LOAD = 0.999
LEAST_ROUNDS, MOST_ROUNDS = 3, 60  # one busy node is settled in two; four, all busy, by several tenants, in some ten
SETTLED = 1e-5
FLAT = 1.0004  # a load that lengthens latency by less (0.2 on the default curve) is not solved for

# columns of the tenant parameters (f64)
COMPUTE_PS, MLP, THREADS, FOLD, CACHE_PS, CPU_SHARE = range(6)
TENANT_COLUMNS = 6
# columns of the node parameters (f64): latency by home node is an array of its own
READ_BW, WRITE_BW, ALPHA, BETA = range(4)  # bandwidth in bytes a picosecond
NODE_COLUMNS = 4


@njit
def multiplier(load: float, alpha: float, beta: float) -> float:
    """Latency over idle latency at a load (share of bandwidth)."""
    u = min(max(load, 0.0), TOP_LOAD)
    return 1.0 + alpha * u**beta / (1.0 - u)


@njit
def touch_ps(t: int, category: int, params: np.ndarray, latency: np.ndarray, factor: np.ndarray) -> float:
    """Picoseconds (float) of tenant `t`'s clock that one simulated touch of a category takes."""
    p = params[t]
    if category == CACHED:
        return p[CACHE_PS] / p[THREADS] * p[FOLD] * p[CPU_SHARE]
    node = category & 3
    if node >= latency.shape[1]:
        node = latency.shape[1] - 1
    stall = latency[t, node, category >> 2] * factor[node] / p[MLP]
    return (p[COMPUTE_PS] + stall) / p[THREADS] * p[FOLD] * p[CPU_SHARE]


@njit
def load_of(
    node: int,
    mix: np.ndarray,
    other_ps: np.ndarray,
    params: np.ndarray,
    latency: np.ndarray,
    factor: np.ndarray,
    nodes: np.ndarray,
    traffic: np.ndarray,
) -> float:
    """Share of a node's bandwidth in use if the tenants ran at these latencies."""
    read = traffic[node, 0] / QUANTUM_PS
    write = traffic[node, 1] / QUANTUM_PS
    for t in range(len(params)):
        elapsed = other_ps[t]
        for c in range(N_CATEGORIES):
            if mix[t, c] > 0:
                elapsed += mix[t, c] * touch_ps(t, c, params, latency, factor)
        if elapsed > 0:
            lines = LINE_BYTES * params[t, FOLD] / elapsed
            read += (mix[t, node] + mix[t, 4 + node]) * lines  # a store reads the line, then writes it back
            write += mix[t, 4 + node] * lines
    return read / nodes[node, READ_BW] + write / nodes[node, WRITE_BW]


@njit
def solve_latency(
    mix: np.ndarray,
    other_ps: np.ndarray,
    params: np.ndarray,
    latency: np.ndarray,
    nodes: np.ndarray,
    traffic: np.ndarray,
    factor: np.ndarray,
    cost: np.ndarray,
) -> None:
    """Set `factor` (latency multiplier a node) and `cost` (i64 ps a touch) to the solution of the closed loop.

    Args:
        mix: i64 [tenants, 9] touches of the last quantum, by category.
        other_ps: f64 [tenants] clock time of that quantum not spent on touches (stalls, sleep).
        params: f64 [tenants, 6]; latency: f64 [tenants, nodes, read/write] ps; nodes: f64 [nodes, 4].
        traffic: f64 [nodes, 2] bytes read and written by migration in the quantum (full size).
    """
    for turn in range(MOST_ROUNDS):  # Gauss-Seidel over nodes
        moved = 0.0
        for node in range(len(nodes)):
            low, high, before = 0.0, TOP_LOAD, factor[node]
            factor[node] = multiplier(low, nodes[node, ALPHA], nodes[node, BETA])
            most = load_of(node, mix, other_ps, params, latency, factor, nodes, traffic)
            if multiplier(most, nodes[node, ALPHA], nodes[node, BETA]) < FLAT:
                continue
            for _step in range(26):
                middle = 0.5 * (low + high)
                factor[node] = multiplier(middle, nodes[node, ALPHA], nodes[node, BETA])
                if load_of(node, mix, other_ps, params, latency, factor, nodes, traffic) > middle:
                    low = middle
                else:
                    high = middle
            moved = max(moved, abs(factor[node] - before) / before)
        if turn >= LEAST_ROUNDS - 1 and moved < SETTLED:
            break
    for t in range(len(params)):
        for c in range(N_CATEGORIES):
            cost[t, c] = np.int64(np.rint(touch_ps(t, c, params, latency, factor)))
