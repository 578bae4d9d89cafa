"""CHMU: counters and hotlist against a dict a set, both modes; conservation; the driver's thread; whole runs."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Quarter, kv, machine, run

from klrubench.engine.bits import CACHED_BIT, WRITE_BIT
from klrubench.mm.chmu import (
    COUNT_MASK,
    EVICTED,
    FREE_COUNTER,
    LISTED,
    LOST,
    MODES,
    REPLACE,
    REQUESTS,
    SEEN,
    UNCOUNTED,
    WAYS,
    Chmu,
    Device,
)
from klrubench.mm.state import FIRST_FRAME, FIRST_HUGE, Mm, new_mm
from klrubench.simulate.placement import allocate

PAGES = 1024
LOWER = 1  # the device under test; node 2 is another one


def small_mm(seed: int = 0, huge: bool = False) -> Mm:
    """Pages scattered over a top tier and two devices, frames in random order; `huge`: 64 mappings of 2 MiB behind."""
    vmas = [(PAGES, 0, False, 0), (64, 0, False, 9)] if huge else [(PAGES, 0, False, 0)]
    mm = new_mm(vmas, [1 << 16] * 3, [0, 1, 1], 1, 64)
    pages = np.arange(PAGES + 64 * huge)
    rng = np.random.default_rng(seed)
    for page in rng.permutation(pages).tolist():
        assert allocate(mm.address, np.array([page]), np.array([rng.choice(3, p=[0.2, 0.6, 0.2])])) == 0
    return mm


def requests(seed: int, n: int, pages: int = PAGES, cached: float = 0.2) -> np.ndarray:
    """Skewed touches, a third of them writes."""
    rng = np.random.default_rng(seed)
    bits = np.where(rng.random(n) < cached, CACHED_BIT, 0) | np.where(rng.random(n) < 0.3, WRITE_BIT, 0)
    return ((pages * rng.random(n) ** 3).astype(np.int64) | bits).astype(np.uint32)


class SlowDevice:
    """Sets as lists of [unit, count] or None, a hotlist as a list."""

    def __init__(self, mm: Mm, unit: int, threshold: int, mode: str, counters: int, hotlist: int, replace: str,
                 kind: str, width: int, every: int) -> None:  # fmt: skip
        self.mm, self.unit, self.threshold, self.mode, self.room = mm, unit, threshold, mode, hotlist
        self.replace, self.kind, self.most, self.every = replace, kind, 2**width - 1, every
        sets = 1
        while 2 * sets * WAYS <= counters:
            sets *= 2
        self.sets: list[list[Any]] = [[None] * WAYS for _ in range(sets)]
        self.hotlist: list[tuple[int, int]] = []
        self.seen = self.lost = self.evicted = self.uncounted = self.counted = 0
        self.dropped = 0  # counts that vanished with their counter

    def put(self, unit: int, count: int) -> None:
        if len(self.hotlist) < self.room:
            self.hotlist.append((unit, count))
        else:
            self.lost += 1

    def way_of(self, unit: int, ways: list[Any]) -> int | None:
        """The unit's way; a free one; or one that it takes from the least counted."""
        for k in range(WAYS):
            if ways[k] is not None and ways[k][0] == unit:
                return k
        counts = [0 if way is None else way[1] for way in ways]
        k = counts.index(min(counts))
        if ways[k] is None:
            ways[k] = [unit, 0]
        elif self.replace == "never":
            self.uncounted += 1
            return None
        else:
            self.evicted += 1
            inherited = ways[k][1] if self.replace == "inherit" else 0
            self.dropped += ways[k][1] - inherited
            ways[k] = [unit, inherited]
        return k

    def count(self, stream: np.ndarray) -> None:
        for word in stream.tolist():
            page, write = word & 0x3FFFFFFF, bool(word & WRITE_BIT)
            if word & CACHED_BIT or self.mm.pte[page] & 3 != LOWER:
                continue
            if (self.kind == "reads" and write) or (self.kind == "writes" and not write):
                continue
            self.seen += 1
            if self.seen % self.every == 0:
                self.counted += 1
                self.count_unit(self.unit_of(page))

    def unit_of(self, page: int) -> int:
        first, huge = int(self.mm.node[LOWER, FIRST_FRAME]), int(self.mm.node[LOWER, FIRST_HUGE])
        frame = int(self.mm.pfn[page])
        if page >= PAGES:
            return 2**31 + (frame - huge) // max(1, self.unit // 512)
        return (frame - first) // self.unit

    def count_unit(self, unit: int) -> None:
        ways = self.sets[unit % len(self.sets)]
        k = self.way_of(unit, ways)
        if k is None:
            return
        if ways[k][1] < self.most:
            ways[k][1] += 1
        if self.mode == "always_on" and ways[k][1] >= self.threshold:
            self.put(*ways[k])
            ways[k] = None

    def end_epoch(self) -> None:
        if self.mode == "always_on":
            return
        for ways in self.sets:
            for k, way in enumerate(ways):
                if way is not None and way[1] >= self.threshold:
                    self.put(*way)
                ways[k] = None

    def held(self) -> list[int]:
        return [0 if way is None else way[1] for ways in self.sets for way in ways]


