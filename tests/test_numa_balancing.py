"""NUMA balancing: threshold controller and rate limiter against plain Python; hint faults against a law;
modes 0 to 3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench.engine.bits import ACCESSED, NODE_MASK, TRAP
from klrubench.errors import ParameterError
from klrubench.machine import Machine, load_machine
from klrubench.mm.fault import fault_context
from klrubench.mm.numa_balancing import (
    FIRST_MEMCG,
    FOLD,
    LATENCY_BITS,
    M_ARMED,
    M_CLOSED_PS,
    M_FAILED,
    M_LOCAL,
    M_PRIVATE,
    M_REMOTE,
    M_SHARED,
    M_SWEEP,
    MEMCG_WORDS,
    SPENT_PS,
    NumaBalancing,
    handler_words,
    numa_hint_fault,
)
from klrubench.mm.numa_promotion import adjust_threshold, may_promote, promotion_rules, rate_limited
from klrubench.mm.numa_scan import new_areas
from klrubench.mm.state import (
    CAPACITY,
    FREE,
    KSWAPD_WAKE,
    NB_THRESHOLD_MS,
    NOW_MS,
    NUMA_FAULT_PROMOTIONS,
    NUMA_FREE_BYPASS,
    NUMA_HINT_FAULTS,
    NUMA_HINT_FAULTS_LOCAL,
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

    def __init__(
        self, threads: int = 4, fold: int = 2, top: int = 4096, mode: int = 2, latency_bits: int = LATENCY_BITS
    ) -> None:
        self.mm = new_mm([(2048, 0, False, 0), (2, 0, False, 9)], [top, 8192], [0, 1], 1, 64)
        allocate(self.mm.address, np.concatenate([np.arange(2048), [2048, 2049]]), np.array([1]))
        self.mm.setting[[WINDOW, WAKE_ON_REFUSE]] = -1, 1
        self.mm.node[0, WMARK_HIGH] = 100
        self.own = handler_words(
            [1000, 7000], 90_000, fold=fold, target=0, mode=mode, threads=[threads], latency_bits=latency_bits
        )
        self.rules = promotion_rules(1000, 60_000, 65_536, 1)
        self.areas, _ = new_areas(self.mm.vma, [0])
        self.context = fault_context(self.mm, [self.own, self.rules, self.areas])
        self.row = self.own[FIRST_MEMCG:]

    def fault(self, page: int, now_ms: int) -> int:
        return int(numa_hint_fault.ctypes(self.context.ctypes.data, page, now_ms * PS_PER_MS))


@pytest.mark.parametrize(
    ("latency", "promoted"), [(0, True), (999, True), (1000, False), (5000, False), ((1 << LATENCY_BITS) + 5, True)]
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
    counted = handler.row[[M_REMOTE, M_LOCAL, M_FAILED, M_PRIVATE, M_SHARED]].tolist()
    assert counted == [int(promoted), 0, 0, int(promoted), 0]  # a page that stays below is not accounted at all
    stats = handler.mm.stat[[NUMA_HINT_FAULTS, NUMA_FAULT_PROMOTIONS, PGPROMOTE_SUCCESS]].tolist()
    assert stats == [1, int(promoted), int(promoted)]
    check_memory(handler.mm)


@pytest.mark.parametrize(("bits", "promoted"), [(12, True), (13, False), (21, False)])
def test_a_narrow_field_reads_a_long_latency_as_a_short_one(bits: int, promoted: bool) -> None:
    """4.2 s are 104 ms where the field has 12 bits."""
    handler = Handler(latency_bits=bits)
    handler.mm.scan_ms[9] = 300
    handler.fault(9, 4500)
    assert (handler.mm.pte[9] & NODE_MASK == 0) == promoted


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


def test_the_normal_mode_promotes_at_the_second_fault() -> None:
    """At the first a lower-tier page's last CPU is unknown; then whichever thread faults, it came from here."""
    handler = Handler(mode=1)
    for page in range(1024):
        assert handler.fault(page, 5000) == 500
    assert handler.mm.stat[PGPROMOTE_SUCCESS] == 0 and not handler.row[M_REMOTE : M_SHARED + 1].any()
    for page in range(1024):
        assert handler.fault(page, 90_000) == 3500
    assert handler.mm.stat[PGPROMOTE_SUCCESS] == 1024
    assert handler.row[M_REMOTE] == 1024 and handler.row[M_LOCAL] == handler.row[M_FAILED] == 0
    # the other of four equal threads took three of four faults
    assert handler.row[M_PRIVATE] + handler.row[M_SHARED] == 1024
    assert abs(handler.row[M_PRIVATE] - 256) < 5 * math.sqrt(1024 * 3 / 16)
    check_memory(handler.mm)


