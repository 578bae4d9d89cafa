"""The emulated machine of tests/observed, and ways to look into a system while it runs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from klrubench.engine.access import CLOCK, ORIGIN
from klrubench.engine.bits import NODE_MASK
from klrubench.machine import Machine, load_machine
from klrubench.simulate import Options
from klrubench.simulate.build import build
from klrubench.simulate.system import System
from klrubench.simulate.truth import mark_windows
from klrubench.study.plugins import find_policy, find_workload

OBSERVED = Path(__file__).parent / "observed"
SLOW_PAGES = 262_112  # the slow node of the emulated machine lacks 32 pages of its 1 GiB


def facts() -> dict[str, dict[str, str]]:
    """facts.csv by id."""
    with open(OBSERVED / "facts.csv", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def curve(name: str) -> list[dict[str, int]]:
    """A time line of observed/."""
    with open(OBSERVED / name, newline="") as file:
        return [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]


def emulated(fast_pages: int = 1 << 18, slow_pages: int = SLOW_PAGES, **options: Any) -> Machine:
    """The emulated machine with nodes of other sizes."""
    machine = load_machine("emulated", **options)
    sizes = (fast_pages, slow_pages)
    nodes = tuple(replace(node, capacity_gib=pages / (1 << 18)) for node, pages in zip(machine.nodes, sizes, strict=True))
    return replace(machine, nodes=nodes)


def start(
    policy: str = "first_touch", workload: str = "hotset", *, machine: Machine | None = None, duration_s: float = 20, seed: int = 1,
    fold: int = 1, policy_values: dict[str, Any] | None = None, workload_values: dict[str, Any] | None = None, idle_s: float = 0.0,
    phases: bool = False,
) -> System:  # fmt: skip
    """A system whose policy has been started; the program sleeps for `idle_s` first."""
    program = find_workload(workload)(**(workload_values or {}))
    chosen = find_policy(policy)(**(policy_values or {}))
    machine = machine or emulated()
    system = build(machine, program, chosen, seed, duration_s, fold, Options(phases=phases))
    system.set_tiering(chosen.sysctls.get("kernel.numa_balancing", machine.sysctls["kernel.numa_balancing"]))
    mark_windows(system)
    system.state[:, [CLOCK, ORIGIN]] = round(idle_s * 1e12)
    for tenant in system.tenants:
        tenant.slept_ps = round(idle_s * 1e12)
    chosen.start(system)
    system.policy = chosen  # type: ignore[attr-defined]
    return system


def watch(system: System, every_ms: int, look: Callable[[System], Any]) -> list[tuple[float, Any]]:
    """Run to the end; (second, look(system)) at every multiple of `every_ms`."""
    seen: list[tuple[float, Any]] = []
    system.every_ms(every_ms, lambda: seen.append((system.now_ps / 1e12, look(system))))
    system.run()
    return seen


def on_fast(system: System, classes: np.ndarray) -> tuple[int, int, int]:
    """Pages of each class on node 0."""
    fast = (system.mm.pte[: len(classes)] & NODE_MASK) == 0
    return tuple(int(np.count_nonzero(fast & (classes == c))) for c in range(3))  # type: ignore[return-value]
