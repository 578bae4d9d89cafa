"""DAMOS: scores, quotas, what is acted on and moved, against the plain-Python twin; whole runs of DAMON."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_damon import Quota, Region, hot_score, moving_nr
from slow_damon import next_input as slow_next_input
from small_runs import Quarter, kv, machine, run
from test_damon import check_partition, random_regions, regions_of, table_of

from klrubench.engine.bits import ACCESSED, IDLE, NODE_MASK, YOUNG
from klrubench.mm import damon
from klrubench.mm.damon import damos
from klrubench.mm.damon.regions import END, NR_ACCESSES, START
from klrubench.mm.damon.sampling import Space
from klrubench.mm.damon.tuning import ULONG_MAX, Intervals
from klrubench.mm.state import CAPACITY, FIRST_FRAME, FREE, KSWAPD_WAKE, WINDOW, WMARK_LOW, WMARK_MIN, Mm, new_mm
from klrubench.policy import Policy
from klrubench.simulate import simulate
from klrubench.simulate.placement import allocate
from klrubench.simulate.result import check_memory
from klrubench.simulate.system import System


# --- scores -----------------------------------------------------------------------------------------------------------
def settings_of(quota: Quota) -> np.ndarray:
    s = np.zeros(damos.SCHEME_WORDS, np.int64)
    s[[damos.HOT, damos.LEAST_NR, damos.MOST_NR]] = quota.hot, int(quota.hot), 1 << 32 if quota.hot else 0
    s[[damos.WEIGHT_NR, damos.WEIGHT_AGE]] = quota.weight_nr, quota.weight_age
    s[[damos.MAX_NR, damos.AGGREGATION_US, damos.PASSED]] = quota.max_nr, quota.aggregation_us, quota.passed
    s[[damos.QUOTA, damos.CHARGED_TO]] = quota.pages, damos.NOWHERE
    return s


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32), n=st.integers(1, 60), hot=st.booleans(), pages=st.integers(1, 1500),
    max_nr=st.sampled_from([2, 20, 333]), passed=st.integers(0, 20),
    weights=st.sampled_from([(100, 100), (0, 0), (1, 0), (3, 7)]), age_scale=st.sampled_from([1, 100, 10**9]),
)  # fmt: skip
def test_scores_and_the_least_of_the_quota_are_the_twins(
    seed: int, n: int, hot: bool, pages: int, max_nr: int, passed: int, weights: tuple[int, int], age_scale: int
) -> None:
    """Every score 0 to 99; regions above the least fit in the quota, with those at it they fill it or are all."""
    regions = random_regions(np.random.default_rng(seed), n, max_nr)
    for region in regions:
        region.age *= age_scale
    quota = Quota(hot, pages, max_nr, 100_000, min(passed, max_nr), *weights)
    s, table = settings_of(quota), table_of(regions, n)
    scores = [quota.score(region) for region in regions]
    assert [int(damos.score_of(table, k, s)) for k in range(n)] == [-1 if own is None else own for own in scores]
    assert all(own is None or 0 <= own <= 99 for own in scores)
    least = int(damos.least_score(table, n, s))
    assert least == quota.least(regions)
    sizes = [(own, region.size) for own, region in zip(scores, regions, strict=True) if own is not None]
    assert sum(size for own, size in sizes if own > least) < pages
    assert least == 0 or sum(size for own, size in sizes if own >= least) >= pages


@pytest.mark.parametrize(
    ("nr", "age", "score"),
    [
        (20, 0, 74),  # f 100, a 50: 75 of 100
        (20, 10, 74),  # 1 s: ilog2 + 1 = 1, 51
        (20, 40, 76),  # 4 s: 3, 54
        (0, 0, 24),  # f 0, a 50
        (0, 40, 21),  # colder with age: -3, 45
        (1, 0, 26),
        (0, 10**12, 0),  # 32 buckets at most
    ],
)
def test_hotness_of_known_regions(nr: int, age: int, score: int) -> None:
    s = settings_of(Quota(True, 1, 20, 100_000, 0))
    assert damos.hot_score(nr, age, s) == score == hot_score(nr, age, 20, 100_000, 100, 100)


def test_in_the_middle_of_an_aggregation_the_pattern_is_a_moving_sum_and_the_score_the_plain_count() -> None:
    """Half way, 20 accesses last time and none since: still 10 of a window, but a score as of none."""
    region = Region(0, 10, 0, 20, 0)
    s, table = settings_of(Quota(True, 10, 20, 100_000, 10)), table_of([region], 1)
    assert damos.moving_sum(table, 0, s) == moving_nr(region, 10, 20) == 10
    assert damos.score_of(table, 0, s) == 24


# --- applying ---------------------------------------------------------------------------------------------------------
class FakeSystem:
    """What a scheme asks of a run; time is set by hand, charges are summed."""

    def __init__(self, mm: Mm, fold: int = 1) -> None:
        self.mm, self.fold, self.now_ms, self.looked, self.moved = mm, fold, 0.0, 0, 0

    def charge(self, idle_check: int, idle_set: int) -> None:
        assert idle_set <= idle_check
        self.looked += int(idle_check)

    def charge_moves(self, _cost: str, folios: int, pages: int) -> None:
        assert folios == pages
        self.moved += int(pages)

    def flush_tlb(self, _folios: int, _per_flush: int) -> None:
        pass


def node_with(pages: int, node: int, seed: int) -> Mm:
    """`pages` pages in the first frames of a node, in order: old, young or not idle."""
    mm, rng = new_mm([(pages, 0, False, 0)], [1 << 13] * 2, [0, 1], 1, 64), np.random.default_rng(seed)
    mm.setting[WINDOW] = -1
    assert allocate(mm.address, np.arange(pages), np.array([node])) == 0
    mm.pte[:pages] &= 0xFF ^ ACCESSED
    mm.pte[:pages] |= np.where(rng.random(pages) < 0.4, ACCESSED, 0).astype(np.uint8)
    mm.folio[:pages] |= np.where(rng.random(pages) < 0.8, IDLE, 0).astype(np.uint8)
    return mm


def residents(mm: Mm, pages: int, node: int) -> set[int]:
    """Which of the first `pages` pages lie on a node."""
    return set(np.flatnonzero((mm.pte[:pages] & NODE_MASK) == node).tolist())


def context_of(mm: Mm, node: int, regions: list[Region], capacity: int, limit: int, samples: int, passed: int) -> Any:
    table = table_of(regions, capacity)
    return SimpleNamespace(
        table=table, n=len(regions), size_limit=limit, passed_since_reset=passed, intervals=Intervals(5000, samples),
        space=Space(regions[-1].end, regions[-1].end, int(mm.node[node, FIRST_FRAME]), 0),
    )  # fmt: skip


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32), n=st.integers(1, 40), hot=st.booleans(), quota=st.integers(1, 500),
    limit=st.integers(1, 300), rounds=st.lists(st.sampled_from([300.0, 1000.0]), min_size=1, max_size=6),
    passed=st.sampled_from([20, 7]),
)  # fmt: skip
def test_applications_are_the_twins_and_never_exceed_the_quota_of_a_window(
    seed: int, n: int, hot: bool, quota: int, limit: int, rounds: list[float], passed: int
) -> None:
    """Cuts, the place to go on from, ages, merges; the pages moved are those of the ranges that pass the filter."""
    rng, node = np.random.default_rng(seed), int(hot)
    regions = random_regions(rng, n, 20)
    pages = regions[-1].end
    mm = node_with(pages, node, seed)
    there = context_of(mm, node, regions, 400, limit, 20, passed)
    scheme = damon.Scheme(hot, 1 - node, 1 - node, 9970, quota_bytes=quota * 4096, tuner="none")
    slow, system = Quota(hot, quota, 20, 100_000, passed), FakeSystem(mm)
    used, opened = 0, None
    for wait in rounds:
        system.now_ms += wait
        if opened is None or system.now_ms >= opened + 1000:
            opened, used, slow.charged = system.now_ms, 0, 0
        before, pte, folio = residents(mm, pages, node), mm.pte.copy(), mm.folio.copy()
        for _ in scheme.apply(system, there):  # type: ignore[arg-type]
            pass
        regions, ranges = slow.apply(regions, limit)
        assert regions_of(there.table, there.n) == regions
        check_partition(there.table, there.n, pages)
        used += sum(end - start for start, end in ranges)
        assert scheme.state[damos.CHARGED] == slow.charged == used <= quota
        acted = [page for start, end in ranges for page in range(start, end) if page in before]
        young = {p for p in acted if pte[p] & ACCESSED or not folio[p] & IDLE}
        expected = {p for p in acted if (p in young) == hot}
        assert before - residents(mm, pages, node) == expected
        assert all(mm.folio[p] & IDLE and not mm.pte[p] & ACCESSED for p in young)
        assert all(mm.folio[p] & YOUNG for p in young if pte[p] & ACCESSED)
        for row in rng.integers(0, there.n, 3).tolist():  # another aggregation's counts
            regions[row].nr = int(rng.integers(0, 21))
            there.table[NR_ACCESSES, row] = regions[row].nr
    assert system.moved == pages - len(residents(mm, pages, node))
    check_memory(mm)


def test_a_region_that_does_not_fit_is_left_alone_where_the_table_has_no_room_for_a_cut() -> None:
    mm = node_with(100, 1, 0)
    there = context_of(mm, 1, [Region(0, 100, 20, 20, 3)], 1, 100, 20, 20)
    scheme = damon.Scheme(True, 0, 0, 9970, quota_bytes=30 * 4096, tuner="none")
    assert not list(scheme.apply(FakeSystem(mm), there))  # type: ignore[arg-type]
    assert there.n == 1 and scheme.state[damos.CHARGED] == 0 and (mm.pte[:100] & NODE_MASK == 1).all()


def test_the_next_window_goes_on_behind_the_last_page_charged() -> None:
    """A region of 100 pages at 30 a window: 0-30, 30-60, 60-90, then from the start, its last piece passed over."""
    mm = node_with(100, 1, 0)
    there = context_of(mm, 1, [Region(0, 100, 20, 20, 3), Region(100, 101, 0, 0, 3)], 50, 200, 20, 20)
    scheme = damon.Scheme(True, 0, 0, 9970, quota_bytes=30 * 4096, tuner="none")
    system, ends = FakeSystem(mm), []
    for now in (0.0, 1000.0, 2000.0):
        system.now_ms = now
        list(scheme.apply(system, there))  # type: ignore[arg-type]
        ends.append(int(scheme.state[damos.CHARGED_TO]))
    assert ends == [30, 60, 90]


@pytest.mark.parametrize(("hot", "free", "moved"), [(True, 40, 40), (True, 0, 0), (False, 25, 25)])
def test_migration_stops_at_the_min_watermark_and_wakes_kswapd_under_low(hot: bool, free: int, moved: int) -> None:
    """Unlike the gate of promotions it takes what lies between min and high; refused pages are charged too."""
    node, target = int(hot), int(not hot)
    mm = node_with(100, node, 0)
    mm.pte[:100] |= ACCESSED if hot else 0
    mm.pte[:100] &= 0xFF if hot else 0xFF ^ ACCESSED
    mm.folio[:100] |= IDLE
    mm.node[target, WMARK_MIN] = mm.node[target, FREE] - free
    mm.node[target, WMARK_LOW] = mm.node[target, WMARK_MIN] + 5
    there = context_of(mm, node, [Region(0, 100, 20 if hot else 0, 20 if hot else 0)], 4, 100, 20, 20)
    scheme = damon.Scheme(hot, target, target, 9970, quota_bytes=1 << 30, tuner="none")
    list(scheme.apply(FakeSystem(mm), there))  # type: ignore[arg-type]
    assert (mm.pte[:100] & NODE_MASK == target).sum() == moved and scheme.state[damos.CHARGED] == 100
    assert mm.node[target, KSWAPD_WAKE] == 1
    check_memory(mm)


# --- quotas -----------------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=60)
@given(quota=st.integers(1, 1 << 22), fold=st.sampled_from([1, 16, 1024]), windows=st.integers(1, 50))
def test_at_scale_the_remainder_of_a_quota_is_carried_to_the_next_window(quota: int, fold: int, windows: int) -> None:
    """Over all windows as many simulated pages as whole 4 KiB pages of the quota allow, none more."""
    mm, total = node_with(10, 1, 0), 0
    scheme, system = damon.Scheme(True, 0, 0, 9970, quota_bytes=quota, tuner="none"), FakeSystem(mm, fold)
    for window in range(windows):
        system.now_ms = 1000.0 * window
        scheme.adjust_quota(system)  # type: ignore[arg-type]
        total += int(scheme.state[damos.QUOTA])
        scheme.state[damos.QUOTA] = -1
        system.now_ms += 999
        scheme.adjust_quota(system)  # type: ignore[arg-type]
        assert scheme.state[damos.QUOTA] == -1  # the window is not over
    assert total == windows * (quota // 4096) // fold


@settings(deadline=None, max_examples=60)
@given(
    hot=st.booleans(), shares=st.lists(st.integers(0, 8192), min_size=1, max_size=60), boot=st.booleans(),
    goal_bp=st.sampled_from([50, 5000, 9970]),
)  # fmt: skip
def test_the_quota_follows_its_goal_and_stays_under_its_size(
    hot: bool, shares: list[int], boot: bool, goal_bp: int
) -> None:
    """Score = used or free share of the goal; over it the quota shrinks, under it grows, never past what was given."""
    mm = node_with(10, 1, 0)
    scheme = damon.Scheme(hot, 0, 0, goal_bp, quota_bytes=200 << 20, since_boot=boot)
    system, esz_bp = FakeSystem(mm), (ULONG_MAX if boot and hot else 0)
    for window, free in enumerate(shares):
        system.now_ms, mm.node[0, FREE] = 1000.0 * window, free
        scheme.adjust_quota(system)  # type: ignore[arg-type]
        capacity = int(mm.node[0, CAPACITY])
        metric = ((capacity - free) if hot else free) * 10_000 // capacity
        esz_bp = slow_next_input(max(esz_bp, 10_000), metric * 10_000 // goal_bp)
        assert scheme.esz_bytes == min(200 << 20, esz_bp // 10_000)
        assert scheme.state[damos.QUOTA] == scheme.esz_bytes // 4096


def test_a_quota_doubles_from_a_byte_while_nothing_is_reached_and_ends_at_twice_the_goal() -> None:
    """28 windows to 200 MiB with the top tier empty; 1 % free where 0.5 % is the goal ends demotion at once."""
    mm = node_with(10, 1, 0)
    up, system, quotas = damon.Scheme(True, 0, 0, 9970), FakeSystem(mm), []
    for window in range(30):
        system.now_ms = 1000.0 * window
        up.adjust_quota(system)  # type: ignore[arg-type]
        quotas.append(up.esz_bytes)
    assert quotas == [min(200 << 20, 2 << window) for window in range(30)]
    down = damon.Scheme(False, 1, 0, 50, since_boot=True)
    for window, (free, esz) in enumerate([(0, 2), (0, 4), (0, 8), (82, 1)]):
        system.now_ms, mm.node[0, FREE] = 1000.0 * window, free
        down.adjust_quota(system)  # type: ignore[arg-type]
        assert down.esz_bytes == esz and down.state[damos.QUOTA] == 0


def test_a_temporal_quota_is_all_or_nothing() -> None:
    mm = node_with(10, 1, 0)
    scheme, system = damon.Scheme(False, 1, 0, 50, quota_bytes=1 << 20, tuner="temporal"), FakeSystem(mm)
    for window, (free, pages) in enumerate([(40, 256), (41, 0), (8192, 0), (0, 256)]):
        system.now_ms, mm.node[0, FREE] = 1000.0 * window, free
        scheme.adjust_quota(system)  # type: ignore[arg-type]
        assert scheme.state[damos.QUOTA] == pages


# --- whole runs -------------------------------------------------------------------------------------------------------
class Recording(damon.Kdamond):
    """A context that writes down its aggregations: time, share of checks that found an access, sampling interval."""

    def aggregate(self) -> None:
        sizes = self.table[END, : self.n] - self.table[START, : self.n]
        check_partition(self.table, self.n, self.space.pages)
        assert self.min_regions <= self.n <= self.max_regions
        found = int((sizes * self.table[NR_ACCESSES, : self.n]).sum()) / self.intervals.samples / self.space.pages
        self.seen.append((self.system.now_ms, found, self.intervals.sample_us))
        super().aggregate()


class Monitored(Policy):
    """Monitoring of the lower node without any scheme."""

    access_bp = 0

    def start(self, system: System) -> None:
        node = system.machine.lower_nodes[0]
        self.kdamond = Recording(node, None, damon.Intervals(access_bp=self.access_bp))
        self.kdamond.seen = []
        system.add(self.kdamond)


def monitored(access_bp: int, duration_s: float) -> tuple[list[tuple[float, float, int]], Recording, Any]:
    policy = Monitored()
    policy.access_bp = access_bp
    hot = Quarter(footprint_gib=0.25, rate=5.0, placement="lower")
    result = simulate(machine((1, 1)), hot, policy, 1, duration_s=duration_s, fold=16)
    return policy.kdamond.seen, policy.kdamond, result


def test_a_monitored_program_shows_the_rate_of_its_hot_quarter() -> None:
    """Share of checks that find an access = share of frames hot x (1 - e^(-rate x 5 ms)), within sampling error."""
    seen, where, result = monitored(0, 10)
    hot = result.metrics["pages"] / 16 / 4
    rate = result.metrics["accesses"] / 16 / hot / result.metrics["time_s"]
    expected = hot / where.space.pages * (1 - math.exp(-rate * 0.005))
    late = [found for now_ms, found, _ in seen if now_ms > 2000]
    assert len(late) > 60 and {us for _, _, us in seen} == {5000}
    assert abs(np.mean(late) / expected - 1) < 0.15
    assert result.metrics["promoted_pages"] == 0


def test_tuned_intervals_of_a_run_find_the_share_of_accesses_aimed_at() -> None:
    """4 % of checks, where 5 ms would find 2 %: at the interval of the closed form."""
    seen, where, result = monitored(400, 30)
    late = [(found, us) for now_ms, found, us in seen if now_ms > 6000]
    found, us = (float(mean) for mean in np.mean(late, axis=0))
    hot = result.metrics["pages"] / 16 / 4
    rate = result.metrics["accesses"] / 16 / hot / result.metrics["time_s"]
    assert abs(found / 0.04 - 1) < 0.1
    assert abs(us / (-math.log(1 - 0.04 * where.space.pages / hot) / rate * 1e6) - 1) < 0.1
    assert min(us for _, _, us in seen) >= 5000


@pytest.mark.parametrize("values", [{"access_bp": 0}, {"restart": "off"}])
def test_the_chunk_is_never_visible(values: dict[str, Any]) -> None:
    """With fixed intervals and with tuned ones."""
    hot = kv(footprint_gib=0.125, placement="lower", rate=10.0)
    results = [run("damon", hot, duration_s=3, chunk=chunk, values=values) for chunk in (1, 7, 4096, 65_536)]
    assert len({json.dumps(result.to_dict(), sort_keys=True) for result in results}) == 1
    assert results[0].metrics["promoted_pages"] > 0


def test_tuning_puts_promotion_off_as_posted() -> None:
    """Each change of the intervals starts the wait of 1 s again: adjusted every 0.3 s, the scheme is never applied."""
    hot = kv(footprint_gib=0.125, placement="lower", rate=10.0)
    assert run("damon", hot, duration_s=3).metrics["promoted_pages"] == 0


def test_a_hot_set_in_slow_memory_is_promoted_within_the_quota() -> None:
    """A quarter of memory takes all touches; promotions never exceed 200 MiB a second."""
    hot = Quarter(footprint_gib=0.25, rate=40.0, placement="lower")
    still = run("all_lower", hot, where=machine((1, 1)), duration_s=8).metrics
    moved = run("damon", hot, where=machine((1, 1)), duration_s=8, values={"access_bp": 0}).metrics
    assert 0.8 * moved["pages"] / 4 < moved["promoted_pages"] <= 200 * 256 * (moved["time_s"] + 1)
    assert moved["dram_hit_share"] > 0.5 and moved["time_s"] < still["time_s"]


def test_huge_pages_move_whole_and_every_touch_is_counted() -> None:
    """Frames, lists and residents are checked by the run itself."""
    huge = kv(footprint_gib=0.25, placement="lower", page="2m")
    result = run("damon", huge, duration_s=5, fold=4, values={"access_bp": 0}).metrics
    assert result["misses"] + result["cached"] == result["accesses"]
    assert result["promoted_pages"] > 0
    assert result["promoted_pages"] % (512 * 4) == 0 and result["demoted_pages"] % (512 * 4) == 0
