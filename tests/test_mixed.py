"""Several tenants on one machine: `mixed`, the loop that takes their turns, what they share,
and how they are reported.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Neighbours, Quarter, machine, run

from klrubench.engine.access import AHEAD, CLOCK, LOG_FULL, N_CATEGORIES, TOUCH, run_touches
from klrubench.engine.latency import QUANTUM_PS
from klrubench.engine.quantum import NEXT_PS, end_quantum
from klrubench.errors import ParameterError
from klrubench.mm.state import MM_RAN
from klrubench.report.tenants import tenant_columns, tenant_lines
from klrubench.report.text import table
from klrubench.simulate import Options, RunResult, feed, simulate
from klrubench.simulate.build import build, memcg_names, side_by_side
from klrubench.simulate.system import System
from klrubench.simulate.truth import window_counts
from klrubench.study.plugins import find_policy, find_workload, workload_source
from klrubench.study.spec import full_accesses, workload_part
from klrubench.study.tenants import jain, shared, speeds
from klrubench.workload import Layout, Stream, Workload

POLICIES = ("klruscand", "numa_balancing", "random_sampling")
SMALL = {"footprint_gib": 0.5, "busy_s": 1.0, "idle_s": 2.0}


def mixed(**values: Any) -> Workload:
    return find_workload("mixed")(**{**SMALL, **values})


def as_bytes(result: RunResult) -> str:
    return json.dumps(result.to_dict(), sort_keys=True)


def system_of(
    workload: Workload, policy: str = "first_touch", duration_s: float = 6, fold: int = 4, **options: Any
) -> System:
    chosen = find_policy(policy)()
    system = build(machine(), workload, chosen, 1, duration_s, fold, Options(**options))
    chosen.start(system)
    return system


# --- the workload ---------------------------------------------------------------------------------------------------
def test_mixed_is_three_unlike_tenants() -> None:
    kv, gups, idle = mixed(rate=3.0, pace=4.0, threads=9).tenants()
    assert memcg_names([kv, gups, idle]) == ["kv", "gups", "idle"]
    assert (kv.rate, gups.rate, idle.rate) == (3.0, 12.0, 3.0)
    assert [each.threads for each in (kv, gups, idle)] == [3, 3, 3]
    assert (idle.busy_s, idle.idle_s, kv.busy_s, gups.idle_s) == (1.0, 2.0, 0.0, 0.0)
    assert sum(each.footprint_gib for each in (kv, gups, idle)) == pytest.approx(0.5)


def test_the_members_belong_to_the_identity_of_a_run() -> None:
    paths = {path for path, _ in workload_source("mixed").files}
    assert {f"workloads/{name}.py" for name in ("mixed", "kv", "gups", "zipf")} <= paths


@pytest.mark.parametrize("name", ["mlp", "read_share", "touches", "compute_ns"])
def test_what_each_tenant_keeps_for_itself_cannot_be_set(name: str) -> None:
    with pytest.raises(ParameterError, match=f"mixed.{name}"):
        find_workload("mixed")(**{name: 0.5 if name == "read_share" else 7})


def test_the_scale_is_chosen_by_the_touches_of_all_tenants() -> None:
    kv, gups, idle = find_workload("mixed")().tenants()
    pages = [each.full_pages() for each in (kv, gups, idle)]
    expected = 60 * (2 * pages[0] + 10 * pages[1] + 2 * pages[2] / 6)
    assert full_accesses(machine(), workload_part("mixed"), 60) == pytest.approx(expected, rel=1e-6)


def test_memcgs_of_one_kind_are_numbered() -> None:
    kv = find_workload("kv")()
    assert memcg_names([kv, find_workload("zipf")(), kv, kv]) == ["kv", "zipf", "kv-2", "kv-3"]


# --- the loop -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("policy", POLICIES)
def test_the_chunk_is_never_visible(policy: str) -> None:
    results = {as_bytes(run(policy, mixed(), duration_s=6, fold=16, chunk=chunk)) for chunk in (7, 4096, 65_536)}
    assert len(results) == 1


def test_streams_that_are_not_kept_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    feed.forget_feeds()
    kept = as_bytes(run("oracle_window", mixed(), daemon_cpus="shared"))
    monkeypatch.setattr(feed, "KEEP_WORDS", 0)
    feed.forget_feeds()
    assert as_bytes(run("oracle_window", mixed(), daemon_cpus="shared")) == kept
    feed.forget_feeds()


def test_a_run_is_a_pure_function_of_its_seed() -> None:
    assert as_bytes(run("klruscand", mixed())) == as_bytes(run("klruscand", mixed()))
    assert as_bytes(run("klruscand", mixed())) != as_bytes(run("klruscand", mixed(), seed=2))


def in_turn(system: System, deadline: int) -> None:
    """The slow twin of the loop over tenants: one quantum a call, each tenant in Python, in the rotated order."""
    e, tenants = system.engine, system.tenants
    limit = min(deadline, system.kernel_threads.first_ps(), int(system.quantum[NEXT_PS]))
    first = int(system.quantum[NEXT_PS]) // QUANTUM_PS % len(tenants)
    for tenant in tenants[first:] + tenants[:first]:
        t, own = tenant.index, slice(tenant.first_page, tenant.first_page + tenant.pages)
        words64 = slice(tenant.first_page // 8, (tenant.first_page + tenant.pages) // 8)
        while system.state[t, CLOCK] < limit and not tenant.finished:
            allowed = system._limit(tenant)
            words, count = tenant.feed.window(tenant.touches, min(allowed, 1000))
            assert len(words) >= count + AHEAD
            served, reason = run_touches(
                e.pte[own], e.pte64[words64], words, count, e.tenants[t], e.counts[t], e.cost[t], limit, e.shape[t, 2],
                e.op_hist[t], e.fault[0], e.fault[1], tenant.first_page, e.fault_log,
            )  # fmt: skip
            system.mm.mms[t, MM_RAN:] = 1
            system._pause(tenant)
            if reason == LOG_FULL or served == allowed:
                break
    waiting = [int(system.state[tenant.index, CLOCK]) for tenant in tenants if not tenant.finished]
    now = min(waiting) if waiting else limit
    if now >= system.quantum[NEXT_PS]:
        end_quantum(e, now)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("workload", [mixed(), Neighbours(footprint_gib=0.25)], ids=["mixed", "neighbours"])
def test_the_loop_over_tenants_against_its_twin(policy: str, workload: Workload) -> None:
    """Clocks, counts, page bytes and counters, to the last bit; hint faults ask for stops in between."""
    ends = []
    for twin in (False, True):
        system = system_of(workload, policy, daemon_cpus="shared")
        if twin:
            system._advance_together = lambda deadline, own=system: in_turn(own, deadline)  # type: ignore[method-assign, misc]
        system.run()
        ends.append(
            [system.state.tobytes(), system.counts.tobytes(), system.mm.pte.tobytes(), system.mm.stat.tobytes()]
        )
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    "policy", [*POLICIES, "random_promotion", "oracle_window", "oracle_static", "all_top", "all_lower"]
)
def test_every_tenant_does_its_own_work(policy: str) -> None:
    """The run checks the laws, of each tenant too; rows add up to the whole."""
    result = run(policy, mixed(), duration_s=6, fold=8)
    rows, metrics = result.tenants, result.metrics
    assert sum(row["accesses"] for row in rows) == metrics["accesses"]
    assert sum(row["pages"] for row in rows) == metrics["pages"]
    assert sum(row["dram_pages"] for row in rows) == result.series["nr_top_pages"][-1]
    assert metrics["time_s"] == pytest.approx(sum(row["time_s"] for row in rows) / 3)
    assert rows[2]["time_s"] - rows[2]["work_s"] == pytest.approx(2.0)  # 6 s: awake in the first and the fourth
    assert all(row["work_s"] >= 0.999 * ideal for row, ideal in zip(rows, (6.0, 6.0, 2.0), strict=True))
    if policy == "all_top":
        assert all(row["dram_hit_share"] == 1.0 for row in rows)


def test_tenants_are_steady_from_the_half_of_their_own_work() -> None:
    result = run("first_touch", mixed(), duration_s=6)
    steady = [row["steady_work_s"] / row["work_s"] for row in result.tenants]
    assert steady == pytest.approx([0.5, 0.5, 0.5], abs=0.02)


# --- what they share ------------------------------------------------------------------------------------------------
@given(st.lists(st.integers(1, 300), min_size=1, max_size=5))
@settings(deadline=None, max_examples=50)
def test_first_touches_go_side_by_side(sizes: list[int]) -> None:
    """Every page once; each tenant in its own order; at any time all have touched the same share, to a page."""
    orders = [1000 * k + np.arange(size)[::-1] for k, size in enumerate(sizes)]
    merged = side_by_side(orders)
    for k, order in enumerate(orders):
        own = merged // 1000 == k
        assert np.array_equal(merged[own], order)
        shares = np.cumsum(own) - np.arange(1, len(merged) + 1) * len(order) / len(merged)
        assert np.abs(shares).max() <= len(sizes)


def test_dram_is_shared_alike_at_the_start() -> None:
    for tenant in run("first_touch", mixed(), duration_s=1, fold=4).tenants:
        assert tenant["dram_pages"] / tenant["pages"] == pytest.approx(1 / 3, abs=0.01)


class Five(Workload):
    """Five small tenants."""

    def tenants(self) -> list[Workload]:
        return [Quarter(footprint_gib=0.04, rate=2.0 + k, threads=1) for k in range(5)]


def test_many_tenants_keep_their_own_streams() -> None:
    """Each has a buffer of its own, whatever else is kept: the same result from an empty cache and from a full one."""
    feed.forget_feeds()
    alone = as_bytes(run("first_touch", Five(), fold=4))
    for seed in (2, 3):
        run("first_touch", Five(), fold=4, seed=seed)
    assert as_bytes(run("first_touch", Five(), fold=4)) == alone
    feeds = [tenant.feed for tenant in system_of(Five()).tenants]
    assert len({each.words.ctypes.data for each in feeds}) == 5


def test_seconds_and_touches_of_a_tenant_that_sleeps() -> None:
    idle = system_of(mixed(), duration_s=9).tenants[2]
    assert [
        idle.touch_at_s(second) / idle.busy_touches for second in (0, 0.5, 1, 2.9, 3.5, 4, 6.9, 60)
    ] == pytest.approx([0, 0.5, 1, 1, 1.5, 2, 2.9, 3], abs=1e-3)
    for second in (0.25, 0.75, 3.5, 6.25):
        assert idle.second_of(idle.touch_at_s(second)) == pytest.approx(second, abs=1e-3)


def test_truth_of_a_sleeping_tenant_is_where_it_is_awake() -> None:
    """40 s in windows of 10 s: awake in seconds 0-4 and 20-24."""
    system = system_of(mixed(busy_s=4.0, idle_s=16.0), duration_s=40)
    counts, idle = window_counts(system), system.tenants[2]
    own = counts[:, idle.first_page : idle.first_page + idle.feed.pages].sum(axis=1) / idle.accesses
    assert own == pytest.approx([0.5, 0, 0.5, 0], abs=0.01)
    assert counts.sum() == sum(tenant.accesses for tenant in system.tenants)


def test_a_sleeping_tenant_costs_nobody_anything() -> None:
    """While idle sleeps the others run as if it were not there."""
    beside = run("all_top", mixed(busy_s=0.5, idle_s=60), duration_s=6).tenants
    whole = run("all_top", mixed(idle_s=0), duration_s=6).tenants
    for awake, asleep in zip(whole[:2], beside[:2], strict=True):
        assert asleep["work_s"] <= awake["work_s"] * 1.0001


class Pair(Workload):
    """The same program twice, at full speed on one lower node."""

    def tenants(self) -> list[Workload]:
        return [Quarter(footprint_gib=0.125, rate=0.0, compute_ns=1.0, threads=16, mlp=10.0) for _ in range(2)]


def test_equal_tenants_are_served_alike() -> None:
    """No tenant has an advantage from its place in the order of turns, even where bandwidth is scarce."""
    rows = run("all_lower", Pair(), duration_s=0.5, fold=1).tenants
    assert rows[0]["work_s"] == pytest.approx(rows[1]["work_s"], rel=1e-3)
    assert rows[0]["work_s"] > 2 * 0.5


# --- reports --------------------------------------------------------------------------------------------------------
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=9))
@settings(deadline=None)
def test_jains_index_is_between_one_nth_and_one(values: list[float]) -> None:
    assert 1 / len(values) - 1e-9 <= jain(values) <= 1 + 1e-9
    assert jain([values[0]] * 4) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)


def flat(seed: int, *times: float) -> dict[str, Any]:
    rows = [
        {"memcg": name, "workload": name, "threads": 2, "pages": 1 << 18, "work_s": time, "time_s": time + 1,
         "dram_hit_share": 0.5, "steady_dram_hit_share": 0.6, "dram_pages": 1 << 17, "op_p99_ns": None}
        for name, time in zip(("a", "b"), times, strict=False)
    ]  # fmt: skip
    return {"seed": seed, "tenants_json": json.dumps(rows)}


def test_each_tenant_is_compared_with_itself_on_paired_seeds() -> None:
    base, own = [flat(1, 10, 20), flat(2, 20, 20)], [flat(1, 11, 40), flat(2, 22, 40), flat(3, 1, 1)]
    found = shared(own, base)
    assert [row["slowdown_pct"] for row in found["tenants"]] == pytest.approx([10, 100])
    assert found["jain"] == pytest.approx(jain([1 / 1.1, 0.5])) and found["least_most"] == pytest.approx(0.55)
    assert found["tenants"][0]["dram_hit_share"] == 0.5 and found["tenants"][0]["op_p99_ns"] is None
    assert speeds([{"work_s": 4}], [{"work_s": 2}]) == [0.5]
    assert shared([{"seed": 1, "tenants_json": "[]"}], base) == {} and shared(own, []) == {}


def test_tables_have_a_column_a_memcg_and_a_line_a_tenant() -> None:
    rows = [{"policy": "x", **shared([flat(1, 11, 40)], [flat(1, 10, 20)])}, {"policy": "no runs"}]
    text = "\n".join(table([column for group in tenant_columns(rows) for column in group]))
    assert all(word in text for word in ("a", "b", "Jain", "10.0", "100", "0.550"))
    lines = tenant_lines(json.loads(flat(1, 11, 40)["tenants_json"]), json.loads(flat(1, 10, 20)["tenants_json"]))
    assert len(lines) == 4 and "100.00" in lines[3] and "a " in lines[2]
    assert tenant_columns([{"policy": "alone"}]) == [] and tenant_lines([{"memcg": "kv"}]) == []


class Halves(Workload):
    """A tenant whose stream says nothing but zeros: two of them differ in pages only."""

    def stream(self, layout: Layout) -> Stream:
        return Zeros()


class Zeros:
    """Touches of page 0."""

    def fill(self, out: np.ndarray, first: int) -> None:
        out[:] = 0


def test_every_touch_goes_to_its_own_tenant() -> None:
    """Page 0 of each: one page a tenant has its accessed bit set again after the start."""

    class Two(Workload):
        def tenants(self) -> list[Workload]:
            return [Halves(footprint_gib=0.04, threads=1), Halves(footprint_gib=0.08, threads=1)]

    system = system_of(Two(), duration_s=1)
    system.mm.pte[:] &= np.uint8(0xFB)
    system.run()
    touched = np.flatnonzero(system.mm.pte & 4)
    assert touched.tolist() == [tenant.first_page for tenant in system.tenants]
    assert system.counts.shape == (2, N_CATEGORIES) and (system.counts.sum(axis=1) == system.state[:, TOUCH]).all()


def test_slowdowns_of_tenants_meet_those_of_the_whole() -> None:
    base, own = (
        simulate(machine(), mixed(), find_policy(name)(), 1, duration_s=4, fold=8) for name in ("all_top", "all_lower")
    )
    rates = speeds(own.tenants, base.tenants)
    expected = [1 + tenant.timing.all_lower_slowdown_percent() / 100 for tenant in system_of(mixed()).tenants]
    assert [1 / rate for rate in rates] == pytest.approx(expected, rel=0.02)
    assert 0.9 < jain(rates) <= 1 and math.isfinite(jain(rates))
