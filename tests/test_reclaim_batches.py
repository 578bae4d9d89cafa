"""Reclaim under MGLRU isolates 64 pages before it checks the first of them, and when it ages first."""

from __future__ import annotations

import numpy as np
import pytest
from folios import folios_of, old_memory

from klrubench.engine.bits import ACCESSED, GEN_MASK, NODE_MASK, REFERENCED
from klrubench.engine.jit import njit
from klrubench.mm.mglru.aging import should_run_aging
from klrubench.mm.mglru.walk import N_WALK
from klrubench.mm.state import (
    DEMOTION_ALLOWED,
    DEMOTION_PREFERRED,
    DEMOTION_TARGET,
    FREE,
    MAX_SEQ,
    MAX_SEQ_ADVANCES,
    MIN_SEQ_ANON,
    MM_RAN,
    PGSCAN_KSWAPD,
    TWO_STEP,
    Mm,
)
from klrubench.mm.table import mm_at
from klrubench.mm.vmscan import balance_slice, evict_folios
from klrubench.simulate.result import check_memory


@njit
def _evict(address: int, wanted: int, examine: int, fold: int) -> tuple[int, int]:
    return evict_folios(mm_at(address), 0, 0, wanted, examine, fold)


def memory(pages: int, two_step: bool, generations: int = 4) -> Mm:
    """So many pages on the top tier, in address order from the tail on, all in the oldest of the generations."""
    mm = old_memory([(pages, 0, False, 0)], node=0)
    mm.setting[TWO_STEP] = two_step
    (generation,) = {int(flags & GEN_MASK) - 1 for flags in mm.folio[folios_of(mm)]}
    mm.lru[0, MAX_SEQ], mm.lru[0, [MIN_SEQ_ANON, MIN_SEQ_ANON + 1]] = generation + generations - 1, generation
    mm.node[:, DEMOTION_TARGET], mm.node[0, [DEMOTION_PREFERRED, DEMOTION_ALLOWED]] = (1, -1), 2
    mm.mms[:, MM_RAN:] = 1
    return mm


@pytest.mark.parametrize(("two_step", "fold", "demoted"), [(True, 1, 0), (False, 1, 63), (True, 64, 1), (False, 64, 0)])
def test_what_look_around_does_to_young_neighbours_that_are_isolated_too(
    two_step: bool, fold: int, demoted: int
) -> None:
    """64 folios side by side, all young. From 6.14 look-around passes over isolated folios: each is young at its own
    check, none goes. Up to 6.13 it clears and marks them: 63 are found old, and anonymous ones go for all their mark.
    At scale fewer are isolated at a time, here one: the neighbour is still on its list, where it is marked (6.14) or
    moved to the youngest generation.
    """
    mm = memory(512, two_step)
    mm.pte[:512] |= ACCESSED
    first = int(mm.lru_prev[len(mm.pte) + 2 * (int(mm.folio[0] & GEN_MASK) - 1)])
    assert first == 0
    examined, moved = _evict(mm.address, 1 << 20, 64 if fold == 1 else 2, fold)
    assert (examined, moved) == (64 if fold == 1 else 2, demoted)
    assert np.count_nonzero(mm.pte[:512] & NODE_MASK) == demoted and mm.stat[PGSCAN_KSWAPD] == examined
    if two_step and fold == 1:
        assert (mm.folio[:64] & REFERENCED).all() and not (mm.pte[:64] & ACCESSED).any()
    check_memory(mm)


@pytest.mark.parametrize(("wanted", "demoted"), [(1, 64), (64, 64), (65, 128), (600, 512)])
def test_a_batch_is_not_cut_by_what_is_wanted(wanted: int, demoted: int) -> None:
    """Old folios: 64 at a time until as many as wanted are gone."""
    mm = memory(512, True)
    assert _evict(mm.address, wanted, 4096, 1) == (demoted, demoted)
    check_memory(mm)


@pytest.mark.parametrize("two_step", [False, True])
@pytest.mark.parametrize(("generations", "late", "early"), [(2, True, True), (3, True, True), (4, False, False)])
def test_reclaim_ages_where_few_generations_are_left(two_step: bool, generations: int, late: bool, early: bool) -> None:
    """It must with two; with three from 6.14 on always, up to 6.13 where little is old (here all is)."""
    mm = memory(512, two_step, generations)
    wanted = late if two_step else early and generations < 3
    assert bool(should_run_aging(mm, 0)) == wanted


def test_a_round_at_the_default_priority_evicts_and_one_below_it_ages_and_evicts_nothing() -> None:
    """get_nr_to_scan with three generations: size >> 12 from the oldest; below, a new generation and no more."""
    walk, price = np.zeros(N_WALK, np.int64), np.array([1, 1, 1 << 40])
    for young, advances, priority in ((0, 0, 12), (ACCESSED, 1, 10)):
        mm, progress = memory(4096, True, 3), np.array([12, 0, 0, 0], np.int64)
        mm.pte[:4096] |= young
        target = int(mm.node[0, FREE]) + 4000
        balance_slice(mm, 0, 1, target, price, 4096, 1, walk, progress)
        assert mm.stat[MAX_SEQ_ADVANCES] == advances and progress[0] == priority
        assert (mm.node[0, FREE] >= target) == (not young)  # where all is old the default priority is enough
        assert mm.stat[PGSCAN_KSWAPD] == (1 if young else 4000)
        check_memory(mm)
