"""The cost rows of observed/facts.csv: guest instructions, read off CPU time charged; and pghot's limits.

Only ratios between these rows mean anything; the emulated machine takes 2 ns for each instruction, so here the counts
themselves come back. One operation's cost is the time charged for known numbers of it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from emulated import (
    NS_PER_INSTRUCTION,
    PERIOD_S,
    SLOW_PAGES,
    Meter,
    Script,
    before_pass,
    between_passes,
    emulated,
    facts,
    fast_pages,
    instructions,
    start,
    starved,
    touch,
    untouch,
    watch,
)

from klrubench.mm import Kpromoted, Pghot
from klrubench.mm.mglru.aging import try_to_inc_max_seq
from klrubench.mm.mglru.walk import N_WALK
from klrubench.mm.migrate import move_many
from klrubench.mm.state import KSWAPD_WAKE, PGHOT_HEAP_FULL, PGPROMOTE_SUCCESS
from klrubench.mm.vmscan import CHARGED
from klrubench.simulate.system import System

FACTS = facts()
SLOW, TABLE, TABLES = 1, 512, 32
YOUNG = 192


def counted(name: str) -> float:
    """The number in a row of facts.csv."""
    return float(FACTS[name]["measured"].split()[0])


# The aging walk, by the CPU time of a kswapd that has to make a generation ----------------------------------------


def first_aging(young: int, pages: int, kernel: str) -> tuple[float, int]:
    """(instructions that the first aging pass of a full fast node takes kswapd, PTEs that it visits).

    The pass is forced, as each first one is, so it visits every PTE. Folios examined and demoted in the same round are
    taken off.
    """
    program = Script(pages, [], placement="first_touch")
    system = start(workload=program, machine=emulated(fast_pages=pages // 2, kernel=kernel), duration_s=0.5)
    untouch(system)
    on_fast = np.flatnonzero((system.mm.pte & 3) == 0)
    touch(system, on_fast[-young:] if young else on_fast[:0])
    system.mm.node[0, KSWAPD_WAKE] = 1
    meter = Meter(system)
    system.run()
    assert system.cpu_ps["kswapd"] == pytest.approx(meter.instructions() * NS_PER_INSTRUCTION * 1000)
    charge = next(charge for charge in meter.log if charge["aging_pte"])
    return meter.instructions(events=charge) - meter.instructions("kswapd_scan", "kswapd_page", events=charge), pages


@pytest.mark.parametrize(("kernel", "suffix"), [("6.18", ""), ("6.12", "_612")])
def test_walk_costs(kernel: str, suffix: str) -> None:
    """walk_old_pte: a PTE not accessed, of either node; walk_young_extra: what an accessed one adds."""
    pages, young = 64 * TABLE, 6000
    (idle, visited), (larger, more) = first_aging(0, pages, kernel), first_aging(0, 2 * pages, kernel)
    assert (larger - idle) / (more - visited) == pytest.approx(counted(f"walk_old_pte{suffix}"), rel=0.01)
    busy, _ = first_aging(young, pages, kernel)
    assert (busy - idle) / young == pytest.approx(counted(f"walk_young_extra{suffix}"), rel=0.01)


@pytest.mark.parametrize("kernel", ["6.12", "6.18"])
def test_carry_page(kernel: str) -> None:
    """carry_page: a page of the oldest of four generations moved to the next when max_seq advances."""
    system = start(workload=Script(8 * TABLE, []), machine=emulated(kernel=kernel), duration_s=1)
    before = system.mm.stat[list(CHARGED)]
    for _ in range(4):
        assert try_to_inc_max_seq(system.mm, SLOW, 0, SLOW, 1, np.zeros(N_WALK, np.int64))
    done = dict(zip(CHARGED.values(), (system.mm.stat[list(CHARGED)] - before).tolist(), strict=True))
    assert done["aging_pte"] + done["aging_young"] == 4 * 8 * TABLE
    assert done["carry_page"] == (8 * TABLE if kernel == "6.12" else 2 * 8 * TABLE)
    assert instructions(system.machine, "carry_page") == counted("carry_page")


def test_fault_costs() -> None:
    """Faults as the cost table has them; test_observed_hint_faults reads hint faults off the program's time."""
    machine = emulated(kernel="6.18")
    for name in ("hint_fault", "hint_fault_promote", "minor_fault"):
        assert instructions(machine, name) == counted(name)


