"""kmmscand: the scan against its plain-Python twin, periods and sizes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from folios import make_whole
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench.engine.bits import ACCESSED, GEN_MASK, IDLE, NODE_MASK, REFERENCED, TRAP, WORKINGSET, YOUNG
from klrubench.mm.folio import heads
from klrubench.mm.kscand import (
    PERIOD_LEAST_MS,
    PERIOD_MOST_MS,
    SIZE_LEAST_MIB,
    SIZE_MOST_MIB,
    MmSlot,
    scan_ptes,
)
from klrubench.mm.state import (
    Mm,
    new_mm,
)

BOUNDS = (PERIOD_LEAST_MS, PERIOD_MOST_MS, SIZE_LEAST_MIB, SIZE_MOST_MIB)
Vmas = list[tuple[int, int, bool, int]]


def random_mm(rng: np.random.Generator, vmas: Vmas, young: float) -> Mm:
    """Any mix of nodes, accessed bits and folio flags, isolated folios among them."""
    mm = new_mm(vmas, [1 << 20] * 3, [0, 1, 1], 2, 64)
    n = len(mm.pte)
    mm.pte[:] = rng.integers(0, 3, n) | np.where(rng.random(n) < young, ACCESSED, 0) | rng.choice([0, TRAP], n)
    mm.folio[:] = rng.integers(0, 5, n)
    for flag, share in ((IDLE, 0.7), (YOUNG, 0.2), (REFERENCED, 0.1), (WORKINGSET, 0.5)):
        mm.folio[:] |= np.where(rng.random(n) < share, flag, 0).astype(np.uint8)
    make_whole(mm)
    return mm


class SlowScan:
    """The same memory as Python lists."""

    def __init__(self, mm: Mm, wanted: int, posted: bool) -> None:
        self.pte, self.folio, self.vmas = mm.pte.tolist(), mm.folio.tolist(), mm.vma.tolist()
        self.sighted, self.wanted, self.posted = [0] * len(self.pte), wanted, posted
        self.scanned, self.found = [0] * 3, [0] * 3

    def scan(self, memcg: int, first: int, budget: int) -> tuple[int, int, list[int]]:
        """Every page of the memcg's VMAs from `first`, in address order, while the budget lasts."""
        visited, listed, last = 0, [], -1
        for start, end, owner, _file, order, _space, leaf in self.vmas:
            for page in range(start, end):
                if owner != memcg or page < first:
                    continue
                if budget <= 0:
                    return page, visited, listed
                budget -= 1 << leaf
                visited += 1
                head = page if leaf else page >> order << order
                if self.visit(page, head) and head != last:
                    listed.append(page)
                    last = head
        return -1, visited, listed

    def visit(self, page: int, head: int) -> bool:
        node = self.pte[page] & NODE_MASK
        self.scanned[node] += 1
        young = bool(self.pte[page] & ACCESSED)
        if young:
            self.pte[page] -= ACCESSED
            self.folio[head] |= YOUNG
        if self.posted and (self.folio[head] & (YOUNG | REFERENCED) or not self.folio[head] & IDLE):
            young = True
        self.folio[head] |= IDLE
        self.sighted[page] = self.sighted[page] + 1 if young else 0
        self.found[node] += young
        return young and self.sighted[page] >= self.wanted and node > 0 and bool(self.folio[head] & GEN_MASK)


