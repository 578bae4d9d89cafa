"""kscand (kmmscand): a thread that scans address spaces for accessed PTEs of slow pages,
and a thread that promotes what it lists.

Sources: RFC V3 "mm: slowtier page promotion based on PTE A bit", 20250814153307.1553061-1-raghavendra.kt@amd.com
(thread, periods, sizes, target node, failure ratio). No PMD is passed over and pages of the top tier are scanned too,
for the choice of the target node. `as_posted` keeps three things of the posted code that its text does not intend,
found by reading it: a scan covers whole VMAs, whatever the scan size, and the one after the last VMA none; PG_young,
set by the scan, is not cleared by it, so that a page once accessed is listed until reclaim clears the flag; a page not
yet marked idle counts as accessed. Not modelled: try-lock misses, the split of huge page tables by the walk,
exit of an address space while its pages wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.bits import ACCESSED, GEN_MASK, IDLE, NODE_MASK, REFERENCED, TABLE_SHIFT, YOUNG
from klrubench.engine.jit import njit, njit_inline
from klrubench.mm.folio import page_folio
from klrubench.mm.lru import ACTIVE_LIST, folio_lruvec, is_classic
from klrubench.mm.migrate import is_toptier, promote
from klrubench.mm.state import MAX_NR_GENS, MAX_SEQ, TIER, VMA_END, VMA_LEAF_ORDER, VMA_MEMCG, VMA_START
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm
    from klrubench.simulate import System, Tenant

SLEEP_MS = 20  # of both threads
PERIOD_MS, PERIOD_LEAST_MS, PERIOD_MOST_MS = 2000, 600, 5000
SIZE_MIB, SIZE_LEAST_MIB, SIZE_MOST_MIB = 1024, 256, 4096
TUNE_PERCENT, CHANGE_SHIFT, SIZE_SHIFT, DECAY_SHIFT = 15, 3, 1, 4
IGNORED_PAGES = 256  # fewer useful pages than this count as none
RATIO_EVERY = 1024  # migrations between two updates of the failure ratio
INFO_BYTES = 32  # struct kscand_migrate_info
MIB_PAGES = 256
VISIT_MIB = 1024  # memory scanned before others may run
SLICE_PS = 10_000_000_000  # promotions before others may run: one quantum


@njit
def _scan_ptes(
    address: int,
    memcg: int,
    first: int,
    budget: int,
    sighted: np.ndarray,
    wanted: int,
    posted: bool,
    nodes: np.ndarray,
    out: np.ndarray,
) -> tuple[Int, Int, Int]:
    mm = mm_at(address)
    listed = visited = np.int64(0)
    last = np.int64(-1)
    for v in range(len(mm.vma)):
        row = mm.vma[v]
        if row[VMA_MEMCG] != memcg or row[VMA_END] <= first:
            continue
        page = max(first, row[VMA_START])
        while page < row[VMA_END]:
            if budget <= 0:
                return page, visited, listed
            budget -= np.int64(1) << row[VMA_LEAF_ORDER]
            visited += 1
            folio = page_folio(mm, page)
            state, flags = mm.pte[page], mm.folio[folio]
            node = np.int64(state & np.uint8(NODE_MASK))
            accessed = (state & np.uint8(ACCESSED)) != 0
            if accessed:
                mm.pte[page] = state & np.uint8(0xFF ^ ACCESSED)
                flags |= np.uint8(YOUNG)
            nodes[node, 0] += 1
            if posted:
                accessed = accessed or (flags & np.uint8(YOUNG | REFERENCED)) != 0 or (flags & np.uint8(IDLE)) == 0
            mm.folio[folio] = flags | np.uint8(IDLE)
            seen = min(sighted[page] + 1, 255) if accessed else 0
            sighted[page] = seen
            if accessed:
                nodes[node, 1] += 1
                if seen >= wanted and folio != last and mm.node[node, TIER] > 0 and (flags & np.uint8(GEN_MASK)) != 0:
                    out[listed], last = page, folio
                    listed += 1
            page += 1
    return np.int64(-1), visited, listed


def scan_ptes(
    mm: Mm,
    memcg: int,
    first: int,
    budget: int,
    sighted: np.ndarray,
    wanted: int,
    posted: bool,
    nodes: np.ndarray,
    out: np.ndarray,
) -> tuple[int, int, int]:
    """Visit the PTEs of an address space from id `first` on, `budget` pages of 4 KiB; returns
    (next id or -1 at the end, visited, listed).

    Args:
        sighted: u8 a page, scans in a row that found it accessed. wanted: of them before a slow page is written to
            `out` (u32).
        posted: PG_young, PG_referenced and a missing PG_idle count as accesses too.
        nodes: i64 [nodes, 2], added to: pages scanned, pages accessed.
    """
    return _scan_ptes(mm.address, memcg, first, budget, sighted, wanted, posted, nodes, out)


@njit_inline
def is_hot(mm: Mm, page: int) -> bool:
    """is_hot_page: on one of the two youngest generations (classic: on the active list)."""
    generation = np.int64(mm.folio[page_folio(mm, page)] & np.uint8(GEN_MASK)) - 1
    if generation < 0 or is_classic(mm):
        return generation == ACTIVE_LIST
    top = mm.lru[folio_lruvec(mm, page), MAX_SEQ]
    return generation == top % MAX_NR_GENS or generation == (top - 1) % MAX_NR_GENS


@njit
def _promote_listed(
    address: int, pages: np.ndarray, target: int, fold: int, price: np.ndarray
) -> tuple[Int, Int, Int, Int]:
    mm = mm_at(address)
    tried = folios = moved = refused = used = np.int64(0)
    while tried < len(pages) and used < price[2]:
        page = np.int64(pages[tried])
        tried += 1
        used += price[0]
        if is_toptier(mm, page) or not is_hot(mm, page):
            continue
        n = promote(mm, page, target, fold)
        folios += n > 0
        moved += n
        refused += n == 0
        used += price[1] * n
    return tried, folios, moved, refused


def promote_listed(mm: Mm, pages: np.ndarray, target: int, fold: int, price: np.ndarray) -> tuple[int, int, int, int]:
    """kmigrated: promote listed pages of the two youngest generations, each through the gate,
    until a slice of time is used.

    price: i64 [3], ps a page tried, ps a page moved, ps of the slice. Returns
    (pages tried, folios, 4 KiB pages, refused by the gate).
    """
    return _promote_listed(mm.address, pages, target, fold, price)


@dataclass
class MmSlot:
    """What the threads know of one address space: struct kscand_mm_slot and kmigrated_mm_slot."""

    tenant: Tenant
    period_ms: int
    size_mib: int
    next_ms: float
    delta: int = 0
    cursor: int = 0
    target: int = 0
    listed: list[np.ndarray] = field(default_factory=list)
    since_ratio: list[int] = field(default_factory=lambda: [0, 0])
    weighed: list[int] = field(default_factory=lambda: [0, 0])
    failed_percent: int = 0

    def tune(self, useful: int, now_ms: float, bounds: tuple[int, int, int, int], backoff: bool) -> None:
        """kscand_update_mmslot_info: the next scan's time and size, after one that found so many useful pages
        (full size).
        """
        before, useful = self.delta, (self.delta >> DECAY_SHIFT) + useful
        useful = useful if useful >= IGNORED_PAGES else 0
        if not before and not useful:
            self.period_ms, self.size_mib = self.period_ms * (100 + TUNE_PERCENT) // 100, self.size_mib >> SIZE_SHIFT
        elif before and useful:
            self.period_ms, self.size_mib = self.period_ms * (100 - TUNE_PERCENT) // 100, self.size_mib << SIZE_SHIFT
        elif before:
            self.period_ms <<= CHANGE_SHIFT
        else:
            self.period_ms, self.size_mib = self.period_ms >> CHANGE_SHIFT, bounds[3]
        self.period_ms = max(bounds[0], min(bounds[1], self.period_ms))
        self.size_mib = max(bounds[2], min(bounds[3], self.size_mib))
        if backoff:
            self.period_ms *= 1 + self.failed_percent // 10
        self.next_ms, self.delta = now_ms + self.period_ms, useful

    def count(self, promoted: int, failed: int) -> None:
        """update_mstat_ratio: the share of promotions that failed, old ones fading by a quarter each 1024
        (full size).
        """
        self.since_ratio[0] += promoted
        self.since_ratio[1] += failed
        if sum(self.since_ratio) >= RATIO_EVERY:
            self.weighed = [(old >> 2) + new for old, new in zip(self.weighed, self.since_ratio, strict=True)]
            self.failed_percent = 100 * self.weighed[1] // sum(self.weighed)
            self.since_ratio = [0, 0]


class Kscand:
    """The scanning and the migrating thread.

    Args:
        sightings: scans in a row that have to find a page accessed (V3: 2, V1: 1).
        period_ms, size_mib: first scan period and size. bounds: least and most period (ms), least and most size (MiB).
        sleep_ms: of both threads. variant: "clean", or "as_posted" with what the module's text names.
        backoff: lengthen the period by the share of promotions that failed (V3 11/17).
    """

    def __init__(
        self, sightings: int = 2, period_ms: int = PERIOD_MS, size_mib: int = SIZE_MIB, sleep_ms: float = SLEEP_MS,
        variant: str = "clean", backoff: bool = True,
        bounds: tuple[int, int, int, int] = (PERIOD_LEAST_MS, PERIOD_MOST_MS, SIZE_LEAST_MIB, SIZE_MOST_MIB),
    ) -> None:  # fmt: skip
        self.posted = variant == "as_posted"
        self.sightings, self.sleep_ms, self.backoff = 1 if self.posted else sightings, sleep_ms, backoff
        self.period_ms, self.size_mib = (
            max(bounds[0], min(bounds[1], period_ms)),
            max(bounds[2], min(bounds[3], size_mib)),
        )
        self.bounds = bounds
        self.metadata_bytes = self.scans = self.tried = self.failed = 0

    def attach(self, system: System) -> None:
        """Start both threads; each address space is scanned from numa_balancing/scan_delay_ms on."""
        self.system = system
        self.sighted = np.zeros(len(system.mm.pte), np.uint8)
        self.price = np.array(
            [system.cost_ps("kpromoted_pop"), system.cost_ps("kpromoted_page"), SLICE_PS // system.fold], np.int64
        )
        delay = system.sysctl("numa_balancing/scan_delay_ms")
        self.slots = [
            MmSlot(t, self.period_ms, self.size_mib, delay, cursor=t.first_page, target=system.default_target)
            for t in system.tenants
        ]
        system.daemon("kscand", self.scan, phase_ms=self.sleep_ms)
        system.daemon("kmigrated", self.migrate, phase_ms=self.sleep_ms)

    def scan(self, system: System) -> Iterator[Any]:
        """The scanning thread: every 20 ms a look at all address spaces, a scan of those whose time has come."""
        while True:
            system.charge_full(kscand_cycle=1)
            for slot in self.slots:
                if system.now_ms >= slot.next_ms:
                    yield from self.scan_mm(system, slot)
            yield system.sleep_ms(self.sleep_ms)

    def scan_mm(self, system: System, slot: MmSlot) -> Iterator[Any]:
        """One scan of an address space; yields each GiB."""
        mm, memcg, end = system.mm, slot.tenant.index, slot.tenant.first_page
        left = (1 << 40) if self.posted else system.scaled(slot.size_mib * MIB_PAGES, "scan size")
        visit, nodes = (
            max(1 << TABLE_SHIFT, VISIT_MIB * MIB_PAGES // system.fold),
            np.zeros((len(mm.node), 2), np.int64),
        )
        self.scans += 1
        if self.posted and slot.cursor < 0:  # the scan that finds no VMA behind the last one
            slot.cursor, left = end, 0
        while left > 0 and slot.cursor >= 0:
            out = np.empty(min(left, visit), np.uint32)
            slot.cursor, visited, listed = (int(n) for n in scan_ptes(
                mm, memcg, slot.cursor, len(out), self.sighted, self.sightings, self.posted, nodes, out))  # fmt: skip
            left -= len(out)
            if listed:
                slot.listed.append(out[:listed].copy())
            system.charge(kscand_pte=visited, kscand_list=listed)
            yield
        if slot.cursor < 0 and not self.posted:
            slot.cursor = end
        tops = [k for k in range(len(mm.node)) if mm.node[k, TIER] == 0 and nodes[k, 0]]
        slot.target = max(tops, key=lambda k: int(nodes[k, 0]), default=system.default_target)
        slot.tune(int(nodes[mm.node[:, TIER] > 0, 1].sum()) * system.fold, system.now_ms, self.bounds, self.backoff)
        waiting = sum(len(pages) for other in self.slots for pages in other.listed)
        self.metadata_bytes = max(self.metadata_bytes, waiting * system.fold * INFO_BYTES)

    def migrate(self, system: System) -> Iterator[Any]:
        """The migrating thread: every 20 ms all that is listed, folio by folio, each with its own TLB flush."""
        while True:
            for slot in self.slots:
                while slot.listed:
                    pages = slot.listed.pop(0)
                    while len(pages):
                        pages = pages[self.promote(system, slot, pages) :]
                        yield
            yield system.sleep_ms(self.sleep_ms)

    def promote(self, system: System, slot: MmSlot, pages: np.ndarray) -> int:
        """Promote listed pages for a slice of time; the thread pays. Returns how many were tried."""
        tried, folios, moved, refused = (
            int(n) for n in promote_listed(system.mm, pages, slot.target, system.fold, self.price)
        )
        system.charge_moves("kpromoted_page", folios, moved)
        system.charge(kpromoted_pop=tried - folios)
        system.flush_tlb(folios, 1)
        slot.count(folios * system.fold, (tried - folios) * system.fold)
        self.tried += tried
        self.failed += refused
        return tried

    def bound(self) -> dict[str, float]:
        """Share of listed pages that the gate refused."""
        return {"kscand refused": self.failed / self.tried if self.tried else 0.0}
