"""Hint faults as a source of pghot: the fault records the folio and leaves promotion to pghot's threads.

Source: the patch of pghot RFC v2 (20250910144653.212066-1-bharata@amd.com) that moves NUMAB2's rate limiting to pghot,
and later postings. Marking and its pace are those of memory tiering (`numa_balancing.py`). The fault makes no decision:
neither hint latency nor rate limit is asked, both are pghot's when it promotes. A fault that leaves its page below is
not accounted, so no sweep changes the scan period.

A record is made at the stop that its fault asks for, as of the time of the fault and before any thread runs; the tenant
pays for it after the touch that faulted. Not modelled: several nodes with CPUs (the record's node is the top one).
"""

from __future__ import annotations

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
# row 0 of the ring has how many rows behind it are filled; a row: page, ps, tenant
PAGE, AT_PS, TENANT, RING_COLUMNS = range(4)

handler_at: Any = reader(
    "PghotFaultHandler", own=(np.int64, 1), rules=(np.int64, 1), areas=(np.int64, 2), ring=(np.int64, 2)
)


@cfunc(SIGNATURE)
def pghot_hint_fault(context: int, page: int, now_ps: int) -> int:
    """do_numa_page that records: a lower-tier folio goes to the ring, and the loop is asked to stop."""
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
    return -1 - stall


class PghotHintFaults(NumaBalancing):
    """Scanner and faults of memory tiering that feed `store`; `values` are those of `NumaBalancing` on scans."""

    handler = pghot_hint_fault

    def __init__(self, store: HotnessStore, **values: Any) -> None:
        super().__init__(mode=TIERING, **values)
        self.store = store

    def attach(self, system: System) -> None:
        """Install handler and scanners; records are made at the stops."""
        # a fault ends its tenant's turn, so that a stop finds at most one of each
        self.ring = np.zeros((1 + len(system.tenants), RING_COLUMNS), np.int64)
        self._ring = self.ring.data
        super().attach(system)
        system.at_stops(self.drain)

    def handler_arrays(self) -> list[np.ndarray]:
        """Those of NUMA balancing, and the ring."""
        return [*super().handler_arrays(), self.ring]

    def drain(self) -> None:
        """Record the faults since the last stop, the earliest first, each as of its time and at its tenant's cost."""
        n = self._ring[0, 0]
        if not n:
            return
        self._ring[0, 0] = 0
        system = self.system
        rows = self.ring[1 : n + 1].tolist()
        for page, at_ps, tenant in rows if n == 1 else sorted(rows, key=lambda row: row[AT_PS]):
            system.as_tenant(system.tenants[tenant], at_ps, RECORD, lambda page=page: self.record(page))  # type: ignore[misc]

    def record(self, page: int) -> None:
        """pghot_record_access of one folio, by a CPU of the default target."""
        self.store.record(np.array([page], np.uint32), source="hint_fault", nid=self.system.default_target)
