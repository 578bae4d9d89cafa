"""Whole runs on folios that several PTEs map: every policy, oracles, the rate of random promotion, mixed sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from folios import folios_of, ids_of
from small_runs import Quarter, Touched, kv, machine

from klrubench.engine.bits import NODE_MASK
from klrubench.machine import Machine
from klrubench.mm.state import (
    CAPACITY,
    PGPROMOTE_SUCCESS,
    PROMOTE_FOLIOS,
    TAIL_FRAMES,
    VMA_END,
    VMA_LEAF_ORDER,
    VMA_ORDER,
    VMA_START,
    WMARK_LOW,
)
from klrubench.simulate import Options, RunResult, simulate
from klrubench.simulate.system import System
from klrubench.simulate.truth import window_counts
from klrubench.study.plugins import find_policy
from klrubench.workload import PAGE_ORDERS, Workload

MIB = 1 / 1024


def run(
    policy: str, workload: Workload, values: dict[str, Any], where: Machine | None = None, duration_s: float = 4
) -> tuple[RunResult, System]:
    """A run at full size and the memory at its end."""
    seen: list[System] = []
    result = simulate(
        where or machine(), workload, find_policy(policy)(**values), 1, duration_s=duration_s, watch=seen.append
    )
    return result, seen[0]


def check_whole(system: System) -> None:
    """Each folio on one node, and as many frames behind heads as each node's counter says."""
    mm = system.mm
    for first, last, order, leaf in mm.vma[:, [VMA_START, VMA_END, VMA_ORDER, VMA_LEAF_ORDER]].tolist():
        nodes = (mm.pte[first:last] & NODE_MASK).reshape(-1, 1 << order - leaf)
        assert (nodes == nodes[:, :1]).all()
    tails = np.setdiff1d(ids_of(mm), folios_of(mm))
    resident = np.bincount(mm.pte[tails] & NODE_MASK, minlength=len(mm.node))
    assert mm.node[:, TAIL_FRAMES].tolist() == resident.tolist()


FAST: dict[str, Any] = {"interval_ms": 300}
POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("klruscand", {"preset": "rfc-v1", **FAST}),
    ("klruscand", {"preset": "pghot-v1", **FAST}),
    ("klruscand", {"pghot": "v2", **FAST}),
    ("klruscand", {"preset": "pghot-v3", **FAST}),
    ("klruscand", {"pghot": "v5-compact", **FAST}),
    ("klruscand", {"pghot": "v5-precise", "variant": "clean", **FAST}),
    ("klruscand_adaptive", {}),
    ("numa_balancing", {"mode": 2}),
    ("numa_balancing", {"mode": 3}),
    ("random_sampling", {**FAST}),
    ("random_promotion", {}),
    ("damon", {"tuner": "none", "access_bp": 0, "restart": "off"}),
    ("kmmscand", {"backoff": "off"}),
    ("ibs", {"period": 512}),
    ("chmu", {"rule": "pghot"}),
    ("chmu", {"rule": "hotlist", "epoch_ms": 100}),
    ("oracle_window", {"moves": "charged"}),
    ("oracle_static", {}),
]


@pytest.mark.parametrize("page", ["16k", "64k", "1m"])
@pytest.mark.parametrize(("policy", "values"), POLICIES)
def test_every_policy_runs_on_large_folios_and_moves_them_whole(policy: str, values: dict[str, Any], page: str) -> None:
    """simulate() checks the laws of conservation; here: whole folios, counted by their pages."""
    workload = Quarter(footprint_gib=64 * MIB, rate=4.0, page=page, placement="hot_on_lower")
    result, system = run(policy, workload, values)
    check_whole(system)
    size, promoted = 1 << PAGE_ORDERS[page], result.metrics["promoted_pages"]
    assert promoted == system.mm.stat[PROMOTE_FOLIOS] * size
    assert promoted or policy == "oracle_static"


def test_with_a_tlb_too() -> None:
    """1536 entries of 4 KiB; the accessed bit is set at a miss, each PTE has an entry of its own."""
    workload = Quarter(footprint_gib=64 * MIB, rate=4.0, page="64k", placement="hot_on_lower")
    for policy, values in (("klruscand", {"preset": "pghot-v3", **FAST}), ("numa_balancing", {"mode": 2})):
        result, system = run(policy, workload, values, machine(sysctls={"tlb/entries": 1536}))
        assert len(system.mm.tlb) and result.metrics["promoted_pages"]
        check_whole(system)


class Mixed(Workload):
    """Two tenants side by side, one of 4 KiB pages and one of large folios."""

    other = "64k"

    def tenants(self) -> list[Workload]:
        common: dict[str, Any] = {"placement": self.placement, "rate": 4.0}
        return [
            Quarter(footprint_gib=32 * MIB, **common),
            Touched(footprint_gib=32 * MIB, page=self.other, **common),
        ]


class MixedHuge(Mixed):
    """4 KiB and 2 MiB: each has frames of its own."""

    other = "2m"


