"""The klruscand and pghot rows of the observations, and what follows from the same rules but was not measured."""

from __future__ import annotations

import numpy as np
import pytest

from klrubench.mm.state import KPROMOTED_POPPED
from klrubench.validation.emulated import PERIOD_S, TABLE, Script, before_pass, between_passes, start, stat, untouch
from klrubench.validation.klruscand import HOG, POPPED, POSTED, SET
from klrubench.validation.runner import run_check, select


@pytest.mark.parametrize("fact", [fact for fact in select(["klruscand", "pghot"]) if fact != "klru_full_nb0"])
def test_what_a_kernel_did(fact: str) -> None:
    row = run_check(fact)
    assert row.verdict == "agrees", [part for part in row.parts if not part.agrees]


def test_a_full_fast_node() -> None:
    """All of the row but the pops, which are compared within a factor of two: loads a second are not recorded."""
    row = run_check("klru_full_nb0")
    assert [part.name for part in row.parts if not part.agrees] in ([], [POPPED])
    assert row.verdict in ("agrees", "known miss") and not row.fails
    popped = next(part for part in row.parts if part.name == POPPED)
    assert popped.measured / 2 < popped.simulated < popped.measured * 2


def test_a_refused_page_is_popped_every_second_pass() -> None:
    """A refused pop is forgotten: a page seen in every pass comes back every second one."""
    group = np.arange(HOG, HOG + SET)
    program = Script(HOG + 64 * TABLE, before_pass(list(range(3, 23)), group), placement="first_touch")
    system = start("klruscand", program, duration_s=25.5 * PERIOD_S, policy_values=POSTED)
    untouch(system)
    popped = np.diff(between_passes(system, stat(KPROMOTED_POPPED)))
    assert (popped[2:22] >= SET).tolist() == [False, True] * 10
    assert popped[2:22].sum() - 10 * SET in (9, 10, 11)  # the page that is touched in between
