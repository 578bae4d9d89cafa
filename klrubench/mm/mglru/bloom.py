"""The Bloom filters that tell a walk which PTE tables were dense: two a lruvec, by parity of the sequence number.

Source: get_item_key, test_bloom_filter, update_bloom_filter, reset_bloom_filter (mm/vmscan.c). 2^15 bits (times the scale), two hashes
cut out of one. A filter that was never allocated answers "present". Where the kernel hashes the PMD entry's address, the number of
the PTE table is hashed here.
"""

from __future__ import annotations

import numpy as np

from klrubench.engine.jit import njit_inline
from klrubench.mm.state import BLOOM_A

NR_BLOOM_FILTERS = 2
BLOOM_FILTER_SHIFT = 15


@njit_inline
def bloom_keys(table, mask):
    """The two bit numbers of a PTE table."""
    x = np.uint64(table) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return np.int64(x & mask), np.int64((x >> np.uint64(15)) & mask)


@njit_inline
def bloom_test(mm, lruvec, seq, table):
    """Whether the filter of a sequence number may hold the table."""
    which = seq % NR_BLOOM_FILTERS
    if not mm.lru[lruvec, BLOOM_A + which]:
        return True
    bits = mm.bloom[lruvec * NR_BLOOM_FILTERS + which]
    a, b = bloom_keys(table, np.uint64(len(bits) - 1))
    return bits[a] != 0 and bits[b] != 0


@njit_inline
def bloom_update(mm, lruvec, seq, table):
    """Add a table to the filter of a sequence number, if that filter exists."""
    which = seq % NR_BLOOM_FILTERS
    if mm.lru[lruvec, BLOOM_A + which]:
        bits = mm.bloom[lruvec * NR_BLOOM_FILTERS + which]
        a, b = bloom_keys(table, np.uint64(len(bits) - 1))
        bits[a] = bits[b] = 1


@njit_inline
def bloom_reset(mm, lruvec, seq):
    """Allocate or zero the filter of a sequence number (a pass does this when it takes its first mm)."""
    which = seq % NR_BLOOM_FILTERS
    mm.lru[lruvec, BLOOM_A + which] = 1
    mm.bloom[lruvec * NR_BLOOM_FILTERS + which][:] = 0
