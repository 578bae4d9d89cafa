"""Whole runs on small machines: the same bytes whatever the chunk, laws, orderings, and every kind of run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from small_runs import Neighbours, Quarter, Touched, Watcher, kv, machine, run

from klrubench.mm import Kpromoted, Pghot
from klrubench.simulate import RunResult, feed, simulate
from klrubench.simulate.system import System
from klrubench.study.plugins import find_workload

POLICIES = ("klruscand", "numa_balancing", "random_sampling")


def as_bytes(result: RunResult) -> str:
    return json.dumps(result.to_dict(), sort_keys=True)


# --- the same bytes -------------------------------------------------------------------------------------------------
KINDS: dict[str, dict[str, Any]] = {
    "plain": {}, "open loop": {"open_loop": True}, "duty cycle": {"busy_s": 0.7, "idle_s": 0.4},
    "2 MiB pages": {"page": "2m", "placement": "lower"},
}  # fmt: skip


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_chunk_is_never_visible(policy: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words made and served 1, 7, 4096 or 65,536 at a time, from memory or made again: one result."""
    monkeypatch.setattr(feed, "KEEP_WORDS", (1 << 30) if kept else 0)
    feed.forget_feeds()
    results = {
        as_bytes(run(policy, kv(footprint_gib=0.125), duration_s=5, chunk=chunk)) for chunk in (1, 7, 4096, 65_536)
    }
    feed.forget_feeds()
    assert len(results) == 1


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_chunk_is_never_visible_in_other_kinds_of_run(kind: str) -> None:
    """Open loop, sleep, huge pages; hint faults ask for stops in between."""
    for policy in ("klruscand", "numa_balancing"):
        results = {as_bytes(run(policy, kv(**KINDS[kind]), duration_s=4, chunk=chunk)) for chunk in (5, 1000, 65_536)}
        assert len(results) == 1


