"""How long a touch takes: compute time, misses in flight, threads; and how many touches a run has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from klrubench.machine import Machine
    from klrubench.workload import Workload

LEAST_COMPUTE_NS = 2.0  # below this between two misses a rate needs more threads, not less work
PS_PER_NS = 1000.0


@dataclass(frozen=True)
class Timing:
    """The resolved timing of one tenant.

    Attributes:
        threads: busy threads (raised above the workload's own where the rate needs it).
        mlp: misses in flight a thread.
        compute_ns: compute time a miss.
        touch_ns: time between two touches of the whole tenant on an unloaded all-DRAM machine.
        lower_touch_ns: the same with every miss served by the lower tier.
        rate: touches a page and second on that unloaded all-DRAM machine, sleep not counted.
        open_loop: touches arrive at the rate whatever the memory does.
        note: what had to be changed to reach the rate; empty if nothing.
    """

    threads: int
    mlp: float
    compute_ns: float
    touch_ns: float
    lower_touch_ns: float
    rate: float
    open_loop: bool
    note: str = ""

    def all_lower_slowdown_percent(self) -> float:
        """Slowdown with every page on the lower tier, unloaded."""
        return 100.0 * (self.lower_touch_ns / self.touch_ns - 1.0)


def home_node(machine: Machine) -> int:
    """The node whose CPUs run the tenants: the first with CPUs."""
    return machine.cpu_nodes[0]


def miss_ns(machine: Machine, node: int, read_share: float) -> float:
    """Idle latency of a miss on a node, reads and writes mixed."""
    home, where = home_node(machine), machine.nodes[node]
    return read_share * where.read_ns[home] + (1.0 - read_share) * where.write_ns[home]


def resolve_timing(machine: Machine, workload: Workload) -> Timing:
    """Turn a workload's rate, or its compute time, into the time of a touch on `machine`."""
    pages = workload.full_pages()
    top = miss_ns(machine, machine.top_nodes[0], workload.read_share) / workload.mlp
    lower = miss_ns(machine, (machine.lower_nodes or machine.top_nodes)[0], workload.read_share) / workload.mlp
    missing = 1.0 - float(getattr(workload, "cached_share", 0.0))
    cached = (1.0 - missing) * machine.cache_hit_ns
    threads, compute, note = workload.threads, workload.compute_ns, ""
    if workload.rate > 0 and not workload.open_loop:
        wanted = threads * 1e9 / (workload.rate * pages)  # ns a touch and thread
        compute = (wanted - cached) / missing - top if missing > 0 else 0.0
        if compute < LEAST_COMPUTE_NS:
            need = missing * (LEAST_COMPUTE_NS + top) + cached
            threads = max(threads, int(-(-need * workload.rate * pages // 1e9)))
            compute = max(
                LEAST_COMPUTE_NS, (threads * 1e9 / (workload.rate * pages) - cached) / max(missing, 1e-9) - top
            )
            note = f"{workload.rate:g} touches/page/s need {threads} threads, not {workload.threads}"
    touch = (missing * (compute + top) + cached) / threads
    if workload.open_loop and workload.rate > 0:
        touch = max(touch, 1e9 / (workload.rate * pages))
    below = (missing * (compute + lower) + cached) / threads
    return Timing(
        threads, workload.mlp, compute, touch, max(below, touch), 1e9 / (touch * pages), workload.open_loop, note
    )


def simulated_touches(timing: Timing, workload: Workload, duration_s: float, fold: int) -> int:
    """Touches of a run: what an unloaded all-DRAM machine makes in `duration_s`, sleep left out, over the scale."""
    busy = 1.0
    if workload.busy_s > 0 and workload.idle_s > 0:
        busy = workload.busy_s / (workload.busy_s + workload.idle_s)
    return max(1, round(duration_s * busy * 1e9 / timing.touch_ns / fold))
