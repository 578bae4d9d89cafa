"""pghot v1: hash and heap as in v2, but unpacked records: a whole int of frequency, a whole jiffies of time.

Source: RFC v1 "mm: Hot page tracking and promotion infrastructure", 20250814134826.154003-1-bharata@amd.com. What is
popped is only asked for its age: older than two windows (10 s) is dropped; neither latency threshold nor rate limit nor
free-space bypass exist yet. With v2's rules on top this is also v2 with a clock that does not wrap (ours).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

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
from klrubench.mm.numa_promotion import may_promote
from klrubench.mm.pghot import FREQ_LIMIT, FREQ_MASK, Pghot
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
    KPROMOTED_COLD_OLD,
    KPROMOTED_DROPPED,
    KPROMOTED_POPPED,
    LARGE_FOLIOS,
    PGHOT_HEAP_FULL,
    PGHOT_RECORDED,
)
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm

RECORD_BYTES = 48
OLD_WINDOWS = 2  # a popped record older than so many windows is dropped

# columns of a record
FREQ, STAMP, NID, COLUMNS = range(4)
# settings behind those of v2: the counter's end and mask, and the oldest record promoted (0: v2's test instead)
LIMIT, MASK, MAX_AGE = range(MS_PER_JIFFY + 1, MS_PER_JIFFY + 4)
NO_LIMIT = (1 << 31) - 1


class UnpackedArrays(NamedTuple):
    """As `PghotArrays`, but record: i64 [f, 3] frequency, jiffies, node; setting: i64 [7]."""

    record: np.ndarray
    place: np.ndarray
    heap: np.ndarray
    heap_n: np.ndarray
    setting: np.ndarray
    table: np.ndarray
    address: int


unpacked_at: Callable[[int], UnpackedArrays] = reader(
    "UnpackedArrays",
    record=(np.int64, 2), place=(np.int32, 1), heap=(np.int64, 2), heap_n=(np.int64, 1), setting=(np.int64, 1),
)  # fmt: skip


def unpacked_arrays(frames: int, nodes: int, capacity: int, setting: np.ndarray) -> UnpackedArrays:
    """An empty store for so many frames, with a heap of `capacity` for each of `nodes` nodes."""
    record, place = np.zeros((frames, COLUMNS), np.int64), np.full(frames, UNKNOWN, np.int32)
    heap, heap_n = np.zeros((nodes, capacity), np.int64), np.zeros(nodes, np.int64)
    table = addresses([record, place, heap, heap_n, setting])
    return UnpackedArrays(record, place, heap, heap_n, setting, table, table.ctypes.data)


@njit_inline
def record_unpacked(p: UnpackedArrays, frame: int, nid: int, jiffies: int, exempt: bool) -> tuple[int, int]:
    """pghot_record_access for one frame, as `pghot.record_access`."""
    target = max(nid, 0)
    place = np.int64(p.place[frame])
    if place == UNKNOWN:
        p.record[frame, FREQ], p.record[frame, STAMP], p.record[frame, NID] = 1, jiffies, target
        p.place[frame] = UNQUEUED
        p.setting[COUNT] += 1
        return 2 * p.setting[COUNT], 0
    freq, old = p.record[frame, FREQ], p.record[frame, NID]
    if (not exempt and jiffies - p.record[frame, STAMP] > p.setting[WINDOW_JIFFIES]) or (nid >= 0 and nid != old):
        freq = 1
    elif freq < p.setting[LIMIT]:
        freq = (freq + 1) & p.setting[MASK]
    p.record[frame, FREQ], p.record[frame, STAMP], p.record[frame, NID] = freq, jiffies, target
    return p.setting[COUNT], requeue(p, frame, place, old, target, freq)


@njit
def _record_pages(
    store: int, address: int, pages: np.ndarray, nid: int, jiffies: int, exempt: bool
) -> tuple[Int, Int, Int]:
    p = unpacked_at(store)
    mm = mm_at(address)
    large = mm.setting[LARGE_FOLIOS] != 0
    recorded = walked = entered = np.int64(0)
    for k in range(len(pages)):
        page = np.int64(pages[k])
        head = page_folio(mm, page) if large else page
        if is_toptier(mm, page) or not mm.folio[head] & np.uint8(GEN_MASK):
            continue
        steps, queued = record_unpacked(p, np.int64(mm.pfn[page]), nid, jiffies, exempt)
        recorded += 1
        walked += steps
        entered += queued == 1
        mm.stat[PGHOT_HEAP_FULL] += queued == 2
    mm.stat[PGHOT_RECORDED] += recorded
    return recorded, walked, entered


def record_pages(
    p: UnpackedArrays, mm: Mm, pages: np.ndarray, nid: int, jiffies: int, exempt: bool
) -> tuple[int, int, int]:
    """Record a batch of page ids; returns (recorded, list elements * 2, heap entries)."""
    return _record_pages(p.address, mm.address, pages, nid, jiffies, exempt)


@njit_source
def pop_round(
    p: UnpackedArrays, mm: Mm, node: int, budget: int, jiffies: int, rules: np.ndarray, fold: int
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
        age = jiffies - p.record[frame, STAMP]
        if p.setting[MAX_AGE]:
            old = age > p.setting[MAX_AGE]
            mm.stat[KPROMOTED_COLD_OLD] += old
        else:
            old = not may_promote(mm, node, rules, age * p.setting[MS_PER_JIFFY], folio_nr_pages(mm, page))
        if old:
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
    return pop_round(unpacked_at(store), mm_at(address), node, budget, jiffies, rules, fold)


def pop_promote(
    p: UnpackedArrays, mm: Mm, node: int, budget: int, jiffies: int, rules: np.ndarray, fold: int
) -> tuple[int, int, int]:
    """`pop_round`, from Python."""
    return _pop_promote(p.address, mm.address, node, budget, jiffies, rules, fold)


def kpromoted_turn(context: int, unused: int, now_ps: int) -> Int:
    """kpromoted's turn on a heap of unpacked records: a round of pops, then sleep."""
    t = kpromoted_at(context)
    own, spent = t.own, np.int64(0)
    p, mm = unpacked_at(own[P_STORE]), mm_at(own[P_MM])
    if own[P_SLEPT]:
        budget, jiffies = next_budget(own), jiffies_at(now_ps, own[P_HZ])
        popped, folios, pages = pop_round(p, mm, own[P_NODE], budget, jiffies, t.rules, own[P_FOLD])
        spent += charged_round(t, budget, popped, folios, pages)
    rest(t, p.heap_n[own[P_NODE]], now_ps + spent)
    return spent


