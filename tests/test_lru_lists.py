"""MGLRU lists, frames and migration in any order: no page is lost, every counter says what the lists hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from folios import folios_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from klrubench.engine.bits import ACCESSED, ACTIVE, GEN_MASK, IDLE, NODE_MASK, PMD_OLD, REFERENCED, WORKINGSET, YOUNG
from klrubench.errors import ConservationError
from klrubench.mm.folio import folio_ptes
from klrubench.mm.lru import folio_seq, folio_update_gen, lru_add, lru_isolate
from klrubench.mm.mglru.aging import should_run_aging, try_to_inc_max_seq, try_to_inc_min_seq
from klrubench.mm.mglru.mm_list import next_mm
from klrubench.mm.mglru.walk import AGAIN_FULL, DONE, N_WALK, NEXT, REPORTED, SEQ, walk_mm
from klrubench.mm.migrate import demote_isolated, promote
from klrubench.mm.page_idle import check_idle, set_idle
from klrubench.mm.state import (
    DEMOTION_TARGET,
    FIRST_FRAME,
    FIRST_HUGE,
    FREE,
    HUGE_TOP,
    MAX_NR_GENS,
    MAX_SEQ,
    MIN_SEQ_ANON,
    MM_RAN,
    NO_MM,
    NR_PAGES,
    PGDEMOTE_KSWAPD,
    PGPROMOTE_SUCCESS,
    STACK_TOP,
    TIER,
    TWO_STEP,
    VMA_FILE,
    VMA_LEAF_ORDER,
    VMA_MEMCG,
    VMA_ORDER,
    WINDOW,
    WMARK_HIGH,
    Mm,
    new_mm,
)  # fmt: skip
from klrubench.mm.vmscan import balance_slice, evict_folios
from klrubench.simulate.placement import allocate
from klrubench.simulate.result import check_memory

MEMCGS, NODES = 2, 3
VMAS = [
    (300, 0, False, 0), (5, 0, True, 9), (200, 1, True, 0), (100, 1, False, 0), (96, 1, False, 3), (512, 0, True, 8),
]  # fmt: skip
CAPACITY = [2000, 2200, 2400]


def small_memory(two_step: bool) -> Mm:
    """Two memcgs, anonymous and file pages, folios of 4 KiB, 32 KiB, 1 MiB and 2 MiB, three tiers."""
    mm = new_mm(VMAS, CAPACITY, [0, 1, 2], MEMCGS, 64)
    mm.setting[[TWO_STEP, WINDOW]] = two_step, -1
    mm.node[:, DEMOTION_TARGET] = 1, 2, -1
    mm.node[:, WMARK_HIGH] = 20
    mm.mms[:, MM_RAN:] = 1
    return mm


def pages_of(mm: Mm) -> np.ndarray:
    return np.concatenate([np.arange(row[0], row[1]) for row in mm.vma])


def list_members(mm: Mm, head: int) -> list[int]:
    """A list forwards; it must read the same backwards."""
    forward, backward = [], []
    page = int(mm.lru_next[head])
    while page != head:
        forward.append(page)
        page = int(mm.lru_next[page])
    page = int(mm.lru_prev[head])
    while page != head:
        backward.append(page)
        page = int(mm.lru_prev[page])
    assert forward == backward[::-1]
    return forward


def check_lists(mm: Mm) -> None:
    """Every folio on one list of its lruvec and type, inside [min_seq, max_seq]; its flag may be ahead of its list."""
    seen: list[int] = []
    for lruvec in range(len(mm.lru)):
        for file in range(2):
            low, top = int(mm.lru[lruvec, MIN_SEQ_ANON + file]), int(mm.lru[lruvec, MAX_SEQ])
            assert 1 <= top - low <= 3
            alive = {seq % MAX_NR_GENS for seq in range(low, top + 1)}
            for generation in range(MAX_NR_GENS):
                for page in list_members(mm, len(mm.pte) + (lruvec * MAX_NR_GENS + generation) * 2 + file):
                    row = mm.vma[mm.block_vma[page >> 9]]
                    assert generation in alive and (mm.folio[page] & GEN_MASK) - 1 in alive
                    assert row[VMA_FILE] == file and row[VMA_MEMCG] * NODES + (mm.pte[page] & NODE_MASK) == lruvec
                    seen.append(page)
    assert sorted(seen) == folios_of(mm).tolist()


def check_frames(mm: Mm) -> None:
    """Free frames and used ones together are all frames, each once; each node has room for no less than nothing."""
    assert (mm.node[:, FREE] >= 0).all()
    for node in range(NODES):
        for first, top, order in ((FIRST_FRAME, STACK_TOP, 0), (FIRST_HUGE, HUGE_TOP, 9)):
            start, free = int(mm.node[node, first]), int(mm.node[node, top])
            stack = mm.frame_stack[start : start + free].tolist()
            size = CAPACITY[node] >> order
            mine = [
                p
                for p in pages_of(mm)
                if (mm.pte[p] & NODE_MASK) == node and mm.vma[mm.block_vma[p >> 9], VMA_LEAF_ORDER] == order
            ]
            assert sorted(stack + mm.pfn[mine].tolist()) == list(range(start, start + size))


class LruMachine(RuleBasedStateMachine):
    """Placement, then everything that the kernel does to lists, in any order."""

    pages = st.lists(st.integers(0, 1212), min_size=1, max_size=40)
    folios = st.lists(st.integers(0, 618), min_size=1, max_size=40)
    where = st.tuples(st.integers(0, MEMCGS - 1), st.integers(0, NODES - 1))

    @initialize(two_step=st.booleans(), seed=st.integers(0, 99), first=st.permutations(range(NODES)))
    def place(self, two_step: bool, seed: int, first: list[int]) -> None:
        self.mm = small_memory(two_step)
        self.ids, self.heads = pages_of(self.mm), folios_of(self.mm)
        assert allocate(self.mm.address, np.random.default_rng(seed).permutation(self.ids), np.array(first)) == 0
        self.walk = np.zeros(N_WALK, np.int64)

    def top_resident(self) -> int:
        top = 0
        for start, end, _, _, _, _, leaf in self.mm.vma.tolist():
            top += int(np.count_nonzero((self.mm.pte[start:end] & NODE_MASK) == 0)) << leaf
        return top

    @rule(pages=pages)
    def touch(self, pages: list[int]) -> None:
        for page in self.ids[pages]:
            self.mm.pte[page] |= ACCESSED
            self.mm.pte[page >> 9 << 9 : ((page >> 9) + 1) << 9] &= 0xFF ^ PMD_OLD
        self.mm.mms[:, MM_RAN:] = 1

    @rule(folios=folios, reclaiming=st.booleans(), rotated=st.booleans())
    def isolate_and_put_back(self, folios: list[int], reclaiming: bool, rotated: bool) -> None:
        for page in self.heads[folios]:
            assert lru_isolate(self.mm, page, reclaiming)
            assert not lru_isolate(self.mm, page, reclaiming)
            lru_add(self.mm, page, rotated)

    @rule(pages=pages)
    def promote_some(self, pages: list[int]) -> None:
        before, count = self.top_resident(), int(self.mm.stat[PGPROMOTE_SUCCESS])
        for page in self.ids[pages]:
            if self.mm.node[self.mm.pte[page] & NODE_MASK, TIER] > 0:
                free = int(self.mm.node[0, FREE])
                moved = promote(self.mm, page, 0, 1)
                size = 1 << int(self.mm.vma[self.mm.block_vma[page >> 9], VMA_ORDER])
                assert moved == size or (moved == 0 and free < 20 + size)
        assert self.top_resident() - before == self.mm.stat[PGPROMOTE_SUCCESS] - count

    @rule(folios=folios)
    def demote_some(self, folios: list[int]) -> None:
        for page in self.heads[folios]:
            target = int(self.mm.node[self.mm.pte[page] & NODE_MASK, DEMOTION_TARGET])
            if target >= 0:
                lru_isolate(self.mm, page, True)
                demote_isolated(self.mm, page, target, 1)

    @rule(where=where, force=st.booleans())
    def age(self, where: tuple[int, int], force: bool) -> None:
        lruvec = where[0] * NODES + where[1]
        before = int(self.mm.lru[lruvec, MAX_SEQ])
        done = try_to_inc_max_seq(self.mm, lruvec, where[0], where[1], force, self.walk)
        assert self.mm.lru[lruvec, MAX_SEQ] == before + done

    @rule(where=where, batch=st.sampled_from([3, 64, 1000]))
    def klruscand(self, where: tuple[int, int], batch: int) -> None:
        mm, lruvec = self.mm, where[0] * NODES + where[1]
        self.walk[:] = 0
        self.walk[SEQ] = mm.lru[lruvec, MAX_SEQ]
        out = np.empty(batch, np.uint32)
        while (space := next_mm(mm, lruvec, where[0], where[1], self.walk)) != NO_MM:
            self.walk[NEXT], reason = 0, AGAIN_FULL
            while reason != DONE:
                self.walk[REPORTED] = 0
                reason = walk_mm(mm, self.walk, space, lruvec, where[1], out)
                for page in out[: self.walk[REPORTED]]:
                    assert mm.pte[page] & (ACCESSED | NODE_MASK) == where[1]

    @rule(where=where, wanted=st.integers(1, 80), examine=st.integers(1, 80))
    def evict(self, where: tuple[int, int], wanted: int, examine: int) -> None:
        lruvec = where[0] * NODES + where[1]
        try_to_inc_min_seq(self.mm, lruvec)
        if self.mm.node[where[1], DEMOTION_TARGET] >= 0:
            count = int(self.mm.stat[PGDEMOTE_KSWAPD])
            examined, demoted = evict_folios(self.mm, lruvec, where[1], wanted, examine, 1)
            assert 0 <= examined <= examine and demoted == self.mm.stat[PGDEMOTE_KSWAPD] - count

    @rule(node=st.integers(0, 1), more=st.integers(1, 700))
    def kswapd(self, node: int, more: int) -> None:
        mm, progress = self.mm, np.array([12, 0, 0, 0], np.int64)
        target = int(mm.node[node, FREE]) + more
        for _ in range(3000):  # each round demotes a page or lowers the priority
            balance_slice(mm, node, MEMCGS, target, np.array([10, 100, 5000]), 64, 1, self.walk, progress)
            if progress[0] < 1 or mm.node[node, FREE] >= target:
                return
        raise AssertionError("kswapd does not come to an end")

    @rule(folios=folios, last=st.booleans())
    def track_idle(self, folios: list[int], last: bool) -> None:
        """A touch of any page of a folio, here its first or last, ends its being idle."""
        chosen = np.unique(self.heads[folios])
        ptes = np.array([int(folio_ptes(self.mm, page)) for page in chosen])
        assert set_idle(self.mm, chosen) == len(chosen)
        assert all(not (self.mm.pte[k : k + n] & ACCESSED).any() for k, n in zip(chosen, ptes, strict=True))
        assert (self.mm.folio[chosen] & IDLE).all()
        self.mm.pte[(chosen + (ptes - 1) * last)[::2]] |= ACCESSED
        out = np.empty(len(chosen), np.uint32)
        checked, touched = check_idle(self.mm, chosen, out)
        lower = chosen[::2][self.mm.node[self.mm.pte[chosen[::2]] & NODE_MASK, TIER] > 0]
        assert checked == len(chosen) and out[:touched].tolist() == lower.tolist()
        assert (self.mm.folio[chosen[::2]] & (IDLE | YOUNG) == YOUNG).all()

    @invariant()
    def laws(self) -> None:
        check_memory(self.mm)
        check_lists(self.mm)
        check_frames(self.mm)


TestLruMachine: Any = LruMachine.TestCase
TestLruMachine.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)


@pytest.mark.parametrize("two_step", [False, True])
def test_where_a_folio_lands(two_step: bool) -> None:
    """max_seq 3, min_seq 0: lru_gen_add_folio up to 6.13, lru_gen_folio_seq from 6.14."""
    mm = small_memory(two_step)
    both = ACTIVE | WORKINGSET
    landings = [
        (0, 0, False), (0, ACTIVE, False), (0, both, False), (1, 0, False), (1, WORKINGSET, False), (1, ACTIVE, False),
        (1, both, False), (1, 0, True), (0, 0, True),
    ]  # fmt: skip
    found = [int(folio_seq(mm, 0, file, np.uint8(flags), rotated)) for file, flags, rotated in landings]
    assert found == ([2, 2, 3, 0, 1, 2, 3, 0, 2] if two_step else [2, 3, 3, 1, 1, 3, 3, 0, 2])


@pytest.mark.parametrize(("two_step", "moved_at"), [(False, 1), (True, 2)])
def test_an_access_moves_a_folio_at_its_first_or_second_observation(two_step: bool, moved_at: int) -> None:
    """The generation follows at once in the counters, lazily on the lists."""
    mm = small_memory(two_step)
    allocate(mm.address, pages_of(mm), np.array([0, 1, 2]))
    mm.lru[0, MAX_SEQ] = 4
    mm.lru[0, [MIN_SEQ_ANON, MIN_SEQ_ANON + 1]] = 1
    moves = [int(folio_update_gen(mm, 7, 0)) for _ in range(4)]
    assert moves == [int(k + 1 == moved_at) for k in range(4)]
    assert mm.folio[7] & GEN_MASK == 1 and bool(mm.folio[7] & WORKINGSET) == two_step
    assert mm.lru[0, NR_PAGES + 0] == 1
    check_memory(mm)
    check_lists(mm)


def test_aging_carries_the_oldest_generation_and_forgets_what_was_seen_of_it() -> None:
    """Untouched folios keep their generation until it is one of four; then they move up and lose reference marks."""
    mm, walk = small_memory(True), np.zeros(N_WALK, np.int64)
    allocate(mm.address, pages_of(mm), np.array([0, 1, 2]))
    mm.pte[:] &= 0xFF ^ ACCESSED
    mm.folio[3] |= REFERENCED
    start = int(mm.folio[3] & GEN_MASK) - 1
    for step in range(1, 5):
        mm.mms[:, MM_RAN:] = 1
        assert try_to_inc_max_seq(mm, 0, 0, 0, 0, walk)
        carried = max(0, step - 2)  # they start at max_seq - 1 of four
        assert int(mm.folio[3] & GEN_MASK) - 1 == (start + carried) % MAX_NR_GENS
        assert bool(mm.folio[3] & REFERENCED) == (carried == 0)
        check_lists(mm)


def test_a_callback_walk_blocks_aging_for_good() -> None:
    """mm_state.seq runs ahead of max_seq, as observed: aging finds that its pass was already made."""
    mm, walk = small_memory(True), np.zeros(N_WALK, np.int64)
    allocate(mm.address, pages_of(mm), np.array([1, 2, 0]))
    assert try_to_inc_max_seq(mm, 1, 0, 1, 1, walk)
    while next_mm(mm, 1, 0, 1, walk) != NO_MM:
        pass
    assert [bool(try_to_inc_max_seq(mm, 1, 0, 1, force, walk)) for force in (0, 1, 1)] == [False] * 3
    assert try_to_inc_max_seq(mm, 2, 0, 2, 1, walk)


def test_reclaim_must_age_when_only_two_generations_hold_pages() -> None:
    mm, walk = small_memory(True), np.zeros(N_WALK, np.int64)
    allocate(mm.address, pages_of(mm), np.array([0, 1, 2]))
    try_to_inc_min_seq(mm, 0)
    assert should_run_aging(mm, 0)
    try_to_inc_max_seq(mm, 0, 0, 0, 0, walk)
    try_to_inc_min_seq(mm, 0)
    assert mm.lru[0, MAX_SEQ] - mm.lru[0, MIN_SEQ_ANON] >= 2


def test_a_broken_counter_is_found() -> None:
    """The checker itself: one page too many in a generation, a frame that names another page."""
    mm = small_memory(True)
    allocate(mm.address, pages_of(mm), np.array([0, 1, 2]))
    check_memory(mm)
    mm.lru[0, NR_PAGES + 4] += 1
    with pytest.raises(ConservationError, match="lruvec 0 generation 2"):
        check_memory(mm)
    mm.lru[0, NR_PAGES + 4] -= 1
    mm.frame_page[mm.pfn[5]] = 6
    with pytest.raises(ConservationError, match="frames that name their page"):
        check_memory(mm)
