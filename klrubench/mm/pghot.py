"""pghot v2: a hash of records by frame number and a max-heap a top-tier node, ordered by frequency.

Source: RFC v2 "mm: Hot page tracking and promotion infrastructure", 20250910144653.212066-1-bharata@amd.com, the version that klruscand
RFC v2 was posted on. The record packs frequency (3 bits), node (10) and time (19 bits of jiffies) in 32 bits; what overflows there
overflows here. Hash lists have no bound and nothing ages them, so their length is charged: half of it for a record that is found,
all of it for a new one. The order inside a list is not modelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from klrubench.engine.bits import GEN_MASK
from klrubench.engine.jit import njit
from klrubench.mm.migrate import is_toptier
from klrubench.mm.numa_promotion import may_promote, promotion_rules
from klrubench.mm.migrate import promote
from klrubench.mm.state import (
    CAPACITY, KPROMOTED_DROPPED, KPROMOTED_NON_LRU, KPROMOTED_POPPED, KPROMOTED_RIGHT_NODE, PGHOT_HEAP_FULL, PGHOT_PGTSCANS, PGHOT_RECORDED,
    PGHOT_RECORDS_HASH, PGHOT_RECORDS_HEAP, TIER,
)  # fmt: skip

if TYPE_CHECKING:
    from klrubench.simulate import System

TIME_BITS = 19
FREQ_MASK = 7  # three bits: the eighth sighting wraps to 0
FREQ_LIMIT = 8
HASH_SHARE_PERCENT, LIST_LENGTH = 50, 1024  # lists = 2^floor(log2(lower-tier pages * 50 % / 1024))
HEAP_SHARE_PERCENT = 25  # of the hash's records, a heap
RECORD_BYTES = 40

# i64 settings and counters of a store
THRESHOLD, WINDOW_JIFFIES, COUNT, MS_PER_JIFFY = range(4)


class PghotArrays(NamedTuple):
    """Records by frame: known u8, freq u8, time u32, nid u8, place i32 (in its heap, -1 outside); heap i32 [nodes, cap]; heap_n i64."""

    known: Any
    freq: Any
    time: Any
    nid: Any
    place: Any
    heap: Any
    heap_n: Any
    setting: Any


@njit
def heap_swap(p, node, a, b):
    """Exchange two entries of a heap."""
    x, y = p.heap[node, a], p.heap[node, b]
    p.heap[node, a], p.heap[node, b] = y, x
    p.place[y], p.place[x] = a, b


@njit
def heap_up(p, node, k):
    """Move an entry up to where its frequency belongs."""
    while k > 0 and p.freq[p.heap[node, (k - 1) // 2]] < p.freq[p.heap[node, k]]:
        heap_swap(p, node, k, (k - 1) // 2)
        k = (k - 1) // 2
    return k


@njit
def heap_down(p, node, k):
    """Move an entry down to where its frequency belongs."""
    n = p.heap_n[node]
    while True:
        top = k
        for child in range(2 * k + 1, min(2 * k + 3, n)):
            if p.freq[p.heap[node, child]] > p.freq[p.heap[node, top]]:
                top = child
        if top == k:
            return
        heap_swap(p, node, k, top)
        k = top


@njit
def heap_fix(p, node, k):
    """Reposition an entry whose frequency changed."""
    heap_down(p, node, heap_up(p, node, k))


@njit
def heap_push(p, node, frame):
    """Queue a frame; False if the heap is full."""
    n = p.heap_n[node]
    if n == p.heap.shape[1]:
        return False
    p.heap[node, n] = frame
    p.place[frame] = n
    p.heap_n[node] = n + 1
    heap_up(p, node, n)
    return True


@njit
def heap_remove(p, node, k):
    """Take the entry at index k out of the heap; returns its frame."""
    frame = p.heap[node, k]
    last = p.heap_n[node] - 1
    heap_swap(p, node, k, last)
    p.heap_n[node] = last
    p.place[frame] = -1
    if k < last:
        heap_fix(p, node, k)
    return frame


@njit
def record_access(p, mm, frame, nid, jiffies, exempt):
    """pghot_record_access for one frame of the lower tier; returns (list elements walked * 2 in units of lists, entered a heap).

    `nid` < 0: accessor unknown. `exempt`: hint faults are not subject to the gap rule.
    """
    now = jiffies & ((1 << TIME_BITS) - 1)
    if not p.known[frame]:
        p.known[frame], p.freq[frame], p.time[frame], p.nid[frame] = 1, 1, now, max(nid, 0)
        p.setting[COUNT] += 1
        return 2 * p.setting[COUNT], 0
    walked = p.setting[COUNT]
    gap = now - np.int64(p.time[frame])  # not masked: a wrapped clock reads as an endless gap
    if (not exempt and (gap < 0 or gap > p.setting[WINDOW_JIFFIES])) or (nid >= 0 and nid != p.nid[frame]):
        p.freq[frame] = 1
    elif p.freq[frame] < FREQ_LIMIT:
        p.freq[frame] = (p.freq[frame] + 1) & FREQ_MASK
    old = np.int64(p.nid[frame])
    p.time[frame], p.nid[frame] = now, max(nid, 0)
    if p.place[frame] >= 0:
        if p.freq[frame] < p.setting[THRESHOLD]:
            heap_remove(p, old, p.place[frame])
        else:
            heap_fix(p, old, p.place[frame])
        return walked, 0
    if p.freq[frame] >= p.setting[THRESHOLD]:
        if heap_push(p, np.int64(p.nid[frame]), frame):
            return walked, 1
        return walked, 2
    return walked, 0


@njit
def record_pages(p, mm, pages, nid, jiffies, exempt):
    """Record a batch of page ids; returns (recorded, list elements * 2, heap entries)."""
    recorded = walked = entered = np.int64(0)
    for k in range(len(pages)):
        page = np.int64(pages[k])
        if is_toptier(mm, page) or not mm.folio[page] & np.uint8(GEN_MASK):
            continue
        steps, queued = record_access(p, mm, np.int64(mm.pfn[page]), nid, jiffies, exempt)
        recorded += 1
        walked += steps
        entered += queued == 1
        mm.stat[PGHOT_HEAP_FULL] += queued == 2
    mm.stat[PGHOT_RECORDED] += recorded
    return recorded, walked, entered


@njit
def pop_promote(p, mm, node, budget, jiffies, rules, fold):
    """kpromoted's round on a node: pop up to `budget` records, forget each, promote what may be; (popped, folios, pages, refused)."""
    popped = folios = moved = np.int64(0)
    while popped < budget and p.heap_n[node] > 0 and p.freq[p.heap[node, 0]] >= p.setting[THRESHOLD]:
        frame = np.int64(heap_remove(p, node, 0))
        stamp = np.int64(p.time[frame])
        p.known[frame] = p.freq[frame] = 0
        p.setting[COUNT] -= 1
        popped += 1
        page = np.int64(mm.frame_page[frame])
        if page < 0 or not mm.folio[page] & np.uint8(GEN_MASK):
            mm.stat[KPROMOTED_NON_LRU] += 1
            continue
        if is_toptier(mm, page):
            mm.stat[KPROMOTED_RIGHT_NODE] += 1
            continue
        age = (jiffies & ((1 << TIME_BITS) - 1)) - stamp
        if not may_promote(mm, node, rules, age * p.setting[MS_PER_JIFFY] if age >= 0 else 1 << 40, np.int64(1) << mm.vma[mm.block_vma[page >> 9], 4]):
            mm.stat[KPROMOTED_DROPPED] += 1
            continue
        pages = promote(mm, page, node, fold)
        moved += pages
        folios += pages > 0
    mm.stat[KPROMOTED_POPPED] += popped
    return popped, folios, moved


