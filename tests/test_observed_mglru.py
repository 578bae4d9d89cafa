"""The MGLRU rows of the observations, and what follows from the same rules but was not measured."""

from __future__ import annotations

import numpy as np
import pytest

from klrubench.engine.bits import PMD_OLD
from klrubench.mm.state import MAX_SEQ, PTESCAN_SLOTS, PTESCAN_YOUNG
from klrubench.validation.emulated import TABLE, Meter, touch
from klrubench.validation.mglru import BATCH, FAST, FILLER, SLOW, SWEPT, age, edge_memory, memory, scan, seq
from klrubench.validation.runner import run_check, select


@pytest.mark.parametrize("fact", select(["mglru"]))
def test_what_a_kernel_did(fact: str) -> None:
    row = run_check(fact)
    assert row.verdict == "agrees", [part for part in row.parts if not part.agrees]


def test_bloom_counts_young_against_slots_of_the_mapping() -> None:
    """The rule is young * 8 >= slots visited: a mapping that fills a quarter of its table needs 16, 15 do not do."""
    system = memory(20 * TABLE + 256, vmas=(128, 128, 20 * TABLE))
    touch(system, np.concatenate([np.arange(16), TABLE + np.arange(15)]))
    age(system)
    touch(system, np.arange(22 * TABLE))
    assert age(system, forced=False) == (128, 128)


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


def test_the_edge_without_a_scheduler() -> None:
    """A pass that nobody interrupts stops at its first full batch; what it loses comes one pass later."""
    system, swept = edge_memory(), np.arange(FILLER, FILLER + SWEPT)
    touch(system, swept)
    assert np.array_equal(np.concatenate(scan(system)), swept[:BATCH])
    touch(system, np.arange(0))
    assert np.array_equal(np.concatenate(scan(system)), swept[BATCH:])


def test_a_paused_program_is_never_reported_twice() -> None:
    """What was scanned before the batch was full has lost its accessed bits: without a new touch nothing repeats."""
    system, swept = edge_memory(), np.arange(FILLER, FILLER + SWEPT)
    for _ in range(3):
        touch(system, swept)
        reported = np.concatenate(scan(system))
    assert np.array_equal(reported, swept)


def test_klruscand_updates_generations_as_aging_does() -> None:
    """Two passes bring a touched page to max_seq, which the pass itself does not advance."""
    system, pages = memory(8 * TABLE, "6.17"), np.arange(0, 8 * TABLE, 2)
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
