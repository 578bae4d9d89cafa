"""DAMON's regions: a partition of the monitored addresses that is merged and split at every aggregation.

Sources: damon_merge_regions_of, kdamond_merge_regions, damon_split_regions_of, kdamond_split_regions (mm/damon/core.c,
6.12-6.18). Addresses count 4 KiB pages from the start of what is monitored.
"""

from __future__ import annotations

import numpy as np

from klrubench.engine.jit import njit, njit_inline
from klrubench.engine.random import GOLDEN, below, mix64

# rows of a table of regions, i64 [REGION_ROWS, capacity]; the first `n` columns are in use, in address order
START, END, NR_ACCESSES, LAST_NR, AGE, SAMPLED, REGION_ROWS = range(7)
REGION_BYTES = 64  # struct damon_region: list, range, sampling address, four counters
NOTHING = -1

# u64 state of a stream of random numbers
KEY, COUNTER = range(2)


def new_regions(pages: int, min_regions: int, max_regions: int) -> tuple[np.ndarray, int]:
    """Regions over `pages` addresses, none larger than pages / min_regions, rounded up: (table, how many).

    From the start on there are min_regions (damon_apply_min_nr_regions);
    older kernels begin with one and split it within some aggregations.
    """
    n = max(1, min(min_regions, pages))
    table = np.zeros((REGION_ROWS, 2 * max_regions + 64), np.int64)
    edges = np.arange(n + 1) * pages // n
    table[START, :n], table[END, :n] = edges[:-1], edges[1:]
    table[SAMPLED] = NOTHING
    return table, n


@njit_inline
def random_below(rng: np.ndarray, limit: int) -> np.int64:
    """The next random number under `limit`."""
    word = mix64(rng[KEY] + rng[COUNTER] * GOLDEN)
    rng[COUNTER] += np.uint64(1)
    return np.int64(below(word, np.uint64(limit)))


@njit_inline
def region_size(r: np.ndarray, k: int) -> int:
    """Pages of region k."""
    return r[END, k] - r[START, k]


@njit_inline
def copy_region(r: np.ndarray, source: int, target: int) -> None:
    """Copy a column of the table."""
    for row in range(REGION_ROWS):
        r[row, target] = r[row, source]


@njit_inline
def insert_region(r: np.ndarray, n: int, k: int) -> int:
    """Make room for a copy of region k behind it; returns the new count."""
    for moved in range(n, k, -1):
        copy_region(r, moved - 1, moved)
    return n + 1


@njit_inline
def delete_region(r: np.ndarray, n: int, k: int) -> int:
    """Close the gap of region k; returns the new count."""
    for moved in range(k, n - 1):
        copy_region(r, moved + 1, moved)
    return n - 1


@njit_inline
def merge_two(r: np.ndarray, left: int, right: int) -> None:
    """damon_merge_two_regions: counts and ages are means weighted by size, rounded down."""
    a, b = region_size(r, left), region_size(r, right)
    r[NR_ACCESSES, left] = (r[NR_ACCESSES, left] * a + r[NR_ACCESSES, right] * b) // (a + b)
    r[AGE, left] = (r[AGE, left] * a + r[AGE, right] * b) // (a + b)
    r[END, left] = r[END, right]


@njit
def merge_pass(r: np.ndarray, n: int, threshold: int, size_limit: int, aging: bool) -> int:
    """One pass from low to high addresses: age each region, then join it to the one before if the two are alike;
    returns the count.
    """
    kept = 0
    for k in range(n):
        if aging:
            r[AGE, k] = r[AGE, k] + 1 if abs(r[NR_ACCESSES, k] - r[LAST_NR, k]) <= threshold else 0
        before = kept - 1
        alike = before >= 0 and abs(r[NR_ACCESSES, before] - r[NR_ACCESSES, k]) <= threshold
        if alike and region_size(r, before) + region_size(r, k) <= size_limit:
            merge_two(r, before, k)
            continue
        if kept != k:
            copy_region(r, k, kept)
        kept += 1
    return kept


@njit
def merge_regions(r: np.ndarray, n: int, threshold: int, size_limit: int, max_regions: int, max_nr: int) -> int:
    """kdamond_merge_regions: a pass, and more with doubled thresholds (without aging) while there are too many;
    returns the count.
    """
    n = merge_pass(r, n, threshold, size_limit, True)
    threshold = max(1, 2 * threshold)
    while n > max_regions and threshold // 2 < max_nr:
        n = merge_pass(r, n, threshold, size_limit, False)
        threshold = max(1, 2 * threshold)
    return n


@njit
def split_regions(r: np.ndarray, n: int, pieces: int, rng: np.ndarray) -> int:
    """damon_split_regions_of: cut each region of more than two pages into `pieces`; returns the count.

    A cut falls at 1 to 9 tenths; with three pieces the left one is cut again.
    """
    old = r[:, :n].copy()
    count = 0
    ends = np.empty(pieces, np.int64)
    for k in range(n):
        size, cuts = old[END, k] - old[START, k], 0
        for _ in range(pieces - 1):
            if size <= 2:
                break
            left = (1 + random_below(rng, 9)) * size // 10
            if left == 0 or left >= size:
                continue
            ends[cuts] = old[START, k] + size
            cuts += 1
            size = left
        start = old[START, k]
        ends[cuts] = start + size
        for piece in range(cuts, -1, -1):
            r[:, count] = old[:, k]
            r[START, count], r[END, count] = start, ends[piece]
            start = ends[piece]
            count += 1
    return count


def pieces_of(n: int, last_n: int, max_regions: int) -> int:
    """kdamond_split_regions: into how many pieces regions are cut now; 1 for none.

    None above half the maximum; three where the count has not changed since the last split and is under a third of it.
    """
    if n > max_regions // 2:
        return 1
    return 3 if n == last_n and n < max_regions // 3 else 2


def reset_aggregated(r: np.ndarray, n: int) -> None:
    """kdamond_reset_aggregated: remember the counts, start from 0."""
    r[LAST_NR, :n] = r[NR_ACCESSES, :n]
    r[NR_ACCESSES, :n] = 0
