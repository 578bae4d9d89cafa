"""NUMA balancing hint faults: marking by cursor, the fault, promotion in it.

Sources: task_tick_numa, task_numa_work, change_prot_numa, do_numa_page, task_numa_fault, task_numa_placement,
update_task_scan_period (kernel/sched/fair.c, mm/memory.c, Linux 6.12), mode 2 (memory tiering) and mode 0.
The threads of a tenant are equal, so one scan period and one runtime stand for all of them. Not modelled: modes 1 and 3, VMA access
bits by PID (every thread uses every VMA), try-lock misses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.bits import NODE_MASK, TABLE_SHIFT, TRAP
from klrubench.engine.jit import cfunc, njit
from klrubench.engine.pointer import array_i64
from klrubench.mm.fault import SIGNATURE, fault_context
from klrubench.mm.lru import folio_nr_pages
from klrubench.mm.migrate import promote
from klrubench.mm.numa_promotion import may_promote, promotion_rules
from klrubench.mm.state import (
    KSWAPD_WAKE,
    NOW_MS,
    NUMA_FAULT_PROMOTIONS,
    NUMA_HINT_FAULTS,
    NUMA_PTE_UPDATES,
    PAGES_EACH,
    TIER,
    VMA_END,
    VMA_MEMCG,
    VMA_ORDER,
    VMA_START,
)
from klrubench.mm.table import N_ARRAYS, mm_at

if TYPE_CHECKING:
    from klrubench.mm.state import Mm
    from klrubench.simulate import System

LATENCY_MASK = (1 << 21) - 1  # the cpupid field: 8 bits of PID and 13 of CPU on kernels built for 8192 CPUs; milliseconds
MAX_SCAN_WINDOW_MB = 2560  # a task never scans faster than 2560 MB a second
RUN_PER_SCAN = 32  # a scan's CPU time must be followed by 32 times that of running
VIRTUAL_FACTOR = 8  # virtual budget of a scan: eight times its size

# i64 of the handler: costs in ps of a thread, threads by memcg follow
FAULT_PS, PROMOTE_PS, HUGE_PS, FOLD, TARGET, SEQ_FAULTED, SPENT_PS, FIRST_MEMCG = range(8)


@cfunc(SIGNATURE)
def numa_hint_fault(context: Any, page: Any, now_ps: Any) -> Any:
    """do_numa_page in mode 2: hint latency, decision, promotion in the faulting thread."""
    c = array_i64(context, 3 * (N_ARRAYS + 2))
    mm = mm_at(context)
    own = array_i64(c[3 * N_ARRAYS], c[3 * N_ARRAYS + 1])
    rules = array_i64(c[3 * N_ARRAYS + 3], c[3 * N_ARRAYS + 4])
    mm.stat[NUMA_HINT_FAULTS] += 1
    now_ms = now_ps // 1_000_000_000
    mm.setting[NOW_MS] = now_ms
    memcg = mm.vma[mm.block_vma[page >> TABLE_SHIFT], VMA_MEMCG]
    cost = own[FAULT_PS]
    asleep = mm.node[own[TARGET], KSWAPD_WAKE]
    if mm.node[np.int64(mm.pte[page] & np.uint8(NODE_MASK)), TIER] > 0:
        latency = (now_ms - np.int64(mm.scan_ms[page])) & LATENCY_MASK
        mm.scan_ms[page] = np.uint32(now_ms & 0xFFFFFFFF)
        pages = folio_nr_pages(mm, page)
        if may_promote(mm, own[TARGET], rules, latency, pages) and promote(mm, page, own[TARGET], own[FOLD]) > 0:
            mm.stat[NUMA_FAULT_PROMOTIONS] += pages
            own[FIRST_MEMCG + 2 * memcg + 1] = 1  # an accounted fault: the scan period may be looked at
            cost = own[PROMOTE_PS] if pages == 1 else own[HUGE_PS]
    own[SPENT_PS] += cost * own[FOLD]
    stall = cost * own[FOLD] // own[FIRST_MEMCG + 2 * memcg]
    return -1 - stall if mm.node[own[TARGET], KSWAPD_WAKE] > asleep else stall


@njit
def protect_range(mm, first, last, now_ms):
    """change_prot_numa over ids first .. last - 1: mark lower-tier pages PROT_NONE; returns (PTEs updated, PTEs seen)."""
    updated = 0
    for page in range(first, last):
        state = mm.pte[page]
        if state & np.uint8(TRAP) or mm.node[np.int64(state & np.uint8(NODE_MASK)), TIER] == 0:
            continue
        mm.pte[page] = state | np.uint8(TRAP)
        mm.scan_ms[page] = np.uint32(now_ms & 0xFFFFFFFF)
        updated += 1
    return updated, last - first


@njit
def _scan_memory(address, memcg, offset, budget, virtual, now_ms):
    mm = mm_at(address)
    updated = seen = 0
    for v in range(len(mm.vma)):
        row = mm.vma[v]
        if row[VMA_MEMCG] != memcg or row[VMA_END] <= offset:
            continue
        start = max(offset, row[VMA_START])
        unit = 1 if row[VMA_ORDER] else max(np.int64(1), 512 // max(np.int64(1), mm.setting[PAGES_EACH]))  # 2 MiB, full size
        while start < row[VMA_END]:
            ids = -(-max(budget, 1) >> row[VMA_ORDER])
            end = min(row[VMA_END], -(-(start + ids) // unit) * unit)
            n, visited = protect_range(mm, start, end, now_ms)
            updated += n
            seen += visited
            pages = (end - start) << row[VMA_ORDER]
            if n:
                budget -= pages
            virtual -= pages
            start = end
            if budget <= 0 or virtual <= 0:
                return start, updated, seen
    return -1, updated, seen


def scan_memory(mm: Mm, memcg: Any, offset: Any, budget: Any, virtual: Any, now_ms: Any) -> Any:
    """One task_numa_work: from `offset` on protect up to `budget` ids of ranges with updates; (next offset or -1, updated, seen).

    A range without a single update counts only against the virtual budget. -1: the end was reached, the cursor starts over.
    """
    return _scan_memory(mm.address, memcg, offset, budget, virtual, now_ms)


class NumaBalancing:
    """Hint faults for every tenant, mode 2. Sysctls come from the machine; `rate_limit_mb_s` overrides the machine's."""

    def __init__(self, rate_limit_mb_s: int | None = None, hot_threshold_ms: int | None = None, scan_size_mb: int | None = None) -> None:
        self.rate_limit_mb_s, self.hot_threshold_ms, self.scan_size_mb = rate_limit_mb_s, hot_threshold_ms, scan_size_mb
        self.metadata_bytes = 0  # scan times live in the folio's flags
        self.scans = self.capped = 0

    def attach(self, system: System) -> None:
        """Install the fault handler and a scanner a tenant."""
        self.system = system
        self.size_mb = self.scan_size_mb or system.sysctl("numa_balancing/scan_size_mb")
        threshold = self.hot_threshold_ms or system.sysctl("numa_balancing/hot_threshold_ms")
        rate = self.rate_limit_mb_s or system.sysctl("kernel.numa_balancing_promote_rate_limit_MBps")
        self.period_max = system.sysctl("numa_balancing/scan_period_max_ms")
        self.rules = promotion_rules(threshold, self.period_max, rate, system.fold)
        own = [system.cost_ps("hint_fault"), system.cost_ps("hint_fault_promote"), system.cost_ps("hint_fault") + system.cost_ps("migrate_2m")]
        own += [system.fold, system.default_target, 0, 0]
        for tenant in system.tenants:
            own += [tenant.threads, 0]
        self.own = np.array(own, np.int64)
        self.context = fault_context(system.mm, [self.own, self.rules])
        system.on_fault(numa_hint_fault, self.context, self.spent)
        for tenant in system.tenants:
            system.daemon("task_numa_work", lambda s, t=tenant: self.scan(s, t), tenant=tenant, phase_ms=0)

    def spent(self) -> int:
        """Application CPU time spent in hint faults so far, ps (full size)."""
        return int(self.own[SPENT_PS])

    def periods(self, tenant: Any) -> tuple[int, int]:
        """task_scan_min, task_scan_max in ms: a sweep of the resident set takes scan_period_min .. max, but >= 100 ms a scan."""
        windows = tenant.rss_mb() // self.size_mb + 1  # text, stack and libraries make it a little more than the mapping
        floor = 1000 // (MAX_SCAN_WINDOW_MB // self.size_mb) if self.size_mb < MAX_SCAN_WINDOW_MB else 1000
        least = max(floor, self.system.sysctl("numa_balancing/scan_period_min_ms") // windows)
        return least, max(least, self.period_max // windows)

    def scan(self, system: System, tenant: Any) -> Iterator[Any]:
        """The tick of a tenant's tasks: every scan period of task run time one task_numa_work."""
        mm, memcg = system.mm, tenant.index
        period, longest = self.periods(tenant)
        delay = system.sysctl("numa_balancing/scan_delay_ms")
        budget = system.scaled(self.size_mb * 256, "scan size")
        offset, seq, seen_seq = tenant.first_page, 0, 0
        yield system.sleep_exact_ms(delay)
        stamp_ms = tenant.runtime_ms()
        while True:
            offset, updated, visited = scan_memory(mm, memcg, offset, budget, VIRTUAL_FACTOR * budget, int(system.now_ms))
            if offset < 0:
                offset, seq = tenant.first_page, seq + 1
            mm.stat[NUMA_PTE_UPDATES] += updated
            spent_ms = system.charge_tenant(tenant, mark_pte=updated, walk_pte=visited - updated, mark_flush_once=int(updated > 0)) / 1e9
            self.scans += 1
            next_ms = stamp_ms + period + RUN_PER_SCAN * spent_ms
            self.capped += RUN_PER_SCAN * spent_ms > period
            self.own[FIRST_MEMCG + 2 * memcg + 1] = 0
            while tenant.runtime_ms() < next_ms:
                yield system.sleep_exact_ms(max(1.0, next_ms - tenant.runtime_ms()) if seq == seen_seq else 1.0)
                if seq != seen_seq and self.own[FIRST_MEMCG + 2 * memcg + 1]:
                    # No accounted fault is local or shared in mode 2, so the period doubles once a sweep.
                    seen_seq, period = seq, min(longest, period * 2)
                    next_ms = max(next_ms, tenant.runtime_ms() + period)
            stamp_ms = tenant.runtime_ms()

    def bound(self) -> dict[str, float]:
        """Share of scans after which the 3 % cap, not the period, set the pace."""
        return {"scan cap": self.capped / self.scans if self.scans else 0.0}
