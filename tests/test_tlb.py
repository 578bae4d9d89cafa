"""The TLB: the compiled loop against a plain-Python twin, and what accessed-bit readers see of pages that it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Watcher, kv, machine

from klrubench.engine.access import (
    AHEAD,
    CACHED,
    CLOCK,
    DEADLINE,
    N_CATEGORIES,
    OP_BINS,
    OUT_OF_WORDS,
    TENANT_WORDS,
    TOUCH,
    run_touches,
)
from klrubench.engine.access_tlb import run_touches_tlb
from klrubench.engine.bits import ACCESSED, DIRTY, ID_MASK, NODE_MASK, PMD_OLD, TRAP
from klrubench.engine.jit import cfunc, njit
from klrubench.engine.pointer import array_i64
from klrubench.engine.tlb import (
    BOTH,
    FIRST_PAGE,
    IN_TLB,
    MISSES,
    N_HEAD,
    NEXT_SWITCH_PS,
    PENDING,
    SET_MASK,
    SHOOT_ALL,
    SWITCH_PS,
    WAYS,
    drop,
    new_tlb,
)
from klrubench.errors import ParameterError, ScaleError
from klrubench.generate import Part, RangeStream
from klrubench.machine.sysctls import changed_sysctls, default_sysctls
from klrubench.mm.fault import SIGNATURE, no_fault
from klrubench.mm.migrate import move_many
from klrubench.mm.numa_scan import protect_range
from klrubench.mm.state import new_mm
from klrubench.mm.table import mm_at
from klrubench.simulate import Options, simulate
from klrubench.simulate.placement import allocate
from klrubench.simulate.system import System
from klrubench.study.plugins import find_policy, find_workload
from klrubench.workload import Layout, Stream, Workload

TABLES = 3
PAGES = 512 * TABLES
FOREVER = 1 << 62
NO_LOG = np.zeros((0, 2), np.int64)
STALL_PS = 700


class SlowTlb:
    """Sets as lists of (page, recently used) or None."""

    def __init__(self, sets: int, ways: int) -> None:
        self.sets: list[list[list[Any] | None]] = [[None] * ways for _ in range(sets)]
        self.misses = self.flushes = 0

    def where(self, page: int) -> list[list[Any] | None]:
        return self.sets[page % len(self.sets)]

    def holds(self, page: int) -> bool:
        return any(entry and entry[0] == page for entry in self.where(page))

    def use(self, page: int) -> bool:
        """Look up, fill if need be; True at a miss."""
        ways = self.where(page)
        mine = next((entry for entry in ways if entry and entry[0] == page), None)
        missed = mine is None
        if mine is None:
            self.misses += 1
            mine = [page, False]
            slots = [k for k, entry in enumerate(ways) if entry is None]
            slots += [k for k, entry in enumerate(ways) if entry is not None and not entry[1]]
            ways[slots[0] if slots else 0] = mine
        mine[1] = True
        if all(entry and entry[1] for entry in ways):
            for entry in ways:
                assert entry
                entry[1] = entry is mine
        return missed

    def drop(self, page: int) -> None:
        ways = self.where(page)
        ways[:] = [None if entry and entry[0] == page else entry for entry in ways]

    def empty(self) -> None:
        self.sets = [[None] * len(ways) for ways in self.sets]
        self.flushes += 1


@dataclass
class Case:
    """A stream, and what happens to the pages at some times: (clock, what, page)."""

    pte: np.ndarray
    words: np.ndarray
    cost: list[int]
    sets: int
    ways: int
    switch_ps: int
    events: list[tuple[int, str, int]]


@dataclass
class Outcome:
    """What is left behind."""

    pte: list[int]
    held: list[int]
    clock: int
    touches: int
    counts: list[int]
    misses: int
    young: list[int] = field(default_factory=list)


def make_case(seed: int, n: int, sets: int, ways: int, spread: int, traps: float, switch: bool, n_events: int) -> Case:
    rng = np.random.default_rng(seed)
    pte = (rng.integers(0, 4, PAGES) | rng.choice([0, ACCESSED], PAGES) | rng.choice([0, DIRTY], PAGES)).astype(
        np.uint8
    )
    pte |= (rng.random(PAGES) < traps).astype(np.uint8) * np.uint8(TRAP)
    pte |= np.repeat((rng.random(TABLES) < 0.5).astype(np.uint8) * np.uint8(PMD_OLD), 512)
    words = ((rng.random(n) ** 3 * spread).astype(np.uint32) * 37) % PAGES
    words |= (rng.random(n) < 0.2).astype(np.uint32) << np.uint32(30)
    words |= (rng.random(n) < 0.3).astype(np.uint32) << np.uint32(31)
    cost = [int(c) for c in rng.integers(1, 900, N_CATEGORIES)]
    span = int(n * np.mean(cost))
    kinds = ("walk", "table", "drop", "trap", "shoot")
    events = sorted(
        (int(rng.integers(0, span)), str(rng.choice(kinds)), int(rng.choice(words & np.uint32(ID_MASK))))
        for _ in range(n_events)
    )
    return Case(pte, words, cost, sets, ways, int(rng.integers(500, 60_000)) if switch else 0, events)


@cfunc(SIGNATURE)
def shooting_handler(context: Any, page: Any, now_ps: Any) -> Any:
    """Every third fault asks for a flush of the whole TLB, as a promotion of another page does."""
    c = array_i64(context, 2)
    c[0] += 1
    if c[0] % 3 == 0:
        array_i64(c[1], PENDING + 1)[PENDING] = 1
    return STALL_PS


def slow_run(case: Case) -> Outcome:
    """One touch at a time; the TLB knows nothing of the page bytes, which hold the architecture's bits only."""
    pte, tlb = [int(b) for b in case.pte], SlowTlb(case.sets, case.ways)
    clock, faults, counts, due, young = 0, 0, [0] * N_CATEGORIES, case.switch_ps, []
    events, pending = list(case.events), False
    for word in case.words.tolist():
        while events and clock >= events[0][0]:
            _, what, page = events.pop(0)
            first = page // 512 * 512
            if what == "walk":
                young.append(sum(1 for b in pte if b & ACCESSED))
                pte = [b & ~ACCESSED for b in pte]
            elif what == "table":
                pte[first : first + 512] = [b | PMD_OLD for b in pte[first : first + 512]]
            elif what == "shoot":
                pending = True
            else:
                tlb.drop(page)
                pte[page] |= TRAP if what == "trap" else 0
        if case.switch_ps and clock >= due:
            due = (clock // case.switch_ps + 1) * case.switch_ps
            tlb.empty()
        if pending:
            tlb.empty()
            pending = False
        page, write = word & ID_MASK, word >> 31
        if pte[page] & TRAP:
            faults += 1
            clock += STALL_PS
            if faults % 3 == 0:
                tlb.empty()
            pte[page] &= ~TRAP
            assert not tlb.holds(page)
        if tlb.use(page) or (write and not pte[page] & DIRTY):
            pte[page] |= ACCESSED | (DIRTY if write else 0)
            first = page // 512 * 512
            pte[first : first + 512] = [b & ~PMD_OLD for b in pte[first : first + 512]]
        kind = CACHED if (word >> 30) & 1 else (pte[page] & NODE_MASK) + 4 * write
        counts[kind] += 1
        clock += case.cost[kind]
    held = sorted(page for page in range(PAGES) if tlb.holds(page))
    return Outcome(pte, held, clock, len(case.words), counts, tlb.misses, young)


def apply(pte: np.ndarray, tlb: np.ndarray, what: str, page: int) -> list[int]:
    """The same events on the kernel's state."""
    young = []
    if what == "walk":
        young.append(int(np.count_nonzero(pte & ACCESSED)))
        pte &= np.uint8(0xFF ^ ACCESSED)
    elif what == "table":
        pte[page // 512 * 512 : page // 512 * 512 + 512] |= np.uint8(PMD_OLD)
    elif what == "shoot":
        tlb[PENDING] = 1
    else:
        if pte[page] & IN_TLB:
            drop(tlb, pte, page)
        pte[page] |= np.uint8(TRAP if what == "trap" else 0)
    return young


def fast_run(case: Case, chunks: np.random.Generator | None) -> Outcome:
    """The kernel, given the stream whole or in random chunks."""
    pte, tlb = case.pte.copy(), new_tlb(case.sets * case.ways, case.ways, False, 1, [0])[0]
    tlb[[SWITCH_PS, NEXT_SWITCH_PS]] = case.switch_ps
    words = np.concatenate([case.words, np.zeros(AHEAD, np.uint32)])
    tenant, counts, hist = (
        np.zeros(TENANT_WORDS, np.int64),
        np.zeros(N_CATEGORIES, np.int64),
        np.zeros(OP_BINS, np.int64),
    )
    context = np.array([0, tlb.ctypes.data], np.int64)
    events, at, young = list(case.events), 0, []
    while True:
        left = len(case.words) - at
        n = left if chunks is None else min(left, int(chunks.integers(1, 300)))
        served, reason = run_touches_tlb(
            pte, pte.view(np.uint64), words[at:], n, tenant, counts, np.array(case.cost, np.int64),
            events[0][0] if events else FOREVER, 8, hist, shooting_handler.address, context.ctypes.data, 0, NO_LOG, tlb,
        )  # fmt: skip
        at += served
        if at == len(case.words):
            break
        if reason == DEADLINE:
            young += apply(pte, tlb, *events.pop(0)[1:])
        else:
            assert reason == OUT_OF_WORDS
    assert sorted(valid_pages(tlb)) == np.flatnonzero(pte & IN_TLB).tolist()
    held = np.flatnonzero(pte & IN_TLB).tolist()
    bare = (pte & np.uint8(0xFF ^ BOTH)).tolist()
    return Outcome(bare, held, int(tenant[CLOCK]), int(tenant[TOUCH]), counts.tolist(), int(tlb[MISSES]), young)


def valid_pages(tlb: np.ndarray) -> list[int]:
    """Pages that the sets name."""
    ways = int(tlb[WAYS])
    rows = tlb[N_HEAD:].reshape(int(tlb[SET_MASK]) + 1, ways + 1)
    return [int(row[1 + way]) for row in rows for way in range(ways) if int(row[0]) >> (32 + way) & 1]


@settings(deadline=None, max_examples=120)
@given(
    seed=st.integers(0, 2**32), n=st.integers(1, 3000), sets=st.sampled_from([1, 2, 8]),
    ways=st.sampled_from([1, 2, 3, 12, 32]), spread=st.sampled_from([5, 60, 1500]),
    traps=st.sampled_from([0.0, 0.05, 0.9]), switch=st.booleans(), n_events=st.integers(0, 12),
)  # fmt: skip
def test_the_loop_equals_a_table_of_sets(
    seed: int, n: int, sets: int, ways: int, spread: int, traps: float, switch: bool, n_events: int
) -> None:
    """Page bytes, clock, counts, what the TLB holds and what walks find young; whole and in random chunks."""
    case = make_case(seed, n, sets, ways, spread, traps, switch, n_events)
    expected = slow_run(case)
    assert fast_run(case, None) == expected
    assert fast_run(case, np.random.default_rng(seed + 1)) == expected


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 3000), traps=st.sampled_from([0.0, 0.3]))
def test_a_tlb_that_is_always_empty_is_no_tlb(seed: int, n: int, traps: float) -> None:
    """Emptied before each touch it leaves what the other loop leaves: page bytes, state, counts, latencies."""
    case = make_case(seed, n, 4, 12, 200, traps, False, 0)
    words, left = np.concatenate([case.words, np.zeros(AHEAD, np.uint32)]), []
    for with_tlb in (False, True):
        pte, tenant = case.pte.copy(), np.zeros(TENANT_WORDS, np.int64)
        counts, hist, tlb = (
            np.zeros(N_CATEGORIES, np.int64),
            np.zeros(OP_BINS, np.int64),
            new_tlb(48, 12, True, 1, [0])[0],
        )
        tlb[[SWITCH_PS, NEXT_SWITCH_PS]] = 1
        last = (tlb,) if with_tlb else ()
        loop = run_touches_tlb if with_tlb else run_touches
        loop(
            pte, pte.view(np.uint64), words, n, tenant, counts, np.array(case.cost, np.int64), FOREVER, 8, hist,
            no_fault.address, 0, 0, NO_LOG, *last,
        )  # fmt: skip
        left.append(((pte & np.uint8(0xFF ^ BOTH)).tolist(), tenant.tolist(), counts.tolist(), hist.tolist()))
    assert left[0] == left[1]