@pytest.mark.parametrize("kept", [True, False])
def test_the_chunk_is_never_visible_with_several_tenants(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their turns go on where the words of one ran out; kernel threads stall all of them."""
    monkeypatch.setattr(feed, "KEEP_WORDS", (1 << 30) if kept else 0)
    for policy in POLICIES:
        feed.forget_feeds()
        pair = Neighbours(footprint_gib=0.25)
        shared = {"duration_s": 3, "fold": 4, "daemon_cpus": "shared"}
        assert len({as_bytes(run(policy, pair, chunk=chunk, **shared)) for chunk in (3, 501, 65_536)}) == 1
    feed.forget_feeds()


def test_a_run_is_a_pure_function_of_its_seed() -> None:
    assert as_bytes(run("klruscand", kv())) == as_bytes(run("klruscand", kv()))
    assert as_bytes(run("klruscand", kv())) != as_bytes(run("klruscand", kv(), seed=2))


# --- laws and orderings ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "policy", [*POLICIES, "random_promotion", "oracle_window", "oracle_static", "first_touch", "all_top", "all_lower"]
)
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_counter_balances_in_every_kind_of_run(policy: str, kind: str) -> None:
    """hits + misses = touches, here; frames, lists and residents, in the run itself."""
    result = run(policy, kv(**KINDS[kind]), fold=8).metrics
    assert result["misses"] + result["cached"] == result["accesses"]
    assert 0 <= result["hits_top"] <= result["misses"]
    assert result["time_s"] >= result["ideal_time_s"] * 0.999
    assert result["charged_time_s"] >= result["time_s"]
    unit = 512 * 8 if kind == "2 MiB pages" else 8
    assert result["promoted_pages"] % unit == 0 and result["demoted_pages"] % unit == 0


@pytest.mark.parametrize("workload", ["kv", "gups", "zipf"])
def test_all_on_the_top_tier_is_fastest_and_all_below_slowest_without_migration(workload: str) -> None:
    where = find_workload(workload)(footprint_gib=0.25, rate=40.0)
    time = {
        policy: run(policy, where, duration_s=3).metrics["time_s"]
        for policy in ("all_top", "oracle_static", "first_touch", "all_lower", *POLICIES)
    }
    assert time["all_top"] < time["oracle_static"] <= time["first_touch"] < time["all_lower"]
    assert min(time.values()) == time["all_top"]


@pytest.mark.parametrize("policy", [*POLICIES, "random_promotion"])
def test_where_all_pages_are_alike_a_policy_is_placement_less_its_cost(policy: str) -> None:
    """The hit share is first touch's, but for pages kept free and touches whose own fault has moved the page."""
    workload = find_workload("uniform")(footprint_gib=0.5)
    still = run("first_touch", workload, fold=4, duration_s=8).metrics
    moved = run(policy, workload, fold=4, duration_s=8).metrics
    in_fault = moved["promoted_pages"] / moved["accesses"] if policy == "numa_balancing" else 0.0
    emptier = (moved["demoted_pages"] - moved["promoted_pages"]) / moved["pages"]
    noise = math.sqrt(0.25 / (moved["accesses"] / 4))
    assert moved["promoted_pages"] > 1000
    assert abs(moved["dram_hit_share"] - in_fault - still["dram_hit_share"]) < 4 * noise + max(0.0, emptier)
    assert moved["time_s"] >= still["time_s"] * (1 - 4 * noise * 0.01)
    assert moved["charged_time_s"] > still["charged_time_s"]


@pytest.mark.parametrize("policy", POLICIES)
def test_promotions_fade_where_the_working_set_fits(policy: str) -> None:
    """A quarter of memory in use, half of it on the top tier: all of the quarter goes up, then nothing moves."""
    result = run(
        policy, Quarter(footprint_gib=0.25, placement="lower", rate=2.0), where=machine((1, 1)), duration_s=36, fold=4
    )
    promoted = np.array(result.series["pgpromote_success"])
    moved = int(result.metrics["promoted_pages"])
    assert moved > 0.98 * result.metrics["pages"] / 4
    assert promoted[-1] - promoted[len(promoted) * 2 // 3] < 0.005 * moved
    assert result.metrics["demoted_pages"] == 0 and result.metrics["steady_dram_hit_share"] > 0.98


# --- kinds of run ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "policy", [*POLICIES, "first_touch", "all_top", "oracle_static", "oracle_window", "random_promotion"]
)
def test_several_tenants_run_side_by_side(policy: str) -> None:
    """Each does its own work in its own pages; only the machine's tiers and kernel threads are shared."""
    result = run(policy, Neighbours(footprint_gib=0.25), fold=4)
    first, second = result.tenants
    assert result.metrics["pages"] == 65_536 + round(0.06 * (1 << 18)) and result.metrics["threads"] == 6
    assert all(5.999 <= tenant["time_s"] < 7.0 for tenant in (first, second))
    if policy == "all_top":
        assert first["dram_hit_share"] == second["dram_hit_share"] == 1.0


def test_tenants_slow_each_other_down_only_by_bandwidth() -> None:
    """A tenant beside an idle-ish neighbour takes its own time to 0.1 %."""
    alone = run("all_top", Quarter(footprint_gib=0.25, rate=3.0, threads=4), fold=4).metrics["time_s"]
    beside = run("all_top", Neighbours(footprint_gib=0.25), fold=4).tenants[0]["time_s"]
    assert beside == pytest.approx(alone, rel=1e-3)


def test_huge_pages_move_whole_and_keep_moving_when_the_top_tier_is_full() -> None:
    """One report a huge page and pass; a refused one wakes kswapd for a whole folio."""
    for policy in ("klruscand", "numa_balancing"):
        result = run(
            policy, kv(footprint_gib=1.0, page="2m", placement="lower", rate=0.02), fold=1, duration_s=30
        ).metrics
        assert result["promoted_pages"] >= 300 * 512 * 0.5
        assert result["demoted_pages"] > 0
        assert result["promoted_pages"] % 512 == 0


def test_a_duty_cycle_sleeps_between_its_busy_phases() -> None:
    """Half of the work in the time of the whole, less the last sleep; walks skip an address space that did not run."""
    workload = kv(busy_s=1.0, idle_s=1.0)
    result = run("all_top", workload, duration_s=6).metrics
    assert result["accesses"] == pytest.approx(run("all_top", kv(), duration_s=6).metrics["accesses"] / 2, rel=1e-3)
    assert result["time_s"] == pytest.approx(5.0, rel=0.01)
    watcher = Watcher()
    simulate(machine(), kv(busy_s=1.0, idle_s=3.0, placement="lower"), watcher, 1, duration_s=12, fold=8)
    young = [n for _, n in watcher.passes]
    asleep = [n for second, n in watcher.passes if 1.01 < second % 4 < 3.99 and int(second % 4 / 0.504) > 2]
    assert len(asleep) >= 8 and not any(asleep) and min(young[1], young[-1]) > 1000


def test_an_open_loop_keeps_its_arrival_rate() -> None:
    """Waits absorb the lower tier's latency: all placements take the same time; a closed loop is slower below."""
    times = {
        policy: run(policy, kv(open_loop=True, rate=10.0), duration_s=4).metrics["time_s"]
        for policy in ("all_top", "all_lower", "klruscand")
    }
    assert times["all_top"] == pytest.approx(4.0, rel=1e-3)
    assert times["all_lower"] == pytest.approx(times["all_top"], rel=1e-4)
    closed = run("all_lower", kv(rate=10.0), duration_s=4).metrics["time_s"]
    assert closed > times["all_lower"]


@pytest.mark.parametrize("policy", ["klruscand", "random_sampling"])
def test_kernel_threads_on_the_tenants_cpus_cost_time(policy: str) -> None:
    """Shared: longer by about the threads' CPU time over the tenants' threads, as the charged time says."""
    spare, shared = (run(policy, kv(), daemon_cpus=cpus).metrics for cpus in ("spare", "shared"))
    assert shared["time_s"] > spare["time_s"]
    assert shared["charged_time_s"] == shared["time_s"]
    assert shared["time_s"] - spare["time_s"] == pytest.approx(spare["charged_time_s"] - spare["time_s"], rel=0.5)


def test_pghot_alone_promotes_nothing_of_what_it_was_told() -> None:
    """Records without kpromoted stay records: gauges count them, the heap holds the hot ones, no page moves."""

    class Told(Watcher):
        def start(self, system: System) -> None:
            self.pghot = system.add(Pghot())
            super().start(system)

        def scan(self, system: System) -> Iterator[Any]:
            for _ in range(3):
                self.pghot.record(np.arange(100, dtype=np.uint32) + 5000, source="pgtable_scan")
                yield system.sleep_ms(100)

    result = simulate(machine(), Touched(footprint_gib=0.125, placement="lower"), Told(), 1, duration_s=2, fold=2)
    assert result.vmstat["pghot_records_hash"] == 200 and result.vmstat["pghot_records_heap"] == 200
    assert result.vmstat["pghot_recorded_accesses"] == 600 and "pgpromote_success" not in result.vmstat
    assert Kpromoted.metadata_bytes == 0 and result.metrics["metadata_bytes"] == 100 * 2 * 40