def test_a_failed_promotion_is_accounted_in_the_normal_mode_only() -> None:
    """Without memory tiering a fault that leaves its page below counts as failed, and kswapd is not asked."""
    for mode, failed in ((1, 1), (2, 0), (3, 0)):
        handler = Handler(threads=1, top=512, mode=mode)
        handler.mm.node[0, WMARK_HIGH] = 10_000
        handler.mm.setting[WAKE_ON_REFUSE] = mode >> 1
        handler.fault(1, 1)
        handler.fault(1, 2)
        assert handler.row[M_FAILED] == failed
        assert handler.mm.node[0, KSWAPD_WAKE] == mode >> 1


@pytest.mark.parametrize("mode", [1, 3])
def test_faults_on_the_top_tier_are_local_and_move_nothing(mode: int) -> None:
    """One thread: all private. The first fault of a page is private for any number of threads."""
    for threads in (1, 4):
        handler = Handler(threads=threads, mode=mode)
        handler.mm.pte[:] &= np.uint8(0xFF ^ NODE_MASK)
        faults = 2000
        for k in range(faults):
            assert handler.fault(k % 500, k) == 2000 // threads
        assert handler.mm.stat[NUMA_HINT_FAULTS_LOCAL] == handler.row[M_LOCAL] == faults
        expected = faults if threads == 1 else 500 + 1500 / 4
        assert abs(handler.row[M_PRIVATE] - expected) <= 5 * math.sqrt(1500 * 3 / 16)
        assert handler.row[M_SHARED] == faults - handler.row[M_PRIVATE]
        assert handler.mm.stat[PGPROMOTE_SUCCESS] == 0


def test_the_first_accounted_fault_of_a_sweep_closes_the_one_before() -> None:
    """It keeps the counts without itself and when it came; only those by thread start over."""
    handler = Handler(threads=1)
    for page in range(10):
        handler.fault(page, 5)
    handler.row[M_ARMED] = 1
    handler.fault(10, 2000)  # latency 2 s: not promoted, not accounted
    assert handler.row[M_CLOSED_PS] == 0
    handler.mm.scan_ms[11] = 2990
    handler.fault(11, 3000)
    assert handler.row[M_CLOSED_PS] == 3000 * PS_PER_MS and handler.row[M_ARMED] == 0
    assert handler.row[M_SWEEP:].tolist() == [10, 0, 0, 10, 0]
    assert handler.row[M_REMOTE : M_SHARED + 1].tolist() == [11, 0, 0, 1, 0]


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


