"""`klrubench run`: one policy on one workload, with its time line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from klrubench.cli.options import (
    NAMED,
    RATIO_HELP,
    Cost,
    DaemonCpus,
    Hz,
    Json,
    Kernel,
    Results,
    Sysctl,
    daemons_option,
    duration_option,
    pairs,
    scale_option,
)

BASELINE = "all_top"


def command(
    policy: Annotated[str, typer.Option("--policy", "-p", metavar=NAMED, help="Policy.")] = "klruscand",
    workload: Annotated[str, typer.Option("--workload", "-w", metavar=NAMED, help="Workload.")] = "kv",
    machine: Annotated[
        str, typer.Option("--machine", "-m", metavar="NAME", help="Machine, or a TOML file.")
    ] = "cxl-asic",
    ratio: Annotated[str | None, typer.Option(metavar="A:B", help=RATIO_HELP)] = None,
    kernel: Kernel = None,
    hz: Hz = None,
    sysctl: Sysctl = None,
    cost: Cost = None,
    daemon_cpus: Annotated[DaemonCpus, daemons_option] = DaemonCpus.spare,
    seed: Annotated[
        int, typer.Option(min=0, max=(1 << 32) - 1, metavar="N", help="Draws stream, page order and daemon phases.")
    ] = 1,
    duration: Annotated[float, duration_option] = 120.0,
    scale: Annotated[str, scale_option] = "auto",
    vmstat: Annotated[bool, typer.Option("--vmstat", help="The counters alone, as in /proc/vmstat.")] = False,
    as_json: Json = False,
    results: Results = None,
) -> None:
    """Simulate one run and show it over time.

    The same work is done once more with all pages in DRAM, to compare with.

    \b
    Examples:
      klrubench run -p klruscand -w kv
      klrubench run -p numa_balancing:mode=2 -w gups:rate=2 --vmstat
      klrubench run -p first_touch -w uniform --scale 1/128 --json
    """
    from klrubench.cli.output import ascii_only, emit, emit_json, say, width
    from klrubench.machine import load_machine
    from klrubench.report.run import head_lines, run_text, vmstat_text
    from klrubench.study.run import run

    system: dict[str, Any] = {
        "ratio": ratio,
        "kernel": kernel,
        "hz": hz,
        "sysctls": pairs(sysctl, "--sysctl"),
        "costs": pairs(cost, "--cost"),
    }
    work: dict[str, Any] = {
        "seed": seed,
        "duration_s": duration,
        "scale": scale,
        "daemon_cpus": daemon_cpus.value,
        "store": results,
    }
    common: dict[str, Any] = {"machine": machine, "say": _once(say), **system, **work}
    record = run(policy, workload, **common)
    if as_json:
        emit_json(record)
    elif vmstat:
        emit(vmstat_text(record["result"]["vmstat"]))
    else:
        base = run(BASELINE, workload, **common)
        slowdown, tenants = _slowdown(record, base), base["result"].get("tenants", ())
        head = head_lines(record, load_machine(machine, **system), width())
        emit("\n".join([*head, "", run_text(record["result"], slowdown, width(), ascii_only(), tenants)]))


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Says each line once, however many runs say it."""
    said: set[str] = set()

    def tell(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return tell


def _slowdown(record: dict[str, Any], base: dict[str, Any]) -> dict[str, float | None]:
    """Slowdowns in % against the run with everything in DRAM."""
    own, ideal = record["result"]["metrics"], base["result"]["metrics"]
    pairs_of = {
        "run": ("time_s", "time_s"),
        "steady": ("steady_time_s", "steady_time_s"),
        "charged": ("charged_time_s", "time_s"),
    }
    found = {name: (own.get(mine), ideal.get(theirs)) for name, (mine, theirs) in pairs_of.items()}
    return {name: 100 * (mine / theirs - 1) for name, (mine, theirs) in found.items() if mine and theirs}
