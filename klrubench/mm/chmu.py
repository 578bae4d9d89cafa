"""CHMU: the hotness monitoring unit of a CXL memory device, its counters, its hotlist, and the thread that reads it.

Sources: CXL 3.2 (hotness monitoring unit), 20241121101845.1815660-1-Jonathan.Cameron@huawei.com (perf driver),
20250612155724.1887266-3 (QEMU model). The device counts requests by unit of its address space. Epoch mode: at the end
of each epoch units at or over the threshold go on the hotlist, in the order of the table, and all counters are freed.
Always-on mode: a unit goes on the hotlist when its count reaches the threshold, and its counter is freed. The hotlist
is a ring; what finds it full is lost. The specification leaves the counters to the device; here they are a table of 8
ways a set, as many sets as the largest power of two allows, unit modulo sets. A unit without a counter takes a free one
of its set, else replaces the one with the least count: "least" starts at 1, "inherit" goes on from the count it threw
out (space saving), "never" leaves newcomers uncounted. Requests are the touches that miss the CPU cache. Not modelled:
writebacks and prefetches that reach the device, units under 4 KiB (under a mapping, for 2 MiB ones), the range bitmap,
fill-level interrupts, a device interleaved with others, randomised down-sampling (each n-th request counts), epochs
below 1 ms, other than 8 ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.bits import CACHED_BIT, GEN_MASK, ID_MASK, NODE_MASK, TABLE_SHIFT
from klrubench.engine.jit import njit, njit_inline
from klrubench.mm.folio import page_folio
from klrubench.mm.migrate import promote_pages
from klrubench.mm.state import FIRST_FRAME, FIRST_HUGE
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.mm.state import Mm
    from klrubench.simulate import System
    from klrubench.simulate.taps import Consume

WAYS = 8
HOTLIST_MOST = 65_535
NO_UNIT = 0xFFFFFFFF  # tag of a free counter
HUGE_UNIT = 1 << 31
PAGE_BYTES = 4096
SLICE_PAGES = 2048  # promoted by the thread itself before others may run
MODES, REPLACE, REQUESTS = ("epoch", "always_on"), ("least", "inherit", "never"), ("all", "reads", "writes")
LEAST, INHERIT, NEVER = range(3)
TAG_SHIFT = 32  # a counter is tag << 32 | count; a free one counts 0
COUNT_MASK = 0xFFFFFFFF
FREE_COUNTER = NO_UNIT << TAG_SHIFT

# i64 settings and counters of a device
(
    NODE, FIRST, HUGE_FIRST, SHIFT, SET_MASK, THRESHOLD, COUNT_MOST, ALWAYS_ON, VICTIM, KIND, EVERY, SEEN, LISTED, LOST,
    EVICTED, UNCOUNTED, DEVICE_WORDS,
) = range(17)  # fmt: skip


@njit_inline
def unit_of(frame: int, first: int, huge_first: int, shift: int) -> int:
    """The unit of a frame of this device; 2 MiB frames have numbers of their own."""
    if frame >= huge_first:
        return HUGE_UNIT | ((frame - huge_first) >> max(0, shift - TABLE_SHIFT))
    return (frame - first) >> shift


@njit_inline
def put_on_hotlist(d: np.ndarray, hotlist: np.ndarray, entry: int) -> None:
    """Add an entry (count << 32 | unit) to the ring; lost if that is full."""
    if d[LISTED] == len(hotlist):
        d[LOST] += 1
        return
    hotlist[d[LISTED]] = entry
    d[LISTED] += 1


@njit_inline
def find_counter(table: np.ndarray, first: int, unit: np.uint64) -> int:
    """The unit's counter among the ways from `first` on, else the one with the least count (a free one counts 0)."""
    least, least_count = first, table[first] & np.uint64(COUNT_MASK)
    for way in range(first, first + WAYS):
        entry = table[way]
        if entry >> np.uint64(TAG_SHIFT) == unit:
            return way
        count = entry & np.uint64(COUNT_MASK)
        if count < least_count:
            least, least_count = way, count
    return least


@njit_inline
def take_over(d: np.ndarray, entry: np.uint64, unit: np.uint64, victim: int) -> np.uint64:
    """What the counter `entry` of another unit becomes for this one; unchanged if newcomers are not counted."""
    if entry != np.uint64(FREE_COUNTER):
        if victim == NEVER:
            d[UNCOUNTED] += 1
            return entry
        d[EVICTED] += 1
        if victim == INHERIT:
            return (unit << np.uint64(TAG_SHIFT)) | (entry & np.uint64(COUNT_MASK))
    return unit << np.uint64(TAG_SHIFT)