def pair(mm: Mm, **values: Any) -> tuple[Device, SlowDevice]:
    chosen = {"unit": 1, "threshold": 4, "mode": "epoch", "counters": 64, "hotlist": 1000, "replace": "least",
              "kind": "all", "width": 16, "every": 1, **values}  # fmt: skip
    device = Device(mm, LOWER, chosen["unit"] * 4096, chosen["threshold"], chosen["mode"], chosen["counters"],
                    chosen["hotlist"], chosen["replace"], chosen["kind"], chosen["width"], chosen["every"])  # fmt: skip
    return device, SlowDevice(mm, **chosen)


def check_same(device: Device, slow: SlowDevice) -> None:
    d = device.words
    assert [int(d[k]) for k in (SEEN, LOST, EVICTED, UNCOUNTED, LISTED)] == [
        slow.seen, slow.lost, slow.evicted, slow.uncounted, len(slow.hotlist)]  # fmt: skip
    assert (device.table & np.uint64(COUNT_MASK)).astype(int).tolist() == slow.held()
    free = [way is None for ways in slow.sets for way in ways]
    assert (device.table == np.uint64(FREE_COUNTER)).tolist() == free


@settings(deadline=None, max_examples=120)
@given(
    seed=st.integers(0, 2**32), mode=st.sampled_from(MODES), replace=st.sampled_from(REPLACE),
    kind=st.sampled_from(REQUESTS), unit=st.sampled_from([1, 2, 16, 512, 1024]), threshold=st.integers(1, 20),
    counters=st.sampled_from([8, 20, 64, 1024]), hotlist=st.sampled_from([1, 7, 1000]), width=st.sampled_from([3, 16]),
    every=st.sampled_from([1, 2, 8]), huge=st.booleans(), epochs=st.lists(st.integers(0, 500), min_size=1, max_size=5),
)  # fmt: skip
def test_counters_and_hotlist_are_the_twins(seed: int, huge: bool, epochs: list[int], **values: Any) -> None:
    """Requests in any chunks, epochs, drains: the same counters, entries, losses; drained hottest first."""
    mm = small_mm(seed, huge)
    device, slow = pair(mm, **values)
    rng = np.random.default_rng(seed)
    for k, n in enumerate(epochs):
        stream = requests(seed + k, n, PAGES + 64 * huge)
        for part in np.array_split(stream, rng.integers(1, 5)):
            device.count(part, 0)
        slow.count(stream)
        check_same(device, slow)
        device.end_epoch()
        slow.end_epoch()
        check_same(device, slow)
        if rng.random() < 0.6:
            units, counts = device.drain()
            assert list(zip(units.tolist(), counts.tolist(), strict=True)) == sorted(
                slow.hotlist, key=lambda entry: -entry[1]
            )
            slow.hotlist.clear()
    assert len(slow.hotlist) <= values["hotlist"] and slow.counted == slow.seen // values["every"]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32), replace=st.sampled_from(REPLACE), mode=st.sampled_from(MODES),
    counters=st.sampled_from([8, 64, 4096]), n=st.integers(0, 3000),
)  # fmt: skip
def test_every_request_is_in_a_counter_on_the_list_or_counted_as_lost(
    seed: int, replace: str, mode: str, counters: int, n: int
) -> None:
    """Sum of counts held and listed = requests seen - those uncounted - those that left with a replaced counter."""
    mm = small_mm(seed)
    device, slow = pair(mm, replace=replace, mode=mode, counters=counters, hotlist=10_000)
    stream = requests(seed, n)
    device.count(stream, 0)
    slow.count(stream)
    held = int((device.table & np.uint64(COUNT_MASK)).astype(np.int64).sum())
    _, listed = device.drain()
    assert held + listed.sum() == device.words[SEEN] - device.words[UNCOUNTED] - slow.dropped
    if replace == "inherit":
        assert slow.dropped == 0  # space saving loses no count


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), threshold=st.integers(1, 30))
def test_with_a_counter_for_each_page_an_epoch_lists_exactly_the_pages_over_the_threshold(
    seed: int, threshold: int
) -> None:
    mm = small_mm(seed)
    device, _ = pair(mm, counters=1 << 16, threshold=threshold, hotlist=2000)
    stream = requests(seed, 3000)
    device.count(stream, 0)
    device.end_epoch()
    units, counts = device.drain()
    ids = (stream[(stream & CACHED_BIT) == 0] & 0x3FFFFFFF).astype(np.int64)
    expected = np.bincount(ids, minlength=PAGES) * ((mm.pte[:PAGES] & 3) == LOWER)
    pages = device.pages_of(units)
    assert set(pages.tolist()) == set(np.flatnonzero(expected >= threshold).tolist())
    assert sorted(counts.tolist()) == sorted(expected[expected >= threshold].tolist())
    assert (device.table == np.uint64(FREE_COUNTER)).all()


