"""`klrubench explain`: where the time of a run went, in sentences."""

from __future__ import annotations

from klrubench.cli.one_run import (
    Asked,
    Daemons,
    Duration,
    MachineName,
    PolicyName,
    Ratio,
    Run,
    Scale,
    Seed,
    WorkloadName,
)
from klrubench.cli.options import Cost, DaemonCpus, Hz, Json, Kernel, Results, Sysctl


def command(
    run: Run = None,
    policy: PolicyName = "klruscand",
    workload: WorkloadName = "kv",
    machine: MachineName = "cxl-asic",
    ratio: Ratio = None,
    kernel: Kernel = None,
    hz: Hz = None,
    sysctl: Sysctl = None,
    cost: Cost = None,
    daemon_cpus: Daemons = DaemonCpus.spare,
    seed: Seed = 1,
    duration: Duration = 120.0,
    scale: Scale = "auto",
    as_json: Json = False,
    results: Results = None,
) -> None:
    """Say where the time of a run went, part by part, and what to try next.

    The same work with all pages in DRAM is computed too where it is not stored.

    \b
    Examples:
      klrubench explain kv/klruscand
      klrubench explain 21c18822
      klrubench explain -p numa_balancing:mode=2 -w gups:rate=2 --scale 1/128
    """
    from klrubench.cli.one_run import chosen
    from klrubench.cli.output import emit, emit_json, say, width
    from klrubench.report.explain import explain_text
    from klrubench.study.explain import explain

    asked = Asked(policy, workload, machine, ratio, kernel, hz, sysctl, cost, daemon_cpus, seed, duration, scale)
    spec, run_id, store = chosen(run, asked, results)
    found = explain(spec or run_id, store, say)
    if as_json:
        emit_json(found)
    else:
        emit(explain_text(found, width()))
