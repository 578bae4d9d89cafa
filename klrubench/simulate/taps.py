"""What hardware sees of a tenant's touches: words of its stream, read by touch number once they have been served.

The access loop knows nothing of it. A tap catches up at every stop of the loop, before any thread runs, so that pages
lie where they lay when they were touched; and before a buffer of words is filled anew. Where the stops and the buffers
fall does not show in the result. For mechanisms of mm/ that stand for hardware:
an operating system sees samples and counts, never single touches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import CACHED_BIT, ID_MASK
from klrubench.engine.jit import njit
from klrubench.engine.random import GOLDEN, below, mix64, stream_key

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.simulate.tenant import Tenant

Consume = Callable[[np.ndarray, int], None]


class Tap:
    """Hands each touch of a tenant to `consume(words, first)` once, in order: u32 stream words,
    and the number of the first of them.
    """

    def __init__(self, tenant: Tenant, consume: Consume) -> None:
        self.tenant, self.consume = tenant, consume
        self.next = tenant.touches

    def catch_up(self) -> None:
        """Hand over what has been served since the last call."""
        first, last = self.next, self.tenant.touches
        if last > first:
            self.next = last
            self.consume(self.tenant.feed.served(first, last), first)


class Stop:
    """Calls `catch_up` at every stop of the loop: for what a fault handler leaves behind."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.catch_up = action


@njit
def sample_place(key: np.uint64, period: int, block: int) -> Int:
    """Number of the touch that is sampled in a block of `period` touches: one of them at random,
    the same whenever it is asked.
    """
    return block * period + np.int64(below(mix64(key + np.uint64(block) * GOLDEN), np.uint64(period)))


@njit
def pick_samples(words: np.ndarray, first: int, period: int, key: np.uint64, out: np.ndarray) -> tuple[int, Int]:
    """Copy the sampled touches among `words` (numbers from `first`) that missed the CPU cache to `out` as ids;
    (how many, next number).
    """
    n = 0
    last = first + len(words)
    block = first // period
    place = sample_place(key, period, block)
    while place < last:
        if place >= first and not words[place - first] & np.uint32(CACHED_BIT):
            out[n] = words[place - first] & np.uint32(ID_MASK)
            n += 1
        block += 1
        place = sample_place(key, period, block)
    return n, place


class Sampler:
    """Instruction sampling of a tenant: one touch in `period`, at a random place in each `period` of them,
    by touch number.

    Touches that the CPU cache served are discarded, as a filter on cache misses does. Each sample of a simulated
    machine stands for 1/scale samples: a page's chance to be sampled is that of the full machine.
    """

    def __init__(self, tenant: Tenant, period: int, seed: int, name: str) -> None:
        self.tenant, self.period = tenant, period
        self.key = stream_key(seed, f"samples of {name} {tenant.index}")
        self.due = 0
        self.held: list[np.ndarray] = []

    def consume(self, words: np.ndarray, first: int) -> None:
        """Take the samples among words just served."""
        if first + len(words) <= self.due:
            return
        out = np.empty(len(words) // self.period + 2, np.uint32)
        n, self.due = pick_samples(words, first, self.period, self.key, out)
        if n:
            self.held.append(out[:n] + np.uint32(self.tenant.first_page))

    def take(self) -> np.ndarray:
        """Page ids (u32) sampled since the last call, in order of time."""
        if not self.held:
            return np.empty(0, np.uint32)
        taken, self.held = np.concatenate(self.held), []
        return taken
