"""pghot v2: a hash of records by frame number and a max-heap a top-tier node, ordered by frequency.

Source: RFC v2 "mm: Hot page tracking and promotion infrastructure", 20250910144653.212066-1-bharata@amd.com, the
version that klruscand RFC v2 was posted on. The record packs frequency (3 bits), node (10) and time (19 bits of
jiffies) in 32 bits; what overflows there overflows here. Hash lists have no bound and nothing ages them, so their
length is charged: half of it for a record that is found, all of it for a new one.
The order inside a list is not modelled. A record belongs to the frame of a single page, also inside a large folio, so
that each of its young PTEs counts for itself; what is promoted is the folio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from klrubench.engine.array_table import addresses, reader
from klrubench.engine.bits import GEN_MASK
from klrubench.engine.jit import njit, njit_inline, njit_source
from klrubench.engine.kthread import jiffies_at
from klrubench.mm.folio import folio_nr_pages, page_folio
from klrubench.mm.kpromoted import (
    P_FOLD,
    P_HZ,
    P_MM,
    P_NODE,
    P_SLEPT,
    P_STORE,
    charged_round,
    kpromoted_at,
    next_budget,
    rest,
)  # fmt: skip
from klrubench.mm.migrate import is_toptier, promote
from klrubench.mm.numa_promotion import may_promote, promotion_rules
from klrubench.mm.pghot_heap import (
    COUNT,
    MS_PER_JIFFY,
    UNKNOWN,
    UNQUEUED,
    WINDOW_JIFFIES,
    has_hot,
    pop_hottest,
    requeue,
)
from klrubench.mm.state import (
    CAPACITY,
    KPROMOTED_DROPPED,
    KPROMOTED_POPPED,
    LARGE_FOLIOS,
    PGHOT_HEAP_FULL,
    PGHOT_HINTFAULTS,
    PGHOT_HWHINTS,
    PGHOT_PGTSCANS,
    PGHOT_RECORDED,
    PGHOT_RECORDS_HASH,
    PGHOT_RECORDS_HEAP,
    TIER,
)  # fmt: skip
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm
    from klrubench.simulate import System

TIME_BITS = 19
FREQ_MASK = 7  # three bits: the eighth sighting wraps to 0
FREQ_LIMIT = 8
HASH_SHARE_PERCENT, LIST_LENGTH = 50, 1024  # lists = 2^floor(log2(lower-tier pages * 50 % / 1024))
HEAP_SHARE_PERCENT = 25  # of the hash's records, a heap
RECORD_BYTES = 40


# the packed u32: frequency in bits 29-31, node in 19-28, jiffies in 0-18
FREQ_SHIFT, NID_SHIFT = 29, 19
NID_MASK, TIME_MASK = 0x3FF, (1 << TIME_BITS) - 1


class PghotArrays(NamedTuple):
    """Records by frame: packed u32 [f], place i32 [f] (index in its heap, or UNKNOWN, UNQUEUED).

    heap: i64 [nodes, cap], frequency << 32 | frame; heap_n: i64 [nodes]; setting: i64 [4]. table, address: as in `Mm`.
    """

    packed: np.ndarray
    place: np.ndarray
    heap: np.ndarray
    heap_n: np.ndarray
    setting: np.ndarray
    table: np.ndarray
    address: int


pghot_at: Callable[[int], PghotArrays] = reader(
    "PghotArrays",
    packed=(np.uint32, 1), place=(np.int32, 1), heap=(np.int64, 2), heap_n=(np.int64, 1), setting=(np.int64, 1),
)  # fmt: skip


def pghot_arrays(frames: int, nodes: int, capacity: int, setting: np.ndarray) -> PghotArrays:
    """An empty store for so many frames, with a heap of `capacity` for each of `nodes` nodes."""
    packed, place = np.zeros(frames, np.uint32), np.full(frames, UNKNOWN, np.int32)
    heap, heap_n = np.zeros((nodes, capacity), np.int64), np.zeros(nodes, np.int64)
    table = addresses([packed, place, heap, heap_n, setting])
    return PghotArrays(packed, place, heap, heap_n, setting, table, table.ctypes.data)


@njit_inline
def pack(freq: int, nid: int, time: int) -> np.uint32:
    """The record's u32."""
    return np.uint32((freq << FREQ_SHIFT) | (nid << NID_SHIFT) | time)


@njit_inline
def record_access(p: PghotArrays, frame: int, nid: int, jiffies: int, exempt: bool) -> tuple[int, int]:
    """pghot_record_access for one frame of the lower tier; returns
    (list elements walked * 2 in units of lists, outcome).

    `nid` < 0: accessor unknown. `exempt`: hint faults are not subject to the gap rule. Outcome 1: entered a heap, 2:
    heap full.
    """
    now = jiffies & TIME_MASK
    target = max(nid, 0)
    place = np.int64(p.place[frame])
    if place == UNKNOWN:
        p.packed[frame], p.place[frame] = pack(1, target, now), UNQUEUED
        p.setting[COUNT] += 1
        return 2 * p.setting[COUNT], 0
    freq: Int
    record = np.int64(p.packed[frame])
    freq, old = record >> FREQ_SHIFT, (record >> NID_SHIFT) & NID_MASK
    gap = now - (record & TIME_MASK)  # not masked: a wrapped clock reads as an endless gap
    if (not exempt and (gap < 0 or gap > p.setting[WINDOW_JIFFIES])) or (nid >= 0 and nid != old):
        freq = 1
    elif freq < FREQ_LIMIT:
        freq = (freq + 1) & FREQ_MASK
    p.packed[frame] = pack(freq, target, now)
    return p.setting[COUNT], requeue(p, frame, place, old, target, freq)


