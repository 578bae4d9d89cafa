"""Folios that several PTEs map, as hint faults, idle marks and DAMON see them, against plain Python."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from folios import folios_of, old_memory, on_top
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_damon import Region
from test_damon import table_of
from test_kmigrated import RULES

from klrubench.engine.bits import ACCESSED, IDLE, TRAP, YOUNG
from klrubench.mm import damon
from klrubench.mm.damon.regions import NR_ACCESSES
from klrubench.mm.damon.sampling import Sampling, node_space
from klrubench.mm.damon.tuning import Intervals
from klrubench.mm.fault import fault_context
from klrubench.mm.numa_balancing import (
    FIRST_MEMCG,
    M_LOCAL,
    M_PRIVATE,
    M_REMOTE,
    SPENT_PS,
    handler_words,
    numa_hint_fault,
)
from klrubench.mm.numa_scan import CURSOR_WORDS, HOME, MARK_TOP, N_LIMITS, THREADS, VIRTUAL, new_areas, task_numa_work
from klrubench.mm.page_idle import check_idle, set_idle
from klrubench.mm.state import (
    NUMA_FAULT_PROMOTIONS,
    NUMA_HINT_FAULTS,
    NUMA_HINT_FAULTS_LOCAL,
    PAGES_EACH,
    PGPROMOTE_SUCCESS,
    Mm,
)  # fmt: skip
from klrubench.simulate.result import check_memory

PS_PER_MS = 1_000_000_000


# --- hint faults ------------------------------------------------------------------------------------------------------
class Faults:
    """Marking and the compiled handler over folios of one order."""

    def __init__(self, order: int, mode: int = 2, node: int = 1, pages: int = 1024) -> None:
        self.mm = old_memory([(pages, 0, False, order)], node=node)
        self.own = handler_words([1000, 7000], 90_000, fold=1, target=0, mode=mode, threads=[1])
        self.areas, self.order = new_areas(self.mm.vma, [0])
        self.cursor, self.mode = np.zeros(CURSOR_WORDS, np.int64), mode
        self.context = fault_context(self.mm, [self.own, self.rules(), self.areas])

    def rules(self) -> np.ndarray:
        self.kept = RULES.copy()
        self.kept[0] = 1000  # hot threshold, ms
        return self.kept

    def mark(self, pages: int, now_ms: int) -> int:
        limits = np.zeros(N_LIMITS, np.int64)
        limits[[0, VIRTUAL, THREADS, HOME]] = pages, 8 * pages, 1, -1
        limits[MARK_TOP] = {1: 1, 2: 0, 3: 2}[self.mode]
        return int(task_numa_work(self.mm, self.areas, self.order[0], self.cursor, limits, now_ms)[0])

    def touch(self, page: int, now_ms: int) -> int:
        """A touch as the loop makes it: through the handler if the PTE is marked."""
        if not self.mm.pte[page] & TRAP:
            return 0
        stall = int(numa_hint_fault.ctypes(self.context.ctypes.data, page, now_ms * PS_PER_MS))
        self.mm.pte[page] &= 0xFF ^ TRAP
        return stall


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32), order=st.integers(0, 8), touches=st.lists(st.integers(0, 1023), max_size=40),
    latency=st.sampled_from([0, 999, 1000, 5000]),
)  # fmt: skip
def test_one_hint_fault_restores_and_moves_all_ptes_of_a_folio(
    seed: int, order: int, touches: list[int], latency: int
) -> None:
    """Each PTE is marked, the folio has one time; whichever is touched, one fault decides for all of them."""
    faults, size = Faults(order), 1 << order
    mm = faults.mm
    assert faults.mark(1024, 300) == 1024 and (mm.pte[:1024] & TRAP).all()
    assert np.flatnonzero(mm.scan_ms).tolist() == folios_of(mm).tolist()
    met: set[int] = set()
    price = 7000 + 83_000 * (size - 1) // 511 if latency < 1000 else 1000
    for page in touches:
        assert faults.touch(page, 300 + latency) == (0 if page // size in met else price)
        met.add(page // size)
        marked = [p for p in range(1024) if p // size not in met]
        assert np.flatnonzero(mm.pte[:1024] & TRAP).tolist() == marked
    assert mm.stat[NUMA_HINT_FAULTS] == len(met) and faults.own[SPENT_PS] == price * len(met)
    moved = len(met) * size if latency < 1000 else 0
    assert mm.stat[[NUMA_FAULT_PROMOTIONS, PGPROMOTE_SUCCESS]].tolist() == [moved, moved]
    assert on_top(mm, range(1024)) == [p // size in met and moved > 0 for p in range(1024)]
    assert faults.own[FIRST_MEMCG + M_REMOTE] == faults.own[FIRST_MEMCG + M_PRIVATE] == moved
    assert mm.scan_ms[[k * size for k in met]].tolist() == [300 + latency] * len(met)
    check_memory(mm)


def test_the_latency_is_that_of_the_folios_last_marking() -> None:
    """Half of a folio marked at 0.3 s, half at 0.9 s: 1.5 s is 0.6 s later for a PTE of either half."""
    for page in (3, 12):
        faults = Faults(4, pages=16)
        faults.mm.setting[PAGES_EACH] = 512  # at this scale a scan may end inside 2 MiB
        assert [faults.mark(8, now) for now in (300, 900)] == [8, 8]
        faults.touch(page, 1500)
        assert on_top(faults.mm, range(16)) == [True] * 16


def test_the_normal_mode_promotes_a_folio_at_its_second_fault_of_any_pte() -> None:
    """The last faulting thread is the folio's, not the PTE's."""
    faults = Faults(4, mode=1)
    faults.mark(1024, 100)
    assert faults.touch(35, 200) == 1000 and not any(on_top(faults.mm, range(1024)))
    assert not faults.touch(40, 210)  # restored with it
    faults.cursor[:] = 0
    assert faults.mark(1024, 400) == 16
    faults.touch(47, 500)
    assert on_top(faults.mm, range(32, 48)) == [True] * 16 and sum(on_top(faults.mm, range(1024))) == 16


@pytest.mark.parametrize("mode", [1, 3])
def test_a_fault_on_a_top_tier_folio_is_local_with_all_its_pages(mode: int) -> None:
    faults = Faults(4, mode=mode, node=0)
    assert faults.mark(1024, 100) == 1024
    for page in (3, 5, 900):
        faults.touch(page, 200)
    assert faults.mm.stat[[NUMA_HINT_FAULTS, NUMA_HINT_FAULTS_LOCAL]].tolist() == [2, 2]
    assert faults.own[FIRST_MEMCG + M_LOCAL] == 32 and np.count_nonzero(faults.mm.pte[:1024] & TRAP) == 1024 - 32


# --- idle marks and DAMON ---------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32), order=st.integers(1, 8), share=st.sampled_from([0.0, 0.01, 0.2]),
    asked=st.lists(st.integers(0, 1023), min_size=1, max_size=30),
)  # fmt: skip
def test_any_young_pte_ends_the_idleness_of_its_folio(seed: int, order: int, share: float, asked: list[int]) -> None:
    """Marked and looked at by any of its pages; the marks are the head's."""
    rng, size = np.random.default_rng(seed), 1 << order
    mm = old_memory([(1024, 0, False, order)])
    mm.pte[:1024] |= np.where(rng.random(1024) < share, ACCESSED, 0).astype(np.uint8)
    before = mm.pte.copy()
    chosen = sorted({page // size for page in asked})
    set_idle(mm, np.array(asked))
    for k in range(1024 // size):
        ptes, marks = slice(k * size, (k + 1) * size), mm.folio[k * size] & (IDLE | YOUNG)
        if k in chosen:
            assert marks == IDLE | (YOUNG if (before[ptes] & ACCESSED).any() else 0) and not (mm.pte[ptes] & 4).any()
        else:
            assert not marks and (mm.pte[ptes] == before[ptes]).all()
    mm.pte[:1024] |= np.where(rng.random(1024) < share, ACCESSED, 0).astype(np.uint8)
    young = [k for k in chosen if (mm.pte[k * size : (k + 1) * size] & ACCESSED).any()]
    out = np.empty(len(asked), np.uint32)
    checked, touched = check_idle(mm, np.array([k * size + int(rng.integers(size)) for k in chosen]), out)
    assert checked == len(chosen) and out[:touched].tolist() == [k * size for k in young]
    assert [k for k in chosen if mm.folio[k * size] & IDLE] == [k for k in chosen if k not in young]
    check_memory(mm)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), order=st.integers(1, 8), touched=st.lists(st.integers(0, 1023), max_size=12))
def test_damon_looks_at_the_folio_behind_any_of_its_frames(seed: int, order: int, touched: list[int]) -> None:
    """Regions of one frame each: mkold clears all PTEs of its folio, a touch of any of them is an access."""
    rng, size = np.random.default_rng(seed), 1 << order
    mm = old_memory([(1024, 0, False, order)])
    mm.pte[:1024] |= np.where(rng.random(1024) < 0.3, ACCESSED, 0).astype(np.uint8)
    picked = np.sort(rng.permutation(1100)[:20]).tolist()  # free frames behind the last folio among them
    table = table_of([Region(k, k + 1) for k in picked], 20)
    sampling = Sampling(mm, node_space(mm, 1), table, np.array([1, 2], np.uint64))
    sampling.step(20, check=False)
    looked = {k // size for k in picked if k < 1024}
    assert all(not (mm.pte[k * size : (k + 1) * size] & ACCESSED).any() for k in looked)
    assert np.flatnonzero(mm.folio & IDLE).tolist() == [k * size for k in sorted(looked)]
    mm.pte[touched] |= ACCESSED
    sampling.step(20, prepare=False)
    accessed = {page // size for page in touched}
    assert table[NR_ACCESSES].tolist() == [int(k < 1024 and k // size in accessed) for k in picked]


class Payer:
    """What a scheme asks of a run."""

    def __init__(self, mm: Mm) -> None:
        self.mm, self.fold, self.now_ms, self.looked, self.folios, self.pages = mm, 1, 0.0, 0, 0, 0

    def charge(self, idle_check: int, idle_set: int) -> None:
        self.looked += int(idle_check)

    def charge_moves(self, _cost: str, folios: int, pages: int) -> None:
        self.folios, self.pages = self.folios + int(folios), self.pages + int(pages)

    def flush_tlb(self, _folios: int, _per_flush: int) -> None:
        pass


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32), order=st.integers(0, 8), hot=st.booleans(),
    cuts=st.sets(st.integers(1, 1023), min_size=1, max_size=12),
)  # fmt: skip
def test_damos_moves_a_folio_once_and_passes_over_its_other_frames(
    seed: int, order: int, hot: bool, cuts: set[int]
) -> None:
    """Regions cut anywhere; from each address it goes on by a folio, and moves those that the `young` filter lets."""
    rng, size, node = np.random.default_rng(seed), 1 << order, int(hot)
    mm = old_memory([(1024, 0, False, order)], node=node)
    heads = folios_of(mm)
    mm.folio[heads] |= np.where(rng.random(len(heads)) < 0.8, IDLE, 0).astype(np.uint8)
    mm.pte[:1024] |= np.where(rng.random(1024) < rng.choice([0.01, 0.3]), ACCESSED, 0).astype(np.uint8)
    bounds = [0, *sorted(cuts), 1024]
    regions = [Region(a, b, 20 if hot else 0, 20 if hot else 0) for a, b in pairwise(bounds)]
    young = [bool((mm.pte[h : h + size] & ACCESSED).any() or not mm.folio[h] & IDLE) for h in heads.tolist()]
    gone, looked = set(), 0
    for region in regions:
        address = region.start
        while address < region.end:
            k = address // size
            address += 1 if k in gone else size
            if k not in gone:
                looked += 1
                if young[k] == hot:
                    gone.add(k)
                elif young[k]:
                    young[k] = False  # made old and idle when it was looked at
    there: Any = SimpleNamespace(
        table=table_of(regions, 64), n=len(regions), size_limit=1, passed_since_reset=20,
        intervals=Intervals(5000, 20), space=node_space(mm, node),
    )  # fmt: skip
    system: Any = Payer(mm)
    for _ in damon.Scheme(hot, 1 - node, 1 - node, 9970, quota_bytes=1 << 30, tuner="none").apply(system, there):
        pass
    assert on_top(mm, range(1024)) == [(k // size in gone) == hot for k in range(1024)]
    assert (system.looked, system.folios, system.pages) == (looked, len(gone), len(gone) * size)
    check_memory(mm)
