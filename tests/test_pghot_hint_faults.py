"""Hint faults that record in pghot: what is recorded when, who pays, and who promotes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from klrubench.engine.bits import NODE_MASK
from klrubench.errors import ParameterError
from klrubench.machine import Machine, load_machine
from klrubench.mm.state import (
    KMIGRATED_TAKEN,
    KPROMOTED_POPPED,
    NUMA_FAULT_PROMOTIONS,
    NUMA_HINT_FAULTS,
    NUMA_HINT_FAULTS_LOCAL,
    PGHOT_HINTFAULTS,
    PGHOT_RECORDED,
    PGPROMOTE_SUCCESS,
)
from klrubench.simulate import Options, RunResult, System, simulate
from klrubench.study.plugins import find_policy, find_workload
from klrubench.workload import Workload

VERSIONS = ("v1", "v2", "v3", "v5-compact", "v5-precise")
PAGES, FOLD = 1 << 16, 16
IDS = PAGES // FOLD


def machine(**sysctls: Any) -> Machine:
    return load_machine("cxl-asic", ratio=(9, 1), sysctls=sysctls)


def uniform(rate: float = 6.0, **values: Any) -> Workload:
    made: Workload = find_workload("uniform")(footprint_gib=0.25, rate=rate, **{"placement": "lower", **values})
    return made


class Seen:
    """What a store was told: (tenant's page, jiffies, node, source) of each record, and the system."""

    def __init__(self) -> None:
        self.records: list[tuple[int, int, int, str]] = []
        self.at: list[tuple[float, list[int]]] = []
        self.promoted_after: Counter[int] = Counter()

    def watch(self, system: System) -> None:
        self.system = system
        store = next(each.store for each in system.mechanisms if hasattr(each, "store"))
        record = store.record

        def spy(pages: np.ndarray, source: str, nid: int = -1) -> None:
            self.records += [(int(page), system.now_ps, nid, source) for page in pages]
            record(pages, source=source, nid=nid)

        store.record = spy
        counters = [NUMA_HINT_FAULTS, PGHOT_HINTFAULTS, PGPROMOTE_SUCCESS]
        system.every_ms(100, lambda: self.at.append((system.now_ms, system.mm.stat[counters].tolist())))


def run(workload: Workload, seconds: float, where: Machine | None = None, **values: Any) -> tuple[Seen, RunResult]:
    seen = Seen()
    policy = find_policy("pghot_hint_faults")(**values)
    result = simulate(where or machine(), workload, policy, 1, duration_s=seconds, fold=FOLD, watch=seen.watch)
    return seen, result


@pytest.mark.parametrize("version", VERSIONS)
def test_each_fault_on_a_lower_page_is_one_record_and_promotes_nothing(version: str) -> None:
    """simulate() checks conservation; what is promoted, a thread of pghot has taken before."""
    seen, result = run(uniform(), 8, pghot=version)
    stat = seen.system.mm.stat
    faults = int(stat[NUMA_HINT_FAULTS] - stat[NUMA_HINT_FAULTS_LOCAL])
    assert faults == stat[PGHOT_HINTFAULTS] == stat[PGHOT_RECORDED] == len(seen.records) > IDS
    assert stat[NUMA_FAULT_PROMOTIONS] == 0
    taken = int(stat[KMIGRATED_TAKEN] + stat[KPROMOTED_POPPED])
    assert 0 < stat[PGPROMOTE_SUCCESS] <= taken
    assert {record[2:] for record in seen.records} == {(0, "hint_fault")}
    assert result.vmstat["pghot_record_hintfaults"] == faults * FOLD
    threshold = 3 if version == "v3" else 2
    counted = Counter(record[0] for record in seen.records)
    moved = np.flatnonzero((seen.system.mm.pte[:IDS] & NODE_MASK) == 0).tolist()
    assert moved and min(counted[page] for page in moved) == threshold


@pytest.mark.parametrize(("version", "threshold"), [("v2", 2), ("v5-precise", 2), ("v5-precise", 3)])
def test_promotion_begins_with_the_fault_that_reaches_the_threshold(version: str, threshold: int) -> None:
    """A sweep each 2 s: while every page has faulted less often, none is promoted; from then on nearly all."""
    seen, _ = run(uniform(), 8, pghot=version, threshold=threshold)
    before = [row for _, row in seen.at if row[1] <= (threshold - 1) * IDS]
    assert before[-1][0] == before[-1][1] > (threshold - 1.01) * IDS
    assert all(row[2] == 0 for row in before)
    after = next(row for _, row in seen.at if row[1] > (threshold - 0.01) * IDS)
    assert after[2] > 0.4 * IDS


@pytest.mark.parametrize("version", ["v2", "v5-precise"])
def test_a_long_gap_counts_in_v2_and_not_in_v5(version: str) -> None:
    """Sweeps every 2 s and a window of 1 s: v2 exempts hint faults from the rule of gaps."""
    seen, _ = run(uniform(), 8, pghot=version, window_ms=1000, scan_period_min_ms=4000)
    promoted = int(seen.system.mm.stat[PGPROMOTE_SUCCESS])
    assert promoted > 0.5 * IDS if version == "v2" else promoted < 0.02 * IDS


def test_records_are_made_within_64_faults_or_10_ms() -> None:
    """Times never go back in one tenant, and lie between those of the ticks around them, or 10 ms before."""
    seen, _ = run(uniform(), 3)
    times = [record[1] for record in seen.records]
    assert times == sorted(times) and max(Counter(times).values()) <= 64
    for (ms, row), (later_ms, later) in zip(seen.at, seen.at[1:], strict=False):
        between = seen.records[row[1] : later[1]]
        assert all(ms - 10 <= at / 1e9 <= later_ms for _, at, _, _ in between)
        assert later[0] - later[1] <= 64


def test_the_tenant_pays_for_each_record() -> None:
    """v5 has one price a record; the stall of the fault itself is that of a hint fault."""
    seen, result = run(uniform(), 3, pghot="v5-precise")
    n, costs = len(seen.records), seen.system.machine.costs
    assert result.cpu["pghot_record_access"] == pytest.approx(n * FOLD * costs["pghot_record"].ns / 1e9)
    assert result.cpu["hint faults"] == pytest.approx(n * FOLD * costs["hint_fault"].ns / 1e9)
    assert "pghot_record_access" not in result.daemon_threads


@pytest.mark.parametrize("version", ["v2", "v5-precise"])
def test_several_tenants_with_sleep(version: str) -> None:
    """Each fault of each tenant is recorded as of its time, and each pays for its own."""
    workload = find_workload("mixed")(footprint_gib=0.5, busy_s=1.0, idle_s=1.0, rate=6.0, placement="lower")
    seen, result = run(workload, 6, pghot=version, scan_size_mb=64)
    system = seen.system
    stat = system.mm.stat
    assert stat[NUMA_HINT_FAULTS] == stat[PGHOT_HINTFAULTS] == len(seen.records) > 1000
    assert stat[NUMA_FAULT_PROMOTIONS] == 0 < stat[PGPROMOTE_SUCCESS]
    pages = np.array([record[0] for record in seen.records])
    for tenant in system.tenants:
        own = np.count_nonzero((pages >= tenant.first_page) & (pages < tenant.first_page + tenant.pages))
        price = FOLD * system.machine.costs["pghot_record"].ns * 1000
        assert own > 0
        if version != "v2":
            paid = tenant.stalled_ps["pghot_record_access"] * tenant.threads
            assert paid == pytest.approx(own * price, rel=1e-3)
    assert seen.records == sorted(seen.records, key=lambda record: record[1] // 10_000_000_000)
    assert result.cpu["pghot_record_access"] > 0


@pytest.mark.parametrize("workload", [uniform(), find_workload("mixed")(footprint_gib=0.5, rate=2.0)])
def test_where_the_stream_is_cut_does_not_show(workload: Workload) -> None:
    """The same run in chunks of 4096 words."""
    policy = find_policy("pghot_hint_faults")(pghot="v5-precise")
    whole, cut = (
        simulate(machine(), workload, policy, 1, duration_s=4, fold=FOLD, options=options).to_dict()
        for options in (Options(), Options(chunk=4096))
    )
    assert whole == cut and whole["vmstat"]["pghot_record_hintfaults"] > 0


def test_v0_is_not_a_choice() -> None:
    with pytest.raises(ParameterError, match="pghot"):
        find_policy("pghot_hint_faults")(pghot="v0")