@njit
def _record_pages(
    store: int, address: int, pages: np.ndarray, nid: int, jiffies: int, exempt: bool
) -> tuple[Int, Int, Int]:
    p = pghot_at(store)
    mm = mm_at(address)
    large = mm.setting[LARGE_FOLIOS] != 0
    recorded = walked = entered = np.int64(0)
    for k in range(len(pages)):
        page = np.int64(pages[k])
        head = page_folio(mm, page) if large else page
        if is_toptier(mm, page) or not mm.folio[head] & np.uint8(GEN_MASK):
            continue
        steps, queued = record_access(p, np.int64(mm.pfn[page]), nid, jiffies, exempt)
        recorded += 1
        walked += steps
        entered += queued == 1
        mm.stat[PGHOT_HEAP_FULL] += queued == 2
    mm.stat[PGHOT_RECORDED] += recorded
    return recorded, walked, entered


def record_pages(
    p: PghotArrays, mm: Mm, pages: np.ndarray, nid: int, jiffies: int, exempt: bool
) -> tuple[int, int, int]:
    """Record a batch of page ids; returns (recorded, list elements * 2, heap entries)."""
    return _record_pages(p.address, mm.address, pages, nid, jiffies, exempt)


@njit_source
def pop_round(
    p: PghotArrays, mm: Mm, node: int, budget: int, jiffies: int, rules: np.ndarray, fold: int
) -> tuple[Int, Int, Int]:
    """kpromoted's round on a node: pop up to `budget` records, forget each, promote what may be;
    (popped, folios, pages).
    """
    popped = folios = moved = np.int64(0)
    while popped < budget and has_hot(p, node):
        popped += 1
        frame, page = pop_hottest(p, mm, node)
        if page < 0:
            continue
        age = (jiffies & TIME_MASK) - (np.int64(p.packed[frame]) & TIME_MASK)
        if not may_promote(
            mm,
            node,
            rules,
            age * p.setting[MS_PER_JIFFY] if age >= 0 else 1 << 40,
            folio_nr_pages(mm, page),
        ):
            mm.stat[KPROMOTED_DROPPED] += 1
            continue
        pages = promote(mm, page, node, fold)
        moved += pages
        folios += pages > 0
    mm.stat[KPROMOTED_POPPED] += popped
    return popped, folios, moved


@njit
def _pop_promote(
    store: int, address: int, node: int, budget: int, jiffies: int, rules: np.ndarray, fold: int
) -> tuple[Int, Int, Int]:
    return pop_round(pghot_at(store), mm_at(address), node, budget, jiffies, rules, fold)


def pop_promote(
    p: PghotArrays, mm: Mm, node: int, budget: int, jiffies: int, rules: np.ndarray, fold: int
) -> tuple[int, int, int]:
    """`pop_round`, from Python."""
    return _pop_promote(p.address, mm.address, node, budget, jiffies, rules, fold)


def kpromoted_turn(context: int, unused: int, now_ps: int) -> Int:
    """kpromoted's turn on a heap of v2: a round of pops, then sleep."""
    t = kpromoted_at(context)
    own, spent = t.own, np.int64(0)
    p, mm = pghot_at(own[P_STORE]), mm_at(own[P_MM])
    if own[P_SLEPT]:
        budget, jiffies = next_budget(own), jiffies_at(now_ps, own[P_HZ])
        popped, folios, pages = pop_round(p, mm, own[P_NODE], budget, jiffies, t.rules, own[P_FOLD])
        spent += charged_round(t, budget, popped, folios, pages)
    rest(t, p.heap_n[own[P_NODE]], now_ps + spent)
    return spent


# the counter of /proc/vmstat of each posted source; others (idle_page) are counted in the sum alone
SOURCES = {"pgtable_scan": PGHOT_PGTSCANS, "hint_fault": PGHOT_HINTFAULTS, "hwhint": PGHOT_HWHINTS}


def count_source(system: System, source: str, recorded: int) -> None:
    """Count sightings under their source."""
    if source in SOURCES:
        system.mm.stat[SOURCES[source]] += recorded


def wrap_notes(system: System, bits: int) -> list[str]:
    """The note of a store whose differences are not masked: said of runs that outlast a wrap of its clock."""
    wrap_s = (1 << bits) / system.machine.hz
    if system.now_ms < 1000 * wrap_s:
        return []
    what = f"records from before a wrap start again at one sighting, gaps over {wrap_s:.3g} s may read as short ones"
    return [f"pghot's {bits}-bit time wraps each {wrap_s:.3g} s at HZ={system.machine.hz}: {what}"]


