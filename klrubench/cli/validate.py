"""`klrubench validate`: what klrubench does beside what real kernels did."""

from __future__ import annotations

from pathlib import Path
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
    Sysctl,
    daemons_option,
    pairs,
    scale_option,
)


def command(
    only: Annotated[
        list[str] | None, typer.Option(metavar="GROUP|ID", help="These facts or tables alone. May be repeated.")
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Published tables: order and signs.")] = False,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Counters of a run of yours: second, then vmstat names.")
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", "-p", metavar=NAMED, help="With --against: the policy that ran.")
    ] = "numa_balancing",
    workload: Annotated[
        str, typer.Option("--workload", "-w", metavar=NAMED, help="With --against: the workload that ran.")
    ] = "kv",
    machine: Annotated[
        str, typer.Option("--machine", "-m", metavar="NAME", help="With --against: machine, or a TOML file.")
    ] = "cxl-asic",
    ratio: Annotated[str | None, typer.Option(metavar="A:B", help=RATIO_HELP)] = None,
    kernel: Kernel = None,
    hz: Hz = None,
    sysctl: Sysctl = None,
    cost: Cost = None,
    daemon_cpus: Annotated[DaemonCpus, daemons_option] = DaemonCpus.spare,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 32) - 1, metavar="N", help="With --against.")] = 1,
    scale: Annotated[str, scale_option] = "auto",
    as_json: Json = False,
) -> None:
    """Hold klrubench against real kernels.

    Runs the set-ups of observations that come along and prints, fact by fact, what a kernel did, what klrubench does
    and whether they agree. Ends with 1 if an exact, abs or shape row differs for no known reason.

    --published runs tables that others have posted and prints which order and which sign of a difference comes out,
    by how much, and what is known where it does not. It takes some minutes and always ends with 0.

    --against takes a CSV file: a line of names, `second` and counters as /proc/vmstat has them, then a line each
    time they were read, in order of time; counters are cumulative and count from the first line.

    \b
      second,pgpromote_success,pgdemote_kswapd,numa_hint_faults
      0,118200,9,401776
      1,131052,11,433120

    \b
    Examples:
      klrubench validate
      klrubench validate --only mglru --only klru_gap_rule
      klrubench validate --published
      klrubench validate --published --only hot-page-selection
      klrubench validate --against mine.csv -p klruscand -w kv:rate=5
    """
    from klrubench.errors import UsageError

    if against is not None and (published or only):
        raise UsageError("--against stands alone: it takes neither --only nor --published")
    if against is None:
        (_published if published else _facts)(only or [], as_json)
        return
    system = {
        "ratio": ratio,
        "kernel": kernel,
        "hz": hz,
        "sysctls": pairs(sysctl, "--sysctl"),
        "costs": pairs(cost, "--cost"),
    }
    work = {"seed": seed, "scale": scale, "daemon_cpus": daemon_cpus.value}
    _against(against, policy, workload, {"machine": machine, **system, **work}, as_json)


def _facts(only: list[str], as_json: bool) -> None:
    from klrubench.cli.output import emit, emit_json, say, width
    from klrubench.report.validation import facts_text
    from klrubench.validation.runner import group_of, run_check, select, to_dict

    rows, chosen = [], select(only)
    for number, fact in enumerate(chosen):
        if number == 0 or group_of(fact) != group_of(chosen[number - 1]):
            say(f"{group_of(fact)} ... ({number + 1} of {len(chosen)})")
        rows.append(run_check(fact))
    if as_json:
        emit_json(to_dict(rows))
    else:
        emit(facts_text(rows, width()))
    if any(row.fails for row in rows):
        raise typer.Exit(1)


def _published(only: list[str], as_json: bool) -> None:
    from klrubench.cli.output import emit, emit_json, say, width
    from klrubench.report.published import published_text, summary_text
    from klrubench.validation.published import run_table, select_tables

    tables = []
    for name in select_tables(only):
        say(f"{name} ...")
        tables.append(run_table(name, say))
        if not as_json:
            emit("\n" * (len(tables) > 1) + published_text(tables[-1], width()))
    if as_json:
        emit_json([table.to_dict() for table in tables])
    else:
        emit("\n" + summary_text(tables, width()))


def _against(file: Path, policy: str, workload: str, more: dict[str, Any], as_json: bool) -> None:
    from klrubench.cli.output import emit, emit_json, say, width
    from klrubench.report.against import against_text
    from klrubench.validation.against import hold_against, read_series

    held = hold_against(read_series(file), policy, workload, say=say, **more)
    if as_json:
        emit_json(held.to_dict())
    else:
        emit(against_text(held, width()))
