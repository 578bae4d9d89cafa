"""pghot v3 and v5: one small record for every frame of the lower tiers, and a ready bit that kmigrated looks for.

Sources: v3, 20251110052343.208768-1-bharata@amd.com (8 bytes a frame, frequency over 2, that is 3 sightings); v5,
20260129144043.231636-1-bharata@amd.com (1 byte, or 4 with CONFIG_PGHOT_PRECISE, and a bit a section of 32768 frames
that says where to look). v3's masks were posted built from shifts, so that its fields overlap; what they were meant to
be is modelled. Its threshold is counted here in sightings (3), as that of the others.

The stored time is a few bits of jiffies, and it wraps:

    v3           19 bits                 524 s at HZ=1000, 2097 s at 250; not masked: across a wrap a gap is endless
    v5-precise   14 bits                16.4 s at HZ=1000, 65.5 s at 250; masked: a longer gap reads as a short one
    v5-compact    5 bits of 128 jiffies  4.1 s at HZ=1000, 16.4 s at 250; masked; it can tell up to 31 x 128 jiffies

Records here keep the whole jiffies; a gap is computed as the stored bits would give it, or truly with an ideal clock
(ours). A record belongs to the frame that heads the folio, and outlives the page: all
PTEs of a large folio count in one record, which a single pass may bring to the threshold. The ready bit
stays, whatever the frequency does later, until kmigrated takes the record, which zeroes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from klrubench.engine.array_table import addresses, reader
from klrubench.engine.bits import GEN_MASK, NODE_MASK
from klrubench.engine.jit import njit, njit_inline
from klrubench.engine.prefetch import prefetch
from klrubench.mm.folio import folio_nr_pages, page_folio
from klrubench.mm.migrate import folio_price, is_toptier, promote
from klrubench.mm.numa_promotion import may_promote, promotion_rules
from klrubench.mm.pghot import count_source, wrap_notes
from klrubench.mm.state import (
    CAPACITY,
    FIRST_FRAME,
    FIRST_HUGE,
    HUGE_TOP,
    KMIGRATED_DROPPED,
    KMIGRATED_TAKEN,
    LARGE_FOLIOS,
    PGHOT_RECORDED,
    TAIL_FRAMES,
    TIER,
)
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Flag, Int
    from klrubench.mm.state import Mm
    from klrubench.simulate import System

SECTION_FRAMES = 32_768  # 128 MiB
LEAF_FRAMES = 512
NID_UNUSED, NID_KEPT, NID_RESTARTS = range(3)  # not stored; stored; and another node starts the record again


@dataclass(frozen=True)
class RecordFormat:
    """One version's record, and how kmigrated looks for it.

    Attributes:
        record_bytes: of one frame.
        freq_max: where the frequency stops.
        time_bits, time_shift: bits of stored time, each `1 << time_shift` jiffies.
        masked: differences of stored times are taken modulo the wrap.
        nid: what is done with the accessor's node.
        gated: only sections with a hot record are walked, each with batches of its own.
        batch: folios of one migration.
    """

    record_bytes: int
    freq_max: int
    time_bits: int
    time_shift: int
    masked: bool
    nid: int
    gated: bool
    batch: int


FORMATS = {
    "v3": RecordFormat(8, 7, 19, 0, False, NID_RESTARTS, False, 512),
    "v5-compact": RecordFormat(1, 3, 5, 7, True, NID_UNUSED, True, 513),  # flushed when there are more than 512
    "v5-precise": RecordFormat(4, 7, 14, 0, True, NID_KEPT, True, 513),
}

# a record: frequency in bits 0-3, ready, node in 5-14, jiffies from 15 on; 0: none
FREQ_FIELD, READY, NID_SHIFT, NID_FIELD, STAMP_SHIFT = 15, 16, 5, 0x3FF, 15
# settings; RANGE 0: the clock does not wrap
THRESHOLD, WINDOW_MS, HZ, FREQ_MAX, TIME_SHIFT, RANGE, MASKED, NID_RULE, TARGET, GATED, BATCH, N_SETTINGS = range(12)
# where a node's kmigrated stands: section, frame in it (-1: not begun), pages in the batch at hand (full size): it is
# one of 512 folios, of which migrate_pages flushes after each 512 pages
AT_SECTION, AT_FRAME, IN_BATCH, N_STATE = range(4)
# prices of a slice of the walk
STEP, REFUSED, SMALL, HUGE, SLICE = range(5)
FAR = np.int64(1 << 40)
RECORDS_AHEAD = 16  # sightings of prefetch distance


class MapArrays(NamedTuple):
    """Records of f frames, s sections of the nodes of lower tiers, node after node.

    record: i64 [f]; section_of: i32 [f], -1 on the top tier; section: i64 [s, 2], first frame and last + 1.
    hot: u8 [s]; ready: i64 [s], records with the bit set; active: i64 [nodes]; state: i64 [nodes, 3];
    setting: i64 [11].
    """

    record: np.ndarray
    section_of: np.ndarray
    section: np.ndarray
    hot: np.ndarray
    ready: np.ndarray
    active: np.ndarray
    state: np.ndarray
    setting: np.ndarray
    table: np.ndarray
    address: int


map_at: Callable[[int], MapArrays] = reader(
    "MapArrays",
    record=(np.int64, 1), section_of=(np.int32, 1), section=(np.int64, 2), hot=(np.uint8, 1), ready=(np.int64, 1),
    active=(np.int64, 1), state=(np.int64, 2), setting=(np.int64, 1),
)  # fmt: skip


def sections_of(mm: Mm, node: int, fold: int) -> list[tuple[int, int]]:
    """Sections of a node in the order of frames, 32768 each at scale; 2 MiB frames, numbered apart, come behind."""
    capacity, small, huge = (int(mm.node[node, k]) for k in (CAPACITY, FIRST_FRAME, FIRST_HUGE))
    found = []
    for first, order in ((small, 1), (huge, LEAF_FRAMES)):
        end, step = first + capacity // order, max(1, SECTION_FRAMES // order // fold)
        found += [(at, min(at + step, end)) for at in range(first, end, step)]
    return found


def map_arrays(mm: Mm, fold: int, setting: np.ndarray) -> tuple[MapArrays, dict[int, tuple[int, int]]]:
    """An empty store for the lower tiers, and the range of sections of each of their nodes."""
    rows: list[tuple[int, int]] = []
    ranges = {}
    for node in np.flatnonzero(mm.node[:, TIER] > 0).tolist():
        first = len(rows)
        rows += sections_of(mm, node, fold)
        ranges[node] = (first, len(rows))
    frames, nodes = len(mm.frame_page), len(mm.node)
    section_of = np.full(frames, -1, np.int32)
    for index, (first, last) in enumerate(rows):
        section_of[first:last] = index
    section = np.array(rows, np.int64).reshape(-1, 2)
    record, hot, ready = np.zeros(frames, np.int64), np.zeros(len(rows), np.uint8), np.zeros(len(rows), np.int64)
    active, state = np.zeros(nodes, np.int64), np.zeros((nodes, N_STATE), np.int64)
    table = addresses([record, section_of, section, hot, ready, active, state, setting])
    arrays = MapArrays(record, section_of, section, hot, ready, active, state, setting, table, table.ctypes.data)
    return arrays, ranges


def map_setting(version: str, threshold: int, window_ms: float, hz: int, target: int, ideal_clock: bool) -> np.ndarray:
    """The i64 settings of a version."""
    form = FORMATS[version]
    clock = [0, 0] if ideal_clock else [form.time_shift, 1 << form.time_bits + form.time_shift]
    rule = [threshold, int(window_ms), hz, form.freq_max, *clock, form.masked]
    return np.array([*rule, form.nid, target, form.gated, form.batch], np.int64)


@njit_inline
def stored_gap(setting: np.ndarray, now: int, stamp: int) -> Int:
    """Jiffies between two times, as the stored bits tell."""
    shift = setting[TIME_SHIFT]
    gap = ((now >> shift) - (stamp >> shift)) << shift
    if setting[RANGE] == 0:
        return gap
    if setting[MASKED]:
        return gap & (setting[RANGE] - 1)
    wrap = setting[RANGE] - 1  # a power of two
    gap = (now & wrap) - (stamp & wrap)
    return gap if gap >= 0 else FAR


@njit_inline
def gap_ms(setting: np.ndarray, now: int, stamp: int) -> int:
    """`stored_gap` in milliseconds."""
    return stored_gap(setting, now, stamp) * 1000 // setting[HZ]


@njit_inline
def beyond_window(setting: np.ndarray, now: int, stamp: int) -> Flag:
    """Whether `gap_ms` is above the window, without its division (a tenth of the time of a record)."""
    return stored_gap(setting, now, stamp) * 1000 >= (setting[WINDOW_MS] + 1) * setting[HZ]


@njit_inline
def updated_record(setting: np.ndarray, record: int, nid: int, jiffies: int) -> Int:
    """pghot_update_record: the record after one more sighting."""
    freq: Int
    freq, old = record & FREQ_FIELD, (record >> NID_SHIFT) & NID_FIELD
    target = nid if nid >= 0 else setting[TARGET]
    moved = setting[NID_RULE] == NID_RESTARTS and nid >= 0 and nid != old
    if record == 0 or moved or beyond_window(setting, jiffies, record >> STAMP_SHIFT):
        freq = np.int64(1)
    elif freq < setting[FREQ_MAX]:
        freq += 1
    ready = np.int64(READY) if freq >= setting[THRESHOLD] else record & READY
    kept = target if setting[NID_RULE] != NID_UNUSED else 0
    return (jiffies << STAMP_SHIFT) | (kept << NID_SHIFT) | ready | freq


@njit
def _record_pages(store: int, address: int, pages: np.ndarray, nid: int, jiffies: int) -> Int:
    p = map_at(store)
    mm = mm_at(address)
    large, recorded = mm.setting[LARGE_FOLIOS] != 0, np.int64(0)
    for k in range(len(pages)):
        page = np.int64(pages[k])
        prefetch(p.record, np.uint64(mm.pfn[pages[min(k + RECORDS_AHEAD, len(pages) - 1)]]))
        head = page_folio(mm, page) if large else page
        if is_toptier(mm, page) or not mm.folio[head] & np.uint8(GEN_MASK):
            continue
        recorded += 1
        frame = np.int64(mm.pfn[head])
        before = p.record[frame]
        after = updated_record(p.setting, before, nid, jiffies)
        p.record[frame] = after
        if after & READY:
            section = p.section_of[frame]
            p.ready[section] += not before & READY
            p.hot[section] = 1
            p.active[np.int64(mm.pte[page] & np.uint8(NODE_MASK))] = 1
    mm.stat[PGHOT_RECORDED] += recorded
    return recorded


def record_pages(p: MapArrays, mm: Mm, pages: np.ndarray, nid: int, jiffies: int) -> int:
    """Record a batch of page ids; returns how many lie on a lower tier and an LRU list."""
    return _record_pages(p.address, mm.address, pages, nid, jiffies)


@njit_inline
def take_record(
    p: MapArrays, mm: Mm, frame: int, section: int, source: int, jiffies: int, rules: np.ndarray, fold: int
) -> Int:
    """One frame of the walk: take its record if ready, promote the folio if it may be; 4 KiB pages, -1: not taken."""
    record = p.record[frame]
    page = np.int64(mm.frame_page[frame])
    if not record & READY or page < 0 or not mm.folio[page] & np.uint8(GEN_MASK):
        return np.int64(-1)
    p.record[frame] = 0
    p.ready[section] -= 1
    mm.stat[KMIGRATED_TAKEN] += 1
    node = (record >> NID_SHIFT) & NID_FIELD if p.setting[NID_RULE] != NID_UNUSED else p.setting[TARGET]
    age = gap_ms(p.setting, jiffies, record >> STAMP_SHIFT)
    if node == source or not may_promote(mm, node, rules, age, folio_nr_pages(mm, page)):
        mm.stat[KMIGRATED_DROPPED] += 1
        return np.int64(0)
    return np.int64(promote(mm, page, node, fold))


@njit_inline
def walk_steps(mm: Mm, node: int, first: int, end: int) -> Int:
    """Steps that a walk of a section takes: one a folio or free frame; frames of a folio behind its first, none."""
    capacity = mm.node[node, CAPACITY]
    huge = capacity // LEAF_FRAMES - mm.node[node, HUGE_TOP]
    if first < mm.node[node, FIRST_HUGE]:
        return (end - first) * (capacity - huge * LEAF_FRAMES - mm.node[node, TAIL_FRAMES]) // capacity
    steps = np.int64(0)
    for frame in range(first, end):
        steps += mm.frame_page[frame] >= 0
    return steps


@njit_inline
def next_ready(p: MapArrays, frame: int, end: int) -> int:
    """The first frame from `frame` on whose record is ready, or `end`."""
    record = p.record
    while frame < end and not record[frame] & READY:
        frame += 1
    return frame


@njit
def _migrate_ready(
    store: int,
    address: int,
    source: int,
    last_section: int,
    price: np.ndarray,
    jiffies: int,
    rules: np.ndarray,
    fold: int,
) -> tuple[Int, Int, Int, Int, Int]:
    p = map_at(store)
    mm = mm_at(address)
    state, batch = p.state[source], p.setting[BATCH]
    steps = taken = folios = moved = flushes = spent = np.int64(0)
    while state[AT_SECTION] < last_section and spent < price[SLICE]:
        section = state[AT_SECTION]
        frame, end = state[AT_FRAME], p.section[section, 1]
        if frame < 0:
            if p.setting[GATED] and not p.hot[section]:
                state[AT_SECTION] += 1
                continue
            p.hot[section] = 0
            frame = p.section[section, 0]
            passed = walk_steps(mm, source, frame, end)
            steps += passed
            spent += passed * price[STEP]
        while p.ready[section] > 0 and spent < price[SLICE]:
            frame = next_ready(p, frame, end)
            if frame == end:
                break
            pages = take_record(p, mm, frame, section, source, jiffies, rules, fold)
            frame += 1
            if pages >= 0:
                taken += 1
                spent += price[REFUSED] if pages == 0 else folio_price(price[SMALL], price[HUGE], pages)
            if pages > 0:
                folios += 1
                moved += pages
                state[IN_BATCH] += pages * fold
                flushes += state[IN_BATCH] // batch
                state[IN_BATCH] %= batch
        state[AT_FRAME] = frame
        if frame == end or p.ready[section] == 0:
            state[AT_SECTION], state[AT_FRAME] = section + 1, -1
            if p.setting[GATED] or state[AT_SECTION] == last_section:  # the rest of the list goes when a walk ends
                flushes += state[IN_BATCH] > 0
                state[IN_BATCH] = 0
    return steps, taken, folios, moved, flushes


def migrate_ready(
    p: MapArrays, mm: Mm, source: int, last_section: int, price: np.ndarray, jiffies: int, rules: np.ndarray, fold: int
) -> tuple[int, ...]:
    """Go on with a node's walk in the order of frames, to its end or that of a slice of time.

    price: i64 [5], ps of a step, a record refused, a 4 KiB and a 2 MiB folio promoted, and of the slice.
    Returns (steps of the walk, records taken, folios and 4 KiB pages promoted, batches migrated, full size).
    """
    return tuple(_migrate_ready(p.address, mm.address, source, last_section, price, jiffies, rules, fold))


def alias_share(version: str, hz: int, window_ms: float) -> float:
    """Share of long gaps, of any length alike, that this version's clock reads as inside the window."""
    form = FORMATS[version]
    gaps = (np.arange(1 << form.time_bits, dtype=np.int64) << form.time_shift) * 1000 // hz
    return float((gaps <= int(window_ms)).mean())