@pytest.mark.parametrize("rate", [0.3, 0.6])
def test_a_narrow_field_promotes_by_the_exponential_law_of_all_its_turns(rate: float) -> None:
    """12 bits: 1 s of each 4.096 s promotes, sum of e^(-4.096 k rate) (1 - e^-rate) over all k."""
    once = {"scan_size_mb": 2048, "scan_period_min_ms": 60_000, "cloned": False}
    system = started(machine((9, 1)), 35.0, NumaBalancing(latency_bits=12, **once), rate=rate)
    system.run()
    pages = 1 << 16
    assert system.mm.stat[NUMA_PTE_UPDATES] == pages  # one scan; in 34 s all but e^(-34 rate) are touched
    expected = (1 - math.exp(-rate)) / (1 - math.exp(-4.096 * rate))
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
        machine((1, 1), demotion_enabled=0),
        10.0,
        (still := NumaBalancing(scan_size_mb=16, cloned=False)),
        placement="first_touch",
    )
    before = int(stuck.mm.node[0, CAPACITY])
    stuck.run()
    assert stuck.mm.stat[PGPROMOTE_SUCCESS] <= before * 0.2
    moving = started(machine((9, 1)), 10.0, (doubling := NumaBalancing(scan_size_mb=16, cloned=False)), rate=0.5)
    moving.run()
    assert moving.mm.stat[PGPROMOTE_SUCCESS] > 10_000
    assert still.periods(stuck.tenants[0]) == (1000 // 17, 60_000 // 17)
    assert abs(still.scans - 9000 / 59) < 10
    assert doubling.scans < still.scans / 2


@pytest.mark.parametrize(("threads", "cloned", "first_ms"), [(6, True, 1000), (6, False, 59), (1, True, 61)])
def test_cloned_threads_begin_with_the_scan_delay(threads: int, cloned: bool, first_ms: int) -> None:
    """Until a sweep's first accounted fault, and there is none where nothing can be promoted."""
    full = machine((1, 1), demotion_enabled=0)
    mechanism = NumaBalancing(scan_size_mb=16, cloned=cloned)
    system = started(full, 10.0, mechanism, placement="first_touch", threads=threads, rate=0.3)
    system.mm.node[0, WMARK_HIGH] = 1 << 20  # the gate lets nothing through
    system.run()
    assert system.mm.stat[PGPROMOTE_SUCCESS] == 0
    assert mechanism.scans == pytest.approx(9000 / first_ms, rel=0.1)


def test_the_handler_accounts_a_fault_to_the_memcg_of_its_page() -> None:
    mm = new_mm([(1024, 0, False, 0), (1024, 1, False, 0)], [4096, 4096], [0, 1], 2, 64)
    allocate(mm.address, np.arange(2048), np.array([1]))
    own = handler_words([800, 800], 0, fold=1, target=0, mode=2, threads=[1, 8])
    areas, _ = new_areas(mm.vma, [0, 0])
    context = fault_context(mm, [own, promotion_rules(1000, 60_000, 65_536, 1), areas])
    mm.setting[WINDOW] = -1
    assert [int(numa_hint_fault.ctypes(context.ctypes.data, page, 8 * PS_PER_MS)) for page in (3, 1500)] == [800, 100]
    assert own[[FIRST_MEMCG + M_REMOTE, FIRST_MEMCG + MEMCG_WORDS + M_REMOTE]].tolist() == [1, 1]


def mode_run(mode: int, ratio: tuple[float, float] = (9, 1), **values: Any) -> System:
    """20 s of `uniform`, 3 touches a page and second, in one mode."""
    policy = find_policy("numa_balancing")(mode=mode)
    workload = find_workload("uniform")(footprint_gib=0.25, **{"rate": 3.0, "placement": "lower", **values})
    system = build(machine(ratio), workload, policy, 5, 20.0, 4, Options(phases=False))
    system.set_tiering(policy.sysctls["kernel.numa_balancing"])
    policy.start(system)
    system.run()
    check_memory(system.mm)
    return system


def test_modes_0_to_3() -> None:
    """Off does nothing; normal needs two faults a page; tiering one; both mark the top tier as well."""
    stats = {mode: mode_run(mode).mm.stat for mode in range(4)}
    assert stats[0][[NUMA_PTE_UPDATES, NUMA_HINT_FAULTS, PGPROMOTE_SUCCESS]].tolist() == [0, 0, 0]
    room = 0.88 * (1 << 14)  # the top tier holds nine tenths
    for mode in (1, 2, 3):
        assert stats[mode][PGPROMOTE_SUCCESS] > room
    assert stats[1][NUMA_HINT_FAULTS] - stats[1][NUMA_HINT_FAULTS_LOCAL] > 2 * room
    assert stats[2][NUMA_HINT_FAULTS_LOCAL] == 0
    assert min(stats[1][NUMA_HINT_FAULTS_LOCAL], stats[3][NUMA_HINT_FAULTS_LOCAL]) > room


def test_a_single_thread_s_own_node_is_not_marked() -> None:
    """One thread in the normal mode: its pages on its node take no hint faults."""
    system = mode_run(1, threads=1, rate=1.0)
    assert system.mm.stat[PGPROMOTE_SUCCESS] > 0
    assert system.mm.stat[NUMA_HINT_FAULTS_LOCAL] == 0


def test_several_threads_share_the_cap_of_three_percent() -> None:
    """What a scan takes holds up the thread that made it; others go on at the period."""
    one, six = NumaBalancing(), NumaBalancing()
    for mechanism, threads in ((one, 1), (six, 6)):
        started(machine((9, 1)), 1.0, mechanism, threads=threads)
    assert one.pause_ms(100, 10, 1) == 100 + 320 + 2
    assert six.pause_ms(100, 10, 6) == 100
    assert six.pause_ms(100, 100, 6) == (100 + 3200 + 2) / 6
    assert [six.is_capped(100, 10, 1), six.is_capped(100, 10, 6), six.is_capped(100, 100, 6)] == [True, False, True]


@pytest.mark.parametrize("name", ["numab0", "numab2", "numab3"])
def test_other_names(name: str) -> None:
    """Each runs under its own kernel.numa_balancing, and takes no other."""
    policy = find_policy(name)()
    assert policy.sysctls == {"kernel.numa_balancing": int(name[-1])} and policy.mode == int(name[-1])
    with pytest.raises(ParameterError, match="mode=1"):
        find_policy(name)(mode=1)


def test_a_default_follows_the_machine_s_settings() -> None:
    """--sysctl reaches what the policy leaves alone; a value that is given goes before it."""
    where = machine((9, 1), **{"numa_balancing/scan_period_max_ms": 5000, "numa_balancing/hot_threshold_ms": 50})
    for values, expected in (({}, (5000, 50)), ({"scan_period_max_ms": 7000, "hot_threshold_ms": 70}, (7000, 70))):
        policy = find_policy("numa_balancing")(**values)
        workload = find_workload("uniform")(footprint_gib=0.25)
        system = build(where, workload, policy, 5, 1.0, 4, Options(phases=False))
        policy.start(system)
        mechanism = next(each for each in system.mechanisms if isinstance(each, NumaBalancing))
        assert (mechanism.period_max, int(mechanism.rules[0])) == expected
