"""DAMON's regions, checks and intervals: the plain-Python twin, laws, closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_damon import Dice, Monitor, Region, merge, split
from slow_damon import next_input as slow_next_input

from klrubench.engine.bits import ACCESSED, IDLE, TRAP, YOUNG
from klrubench.mm.damon.regions import (
    AGE,
    END,
    LAST_NR,
    NOTHING,
    NR_ACCESSES,
    REGION_ROWS,
    SAMPLED,
    START,
    merge_regions,
    new_regions,
    pieces_of,
    reset_aggregated,
    split_regions,
)
from klrubench.mm.damon.regions import (
    merge_pass as fast_merge_pass,
)
from klrubench.mm.damon.sampling import Sampling, Space
from klrubench.mm.damon.tuning import GOAL, LEAST_INPUT, ULONG_MAX, Intervals, next_input
from klrubench.mm.state import Mm, new_mm
from klrubench.simulate.placement import allocate

ROWS = (START, END, NR_ACCESSES, LAST_NR, AGE, SAMPLED)


def random_regions(rng: np.random.Generator, n: int, samples: int, size: int = 40) -> list[Region]:
    """A partition with random sizes, counts and ages; neighbours are often alike."""
    edges = np.concatenate([[0], np.cumsum(rng.integers(1, size, n))]).tolist()
    counts = rng.choice(rng.integers(0, samples + 1, 3), n).tolist()
    return [
        Region(edges[k], edges[k + 1], counts[k], int(rng.integers(0, samples + 1)), int(rng.integers(0, 9)), edges[k])
        for k in range(n)
    ]


def table_of(regions: list[Region], capacity: int) -> np.ndarray:
    table = np.zeros((REGION_ROWS, capacity), np.int64)
    for k, r in enumerate(regions):
        table[ROWS, k] = r.start, r.end, r.nr, r.last, r.age, r.sampled
    return table


def regions_of(table: np.ndarray, n: int) -> list[Region]:
    return [Region(*table[ROWS, k].tolist()) for k in range(n)]


def check_partition(table: np.ndarray, n: int, pages: int) -> None:
    """In order, without gap or overlap, none empty."""
    assert table[START, 0] == 0 and table[END, n - 1] == pages
    assert (table[START, 1:n] == table[END, : n - 1]).all() and (table[END, :n] > table[START, :n]).all()


def weighted(table: np.ndarray, n: int, row: int) -> int:
    return int(((table[END, :n] - table[START, :n]) * table[row, :n]).sum())


# --- regions ----------------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32), n=st.integers(1, 80), samples=st.sampled_from([5, 20, 200]), most=st.integers(3, 90),
    threshold=st.integers(0, 30), limit=st.integers(1, 400),
)  # fmt: skip
def test_merging_is_the_twins_and_keeps_the_partition(
    seed: int, n: int, samples: int, most: int, threshold: int, limit: int
) -> None:
    """Table for table; size x count is kept but for rounding down, under one page-count a page and merge."""
    regions = random_regions(np.random.default_rng(seed), n, samples)
    table, pages = table_of(regions, n), regions[-1].end
    sums, largest = weighted(table, n, NR_ACCESSES), max(r.size for r in regions)
    kept = merge_regions(table, n, threshold, limit, most, samples)
    assert regions_of(table, kept) == merge(regions, threshold, limit, most, samples)
    check_partition(table, kept, pages)
    assert sums - pages * (n - kept) <= weighted(table, kept, NR_ACCESSES) <= sums
    assert (table[END, :kept] - table[START, :kept]).max() <= max(limit, largest)


@pytest.mark.parametrize(("gap", "sizes", "merged"), [
    (2, (10, 20), True), (3, (10, 20), False), (-2, (10, 20), True), (-3, (10, 20), False),
    (0, (10, 21), False), (2, (29, 1), True),
])  # fmt: skip
def test_neighbours_merge_up_to_the_threshold_and_the_size_limit_exactly(
    gap: int, sizes: tuple[int, int], merged: bool
) -> None:
    left, right = Region(0, sizes[0], 10, 10, 4), Region(sizes[0], sum(sizes), 10 + gap, 10, 7)
    table = table_of([left, right], 2)
    assert fast_merge_pass(table, 2, 2, 30, False) == (1 if merged else 2)
    if merged:
        whole = regions_of(table, 1)[0]
        assert whole.nr == (10 * sizes[0] + (10 + gap) * sizes[1]) // 30
        assert (whole.age, whole.last) == ((4 * sizes[0] + 7 * sizes[1]) // 30, 10)


def test_a_merged_region_is_compared_by_its_mean() -> None:
    """Counts 0, 2, 3 at threshold 2: the first two make 1, to which 3 is alike; 0 and 3 would not be."""
    table = table_of([Region(0, 10, 0), Region(10, 20, 2), Region(20, 30, 3)], 3)
    assert fast_merge_pass(table, 3, 2, 100, False) == 1


@pytest.mark.parametrize(("last", "now", "age"), [(10, 10, 6), (10, 12, 6), (10, 8, 6), (10, 13, 0), (10, 7, 0)])
def test_age_grows_while_the_count_stays_within_the_threshold(last: int, now: int, age: int) -> None:
    table = table_of([Region(0, 10, now, last, 5)], 1)
    fast_merge_pass(table, 1, 2, 100, True)
    assert table[AGE, 0] == age


def test_age_goes_on_between_zero_and_one_access_within_the_threshold() -> None:
    """As before the patch that starts it again there, which is not modelled."""
    table = table_of([Region(0, 10, 1, 0, 5)], 1)
    fast_merge_pass(table, 1, 1, 100, True)
    assert table[AGE, 0] == 6


def test_too_many_regions_merge_with_doubled_thresholds_and_age_once() -> None:
    """64 regions of one page whose counts differ by 3: thresholds 0, 1, 2 leave them, 4 halves them."""
    table = table_of([Region(k, k + 1, 3 * k, 3 * k, 2) for k in range(64)], 64)
    n = merge_regions(table, 64, 0, 1000, 40, 200)
    assert n <= 32 and (table[AGE, :n] == 3).all()


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 60), pieces=st.integers(2, 3), size=st.sampled_from([3, 12, 5000]))
def test_splitting_is_the_twins_and_keeps_the_sum(seed: int, n: int, pieces: int, size: int) -> None:
    """Counts and ages go to all parts, so that size x count is what it was; parts of up to two pages are left."""
    regions = random_regions(np.random.default_rng(seed), n, 20, size)
    table, dice = table_of(regions, 3 * n), Dice(seed)
    sums = [weighted(table, n, row) for row in (NR_ACCESSES, LAST_NR, AGE)]
    rng = np.array([seed, 0], np.uint64)
    more = split_regions(table, n, pieces, rng)
    assert regions_of(table, more) == split(regions, pieces, dice) and rng[1] == dice.drawn
    check_partition(table, more, regions[-1].end)
    assert [weighted(table, more, row) for row in (NR_ACCESSES, LAST_NR, AGE)] == sums
    assert n <= more <= pieces * n
    assert {r.start for r in regions} <= set(table[START, :more].tolist())


def test_cuts_fall_at_each_tenth_equally_often() -> None:
    cuts = np.zeros(10, int)
    for seed in range(300):
        table = table_of([Region(0, 1000)], 2)
        assert split_regions(table, 1, 2, np.array([seed << 32, 0], np.uint64)) == 2
        cuts[table[END, 0] // 100] += table[END, 0] % 100 == 0
    assert cuts[0] == 0 and cuts.sum() == 300
    assert ((cuts[1:] - 300 / 9) ** 2 / (300 / 9)).sum() < 8 + 5 * math.sqrt(16)


@pytest.mark.parametrize(
    ("n", "last_n", "pieces"), [(50, 1, 2), (51, 1, 1), (32, 32, 3), (33, 33, 2), (32, 31, 2), (50, 50, 2), (90, 90, 1)]
)
def test_regions_split_up_to_half_the_maximum_and_in_three_where_that_changed_nothing(
    n: int, last_n: int, pieces: int
) -> None:
    assert pieces_of(n, last_n, 100) == pieces


@settings(deadline=None, max_examples=100)
@given(pages=st.integers(1, 5000), least=st.integers(3, 200))
def test_first_regions_are_a_partition_in_equal_parts(pages: int, least: int) -> None:
    table, n = new_regions(pages, least, 300)
    check_partition(table, n, pages)
    sizes = table[END, :n] - table[START, :n]
    assert n == min(least, pages) and sizes.max() - sizes.min() <= 1 and (table[SAMPLED] == NOTHING).all()


# --- sampling ---------------------------------------------------------------------------------------------------------
def node_of(pages: int, spare: int = 0) -> Mm:
    """A lower node of `pages` + `spare` frames whose first frames hold pages 0, 1, ... in order."""
    mm = new_mm([(pages, 0, False, 0)], [1 << 13, pages + spare], [0, 1], 1, 64)
    assert allocate(mm.address, np.arange(pages), np.array([1])) == 0
    return mm


def context(mm: Mm, pages: int, least: int, most: int, key: int) -> tuple[Sampling, np.ndarray, int, np.ndarray]:
    table, n = new_regions(pages, least, most)
    rng = np.array([key, 0], np.uint64)
    return Sampling(mm, Space(pages, pages, 1 << 13, 0), table, rng), table, n, rng


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32), pages=st.integers(40, 3000), least=st.integers(3, 12), most=st.integers(24, 90),
    samples=st.sampled_from([5, 20]), heat=st.floats(0.001, 0.2),
)  # fmt: skip
def test_whole_aggregations_are_the_twins_and_obey_the_laws(
    seed: int, pages: int, least: int, most: int, samples: int, heat: float
) -> None:
    """Checks, merges, splits over 12 aggregations of a memory with a hot range, free frames and isolated folios.

    Counts never exceed the samples; regions stay a partition, from the least to the greatest number.
    """
    rng = np.random.default_rng(seed)
    mm = node_of(pages, spare=pages // 4)
    mm.folio[rng.integers(0, pages, pages // 20)] &= 0xF8
    space = pages + pages // 4
    sampling, table, n, key = context(mm, space, least, most, seed)
    frames = [*range(pages), *([-1] * (space - pages))]
    slow = Monitor(regions_of(table, n), most, samples, max(1, space // least), seed)
    pte, folio = mm.pte.tolist(), mm.folio.tolist()
    hot = int(rng.integers(0, pages))
    sampling.step(n, check=False)
    slow.prepare(frames, pte, folio)
    for passed in range(1, 12 * samples + 1):
        touched = np.concatenate(
            [
                rng.integers(0, pages, rng.poisson(heat * pages / 50)),
                rng.integers(hot, min(pages, hot + 200), rng.poisson(heat * 200)),
            ]
        )
        for page in touched.tolist():
            mm.pte[page] |= ACCESSED
            pte[page] |= ACCESSED
        ends = passed % samples == 0
        highest = sampling.step(n, prepare=not ends)
        assert highest == slow.check(frames, pte, folio)
        assert highest == table[NR_ACCESSES, :n].max() <= samples
        if ends:
            n = merge_regions(table, n, highest // 10, slow.limit, most, samples)
            assert n >= min(least, space)
            reset_aggregated(table, n)
            pieces = pieces_of(n, slow.last_n, most)
            n = split_regions(table, n, pieces, key) if pieces > 1 else n
            slow.aggregate(highest)
            check_partition(table, n, space)
            assert n <= most
            sampling.step(n, check=False)
        slow.prepare(frames, pte, folio)
        assert regions_of(table, n) == slow.regions
    assert mm.pte[:pages].tolist() == pte[:pages] and mm.folio[:pages].tolist() == folio[:pages]
    assert not (mm.pte & TRAP).any() and (mm.folio[:pages] & (IDLE | YOUNG)).any()


def test_free_frames_and_isolated_folios_count_as_not_accessed() -> None:
    mm = node_of(100, spare=100)
    mm.folio[50:100] &= 0xF8
    sampling, table, n, _ = context(mm, 200, 4, 20, 3)
    assert table[END, :n].tolist() == [50, 100, 150, 200]
    sampling.step(n, check=False)
    for _ in range(20):
        mm.pte[:100] |= ACCESSED
        sampling.step(n)
    assert table[NR_ACCESSES, :n].tolist() == [20, 0, 0, 0]


def poisson_touches(mm: Mm, rng: np.random.Generator, first: int, last: int, mean: float) -> None:
    mm.pte[rng.integers(first, last, rng.poisson(mean * (last - first)))] |= ACCESSED


@pytest.mark.parametrize("mean", [0.05, 0.5, 2.0])
def test_counts_of_a_region_of_known_rate_are_samples_times_the_chance_of_a_touch(mean: float) -> None:
    """nr_accesses = samples x (1 - e^(-rate x interval)), over 200 aggregations of ten regions alike."""
    mm, rng = node_of(2000), np.random.default_rng(8)
    sampling, table, n, _ = context(mm, 2000, 10, 100, 5)
    sampling.step(n, check=False)
    for _ in range(200 * 20):
        poisson_touches(mm, rng, 0, 2000, mean)
        sampling.step(n)
    chance, checks = 1 - math.exp(-mean), 200 * 20
    for k in range(n):
        assert abs(table[NR_ACCESSES, k] - checks * chance) < 5 * math.sqrt(checks * chance * (1 - chance))
    assert abs(table[NR_ACCESSES, :n].sum() - n * checks * chance) < 4 * math.sqrt(n * checks * chance * (1 - chance))


def test_a_hot_range_is_found_with_its_borders_and_its_rate() -> None:
    """Pages 2100 to 2700 of 8192 at 0.7 touches a page and interval, the rest untouched.

    After 60 aggregations the means over 40 more say where it lies: pages inside read the closed form, pages far outside
    nothing, and the size-weighted total is that of 600 such pages.
    """
    mm, rng, mean = node_of(8192), np.random.default_rng(4), 0.7
    sampling, table, n, key = context(mm, 8192, 10, 200, 77)
    last_n, sums = 0, np.zeros(8192)
    sampling.step(n, check=False)
    for aggregation in range(100):
        for k in range(20):
            poisson_touches(mm, rng, 2100, 2700, mean)
            highest = sampling.step(n, prepare=k < 19)
        if aggregation >= 60:
            sums += np.repeat(table[NR_ACCESSES, :n], table[END, :n] - table[START, :n])
        n = merge_regions(table, n, highest // 10, 819, 200, 20)
        reset_aggregated(table, n)
        pieces = pieces_of(n, last_n, 200)
        if pieces > 1:
            last_n, n = n, split_regions(table, n, pieces, key)
        sampling.step(n, check=False)
    found, expected = sums / 40, 20 * (1 - math.exp(-mean))
    assert abs(found[2200:2600].mean() - expected) < 0.15 * expected
    assert found[:1900].max() < 0.05 * expected and found[2900:].max() < 0.05 * expected
    assert abs(found.sum() / (600 * expected) - 1) < 0.15
    assert found[2130:2670].min() > 0.5 * expected


# --- intervals --------------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=300)
@given(
    last=st.one_of(st.integers(LEAST_INPUT, 10**9), st.integers(ULONG_MAX - 10**6, ULONG_MAX)),
    score=st.one_of(st.integers(0, 3 * GOAL), st.integers(GOAL - 3, GOAL + 3)),
)  # fmt: skip
def test_the_feedback_loop_is_the_twins_and_moves_towards_the_goal(last: int, score: int) -> None:
    following = next_input(last, score)
    assert following == slow_next_input(last, score)
    assert LEAST_INPUT <= following <= ULONG_MAX
    assert (following - last) * (GOAL - score) >= 0


@settings(deadline=None, max_examples=200)
@given(
    us=st.integers(5000, 10_000_000), accesses=st.integers(0, 20 * 4096), goal_bp=st.integers(1, 10_000),
    samples=st.integers(2, 100),
)  # fmt: skip
def test_the_interval_doubles_at_most_halves_at_most_and_stays_within_bounds(
    us: int, accesses: int, goal_bp: int, samples: int
) -> None:
    """No access at all doubles it; twice the share aimed at halves it; the right share leaves it."""
    intervals = Intervals(us, samples, goal_bp)
    now = intervals.tuned(accesses, 4096)
    target = 4096 * samples * goal_bp // GOAL or 1
    score = accesses * GOAL // target
    if now is None:
        assert abs(score - GOAL) <= 2
        return
    assert 5000 <= now <= 10_000_000
    factor = 2 - score / GOAL if score <= GOAL else 0.5 + max(0.0, 2 - score / GOAL) / 2
    assert abs(now - min(10_000_000, max(5000, us * factor))) <= us * 2e-4 + 2
    assert intervals.aggregation_us == us * samples


@pytest.mark.parametrize(("rate", "expected_us"), [(0.001, 10_000_000), (0.4, 102_000), (100.0, 5000)])
def test_intervals_approach_the_share_of_accesses_aimed_at(rate: float, expected_us: int) -> None:
    """All pages at `rate` a second: 4 % of checks find an access at -ln(0.96) / rate, unless that is out of bounds."""
    intervals, samples = Intervals(5000, 20, 400), 20
    for _ in range(60):
        share = 1 - math.exp(-rate * intervals.sample_us / 1e6)
        us = intervals.tuned(round(10**6 * samples * share), 10**6)
        intervals.sample_us = us if us is not None else intervals.sample_us
    assert abs(intervals.sample_us / expected_us - 1) < 0.02