VMAS: list[Vmas] = [
    [(700, 0, False, 0), (300, 1, False, 0), (520, 0, True, 0)],
    [(40, 0, False, 9), (600, 0, False, 0), (90, 1, True, 9)],
    [(512, 1, False, 0)],
    [(640, 0, False, 4), (100, 1, False, 0), (512, 0, True, 7), (48, 1, True, 3)],
]


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32), vmas=st.sampled_from(VMAS), memcg=st.integers(0, 1), posted=st.booleans(),
    wanted=st.integers(1, 4), budgets=st.lists(st.integers(0, 1500), min_size=1, max_size=6),
    young=st.sampled_from([0.0, 0.3, 0.9]),
)  # fmt: skip
def test_scans_in_a_row_are_the_twins(
    seed: int, vmas: Vmas, memcg: int, posted: bool, wanted: int, budgets: list[int], young: float
) -> None:
    """Cursor, visits, list, bits, sightings, sums by node, over scans of any budget with touches in between."""
    rng = np.random.default_rng(seed)
    mm = random_mm(rng, vmas, young)
    slow, sighted, cursor = SlowScan(mm, wanted, posted), np.zeros(len(mm.pte), np.uint8), 0
    nodes = np.zeros((3, 2), np.int64)
    for budget in budgets:
        out = np.empty(len(mm.pte), np.uint32)
        after, visited, listed = scan_ptes(mm, memcg, cursor, budget, sighted, wanted, posted, nodes, out)
        assert (after, visited, out[:listed].tolist()) == slow.scan(memcg, cursor, budget)
        assert mm.pte.tolist() == slow.pte and mm.folio.tolist() == slow.folio
        assert sighted.tolist() == slow.sighted
        assert nodes.T.tolist() == [slow.scanned, slow.found]
        cursor = max(0, after)
        for page in rng.integers(0, len(mm.pte), 200).tolist():
            mm.pte[page] |= ACCESSED
            slow.pte[page] |= ACCESSED


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32), vmas=st.sampled_from(VMAS), budget=st.integers(1, 900))
def test_a_pass_in_parts_visits_each_page_of_the_address_space_once_in_order(
    seed: int, vmas: Vmas, budget: int
) -> None:
    """However small the budget; other address spaces keep their bits."""
    mm = random_mm(np.random.default_rng(seed), vmas, 1.0)
    mm.pte[mm.pte & NODE_MASK == 0] |= 1
    mm.folio[:] |= 1
    before, owner = mm.pte.copy(), np.full(len(mm.pte), -1)
    for start, end, memcg, *_ in mm.vma.tolist():
        owner[start:end] = memcg
    seen, cursor, visits = [], 0, 0
    while cursor >= 0:
        out = np.empty(budget, np.uint32)
        cursor, visited, listed = scan_ptes(
            mm, 1, cursor, budget, np.zeros(len(mm.pte), np.uint8), 1, False, np.zeros((4, 2), np.int64), out
        )
        assert visited <= budget
        visits += visited
        seen += out[:listed].tolist()
    expected = np.flatnonzero((owner == 1) & (before & ACCESSED != 0) & (before & NODE_MASK > 0))
    assert heads(mm, np.array(seen)).tolist() == heads(mm, expected).tolist()  # a folio once a part at least
    assert visits == np.count_nonzero(owner == 1) and seen == sorted(set(seen) & set(expected.tolist()))
    assert not (mm.pte[owner == 1] & ACCESSED).any()
    assert (mm.pte[owner != 1] == before[owner != 1]).all()


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_a_slow_page_is_listed_from_its_nth_sighting_in_a_row(wanted: int) -> None:
    """A scan that finds it old starts again; one of the top tier or off the lists never is."""
    mm = new_mm([(512, 0, False, 0)], [1 << 12] * 2, [0, 1], 1, 64)
    mm.pte[:], mm.folio[:] = 1, 3
    mm.pte[5], mm.folio[6] = 0, 0
    sighted, touched = np.zeros(512, np.uint8), [1, 1, 1, 0, 1, 1, 1]
    listed = []
    for now in touched:
        mm.pte[4:7] |= ACCESSED * now
        out = np.empty(512, np.uint32)
        n = scan_ptes(mm, 0, 0, 512, sighted, wanted, False, np.zeros((2, 2), np.int64), out)[2]
        listed.append(out[:n].tolist())
    streak = [1, 2, 3, 0, 1, 2, 3]
    assert listed == [[4] if now and run >= wanted else [] for now, run in zip(touched, streak, strict=True)]


def test_sightings_do_not_wrap() -> None:
    mm = new_mm([(512, 0, False, 0)], [1 << 12] * 2, [0, 1], 1, 64)
    mm.pte[:], mm.folio[:] = 1, 3
    sighted, nodes, out = np.zeros(512, np.uint8), np.zeros((2, 2), np.int64), np.empty(512, np.uint32)
    for _ in range(260):
        mm.pte[7] |= ACCESSED
        n = scan_ptes(mm, 0, 0, 512, sighted, 2, False, nodes, out)[2]
    assert n == 1 and sighted[7] == 255