# --- closed forms ---------------------------------------------------------------------------------
US_PS = 1_000_000
WALK_US = 2000


def young_at_walks(words: np.ndarray, tlb: np.ndarray, page: int, walks: int) -> list[bool]:
    """Touches 1 us apart, a walk each 2 ms that clears accessed bits and flushes nothing: was `page` young at each?"""
    pte = np.zeros(8192, np.uint8)
    words = np.concatenate([words, np.zeros(AHEAD, np.uint32)]).astype(np.uint32)
    tenant, counts, hist = (
        np.zeros(TENANT_WORDS, np.int64),
        np.zeros(N_CATEGORIES, np.int64),
        np.zeros(OP_BINS, np.int64),
    )
    seen, at = [], 0
    for walk in range(walks):
        served, _ = run_touches_tlb(
            pte, pte.view(np.uint64), words[at:], len(words) - AHEAD - at, tenant, counts,
            np.full(N_CATEGORIES, US_PS, np.int64), (walk + 1) * WALK_US * US_PS, 8, hist, no_fault.address, 0, 0,
            NO_LOG, tlb,
        )  # fmt: skip
        assert served == WALK_US
        at += served
        seen.append(bool(pte[page] & ACCESSED))
        pte &= np.uint8(0xFF ^ ACCESSED)
    return seen


