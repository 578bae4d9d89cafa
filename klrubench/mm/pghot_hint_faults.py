"""Hint faults as a source of pghot: the fault records the folio and leaves promotion to pghot's threads.

Source: the patch of pghot RFC v2 (20250910144653.212066-1-bharata@amd.com) that moves NUMAB2's rate limiting to pghot,
and later postings. Marking and its pace are those of memory tiering (`numa_balancing.py`). The fault makes no decision:
neither hint latency nor rate limit is asked, both are pghot's when it promotes. A fault that leaves its page below is
not accounted, so no sweep changes the scan period.

Records are made together, after 64 faults or 10 ms, as of the last of these faults: pghot's times and threads are that
much late, and the tenant pays then. Not modelled: several nodes with CPUs (the record's node is the top one).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.array_table import reader
from klrubench.engine.bits import NODE_MASK, TABLE_SHIFT
from klrubench.engine.jit import cfunc
from klrubench.mm.fault import SIGNATURE
from klrubench.mm.numa_balancing import (
    FAULT_PS,
    FIRST_MEMCG,
    FOLD,
    M_THREADS,
    MEMCG_WORDS,
    SPENT_PS,
    TIERING,
    NumaBalancing,
    drawn_thread,
    restored_folio,
    top_fault,
)
from klrubench.mm.numa_scan import set_access_pid
from klrubench.mm.state import NOW_MS, NUMA_HINT_FAULTS, TIER, VMA_MM
from klrubench.mm.table import MM_BYTES, mm_at

if TYPE_CHECKING:
    from klrubench.mm.pghot_versions import HotnessStore
    from klrubench.simulate import System

RECORD = "pghot_record_access"
RING_ROWS, DRAIN_MS = 64, 10  # a stop of the loop takes as long as some 20,000 touches
# row 0 of the ring has how many rows behind it are filled; a row: page, ps, tenant
PAGE, AT_PS, TENANT, RING_COLUMNS = range(4)

handler_at: Any = reader(
    "PghotFaultHandler", own=(np.int64, 1), rules=(np.int64, 1), areas=(np.int64, 2), ring=(np.int64, 2)
)


@cfunc(SIGNATURE)
def pghot_hint_fault(context: int, page: int, now_ps: int) -> int:
    """do_numa_page that records: a lower-tier folio goes to the ring; where that is full the loop is asked to stop."""
    mm, handler = mm_at(context), handler_at(context + MM_BYTES)
    own, ring, areas = handler.own, handler.ring, handler.areas
    mm.stat[NUMA_HINT_FAULTS] += 1
    mm.setting[NOW_MS] = now_ps // 1_000_000_000
    vma = mm.block_vma[page >> TABLE_SHIFT]
    tenant = mm.vma[vma, VMA_MM]
    row = FIRST_MEMCG + MEMCG_WORDS * tenant
    thread = drawn_thread(own, own[row + M_THREADS])
    set_access_pid(areas[vma], thread)
    page = restored_folio(mm, page)
    node = np.int64(mm.pte[page] & np.uint8(NODE_MASK))
    own[SPENT_PS] += own[FAULT_PS] * own[FOLD]
    stall = own[FAULT_PS] * own[FOLD] // own[row + M_THREADS]
    if mm.node[node, TIER] == 0:
        top_fault(mm, own, row, page, node, now_ps, thread)
        return stall
    ring[0, 0] += 1
    last = ring[0, 0]
    ring[last, PAGE], ring[last, AT_PS], ring[last, TENANT] = page, now_ps, tenant
    return -1 - stall if last >= RING_ROWS else stall


class PghotHintFaults(NumaBalancing):
    """Scanner and faults of memory tiering that feed `store`; `values` are those of `NumaBalancing` on scans."""

    handler = pghot_hint_fault

    def __init__(self, store: HotnessStore, **values: Any) -> None:
        super().__init__(mode=TIERING, **values)
        self.store = store

    def attach(self, system: System) -> None:
        """Install handler and scanners, and the two occasions at which records are made."""
        # the fault that fills the ring ends its tenant's turn: others may have one more each
        self.ring = np.zeros((1 + RING_ROWS + len(system.tenants), RING_COLUMNS), np.int64)
        self._ring = self.ring.data
        super().attach(system)
        system.at_stops(self.drain_full)
        system.every_ms(DRAIN_MS, self.drain)

    def handler_arrays(self) -> list[np.ndarray]:
        """Those of NUMA balancing, and the ring."""
        return [*super().handler_arrays(), self.ring]

    def drain_full(self) -> None:
        """Make the records of a full ring (other stops are not the same for any cut of the stream)."""
        if self._ring[0, 0] >= RING_ROWS:
            self.drain()

    def drain(self) -> None:
        """Record the faults since the last time, those of each tenant at its cost."""
        n = self._ring[0, 0]
        if not n:
            return
        self._ring[0, 0] = 0
        rows = self.ring[1 : n + 1]
        for index in sorted(set(rows[:, TENANT].tolist())):
            own = rows[rows[:, TENANT] == index]
            work = partial(self.record, own[:, PAGE].astype(np.uint32))
            self.system.as_tenant(self.system.tenants[index], int(own[-1, AT_PS]), RECORD, work)

    def sample(self) -> None:
        """The counters of /proc/vmstat are of all faults so far."""
        self.drain()

    def record(self, pages: np.ndarray) -> None:
        """pghot_record_access of folios, by a CPU of the default target."""
        self.store.record(pages, source="hint_fault", nid=self.system.default_target)
