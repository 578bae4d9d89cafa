"""Latency under load against a plain-Python solution of the closed loop, and in runs that saturate a node."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from klrubench.engine.access import CACHED, N_CATEGORIES
from klrubench.engine.latency import NODE_COLUMNS, QUANTUM_PS, TENANT_COLUMNS, TOP_LOAD, multiplier, solve_latency
from klrubench.machine import load_machine
from klrubench.simulate import Options
from klrubench.simulate.build import build
from klrubench.simulate.system import System
from klrubench.study.plugins import find_policy, find_workload

LINE = 64


def curve(load: float, alpha: float, beta: float) -> float:
    load = min(max(load, 0.0), TOP_LOAD)
    return 1 + alpha * load**beta / (1 - load)


class Loop:
    """The closed loop in plain Python: loads of all nodes if the tenants ran at given latency multipliers."""

    def __init__(
        self,
        mix: np.ndarray,
        other: np.ndarray,
        params: np.ndarray,
        latency: np.ndarray,
        nodes: np.ndarray,
        traffic: np.ndarray,
    ) -> None:
        self.mix, self.other, self.params, self.latency, self.nodes, self.traffic = (
            a.tolist() for a in (mix, other, params, latency, nodes, traffic)
        )

    def touch_ps(self, t: int, c: int, factor: list[float]) -> float:
        compute, mlp, threads, fold, cache, share = self.params[t]
        if c == CACHED:
            return cache / threads * fold * share
        node = min(c % 4, len(factor) - 1)
        return (compute + self.latency[t][node][c // 4] * factor[node] / mlp) / threads * fold * share

    def load(self, node: int, factor: list[float]) -> float:
        read, write = (bytes_ / QUANTUM_PS for bytes_ in self.traffic[node])
        for t, mix in enumerate(self.mix):
            elapsed = self.other[t] + sum(n * self.touch_ps(t, c, factor) for c, n in enumerate(mix) if n)
            if elapsed > 0:
                lines = LINE * self.params[t][3] / elapsed
                read += (mix[node] + mix[4 + node]) * lines
                write += mix[4 + node] * lines
        return read / self.nodes[node][0] + write / self.nodes[node][1]

    def settle(self, node: int, loads: list[float]) -> float:
        """The load of one node, those of the others given: the root of load(u) = u by sixty halvings."""
        low, high = 0.0, TOP_LOAD
        for _ in range(60):
            loads[node] = (low + high) / 2
            if self.load(node, self.factors(loads)) > loads[node]:
                low = loads[node]
            else:
                high = loads[node]
        return low

    def factors(self, loads: list[float]) -> list[float]:
        return [curve(u, *row[2:]) for u, row in zip(loads, self.nodes, strict=True)]

    def solve(self) -> list[float]:
        """Multipliers of all nodes, each settled in turn until none moves any more."""
        loads = [0.5] * len(self.nodes)
        for _ in range(200):
            before = list(loads)
            for node in range(len(loads)):
                loads[node] = self.settle(node, list(loads))
            if max(abs(a - b) for a, b in zip(before, loads, strict=True)) < 1e-13:
                return self.factors(loads)
        raise AssertionError("the twin did not converge")


def random_loop(seed: int, k: int, tenants: int, crowd: float) -> dict[str, np.ndarray]:
    """A machine of `k` nodes and tenants whose threads are `crowd` times what would fill a middling node."""
    rng = np.random.default_rng(seed)
    mix = np.zeros((tenants, N_CATEGORIES), np.int64)
    for t in range(tenants):
        for node in range(k):
            mix[t, node], mix[t, 4 + node] = rng.integers(0, 100_000, 2) * rng.integers(0, 2, 2)
        mix[t, CACHED] = rng.integers(0, 100_000)
    params = np.zeros((tenants, TENANT_COLUMNS))
    for row in params:
        row[:] = (
            rng.uniform(0, 300_000),
            rng.uniform(1, 8),
            1 + int(crowd * rng.uniform(1, 20)),
            2.0 ** rng.integers(0, 8),
            10_000,
            1,
        )
    nodes = np.zeros((k, NODE_COLUMNS))
    for row in nodes:
        row[:] = *(rng.uniform(8, 250, 2) / 1000), rng.uniform(0.05, 0.5), rng.uniform(1, 8)
    latency = rng.uniform(80_000, 400_000, (tenants, k, 2))
    traffic = rng.uniform(0, 0.1, (k, 2)) * nodes[:, :2] * QUANTUM_PS * rng.integers(0, 2)
    other = rng.uniform(0, 2, tenants) * QUANTUM_PS * rng.integers(0, 2, tenants)
    return {"mix": mix, "other": other, "params": params, "latency": latency, "nodes": nodes, "traffic": traffic}


def solved(loop: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    factor, cost = np.ones(len(loop["nodes"])), np.zeros(loop["mix"].shape, np.int64)
    solve_latency(
        loop["mix"], loop["other"], loop["params"], loop["latency"], loop["nodes"], loop["traffic"], factor, cost
    )
    return factor, cost


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.2, 1.0, 5.0]))
@example(10404, 4, 3, 5.0)  # four busy nodes: three rounds were 4 % off
def test_the_solver_finds_the_fixed_point(seed: int, k: int, tenants: int, crowd: float) -> None:
    """Multipliers within 0.1 % of the twin's, touch costs rounded from them, no node over its bandwidth."""
    loop = random_loop(seed, k, tenants, crowd)
    factor, cost = solved(loop)
    twin = Loop(*loop.values())
    assert factor.tolist() == pytest.approx(twin.solve(), rel=1e-3)
    for t in range(tenants):
        for c in range(N_CATEGORIES):
            assert abs(int(cost[t, c]) - twin.touch_ps(t, c, factor.tolist())) <= 0.5 + 1e-6
    for node in range(k):
        assert twin.load(node, factor.tolist()) <= 1.0


