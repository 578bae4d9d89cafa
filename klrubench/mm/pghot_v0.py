"""kpromoted before pghot: a hash of records that one thread sweeps each second, promoting page by page.

Source: RFC "Kernel daemon for detecting and promoting hot pages", 20250306054532.221138-1-bharata@amd.com; klruscand
RFC v1 fed it. The sweep deletes what it promoted and what is not worth it: frequency under 2, or older than two
windows. A promotion that the gate refused stays for the next sweep. There is no latency threshold, limit or batch yet.

As posted the gap is taken backwards (last - now, unsigned), and a new record is counted twice. So a page is hot at its
*first* sighting, and any later one, but in the same jiffy, starts it again at 1, which the next sweep deletes. The
author's counters show it (b9965654-af90-42c9-8e4b-b29621d11ea7@amd.com): 321,234 records, 1,380 of them found again;
319,635 promoted, 1,373 dropped as too rarely accessed. `posted=False` counts as its comments say: a slow source then
hardly ever has two sightings between two sweeps.
Posted with node 1 as the target of sources that know no node (the author's second socket); here: the default target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from klrubench.engine.array_table import addresses, reader
from klrubench.engine.bits import GEN_MASK
from klrubench.engine.jit import njit, njit_inline
from klrubench.engine.kthread import FLUSHES, JIFFIES, REQUEST, SLEEP, charged, charged_moves, jiffies_at
from klrubench.engine.prefetch import prefetch
from klrubench.mm.folio import page_folio
from klrubench.mm.migrate import folio_price, is_toptier, promote, slice_ps
from klrubench.mm.pghot import count_source
from klrubench.mm.state import (
    KPROMOTED_COLD_OLD,
    KPROMOTED_DROPPED,
    KPROMOTED_NON_LRU,
    KPROMOTED_RIGHT_NODE,
    LARGE_FOLIOS,
    PGHOT_RECORDED,
    PGHOT_RECORDS_HASH,
)
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm
    from klrubench.simulate import System

HASH_ORDER = 16
HASH_LISTS = 1 << HASH_ORDER
GOLDEN_RATIO_64 = 0x61C8864680B583EB
RECORD_BYTES = 64  # 56 in a kmalloc-64 object
SLEEP_MS = 1000
OLD_WINDOWS = 2
FRAMES_AHEAD = 32  # places of the order, of prefetch distance

# columns of a record (frequency 0: none) and settings
FREQ, STAMP, COLUMNS = range(3)
THRESHOLD, WINDOW_JIFFIES, COUNT, POSTED, NODE = range(5)
# prices of a slice
SEEN, REFUSED, SMALL, HUGE, SLICE = range(5)


class SweepArrays(NamedTuple):
    """record: i64 [f, 2]; order: i32 [f], frames in the order of the hash lists; setting: i64 [5]."""

    record: np.ndarray
    order: np.ndarray
    setting: np.ndarray
    table: np.ndarray
    address: int


sweep_at: Callable[[int], SweepArrays] = reader(
    "SweepArrays", record=(np.int64, 2), order=(np.int32, 1), setting=(np.int64, 1)
)


def sweep_arrays(frames: int, setting: np.ndarray) -> SweepArrays:
    """An empty store; lists are visited in the order of hash_64()."""
    with np.errstate(over="ignore"):
        bucket = (np.arange(frames, dtype=np.uint64) * np.uint64(GOLDEN_RATIO_64)) >> np.uint64(64 - HASH_ORDER)
    record, order = np.zeros((frames, COLUMNS), np.int64), np.argsort(bucket, kind="stable").astype(np.int32)
    table = addresses([record, order, setting])
    return SweepArrays(record, order, setting, table, table.ctypes.data)


@njit_inline
def record_swept(p: SweepArrays, frame: int, jiffies: int) -> int:
    """kpromoted_record_access for one frame; returns list elements walked * 2, in units of lists."""
    freq = p.record[frame, FREQ]
    if freq == 0:
        p.record[frame, FREQ], p.record[frame, STAMP] = 1 + p.setting[POSTED], jiffies
        p.setting[COUNT] += 1
        return 2 * p.setting[COUNT]
    gap = jiffies - p.record[frame, STAMP]
    if gap > (0 if p.setting[POSTED] else p.setting[WINDOW_JIFFIES]):
        p.record[frame, FREQ], p.record[frame, STAMP] = 1, jiffies
    else:  # the time stays that of the window's start
        p.record[frame, FREQ] = freq + 1
    return p.setting[COUNT]


@njit
def _record_pages(store: int, address: int, pages: np.ndarray, jiffies: int) -> tuple[Int, Int]:
    p = sweep_at(store)
    mm = mm_at(address)
    large = mm.setting[LARGE_FOLIOS] != 0
    recorded = walked = np.int64(0)
    for k in range(len(pages)):
        page = np.int64(pages[k])
        head = page_folio(mm, page) if large else page
        if is_toptier(mm, page) or not mm.folio[head] & np.uint8(GEN_MASK):
            continue
        recorded += 1
        walked += record_swept(p, np.int64(mm.pfn[page]), jiffies)
    mm.stat[PGHOT_RECORDED] += recorded
    return recorded, walked


def record_pages(p: SweepArrays, mm: Mm, pages: np.ndarray, jiffies: int) -> tuple[int, int]:
    """Record a batch of page ids; returns (recorded, list elements * 2)."""
    return _record_pages(p.address, mm.address, pages, jiffies)


@njit_inline
def should_promote(p: SweepArrays, mm: Mm, frame: int, jiffies: int) -> Int:
    """page_should_be_promoted: the record's page, or -1 to stop tracking it."""
    page = np.int64(mm.frame_page[frame])
    if page < 0 or not mm.folio[page_folio(mm, page)] & np.uint8(GEN_MASK):
        mm.stat[KPROMOTED_NON_LRU] += 1
        return np.int64(-1)
    if is_toptier(mm, page):
        mm.stat[KPROMOTED_RIGHT_NODE] += 1
        return np.int64(-1)
    if jiffies - p.record[frame, STAMP] > OLD_WINDOWS * p.setting[WINDOW_JIFFIES]:
        mm.stat[KPROMOTED_COLD_OLD] += 1
        return np.int64(-1)
    return page if p.record[frame, FREQ] >= p.setting[THRESHOLD] else np.int64(-1)