class Pghot:
    """The hotness store: any source may feed it with `record`.

    Args:
        version: only "v2" here.
        threshold: sightings needed (posted: 2), window_ms: largest gap between two sightings (posted: 5000).
        sized_hash: a hash with a list a record instead of the posted 2^floor(log2(pages * 50 % / 1024)); ours, to show what lists cost.
    """

    def __init__(self, version: str = "v2", threshold: int = 2, window_ms: float = 5000, sized_hash: bool = False) -> None:
        if version != "v2":
            raise ValueError(f"pghot version '{version}' is not modelled; known: v2")
        self.threshold, self.window_ms, self.sized_hash = threshold, window_ms, sized_hash
        self.metadata_bytes = 0

    def attach(self, system: System) -> None:
        """Allocate for the machine of `system`; sizes follow the full-size lower tier."""
        mm = system.mm
        self.system = system
        lower = int(mm.node[mm.node[:, TIER] > 0, CAPACITY].sum())
        full = lower * system.fold
        self.lists = max(1, full) if self.sized_hash else 1 << max(0, int(np.log2(max(1, full * HASH_SHARE_PERCENT // 100 / LIST_LENGTH))))
        cap = full * HASH_SHARE_PERCENT // 100 * HEAP_SHARE_PERCENT // 100
        frames, tops = len(mm.frame_page), int((mm.node[:, TIER] == 0).sum())
        setting = np.array([self.threshold, self.window_ms * system.machine.hz // 1000, 0, 1000 // system.machine.hz], np.int64)
        self.arrays = PghotArrays(
            np.zeros(frames, np.uint8), np.zeros(frames, np.uint8), np.zeros(frames, np.uint32), np.zeros(frames, np.uint8),
            np.full(frames, -1, np.int32), np.zeros((tops, max(1, system.scaled(max(1, cap), "heap"))), np.int32), np.zeros(tops, np.int64), setting,
        )  # fmt: skip
        self.rules = promotion_rules(
            int(self.window_ms), system.sysctl("numa_balancing/scan_period_max_ms"), system.sysctl("vm.pghot_promote_rate_limit_MBps"), system.fold
        )
        self.waiting: list[Any] = []

    def record(self, pages: np.ndarray, source: str, nid: int = -1) -> None:
        """Record sightings of page ids; the calling thread pays a record each, the list walk, and heap entries."""
        if not len(pages):
            return
        system = self.system
        recorded, walked, entered = record_pages(self.arrays, system.mm, pages, nid, system.jiffies, source == "hint_fault")
        system.mm.stat[PGHOT_PGTSCANS] += recorded if source == "pgtable_scan" else 0
        system.charge(pghot_record=recorded, heap_push=entered)
        system.charge_full(pghot_list_element=int(walked) * system.fold * system.fold // (2 * self.lists))
        self.metadata_bytes = max(self.metadata_bytes, int(self.arrays.setting[COUNT]) * system.fold * RECORD_BYTES)
        if entered:
            for thread in self.waiting:
                thread.kick()

    def sample(self) -> None:
        """Bring the gauge counters of /proc/vmstat up to date."""
        stat = self.system.mm.stat
        stat[PGHOT_RECORDS_HASH], stat[PGHOT_RECORDS_HEAP] = self.arrays.setting[COUNT], self.arrays.heap_n.sum()
