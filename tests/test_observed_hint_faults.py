"""The hint-fault rows of observed/facts.csv, and hint_fault_hotset.csv: NUMA balancing mode 2 with its defaults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import curve, emulated, fast_pages, hotset_classes, on_fast, start, watch

from klrubench.engine.access import CLOCK
from klrubench.generate import scattered
from klrubench.mm.state import (
    NUMA_FAULT_PROMOTIONS,
    NUMA_HINT_FAULTS,
    NUMA_LIMITED,
    NUMA_PTE_UPDATES,
    PGMIGRATE_FAIL,
    PGPROMOTE_CANDIDATE,
    PGPROMOTE_CANDIDATE_NRL,
    PGPROMOTE_SUCCESS,
)  # fmt: skip
from klrubench.simulate.system import System

SIZE = np.array([4096, 12_288, 49_152])
PAGES = int(SIZE.sum())
LOADS_PER_S = 48_800
COUNTERS = [NUMA_PTE_UPDATES, NUMA_HINT_FAULTS, PGPROMOTE_SUCCESS]
HOT_THRESHOLD_S = 1.0


def hinted(workload: str = "hotset", *, duration_s: float, seed: int = 1, **options: Any) -> System:
    """A program under kernel.numa_balancing=2, all its pages on the slow node."""
    values = {
        "footprint_gib": 0.25, "rate": LOADS_PER_S / PAGES, "threads": 1, "mlp": 1.0, "touches": 1, "read_share": 1.0,
        "placement": "lower", "open_loop": True, "compute_ns": 0.0,
    }  # fmt: skip
    kernel = options.pop("kernel", "6.12")
    machine = emulated(kernel=kernel, **options)  # 6.12 unless told
    return start("numa_balancing", workload, machine=machine, duration_s=duration_s, seed=seed, workload_values=values)


@pytest.fixture(scope="module")
def observed() -> list[tuple[float, Any]]:
    """(second, (pages of each class on the fast node, counters)) each second of the observed run."""
    system = hinted(duration_s=41)
    classes = hotset_classes(system)
    return watch(system, 1000, lambda s: (on_fast(s, classes), s.mm.stat[COUNTERS].tolist()))


def residuals(kernel: str, seed: int) -> np.ndarray:
    """Share promoted by one scan less 1-exp(-r*T), T = 1 s, over 64 bins of 1024 pages by rank, under Zipf(0.99)."""
    system = hinted("zipf", duration_s=3, kernel=kernel, seed=seed)
    rates = np.arange(1.0, PAGES + 1) ** -0.99
    expected = 1 - np.exp(-rates / rates.sum() * LOADS_PER_S * HOT_THRESHOLD_S)
    by_rank = scattered(system.tenants[0].feed.layout).permutation()
    fast = next(state for second, state in watch(system, 100, fast_pages) if second >= 2.5)
    return np.asarray((fast[by_rank] - expected).reshape(64, 1024).mean(axis=1))


@pytest.mark.parametrize("kernel", ["6.12", "6.18"])
def test_first_pass_law(kernel: str) -> None:
    """Each bin's share within 0.03 of the law (mean of four runs); a run's residuals are sampling noise, rms 0.012."""
    runs = np.array([residuals(kernel, seed) for seed in range(4)])
    assert np.abs(runs.mean(axis=0)).max() < 0.03
    assert np.sqrt(np.mean(runs**2, axis=1)) == pytest.approx(0.012, rel=0.25)
    assert abs(runs.mean()) < 0.002


def test_first_pass_hot(observed: list[tuple[float, Any]]) -> None:
    """Pages of 9.5 loads a second: 4096 of 4096 on the fast node at second 3."""
    assert dict(observed)[3.0][0][0] == pytest.approx(4096, rel=0.01)


def test_scan_times(observed: list[tuple[float, Any]]) -> None:
    """The first burst marks everything; sweeps get longer, the later ones twice as long as the one before."""
    marked = np.array([state[1][0] for _, state in observed])
    bursts = np.flatnonzero(np.diff(marked, prepend=0)) + 1
    sizes = np.diff(marked, prepend=0)[bursts - 1]
    assert sizes[0] == PAGES
    assert (sizes[1:] < PAGES / 2).all()
    spacing = np.diff(bursts)
    assert 4 <= len(spacing) <= 6
    assert (spacing[1:] >= spacing[:-1]).all()
    assert spacing[-2:] / spacing[-3:-1] == pytest.approx(2, rel=0.2)
    assert bursts[-1] - bursts[0] > 25


def test_freespace_regime() -> None:
    """More than 1 GiB free above the watermark: every fault promotes, at every second, as pgpromote_candidate_nrl."""
    system = hinted(duration_s=12, fast_pages=3 << 18)
    seconds = watch(
        system, 1000, lambda s: s.mm.stat[[NUMA_HINT_FAULTS, PGPROMOTE_SUCCESS, PGPROMOTE_CANDIDATE_NRL]].tolist()
    )
    assert seconds[-1][1][0] > 10_000
    assert all(len(set(counts)) == 1 for _, counts in seconds)
    assert system.mm.stat[PGPROMOTE_CANDIDATE] == system.mm.stat[NUMA_LIMITED] == 0


def test_less_than_a_spare_gib_asks_the_threshold() -> None:
    """A fast node with less to spare: more faults than promotions; candidates equal promotions, none as _nrl."""
    system = hinted(duration_s=12)
    system.run()
    stat = system.mm.stat
    assert stat[NUMA_HINT_FAULTS] > 2 * stat[PGPROMOTE_SUCCESS]
    assert stat[PGPROMOTE_CANDIDATE] == stat[PGPROMOTE_SUCCESS] == stat[NUMA_FAULT_PROMOTIONS]
    assert stat[PGPROMOTE_CANDIDATE_NRL] == stat[PGMIGRATE_FAIL] == 0


def test_hint_fault_hotset_curve(observed: list[tuple[float, Any]]) -> None:
    """hint_fault_hotset.csv from second 3 on: hot pages exactly, others within 10 % of the class; totals within 5 %.

    The bursts of marking fall on other seconds: ours begin at 1.0, 2.9, 5.1, 9.1, 17 and 33 s, the kernel's at about
    1.3, 3.7, 6.0, 16.3 and 37 s, so that between two bursts the counts differ by up to a burst's worth. Two things that
    are not recorded make the difference: what marking a PTE takes (32 times that CPU time passes before the next scan),
    and how many small mappings the program has (from the third sweep on each of them takes a scan of its own).
    """
    ours = {round(second): state for second, state in observed}
    for row in curve("hint_fault_hotset.csv"):
        if row["second"] < 3:
            continue
        found = np.array(ours[row["second"]][0])
        seen = np.array([row[f"{name}_on_fast"] for name in ("hot", "warm", "cold")])
        assert found[0] == seen[0] == 4096
        assert (np.abs(found - seen) / SIZE).max() < 0.10, row["second"]
    marked, _, promoted = ours[40][1]
    last = curve("hint_fault_hotset.csv")[-1]
    assert marked == pytest.approx(last["ptes_marked"], rel=0.05)
    assert promoted == pytest.approx(last["promoted"], rel=0.05)


def test_hint_fault_hotset_beginning(observed: list[tuple[float, Any]]) -> None:
    """What does not depend on the bursts: nothing before the scan delay, all marked by second 2, hot pages first."""
    ours = {round(second): state for second, state in observed}
    assert ours[1][0] == (0, 0, 0)
    assert ours[2][1][0] == PAGES
    assert ours[2][0][0] == pytest.approx(4090, rel=0.01)
    for second in range(2, 41):
        _, (marked, faults, promoted) = ours[second]
        assert promoted <= faults <= marked


def charged(promoting: bool, seed: int = 1) -> tuple[float, int, int]:
    """(guest instructions charged for hint faults, faults, promotions) of a run where all faults promote, or few."""
    nodes = {"fast_pages": 3 << 18} if promoting else {"fast_pages": 512, "sysctls": {"demotion_enabled": 0}}
    system = hinted(duration_s=6, seed=seed, kernel="6.18", **nodes)
    system.run()
    faults, promoted = (int(system.mm.stat[k]) for k in (NUMA_HINT_FAULTS, PGPROMOTE_SUCCESS))
    return system.fault_spent() / 2000, faults, promoted


def test_hint_fault_costs() -> None:
    """CPU time charged a hint fault: 2300 instructions, with the promotion of its page 10070."""
    spent, faults, promoted = charged(promoting=True)
    assert promoted == faults > 10_000
    assert spent / faults == pytest.approx(10_070, rel=0.01)
    spent, faults, promoted = charged(promoting=False)
    assert promoted < 0.05 * faults
    assert (spent - promoted * 10_070) / (faults - promoted) == pytest.approx(2_300, rel=0.01)


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
