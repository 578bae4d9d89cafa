"""The MGLRU rows of observed/facts.csv: generations, the density rule, what klruscand does to aging and aging to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from emulated import Meter, Script, emulated, facts, start, touch, untouch, watch

from klrubench.engine.bits import ACCESSED, GEN_MASK, PMD_OLD, REFERENCED, WORKINGSET
from klrubench.mm import mglru
from klrubench.mm.mglru.aging import try_to_inc_max_seq
from klrubench.mm.mglru.walk import N_WALK, SLOTS, YOUNG
from klrubench.mm.state import MAX_NR_GENS, MAX_SEQ, MIN_SEQ_ANON, PGCARRIED, PTESCAN_SLOTS, PTESCAN_YOUNG
from klrubench.simulate.system import Lruvec, System

FACTS = facts()
FAST, SLOW = 0, 1
TABLE = 512
BATCH = 2 << 16


def memory(pages: int, kernel: str = "6.18", **options: Any) -> System:
    """A system whose pages lie on the slow node with their accessed bits clear, nothing running."""
    system = start(workload=Script(pages, [], **options), machine=emulated(kernel=kernel), duration_s=1)
    untouch(system)
    return system


def age(system: System, node: int = SLOW, forced: bool = True) -> tuple[int, int] | None:
    """One aging pass of a node's lruvec: (PTEs visited, found young), or None if it was refused (EEXIST)."""
    walk = np.zeros(N_WALK, np.int64)
    done = try_to_inc_max_seq(system.mm, node, 0, node, int(forced), walk)
    return (int(walk[SLOTS]), int(walk[YOUNG])) if done else None


def scan(system: System, batch: int = BATCH, between: Any = None) -> list[np.ndarray]:
    """One klruscand pass over the slow node: what each flush reports."""
    return list(flushes(system, mglru.WalkObject(), batch, between))


def flushes(system: System, walker: mglru.WalkObject, batch: int, between: Any) -> Iterator[np.ndarray]:
    for pages in mglru.walk(system, Lruvec(0, SLOW, SLOW), batch, walker):
        if pages is not None and len(pages):
            yield pages.copy()
            if between is not None:
                between()


def seq(system: System, pages: Any = slice(None), node: int = SLOW) -> np.ndarray:
    """Sequence number of the generation that each page's flags name."""
    newest = int(system.mm.lru[node, MAX_SEQ])
    generation = (system.mm.folio[pages] & GEN_MASK).astype(np.int64) - 1
    return np.asarray(newest - (newest - generation) % MAX_NR_GENS)


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_gen_target(kernel: str) -> None:
    """A page found accessed gets the max_seq of before the command, the second youngest after it: all of them."""
    system = memory(8 * TABLE, kernel)
    for _ in range(2):
        age(system)
    before = int(system.mm.lru[SLOW, MAX_SEQ])
    pages = np.arange(0, 8 * TABLE, 3)
    touch(system, pages)
    assert age(system) == (8 * TABLE, len(pages))
    assert (seq(system, pages) == before).all()
    assert system.mm.lru[SLOW, MAX_SEQ] == before + 1


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "6.18"])
def test_gen_untouched(kernel: str) -> None:
    """An untouched page keeps its seq; pages in the oldest of four generations go to the next when max_seq advances."""
    system = memory(8 * TABLE, kernel)
    mm, seqs = system.mm, []
    for _ in range(5):
        seqs.append((np.unique(seq(system)).tolist(), int(mm.lru[SLOW, MAX_SEQ]), int(mm.lru[SLOW, MIN_SEQ_ANON])))
        carried = int(mm.stat[PGCARRIED])
        age(system)
        oldest_of_four = seqs[-1][0] == [seqs[-1][1] - MAX_NR_GENS + 1]
        assert mm.stat[PGCARRIED] - carried == (8 * TABLE if oldest_of_four else 0)
    # populating has put all in max_seq = 3 (up to 6.13) or in 2: the oldest of four once max_seq is 3 above it
    first = [3, 3, 3, 3, 4] if kernel != "6.18" else [2, 2, 2, 3, 4]
    assert seqs == [([page], 3 + k, k) for k, page in enumerate(first)]


def test_gen_two_hit() -> None:
    """6.18: the first walk that finds a page accessed only sets PG_referenced; the second moves it, a third too."""
    system = memory(8 * TABLE)
    mm, pages = system.mm, np.arange(0, 8 * TABLE, 5)
    flags, seqs = [], []
    for _ in range(3):
        touch(system, pages)
        newest = int(mm.lru[SLOW, MAX_SEQ])
        age(system)
        flags.append(set((mm.folio[pages] & (REFERENCED | WORKINGSET)).tolist()))
        seqs.append({int(value) - newest for value in seq(system, pages)})
    assert flags == [{REFERENCED}, {WORKINGSET}, {WORKINGSET}]
    assert seqs == [{-1}, {0}, {0}]  # relative to max_seq before the walk; populating has put them in max_seq - 1


