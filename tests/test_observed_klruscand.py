"""The klruscand and pghot rows of the observations, and what follows from the same rules but was not measured."""

from __future__ import annotations

import numpy as np
import pytest

from klrubench.mm.state import KPROMOTED_POPPED, PGPROMOTE_SUCCESS
from klrubench.validation.emulated import PERIOD_S, TABLE, Script, before_pass, between_passes, start, stat, untouch
from klrubench.validation.klruscand import HOG, POSTED, SET, behind_a_hog, pops_by_the_rules
from klrubench.validation.runner import run_check, select


@pytest.mark.parametrize("fact", select(["klruscand", "pghot"]))
def test_what_a_kernel_did(fact: str) -> None:
    row = run_check(fact)
    assert row.verdict == "agrees", [part for part in row.parts if not part.agrees]


@pytest.mark.parametrize("loads_per_s", [2_000, 10_000, 100_000])
def test_the_pops_of_a_full_node_follow_the_rules(loads_per_s: int) -> None:
    """At loads of which the observation knows nothing; chance moves the sum of 65,536 pages by under 1 %."""
    system = behind_a_hog(loads_per_s, seed=loads_per_s)
    system.run()
    expected, popped = pops_by_the_rules(loads_per_s), int(system.mm.stat[KPROMOTED_POPPED])
    assert popped == pytest.approx(expected, rel=0.01)
    assert not system.mm.stat[PGPROMOTE_SUCCESS] and not system.cpu_ps["kswapd"]


def test_a_refused_page_is_popped_every_second_pass() -> None:
    """A refused pop is forgotten: a page seen in every pass comes back every second one."""
    group = np.arange(HOG, HOG + SET)
    program = Script(HOG + 64 * TABLE, before_pass(list(range(3, 23)), group), placement="first_touch")
    system = start("klruscand", program, duration_s=25.5 * PERIOD_S, policy_values=POSTED)
    untouch(system)
    popped = np.diff(between_passes(system, stat(KPROMOTED_POPPED)))
    assert (popped[2:22] >= SET).tolist() == [False, True] * 10
    assert popped[2:22].sum() - 10 * SET in (9, 10, 11)  # the page that is touched in between
