"""pghot v2 against a dict and a sort: frequencies, gap rule, queue, pops; the heap's own laws after every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from klrubench.engine.bits import ACCESSED, ACTIVE
from klrubench.mm.numa_promotion import promotion_rules
from klrubench.mm.pghot import UNKNOWN, UNQUEUED, PghotArrays, pghot_arrays, pop_promote, record_access, record_pages
from klrubench.mm.state import (
    KPROMOTED_DROPPED,
    KPROMOTED_NON_LRU,
    KPROMOTED_POPPED,
    KPROMOTED_RIGHT_NODE,
    NOW_MS,
    PGHOT_HEAP_FULL,
    PGHOT_RECORDED,
    PGPROMOTE_CANDIDATE,
    PGPROMOTE_SUCCESS,
    WINDOW,
    Mm,
    new_mm,
)  # fmt: skip
from klrubench.simulate.placement import allocate
from klrubench.simulate.result import check_memory

FRAMES, TOPS, WRAP = 40, 2, 1 << 19


def new_arrays(frames: int, threshold: int, window: int, cap: int, tops: int = TOPS) -> PghotArrays:
    return pghot_arrays(frames, tops, cap, np.array([threshold, window, 0, 1], np.int64))


@dataclass
class Record:
    freq: int
    nid: int
    time: int
    queued: bool = False


class Store:
    """The records as a dict; a queue is the records that say they are in it."""

    def __init__(self, threshold: int, window: int, cap: int) -> None:
        self.threshold, self.window, self.cap = threshold, window, cap
        self.records: dict[int, Record] = {}

    def queue(self, node: int) -> list[int]:
        return [frame for frame, r in self.records.items() if r.queued and r.nid == node]

    def record(self, frame: int, nid: int, jiffies: int, exempt: bool) -> tuple[int, int]:
        now, target = jiffies % WRAP, max(nid, 0)
        if frame not in self.records:
            self.records[frame] = Record(1, target, now)
            return 2 * len(self.records), 0
        r = self.records[frame]
        expired = not exempt and not 0 <= now - r.time <= self.window
        moved = nid >= 0 and nid != r.nid
        r.freq = 1 if expired or moved else (r.freq + 1) % 8
        was_here = r.queued and r.nid == target
        r.queued, r.nid, r.time = False, target, now
        if r.freq < self.threshold:
            return len(self.records), 0
        if was_here:
            r.queued = True
            return len(self.records), 0
        r.queued = len(self.queue(target)) < self.cap
        return len(self.records), 1 if r.queued else 2

    def pop(self, node: int, budget: int) -> list[int]:
        """Frequencies of the next pops, highest first; which of equals goes first is free."""
        return sorted(
            (self.records[f].freq for f in self.queue(node) if self.records[f].freq >= self.threshold), reverse=True
        )[:budget]


def check(p: PghotArrays, store: Store) -> None:
    """The same records; every queued record at the place it names; parents not under children."""
    known = np.flatnonzero(p.place != UNKNOWN).tolist()
    assert known == sorted(store.records)
    assert int(p.setting[2]) == len(known)
    for frame in known:
        packed, r = int(p.packed[frame]), store.records[frame]
        assert (packed >> 29, packed >> 19 & 1023, packed % WRAP) == (r.freq, r.nid, r.time)
        place = int(p.place[frame])
        assert (place != UNQUEUED) == r.queued
        if r.queued:
            assert p.heap[r.nid, place] == r.freq << 32 | frame
    for node in range(len(p.heap)):
        n = int(p.heap_n[node])
        assert n == len(store.queue(node))
        for k in range(1, n):
            assert p.heap[node, (k - 1) // 2] >> 32 >= p.heap[node, k] >> 32


class PghotMachine(RuleBasedStateMachine):
    """Sightings, time and pops in any order, over two top-tier nodes and tiny heaps."""

    def __init__(self) -> None:
        super().__init__()
        self.p, self.store, self.jiffies = (
            new_arrays(FRAMES, self.threshold, 50, 6),
            Store(self.threshold, 50, 6),
            WRAP - 400,
        )

    threshold = 2

    @rule(
        frames=st.lists(st.integers(0, FRAMES - 1), min_size=1, max_size=12),
        nid=st.integers(-1, TOPS - 1),
        exempt=st.booleans(),
    )
    def sight(self, frames: list[int], nid: int, exempt: bool) -> None:
        for frame in frames:
            assert record_access(self.p, frame, nid, self.jiffies, exempt) == self.store.record(
                frame, nid, self.jiffies, exempt
            )

    @rule(times=st.integers(1, 9), frame=st.integers(0, FRAMES - 1))
    def sight_often(self, times: int, frame: int) -> None:
        self.sight([frame] * times, -1, False)

    @rule(jiffies=st.integers(1, 120))
    def wait(self, jiffies: int) -> None:
        self.jiffies += jiffies

    @rule(node=st.integers(0, TOPS - 1), budget=st.integers(0, 5))
    def pop(self, node: int, budget: int) -> None:
        mm = new_mm([(512, 0, False, 0)], [512, 512], [0, 1], 1, 64)  # no page lives in any frame: nothing is promoted
        expected = self.store.pop(node, budget)
        popped, _, _ = pop_promote(self.p, mm, node, budget, self.jiffies, promotion_rules(1000, 1, 1, 1), 1)
        gone = [frame for frame in self.store.records if self.p.place[frame] == UNKNOWN]
        assert sorted((self.store.records[f].freq for f in gone), reverse=True) == expected and popped == len(expected)
        assert all(self.store.records[f].nid == node for f in gone)
        for frame in gone:
            del self.store.records[frame]

    @invariant()
    def same(self) -> None:
        check(self.p, self.store)


class EagerPghotMachine(PghotMachine):
    """A threshold of one: a record may move from one node's heap to the other's."""

    threshold = 1


TestPghotMachine: Any = PghotMachine.TestCase
TestEagerPghotMachine: Any = EagerPghotMachine.TestCase
TestPghotMachine.settings = TestEagerPghotMachine.settings = settings(
    deadline=None, max_examples=60, stateful_step_count=40
)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32), cap=st.sampled_from([1, 31, 400]), threshold=st.integers(1, 4),
    window=st.sampled_from([300, 1000, 9000]),
)  # fmt: skip
def test_a_long_history_pops_in_order_of_frequency(seed: int, cap: int, threshold: int, window: int) -> None:
    """2000 sightings of 200 frames, then all pops: the multiset of frequencies is the dict's, in falling order.

    The narrower windows let records expire, so that entries leave from the middle of the heap.
    """
    rng = np.random.default_rng(seed)
    p, store = new_arrays(200, threshold, window, cap), Store(threshold, window, cap)
    weights = rng.random(200) ** 3
    for k, frame in enumerate(rng.choice(200, 2000, p=weights / weights.sum()).tolist()):
        assert record_access(p, frame, -1, 3 * k, False) == store.record(frame, -1, 3 * k, False)
        if k % 100 == 0:
            check(p, store)
    check(p, store)
    mm, order = new_mm([(512, 0, False, 0)], [512, 512], [0, 1], 1, 64), []
    while (before := set(np.flatnonzero(p.place != UNKNOWN).tolist())) and pop_promote(
        p, mm, 0, 1, 9000, promotion_rules(1, 1, 1, 1), 1
    )[0]:
        (gone,) = before - set(np.flatnonzero(p.place != UNKNOWN).tolist())
        order.append(store.records.pop(gone).freq)
    assert order == sorted(order, reverse=True)
    assert all(r.freq < threshold or not r.queued for r in store.records.values())


def small_memory(top: int = 1024) -> Mm:
    """2048 pages on the lower tier, a top tier of `top` pages."""
    mm = new_mm([(2048, 0, False, 0)], [top, 4096], [0, 1], 1, 64)
    mm.setting[WINDOW] = -1
    assert allocate(mm.address, np.arange(2048), np.array([1])) == 0
    return mm


def test_the_eighth_sighting_in_a_row_wraps_and_leaves_the_heap() -> None:
    """Queued at the second, gone at the eighth, queued again at the tenth."""
    p = new_arrays(4, 2, 5000, 4)
    queued = []
    for k in range(11):
        record_access(p, 3, -1, 2000 * k, False)
        queued.append(bool(p.heap_n[0]))
    assert queued == [False, True, True, True, True, True, True, False, False, True, True]


@pytest.mark.parametrize(("gap", "promoted"), [(5000, True), (5001, False)])
def test_the_window_is_the_largest_gap_between_two_sightings(gap: int, promoted: bool) -> None:
    p = new_arrays(4, 2, 5000, 4)
    for k in range(3):
        record_access(p, 1, -1, k * gap, False)
    assert bool(p.heap_n[0]) == promoted
    record_access(p, 1, -1, 2 * gap + 10**5, True)  # hint faults are exempt
    assert p.heap_n[0] == 1


def test_the_19_bit_clock_wraps_into_an_expired_record() -> None:
    """Two sightings 10 jiffies apart, across the wrap: the second starts again at one."""
    p = new_arrays(4, 2, 5000, 4)
    record_access(p, 1, -1, WRAP - 5, False)
    record_access(p, 1, -1, WRAP + 5, False)
    assert p.packed[1] >> 29 == 1 and p.heap_n[0] == 0


def test_records_of_a_batch_skip_the_top_tier_and_isolated_pages() -> None:
    mm, p = small_memory(), new_arrays(1 << 14, 2, 5000, 64)
    mm.pte[:10] = 0 | ACCESSED
    mm.folio[10:15] &= 0xF8
    pages = np.arange(20, dtype=np.uint32)
    recorded, walked, entered = record_pages(p, mm, pages, -1, 10, False)
    assert (recorded, entered) == (5, 0) and walked == 2 * (1 + 2 + 3 + 4 + 5)
    assert record_pages(p, mm, pages, -1, 11, False) == (5, 5 * 5, 5)
    assert mm.stat[PGHOT_RECORDED] == 10 and mm.stat[PGHOT_HEAP_FULL] == 0


def test_popped_records_are_forgotten_and_their_pages_promoted_while_there_is_room() -> None:
    """Budget, promotion, refusal at the gate, and what each pop is counted as."""
    mm, p = small_memory(top=600), new_arrays(1 << 14, 2, 5000, 4096)
    pages = np.arange(1000, dtype=np.uint32)
    for jiffies in (100, 2100):
        record_pages(p, mm, pages, -1, jiffies, False)
    rules = promotion_rules(5000, 60_000, 65_536, 1)
    mm.setting[NOW_MS] = 2200
    assert pop_promote(p, mm, 0, 400, 2200, rules, 1) == (400, 400, 400)
    assert pop_promote(p, mm, 0, 4000, 2200, rules, 1) == (600, 200, 200)
    assert (
        mm.stat[PGPROMOTE_SUCCESS] == 600 and mm.stat[KPROMOTED_POPPED] == 1000 and mm.stat[PGPROMOTE_CANDIDATE] == 1000
    )
    assert (p.place == UNKNOWN).all() and p.setting[2] == 0
    check_memory(mm)


def test_old_records_and_lost_pages_are_dropped() -> None:
    """Latency at the pop is the record's age; frames without a listed folio, or on top by now, count as such."""
    mm, p = small_memory(), new_arrays(1 << 14, 2, 5000, 4096)
    rules = promotion_rules(5000, 60_000, 65_536, 1)
    pages = np.arange(10, dtype=np.uint32)
    for jiffies in (0, 100):
        record_pages(p, mm, pages, -1, jiffies, False)
    mm.folio[0] &= 0xF8
    mm.frame_page[mm.pfn[1]] = -1
    mm.pte[2] &= 0xFC
    assert pop_promote(p, mm, 0, 100, 5100, rules, 1) == (10, 0, 0)
    assert mm.stat[[KPROMOTED_NON_LRU, KPROMOTED_RIGHT_NODE, KPROMOTED_DROPPED]].tolist() == [2, 1, 7]


def test_a_promoted_folio_stays_active() -> None:
    """Isolated from one of the two youngest generations, it lands in one of them."""
    mm, p = small_memory(), new_arrays(1 << 14, 1, 5000, 4096)
    pages = np.arange(4, dtype=np.uint32)
    for jiffies in (0, 1):
        record_pages(p, mm, pages, -1, jiffies, False)
    pop_promote(p, mm, 0, 4, 2, promotion_rules(5000, 60_000, 65_536, 1), 1)
    assert ((mm.pte[:4] & 3) == 0).all() and not (mm.folio[:4] & ACTIVE).any()
    assert set((mm.folio[:4] & 7).tolist()) <= {3, 4}
