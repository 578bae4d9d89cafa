"""MGLRU: generations, the page-table walk, Bloom filters, aging. `walk` is what a scanning policy uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import PTRS_PER_TABLE
from klrubench.mm.mglru.effects import EFFECTS, EXPLAINS, repairs
from klrubench.mm.mglru.mm_list import lru_gen_add_mm, lru_gen_del_mm, next_mm
from klrubench.mm.mglru.trylock import mmap_lock_missed
from klrubench.mm.mglru.walk import (
    AGAIN_FULL,
    BATCHED,
    CLEARED_TOGETHER,
    DONE,
    FAST,
    N_WALK,
    NEXT,
    PMDS,
    REACH,
    REPAIRS,
    REPORTED,
    SEQ,
    SLOTS,
    TABLE_FAST,
    TABLE_TOTAL,
    TABLE_YOUNG,
    YOUNG,
    walk_mm,
)  # fmt: skip
from klrubench.mm.state import MAX_SEQ, NO_MM, PTESCAN_FAST, PTESCAN_PMDS, PTESCAN_SLOTS, PTESCAN_YOUNG

if TYPE_CHECKING:
    from klrubench.simulate import Lruvec, System

__all__ = [
    "EFFECTS", "EXPLAINS", "WalkObject", "flushes", "lru_gen_add_mm", "lru_gen_del_mm", "repairs", "walk", "walk_memcg",
]  # fmt: skip

MAX_LRU_BATCH = 4096  # generation updates before a visit ends with a flush
FLUSH_PART = 16384  # pages of a flush (full size) between two moments at which others may run: 4 ms of records
PS_PER_S = 1_000_000_000_000


class WalkObject:
    """The walk state a scanning thread owns. It is zeroed only once a node,
    so force_scan sticks to later address spaces.

    Args:
        effects: side effects of the posted walk that it has: `as_posted`, `clean`, or names joined by `+` (see
            `effects.py`).
        filtered: without the effect `bloom`, whether passes have filters of their own or ask none.
    """

    def __init__(self, effects: str = "as_posted", filtered: bool = True) -> None:
        self.state, self.repairs = np.zeros(N_WALK, np.int64), repairs(effects, filtered)
        self.visited = 0  # PTEs (simulated) since it was made
        self.zero()

    def zero(self) -> None:
        """What klruscand does after each node."""
        self.state[:] = 0
        self.state[REPAIRS] = self.repairs


def walk(system: System, lruvec: Lruvec, batch: int, walker: WalkObject) -> Iterator[np.ndarray | None]:
    """`flushes` as a thread sees them: each in parts of `FLUSH_PART` pages, after a `None` for the time of the walk.

    A flush takes as long as its records: kpromoted runs beside it. Were all of it recorded in one moment, what
    kpromoted frees of a full heap meanwhile would be kept for the first pages of the next flush, and these are the
    pages reported twice. The thread gives way (`yield`) where `system.slice_over()` says so.
    """
    part = max(1, FLUSH_PART // system.fold)
    for pages in flushes(system, lruvec, batch, walker):
        if pages is None or not len(pages):
            yield pages
            continue
        yield None
        for first in range(0, len(pages), part):
            yield pages[first : first + part]


def flushes(system: System, lruvec: Lruvec, batch: int, walker: WalkObject) -> Iterator[np.ndarray | None]:
    """lru_gen_scan_lruvec: walk the address spaces of a memcg one after the other,
    yield page ids found young on the lruvec's node.

    Yields a u32 array at each flush (a full batch of `batch` pages; 4096 generation updates or need_resched() at a 1
    GiB boundary; the end of an address space) and `None` at other 1 GiB boundaries, so that the caller can let time
    pass. Costs are charged to the calling thread. What is left of an address space is dropped for the pass when reclaim
    makes a new generation meanwhile.

    Args:
        batch: pages collected before a flush, full size (scaled here).
    Source: patch "mm: mglru: generalize page table walk", 20250910235121.2544928-2-kinseyho@google.com.
    """
    mm, state, row = system.mm, walker.state, lruvec.index
    out = np.empty(system.scaled(batch, "batch"), np.uint32)
    state[SEQ] = int(mm.lru[row, MAX_SEQ])
    state[REACH] = max(1, CLEARED_TOGETHER * PTRS_PER_TABLE // system.fold) if system.fold > 1 else 0
    while (space := next_mm(mm, row, lruvec.memcg, lruvec.node, state)) != NO_MM:
        yield from walk_one(system, lruvec, space, walker, out)


def walk_memcg(system: System, memcg: int, walker: WalkObject, batch: int = 2 << 16) -> Iterator[np.ndarray]:
    """`walk` of one memcg on all lower-tier nodes; an empty array where time may pass and nothing is flushed."""
    for lruvec in system.lruvecs(tier="lower", memcgs=[memcg]):
        for pages in walk(system, lruvec, batch, walker):
            yield np.empty(0, np.uint32) if pages is None else pages


def walk_one(
    system: System, lruvec: Lruvec, space: int, walker: WalkObject, out: np.ndarray
) -> Iterator[np.ndarray | None]:
    """try_walk_mm until the address space is through, with a flush after every partial walk."""
    mm, row, state, stat = system.mm, lruvec.index, walker.state.data, system.mm.stat.data
    flush_after = max(1, MAX_LRU_BATCH // system.fold)
    walker.state[[NEXT, BATCHED, REPORTED, TABLE_YOUNG, TABLE_TOTAL, TABLE_FAST]] = 0
    ended = flushed = True
    while True:
        if flushed:  # the mmap lock is taken anew
            ended = int(mm.lru[row, MAX_SEQ]) != state[SEQ] or mmap_lock_missed(mm)
        reason = DONE
        if not ended:
            state[SLOTS] = state[FAST] = state[YOUNG] = state[PMDS] = 0
            reason = walk_mm(mm, walker.state, space, row, lruvec.node, out)
            slots, fast, young, pmds = state[SLOTS], state[FAST], state[YOUNG], state[PMDS]
            walker.visited += slots
            system.charge(walk_pte=slots - fast - young, walk_fast_pte=fast, walk_young=young, walk_pmd=pmds)
            stat[PTESCAN_SLOTS] += slots
            stat[PTESCAN_FAST] += fast
            stat[PTESCAN_YOUNG] += young
            stat[PTESCAN_PMDS] += pmds
            ended = reason == DONE
        flushed = ended or reason == AGAIN_FULL or state[BATCHED] >= flush_after or system.need_resched()
        if flushed:
            yield out[: state[REPORTED]]
            state[REPORTED] = state[BATCHED] = 0
        else:
            yield None
        if ended:
            return