class MapPghot:
    """The store of v3 and v5: any source may feed it with `record`; `kmigrated.Kmigrated` promotes from it."""

    def __init__(self, version: str, threshold: int, window_ms: float, ideal_clock: bool = False) -> None:
        self.version, self.threshold, self.window_ms, self.ideal_clock = version, threshold, window_ms, ideal_clock
        self.form = FORMATS[version]
        self.metadata_bytes = 0

    def attach(self, system: System) -> None:
        """Allocate a record for every frame of the lower tiers."""
        mm = system.mm
        self.system = system
        hz, target = system.machine.hz, system.default_target
        setting = map_setting(self.version, self.threshold, self.window_ms, hz, target, self.ideal_clock)
        self.arrays, self.sections = map_arrays(mm, system.fold, setting)
        lower = int(mm.node[mm.node[:, TIER] > 0, CAPACITY].sum())
        self.metadata_bytes = lower * system.fold * self.form.record_bytes
        period, rate = (
            system.sysctl(name) for name in ("numa_balancing/scan_period_max_ms", "vm.pghot_promote_rate_limit_MBps")
        )
        self.rules = promotion_rules(int(self.window_ms), period, rate, system.fold)

    def set_window(self, window_ms: float) -> None:
        """Another longest gap between two sightings, for what is recorded from now on."""
        self.window_ms = window_ms
        self.arrays.setting[WINDOW_MS] = int(window_ms)

    def record(self, pages: np.ndarray, source: str, nid: int = -1) -> None:
        """Record sightings of page ids; the calling thread pays a record each."""
        if len(pages):
            system = self.system
            recorded = record_pages(self.arrays, system.mm, pages, nid, system.jiffies)
            count_source(system, source, recorded)
            system.charge(pghot_record=recorded)

    def notes(self) -> list[str]:
        """Where the stored time wraps, and what that lets pass."""
        form, hz = self.form, self.system.machine.hz
        if self.ideal_clock:
            return []
        if not form.masked:
            return wrap_notes(self.system, form.time_bits)
        wrap_s = (1 << form.time_bits + form.time_shift) / hz
        share = alias_share(self.version, hz, self.window_ms)
        passes = "any two sightings ever" if share == 1 else f"{share:.0%} of longer gaps"
        what = f"{passes} pass as within the window of {self.window_ms:g} ms"
        return [f"pghot {self.version}'s time wraps each {wrap_s:.3g} s at HZ={hz}: {what}"]
