"""Try-locks of a walk that miss, as a probability: the lock of a PTE table, and the mmap lock of an address space.

A table whose lock is missed is not visited (and not charged); its PMD is treated as if it had been. A missed mmap lock
ends the walk of that address space for the pass. Draw n is a hash of (key, n): a run stays a pure function of its seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.jit import njit, njit_inline
from klrubench.engine.random import GOLDEN, mix64
from klrubench.mm.state import TRYLOCK_DRAWS, TRYLOCK_KEY, TRYLOCK_MISS
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.mm.state import Mm

CERTAIN = 1 << 32


@njit_inline
def missed(mm: Mm) -> bool:
    """Whether the next try-lock misses."""
    chance = mm.setting[TRYLOCK_MISS]
    if chance == 0:
        return False
    mm.setting[TRYLOCK_DRAWS] += 1
    word = mix64(np.uint64(mm.setting[TRYLOCK_KEY]) + np.uint64(mm.setting[TRYLOCK_DRAWS]) * GOLDEN)
    return np.int64(word >> np.uint64(32)) < chance


@njit
def _missed(address: int) -> bool:
    return missed(mm_at(address))


def mmap_lock_missed(mm: Mm) -> bool:
    """Whether the next try of an mmap lock misses, from Python."""
    return bool(mm.setting[TRYLOCK_MISS]) and bool(_missed(mm.address))


def set_trylock_miss(mm: Mm, share: float, key: int) -> None:
    """Let a share (0..1) of all try-locks of walks miss, drawn from that key (0 .. 2^63 - 1)."""
    mm.setting[TRYLOCK_MISS], mm.setting[TRYLOCK_KEY] = round(share * CERTAIN), key