@njit
def _count_requests(
    address: int, words: np.ndarray, base: int, d: np.ndarray, table: np.ndarray, hotlist: np.ndarray
) -> None:
    mm = mm_at(address)
    node, first, huge_first, shift = np.uint8(d[NODE]), d[FIRST], d[HUGE_FIRST], d[SHIFT]
    kind, every, seen, victim, always_on, set_mask = (
        d[KIND],
        d[EVERY] - 1,
        d[SEEN],
        d[VICTIM],
        d[ALWAYS_ON],
        d[SET_MASK],
    )
    threshold, most = np.uint64(d[THRESHOLD]), np.uint64(d[COUNT_MOST])
    for k in range(len(words)):
        word = words[k]
        page = base + np.int64(word & np.uint32(ID_MASK))
        if mm.pte[page] & np.uint8(NODE_MASK) != node or word & np.uint32(CACHED_BIT):
            continue
        if kind and np.int64(word >> np.uint32(31)) != kind - 1:
            continue
        seen += 1
        if seen & every:
            continue
        number = unit_of(np.int64(mm.pfn[page]), first, huge_first, shift)
        unit = np.uint64(number)
        way = find_counter(table, (number & set_mask) * WAYS, unit)
        entry = table[way]
        if entry >> np.uint64(TAG_SHIFT) != unit:
            entry = take_over(d, entry, unit, victim)
            if entry >> np.uint64(TAG_SHIFT) != unit:
                continue
        if entry & np.uint64(COUNT_MASK) < most:
            entry += np.uint64(1)
        if always_on and entry & np.uint64(COUNT_MASK) >= threshold:
            put_on_hotlist(d, hotlist, np.int64((entry << np.uint64(TAG_SHIFT)) | unit))
            entry = np.uint64(FREE_COUNTER)
        table[way] = entry
    d[SEEN] = seen


@njit
def _end_epoch(d: np.ndarray, table: np.ndarray, hotlist: np.ndarray) -> None:
    threshold = np.uint64(d[THRESHOLD])
    for way in range(len(table)):
        entry = table[way]
        count = entry & np.uint64(COUNT_MASK)
        if count >= threshold and count:
            put_on_hotlist(d, hotlist, np.int64((count << np.uint64(TAG_SHIFT)) | (entry >> np.uint64(TAG_SHIFT))))
        table[way] = np.uint64(FREE_COUNTER)


@njit
def _pages_of(address: int, d: np.ndarray, units: np.ndarray, out: np.ndarray) -> int:
    mm = mm_at(address)
    n = 0
    for k in range(len(units)):
        unit = units[k]
        huge = unit & HUGE_UNIT
        shift = max(0, d[SHIFT] - TABLE_SHIFT) if huge else d[SHIFT]
        first = (d[HUGE_FIRST] if huge else d[FIRST]) + ((unit & (HUGE_UNIT - 1)) << shift)
        for frame in range(first, min(first + (np.int64(1) << shift), len(mm.frame_page))):
            page = np.int64(mm.frame_page[frame])
            if (
                page >= 0
                and mm.folio[page_folio(mm, page)] & np.uint8(GEN_MASK)
                and np.int64(mm.pte[page] & np.uint8(NODE_MASK)) == d[NODE]
            ):
                out[n] = page
                n += 1
    return n