@pytest.mark.parametrize("workload", [Mixed, MixedHuge])
@pytest.mark.parametrize(
    ("policy", "values"),
    [
        ("klruscand", {"preset": "pghot-v3", **FAST}),
        ("klruscand", {"pghot": "v2", **FAST}),
        ("numa_balancing", {"mode": 2}),
        ("kmmscand", {}),
        ("random_promotion", {}),
        ("oracle_window", {"moves": "charged"}),
    ],
)
def test_folios_of_two_sizes_share_a_machine(policy: str, values: dict[str, Any], workload: type[Workload]) -> None:
    """The run ends with all laws kept, and both tenants' folios whole."""
    result, system = run(policy, workload(placement="random"), values)
    check_whole(system)
    assert len(set(system.mm.vma[:, VMA_ORDER].tolist())) == 2
    assert result.metrics["promoted_pages"] >= system.mm.stat[PROMOTE_FOLIOS]
    assert result.metrics["promoted_pages"] or policy == "oracle_window"  # one window: placed so from the start


# --- single mechanisms in runs ----------------------------------------------------------------------------------------
def roomy(gib: float) -> Machine:
    """A top tier that holds everything."""
    base = machine()
    return replace(base, nodes=tuple(replace(node, capacity_gib=gib) for node in base.nodes))


@pytest.mark.parametrize(
    ("version", "page", "passes"),
    [
        ("v1", "64k", 2),
        ("v2", "64k", 2),
        ("v3", "64k", 1),
        ("v5-compact", "64k", 1),
        ("v5-precise", "64k", 1),
        ("v3", "4k", 3),
        ("v5-precise", "4k", 2),
        ("v5-precise", "2m", 2),
    ],
)
def test_from_v3_on_one_pass_over_young_ptes_makes_a_folio_hot(version: str, page: str, passes: int) -> None:
    """All young at every pass of 504 ms, the first at 0; what promotes looks within 100 ms."""
    policy = find_policy("klruscand")(interval_ms=500, pghot=version)
    seen: list[tuple[float, int]] = []

    def watch(system: System) -> None:
        system.every_ms(50, lambda: seen.append((system.now_ms, int(system.mm.stat[PGPROMOTE_SUCCESS]))))

    workload = Touched(footprint_gib=64 * MIB, rate=30.0, page=page, placement="lower")
    simulate(roomy(0.5), workload, policy, 1, duration_s=2, options=Options(phases=False), watch=watch)
    first_ms = next(now for now, promoted in seen if promoted)
    assert 504 * (passes - 1) <= first_ms <= 504 * (passes - 1) + 250


@pytest.mark.parametrize("rate_mib_s", [5, 40])
@pytest.mark.parametrize("page", ["4k", "64k", "1m", "2m"])
def test_random_promotion_keeps_to_its_rate_in_bytes(page: str, rate_mib_s: int) -> None:
    """Batches smaller than a folio are saved up for it."""
    workload = Touched(footprint_gib=256 * MIB, rate=1.0, page=page, placement="lower")
    result, system = run("random_promotion", workload, {"rate_mib_s": rate_mib_s}, roomy(1.0))
    most = rate_mib_s * system.now_ms / 1000 * 256
    assert 0.85 * most - (1 << PAGE_ORDERS[page]) <= result.metrics["promoted_pages"] <= most


@pytest.mark.parametrize("page", ["64k", "1m"])
def test_the_static_oracle_keeps_the_folios_with_the_most_touches(page: str) -> None:
    """As many as have room above the low watermark, none of them colder than one below."""
    _, system = run("oracle_static", kv(footprint_gib=64 * MIB, page=page), {})
    mm, size = system.mm, 1 << PAGE_ORDERS[page]
    touches = window_counts(system).sum(axis=0, dtype=np.int64).reshape(-1, size).sum(axis=1)
    room = int(mm.node[0, CAPACITY] - mm.node[0, WMARK_LOW])
    best = np.lexsort((np.arange(len(touches)), -touches))[: room // size]
    resident = np.flatnonzero((mm.pte[::size] & NODE_MASK) == 0)
    assert resident.tolist() == np.sort(best).tolist()


@pytest.mark.parametrize("page", ["64k", "1m"])
@pytest.mark.parametrize("moves", ["free", "charged"])
def test_the_window_oracle_holds_the_best_folios_of_the_window(moves: str, page: str) -> None:
    """At the end the residents are those with the most touches of the last window, as many as have room."""
    workload = kv(footprint_gib=64 * MIB, page=page, rate=2.0)
    _, system = run("oracle_window", workload, {"moves": moves}, duration_s=20)
    mm, counts, size = system.mm, window_counts(system), 1 << PAGE_ORDERS[page]
    touches = counts[-1].astype(np.int64).reshape(-1, size).sum(axis=1)
    resident = (mm.pte[::size] & NODE_MASK) == 0
    n = int(mm.node[0, CAPACITY]) // size
    assert len(counts) == 2 and np.count_nonzero(resident) == n
    assert touches[resident].sum() == np.sort(touches)[-n:].sum()
