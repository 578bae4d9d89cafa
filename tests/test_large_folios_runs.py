"""Whole runs on folios that several PTEs map: every policy, oracles, the rate of random promotion, mixed sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from folios import folios_of, ids_of
from small_runs import Quarter, machine

from klrubench.engine.bits import NODE_MASK
from klrubench.machine import Machine
from klrubench.mm.state import PROMOTE_FOLIOS, TAIL_FRAMES, VMA_END, VMA_LEAF_ORDER, VMA_ORDER, VMA_START
from klrubench.simulate import RunResult, simulate
from klrubench.simulate.system import System
from klrubench.study.plugins import find_policy
from klrubench.workload import PAGE_ORDERS, Workload

MIB = 1 / 1024


def run(
    policy: str, workload: Workload, values: dict[str, Any], where: Machine | None = None, duration_s: float = 3
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
POLICIES: list[tuple[str, dict[str, Any], bool]] = [
    ("klruscand", {"preset": "rfc-v1", **FAST}, True),
    ("klruscand", {"preset": "pghot-v1", **FAST}, True),
    ("klruscand", {"pghot": "v2", **FAST}, True),
    ("klruscand", {"preset": "pghot-v3", **FAST}, True),
    ("klruscand", {"pghot": "v5-compact", **FAST}, True),
    ("klruscand", {"pghot": "v5-precise", "variant": "clean", **FAST}, True),
    ("klruscand_adaptive", {}, True),
    ("numa_balancing", {"mode": 2}, True),
    ("numa_balancing", {"mode": 3}, True),
    ("random_sampling", {**FAST}, True),
    ("random_promotion", {}, True),
    ("damon", {}, False),
    ("kmmscand", {}, True),
    ("ibs", {"period": 512}, True),
    ("chmu", {"rule": "pghot"}, False),
    ("chmu", {"rule": "hotlist", "epoch_ms": 100}, False),
    ("oracle_window", {"moves": "charged"}, False),
    ("oracle_static", {}, False),
]


@pytest.mark.parametrize("page", ["16k", "64k", "1m"])
@pytest.mark.parametrize(("policy", "values", "promotes"), POLICIES)
def test_every_policy_runs_on_large_folios_and_moves_them_whole(
    policy: str, values: dict[str, Any], promotes: bool, page: str
) -> None:
    """simulate() checks the laws of conservation; here: whole folios, counted by their pages."""
    workload = Quarter(footprint_gib=64 * MIB, rate=4.0, page=page, placement="hot_on_lower")
    result, system = run(policy, workload, values)
    check_whole(system)
    size, promoted = 1 << PAGE_ORDERS[page], result.metrics["promoted_pages"]
    assert promoted == system.mm.stat[PROMOTE_FOLIOS] * size
    assert promoted or not promotes