@settings(deadline=None, max_examples=100)
@given(st.floats(-1, 2), st.floats(0, 1), st.floats(0.5, 8))
def test_the_curve(load: float, alpha: float, beta: float) -> None:
    assert math.isclose(multiplier(load, alpha, beta), curve(load, alpha, beta), rel_tol=1e-12)


def test_unloaded_is_idle_latency() -> None:
    """One slow thread: each touch costs its compute time and the node's idle latency over MLP, to the picosecond."""
    loop = random_loop(1, 2, 1, 0.0)
    loop["params"][0] = 5_000_000, 2, 1, 1, 10_000, 1
    loop["latency"][0] = [[100_000, 120_000], [250_000, 300_000]]
    loop["nodes"][:, :2] = 1.0
    loop["traffic"][:] = 0
    factor, cost = solved(loop)
    assert factor.tolist() == [1.0, 1.0]
    assert cost[0, [0, 1, 4, 5, CACHED]].tolist() == [5_050_000, 5_125_000, 5_060_000, 5_150_000, 10_000]


def crowded(threads: int, policy: str, **values: Any) -> System:
    """GUPS by many threads on a small machine, ready to run."""
    machine = load_machine("cxl-asic", ratio=(1, 2))
    workload = find_workload("gups")(footprint_gib=2.0, threads=threads, **values)
    return build(machine, workload, find_policy(policy)(), 1, 0.3, 64, Options())


def run_by_quanta(system: System) -> np.ndarray:
    """f64 [quanta, nodes]: the multipliers of each 10 ms, the first of which knows no load yet."""
    factors: list[np.ndarray] = []
    system.every_ms(10, lambda: factors.append(system.factor.copy()))
    system.run()
    return np.array(factors)


