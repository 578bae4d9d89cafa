"""NUMA balancing: cursor, threshold controller and rate limiter against plain Python; hint faults against a law."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench.engine.bits import ACCESSED, NODE_MASK, TRAP
from klrubench.machine import Machine, load_machine
from klrubench.mm.fault import fault_context
from klrubench.mm.numa_balancing import (
    FIRST_MEMCG,
    FOLD,
    LATENCY_MASK,
    SPENT_PS,
    NumaBalancing,
    numa_hint_fault,
    scan_memory,
)
from klrubench.mm.numa_promotion import adjust_threshold, may_promote, promotion_rules, rate_limited
from klrubench.mm.state import (
    CAPACITY,
    FREE,
    KSWAPD_WAKE,
    NB_THRESHOLD_MS,
    NOW_MS,
    NUMA_FAULT_PROMOTIONS,
    NUMA_FREE_BYPASS,
    NUMA_HINT_FAULTS,
    NUMA_LIMITED,
    NUMA_PTE_UPDATES,
    PGPROMOTE_CANDIDATE,
    PGPROMOTE_CANDIDATE_NRL,
    PGPROMOTE_SUCCESS,
    VMA_ORDER,
    WAKE_ON_REFUSE,
    WINDOW,
    WMARK_HIGH,
    WMARK_PROMO,
    Mm,
    new_mm,
)  # fmt: skip
from klrubench.simulate import Options
from klrubench.simulate.build import build
from klrubench.simulate.placement import allocate
from klrubench.simulate.result import check_memory
from klrubench.simulate.system import System
from klrubench.study.plugins import find_policy, find_workload

PS_PER_MS = 1_000_000_000
CHEAP = {"hint_fault": "0.01x", "hint_fault_promote": "0.001x", "mark_pte": "0.01x", "mark_flush": "0.01x"}


# --- the cursor -----------------------------------------------------------------------------------------------------
def slow_scan(mm: Mm, memcg: int, offset: int, budget: int, virtual: int, now: int) -> tuple[int, int, int]:
    """task_numa_work, a range at a time and a page at a time; marks in place."""
    updated = seen = 0
    for start, end, owner, _, order in mm.vma.tolist():
        if owner != memcg:
            continue
        here = max(start, offset)
        while here < end:
            pages_left = max(budget, 1)
            stop = here
            while stop < end and (((stop - here) << order) < pages_left or (order == 0 and stop % 512)):
                stop += 1
            changed = 0
            for page in range(here, stop):
                seen += 1
                if mm.node[mm.pte[page] & NODE_MASK, 6] > 0 and not mm.pte[page] & TRAP:
                    mm.pte[page] |= TRAP
                    mm.scan_ms[page] = now
                    changed += 1
            updated += changed
            budget -= ((stop - here) << order) if changed else 0
            virtual -= (stop - here) << order
            here = stop
            if budget <= 0 or virtual <= 0:
                return here, updated, seen
    return -1, updated, seen


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32), lower=st.sampled_from([0.0, 0.01, 0.5, 1.0]), budget=st.integers(1, 3000),
    factor=st.sampled_from([1, 8]),
    vmas=st.lists(st.tuples(st.integers(1, 2500), st.integers(0, 1), st.booleans()), min_size=1, max_size=4),
)  # fmt: skip
def test_the_scan_equals_the_twin(
    seed: int, lower: float, budget: int, factor: int, vmas: list[tuple[int, int, bool]]
) -> None:
    """Scan after scan over mixed VMAs: cursor, marks, scan times, PTEs changed and seen."""
    rng = np.random.default_rng(seed)
    layout = [(pages // 40 + 1 if huge else pages, memcg, False, 9 if huge else 0) for pages, memcg, huge in vmas]
    mine, twin = (new_mm(layout, [1 << 20, 1 << 20, 1 << 20], [0, 1, 2], 2, 64) for _ in range(2))
    tables = np.repeat(rng.random(len(mine.pte) >> 9) < lower, 512)
    mine.pte[:] = np.where(tables, rng.integers(0, 3, len(mine.pte)), 0) | rng.choice(
        [0, TRAP], len(mine.pte), p=[0.9, 0.1]
    )
    twin.pte[:] = mine.pte
    offset = 0
    for step in range(6):
        result = scan_memory(mine, 0, offset, budget, factor * budget, 100 + step)
        assert tuple(result) == slow_scan(twin, 0, offset, budget, factor * budget, 100 + step)
        assert mine.pte.tolist() == twin.pte.tolist() and mine.scan_ms.tolist() == twin.scan_ms.tolist()
        offset = max(0, int(result[0]))


def test_a_scan_of_2_mib_pages_counts_bytes() -> None:
    """256 MiB of budget are 128 huge pages, not 65,536."""
    mm = new_mm([(1000, 0, False, 9)], [1 << 20, 1 << 20], [0, 1], 1, 64)
    mm.pte[:] = 1
    assert scan_memory(mm, 0, 0, 1 << 16, 8 << 16, 5) == (128, 128, 128)


# --- threshold and rate ---------------------------------------------------------------------------------------------
class Rules:
    """should_numa_migrate_memory with its controller and limiter, in the words of the fact it comes from."""

    def __init__(self, default_ms: int, period_ms: int, rate: int, spare: int, capacity: int, promo: int) -> None:
        self.default, self.period, self.rate, self.spare = (
            default_ms,
            period_ms,
            rate,
            max(spare, capacity // 16) + promo,
        )
        self.threshold, self.period_start, self.count_then = 0, 0, 0
        self.second_start, self.count_at_second = 0, 0
        self.candidates = self.limited = self.bypassed = 0

    def allows(self, now: int, latency: int, pages: int, free: int) -> bool:
        if free > self.spare:
            self.threshold = 0
            self.bypassed += pages
            return True
        if now - self.period_start > self.period:
            expected = self.rate * self.period / 1000
            seen = self.candidates - self.count_then
            self.period_start, self.count_then = now, self.candidates
            step = 2 * self.default // 16
            current = self.threshold or self.default
            if seen > 1.1 * int(expected):
                current = max(current - step, step)
            elif seen < 0.9 * int(expected):
                current = min(current + step, 2 * self.default)
            self.threshold = current
        if latency >= (self.threshold or self.default):
            return False
        self.candidates += pages
        if now - self.second_start > 1000:
            self.second_start, self.count_at_second = now, self.candidates
        if self.candidates - self.count_at_second >= self.rate:
            self.limited += pages
            return False
        return True


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32), default=st.sampled_from([16, 100, 1000]), rate_mb=st.sampled_from([1, 4, 65_536]),
    fold=st.sampled_from([1, 32]), roomy=st.sampled_from([0.0, 0.01]), pace=st.sampled_from([1, 30, 900]),
)  # fmt: skip
def test_threshold_and_rate_limit_equal_the_twin(
    seed: int, default: int, rate_mb: int, fold: int, roomy: float, pace: int
) -> None:
    """Three thousand decisions at random times and latencies: each answer, the threshold after it, every counter."""
    rng = np.random.default_rng(seed)
    mm = new_mm([(512, 0, False, 0)], [1 << 19, 1 << 19], [0, 1], 1, 64)
    mm.node[0, WMARK_PROMO] = 700
    twin = Rules(default, 60_000, max(1, rate_mb * 256 // fold), (1 << 18) // fold, 1 << 19, 700)
    rules, now = promotion_rules(default, 60_000, rate_mb, fold), 0
    for _ in range(3000):
        now += int(rng.integers(0, 2 * pace))
        mm.setting[NOW_MS] = now
        mm.node[0, FREE] = twin.spare + (1 if rng.random() < roomy else -int(rng.integers(0, 500)))
        latency, pages = int(rng.integers(0, 3 * default)), int(rng.choice([1, 1, 1, 512]))
        assert may_promote(mm, 0, rules, latency, pages) == twin.allows(now, latency, pages, int(mm.node[0, FREE]))
        assert mm.node[0, NB_THRESHOLD_MS] == twin.threshold
    counted = [int(mm.stat[k]) for k in (PGPROMOTE_CANDIDATE, NUMA_LIMITED, PGPROMOTE_CANDIDATE_NRL, NUMA_FREE_BYPASS)]
    assert counted == [twin.candidates, twin.limited, twin.bypassed, twin.bypassed]


def test_the_threshold_drifts_to_twice_the_default_under_the_default_limit_and_to_one_step_under_a_tight_one() -> None:
    """64 GiB/s are never reached: + 1/8 a period up to 2000 ms; a limit that always binds: down to 125 ms."""
    for candidates, expected in (
        (0, [1125, 1250, 1375, 1500, 1625, 1750, 1875, 2000, 2000]),
        (10**6, [875, 750, 625, 500, 375, 250, 125, 125]),
    ):
        mm = new_mm([(512, 0, False, 0)], [1 << 19, 1 << 19], [0, 1], 1, 64)
        rules, seen = promotion_rules(1000, 60_000, 16, 1), []
        for step in range(len(expected)):
            mm.stat[PGPROMOTE_CANDIDATE] += candidates
            mm.setting[NOW_MS] = (step + 1) * 60_001
            adjust_threshold(mm, 0, rules)
            seen.append(int(mm.node[0, NB_THRESHOLD_MS]))
        assert seen == expected


@pytest.mark.parametrize(("candidates", "threshold"), [(899, 1125), (900, 1000), (1100, 1000), (1101, 875)])
def test_the_threshold_stays_within_a_tenth_of_the_expected_candidates(candidates: int, threshold: int) -> None:
    """A limit of 1000 pages a period: under 900 candidates it rises, over 1100 it falls."""
    mm = new_mm([(512, 0, False, 0)], [1 << 19, 1 << 19], [0, 1], 1, 64)
    rules = promotion_rules(1000, 1000, 65_536, 1)
    rules[2] = 1000
    mm.stat[PGPROMOTE_CANDIDATE], mm.setting[NOW_MS] = candidates, 1001
    adjust_threshold(mm, 0, rules)
    assert (mm.node[0, NB_THRESHOLD_MS] or 1000) == threshold


def test_the_limiter_grants_its_rate_each_second() -> None:
    """4 MB/s are 1024 pages a second; the candidate that opens the second is not counted in it."""
    mm = new_mm([(512, 0, False, 0)], [1 << 19, 1 << 19], [0, 1], 1, 64)
    rules = promotion_rules(1000, 60_000, 4, 1)
    granted = []
    for second in range(3):
        mm.setting[NOW_MS] = 2000 + 1001 * second
        granted.append(sum(not rate_limited(mm, 0, rules, 1) for _ in range(3000)))
    assert granted == [1024, 1024, 1024]


# --- the fault ------------------------------------------------------------------------------------------------------
class Handler:
    """The compiled handler over a small memory, called as the access loop calls it."""

    def __init__(self, threads: int = 4, fold: int = 2, top: int = 4096) -> None:
        self.mm = new_mm([(2048, 0, False, 0), (2, 0, False, 9)], [top, 8192], [0, 1], 1, 64)
        allocate(self.mm, np.concatenate([np.arange(2048), [2048, 2049]]), np.array([1]))
        self.mm.setting[[WINDOW, WAKE_ON_REFUSE]] = -1, 1
        self.mm.node[0, WMARK_HIGH] = 100
        self.own = np.array([1000, 7000, 90_000, fold, 0, 0, 0, threads, 0], np.int64)
        self.rules = promotion_rules(1000, 60_000, 65_536, 1)
        self.context = fault_context(self.mm, [self.own, self.rules])

    def fault(self, page: int, now_ms: int) -> int:
        return int(numa_hint_fault.ctypes(self.context.ctypes.data, page, now_ms * PS_PER_MS))


@pytest.mark.parametrize(
    ("latency", "promoted"), [(0, True), (999, True), (1000, False), (5000, False), (LATENCY_MASK + 1 + 5, True)]
)
def test_a_page_is_promoted_if_its_hint_latency_is_under_the_threshold(latency: int, promoted: bool) -> None:
    """Milliseconds in a field of 21 bits: 35 minutes and 5 ms look like 5 ms."""
    handler = Handler()
    handler.mm.scan_ms[9] = 300
    stall = handler.fault(9, 300 + latency)
    assert (handler.mm.pte[9] & NODE_MASK == 0) == promoted
    assert (
        stall == (7000 if promoted else 1000) * 2 // 4
        and handler.own[SPENT_PS] == (7000 if promoted else 1000) * handler.own[FOLD]
    )
    assert handler.mm.scan_ms[9] == 300 + latency  # the field now holds the time of the fault
    assert handler.own[FIRST_MEMCG + 1] == promoted
    stats = handler.mm.stat[[NUMA_HINT_FAULTS, NUMA_FAULT_PROMOTIONS, PGPROMOTE_SUCCESS]].tolist()
    assert stats == [1, int(promoted), int(promoted)]
    check_memory(handler.mm)


def test_a_huge_page_moves_whole_and_a_top_tier_page_stays() -> None:
    handler = Handler()
    assert handler.fault(2049, 1) == 90_000 * 2 // 4
    assert handler.mm.stat[NUMA_FAULT_PROMOTIONS] == 512 and handler.mm.vma[1, VMA_ORDER] == 9
    assert handler.fault(2049, 2) == 1000 * 2 // 4
    assert handler.mm.stat[PGPROMOTE_SUCCESS] == 512


def test_a_refusal_wakes_kswapd_once_and_asks_the_loop_to_stop() -> None:
    """The stop is -1 - stall, at the first refusal only; the page stays."""
    handler = Handler(top=512)
    handler.mm.node[0, WMARK_HIGH] = 10_000
    assert handler.fault(1, 1) == -1 - 500
    assert handler.mm.node[0, KSWAPD_WAKE] == 1
    assert handler.fault(2, 1) == 500
    assert handler.mm.stat[PGPROMOTE_SUCCESS] == 0


# --- in a run -------------------------------------------------------------------------------------------------------
def machine(ratio: tuple[float, float], **sysctls: Any) -> Machine:
    return load_machine("cxl-asic", ratio=ratio, costs=CHEAP, sysctls=sysctls)


def started(where: Machine, duration_s: float, mechanism: NumaBalancing, **values: Any) -> System:
    """A run of `uniform` with all pages on the lower tier, hint faults installed."""
    workload = find_workload("uniform")(footprint_gib=0.25, **{"placement": "lower", **values})
    system = build(where, workload, find_policy("first_touch")(), 5, duration_s, 1, Options(phases=False))
    system.set_tiering(2)
    system.add(mechanism)
    return system


@pytest.mark.parametrize(("rate", "threshold"), [(0.3, 1000), (1.0, 1000), (2.0, 500), (6.0, 100)])
def test_one_scan_promotes_by_the_exponential_law(rate: float, threshold: int) -> None:
    """P(promoted in a scan) = 1 - e^(-rate x threshold) for pages touched at random; one scan marks all 256 MiB."""
    system = started(machine((9, 1)), 2.0, NumaBalancing(hot_threshold_ms=threshold, scan_size_mb=2048), rate=rate)
    system.run()
    system_s = system.state[0, 0] / 1e12
    pages = 1 << 16
    assert 1.95 < system_s < 2.2  # marked at 1 s, marked again only at 2 s
    expected = 1 - math.exp(-rate * threshold / 1000)
    promoted = int(system.mm.stat[PGPROMOTE_SUCCESS]) / pages
    assert abs(promoted - expected) < 4 * math.sqrt(expected * (1 - expected) / pages) + 0.005 * expected
    check_memory(system.mm)


def test_marks_are_on_lower_tier_pages_only_and_each_fault_takes_one_away() -> None:
    """PTEs marked = hint faults + marks that still stand; nothing is marked before the first second has passed."""
    system = started(machine((1, 1)), 4.0, NumaBalancing(), placement="first_touch")
    early: list[int] = []
    system.every_ms(990, lambda: early.append(int(system.mm.stat[NUMA_PTE_UPDATES])))
    system.run()
    trapped = (system.mm.pte[: 1 << 16] & TRAP) > 0
    assert early[0] == 0 and early[-1] > 0
    assert system.mm.stat[NUMA_PTE_UPDATES] == system.mm.stat[NUMA_HINT_FAULTS] + np.count_nonzero(trapped)
    assert ((system.mm.pte[: 1 << 16][trapped] & NODE_MASK) == 1).all()
    assert (system.mm.pte[: 1 << 16] & ACCESSED).any()


def test_the_scan_period_stays_without_promotions_and_doubles_with_them() -> None:
    """16 MiB a scan: 17 windows of 58 ms. A full top tier keeps that; successes double it once a sweep up to 3.5 s."""
    stuck = started(
        machine((1, 1), demotion_enabled=0), 10.0, (still := NumaBalancing(scan_size_mb=16)), placement="first_touch"
    )
    before = int(stuck.mm.node[0, CAPACITY])
    stuck.run()
    assert stuck.mm.stat[PGPROMOTE_SUCCESS] <= before * 0.2
    moving = started(machine((9, 1)), 10.0, (doubling := NumaBalancing(scan_size_mb=16)), rate=0.5)
    moving.run()
    assert moving.mm.stat[PGPROMOTE_SUCCESS] > 10_000
    assert still.periods(stuck.tenants[0]) == (1000 // 17, 60_000 // 17)
    assert abs(still.scans - 9000 / 59) < 10
    assert doubling.scans < still.scans / 2


def test_several_tenants_are_scanned_each_in_its_own_pages() -> None:
    """The handler accounts a fault to the memcg of the page."""
    mm = new_mm([(1024, 0, False, 0), (1024, 1, False, 0)], [4096, 4096], [0, 1], 2, 64)
    allocate(mm, np.arange(2048), np.array([1]))
    assert scan_memory(mm, 1, 1024, 600, 4800, 7) == (2048, 1024, 1024)
    assert not (mm.pte[:1024] & TRAP).any() and (mm.pte[1024:] & TRAP).all()
    own, rules = np.array([800, 800, 0, 1, 0, 0, 0, 1, 0, 8, 0], np.int64), promotion_rules(1000, 60_000, 65_536, 1)
    context = fault_context(mm, [own, rules])
    mm.setting[WINDOW] = -1
    assert [int(numa_hint_fault.ctypes(context.ctypes.data, page, 8 * PS_PER_MS)) for page in (3, 1500)] == [800, 100]
    assert own[[FIRST_MEMCG + 1, FIRST_MEMCG + 3]].tolist() == [1, 1]