@njit
def _sweep(
    store: int, address: int, at: int, price: np.ndarray, jiffies: int, fold: int
) -> tuple[int, Int, Int, Int, Int]:
    p = sweep_at(store)
    mm = mm_at(address)
    visited = folios = moved = refused = spent = np.int64(0)
    last = len(p.order) - 1
    while at <= last and spent < price[SLICE]:
        frame = np.int64(p.order[at])
        prefetch(p.record[p.order[min(at + FRAMES_AHEAD, last)]], np.uint64(FREQ))
        at += 1
        if p.record[frame, FREQ] == 0:
            continue
        visited += 1
        spent += price[SEEN]
        page = should_promote(p, mm, frame, jiffies)
        pages = promote(mm, page, p.setting[NODE], fold) if page >= 0 else 0
        if page >= 0 and pages == 0:
            refused += 1
            spent += price[REFUSED]
            continue
        mm.stat[KPROMOTED_DROPPED] += page < 0
        if page >= 0:
            folios += 1
            moved += pages
            spent += folio_price(price[SMALL], price[HUGE], pages)
        p.record[frame, FREQ] = 0
        p.setting[COUNT] -= 1
    return at, visited, folios, moved, refused


def sweep(
    p: SweepArrays, mm: Mm, at: int, price: np.ndarray, jiffies: int, fold: int
) -> tuple[int, int, int, int, int]:
    """Go on with a sweep at place `at`, to its end or that of a slice of time.

    price: i64 [5], ps of a record seen, one refused by the gate, a 4 KiB and a 2 MiB folio promoted, and of the slice.
    Returns (next place, records seen, folios and 4 KiB pages promoted, refusals).
    """
    return _sweep(p.address, mm.address, at, price, jiffies, fold)


# kpromoted's own words: where the memory and the store are, the place in the sweep (-1: asleep)
S_MM, S_STORE, S_FOLD, S_HZ, S_SLEEP, S_AT, S_WORDS = range(7)
COSTS = ("kpromoted_page", "migrate_2m", "pghot_list_element", "kpromoted_pop")
C_PAGE, C_HUGE, C_SEEN, C_POP = range(len(COSTS))

kpromoted_at: Any = reader(
    "SweepThread",
    row=(np.int64, 1), events=(np.int64, 1), price_ps=(np.float64, 1), own=(np.int64, 1), slice_price=(np.int64, 1),
)  # fmt: skip