def test_as_posted_lists_a_page_touched_once_at_every_scan() -> None:
    """PG_young, set by the scan itself, stays; clean lists it once at most."""
    for posted, expected in ((True, [1] * 4), (False, [1, 0, 0, 0])):
        mm = new_mm([(512, 0, False, 0)], [1 << 12] * 2, [0, 1], 1, 64)
        mm.pte[:], mm.folio[:] = 1, 3 | IDLE
        mm.pte[9] |= ACCESSED
        sighted, nodes, out = np.zeros(512, np.uint8), np.zeros((2, 2), np.int64), np.empty(512, np.uint32)
        assert [scan_ptes(mm, 0, 0, 512, sighted, 1, posted, nodes, out)[2] for _ in range(4)] == expected


# --- period and size --------------------------------------------------------------------------------------------------
def slot(**values: Any) -> MmSlot:
    return MmSlot(
        SimpleNamespace(index=0, first_page=0), **{"period_ms": 2000, "size_mib": 1024, "next_ms": 0, **values}
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "useful", "period_ms", "size_mib"),
    [
        (0, 0, 2300, 512),  # nothing, again: a little longer, half the size
        (0, 255, 2300, 512),  # fewer than 256 are none
        (0, 256, 600, 4096),  # something new: an eighth (the least is 600), all it may
        (300, 300, 1700, 2048),  # still: a little shorter, twice the size
        (4096, 0, 1700, 2048),  # a sixteenth of the old ones still counts: 256
        (4080, 0, 5000, 1024),  # no more: eight times (the most is 5000)
        (300, 237, 5000, 1024),  # 18 + 237 = 255
        (300, 238, 1700, 2048),
    ],
)
def test_the_next_scan_follows_from_what_two_scans_found(
    before: int, useful: int, period_ms: int, size_mib: int
) -> None:
    one = slot(delta=before)
    one.tune(useful, 10_000.0, BOUNDS, True)
    assert (one.period_ms, one.size_mib, one.next_ms) == (period_ms, size_mib, 10_000 + period_ms)


@settings(deadline=None, max_examples=200)
@given(
    finds=st.lists(st.integers(0, 10_000), max_size=40), period_ms=st.integers(600, 5000),
    size_mib=st.integers(256, 4096), failed=st.integers(0, 100), backoff=st.booleans(),
)  # fmt: skip
def test_period_and_size_stay_within_bounds_and_failures_stretch_the_period(
    finds: list[int], period_ms: int, size_mib: int, failed: int, backoff: bool
) -> None:
    """Up to 11 times, a tenth of it for each tenth that failed; the stretched period is what the next scan starts from.

    The next one's bounds hold again.
    """
    one, now = slot(period_ms=period_ms, size_mib=size_mib, failed_percent=failed), 0.0
    for useful in finds:
        one.tune(useful, now, BOUNDS, backoff)
        stretch = 1 + failed // 10 if backoff else 1
        assert one.period_ms % stretch == 0
        assert PERIOD_LEAST_MS <= one.period_ms // stretch <= PERIOD_MOST_MS
        assert SIZE_LEAST_MIB <= one.size_mib <= SIZE_MOST_MIB
        assert one.next_ms == now + one.period_ms and (one.delta == 0 or one.delta >= 256)
        now = one.next_ms


def test_an_idle_program_is_scanned_at_the_longest_period_and_least_size_and_a_busy_one_the_other_way() -> None:
    idle, busy = slot(), slot()
    for _ in range(20):
        idle.tune(0, 0, BOUNDS, False)
        busy.tune(100_000, 0, BOUNDS, False)
    assert (idle.period_ms, idle.size_mib) == (5000, 256)
    assert (busy.period_ms, busy.size_mib) == (600, 4096)


@settings(deadline=None, max_examples=100)
@given(moves=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 700)), max_size=30))
def test_the_failure_ratio_fades_by_a_quarter_every_1024_migrations(moves: list[tuple[int, int]]) -> None:
    one, weighed, since, percent = slot(), [0, 0], [0, 0], 0
    for promoted, failed in moves:
        one.count(promoted, failed)
        since = [since[0] + promoted, since[1] + failed]
        if since[0] + since[1] >= 1024:
            weighed, since = [weighed[0] // 4 + since[0], weighed[1] // 4 + since[1]], [0, 0]
            percent = int(100 * weighed[1] / (weighed[0] + weighed[1]))
        assert one.failed_percent == percent
