"""kmmscand's two threads: what is promoted and when, cursors and times; whole runs."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Neighbours, Quarter, kv, machine, run

from klrubench.engine.bits import ACCESSED, GEN_MASK, NODE_MASK
from klrubench.mm.kscand import (
    Kscand,
    promote_listed,
)
from klrubench.mm.lru import ACTIVE_LIST
from klrubench.mm.state import (
    FREE,
    LRU_GEN_LACKS,
    MAX_SEQ,
    PGPROMOTE_SUCCESS,
    PROMOTE_REFUSED,
    WINDOW,
    WMARK_HIGH,
    Mm,
    new_mm,
)
from klrubench.simulate.placement import allocate
from klrubench.simulate.result import check_memory


# --- the migrating thread ---------------------------------------------------------------------------------------------
def placed(lower: int = 2000, top: int = 1 << 12) -> Mm:
    """That many pages on the lower tier, in four generations."""
    mm = new_mm([(lower, 0, False, 0)], [top, 1 << 14], [0, 1], 1, 64)
    mm.setting[WINDOW] = -1
    for k, part in enumerate(np.array_split(np.arange(lower), 4)):
        mm.lru[1, MAX_SEQ] = 3 + k
        assert allocate(mm.address, part, np.array([1])) == 0
    mm.lru[:, MAX_SEQ + 1 : MAX_SEQ + 3] = 3
    return mm


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 300), room=st.integers(0, 400), classic=st.booleans())
def test_only_pages_of_the_two_youngest_generations_go_up_while_the_gate_lets_them(
    seed: int, n: int, room: int, classic: bool
) -> None:
    """Against a walk through the list with a count of the free pages; classic: the active list."""
    mm, rng = placed(), np.random.default_rng(seed)
    mm.setting[LRU_GEN_LACKS] = 7 if classic else 0
    mm.node[0, WMARK_HIGH] = mm.node[0, FREE] - room
    pages = rng.integers(0, 2000, n).astype(np.uint32)
    top, young, free, moved, refused = int(mm.lru[1, MAX_SEQ]), set(), room, [], 0
    for page in range(2000):
        generation = int(mm.folio[page] & GEN_MASK) - 1
        if generation == ACTIVE_LIST if classic else generation in (top % 4, (top - 1) % 4):
            young.add(page)
    for page in pages.tolist():
        if page in young and page not in moved:
            if free > 0:
                moved.append(page)
                free -= 1
            else:
                refused += 1
    price = np.array([0, 0, 1], np.int64)
    assert promote_listed(mm, pages, 0, 1, price) == (n, len(moved), len(moved), refused)
    assert set(np.flatnonzero((mm.pte[:2000] & NODE_MASK) == 0).tolist()) == set(moved)
    assert (mm.stat[PGPROMOTE_SUCCESS], mm.stat[PROMOTE_REFUSED]) == (len(moved), refused)


def test_a_slice_ends_with_its_time_and_pays_for_tries_and_moves() -> None:
    """10 ps a try, 90 a move, slices of 1000: ten hot pages each; old pages cost their try alone."""
    mm = placed()
    hot, old = np.arange(1990, 1960, -1).astype(np.uint32), np.arange(150, dtype=np.uint32)
    price = np.array([10, 90, 1000], np.int64)
    assert promote_listed(mm, hot, 0, 1, price) == (10, 10, 10, 0)
    assert promote_listed(mm, hot[10:], 0, 1, price) == (10, 10, 10, 0)
    assert promote_listed(mm, old, 0, 1, price) == (100, 0, 0, 0)
    check_memory(mm)


# --- the two threads --------------------------------------------------------------------------------------------------
class FakeSystem:
    """What the threads ask of a run; time is set by hand."""

    fold, default_target, now_ms = 1, 0, 0.0

    def __init__(self, mm: Mm, tenants: int) -> None:
        self.mm, self.threads, self.visited = mm, {}, 0
        self.tenants = [
            SimpleNamespace(index=k, first_page=int(mm.vma[mm.vma[:, 2] == k][0, 0])) for k in range(tenants)
        ]

    def sysctl(self, name: str) -> int:
        assert name == "numa_balancing/scan_delay_ms"
        return 1000

    def cost_ps(self, _name: str) -> int:
        return 1000

    def scaled(self, n: int, _name: str) -> int:
        return n

    def daemon(self, name: str, run: Any, phase_ms: float) -> None:
        assert phase_ms == 20
        self.threads[name] = run(self)

    def sleep_ms(self, ms: float) -> str:
        return f"sleep {ms:g}"

    def charge(self, **counts: int) -> None:
        self.visited += counts.get("kscand_pte", 0)

    def charge_full(self, **_: int) -> None:
        pass

    def charge_moves(self, *_: Any) -> None:
        pass

    def flush_tlb(self, *_: Any) -> None:
        pass

    def cycle(self, name: str, now_ms: float) -> None:
        self.now_ms = now_ms
        while next(self.threads[name]) != "sleep 20":
            pass


def attached(pages: int = 600_000, **values: Any) -> tuple[Kscand, FakeSystem]:
    """Two tenants, the first with more than a scan size of memory on the lower tier, all young."""
    mm = new_mm([(pages, 0, False, 0), (2000, 1, False, 0)], [1 << 16, 1 << 20], [0, 1], 2, 64)
    mm.setting[WINDOW] = -1
    for start, end, *_ in mm.vma.tolist():
        assert allocate(mm.address, np.arange(start, end), np.array([1])) == 0
    kscand, system = Kscand(**values), FakeSystem(mm, 2)
    kscand.attach(system)  # type: ignore[arg-type]
    return kscand, system


def test_scans_start_after_the_delay_go_on_where_the_last_one_ended_and_come_again_at_their_time() -> None:
    """600,000 pages in sizes of 1024 MiB = 262,144 pages, then 4096 MiB: all are visited by two scans."""
    kscand, system = attached()
    first, second = kscand.slots
    system.cycle("kscand", 999)
    assert kscand.scans == 0
    system.cycle("kscand", 1000)
    assert kscand.scans == 2 and first.cursor == 262_144 and system.visited == 262_144 + 2000
    assert (first.period_ms, first.size_mib, first.next_ms) == (600, 4096, 1600)
    system.cycle("kscand", 1599)
    assert kscand.scans == 2
    system.cycle("kscand", 1600)
    assert first.cursor == first.tenant.first_page and system.visited == 600_000 + 2 * 2000
    assert not first.listed and not second.listed  # each page was seen young once


def test_listed_pages_are_all_tried_in_order_and_promoted_to_the_fullest_top_node() -> None:
    kscand, system = attached(pages=4000)
    for now in (1000, 1600):
        system.mm.pte[100:400] |= ACCESSED
        system.cycle("kscand", now)
    assert [part.tolist() for part in kscand.slots[0].listed] == [list(range(100, 400))]
    system.cycle("kmigrated", 1620)
    assert not kscand.slots[0].listed and kscand.tried == 300 and kscand.failed == 0
    assert np.flatnonzero((system.mm.pte[:4000] & NODE_MASK) == 0).tolist() == list(range(100, 400))
    check_memory(system.mm)
    assert kscand.bound() == {"kscand refused": 0.0} and kscand.metadata_bytes == 300 * 32


def test_as_posted_a_scan_covers_everything_and_the_next_one_nothing() -> None:
    _, system = attached(variant="as_posted")
    visited = []
    for now in (1000, 6000, 11_000):
        before = system.visited
        system.cycle("kscand", now)
        visited.append(system.visited - before)
    assert visited == [602_000, 0, 602_000]


# --- whole runs -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", ["clean", "as_posted"])
def test_the_chunk_is_never_visible(variant: str) -> None:
    values = {"variant": variant, "period_ms": 600}
    for workload in (kv(footprint_gib=0.125, placement="lower"), Neighbours(footprint_gib=0.125, placement="lower")):
        results = [
            run("kmmscand", workload, duration_s=4, fold=4, chunk=chunk, values=values)
            for chunk in (1, 7, 4096, 65_536)
        ]
        assert len({json.dumps(result.to_dict(), sort_keys=True) for result in results}) == 1
        assert results[0].metrics["promoted_pages"] > 0


@pytest.mark.parametrize("variant", ["clean", "as_posted"])
def test_a_hot_set_in_slow_memory_is_promoted(variant: str) -> None:
    """A quarter of memory takes all touches: the clean variant moves only it.

    As posted, pages that were young when the program started go up too.
    """
    hot = Quarter(footprint_gib=0.25, rate=20.0, placement="lower")
    still = run("all_lower", hot, where=machine((1, 1)), duration_s=10).metrics
    moved = run("kmmscand", hot, where=machine((1, 1)), duration_s=10, values={"variant": variant}).metrics
    assert moved["promoted_pages"] > 0.9 * moved["pages"] / 4
    if variant == "clean":
        assert moved["promoted_pages"] <= moved["pages"] / 4
    assert moved["dram_hit_share"] > 0.5 and moved["time_s"] < still["time_s"]


def test_huge_pages_move_whole_and_every_touch_is_counted() -> None:
    """Frames, lists and residents are checked by the run itself."""
    huge = kv(footprint_gib=0.25, placement="lower", page="2m")
    result = run("kmmscand", huge, duration_s=5, fold=4, values={}).metrics
    assert result["misses"] + result["cached"] == result["accesses"]
    assert result["promoted_pages"] > 0
    assert result["promoted_pages"] % (512 * 4) == 0 and result["demoted_pages"] % (512 * 4) == 0
