"""Is it worth promoting now? Free-space bypass, latency threshold and its controller, rate limiter.

Shared by NUMA balancing and pghot, as in the kernel. Sources: pgdat_free_space_enough, numa_promotion_adjust_threshold,
numa_promotion_rate_limit, should_numa_migrate_memory (kernel/sched/fair.c, 6.12).
Not modelled: candidates by node; those of all target nodes are in one count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.jit import njit_inline
from klrubench.mm.state import (
    CAPACITY,
    FREE,
    NB_CAND_AT,
    NB_LIMIT_CAND,
    NB_LIMIT_START_MS,
    NB_PERIOD_START_MS,
    NB_THRESHOLD_MS,
    NOW_MS,
    NUMA_FREE_BYPASS,
    NUMA_LIMITED,
    PGPROMOTE_CANDIDATE,
    PGPROMOTE_CANDIDATE_NRL,
    WMARK_PROMO,
)  # fmt: skip

if TYPE_CHECKING:
    from klrubench.mm.state import Mm

ADJUST_STEPS = 16  # NUMA_MIGRATION_ADJUST_STEPS
PAGES_PER_GIB = 1 << 18

# int64 settings of one user of these rules
REF_THRESHOLD_MS, PERIOD_MS, RATE_PAGES_S, SPARE_PAGES = range(4)
N_RULES = 4


@njit_inline
def free_space_enough(mm: Mm, target: int, rules: np.ndarray) -> bool:
    """The destination has more than max(1 GiB, 1/16 of it) free above the promo watermark."""
    spare = max(rules[SPARE_PAGES], mm.node[target, CAPACITY] // 16)
    return mm.node[target, FREE] > mm.node[target, WMARK_PROMO] + spare


@njit_inline
def adjust_threshold(mm: Mm, target: int, rules: np.ndarray) -> None:
    """Every period: more than 110 % of the rate limit in candidates lowers the threshold a step,
    under 90 % raises it.
    """
    row = mm.node[target]
    now = mm.setting[NOW_MS]
    if now - row[NB_PERIOD_START_MS] <= rules[PERIOD_MS]:
        return
    row[NB_PERIOD_START_MS] = now
    ref = rules[RATE_PAGES_S] * rules[PERIOD_MS] // 1000
    seen = mm.stat[PGPROMOTE_CANDIDATE] - row[NB_CAND_AT]
    row[NB_CAND_AT] = mm.stat[PGPROMOTE_CANDIDATE]
    step = rules[REF_THRESHOLD_MS] * 2 // ADJUST_STEPS
    threshold = row[NB_THRESHOLD_MS] if row[NB_THRESHOLD_MS] else rules[REF_THRESHOLD_MS]
    if seen * 10 > ref * 11:
        threshold = max(threshold - step, step)
    elif seen * 10 < ref * 9:
        threshold = min(threshold + step, rules[REF_THRESHOLD_MS] * 2)
    row[NB_THRESHOLD_MS] = threshold


@njit_inline
def rate_limited(mm: Mm, target: int, rules: np.ndarray, pages: int) -> bool:
    """Count the candidate, then say whether this second's limit was reached before it."""
    row = mm.node[target]
    mm.stat[PGPROMOTE_CANDIDATE] += pages
    if mm.setting[NOW_MS] - row[NB_LIMIT_START_MS] > 1000:
        row[NB_LIMIT_START_MS] = mm.setting[NOW_MS]
        row[NB_LIMIT_CAND] = mm.stat[PGPROMOTE_CANDIDATE]
    if mm.stat[PGPROMOTE_CANDIDATE] - row[NB_LIMIT_CAND] >= rules[RATE_PAGES_S]:
        mm.stat[NUMA_LIMITED] += pages
        return True
    return False


@njit_inline
def may_promote(mm: Mm, target: int, rules: np.ndarray, latency_ms: int, pages: int) -> bool:
    """should_numa_migrate_memory for a page of the lower tier."""
    if free_space_enough(mm, target, rules):
        mm.node[target, NB_THRESHOLD_MS] = 0
        mm.stat[NUMA_FREE_BYPASS] += pages
        mm.stat[PGPROMOTE_CANDIDATE_NRL] += pages
        return True
    adjust_threshold(mm, target, rules)
    threshold = mm.node[target, NB_THRESHOLD_MS]
    if latency_ms >= (threshold if threshold else rules[REF_THRESHOLD_MS]):
        return False
    return not rate_limited(mm, target, rules, pages)


def promotion_rules(ref_threshold_ms: int, period_ms: int, rate_limit_mb_s: int, fold: int) -> np.ndarray:
    """The i64 settings, limits scaled; a MB is 256 pages, as in the kernel."""
    return np.array(
        [ref_threshold_ms, period_ms, max(1, rate_limit_mb_s * 256 // fold), max(1, PAGES_PER_GIB // fold)], np.int64
    )
