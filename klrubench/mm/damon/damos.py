"""DAMOS: apply migrate_hot or migrate_cold to the regions that score best, within a quota that follows a goal.

Sources: damos_adjust_quota, damos_set_effective_quota, damos_apply_scheme, damos_skip_charged_region,
damos_apply_target (mm/damon/core.c), damon_hot_score, damon_pa_migrate, damon_migrate_pages (mm/damon/ops-common.c,
paddr.c), 6.16-6.18. Sizes inside count simulated pages. Not modelled: the time quota, filters other than `young`,
watermarks of schemes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.jit import njit, njit_inline
from klrubench.mm.damon.regions import (
    AGE,
    END,
    LAST_NR,
    NR_ACCESSES,
    START,
    delete_region,
    insert_region,
    region_size,
)  # fmt: skip
from klrubench.mm.damon.sampling import HUGE_SHIFT, folio_mkold, folio_young, page_at
from klrubench.mm.damon.tuning import GOAL, LEAST_INPUT, ULONG_MAX, next_input
from klrubench.mm.demotion import has_room
from klrubench.mm.folio import folio_nr_pages, folio_ptes
from klrubench.mm.lru import lru_add, lru_isolate
from klrubench.mm.migrate import FLUSH_PAGES, count_promotion, demote_isolated, is_toptier, move_isolated
from klrubench.mm.state import CAPACITY, FREE, KSWAPD_WAKE, WMARK_LOW, WMARK_MIN
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.damon.kdamond import Kdamond
    from klrubench.mm.state import Mm
    from klrubench.simulate import System

MAX_SCORE, MAX_SUBSCORE, MAX_AGE_LOG = 99, 100, 32
HUGE_PAGES = 1 << HUGE_SHIFT
PAGE_BYTES = 4096
SLICE_PAGES = 2048  # pages looked at before others may run: some 10 ms of moves

# i64 settings and state of a scheme
(
    HOT, LEAST_NR, MOST_NR, WEIGHT_NR, WEIGHT_AGE, MAX_NR, AGGREGATION_US, PASSED, TARGET, FOLD,
    QUOTA, CHARGED, CHARGED_TO, LEAST_SCORE, NEXT, COUNT, FOLIOS, MOVED, LOOKED, MATCHED, SCHEME_WORDS,
) = range(21)  # fmt: skip
NOWHERE = -1


@njit_inline
def moving_sum(r: np.ndarray, k: int, s: np.ndarray) -> int:
    """The region's accesses over the last aggregation interval, were the last one's spread evenly
    (nr_accesses_bp / 10000).
    """
    last = r[LAST_NR, k] * 10_000
    return (last - s[PASSED] * (last // s[MAX_NR]) + r[NR_ACCESSES, k] * 10_000) // 10_000


@njit_inline
def log2_plus_1(n: int) -> int:
    """ilog2(n) + 1 of n >= 0; 0 for 0."""
    bits = 0
    while n > 0:
        bits += 1
        n >>= 1
    return bits


@njit_inline
def hot_score(nr: int, age: int, s: np.ndarray) -> int:
    """damon_hot_score: 0 (coldest) to 99."""
    frequency = nr * MAX_SUBSCORE // s[MAX_NR]
    age_log = min(log2_plus_1(age * s[AGGREGATION_US] // 1_000_000), MAX_AGE_LOG)
    if frequency == 0:
        age_log = -age_log
    age_score = (age_log + MAX_AGE_LOG) * MAX_SUBSCORE // MAX_AGE_LOG // 2
    hotness = s[WEIGHT_NR] * frequency + s[WEIGHT_AGE] * age_score
    if s[WEIGHT_NR] + s[WEIGHT_AGE] > 0:
        hotness //= s[WEIGHT_NR] + s[WEIGHT_AGE]
    return max(0, min(MAX_SCORE, hotness * MAX_SCORE // MAX_SUBSCORE))


@njit_inline
def score_of(r: np.ndarray, k: int, s: np.ndarray) -> Int:
    """The scheme's score of a region, or -1 if its access pattern is not the scheme's.

    The pattern is tested on the moving sum, the score takes the plain count: in the middle of an aggregation
    that is lower.
    """
    nr = moving_sum(r, k, s)
    if nr < s[LEAST_NR] or nr > s[MOST_NR]:
        return np.int64(-1)
    hot = np.int64(hot_score(r[NR_ACCESSES, k], r[AGE, k], s))
    return hot if s[HOT] else MAX_SCORE - hot


@njit
def least_score(r: np.ndarray, n: int, s: np.ndarray) -> Int:
    """The score from which on regions fit in the quota, best first; the level that overflows it is included."""
    sizes = np.zeros(MAX_SCORE + 1, np.int64)
    score = np.int64(0)
    for k in range(n):
        own = score_of(r, k, s)
        if own >= 0:
            sizes[own] += region_size(r, k)
            score = max(score, own)
    total = sizes[score]
    while total < s[QUOTA] and score > 0:
        score -= 1
        total += sizes[score]
    return score


@njit_inline
def quota_full(s: np.ndarray) -> bool:
    """No whole page of the quota is left."""
    return s[CHARGED] >= s[QUOTA]


@njit_inline
def migrate_folio(mm: Mm, page: int, target: int, fold: int) -> Int:
    """Isolate and move without the gate of promotions: an allocation that does not reclaim, from the min watermark up;
    pages moved.
    """
    pages = folio_nr_pages(mm, page)
    if pages == 1 and not has_room(mm, target, pages, WMARK_LOW):
        mm.node[target, KSWAPD_WAKE] = 1
    if not has_room(mm, target, pages, WMARK_MIN) or not lru_isolate(mm, page, False):
        return np.int64(0)
    up = not is_toptier(mm, page)
    if not up:
        return np.int64(demote_isolated(mm, page, target, fold))
    if not move_isolated(mm, page, target, fold):
        lru_add(mm, page, False)
        return np.int64(0)
    count_promotion(mm, page, pages)
    return pages


@njit_inline
def migrate_region(
    mm: Mm, r: np.ndarray, k: int, s: np.ndarray, base_pages: int, first_frame: int, first_huge: int
) -> None:
    """damon_pa_migrate: every page of the region that the `young` filter lets through, in address order."""
    address = r[START, k]
    while address < r[END, k]:
        page = page_at(mm, address, base_pages, first_frame, first_huge)
        huge = address >= base_pages
        if huge:
            address += HUGE_PAGES - (address - base_pages) % HUGE_PAGES
        else:
            address += folio_ptes(mm, page) if page >= 0 else 1
        if page < 0:
            continue
        s[LOOKED] += 1
        young = folio_young(mm, page)
        if young:
            s[MATCHED] += 1
            folio_mkold(mm, page)
        if young != (s[HOT] != 0):
            continue
        moved = migrate_folio(mm, page, s[TARGET], s[FOLD])
        s[MOVED] += moved
        s[FOLIOS] += moved > 0


@njit_inline
def split_at(r: np.ndarray, n: int, k: int, size: int) -> int:
    """damon_split_region_at: cut a region after `size` pages; returns the count (unchanged if the table is full)."""
    if n == r.shape[1]:
        return n
    n = insert_region(r, n, k)
    r[END, k] = r[START, k + 1] = r[START, k] + size
    return n


@njit_inline
def skip_charged(r: np.ndarray, n: int, k: int, s: np.ndarray) -> tuple[bool, int]:
    """damos_skip_charged_region: up to where the last quota ended regions are passed over; (whether to skip, count)."""
    if s[CHARGED_TO] == NOWHERE:
        return False, n
    if k == n - 1:
        s[CHARGED_TO] = NOWHERE
        return True, n
    if r[END, k] <= s[CHARGED_TO]:
        return True, n
    if r[START, k] < s[CHARGED_TO]:
        return True, split_at(r, n, k, s[CHARGED_TO] - r[START, k])
    s[CHARGED_TO] = NOWHERE
    return False, n


@njit_inline
def merge_back(r: np.ndarray, n: int, k: int, size_limit: int) -> tuple[int, int]:
    """Join a region to the one before if nothing is lost by it; (the region to go on from, count)."""
    if k == 0:
        return k, n
    for row in (AGE, LAST_NR, NR_ACCESSES):
        if r[row, k - 1] != r[row, k]:
            return k, n
    if r[END, k] - r[START, k - 1] > size_limit:
        return k, n
    r[END, k - 1] = r[END, k]
    return k - 1, delete_region(r, n, k)


@njit_inline
def apply_to(
    mm: Mm, r: np.ndarray, n: int, k: int, s: np.ndarray, base_pages: int, first_frame: int, first_huge: int
) -> int:
    """damos_apply_scheme: act on what of the region fits in the quota, which is charged whatever came of it;
    returns the count. A region that would have to be cut is left alone if the table is full.
    """
    size = region_size(r, k)
    if s[CHARGED] + size > s[QUOTA]:
        if n == r.shape[1]:
            return n
        size = s[QUOTA] - s[CHARGED]
        n = split_at(r, n, k, size)
    migrate_region(mm, r, k, s, base_pages, first_frame, first_huge)
    s[CHARGED] += size
    if quota_full(s):
        s[CHARGED_TO] = r[END, k]
    r[AGE, k] = 0
    return n


@njit
def _apply_some(
    address: int,
    r: np.ndarray,
    s: np.ndarray,
    size_limit: int,
    base_pages: int,
    first_frame: int,
    first_huge: int,
    enough: int,
) -> bool:
    """Go on applying a scheme from region s[NEXT] until `enough` pages were looked at or the last region was passed."""
    mm = mm_at(address)
    k, n = s[NEXT], s[COUNT]
    s[FOLIOS] = s[MOVED] = s[LOOKED] = s[MATCHED] = 0
    while k < n and s[LOOKED] < enough:
        if not quota_full(s):
            skip, n = skip_charged(r, n, k, s)
            own = score_of(r, k, s)
            if not skip and own >= 0 and own >= s[LEAST_SCORE]:
                n = apply_to(mm, r, n, k, s, base_pages, first_frame, first_huge)
        k, n = merge_back(r, n, k, size_limit)
        k += 1
    s[NEXT], s[COUNT] = k, n
    return k < n


class Scheme:
    """One DAMOS scheme of a context: `migrate_hot` to a faster node or `migrate_cold` to a slower one.

    Args:
        hot: promote regions with at least one access and only young pages of them; else demote regions without access,
            old pages only.
        target: node to migrate to.
        quota_bytes: an interval of `reset_ms`, full size. goal_bp: `node_mem_used_bp` (hot) or `node_mem_free_bp`
            (cold) of `goal_node` that the quota is tuned for. tuner: `consist` (feedback loop), `temporal`
            (all or nothing), `none` (the quota as it is).
        apply_us: interval between two applications. since_boot: the loop has run on an empty top tier for long, so that
            promotion stands at the largest quota and demotion at the least (else both start at the least: one byte).
    """

    def __init__(
        self, hot: bool, target: int, goal_node: int, goal_bp: int, *, quota_bytes: int = 200 << 20,
        tuner: str = "consist", apply_us: int = 1_000_000, reset_ms: int = 1000, weight_nr: int = 100,
        weight_age: int = 100, since_boot: bool = False,
    ) -> None:  # fmt: skip
        self.hot, self.goal_node, self.goal_bp, self.tuner = hot, goal_node, goal_bp, tuner
        self.quota_bytes, self.apply_us, self.reset_ms = quota_bytes, apply_us, reset_ms
        self.state = s = np.zeros(SCHEME_WORDS, np.int64)
        s[[HOT, LEAST_NR, MOST_NR, TARGET]] = hot, int(hot), (1 << 32) - 1 if hot else 0, target
        s[[WEIGHT_NR, WEIGHT_AGE, CHARGED_TO]] = weight_nr, weight_age, NOWHERE
        self.esz_bp, self.carry_bytes = ULONG_MAX if since_boot and hot else 0, 0
        self.esz_bytes = 0
        self.window_ms: float | None = None
        self.next_apply = self.applied = self.exceeded = 0

    def set_next_apply(self, passed: int, sample_us: int) -> None:
        """damos_set_next_apply_sis: the next application, in sampling intervals."""
        self.next_apply = passed + self.apply_us // sample_us

    def goal_score(self, system: System) -> int:
        """How far the goal is reached, of 10,000."""
        row = system.mm.node[self.goal_node]
        total, free = int(row[CAPACITY]), int(row[FREE])
        return ((total - free if self.hot else free) * GOAL // total) * GOAL // self.goal_bp

    def set_effective_quota(self, system: System) -> None:
        """damos_set_effective_quota, and what of it is in simulated pages
        (fractions are carried to the next window).
        """
        if self.tuner == "none":
            self.esz_bytes = self.quota_bytes
        elif self.tuner == "temporal":
            self.esz_bytes = 0 if self.goal_score(system) >= GOAL else self.quota_bytes
        else:
            self.esz_bp = next_input(max(self.esz_bp, LEAST_INPUT), self.goal_score(system))
            self.esz_bytes = min(self.quota_bytes, self.esz_bp // 10_000)
        unit = PAGE_BYTES * system.fold
        whole = self.esz_bytes // PAGE_BYTES * PAGE_BYTES
        self.state[QUOTA], self.carry_bytes = divmod(whole + self.carry_bytes, unit) if whole else (0, self.carry_bytes)

    def adjust_quota(self, system: System) -> None:
        """A new charge window once the old one is over."""
        s = self.state
        if self.window_ms is None or system.now_ms >= self.window_ms + self.reset_ms:
            self.exceeded += self.window_ms is not None and bool(s[CHARGED] >= s[QUOTA])
            self.window_ms = system.now_ms
            s[CHARGED] = 0
            self.set_effective_quota(system)

    def apply(self, system: System, context: Kdamond) -> Iterator[Any]:
        """One application to the regions of a context; yields when time should pass."""
        s, intervals = self.state, context.intervals
        s[[MAX_NR, AGGREGATION_US, PASSED, FOLD]] = (
            intervals.samples,
            intervals.aggregation_us,
            context.passed_since_reset,
            system.fold,
        )
        self.adjust_quota(system)
        self.applied += 1
        s[LEAST_SCORE] = least_score(context.table, context.n, s)
        s[[NEXT, COUNT]] = 0, context.n
        enough, go_on = max(1, SLICE_PAGES // system.fold), True
        while go_on:
            go_on = _apply_some(system.mm.address, context.table, s, context.size_limit, *context.space[1:], enough)
            context.n = int(s[COUNT])
            if s[LOOKED]:
                system.charge(idle_check=s[LOOKED], idle_set=s[MATCHED])
                system.charge_moves("kpromoted_page" if self.hot else "kswapd_page", s[FOLIOS], s[MOVED])
                system.flush_tlb(int(s[MOVED]), FLUSH_PAGES)
                yield