@pytest.mark.parametrize(("read_share", "threads"), [(0.0, 96), (1.0, 192)])
def test_a_saturated_node_gives_its_bandwidth_and_no_more(read_share: float, threads: int) -> None:
    """All on the CXL node; a store costs a line read and a line written."""
    system = crowded(threads, "all_lower", read_share=read_share)
    seen: list[tuple[int, np.ndarray]] = []
    system.every_ms(10, lambda: seen.append((int(system.state[0, 0]), system.counts[0].copy())))
    system.run()
    (start, first), (end, last) = seen[1], seen[-1]
    done = (last - first) * 64 * system.fold
    cxl = system.machine.nodes[1]
    picoseconds = end - start
    load = (done[1] + done[5]) / picoseconds / cxl.read_gb_s * 1000 + done[5] / picoseconds / cxl.write_gb_s * 1000
    assert 0.93 < load <= 1.0


@pytest.mark.parametrize(("threads", "open_loop"), [(6, False), (24, False), (96, False), (64, True)])
def test_latency_does_not_swing_from_quantum_to_quantum(threads: int, open_loop: bool) -> None:
    """Fed back with a lag it would: here a quantum's multiplier is that of the one before, but for sampling noise."""
    values = {"open_loop": True, "rate": 600.0} if open_loop else {}
    factors = run_by_quanta(crowded(threads, "first_touch", **values))[3:]
    assert len(factors) > 10
    assert factors.max() > (1.2 if threads > 6 else 1.0)
    steps = np.diff(np.log(factors), axis=0)
    assert np.abs(steps).max() < 0.15
    swings = (steps[1:] * steps[:-1] < 0) & (np.abs(steps[1:]) > 0.02)
    assert swings.mean() < 0.5


def test_tenants_share_a_node() -> None:
    """Two tenants of n threads lengthen latency as one of 2 n does."""
    alone, pair = random_loop(3, 2, 1, 1.0), random_loop(3, 2, 2, 1.0)
    alone["nodes"][:, :2] = pair["nodes"][:, :2] = 0.008
    alone["nodes"][:, 2:] = pair["nodes"][:, 2:] = 0.2, 4.0
    alone["traffic"][:], pair["traffic"][:], alone["other"][:], pair["other"][:] = 0, 0, 0, 0
    alone["mix"][:], pair["mix"][:] = [[2000, 2000, 0, 0, 0, 0, 0, 0, 0]], [[1000, 1000, 0, 0, 0, 0, 0, 0, 0]]
    alone["params"][:], pair["params"][:] = [10_000, 4, 24, 1, 0, 1], [10_000, 4, 12, 1, 0, 1]
    alone["latency"][:] = pair["latency"][:] = 150_000
    assert solved(alone)[0].tolist() == pytest.approx(solved(pair)[0].tolist(), rel=1e-6)
    assert solved(alone)[0].min() > 1.5
    assert np.abs(2 * solved(alone)[1] - solved(pair)[1]).max() <= 1


def test_migration_uses_bandwidth() -> None:
    """Bytes copied in a quantum count against the node's bandwidth in the next."""
    loop = random_loop(4, 2, 1, 1.0)
    loop["traffic"][:] = 0
    quiet, _ = solved(loop)
    loop["traffic"][1, 0] = 0.8 * loop["nodes"][1, 0] * QUANTUM_PS
    busy, _ = solved(loop)
    assert busy[1] > quiet[1] and busy[1] >= curve(0.8, *loop["nodes"][1, 2:]) * 0.999


def test_a_machine_with_more_bandwidth_is_faster() -> None:
    """The saturated run again with a node of ten times the bandwidth."""
    machine = load_machine("cxl-asic", ratio=(1, 2))
    wide = replace(
        machine,
        nodes=tuple(
            replace(node, read_gb_s=node.read_gb_s * 10, write_gb_s=node.write_gb_s * 10) for node in machine.nodes
        ),
    )
    clocks = []
    for each in (machine, wide):
        system = build(
            each,
            find_workload("gups")(footprint_gib=2.0, threads=64),
            find_policy("all_lower")(),
            1,
            0.2,
            64,
            Options(),
        )
        system.run()
        clocks.append(int(system.state[0, 0]))
    assert clocks[0] > 2 * clocks[1]
