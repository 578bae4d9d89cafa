"""pghot's and kpromoted's rows: the record and its list, the heap, the wrap, the frame that outlives its page,
throughput.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from klrubench.mm import Kpromoted, Pghot
from klrubench.mm.migrate import move_many
from klrubench.mm.state import PGHOT_HEAP_FULL, PGPROMOTE_SUCCESS, TIER
from klrubench.simulate.system import System
from klrubench.validation.emulated import (
    NS_PER_INSTRUCTION,
    PERIOD_S,
    SLOW_PAGES,
    TABLE,
    Meter,
    Script,
    before_pass,
    between_passes,
    emulated,
    fast_pages,
    start,
    starved,
    stat,
    untouch,
    watch,
)
from klrubench.validation.facts import facts
from klrubench.validation.finding import Finding, check, finding, near, same

GROUP = "pghot"
RECORDS = ((2049, 320), (8193, 711), (32_769, 2265), (131_073, 8481))  # the sizes that the row klru_record names
HEAP = 32_764


def store(pages: int, duration_s: float = 1) -> tuple[System, Pghot]:
    """A pghot whose source is the caller: every page on the slow node."""
    machine = emulated(slow_pages=max(SLOW_PAGES, pages + 8192))
    system = start(workload=Script(-(-pages // TABLE) * TABLE, []), machine=machine, duration_s=duration_s)
    return system, system.add(Pghot())


@check("klru_record", GROUP, is_input=True)
def klru_record() -> Finding:
    """The record of a known page: 190 + 0.0632 * records, 8 a list element walked, at the four sizes of the row."""
    system, pghot = store(131_073)
    known, sample, found, parts = 0, np.arange(1000, dtype=np.uint32), [], []
    for records, measured in RECORDS:
        pghot.record(np.arange(known, records, dtype=np.uint32), source="pgtable_scan")
        known = records
        meter = Meter(system)
        pghot.record(sample, source="pgtable_scan")
        each = meter.instructions("pghot_record", "pghot_list_element") / len(sample)
        found.append(f"{each:.0f} at {records}")
        parts.append(near(f"at {records} records", measured, each, share=0.02))
    return finding(", ".join(found), *parts)


@check("klru_hash_lists", GROUP)
def klru_hash_lists() -> Finding:
    """Lists for half, all and twice the slow node: powers of two, rounded down."""
    lists = {}
    for pages in (SLOW_PAGES // 2, SLOW_PAGES, SLOW_PAGES * 2):
        pghot = Pghot()
        start(workload=Script(32 * TABLE, []), machine=emulated(slow_pages=pages), duration_s=1).add(pghot)
        lists[pages] = pghot.lists
    return finding(
        f"{lists[SLOW_PAGES]}, {SLOW_PAGES // lists[SLOW_PAGES]} records a list once every page has one",
        same("lists of half the node, the node, twice the node", [32, 64, 128], list(lists.values())),
    )


@check("klru_heap_push", GROUP, is_input=True)
def klru_heap_push() -> Finding:
    """Entering the heap against a record that stays out of it."""
    system, pghot = store(4096)
    pages, charged = np.arange(2049, dtype=np.uint32), []
    for _ in range(3):
        meter = Meter(system)
        pghot.record(pages, source="pgtable_scan")
        charged.append(meter.instructions())
    extra = (charged[1] - charged[2]) / len(pages)
    return finding(f"{extra:.0f}", near("instructions", facts()["klru_heap_push"].number, extra, share=0.01))


@check("klru_heap_cap", GROUP)
def klru_heap_cap() -> Finding:
    """Entries that fit the heap of a 262,112-page slow node; pages beyond are not queued."""
    system, pghot = store(65_536)
    pages = np.arange(65_536, dtype=np.uint32)
    for _ in range(2):
        pghot.record(pages, source="pgtable_scan")
    top = system.mm.node[:, TIER] == 0
    heaps, turned_away = pghot.arrays.heap_n[top].tolist(), int(system.mm.stat[PGHOT_HEAP_FULL])
    return finding(
        f"{heaps[0]}; {turned_away} pages of {len(pages)} not queued",
        same("records", [HEAP], heaps),
        same("not queued", 65_536 - HEAP, turned_away),
    )


def backlog(pages: int = HEAP) -> System:
    """A heap full of pages seen twice, kpromoted about to start."""
    system, pghot = store(65_536, duration_s=2)
    for _ in range(2):
        pghot.record(np.arange(pages, dtype=np.uint32), source="pgtable_scan")
    system.add(Kpromoted(pghot))
    return system


@check("klru_kpromoted_page", GROUP, is_input=True)
def klru_kpromoted_page() -> Finding:
    """What kpromoted is charged a promoted page."""
    system = backlog()
    system.run()
    promoted = int(system.mm.stat[PGPROMOTE_SUCCESS])
    each = system.cpu_ps["kpromoted"] / 1000 / NS_PER_INSTRUCTION / promoted
    return finding(
        f"{each:.0f}",
        same("pages promoted", HEAP, promoted),
        near("instructions a page", facts()["klru_kpromoted_page"].number, each, share=0.01),
    )


@check("klru_kpromoted_rate", GROUP)
def klru_kpromoted_rate() -> Finding:
    """With a backlog 1024 pages go each 36 ms, 14.5 of work and 21 of sleep: 28.4k pages a second."""
    counts = np.array([n for _, n in watch(backlog(), 1, stat(PGPROMOTE_SUCCESS))])
    batches = np.flatnonzero(np.diff(counts))
    sizes, apart = np.diff(counts)[batches][:-1], np.diff(batches)
    rate = HEAP / (batches[-1] - batches[0])
    return finding(
        f"{apart.mean():.1f} ms per {sizes[0]} pages: {rate:.1f}k pages/s",
        same("pages a batch", {1024}, {int(size) for size in sizes}),
        near("ms, furthest", 36, float(max(apart, key=lambda ms: abs(ms - 36))), by=3),
        near("thousand pages a second", 28.4, float(rate), share=0.1),
    )


@check("klru_freq_wrap", GROUP)
def klru_freq_wrap() -> Finding:
    """A page that waits in the heap: its 8th sighting wraps the frequency to 0 and takes it out, the 10th queues it."""
    group = np.arange(TABLE)
    program = Script(8 * TABLE, before_pass(list(range(3, 15)), group))
    system = start(starved(), program, duration_s=16 * PERIOD_S)
    place = system.policy.store.arrays.place  # type: ignore[attr-defined]
    queued = between_passes(system, lambda s: int((place[s.mm.pfn[group]] >= 0).sum()))[3:15]
    events = [
        f"{'queued' if n else 'gone'} at {k + 1}" for k, n in enumerate(queued) if k and (n > 0) != (queued[k - 1] > 0)
    ]
    return finding(
        f"sightings: {', '.join(events)}",
        same("queued after sighting 1 to 12", [0] + [TABLE] * 6 + [0] * 2 + [TABLE] * 3, queued),
    )


OLD, NEW = np.arange(4097), np.arange(4608, 4608 + 4097)


def inherited(touched_in: int) -> int:
    """Pages of a new owner promoted by its one sighting, before pass `touched_in`;
    the old owner's was before pass 3.
    """
    program = Script(
        20 * TABLE, sorted(before_pass([3], OLD) + before_pass([touched_in], NEW), key=lambda step: step[0])
    )
    system = start("klruscand", program, duration_s=(touched_in + 0.5) * PERIOD_S)
    mm = system.mm
    untouch(system)
    swapped: list[Any] = [move_many(mm, NEW, 0, 1, False)[1]]

    def swap() -> None:
        frames = set(mm.pfn[OLD].tolist())
        swapped.extend([move_many(mm, OLD, 0, 1, False)[1], move_many(mm, NEW, 1, 1, False)[1]])
        swapped.append(len(frames & set(mm.pfn[NEW].tolist())))

    system.at_touch(round(3.3 * PERIOD_S * program.rate_hz), swap)
    system.run()
    if swapped != [len(NEW)] * 4:
        raise RuntimeError(f"the frames were not taken over: {swapped}")
    return int(fast_pages(system)[NEW].sum())


@check("klru_stale_record", GROUP)
def klru_stale_record() -> Finding:
    """Frames freed after one sighting, taken over at once: the new owner's first sighting promotes; not after 8 s."""
    soon, late = inherited(4), inherited(7)
    return finding(
        f"{soon}/4097 promoted at the new owner's first sighting; {late} after 8 s",
        same("at once, after 8 s", [4097, 0], [soon, late]),
    )