@njit_inline
def swept_slice(t: Any, jiffies: int) -> float:
    """A slice of a sweep; the picoseconds that it takes."""
    own, events, price, fold = t.own, t.events, t.price_ps, t.own[S_FOLD]
    at, visited, folios, pages, refused = _sweep(own[S_STORE], own[S_MM], own[S_AT], t.slice_price, jiffies, fold)
    own[S_AT] = at
    moved = charged_moves(events, price, C_PAGE, C_HUGE, folios, pages, fold)
    looked = charged(events, price, C_SEEN, visited, fold)
    looked += charged(events, price, C_POP, refused, fold)
    t.row[FLUSHES] = folios * fold
    return moved + looked


def kpromoted_turn(context: int, unused: int, now_ps: int) -> Int:
    """A slice of a sweep over all lists, whatever is in them; a second of sleep before each sweep."""
    t = kpromoted_at(context)
    own = t.own
    p = sweep_at(own[S_STORE])
    spent = 0.0
    if own[S_AT] < 0:
        spent += t.price_ps[C_SEEN] * HASH_LISTS
        own[S_AT] = 0 if p.setting[COUNT] else len(p.order)
    if own[S_AT] < len(p.order):
        spent += swept_slice(t, jiffies_at(now_ps, own[S_HZ]))
    else:
        own[S_AT] = -1
        t.row[REQUEST], t.row[JIFFIES] = SLEEP, own[S_SLEEP]
    return np.int64(np.rint(spent))


class SweptPghot:
    """Store and thread: any source may feed it with `record`.

    Args:
        threshold: sightings needed (posted: 2).
        window_ms: the window (posted: 5000).
        posted: count as the posted code does.
    """

    def __init__(self, threshold: int = 2, window_ms: float = 5000, posted: bool = True) -> None:
        self.threshold, self.window_ms, self.posted = threshold, window_ms, posted
        self.metadata_bytes = self.elements = self.recorded = 0

    def attach(self, system: System) -> None:
        """Allocate, and start the thread."""
        self.system = system
        window = int(self.window_ms * system.machine.hz // 1000)
        setting = np.array([self.threshold, window, 0, self.posted, system.default_target], np.int64)
        self.arrays = sweep_arrays(len(system.mm.frame_page), setting)
        own = np.zeros(S_WORDS, np.int64)
        own[[S_MM, S_STORE, S_AT]] = system.mm.address, self.arrays.address, len(self.arrays.order)  # sleeps first
        own[[S_FOLD, S_HZ, S_SLEEP]] = system.fold, system.machine.hz, system.timer_jiffies(SLEEP_MS)
        names = ("pghot_list_element", "kpromoted_pop", "kpromoted_page", "migrate_2m")
        price = np.array([*(system.cost_ps(name) for name in names), slice_ps(system)], np.int64)
        system.kernel_thread("kpromoted", kpromoted_turn, COSTS, [own, price])

    def set_window(self, window_ms: float) -> None:
        """Another window, for what is recorded and swept from now on."""
        self.arrays.setting[WINDOW_JIFFIES] = int(window_ms * self.system.machine.hz // 1000)

    def record(self, pages: np.ndarray, source: str, nid: int = -1) -> None:
        """Record sightings of page ids; the calling thread pays a record each and the list walk."""
        if not len(pages):
            return
        system = self.system
        recorded, walked = record_pages(self.arrays, system.mm, pages, system.jiffies)
        count_source(system, source, recorded)
        elements = int(walked) * system.fold * system.fold // (2 * HASH_LISTS)
        system.charge(pghot_record=recorded)
        system.charge_full(pghot_list_element=elements)
        self.elements += elements
        self.recorded += recorded * system.fold
        self.metadata_bytes = max(self.metadata_bytes, int(self.arrays.setting[COUNT]) * system.fold * RECORD_BYTES)

    def bound(self) -> dict[str, float]:
        """Share of the recording time spent walking hash lists, and of the run in which the sweep was at work."""
        system, costs = self.system, self.system.machine.costs
        lists, records = self.elements * costs["pghot_list_element"].ns, self.recorded * costs["pghot_record"].ns
        return {
            "hash lists": lists / (lists + records) if records else 0.0,
            "kpromoted": min(1.0, system.cpu_ps["kpromoted"] / system.now_ps) if system.now_ps else 0.0,
        }

    def sample(self) -> None:
        """Bring the gauge counters of /proc/vmstat up to date."""
        self.system.mm.stat[PGHOT_RECORDS_HASH] = self.arrays.setting[COUNT]