def test_a_page_that_never_leaves_the_tlb_is_young_once() -> None:
    """Touched each microsecond, and never young again after the first walk."""
    words = np.full(10 * WALK_US, 7, np.uint32)
    tlb = new_tlb(1536, 12, True, 1, [0])[0]
    assert young_at_walks(words, tlb, 7, 10) == [True] + [False] * 9
    assert tlb[MISSES] == 1


def test_a_context_switch_that_flushes_makes_it_young_again() -> None:
    """Once a flush: as many misses as switches began."""
    words = np.full(10 * WALK_US, 7, np.uint32)
    tlb = new_tlb(1536, 12, True, 1, [0])[0]
    tlb[[SWITCH_PS, NEXT_SWITCH_PS]] = 1000 * US_PS
    assert young_at_walks(words, tlb, 7, 10) == [True] * 10
    assert tlb[MISSES] == 20


def test_a_working_set_that_fits_is_never_young_again() -> None:
    """As many pages as entries, whichever order: each misses once."""
    rng = np.random.default_rng(3)
    words = np.concatenate([np.arange(1536), rng.integers(0, 1536, 5 * WALK_US)])
    tlb = new_tlb(1536, 12, True, 1, [0])[0]
    assert young_at_walks(words, tlb, 99, 5)[1:] == [False] * 4
    assert tlb[MISSES] == 1536


