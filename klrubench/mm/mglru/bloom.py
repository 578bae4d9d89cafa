"""The Bloom filters that tell a walk which PTE tables were dense: two a lruvec, by parity of the sequence number.

Source: get_item_key, test_bloom_filter, update_bloom_filter, reset_bloom_filter (mm/vmscan.c). 2^15 bits (times the
scale), two hashes cut out of one. A filter that was never allocated answers "present". Where the kernel hashes the PMD
entry's address, the number of the PTE table is hashed here.
`own` chooses the pair that a scanner may have beside the kernel's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.jit import njit_inline
from klrubench.mm.state import BLOOM_A, BLOOM_OWN_A

if TYPE_CHECKING:
    from klrubench.mm.state import Mm

NR_BLOOM_FILTERS = 2
BLOOM_FILTER_SHIFT = 15


@njit_inline
def bloom_keys(table: int, mask: np.uint64) -> tuple[np.int64, np.int64]:
    """The two bit numbers of a PTE table."""
    x = np.uint64(table) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return np.int64(x & mask), np.int64((x >> np.uint64(15)) & mask)


@njit_inline
def bloom_place(mm: Mm, lruvec: int, seq: int, own: bool) -> tuple[int, int]:
    """Where the filter of a sequence number stands: (column of `lru` that says it exists, row of `bloom`)."""
    which = seq % NR_BLOOM_FILTERS
    if own:
        return BLOOM_OWN_A + which, (len(mm.lru) + lruvec) * NR_BLOOM_FILTERS + which
    return BLOOM_A + which, lruvec * NR_BLOOM_FILTERS + which


@njit_inline
def bloom_test(mm: Mm, lruvec: int, seq: int, table: int, own: bool) -> bool:
    """Whether the filter of a sequence number may hold the table."""
    exists, row = bloom_place(mm, lruvec, seq, own)
    if not mm.lru[lruvec, exists]:
        return True
    bits = mm.bloom[row]
    a, b = bloom_keys(table, np.uint64(len(bits) - 1))
    return bits[a] != 0 and bits[b] != 0


@njit_inline
def bloom_update(mm: Mm, lruvec: int, seq: int, table: int, own: bool) -> None:
    """Add a table to the filter of a sequence number, if that filter exists."""
    exists, row = bloom_place(mm, lruvec, seq, own)
    if mm.lru[lruvec, exists]:
        bits = mm.bloom[row]
        a, b = bloom_keys(table, np.uint64(len(bits) - 1))
        bits[a] = bits[b] = 1


@njit_inline
def bloom_reset(mm: Mm, lruvec: int, seq: int, own: bool) -> None:
    """Allocate or zero the filter of a sequence number (a pass does this when it takes its first mm)."""
    exists, row = bloom_place(mm, lruvec, seq, own)
    mm.lru[lruvec, exists] = 1
    mm.bloom[row][:] = 0
