"""The reference check of reclaim on folios that several PTEs map, against its plain-Python twin, with both LRUs."""

from __future__ import annotations

import numpy as np
import pytest
from folios import folios_of, old_memory
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_walk import NODES, SlowWalk
from test_walk_kernels import Vmas, address_spaces, random_mm

from klrubench.engine.bits import ACCESSED, ACTIVE, GEN_MASK, IDLE, NODE_MASK, REFERENCED, WORKINGSET, YOUNG
from klrubench.engine.jit import njit
from klrubench.mm.classic_lru import keeps_classic
from klrubench.mm.lru import ACTIVE_LIST, INACTIVE_LIST, lru_isolate
from klrubench.mm.state import (
    BLOOM_A,
    DEMOTE_FOLIOS,
    DEMOTION_TARGET,
    LRU_GEN_CORE,
    LRU_GEN_LACKS,
    MAX_SEQ,
    MIN_SEQ_ANON,
    NR_PAGES,
    PGDEMOTE_KSWAPD,
    TWO_STEP,
    Mm,
)
from klrubench.mm.table import mm_at
from klrubench.mm.vmscan import evict_folios, keeps_page, referenced
from klrubench.simulate.result import check_memory

WINDOW = 64  # PTEs that look-around reads


@njit
def _check(address: int, page: int, lruvec: int, node: int, classic: bool) -> bool:
    mm = mm_at(address)
    lru_isolate(mm, page, True)
    if classic:
        return keeps_classic(mm, page)
    return keeps_page(mm, page, referenced(mm, page, lruvec, node))


@njit
def _evict(address: int, lruvec: int, node: int, wanted: int, examine: int) -> tuple[int, int]:
    return evict_folios(mm_at(address), lruvec, node, wanted, examine, 1)