def test_a_page_touched_rarely_beside_a_stream_larger_than_the_tlb_is_young_again() -> None:
    """4096 pages in turn through 768 entries, page 7 each 1900 touches: its set has 29 others in between."""
    words = np.arange(10 * WALK_US) % 4096 + 4096
    words[::1900] = 7
    assert young_at_walks(words, new_tlb(768, 12, True, 1, [0])[0], 7, 10) == [True] * 10


def test_a_page_touched_at_every_other_touch_stays_beside_any_stream() -> None:
    """Pseudo-LRU keeps what has been used since the set's bits were cleared."""
    words = np.arange(10 * WALK_US) // 2 % 4096 + 4096
    words[::2] = 7
    assert young_at_walks(words, new_tlb(1536, 12, True, 1, [0])[0], 7, 10) == [True] + [False] * 9


def test_a_stream_larger_than_the_tlb_misses_at_every_touch() -> None:
    """A cyclic sweep is the worst case of any LRU."""
    tlb = new_tlb(1536, 12, True, 1, [0])[0]
    young_at_walks(np.arange(10 * WALK_US) % 4096, tlb, 0, 10)
    assert tlb[MISSES] == 10 * WALK_US


# --- shootdowns -----------------------------------------------------------------------------------
@njit
def mark(address: Any, first: Any, last: Any) -> Any:
    """protect_range by address."""
    return protect_range(mm_at(address), first, last, 0, 0, -1)