def test_bloom_threshold() -> None:
    """The next unforced walk comes back to a table with 64 young PTEs of 512, not to one with 63."""
    system = memory(6 * TABLE)
    young = [64, 63, 64, 63, 65, 1]
    touch(system, np.concatenate([np.arange(n) + k * TABLE for k, n in enumerate(young)]))
    assert age(system) == (6 * TABLE, sum(young))
    touch(system, np.arange(6 * TABLE))
    assert age(system, forced=False) == (3 * TABLE, 3 * TABLE)
    found = (system.mm.pte & ACCESSED == 0).reshape(6, TABLE).all(axis=1)
    assert found.tolist() == [n >= 64 for n in young]


def test_bloom_counts_young_against_slots_of_the_mapping() -> None:
    """The rule is young * 8 >= slots visited: a mapping that fills a quarter of its table needs 16, 15 do not do."""
    system = memory(20 * TABLE + 256, vmas=(128, 128, 20 * TABLE))
    touch(system, np.concatenate([np.arange(16), TABLE + np.arange(15)]))
    age(system)
    touch(system, np.arange(22 * TABLE))
    assert age(system, forced=False) == (128, 128)


def test_klru_aging_blocked() -> None:
    """Aging works before the first klruscand pass; after it the slow lruvec is frozen; the fast one ages on."""
    system = memory(8 * TABLE, "6.17")
    assert [age(system) is not None for _ in range(4)] == [True] * 4
    frozen = int(system.mm.lru[SLOW, MAX_SEQ])
    scan(system)
    assert age(system, forced=True) is None
    assert age(system, forced=False) is None
    assert system.mm.lru[SLOW, MAX_SEQ] == frozen
    for _ in range(5):
        scan(system)
    assert age(system) is None
    assert [age(system, FAST) is not None for _ in range(3)] == [True] * 3


def test_klru_bloom_inert() -> None:
    """An lruvec never aged: tables with 1 or 8 of 512 PTEs accessed are seen in every pass."""
    system = memory(64 * TABLE, "6.17")
    sparse = np.concatenate([[k * TABLE] if k % 2 else k * TABLE + np.arange(8) for k in range(64)])
    for _ in range(5):
        touch(system, sparse)
        assert np.array_equal(np.concatenate(scan(system)), sparse)


def test_klru_bloom_frozen() -> None:
    """Aged while tables 0..31 were dense: 32..63 are never seen by klruscand, 0..31 are visited even at 8 of 512."""
    system = memory(64 * TABLE, "6.17")
    dense, later = np.arange(32 * TABLE), np.arange(32 * TABLE, 64 * TABLE)
    touch(system, dense)
    age(system)
    for _ in range(4):
        touch(system, later)
        assert scan(system) == []
    sparse = (np.arange(32)[:, None] * TABLE + np.arange(8)).ravel()
    for _ in range(2):
        touch(system, sparse)
        touch(system, later)
        assert np.array_equal(np.concatenate(scan(system)), sparse)


def test_klru_force_keeps_pmd() -> None:
    """A forced pass leaves the PMD bits: the next one visits every table again, the one after it only those touched."""
    system = memory(64 * TABLE, "6.17")
    visited = []
    touched = np.arange(32 * TABLE)
    for _ in range(4):
        touch(system, touched)
        before = int(system.mm.stat[PTESCAN_SLOTS])
        scan(system)
        visited.append(int(system.mm.stat[PTESCAN_SLOTS]) - before)
    assert visited == [64 * TABLE, 64 * TABLE, 32 * TABLE, 32 * TABLE]


def test_klru_pmd_steal_fast() -> None:
    """A klruscand pass hides touched fast pages from the fast node's unforced aging, not from a forced one."""
    pages = np.arange(32 * TABLE)

    def aged(*steps: str) -> tuple[int, int] | None:
        system = start(
            workload=Script(64 * TABLE, [], placement="first_touch"), machine=emulated(kernel="6.17"), duration_s=1
        )
        untouch(system)
        for _ in range(2):
            scan(system)  # the first pass is forced
            age(system, FAST)  # and so is the first aging
            touch(system, pages)
        found = age(system, FAST, forced=False)
        assert found == (32 * TABLE, 32 * TABLE)
        touch(system, pages)
        scan(system)
        if "touch" in steps:
            touch(system, pages)
        return age(system, FAST, forced="force" in steps)

    assert aged() == (0, 0)
    assert aged("touch") == (32 * TABLE, 32 * TABLE)
    assert aged("force") == (64 * TABLE, 32 * TABLE)


