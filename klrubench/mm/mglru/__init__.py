"""MGLRU: generations, the page-table walk, Bloom filters, aging. `walk` is what a scanning policy uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import PTRS_PER_TABLE
from klrubench.mm.mglru.aging import begin_pass
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
    REPORTED,
    SEQ,
    SLOTS,
    TABLE_TOTAL,
    TABLE_YOUNG,
    YOUNG,
    walk_mm,
)  # fmt: skip
from klrubench.mm.state import MAX_SEQ, PTESCAN_FAST, PTESCAN_PMDS, PTESCAN_SLOTS, PTESCAN_YOUNG

if TYPE_CHECKING:
    from klrubench.simulate import Lruvec, System

__all__ = ["WalkObject", "walk"]

MAX_LRU_BATCH = 4096  # generation updates before a visit ends with a flush
PS_PER_S = 1_000_000_000_000


class WalkObject:
    """The walk state a scanning thread owns. It is zeroed only once a node, so force_scan sticks to later address spaces."""

    def __init__(self) -> None:
        self.state = np.zeros(N_WALK, np.int64)

    def zero(self) -> None:
        """What klruscand does after each node."""
        self.state[:] = 0


def need_resched(system: System) -> bool:
    """Whether the running thread has had its CPU for a tick while a tenant waits for it (only where they share CPUs)."""
    waiting = system.shared_cpus and system.current is not None and not all(tenant.finished for tenant in system.tenants)
    return waiting and system.current.spent_ps * system.machine.hz >= PS_PER_S


def walk(system: System, lruvec: Lruvec, batch: int, walker: WalkObject, posted: bool = True) -> Iterator[np.ndarray | None]:
    """lru_gen_scan_lruvec: walk the address spaces of a memcg, yield page ids found young on the lruvec's node.

    Yields a u32 array at each flush (a full batch of `batch` pages; 4096 generation updates or need_resched() at a 1 GiB boundary;
    the end of an address space) and `None` at other 1 GiB boundaries, so that the caller can let time pass. Costs are charged to
    the calling thread.

    Args:
        batch: pages collected before a flush, full size (scaled here).
        posted: keep the posted resume behaviour (a batch that fills exactly at a table's end loses the rest of the pass).
    Source: patch "mm: mglru: generalize page table walk", 20250910235121.2544928-2-kinseyho@google.com.
    """
    mm, state, row = system.mm, walker.state, lruvec.index
    out = np.empty(system.scaled(batch, "batch"), np.uint32)
    state[SEQ] = seq = int(mm.lru[row, MAX_SEQ])
    if not begin_pass(mm, row, seq, state, True):
        return
    state[[NEXT, BATCHED, REPORTED, TABLE_YOUNG, TABLE_TOTAL]] = 0
    state[REACH] = max(1, CLEARED_TOGETHER * PTRS_PER_TABLE // system.fold) if system.fold > 1 else 0
    flush_after = max(1, MAX_LRU_BATCH // system.fold)
    while True:
        state[[SLOTS, FAST, YOUNG, PMDS]] = 0
        reason = walk_mm(mm, state, lruvec.memcg, row, lruvec.node, posted, out)
        slots, fast, young, pmds = (int(n) for n in state[[SLOTS, FAST, YOUNG, PMDS]])
        system.charge(walk_pte=slots - fast - young, walk_fast_pte=fast, walk_young=young, walk_pmd=pmds)
        mm.stat[[PTESCAN_SLOTS, PTESCAN_FAST, PTESCAN_YOUNG, PTESCAN_PMDS]] += (slots, fast, young, pmds)
        ended = reason == DONE or int(mm.lru[row, MAX_SEQ]) != seq
        if ended or reason == AGAIN_FULL or state[BATCHED] >= flush_after or need_resched(system):
            yield out[: int(state[REPORTED])]
            state[[REPORTED, BATCHED]] = 0
        else:
            yield None
        if ended:
            return