# klruscand's pass -------------------------------------------------------------------------------------------------


def pass_costs(plan: list[tuple[float, np.ndarray]], on_fast: int = 0) -> list[Counter[str]]:
    """What klruscand is charged in each pass of a program that follows a plan; `on_fast` pages are moved up before."""
    system = start(
        "klruscand", Script((TABLES + 2) * TABLE, plan), duration_s=7.5 * PERIOD_S, policy_values={"threshold": 7}
    )
    untouch(system)
    move_many(system.mm, np.arange(on_fast), 0, 1, False)
    meter = Meter(system)
    system.run()
    begins = [k for k, charge in enumerate(meter.log) if charge["pass_fixed"]]
    return [sum(meter.log[a:b], Counter()) for a, b in zip(begins, [*begins[1:], None], strict=True)]


def walked(charge: Counter[str]) -> float:
    """Instructions of the walk alone."""
    machine = emulated()
    return sum(
        charge[name] * instructions(machine, name) for name in ("walk_pte", "walk_fast_pte", "walk_young", "walk_pmd")
    )


def test_klru_walk_costs() -> None:
    """A pass over 32 more tables: 39 an untouched PTE, 245 a reported one, 82 an accessed one on the fast node."""
    one_each, half = ((np.arange(TABLES)[:, None] * TABLE + np.arange(n)).ravel() for n in (1, YOUNG))
    plan = before_pass([4], one_each) + before_pass([5], half)
    passes = pass_costs(plan)
    nothing, few, many = (walked(charge) for charge in passes[3:6])
    assert (few - nothing) / (TABLES * TABLE) == pytest.approx(counted("klru_walk_unseen"), rel=0.03)
    extra = TABLES * (YOUNG - 1)
    unseen = counted("klru_walk_unseen")
    assert (many - few) / extra + unseen == pytest.approx(counted("klru_walk_young"), rel=0.01)
    fast = pass_costs(plan, on_fast=TABLES * TABLE)
    few, many = (walked(charge) for charge in fast[4:6])
    assert (many - few) / extra + unseen == pytest.approx(counted("klru_walk_fast"), rel=0.01)
    assert [charge["walk_young"] for charge in fast[3:6]] == [1, 1, 1]  # the page that is touched in between


# pghot and kpromoted ----------------------------------------------------------------------------------------------