def two_spaces(shoot_all: bool) -> Any:
    """Two address spaces of 1024 pages on the lower node, each TLB holding the first 24 pages of its own."""
    tlb = new_tlb(48, 12, shoot_all, 1, [0, 1024])
    mm = new_mm([(1024, 0, False, 0), (1024, 1, False, 0)], [4096, 4096], [0, 1], 2, 64, tlb=tlb)
    assert allocate(mm.address, np.arange(2048), np.array([1])) == 0
    return mm, tlb


def use(mm: Any, space: int, pages: range) -> None:
    first = space * 1024
    words = np.zeros(len(pages) + AHEAD, np.uint32)
    words[: len(pages)] = pages
    tenant, counts, hist = (
        np.zeros(TENANT_WORDS, np.int64),
        np.zeros(N_CATEGORIES, np.int64),
        np.zeros(OP_BINS, np.int64),
    )
    run_touches_tlb(
        mm.pte[first : first + 1024], mm.pte64[first // 8 : first // 8 + 128], words, len(pages), tenant, counts,
        np.ones(N_CATEGORIES, np.int64), FOREVER, 8, hist, no_fault.address, 0, first, NO_LOG, mm.tlb[space],
    )  # fmt: skip


@pytest.mark.parametrize("shoot_all", [False, True])
def test_marking_for_hint_faults_flushes_the_range_or_all(shoot_all: bool) -> None:
    """Of the address space that is marked only."""
    mm, tlb = two_spaces(shoot_all)
    use(mm, 0, range(24))
    use(mm, 1, range(24))
    assert mark(mm.address, 1024 + 4, 1024 + 8) == (4, 4)
    use(mm, 1, range(30, 31))  # a flush of all takes effect at the next touch
    assert np.flatnonzero(mm.pte & IN_TLB).tolist()[:24] == list(range(24))
    left = [1024 + page for page in range(24) if not 4 <= page < 8]
    assert np.flatnonzero(mm.pte & IN_TLB).tolist()[24:] == ([] if shoot_all else left) + [1024 + 30]
    assert tlb[0, PENDING] == 0


@pytest.mark.parametrize(("shoot_all", "trap", "misses"), [(False, False, 1), (True, False, 24), (True, True, 0)])
def test_migration_flushes_what_its_batch_flushes(shoot_all: bool, trap: bool, misses: int) -> None:
    """The page, or everything; nothing for a PTE that is PROT_NONE, which no TLB holds."""
    mm, tlb = two_spaces(shoot_all)
    use(mm, 0, range(24))
    before, moved = int(tlb[0, MISSES]), 900 if trap else 3
    mm.pte[900] |= np.uint8(TRAP)
    assert move_many(mm, np.array([moved]), 0, 1, True) == (1, 1)
    assert tlb[0, PENDING] == (shoot_all and not trap)
    use(mm, 0, range(24))
    assert tlb[0, MISSES] - before == misses
    assert mm.pte[moved] & NODE_MASK == 0
    assert (mm.tlb[:, FIRST_PAGE].tolist(), mm.tlb[:, SHOOT_ALL].tolist()) == ([0, 1024], [int(shoot_all)] * 2)


# --- whole runs -----------------------------------------------------------------------------------
def with_tlb(**settings: int) -> Any:
    """A machine whose TLB holds 1024 full-size pages, 8 ways."""
    return machine(sysctls={"tlb/entries": 1024, "tlb/ways": 8, **{f"tlb/{name}": n for name, n in settings.items()}})


class Hot(Workload):
    """99 % of the touches on `hot` pages, the rest on all of memory."""

    hot = 2

    def stream(self, layout: Layout) -> Stream:
        return RangeStream(layout, [Part(0.99, 0, self.hot), Part(0.01, 0, layout.pages)])


class OnLower(Watcher):
    """The watcher, all pages on the lower tier, where nothing moves."""

    place = "lower"


def young_of_hot(where: Any, page: str = "4k") -> list[int]:
    """Young pages among the two hot ones at each pass."""

    class Looking(OnLower):
        """Looks at the accessed bits of the hot pages just before each walk."""

        def scan(self, system: System) -> Iterator[Any]:
            for step in super().scan(system):
                yield step
                self.young = [*getattr(self, "young", []), int((system.mm.pte[:2] & ACCESSED != 0).sum())]

    policy = Looking()
    simulate(where, Hot(footprint_gib=0.25, rate=20.0, page=page), policy, 1, duration_s=4, fold=1)
    return policy.young


def bytes_of(policy: str, where: Any, **options: Any) -> str:
    result = simulate(where, kv(rate=5.0), find_policy(policy)(), 1, duration_s=3, fold=8, options=Options(**options))
    return json.dumps(result.to_dict(), sort_keys=True, default=float)


@pytest.mark.parametrize(
    ("where", "page", "young"),
    [(machine(), "4k", 2), (with_tlb(), "4k", 0), (with_tlb(), "2m", 0), (with_tlb(flush_on_switch=1), "4k", 2)],
    ids=["no TLB", "TLB", "TLB, 2 MiB leaves", "flushed by context switches"],
)
def test_hot_pages_are_young_at_one_pass_only(where: Any, page: str, young: int) -> None:
    """Two pages with nearly all touches never leave the TLB: young once, unless context switches flush."""
    passes = young_of_hot(where, page)
    assert passes[0] == 2 and set(passes[1:]) == {young}
    assert len(passes) > 4


@pytest.mark.parametrize("policy", ["klruscand", "numa_balancing"])
@pytest.mark.parametrize("settings", [{}, {"shoot_all": 0, "flush_on_switch": 1}])
def test_chunks_are_not_visible(policy: str, settings: dict[str, int]) -> None:
    """The same bytes with any chunk of stream; the conservation laws are checked in each run."""
    where = with_tlb(**settings)
    assert bytes_of(policy, where, chunk=997) == bytes_of(policy, where)


def test_settings_of_a_tlb_that_is_off_change_nothing() -> None:
    """`tlb/entries` 0: the bytes of a machine that knows of no TLB."""
    off = machine(sysctls={"tlb/ways": 4, "tlb/flush_on_switch": 1, "tlb/shoot_all": 0})
    assert bytes_of("klruscand", off) == bytes_of("klruscand", machine())


def test_a_scale_that_leaves_no_set_is_refused_by_name() -> None:
    """1024 entries in 128 sets of 8: at 1/128 one set, at 1/256 none."""
    assert new_tlb(1024, 8, True, 128, [0])[0, SET_MASK] == 0
    with pytest.raises(ScaleError, match=r"scale 1/256 leaves less than one set of tlb/entries .* use --scale 1/128"):
        new_tlb(1024, 8, True, 256, [0])
    with pytest.raises(ScaleError, match="tlb/entries"):
        simulate(with_tlb(), find_workload("kv")(), find_policy("first_touch")(), 1, duration_s=1, fold=256)


@pytest.mark.parametrize(("entries", "ways", "near"), [(1024, 12, 768), (1537, 12, 1536), (5, 12, 12), (1536, 8, 2048)])
def test_sets_that_are_no_power_of_two_are_refused_with_one_that_is(entries: int, ways: int, near: int) -> None:
    """What is offered is legal."""
    with pytest.raises(ParameterError, match=rf"tlb/entries={entries} .*give tlb/entries={near},"):
        changed_sysctls(default_sysctls(), {"tlb/entries": entries, "tlb/ways": ways})
    assert changed_sysctls(default_sysctls(), {"entries": near, "ways": ways})["tlb/entries"] == near