def test_always_on_lists_a_unit_at_each_multiple_of_the_threshold_at_once() -> None:
    """25 requests at a threshold of 8: listed at the 8th, 16th and 24th; one is left in the counter."""
    mm = small_mm()
    page = int(np.flatnonzero((mm.pte[:PAGES] & 3) == LOWER)[0])
    device, _ = pair(mm, mode="always_on", threshold=8)
    listed = []
    for _ in range(25):
        device.count(np.array([page], np.uint32), 0)
        device.end_epoch()
        listed.append(int(device.words[LISTED]))
    assert listed == [0] * 7 + [1] * 8 + [2] * 8 + [3] * 2
    assert (device.table & np.uint64(COUNT_MASK)).sum() == 1
    assert device.drain()[1].tolist() == [8, 8, 8]


def test_a_full_hotlist_loses_what_comes_until_it_is_drained() -> None:
    mm = small_mm()
    pages = np.flatnonzero((mm.pte[:PAGES] & 3) == LOWER)[:50].astype(np.uint32)
    device, _ = pair(mm, threshold=1, hotlist=20, counters=1 << 14)
    for expected in (30, 60):
        device.count(pages, 0)
        device.end_epoch()
        assert device.words[LOST] == expected and len(device.drain()[0]) == 20
    device.count(pages[:20], 0)
    device.end_epoch()
    assert device.words[LOST] == 60 and len(device.drain()[0]) == 20


def test_counters_saturate_at_their_width() -> None:
    mm = small_mm()
    page = int(np.flatnonzero((mm.pte[:PAGES] & 3) == LOWER)[0])
    device, _ = pair(mm, width=4, threshold=15)
    device.count(np.full(1000, page, np.uint32), 0)
    device.end_epoch()
    assert device.drain()[1].tolist() == [15]
    unreachable, _ = pair(mm, width=4, threshold=16)
    unreachable.count(np.full(1000, page, np.uint32), 0)
    unreachable.end_epoch()
    assert not len(unreachable.drain()[0])


def test_two_devices_share_the_requests_and_the_base_is_the_tenants_first_page() -> None:
    """Each request is seen by the device it goes to; those to the top tier by none."""
    mm = small_mm(5)
    devices = [Device(mm, node, 4096, 1, "epoch", 1 << 14, 2000) for node in (1, 2)]
    ids = np.arange(512, PAGES, dtype=np.int64)
    for device in devices:
        device.counting(512)((ids - 512).astype(np.uint32), 0)
        device.end_epoch()
    found = [set(device.pages_of(device.drain()[0]).tolist()) for device in devices]
    assert found == [set(ids[(mm.pte[ids] & 3) == node].tolist()) for node in (1, 2)]


