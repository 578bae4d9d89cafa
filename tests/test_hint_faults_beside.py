"""kernel.numa_balancing beside another policy: who takes hint faults, and what they do together with klruscand."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from klrubench.engine.bits import NODE_MASK
from klrubench.machine import Machine, load_machine
from klrubench.mm.state import (
    KPROMOTED_POPPED,
    NUMA_FAULT_PROMOTIONS,
    NUMA_HINT_FAULTS,
    PGDEMOTE_KSWAPD,
    PGPROMOTE_SUCCESS,
    WMARK_PROMO,
)
from klrubench.report.footnotes import BESIDE, Footnotes
from klrubench.report.header import Header, header_lines
from klrubench.simulate import System, simulate
from klrubench.study.plugins import find_policy, find_workload
from klrubench.validation.emulated import hotset_classes

HOT = 0


def machine(mode: int, **options: Any) -> Machine:
    return load_machine("cxl-asic", sysctls={"numa_balancing": mode}, **options)


def hint_faults(policy: str, mode: int, **values: Any) -> int:
    """Hint faults of a short run of `uniform`."""
    workload = find_workload("uniform")(footprint_gib=0.25, rate=1.0, placement="lower")
    found: list[System] = []
    where = machine(mode, ratio=(1, 1))
    simulate(where, workload, find_policy(policy)(**values), 1, duration_s=3, fold=4, watch=found.append)
    return int(found[0].mm.stat[NUMA_HINT_FAULTS])


@pytest.mark.parametrize("policy", ["klruscand", "random_sampling", "random_promotion"])
def test_a_policy_takes_hint_faults_if_the_machine_has_them(policy: str) -> None:
    assert hint_faults(policy, 0) == 0
    assert all(hint_faults(policy, mode) > 1000 for mode in (1, 2, 3))


def test_bounds_and_policies_with_a_mode_of_their_own_do_not_change() -> None:
    assert hint_faults("first_touch", 2) == hint_faults("oracle_window", 2) == hint_faults("numab0", 2) == 0
    assert hint_faults("numab2", 0) == hint_faults("numab2", 1) == hint_faults("numab2", 3) > 1000


@cache
def hotset(policy: str, mode: int) -> tuple[list[tuple[float, float]], System]:
    """`hotset` behind pages that fill the top tier: (second, share of the hot pages that lie there) each half second,
    and the system at the end.
    """
    found: list[System] = []
    rows: list[tuple[float, float]] = []

    def watch(system: System) -> None:
        found.append(system)
        hot = np.flatnonzero(hotset_classes(system) == HOT)
        system.every_ms(
            500, lambda: rows.append((system.now_ms / 1000, float(np.mean(system.mm.pte[hot] & NODE_MASK == 0))))
        )

    workload = find_workload("hotset")(footprint_gib=0.25, rate=0.06, placement="hot_on_lower")
    made = find_policy(policy)()
    simulate(machine(mode, ratio=(1, 3)), workload, made, 1, duration_s=60, fold=1, watch=watch)
    return rows, found[0]


def reached_s(rows: list[tuple[float, float]], share: float) -> float:
    return next((second for second, hot in rows if hot >= share), np.inf)


def test_both_together_bring_the_hot_set_up_sooner_than_hint_faults_alone() -> None:
    """As observed with mode 2: the hot set ends up on the fast node, sooner, promotions and demotions keeping pace."""
    (both, system), (alone, _) = hotset("klruscand", 2), hotset("numa_balancing", 0)
    stat = system.mm.stat
    assert stat[NUMA_FAULT_PROMOTIONS] > 0 and stat[KPROMOTED_POPPED] > 0
    assert both[0][1] < 0.1 and both[-1][1] > 0.9
    assert reached_s(both, 0.9) < reached_s(alone, 0.9)
    assert abs(int(stat[PGPROMOTE_SUCCESS]) - int(stat[PGDEMOTE_KSWAPD])) < 2 * int(system.mm.node[0, WMARK_PROMO])


def test_the_header_says_that_hint_faults_run_beside() -> None:
    for mode in (0, 2):
        notes = Footnotes()
        shown = " ".join(header_lines(Header(1, 1, 10.0, machine(mode)), notes, 100))
        told = " ".join(" ".join(notes.lines(1000)).split())
        assert (BESIDE in told) == bool(mode) and (f"numa_balancing={mode} [" in shown) == bool(mode)