class UnpackedPghot(Pghot):
    """v1; or, as `version="v2"`, v2 with an ideal clock."""

    kpromoted_turn = staticmethod(kpromoted_turn)

    def __init__(
        self, version: str = "v1", threshold: int = 2, window_ms: float = 5000, sized_hash: bool = False
    ) -> None:
        super().__init__("v2", threshold, window_ms, sized_hash)
        self.first = version == "v1"
        self.record_bytes = RECORD_BYTES if self.first else Pghot.record_bytes

    def make_arrays(self, frames: int, nodes: int, capacity: int) -> UnpackedArrays:
        """The empty store."""
        settings = self.settings()
        settings[MS_PER_JIFFY] = 1000 // self.system.machine.hz
        own = [NO_LIMIT, NO_LIMIT, OLD_WINDOWS * settings[WINDOW_JIFFIES]] if self.first else [FREQ_LIMIT, FREQ_MASK, 0]
        return unpacked_arrays(frames, nodes, capacity, np.array([*settings, *own], np.int64))

    def record_batch(self, pages: np.ndarray, nid: int, exempt: bool) -> tuple[int, int, int]:
        """Record page ids now; v1 exempts no source from the gap rule."""
        return record_pages(self.arrays, self.system.mm, pages, nid, self.system.jiffies, exempt and not self.first)

    def notes(self) -> list[str]:
        """Nothing wraps here."""
        return []
