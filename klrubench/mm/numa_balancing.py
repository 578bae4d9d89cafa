"""NUMA balancing hint faults: the fault, promotion in it, and the pace of scans. Modes 1 (normal), 2
(memory tiering) and 3 (both).

Sources: task_tick_numa, do_numa_page, should_numa_migrate_memory, task_numa_fault, task_numa_placement
(kernel/sched/fair.c, mm/memory.c, Linux 6.12); marking is in numa_scan.py, the scan period in numa_period.py.

With one node that has CPUs the rules of mode 1 come down to this. A lower-tier page is promoted at its second hint
fault: at the first its last CPU and PID are not known, and from then on the last fault came from the node that the page
should go to, whichever thread took it (a numa_group has no CPU faults on a memory-only node). Top-tier pages are marked
too, stay where they are, and count as local; who had a page's last fault matters for the scan period alone. The threads
of a tenant are equal: any of them is as likely to take a fault, and one scan period and one runtime stand for all. Not
modelled: several nodes with CPUs, try-lock misses, the retry interval of task_numa_placement (1/16 period).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.array_table import reader
from klrubench.engine.bits import NODE_MASK, TABLE_SHIFT, TRAP
from klrubench.engine.jit import cfunc, njit_inline
from klrubench.mm.fault import SIGNATURE, fault_context
from klrubench.mm.folio import folio_nr_pages, folio_ptes, page_folio
from klrubench.mm.migrate import folio_price, promote
from klrubench.mm.numa_period import Faults, ScanPeriod, scan_bounds
from klrubench.mm.numa_promotion import may_promote, promotion_rules
from klrubench.mm.numa_scan import (
    CURSOR_WORDS,
    DELAY_MS,
    SEQ,
    THREAD,
    new_areas,
    set_access_pid,
    task_numa_work,
)
from klrubench.mm.state import (
    KSWAPD_WAKE,
    NOW_MS,
    NUMA_FAULT_PROMOTIONS,
    NUMA_HINT_FAULTS,
    NUMA_HINT_FAULTS_LOCAL,
    NUMA_PTE_UPDATES,
    TIER,
    VMA_MM,
)
from klrubench.mm.table import MM_BYTES, mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Flag, Int
    from klrubench.mm.state import Mm
    from klrubench.simulate import System
    from klrubench.simulate.tenant import Tenant

NORMAL, TIERING = 1, 2  # bits of kernel.numa_balancing
LATENCY_BITS = 21  # of the cpupid field: 8 of PID and 13 of CPU on kernels built for 8192 CPUs; milliseconds
RUN_PER_SCAN = 32  # a scan's CPU time must be followed by 32 times that of running
LOST_TICKS = 2  # by which the thread that scans steps back
NEVER_MS = 1 << 40
VIRTUAL_FACTOR = 8  # virtual budget of a scan: eight times its size

# i64 of the handler: costs in ps of a thread, then a row a memcg
FAULT_PS, PROMOTE_PS, HUGE_PS, FOLD, TARGET, SPENT_PS, MODE, DRAW, LATENCY_MASK, FIRST_MEMCG = range(10)
# a row: threads; whether the next accounted fault closes a sweep, and when one did (ps); faults since,
# and those of the sweep closed
(M_THREADS, M_ARMED, M_CLOSED_PS, M_REMOTE, M_LOCAL, M_FAILED, M_PRIVATE, M_SHARED, M_SWEEP) = range(9)
MEMCG_WORDS = M_SWEEP + 5

handler_at: Any = reader("NumaHandler", own=(np.int64, 1), rules=(np.int64, 1), areas=(np.int64, 2))


@njit_inline
def drawn_thread(own: np.ndarray, threads: int) -> int:
    """Which of the equal threads takes this fault (PCG's multiplier; the upper bits are the random ones)."""
    own[DRAW] = own[DRAW] * np.int64(6364136223846793005) + np.int64(1442695040888963407)
    return ((own[DRAW] >> np.int64(33)) & np.int64(0x7FFFFFFF)) * threads >> np.int64(31)


@njit_inline
def account(own: np.ndarray, row: int, now_ps: int, pages: int, local: bool, private: bool, failed: bool) -> None:
    """task_numa_fault and task_numa_placement: the first accounted fault of a new sweep closes the one before."""
    if own[row + M_ARMED]:
        own[row + M_ARMED] = 0
        own[row + M_CLOSED_PS] = now_ps
        for k in range(5):
            own[row + M_SWEEP + k] = own[row + M_REMOTE + k]
        own[row + M_PRIVATE] = own[row + M_SHARED] = 0
    own[row + (M_LOCAL if local else M_REMOTE)] += pages
    own[row + (M_PRIVATE if private else M_SHARED)] += pages
    if failed:
        own[row + M_FAILED] += pages


@njit_inline
def last_thread(mm: Mm, page: int, thread: int, threads: int) -> tuple[Flag, Flag]:
    """Swap the page's last faulting thread: (whether it had one, whether it was the same).

    Kept as thread + 1, 0 for none.
    """
    last = np.int64(mm.scan_ms[page])
    mm.scan_ms[page] = np.uint32(thread + 1)
    known = 0 < last <= threads
    return known, known and last == thread + 1


@njit_inline
def may_promote_hot(mm: Mm, own: np.ndarray, rules: np.ndarray, page: int, pages: int, now_ms: int) -> bool:
    """Memory tiering: by the time since the page was marked; the field then holds the time of the fault."""
    latency = (now_ms - np.int64(mm.scan_ms[page])) & own[LATENCY_MASK]
    mm.scan_ms[page] = np.uint32(now_ms & 0xFFFFFFFF)
    return may_promote(mm, own[TARGET], rules, latency, pages)


@njit_inline
def lower_fault(mm: Mm, own: np.ndarray, rules: np.ndarray, row: int, page: int, now_ps: int, thread: int) -> bool:
    """A fault on a lower-tier page; returns whether it was promoted."""
    pages, mode = folio_nr_pages(mm, page), own[MODE]
    if mode & TIERING:
        known, private, wanted = False, True, may_promote_hot(mm, own, rules, page, pages, now_ps // 1_000_000_000)
    else:
        known, private = last_thread(mm, page, thread, own[row + M_THREADS])
        wanted = known
    if not wanted:
        return False
    promoted = promote(mm, page, own[TARGET], own[FOLD]) > 0
    if promoted:
        mm.stat[NUMA_FAULT_PROMOTIONS] += pages
        if mode == NORMAL | TIERING:
            mm.scan_ms[page] = np.uint32(0)  # the field changes its meaning with the tier
    if promoted or known:
        account(own, row, now_ps, pages, False, private, not promoted)
    return promoted


@njit_inline
def top_fault(mm: Mm, own: np.ndarray, row: int, page: int, node: int, now_ps: int, thread: int) -> None:
    """A fault on a top-tier page, which only the normal mode marks: local, or on another node with CPUs,
    where it stays.
    """
    known, same = last_thread(mm, page, thread, own[row + M_THREADS])
    local = node == own[TARGET]
    mm.stat[NUMA_HINT_FAULTS_LOCAL] += local
    account(own, row, now_ps, folio_nr_pages(mm, page), local, same or not known, False)


@njit_inline
def restored_folio(mm: Mm, page: int) -> Int:
    """The folio that took the fault; all of its PTEs are restored with the one that was touched."""
    head, ptes = page_folio(mm, page), folio_ptes(mm, page)
    for each in range(head, head + (ptes if ptes > 1 else 0)):  # a lone PTE is restored by the loop of touches
        mm.pte[each] &= np.uint8(0xFF ^ TRAP)
    return head


@cfunc(SIGNATURE)
def numa_hint_fault(context: int, page: int, now_ps: int) -> int:
    """do_numa_page: who faulted, decision, promotion in the faulting thread."""
    mm, handler = mm_at(context), handler_at(context + MM_BYTES)
    own, rules, areas = handler.own, handler.rules, handler.areas
    mm.stat[NUMA_HINT_FAULTS] += 1
    mm.setting[NOW_MS] = now_ps // 1_000_000_000
    vma = mm.block_vma[page >> TABLE_SHIFT]
    row = FIRST_MEMCG + MEMCG_WORDS * mm.vma[vma, VMA_MM]
    thread = drawn_thread(own, own[row + M_THREADS])
    set_access_pid(areas[vma], thread)
    cost = own[FAULT_PS]
    asleep, page = mm.node[own[TARGET], KSWAPD_WAKE], restored_folio(mm, page)
    node = np.int64(mm.pte[page] & np.uint8(NODE_MASK))
    if mm.node[node, TIER] == 0:
        top_fault(mm, own, row, page, node, now_ps, thread)
    elif lower_fault(mm, own, rules, row, page, now_ps, thread):
        cost = folio_price(own[PROMOTE_PS], own[HUGE_PS], folio_nr_pages(mm, page))
    own[SPENT_PS] += cost * own[FOLD]
    stall = cost * own[FOLD] // own[row + M_THREADS]
    return -1 - stall if mm.node[own[TARGET], KSWAPD_WAKE] > asleep else stall


class NumaBalancing:
    """Hint faults for every tenant. What is not given comes from the machine's settings.

    Args:
        rate_limit_mb_s, hot_threshold_ms: the rules of memory tiering.
        scan_size_mb: memory marked in one scan.
        mode: kernel.numa_balancing: 1 normal, 2 memory tiering, 3 both.
        scan_period_min_ms, scan_period_max_ms: shortest and longest sweep over the resident set.
        adjusting: the hot threshold follows the rate limit (6.1's third step); without it the threshold stays.
        cloned: where there are several threads they begin with scan_delay as their period, as those made by clone do
            (init_numa_balancing), and not with the shortest one, as a program's first thread does.
        latency_bits: width of the field that holds the time of marking; a latency loses its multiples of 2^bits ms.
    """

    metadata_bytes = 0  # scan times and last threads live in the folio's flags
    handler: Any = numa_hint_fault

    def __init__(
        self,
        rate_limit_mb_s: int | None = None,
        hot_threshold_ms: int | None = None,
        scan_size_mb: int | None = None,
        *,
        mode: int = TIERING,
        scan_period_min_ms: int | None = None,
        scan_period_max_ms: int | None = None,
        cloned: bool = True,
        adjusting: bool = True,
        latency_bits: int = LATENCY_BITS,
    ) -> None:
        self.rate_limit_mb_s, self.hot_threshold_ms, self.scan_size_mb = rate_limit_mb_s, hot_threshold_ms, scan_size_mb
        self.mode, self.period_min, self.period_max = mode, scan_period_min_ms or 0, scan_period_max_ms or 0
        self.cloned, self.adjusting, self.latency_bits = cloned, adjusting, latency_bits
        self.scans = self.capped = 0

    def attach(self, system: System) -> None:
        """Install the fault handler and a scanner a tenant."""
        self.system = system
        self.size_mb = self.scan_size_mb or system.sysctl("numa_balancing/scan_size_mb")
        threshold = self.hot_threshold_ms or system.sysctl("numa_balancing/hot_threshold_ms")
        rate = self.rate_limit_mb_s or system.sysctl("kernel.numa_balancing_promote_rate_limit_MBps")
        self.period_min = self.period_min or system.sysctl("numa_balancing/scan_period_min_ms")
        self.period_max = self.period_max or system.sysctl("numa_balancing/scan_period_max_ms")
        adjusts_after = self.period_max if self.adjusting else NEVER_MS
        self.rules = promotion_rules(threshold, adjusts_after, rate, system.fold)
        self.own = handler_words(
            [system.cost_ps("hint_fault"), system.cost_ps("hint_fault_promote")],
            system.cost_ps("hint_fault") + system.cost_ps("migrate_2m"),
            fold=system.fold,
            target=system.default_target,
            mode=self.mode,
            threads=[tenant.threads for tenant in system.tenants],
            latency_bits=self.latency_bits,
        )
        self.areas, self.order = new_areas(system.mm.vma, [tenant.workload.small_vmas for tenant in system.tenants])
        self.context = fault_context(system.mm, self.handler_arrays())
        system.on_fault(self.handler, self.context, self.spent)
        for tenant in system.tenants:
            system.daemon("task_numa_work", partial(self.scan, tenant=tenant), tenant=tenant, phase_ms=0)

    def handler_arrays(self) -> list[np.ndarray]:
        """What the fault handler owns, in its order."""
        return [self.own, self.rules, self.areas]

    def spent(self) -> int:
        """Application CPU time spent in hint faults so far, ps (full size)."""
        return int(self.own[SPENT_PS])

    def periods(self, tenant: Tenant) -> tuple[int, int]:
        """task_scan_min, task_scan_max of a tenant in ms."""
        return scan_bounds(tenant.rss_mb(), self.size_mb, self.period_min, self.period_max)

    def limits(self, system: System, tenant: Tenant) -> np.ndarray:
        """What a scan of this tenant goes by (`numa_scan.task_numa_work`)."""
        budget = system.scaled(self.size_mb * 256, "scan size")
        delay = system.sysctl("numa_balancing/scan_delay_ms")
        normal, alone = bool(self.mode & NORMAL), tenant.threads == 1
        mark_top = 0 if not normal else 2 if self.mode & TIERING else 1
        home = system.default_target if alone else -1
        known = int(system.machine.kernel_at_least("6.7"))
        active = int(normal and not alone)
        limits = [budget, VIRTUAL_FACTOR * budget, delay, tenant.threads, 0, known, mark_top, home, active]
        return np.array(limits, np.int64)

    def scan(self, system: System, tenant: Tenant) -> Iterator[Any]:
        """The ticks of a tenant's tasks: every scan period of their run time one task_numa_work."""
        mm, order, limits = system.mm, self.order[tenant.index], self.limits(system, tenant)
        delay_ms, cursor = int(limits[DELAY_MS]), np.zeros(CURSOR_WORDS, np.int64)
        first_ms = delay_ms if self.cloned and tenant.threads > 1 else None
        period = ScanPeriod(*self.periods(tenant), tenant.threads, first_ms)
        row = self.own[FIRST_MEMCG + MEMCG_WORDS * tenant.index :][:MEMCG_WORDS]
        placed = 0
        yield system.sleep_exact_ms(delay_ms)
        while True:
            stamp_ms, wall_ms = tenant.runtime_ms(), system.now_ms
            limits[THREAD] = self.scans % tenant.threads
            updated, seen = task_numa_work(mm, self.areas, order, cursor, limits, int(wall_ms))
            row[M_ARMED] = cursor[SEQ] != placed
            mm.stat[NUMA_PTE_UPDATES] += updated
            spent_ms = self.charge(system, tenant, int(updated), int(seen)) / 1e9
            self.scans += 1
            self.capped += self.is_capped(period.ms, spent_ms, tenant.threads)
            next_ms = wall_ms + period.ms
            while True:
                if row[M_CLOSED_PS]:
                    placed, closed_ms = int(cursor[SEQ]), int(row[M_CLOSED_PS]) / 1e9
                    if self.close_sweep(row, period):
                        next_ms = max(next_ms, closed_ms + period.ms)
                left = next_ms - system.now_ms
                if left <= 0:
                    left = stamp_ms + self.pause_ms(period.ms, spent_ms, tenant.threads) - tenant.runtime_ms()
                if left <= 0:
                    break
                yield system.sleep_exact_ms(max(1.0, left))

    def charge(self, system: System, tenant: Tenant, updated: int, seen: int) -> float:
        """What a scan costs the thread that makes it, ps (full size)."""
        return system.charge_tenant(tenant, mark_pte=updated, walk_pte=seen - updated, mark_flush_once=int(updated > 0))

    def pause_ms(self, period_ms: float, spent_ms: float, threads: int) -> float:
        """Run time of each thread from one scan to the next: the period,
        but a thread that scanned waits longer than the others.
        """
        own = period_ms + RUN_PER_SCAN * spent_ms + LOST_TICKS * 1000 / self.system.machine.hz
        return own if threads == 1 else max(period_ms, own / threads)

    def is_capped(self, period_ms: float, spent_ms: float, threads: int) -> bool:
        """Whether the cap of 3 % a thread, more than the period, says when the next scan comes."""
        if threads == 1:
            return RUN_PER_SCAN * spent_ms > period_ms
        return self.pause_ms(period_ms, spent_ms, threads) > period_ms

    def close_sweep(self, row: np.ndarray, period: ScanPeriod) -> bool:
        """task_numa_placement: let the sweep's faults change the period; True if it was doubled.

        A doubling leaves the counts by place as they are, so a failed migration doubles the period at every later sweep
        as well.
        """
        sweep = row[M_SWEEP:].tolist()
        row[M_CLOSED_PS] = 0
        if period.update(Faults(*sweep)):
            return True
        row[M_REMOTE : M_FAILED + 1] -= sweep[:3]
        return False

    def bound(self) -> dict[str, float]:
        """Share of scans after which the 3 % cap, not the period, set the pace."""
        return {"scan cap": self.capped / self.scans if self.scans else 0.0}


def handler_words(
    costs: list[int],
    huge_ps: int,
    *,
    fold: int,
    target: int,
    mode: int,
    threads: list[int],
    latency_bits: int = LATENCY_BITS,
) -> np.ndarray:
    """The i64 that the fault handler owns.

    Args:
        costs: ps of a fault, and of one that promotes 4 KiB; huge_ps: of one that promotes 2 MiB.
        threads: of each memcg.
        latency_bits: of the field of hint latencies.
    """
    rows = np.zeros((len(threads), MEMCG_WORDS), np.int64)
    rows[:, M_THREADS] = threads
    head = np.array([*costs, huge_ps, fold, target, 0, mode, 0, (1 << latency_bits) - 1], np.int64)
    return np.concatenate([head, rows.ravel()])