class Device:
    """The unit of one memory device: counters and hotlist of a node.

    Args:
        node: whose requests are counted. unit_bytes: power of two from 4 KiB. threshold: count (after down-sampling)
            that makes a unit hot.
        mode, replace, requests: one of MODES, REPLACE, REQUESTS. counters, hotlist: at the scale of the run.
        width: bits of a counter, at which it stays. every: count one request in so many (a power of two).
    """

    def __init__(
        self, mm: Mm, node: int, unit_bytes: int, threshold: int, mode: str, counters: int, hotlist: int,
        replace: str = "least", requests: str = "all", width: int = 16, every: int = 1,
    ) -> None:  # fmt: skip
        self.mm, sets = mm, 1 << max(0, (counters // WAYS).bit_length() - 1)
        self.words = d = np.zeros(DEVICE_WORDS, np.int64)
        d[[NODE, FIRST, HUGE_FIRST]] = node, mm.node[node, FIRST_FRAME], mm.node[:, FIRST_HUGE].min()
        if mm.node[node, FIRST_HUGE] > 0:
            d[HUGE_FIRST] = mm.node[node, FIRST_HUGE]
        d[[SHIFT, SET_MASK, THRESHOLD]] = (unit_bytes // PAGE_BYTES).bit_length() - 1, sets - 1, threshold
        d[[COUNT_MOST, ALWAYS_ON, VICTIM]] = (1 << width) - 1, MODES.index(mode), REPLACE.index(replace)
        d[[KIND, EVERY]] = REQUESTS.index(requests), every
        self.table = np.full(sets * WAYS, FREE_COUNTER, np.uint64)
        self.hotlist = np.zeros(hotlist, np.int64)

    def count(self, words: np.ndarray, base: int) -> None:
        """Requests among stream words of a tenant whose first page is `base`."""
        _count_requests(self.mm.address, words, base, self.words, self.table, self.hotlist)

    def counting(self, base: int) -> Consume:
        """What lets the device see the requests of a tenant whose first page is `base`."""
        return lambda words, _first: self.count(words, base)

    def end_epoch(self) -> None:
        """The end of an epoch: list the units at or over the threshold, free all counters
        (nothing in always-on mode).
        """
        if not self.words[ALWAYS_ON]:
            _end_epoch(self.words, self.table, self.hotlist)

    def drain(self) -> tuple[np.ndarray, np.ndarray]:
        """Empty the hotlist: (units, counts), hottest first."""
        entries = self.hotlist[: int(self.words[LISTED])].copy()
        self.words[LISTED] = 0
        entries = entries[np.argsort(-(entries >> 32), kind="stable")]
        return entries & 0xFFFFFFFF, entries >> 32

    def pages_of(self, units: np.ndarray) -> np.ndarray:
        """The pages that lie in these units now, u32."""
        out = np.empty(len(units) << int(self.words[SHIFT]), np.uint32)
        return out[: _pages_of(self.mm.address, self.words, units, out)]


class Chmu:
    """The units of all lower-tier nodes, and the thread that reads their hotlists.

    Args:
        store: takes `record(pages, source)`, as `Pghot` does; None: what is on a hotlist is promoted at once.
        period_ms: epoch, or in always-on mode the time between two looks at the hotlist.
        counters, hotlist: of each device, full size. Others: see `Device`.
    """

    def __init__(
        self, store: Any = None, mode: str = "epoch", period_ms: int = 1000, counters: int = 1 << 16,
        hotlist: int = HOTLIST_MOST, unit_bytes: int = PAGE_BYTES, threshold: int = 8, replace: str = "least",
        requests: str = "all", width: int = 16, every: int = 1,
    ) -> None:  # fmt: skip
        self.store, self.period_ms, self.counters, self.hotlist = store, period_ms, counters, hotlist
        self.unit: dict[str, Any] = {"unit_bytes": unit_bytes, "threshold": threshold, "mode": mode}
        self.table: dict[str, Any] = {"replace": replace, "requests": requests, "width": width, "every": every}
        self.metadata_bytes = self.read = 0

    def attach(self, system: System) -> None:
        """Let the devices see the requests, start the thread."""
        self.system, mm = system, system.mm
        counters = max(WAYS, system.scaled(self.counters, "hotness counters"))
        hotlist = system.scaled(self.hotlist, "hotlist")
        self.devices = [
            Device(mm, node, counters=counters, hotlist=hotlist, **self.unit, **self.table)
            for node in system.machine.lower_nodes
        ]
        for tenant in system.tenants:
            for device in self.devices:
                system.tap(tenant, device.counting(tenant.first_page))
        self.thread = system.daemon("chmu", self.run, parked=True)
        system.every_ms(self.period_ms, self.tick)

    def tick(self) -> None:
        """The end of an epoch, or a timer of the driver: the thread is woken."""
        for device in self.devices:
            device.end_epoch()
        self.system.wake(self.thread)

    def run(self, system: System) -> Iterator[Any]:
        """The driver's thread: reads the hotlists, hands the pages on."""
        while True:
            for device in self.devices:
                units, _counts = device.drain()
                self.read += len(units)
                system.charge_full(hotlist_drain=1)
                system.charge(hotlist_entry=len(units))
                yield from self.use(system, device, units)
            yield system.parked

    def use(self, system: System, device: Device, units: np.ndarray) -> Iterator[Any]:
        """Record the pages of these units, or promote them, hottest first."""
        if self.store is not None:
            self.store.record(device.pages_of(units), source="hwhint")
            return
        units = units[np.sort(np.unique(units, return_index=True)[1])]  # a unit may be listed more than once
        enough = max(1, SLICE_PAGES // system.fold >> int(device.words[SHIFT]))
        for first in range(0, len(units), enough):
            promote_pages(system, device.pages_of(units[first : first + enough]), system.default_target)
            yield

    def bound(self) -> dict[str, float]:
        """Shares of hot units lost to a full hotlist, and of counted requests that threw out a counter or found
        none.
        """
        sums = np.sum([device.words for device in self.devices], axis=0)
        listed, counted = self.read + int(sums[LOST]), int(sums[SEEN]) // self.table["every"]
        return {
            "hotlist": int(sums[LOST]) / listed if listed else 0.0,
            "hotness counters": int(sums[EVICTED] + sums[UNCOUNTED]) / counted if counted else 0.0,
        }
