"""One run: taken from the store, or computed and stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from klrubench.study.executor import raise_failures, run_all
from klrubench.study.gather import open_store
from klrubench.study.spec import RunSpec, make_spec, parse_scale, policy_part, workload_part
from klrubench.study.store import Store


def run(
    policy: str = "klruscand",
    workload: str = "kv",
    *,
    machine: str = "cxl-asic",
    seed: int = 1,
    duration_s: float = 120.0,
    scale: str | None = None,
    ratio: str | None = None,
    kernel: str | None = None,
    hz: int | None = None,
    sysctls: dict[str, int | str] | None = None,
    costs: dict[str, str] | None = None,
    daemon_cpus: str = "spare",
    store: Store | Path | str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Simulate one policy on one workload.

    Args:
        policy, workload: `NAME[:k=v,...]`.
        seed: draws the stream, page order and daemon phases.
        duration_s: seconds that the work takes on an unloaded all-DRAM machine.
        scale: `auto` or 1 over a power of two.
        ratio: DRAM:CXL shares of the footprint (`1:2`).
        machine, kernel, hz, sysctls, costs, daemon_cpus: as for `compare`.
        store: results folder (default: the study's results/, or ./klrubench-results).
        say: told the lines that belong on stderr.

    Returns:
        `{"id", "spec", "result", "manifest", "cached"}`; result is `RunResult.to_dict()` with its time series.

    Raises:
        UsageError: something that was given makes no sense, in one line.
        RunFailedError: the run ended with an error.
        StoreError: the result cannot be written.
    """
    from klrubench.machine import load_machine

    made = load_machine(machine, ratio=ratio, kernel=kernel, hz=hz, sysctls=sysctls or {}, costs=costs or {})
    spec = make_spec(
        made,
        workload_part(workload),
        policy_part(policy),
        seed,
        duration_s=duration_s,
        fold=parse_scale(scale),
        options={"daemon_cpus": daemon_cpus},
    )
    return run_spec(spec, open_store(store, say), say)


def run_spec(spec: RunSpec, store: Store, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The record of one resolved run with its time series; raises like `run`, after saying what it lost."""
    found = store.get(spec.run_id, series=True)
    for line in store.notes:
        say(f"warning: {line}")
    if found is not None:
        return {**found, "cached": True}
    batch = run_all([spec], jobs=1, store=store)
    raise_failures(batch.failures, 1)
    if batch.store_error is not None:
        say(f"warning: {batch.store_error}")
    return {**batch.records[spec.run_id], "cached": False}
