"""Where the clock of each tenant went: seconds by cause, which add up to its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.access import CACHED, CLOCK, STALL
from klrubench.engine.latency import COMPUTE_PS, CPU_SHARE, FOLD, MLP, THREADS
from klrubench.errors import ConservationError

if TYPE_CHECKING:
    from klrubench.simulate.system import System
    from klrubench.simulate.tenant import Tenant

PS = 1e12
COMPUTE, CACHE, FAULTS, ARRIVALS, ASLEEP = "compute", "cpu cache", "hint faults", "arrivals", "asleep"
QUEUEING = " queueing"
"""Ends the name of the part that a node's load adds to its idle latency."""


def touch_ps(system: System, tenant: Tenant) -> np.ndarray:
    """i64 [9]: ps of a tenant's clock that its touches have taken, by category."""
    t = tenant.index
    open_quantum = (system.counts[t] - system.at_start[t]) * system.cost[t]
    return np.asarray(system.spent[t] + open_quantum)


def parts_of(system: System, tenant: Tenant) -> dict[str, float]:
    """Seconds of a tenant's clock by cause; their sum is its time.

    `compute`; `cpu cache` (touches that it served); of each node its name (idle latency of the misses it served) and
    `NAME queueing` (what its load added); then, where there is any: `hint faults` (handled at the touch, with the
    promotion inside), stalls by the name they are charged under (`task_numa_work`, `tlb flushes`, `kernel threads`
    on the tenants' CPUs), `arrivals` (an open loop that waits for work), `asleep`.

    Raises:
        ConservationError: a closed loop whose causes do not add up to its clock.
    """
    t, row = tenant.index, system.params[tenant.index]
    spent, counts = touch_ps(system, tenant), system.counts[tenant.index]
    each = row[FOLD] * row[CPU_SHARE] / row[THREADS]
    found = {COMPUTE: float(counts[:CACHED].sum()) * row[COMPUTE_PS] * each, CACHE: float(spent[CACHED])}
    for k, node in enumerate(system.machine.nodes):
        kinds = [k, 4 + k]
        idle = float(counts[kinds] @ system.latency[t, k]) / row[MLP] * each
        compute = float(counts[kinds].sum()) * row[COMPUTE_PS] * each
        found[node.name] = idle
        found[node.name + QUEUEING] = float(spent[kinds].sum()) - compute - idle
    stalled, stall = tenant.stalled_ps, int(system.state[t, STALL])
    found[FAULTS] = float(stall - sum(stalled.values()))
    found.update({name: float(ps) for name, ps in sorted(stalled.items())})
    found[ARRIVALS] = float(int(system.state[t, CLOCK]) - int(spent.sum()) - stall - tenant.slept_ps)
    found[ASLEEP] = float(tenant.slept_ps)
    if not tenant.timing.open_loop and found[ARRIVALS]:
        raise ConservationError(
            f"time of {tenant.name} by cause: {found[ARRIVALS]:g} ps of {system.state[t, CLOCK]} unexplained"
        )
    if found[ARRIVALS] < 0 or found[FAULTS] < 0:
        raise ConservationError(f"time of {tenant.name} by cause: a negative part ({found})")
    always = {COMPUTE, CACHE, *(name for node in system.machine.nodes for name in (node.name, node.name + QUEUEING))}
    return {name: float(ps) / PS for name, ps in found.items() if ps or name in always}


def mean_parts(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean over the tenants; the sum is the mean of their times."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in names}