@pytest.mark.parametrize("unit", [1, 4, 512])
def test_pages_of_a_unit_are_the_listed_ones_that_lie_there_now(unit: int) -> None:
    """Free frames, isolated folios and frames of another device are left out."""
    mm = small_mm(7)
    device, _ = pair(mm, unit=unit)
    first = int(mm.node[LOWER, FIRST_FRAME])
    here = np.flatnonzero((mm.pte[:PAGES] & 3) == LOWER)
    mm.folio[here[:5]] &= 0xF8
    units = np.unique((mm.pfn[here[::7]].astype(np.int64) - first) // unit)
    expected = {p for p in here[5:].tolist() if (int(mm.pfn[p]) - first) // unit in set(units.tolist())}
    found = device.pages_of(units).tolist()
    assert set(found) == expected and len(found) == len(expected)


# --- the driver's thread ----------------------------------------------------------------------------------------------
class Recorder:
    """A hotness store that keeps what it is told."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def record(self, pages: np.ndarray, source: str) -> None:
        assert source == "hwhint"
        self.batches.append(pages.tolist())


class FakeSystem:
    """What the thread asks of a run, with one tenant whose requests are handed over by hand."""

    parked = "parked"

    def __init__(self, mm: Mm) -> None:
        self.mm, self.fold, self.entries, self.woken = mm, 1, 0, 0
        self.machine, self.tenants = SimpleNamespace(lower_nodes=[1, 2]), [SimpleNamespace(first_page=0)]
        self.taps: list[Any] = []

    def scaled(self, n: int, _name: str) -> int:
        return n

    def tap(self, _tenant: Any, consume: Any) -> None:
        self.taps.append(consume)

    def daemon(self, _name: str, run: Any, parked: bool) -> Any:
        assert parked
        return run(self)

    def every_ms(self, _ms: float, tick: Any) -> None:
        self.tick = tick

    def wake(self, thread: Any) -> None:
        self.woken += 1
        assert next(thread) == "parked"

    def charge_full(self, **_: int) -> None:
        pass

    def charge(self, hotlist_entry: int) -> None:
        self.entries += hotlist_entry


def test_each_tick_ends_the_epoch_drains_every_device_and_records_hottest_first() -> None:
    mm = small_mm(9)
    chmu, system = Chmu(Recorder(), threshold=3, counters=1 << 14), FakeSystem(mm)
    chmu.attach(system)  # type: ignore[arg-type]
    stream = np.repeat(np.arange(40, dtype=np.uint32), np.arange(40) % 9)
    for tap in system.taps:
        tap(stream, 0)
    system.tick()
    counts = np.bincount(stream, minlength=40)
    for node, batch in zip((1, 2), chmu.store.batches, strict=True):
        hot = [p for p in range(40) if counts[p] >= 3 and mm.pte[p] & 3 == node]
        assert sorted(batch) == hot
        assert [counts[p] for p in batch] == sorted((counts[p] for p in hot), reverse=True)
    assert system.entries == chmu.read == sum(len(batch) for batch in chmu.store.batches)
    system.tick()  # a new epoch: nothing is left
    assert chmu.store.batches[2:] == [[], []] and system.woken == 2
    assert chmu.bound() == {"hotlist": 0.0, "hotness counters": 0.0}


# --- whole runs -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("values", [{"mode": "epoch"}, {"mode": "always_on", "rule": "hotlist"}])
def test_the_chunk_is_never_visible(values: dict[str, Any]) -> None:
    """Both modes, with pghot behind the first."""
    hot = kv(footprint_gib=0.125, placement="lower", rate=10.0)
    results = [run("chmu", hot, duration_s=3, chunk=chunk, values=values) for chunk in (1, 7, 4096, 65_536)]
    assert len({json.dumps(result.to_dict(), sort_keys=True) for result in results}) == 1
    assert results[0].metrics["promoted_pages"] > 0


@pytest.mark.parametrize("values", [{"mode": "epoch"}, {"mode": "always_on", "rule": "hotlist"}])
def test_a_hot_set_in_slow_memory_is_promoted_and_the_rest_stays(values: dict[str, Any]) -> None:
    """A quarter of memory takes all touches, 160 a page and second: an epoch or two find it, and only it."""
    hot = Quarter(footprint_gib=0.25, rate=40.0, placement="lower")
    still = run("all_lower", hot, where=machine((1, 1)), duration_s=8).metrics
    moved = run("chmu", hot, where=machine((1, 1)), duration_s=8, values=values).metrics
    assert still["dram_hit_share"] == 0
    assert 0.9 * moved["pages"] / 4 < moved["promoted_pages"] <= moved["pages"] / 4
    assert moved["dram_hit_share"] > 0.5 and moved["time_s"] < still["time_s"]


def test_huge_pages_move_whole_and_every_touch_is_counted() -> None:
    """Frames, lists and residents are checked by the run itself."""
    huge = kv(footprint_gib=0.25, placement="lower", page="2m")
    result = run("chmu", huge, duration_s=5, fold=4, values={"unit_kib": 2048}).metrics
    assert result["misses"] + result["cached"] == result["accesses"]
    assert result["promoted_pages"] > 0
    assert result["promoted_pages"] % (512 * 4) == 0 and result["demoted_pages"] % (512 * 4) == 0