def test_an_aging_of_the_fast_node_hides_slow_pages_too() -> None:
    """The reverse: unforced aging of the fast node clears the PMD bits that the next klruscand pass goes by."""
    system = memory(32 * TABLE, "6.17")
    for _ in range(2):
        scan(system)
        age(system, FAST)
    touch(system, np.arange(16 * TABLE))
    age(system, FAST, forced=False)
    assert scan(system) == []
    touch(system, np.arange(16 * TABLE))
    assert len(np.concatenate(scan(system))) == 16 * TABLE


FILLER, SWEPT = 446 * TABLE, 376 * TABLE  # the mapping of 752 MiB begins 66 tables before a 1 GiB boundary
EDGE = Script(FILLER + SWEPT, [], vmas=(FILLER, SWEPT))


def edge_memory() -> System:
    """A mapping of 376 tables behind an untouched one, so that it crosses a 1 GiB boundary after its 66th table."""
    system = start(workload=EDGE, machine=emulated(slow_pages=1 << 19, kernel="6.17"), duration_s=1)
    untouch(system)
    return system


def test_klru_edge_posted() -> None:
    """A forced pass over a freshly filled mapping, the program busy on the same CPU.

    The scheduler wants the CPU back at the 1 GiB boundary, the batch restarts empty there, and 256 dense tables later
    it ends exactly at a table's end, whereupon the rest is lost until the next pass.
    """
    machine = emulated(slow_pages=1 << 19, kernel="6.17")
    system = start("klruscand", EDGE, machine=machine, duration_s=12, daemon_cpus="shared")
    system.mm.pte[:FILLER] &= np.uint8(0xFF ^ ACCESSED)
    reported = sorted({young for _, young in watch(system, 50, lambda s: int(s.mm.stat[PTESCAN_YOUNG]))})
    assert (66 + 256) * TABLE == 164_864
    assert reported[:3] == [66 * TABLE, 164_864, SWEPT]


def test_the_edge_without_a_scheduler() -> None:
    """A pass that nobody interrupts stops at its first full batch; what it loses comes one pass later."""
    system = edge_memory()
    swept = np.arange(FILLER, FILLER + SWEPT)
    touch(system, swept)
    first = np.concatenate(scan(system))
    assert np.array_equal(first, swept[:BATCH])
    touch(system, np.arange(0))
    assert np.array_equal(np.concatenate(scan(system)), swept[BATCH:])


def test_klru_duplicates() -> None:
    """A region swept without pause: the full batch resumes at the first pending PMD, and 58 tables come twice."""
    system = edge_memory()
    swept = np.arange(FILLER, FILLER + SWEPT)
    for _ in range(2):
        touch(system, swept)
        scan(system)
    touch(system, swept)
    reports = scan(system, between=lambda: touch(system, swept))
    pages, times = np.unique(np.concatenate(reports), return_counts=True)
    assert len(reports[0]) == BATCH
    assert np.array_equal(pages, swept)
    assert sum(map(len, reports)) == 222_208
    assert np.count_nonzero(times == 2) == 29_696 == 58 * TABLE
    assert times.max() == 2


def test_a_paused_program_is_never_reported_twice() -> None:
    """What was scanned before the batch was full has lost its accessed bits: without a new touch nothing repeats."""
    system = edge_memory()
    swept = np.arange(FILLER, FILLER + SWEPT)
    for _ in range(3):
        touch(system, swept)
        reported = np.concatenate(scan(system))
    assert np.array_equal(reported, swept)


def test_klruscand_updates_generations_as_aging_does() -> None:
    """Two passes bring a touched page to max_seq, which the pass itself does not advance."""
    system = memory(8 * TABLE, "6.17")
    pages = np.arange(0, 8 * TABLE, 2)
    for _ in range(2):
        touch(system, pages)
        scan(system)
    assert (seq(system, pages) == 3).all()
    assert (seq(system, pages + 1) == 2).all()
    assert system.mm.lru[SLOW, MAX_SEQ] == 3


def test_cost_of_a_pass_follows_slots_not_young_pages() -> None:
    """512 slots a table whose PMD is young, whatever is young in it; tables whose PMD is old cost no slot."""
    system = memory(64 * TABLE, "6.17")
    for _ in range(2):
        touch(system, np.arange(0))
        scan(system)
    assert (system.mm.pte & PMD_OLD).all()
    meter, before = Meter(system), system.mm.stat[[PTESCAN_SLOTS, PTESCAN_YOUNG]]
    touch(system, np.arange(0, 16 * TABLE, TABLE))
    scan(system)
    assert (system.mm.stat[[PTESCAN_SLOTS, PTESCAN_YOUNG]] - before).tolist() == [16 * TABLE, 16]
    assert [meter.events[name] for name in ("walk_pte", "walk_fast_pte", "walk_young")] == [16 * (TABLE - 1), 0, 16]
