"""The hint-fault rows of the observations, NUMA balancing mode 2 with its defaults,
and what a program pays for them.
"""

from __future__ import annotations

import pytest

from klrubench.engine.access import CLOCK
from klrubench.mm.state import NUMA_FAULT_PROMOTIONS, PGMIGRATE_FAIL, PGPROMOTE_SUCCESS
from klrubench.simulate.system import System
from klrubench.validation.emulated import emulated, start
from klrubench.validation.hint_faults import bursts, hinted, observed_start_s
from klrubench.validation.runner import run_check, select


@pytest.mark.parametrize("fact", select(["hint_faults"]))
def test_what_a_kernel_did(fact: str) -> None:
    row = run_check(fact)
    assert row.verdict == "agrees", [part for part in row.parts if not part.agrees]


def test_less_than_a_spare_gib_asks_the_threshold() -> None:
    """Promotions are all those of faults, and none fails."""
    system = hinted(duration_s=12)
    system.run()
    stat = system.mm.stat
    assert stat[NUMA_FAULT_PROMOTIONS] == stat[PGPROMOTE_SUCCESS] > 10_000
    assert stat[PGMIGRATE_FAIL] == 0


def test_when_the_kernel_began() -> None:
    """Warm and cold pages tell the same second."""
    assert observed_start_s() == pytest.approx(1.31, abs=0.01)


def test_small_mappings_hold_up_the_later_sweeps_alone() -> None:
    """The first three bursts come at the same time however the program is linked."""
    few, many = (bursts(small) for small in (2, 7))
    assert few[:3] == many[:3]
    assert few[3][0] + 5 < many[3][0]


CLOSED = {
    "footprint_gib": 0.25, "rate": 0.0, "compute_ns": 20_000.0, "threads": 1, "mlp": 1.0, "touches": 1,
    "read_share": 1.0, "placement": "lower",
}  # fmt: skip


def closed_loop(policy: str) -> System:
    """A finished run of a program that goes on as soon as its load is served."""
    system = start(policy, "uniform", machine=emulated(kernel="6.18"), duration_s=4, workload_values=CLOSED)
    system.run()
    return system


def test_hint_faults_delay_the_program() -> None:
    """The program itself waits for its faults: in a closed loop the run gets longer by what they and marking take."""
    faulting, undisturbed = closed_loop("numa_balancing"), closed_loop("first_touch")
    longer = int(faulting.state[0, CLOCK]) - int(undisturbed.state[0, CLOCK])
    assert longer == pytest.approx(faulting.fault_spent() + sum(faulting.app_ps.values()), rel=0.01)