def store(pages: int, **options: Any) -> tuple[System, Pghot]:
    """A pghot whose source is the test: every page on the slow node."""
    machine = emulated(slow_pages=max(SLOW_PAGES, pages + 8192))
    system = start(workload=Script(-(-pages // TABLE) * TABLE, []), machine=machine, **({"duration_s": 1} | options))
    return system, system.add(Pghot())


def test_klru_record_grows_with_its_list() -> None:
    """The record of a known page: 190 + 0.0632 * records, 8 a list element walked, as the four sizes of the row say."""
    system, pghot = store(131_073)
    known, sample = 0, np.arange(1000, dtype=np.uint32)
    for records, measured in ((2049, 320), (8193, 711), (32_769, 2265), (131_073, 8481)):
        pghot.record(np.arange(known, records, dtype=np.uint32), source="pgtable_scan")
        known = records
        meter = Meter(system)
        pghot.record(sample, source="pgtable_scan")
        assert meter.instructions("pghot_record", "pghot_list_element") / len(sample) == pytest.approx(
            measured, rel=0.02
        )


def test_klru_hash_lists() -> None:
    """64 lists for a node of 262,112 pages: 127 rounded down to a power of two."""
    _, pghot = store(TABLE * TABLES)
    assert pghot.lists == 64
    half, double = (Pghot(), Pghot())
    for other, pages in ((half, SLOW_PAGES // 2), (double, SLOW_PAGES * 2)):
        start(workload=Script(TABLE * TABLES, []), machine=emulated(slow_pages=pages), duration_s=1).add(other)
    assert (half.lists, double.lists) == (32, 128)


def test_klru_heap_push() -> None:
    """Entering the heap takes 570 instructions more than a record that stays out of it."""
    system, pghot = store(4096)
    pages = np.arange(2049, dtype=np.uint32)
    charged = []
    for _ in range(3):
        meter = Meter(system)
        pghot.record(pages, source="pgtable_scan")
        charged.append(meter.instructions())
    assert (charged[1] - charged[2]) / len(pages) == pytest.approx(counted("klru_heap_push"), rel=0.01)


def test_klru_heap_cap() -> None:
    """32,764 entries fit the heap of a 262,112-page slow node; pages beyond are not queued."""
    system, pghot = store(65_536)
    pages = np.arange(65_536, dtype=np.uint32)
    for _ in range(2):
        pghot.record(pages, source="pgtable_scan")
    assert pghot.arrays.heap_n.tolist() == [32_764]
    assert system.mm.stat[PGHOT_HEAP_FULL] == 65_536 - 32_764


def backlog(pages: int = 32_764) -> System:
    """A heap full of pages seen twice, kpromoted about to start."""
    system, pghot = store(65_536, duration_s=2)
    for _ in range(2):
        pghot.record(np.arange(pages, dtype=np.uint32), source="pgtable_scan")
    system.add(Kpromoted(pghot))
    return system


def test_klru_kpromoted_page() -> None:
    """7000 instructions of kpromoted a promoted page."""
    system = backlog()
    system.run()
    promoted = int(system.mm.stat[PGPROMOTE_SUCCESS])
    assert promoted == 32_764
    spent = system.cpu_ps["kpromoted"] / 1000 / NS_PER_INSTRUCTION
    assert spent / promoted == pytest.approx(counted("klru_kpromoted_page"), rel=0.01)


def test_klru_kpromoted_rate() -> None:
    """With a backlog 1024 pages go each 36 ms, 14.5 of work and 21 of sleep: 28.4k pages a second."""
    counts = np.array([n for _, n in watch(backlog(), 1, lambda s: int(s.mm.stat[PGPROMOTE_SUCCESS]))])
    batches = np.flatnonzero(np.diff(counts))
    assert (np.diff(counts)[batches][:-1] == 1024).all()
    assert np.diff(batches) == pytest.approx(36, abs=3)
    assert 32_764 / (batches[-1] - batches[0]) == pytest.approx(28.4, rel=0.1)


def test_klru_freq_wrap() -> None:
    """A page that waits in the heap: its 8th sighting wraps the frequency to 0 and takes it out, the 10th queues it."""
    group = np.arange(TABLE)
    program = Script(8 * TABLE, before_pass(list(range(3, 15)), group))
    system = start(starved(), program, duration_s=16 * PERIOD_S)
    place = system.policy.store.arrays.place  # type: ignore[attr-defined]
    queued = between_passes(system, lambda s: int((place[s.mm.pfn[group]] >= 0).sum()))
    assert queued[3:15] == [0] + [TABLE] * 6 + [0] * 2 + [TABLE] * 3


@pytest.mark.parametrize(("touched_in", "promoted"), [(4, 4097), (7, 0)])
def test_klru_stale_record(touched_in: int, promoted: int) -> None:
    """Frames freed after one sighting, taken over at once: the new owner's first sighting promotes; not after 8 s."""
    old, new = np.arange(4097), np.arange(4608, 4608 + 4097)
    program = Script(20 * TABLE, sorted(before_pass([3], old) + before_pass([touched_in], new)))
    system = start("klruscand", program, duration_s=(touched_in + 0.5) * PERIOD_S)
    mm = system.mm
    untouch(system)
    assert move_many(mm, new, 0, 1, False) == len(new)

    def swap() -> None:
        frames = set(mm.pfn[old].tolist())
        assert move_many(mm, old, 0, 1, False) == move_many(mm, new, 1, 1, False) == 4097
        assert set(mm.pfn[new].tolist()) == frames

    system.at_touch(round(3.3 * PERIOD_S * program.rate_hz), swap)
    system.run()
    assert fast_pages(system)[new].sum() == promoted
