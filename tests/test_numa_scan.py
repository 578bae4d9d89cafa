"""task_numa_work against a plain restatement, sweep after sweep; the scan period by its rule and its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench.engine.bits import NODE_MASK, TRAP
from klrubench.mm.numa_period import Faults, ScanPeriod, scan_bounds
from klrubench.mm.numa_scan import AREA_PIDS, BELOW, PLACE, SEQ, THREAD, new_areas, set_access_pid, task_numa_work
from klrubench.mm.state import Mm, new_mm

DELAY = 1000


@dataclass
class Area:
    """A mapping as the slow twin has it; addresses are ids, small mappings lie at places of their own."""

    first: float
    last: float
    order: int = 0
    small: bool = False
    state: dict[str, int] | None = None


class SlowScan:
    """task_numa_work a mapping, a range and a page at a time."""

    def __init__(self, mm: Mm, small: int, limits: dict[str, int]) -> None:
        self.mm, self.limits, self.seq, self.offset = mm, limits, 0, -1.0
        end = float(mm.vma[-1, 1])
        below = [Area(-1 + k / 100, -1 + (k + 1) / 100, small=True) for k in range(BELOW if small else 0)]
        above = [Area(end + k / 1e5, end + (k + 1) / 1e5, small=True) for k in range(small)]
        self.areas = [*below, *(Area(row[0], row[1], int(row[4])) for row in mm.vma.tolist()), *above]

    def from_offset(self) -> list[Area]:
        return [area for area in self.areas if area.last > self.offset]

    def scan(self, now: int, thread: int) -> tuple[int, int]:
        self.now, self.thread = now, thread
        self.updated = self.seen = 0
        self.budget, self.virtual = self.limits["budget"], self.limits["virtual"]
        if self.go(forced=False) == "passed over":
            self.go(forced=True)
        return self.updated, self.seen

    def go(self, forced: bool) -> str:
        todo, passed_over, start = self.from_offset(), False, self.offset
        if not todo:
            self.seq, self.offset, start = self.seq + 1, -1.0, -1.0
            todo = self.areas
        for area in todo:
            if self.limits["filter"]:
                verdict = self.verdict(area, forced)
                if verdict == "done":
                    self.offset = area.last
                passed_over |= verdict == "inactive"
                if verdict != "scan":
                    continue
            if not area.small and not self.mark(area, int(max(start, area.first))):
                return "out of budget"
            if area.state is not None:
                area.state["done"] = self.seq
            if forced:
                self.offset = area.last
                return "forced one"
        if passed_over and not forced:
            return "passed over"
        self.seq, self.offset = self.seq + 1, -1.0
        return "end"

    def verdict(self, area: Area, forced: bool) -> str:
        now, seq = self.now, self.seq
        if area.state is None:
            area.state = {
                "since": seq,
                "next": now + DELAY,
                "reset": now + 5 * DELAY,
                "done": seq - 1,
                "old": 0,
                "new": 0,
            }
        state = area.state
        if seq and now < state["next"]:
            return "too new"
        if seq and now > state["reset"]:
            state.update(reset=state["reset"] + 4 * DELAY, old=state["new"], new=0)
        if state["done"] == seq:
            return "done"
        active = (state["old"] | state["new"]) >> self.thread & 1 or (area.small and self.limits["small active"])
        begun = self.offset > area.first
        starved = seq > state["done"] + self.limits["threads"]
        return "scan" if forced or seq - state["since"] < 2 or active or begun or starved else "inactive"

    def mark(self, area: Area, here: int) -> bool:
        while here < area.last:
            stop = here
            while stop < area.last and (
                ((stop - here) << area.order) < max(self.budget, 1) or (area.order == 0 and stop % 512)
            ):
                stop += 1
            changed = sum(self.mark_page(page) for page in range(here, stop))
            self.seen += stop - here
            self.updated += changed
            pages = (stop - here) << area.order
            self.budget -= pages if changed else 0
            self.virtual -= pages
            here = stop
            if self.budget <= 0 or self.virtual <= 0:
                self.offset = float(here)
                return False
        return True

    def mark_page(self, page: int) -> bool:
        mm, node = self.mm, int(self.mm.pte[page] & NODE_MASK)
        lower, top = mm.node[node, 6] > 0, self.limits["top"]
        if mm.pte[page] & TRAP or node == self.limits["home"] or not (lower or top):
            return False
        mm.pte[page] |= TRAP
        if lower and top != 1:
            mm.scan_ms[page] = self.now
        return True

    def fault(self, area: Area, thread: int) -> None:
        if area.state is not None:
            area.state["new"] |= 1 << thread


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32), lower=st.sampled_from([0.0, 0.01, 0.5, 1.0]), budget=st.integers(1, 3000),
    factor=st.sampled_from([1, 8]), small=st.sampled_from([0, 1, 4]), threads=st.sampled_from([1, 3]),
    known=st.booleans(), mode=st.sampled_from([1, 2, 3]), pace=st.sampled_from([50, 3000]),
    vmas=st.lists(st.tuples(st.integers(1, 2500), st.booleans()), min_size=1, max_size=3),
)  # fmt: skip
def test_the_scan_equals_the_twin(
    seed: int, lower: float, budget: int, factor: int, small: int, threads: int, known: bool, mode: int, pace: int,
    vmas: list[tuple[int, bool]],
) -> None:  # fmt: skip
    """Scan after scan over mixed mappings, faults in between: marks, scan times, counts, sweeps."""
    rng = np.random.default_rng(seed)
    layout = [(pages // 40 + 1 if huge else pages, 0, False, 9 if huge else 0) for pages, huge in vmas]
    mine, other = (new_mm(layout, [1 << 20, 1 << 20, 1 << 20], [0, 1, 2], 1, 64) for _ in range(2))
    tables = np.repeat(rng.random(len(mine.pte) >> 9) < lower, 512)
    mine.pte[:] = np.where(tables, rng.integers(0, 3, len(mine.pte)), 0) | rng.choice(
        [0, TRAP], len(mine.pte), p=[0.9, 0.1]
    )
    other.pte[:] = mine.pte
    normal, home = bool(mode & 1), 0 if threads == 1 else -1
    top, active = (0 if not normal else mode), int(normal and threads > 1)
    top = {0: 0, 1: 1, 3: 2}[top]
    words = {
        "budget": budget,
        "virtual": factor * budget,
        "threads": threads,
        "filter": known,
        "top": top,
        "home": home,
    }
    twin = SlowScan(other, small, {**words, "small active": active})
    areas, (order,) = new_areas(mine.vma, [small])
    cursor, now = np.zeros(3, np.int64), 100
    limits = np.array([budget, factor * budget, DELAY, threads, 0, known, top, home, active], np.int64)
    for step in range(25):
        limits[THREAD] = step % threads
        assert tuple(task_numa_work(mine, areas, order, cursor, limits, now)) == twin.scan(now, step % threads)
        assert mine.pte.tobytes() == other.pte.tobytes() and mine.scan_ms.tobytes() == other.scan_ms.tobytes()
        assert cursor[SEQ] == twin.seq
        now += int(rng.integers(1, 2 * pace))
        for page in rng.integers(0, len(mine.pte), int(rng.choice([0, 0, 3, 300]))).tolist():
            served(mine, other, areas, twin, page, int(rng.integers(0, threads)))


def served(mine: Mm, other: Mm, areas: Any, twin: SlowScan, page: int, thread: int) -> None:
    """A hint fault of a thread on both sides, if the page is marked."""
    vma = int(mine.block_vma[page >> 9])
    if page >= mine.vma[vma, 1] or not mine.pte[page] & TRAP:
        return
    for mm in (mine, other):
        mm.pte[page] &= np.uint8(0xFF ^ TRAP)
    set_access_pid(areas[vma], thread)
    twin.fault(next(area for area in twin.areas if not area.small and area.first <= page < area.last), thread)


def test_a_scan_of_2_mib_pages_counts_bytes() -> None:
    """256 MiB of budget are 128 huge pages, not 65,536."""
    mm = new_mm([(1000, 0, False, 9)], [1 << 20, 1 << 20], [0, 1], 1, 64)
    mm.pte[:] = 1
    areas, (order,) = new_areas(mm.vma, [7])
    limits = np.array([1 << 16, 8 << 16, DELAY, 1, 0, 1, 0, -1, 0], np.int64)
    assert task_numa_work(mm, areas, order, np.zeros(3, np.int64), limits, 5) == (128, 128)


def test_each_tenant_has_its_own_mappings() -> None:
    """Two memcgs: a scan of the second marks its pages alone."""
    mm = new_mm([(1024, 0, False, 0), (1024, 1, False, 0)], [4096, 4096], [0, 1], 2, 64)
    mm.pte[:] = 1
    areas, order = new_areas(mm.vma, [4, 0])
    assert [len(each) for each in order] == [1 + 4 + BELOW, 1]
    limits = np.array([4096, 32_768, DELAY, 1, 0, 1, 0, -1, 0], np.int64)
    assert task_numa_work(mm, areas, order[1], np.zeros(3, np.int64), limits, 7) == (1024, 1024)
    assert not (mm.pte[:1024] & TRAP).any() and (mm.pte[1024:] & TRAP).all()


@pytest.mark.parametrize(("small", "known", "scans"), [(0, 1, 1), (4, 1, 5), (7, 1, 8), (7, 0, 2)])
def test_a_sweep_takes_a_scan_more_for_each_small_mapping_above(small: int, known: int, scans: int) -> None:
    """From the third sweep on, where the large mapping takes one scan; before Linux 6.7 they cost none of their own."""
    mm = new_mm([(4096, 0, False, 0)], [1 << 20, 1 << 20], [0, 1], 1, 64)
    mm.pte[:] = 1
    areas, (order,) = new_areas(mm.vma, [small])
    cursor = np.zeros(3, np.int64)
    limits = np.array([4096, 8 * 4096, DELAY, 1, 0, known, 0, -1, 0], np.int64)
    sweeps, marked_in = [], []
    for step in range(60):
        updated, _ = task_numa_work(mm, areas, order, cursor, limits, 2000 * step)
        sweeps.append(int(cursor[SEQ]))
        if updated:
            marked_in.append(step)
        mm.pte[:] &= np.uint8(0xFF ^ TRAP)
        areas[0, AREA_PIDS] |= 1
    assert set(np.diff(marked_in[3:]).tolist()) == {scans}
    assert cursor[PLACE] <= len(order) and sweeps == sorted(sweeps)


def test_bounds_of_the_scan_period() -> None:
    """A sweep takes 1 to 60 s, a scan no less than 100 ms (256 MiB each)."""
    assert scan_bounds(256, 256, 1000, 60_000) == (500, 30_000)
    assert scan_bounds(64 << 10, 256, 1000, 60_000) == (100, 233)
    assert scan_bounds(1 << 20, 256, 1000, 60_000) == (100, 100)
    assert scan_bounds(256, 16, 1000, 60_000) == (58, 3529)


@pytest.mark.parametrize(
    ("faults", "after"),
    [
        (Faults(), 2000),  # nothing accounted
        (Faults(remote=500, private=500), 2000),  # no local, no shared fault: memory tiering
        (Faults(remote=100, local=900, failed=1, private=1000), 2000),
        (Faults(local=1000, private=1000), 1300),  # ten tenths: three above seven
        (Faults(local=1000, private=790, shared=210), 1100),  # at least one slot
        (Faults(local=890, remote=110, private=300, shared=700), 1100),
        (Faults(local=950, remote=50, private=300, shared=700), 1200),
        (Faults(local=100, remote=900, private=300, shared=700), 600),  # three tenths: four below seven
        (Faults(remote=900, shared=900), 500),  # seven below, but not under the shortest
        (Faults(local=699, remote=301, private=600, shared=400), 900),
    ],
)  # fmt: skip
def test_a_sweep_s_faults_change_the_period(faults: Faults, after: int) -> None:
    period = ScanPeriod(500, 30_000, 1, 1000)
    doubled = period.update(faults)
    assert period.ms == after and doubled == (after == 2000)


def test_doubling_ends_at_the_longest_period_which_sharing_stretches() -> None:
    """60 s of sweep for one thread's own pages; times threads and share of shared faults for common ones."""
    alone, crowd = ScanPeriod(500, 3000, 1), ScanPeriod(500, 3000, 8)
    for _ in range(20):
        alone.update(Faults(remote=10, private=10))
        crowd.update(Faults(local=100, private=50, shared=50))
    assert alone.ms == alone.longest_ms == 3000
    assert crowd.longest_ms == pytest.approx(3000 * 8 / 2, rel=0.01) and crowd.ms == crowd.longest_ms