class Pghot:
    """The hotness store: any source may feed it with `record`.

    Args:
        version: only "v2" here.
        threshold: sightings needed (posted: 2), window_ms: largest gap between two sightings (posted: 5000).
        sized_hash: a hash with a list a record instead of the posted 2^floor(log2(pages * 50 % / 1024)); ours, to show
            what lists cost.
    """

    record_bytes, kpromoted_turn = RECORD_BYTES, staticmethod(kpromoted_turn)

    def __init__(
        self, version: str = "v2", threshold: int = 2, window_ms: float = 5000, sized_hash: bool = False
    ) -> None:
        if version != "v2":
            raise ValueError(f"pghot version '{version}' is not modelled; known: v2")
        self.threshold, self.window_ms, self.sized_hash = threshold, window_ms, sized_hash
        self.metadata_bytes = self.elements = self.recorded = self.entered = 0

    def attach(self, system: System) -> None:
        """Allocate for the machine of `system`; sizes follow the full-size lower tier."""
        mm = system.mm
        self.system = system
        lower = int(mm.node[mm.node[:, TIER] > 0, CAPACITY].sum())
        full = lower * system.fold
        self.lists = (
            max(1, full)
            if self.sized_hash
            else 1 << max(0, int(np.log2(max(1, full * HASH_SHARE_PERCENT // 100 / LIST_LENGTH))))
        )
        cap = full * HASH_SHARE_PERCENT // 100 * HEAP_SHARE_PERCENT // 100
        self.arrays = self.make_arrays(len(mm.frame_page), len(mm.node), system.scaled(cap, "heap"))
        self._setting = self.arrays.setting.data
        self.rules = promotion_rules(
            int(self.window_ms),
            system.sysctl("numa_balancing/scan_period_max_ms"),
            system.sysctl("vm.pghot_promote_rate_limit_MBps"),
            system.fold,
        )
        self.waiting: list[Any] = []

    def settings(self) -> list[int]:
        """The first settings of every store with heaps.

        v2 as posted holds an age in jiffies against a threshold in milliseconds (phi_is_pfn_hot): the same at HZ=1000.
        """
        return [self.threshold, int(self.window_ms * self.system.machine.hz // 1000), 0, 1]

    def set_window(self, window_ms: float) -> None:
        """Another longest gap between two sightings, for what is recorded from now on
        (vm.pghot_promote_freq_window_ms).
        """
        self.arrays.setting[WINDOW_JIFFIES] = int(window_ms * self.system.machine.hz // 1000)

    def queued(self) -> int:
        """Records that wait in the heaps, full size."""
        return int(self.arrays.heap_n.sum()) * self.system.fold

    def make_arrays(self, frames: int, nodes: int, capacity: int) -> Any:
        """The empty store."""
        return pghot_arrays(frames, nodes, capacity, np.array(self.settings(), np.int64))

    def record_batch(self, pages: np.ndarray, nid: int, exempt: bool) -> tuple[int, int, int]:
        """Record page ids now; (recorded, list elements * 2, heap entries)."""
        return record_pages(self.arrays, self.system.mm, pages, nid, self.system.jiffies, exempt)

    def record(self, pages: np.ndarray, source: str, nid: int = -1) -> None:
        """Record sightings of page ids; the calling thread pays a record each, the list walk, and heap entries."""
        if not len(pages):
            return
        system = self.system
        recorded, walked, entered = self.record_batch(pages, nid, source == "hint_fault")
        count_source(system, source, recorded)
        system.charge(pghot_record=recorded, heap_push=entered)
        elements = int(walked) * system.fold * system.fold // (2 * self.lists)
        system.charge_full(pghot_list_element=elements)
        self.elements += elements
        self.recorded += recorded * system.fold
        self.entered += entered
        held = self._setting[COUNT] * system.fold * self.record_bytes
        if held > self.metadata_bytes:
            self.metadata_bytes = held
        if entered:
            for thread in self.waiting:
                thread.kick()

    def bound(self) -> dict[str, float]:
        """Share of the recording time spent walking hash lists, and of hot pages turned away by a full heap."""
        costs = self.system.machine.costs
        lists, records = self.elements * costs["pghot_list_element"].ns, self.recorded * costs["pghot_record"].ns
        refused = int(self.system.mm.stat[PGHOT_HEAP_FULL])
        return {
            "hash lists": lists / (lists + records) if records else 0.0,
            "heap full": refused / (refused + self.entered) if refused else 0.0,
        }

    def notes(self) -> list[str]:
        """What readers of a long run must know: this version's clock has wrapped in it."""
        return wrap_notes(self.system, TIME_BITS)

    def sample(self) -> None:
        """Bring the gauge counters of /proc/vmstat up to date."""
        stat = self.system.mm.stat
        stat[PGHOT_RECORDS_HASH], stat[PGHOT_RECORDS_HEAP] = self.arrays.setting[COUNT], self.arrays.heap_n.sum()