class SlowReclaim:
    """The reference check of one folio, by the PTE, on lists of the same bytes."""

    def __init__(self, mm: Mm, lruvec: int, node: int) -> None:
        self.pte, self.folio, self.vmas = mm.pte.tolist(), mm.folio.tolist(), mm.vma.tolist()
        self.row, self.node, self.two_step = mm.lru[lruvec].tolist(), node, bool(mm.setting[TWO_STEP])
        self.top = self.row[MAX_SEQ]
        exists = self.row[BLOOM_A + self.top % 2]
        self.filter = set(np.flatnonzero(mm.bloom[2 * lruvec + self.top % 2]).tolist()) if exists else None

    def vma(self, page: int) -> list[int]:
        (row,) = (row for row in self.vmas if row[0] <= page < row[1])
        return row

    def ptes(self, page: int) -> range:
        _start, _end, _memcg, _file, order, _space, leaf = self.vma(page)
        n = 1 << order - leaf
        return range(page // n * n, page // n * n + n)

    def count(self, page: int, generation: int, sign: int) -> None:
        row = self.vma(page)
        self.row[NR_PAGES + 2 * generation + row[3]] += sign << row[4]

    def isolate(self, page: int) -> None:
        self.count(page, (self.folio[page] & GEN_MASK) - 1, -1)
        self.folio[page] &= ~GEN_MASK

    def observe(self, head: int) -> None:
        """A neighbour's young PTE: as the walk's (folio_update_gen); one off the lists is marked up to 6.13."""
        flags = self.folio[head]
        seen_before = flags & (REFERENCED | WORKINGSET)
        if not flags & GEN_MASK:
            if not self.two_step:
                self.folio[head] |= REFERENCED
        elif self.two_step and not seen_before:
            self.folio[head] |= REFERENCED
        else:
            self.count(head, (flags & GEN_MASK) - 1, -1)
            self.count(head, self.top % 4, 1)
            flags &= ~(GEN_MASK | REFERENCED | WORKINGSET)
            self.folio[head] = flags | self.top % 4 + 1 | (WORKINGSET if self.two_step else 0)

    def look_around(self, page: int) -> bool:
        if not self.pte[page] & ACCESSED:
            return False
        self.pte[page] &= ~ACCESSED
        start, end, *_, leaf = self.vma(page)
        if leaf:
            return True
        first, last = max(start, page // 512 * 512), min(end, page // 512 * 512 + 512)
        if last - first > WINDOW:
            first = min(max(first, page - WINDOW // 2), last - WINDOW)
            last = first + WINDOW
        others = [p for p in range(first, last) if self.pte[p] & (ACCESSED | NODE_MASK) == ACCESSED | self.node]
        if self.two_step:  # isolated folios are passed over
            others = [p for p in others if self.folio[self.ptes(p)[0]] & GEN_MASK]
        run = -1
        for p in others:
            self.pte[p] &= ~ACCESSED
            if self.ptes(p)[0] != run:
                run = self.ptes(p)[0]
                self.observe(run)
        if 8 * (1 + len(others)) >= last - first and self.filter is not None:
            self.filter |= set(SlowWalk.bits_of(page >> 9))
        return True

    def keeps(self, page: int) -> bool:
        """Isolate and check one folio; whether it stays."""
        self.isolate(page)
        young = sum(self.look_around(p) for p in self.ptes(page)) > 0
        saved = self.folio[page] & YOUNG
        if young or saved:
            self.folio[page] &= ~(YOUNG | IDLE)
        else:
            return False
        if self.folio[page] & (REFERENCED | WORKINGSET):
            self.folio[page] = self.folio[page] & ~REFERENCED | ACTIVE | WORKINGSET
        else:
            self.folio[page] |= REFERENCED
        return True

    def keeps_classic(self, page: int) -> bool:
        """The same with the classic LRU, which looks at the folio's own PTEs alone."""
        active = (self.folio[page] & GEN_MASK) - 1 == ACTIVE_LIST
        self.isolate(page)
        self.folio[page] |= ACTIVE if active else 0
        young = any(self.pte[p] & ACCESSED for p in self.ptes(page))
        for p in self.ptes(page):
            self.pte[p] &= ~ACCESSED
        before = self.folio[page]
        young = young or bool(before & YOUNG)
        self.folio[page] &= ~REFERENCED & ~(YOUNG | IDLE if young else 0)
        if young:
            self.folio[page] |= REFERENCED | (ACTIVE if before & REFERENCED else 0)
        return bool(young)


@settings(deadline=None, max_examples=120)
@given(
    seed=st.integers(0, 2**32), vmas=address_spaces(), two_step=st.booleans(), filters=st.booleans(),
    classic=st.sampled_from([False, False, True]), density=st.sampled_from([0.0, 0.02, 1.0]),
)  # fmt: skip
def test_the_reference_check_is_the_twins(
    seed: int, vmas: Vmas, two_step: bool, filters: bool, classic: bool, density: float
) -> None:
    """Twelve folios of any order: whether each stays, all PTEs and flags, generation counters, the Bloom filter."""
    rng = np.random.default_rng(seed)
    short = [(min(ids, 4096), memcg, file, order) for ids, memcg, file, order in vmas]
    mm = random_mm(rng, short, two_step, 0.3, filters)
    mm.folio[folios_of(mm)] |= rng.choice([0, 0, YOUNG, YOUNG | IDLE, IDLE], len(folios_of(mm))).astype(np.uint8)
    mm.pte[rng.random(len(mm.pte)) < 0.7 * (density < 1)] &= 0xFF ^ ACCESSED
    mm.pte[rng.random(len(mm.pte)) < density / 2] |= ACCESSED
    mm.setting[LRU_GEN_LACKS] = LRU_GEN_CORE if classic else 0
    for page in rng.permutation(folios_of(mm))[:12].tolist():
        if not mm.folio[page] & GEN_MASK:
            continue
        node = int(mm.pte[page] & NODE_MASK)
        lruvec = int(mm.vma[mm.block_vma[page >> 9], 2]) * NODES + node
        twin = SlowReclaim(mm, lruvec, node)
        kept = bool(_check(mm.address, page, lruvec, node, classic))
        assert kept == (twin.keeps_classic(page) if classic else twin.keeps(page))
        assert mm.pte.tolist() == twin.pte
        assert mm.folio.tolist() == twin.folio
        assert mm.lru[lruvec].tolist() == twin.row
        if twin.filter is not None:
            assert np.flatnonzero(mm.bloom[2 * lruvec + twin.top % 2]).tolist() == sorted(twin.filter)


def aged(order: int, two_step: bool) -> Mm:
    """Four folios on the top tier, all in the oldest of four generations."""
    mm = old_memory([(4 << order, 0, False, order)], node=0)
    mm.setting[TWO_STEP] = two_step
    (generation,) = set((mm.folio[folios_of(mm)] & GEN_MASK) - 1)
    mm.lru[0, MAX_SEQ], mm.lru[0, [MIN_SEQ_ANON, MIN_SEQ_ANON + 1]] = generation + 3, generation
    mm.node[:, DEMOTION_TARGET] = 1, -1
    return mm


KEPT, ACTIVATED, DEMOTED = "kept", "activated", "demoted"


def fate(mm: Mm, page: int) -> str:
    """What has come of a folio: activated ones land in the youngest generation."""
    if mm.pte[page] & NODE_MASK:
        return DEMOTED
    seq = (int(mm.folio[page] & GEN_MASK) - 1 - int(mm.lru[0, MAX_SEQ])) % 4
    assert mm.folio[page] & (WORKINGSET if seq == 0 else REFERENCED)
    return {0: ACTIVATED, 3: KEPT}[seq]


@pytest.mark.parametrize("two_step", [False, True])
@pytest.mark.parametrize(
    ("order", "young", "expected"),
    [
        (4, [], DEMOTED),
        (4, [9], KEPT),
        (4, [0, 1], ACTIVATED),
        (4, [0, 15], ACTIVATED),
        (1, [1], KEPT),
        (1, [0, 1], ACTIVATED),
        (8, [3], KEPT),
        (8, [100, 120], ACTIVATED),
        (8, [3, 200], KEPT),
    ],
)
def test_two_young_ptes_that_look_around_sees_together_activate_a_folio_up_to_6_13(
    two_step: bool, order: int, young: list[int], expected: str
) -> None:
    """What eviction makes of the folio that comes first: not how many PTEs are young matters, but the mark that up to
    6.13 look-around at one leaves on it when it meets another.
    """
    expected = KEPT if two_step and young else expected
    mm = aged(order, two_step)
    victim = int(mm.lru_prev[len(mm.pte) + 2 * (int(mm.folio[0] & GEN_MASK) - 1)])
    mm.pte[[victim + k for k in young]] |= ACCESSED
    examined, demoted = _evict(mm.address, 0, 0, 1 << 20, 1)
    assert (examined, demoted) == (1, 1 << order if expected == DEMOTED else 0)
    assert fate(mm, victim) == expected and not (mm.pte & ACCESSED).any()
    assert mm.stat[[PGDEMOTE_KSWAPD, DEMOTE_FOLIOS]].tolist() == [demoted, demoted >> order]
    check_memory(mm)


@pytest.mark.parametrize("two_step", [False, True])
def test_a_neighbour_with_two_young_ptes_is_observed_once(two_step: bool) -> None:
    """Look-around reads both in one go: from 6.14 that is a mark, up to 6.13 the youngest generation."""
    mm = aged(3, two_step)
    mm.pte[[1, 8, 15, 20]] |= ACCESSED
    _evict(mm.address, 0, 0, 1 << 20, 1)
    assert not (mm.pte & ACCESSED).any()
    oldest = int(mm.folio[24] & GEN_MASK)
    for head in (8, 16):
        moved = (mm.folio[head] & GEN_MASK) != oldest
        assert moved != two_step and bool(mm.folio[head] & REFERENCED) == two_step
    check_memory(mm)


@pytest.mark.parametrize(("young", "marked", "kept", "active"), [
    (0, False, False, False), (1, False, True, False), (1, True, True, True), (2, False, True, False),
    (2, True, True, True),
])  # fmt: skip
def test_the_classic_lru_activates_at_the_second_look_however_many_ptes_are_young(
    young: int, marked: bool, kept: bool, active: bool
) -> None:
    mm = old_memory([(64, 0, False, 4)], node=0)
    mm.setting[LRU_GEN_LACKS] = LRU_GEN_CORE
    mm.folio[16] = INACTIVE_LIST + 1 | (REFERENCED if marked else 0)
    mm.pte[[16, 30][:young]] |= ACCESSED
    mm.pte[3] |= ACCESSED
    assert bool(_check(mm.address, 16, 0, 0, True)) == kept
    assert bool(mm.folio[16] & ACTIVE) == active and bool(mm.folio[16] & REFERENCED) == kept
    assert np.flatnonzero(mm.pte & ACCESSED).tolist() == [3]
