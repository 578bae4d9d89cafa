"""`klrubench compare`: policies side by side on a suite of workloads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klrubench.cli.options import (
    NAMED,
    RATIO_HELP,
    Cost,
    DaemonCpus,
    Executor,
    Format,
    Hz,
    Jobs,
    Json,
    Kernel,
    Results,
    Sysctl,
    daemons_option,
    duration_option,
    numbers,
    pairs,
    scale_option,
    words,
)

if TYPE_CHECKING:
    from klrubench.report.sheet import Sheet
    from klrubench.study.compare import Comparison


def command(
    policy: Annotated[
        list[str] | None, typer.Option("--policy", "-p", metavar=NAMED, help="Policy; may be repeated.")
    ] = None,
    workload: Annotated[
        list[str] | None, typer.Option("--workload", "-w", metavar=NAMED, help="Workload; may be repeated.")
    ] = None,
    suite: Annotated[str, typer.Option(metavar="NAME", help="quick, default or full: what is not given.")] = "default",
    study: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="The same options in a file.")] = None,
    machine: Annotated[
        list[str] | None,
        typer.Option("--machine", "-m", metavar="NAME", help="Machine, or a TOML file; may be repeated."),
    ] = None,
    ratio: Annotated[list[str] | None, typer.Option("--ratio", metavar="A:B", help=RATIO_HELP)] = None,
    ratios: Annotated[str | None, typer.Option(metavar="1:1,1:2,...", help="Several ratios, a row each.")] = None,
    rates: Annotated[
        str | None, typer.Option(metavar="0.5,2,...", help="Touches a page and second, a row each.")
    ] = None,
    placement: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="first_touch, lower, hot_on_lower, random: where pages start."),
    ] = None,
    kernel: Kernel = None,
    hz: Hz = None,
    sysctl: Sysctl = None,
    cost: Cost = None,
    daemon_cpus: Annotated[DaemonCpus | None, daemons_option] = None,
    seeds: Annotated[int | None, typer.Option(min=1, max=1000, metavar="N", help="Paired seeds 1 to N.")] = None,
    duration: Annotated[float | None, duration_option] = None,
    scale: Annotated[str | None, scale_option] = None,
    baseline: Annotated[str | None, typer.Option(metavar="POLICY", help="What slowdowns are against.")] = None,
    jobs: Jobs = None,
    executor: Executor = None,
    wide: Annotated[bool, typer.Option("--wide", help="Cost beside benefit for every workload.")] = False,
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.text,
    as_json: Json = False,
    robust: Annotated[
        bool,
        typer.Option("--robust", help="Under which costs, latencies, MLP, rates, ratios does it hold?"),
    ] = False,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Every policy tuned with the same budget, beside its default.")
    ] = False,
    budget: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, metavar="N", help="With --tuned: trials a policy; default: 48.")
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(metavar=NAMED, help="With --tuned: only judges; may be repeated; none: none."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which runs would be computed, and why.")] = False,
    results: Results = None,
) -> None:
    """Compare policies on workloads, beside the bounds.

    What is stored already is not computed again. One workload alone gets the
    table of cost beside benefit.

    \b
    Examples:
      klrubench compare
      klrubench compare -p klruscand -p klruscand:interval_ms=500 -w kv
      klrubench compare -w kv --rates 0.1,0.5,2,10,50
      klrubench compare -w kv:idle=60 --ratios 1:1,1:2,1:8 --seeds 5
      klrubench compare --suite quick --format lkml
      klrubench compare --cost pghot_record=4x --dry-run
      klrubench compare --suite full --executor dask:scheduler.json
      klrubench compare -w kv -p klruscand -p numa_balancing --robust
      klrubench compare -w kv -w gups:rate=2 -p klruscand -p numa_balancing --tuned --budget 40
    """
    from klrubench.cli.compare_tuned import check, tuned_command
    from klrubench.cli.output import say
    from klrubench.study.compare import compare
    from klrubench.study.executor import raise_failures
    from klrubench.study.progress import progress_for

    given: dict[str, Any] = {
        "suite": suite,
        "study": study,
        "machine": machine,
        "ratios": [*(ratio or ()), *words(ratios)] or None,
        "rates": numbers(rates, "--rates") or None,
        "placements": words(placement) or None,
        "seeds": seeds,
        "duration_s": duration,
        "scale": scale,
        "kernel": kernel,
        "hz": hz,
        "sysctls": {**pairs(sysctl, "--sysctl")} or None,
        "costs": pairs(cost, "--cost") or None,
        "daemon_cpus": daemon_cpus.value if daemon_cpus else None,
        "baseline": baseline,
    }
    workers: dict[str, Any] = {
        "jobs": jobs,
        "executor": executor,
        "store": results,
        "progress": progress_for(),
        "say": say,
    }
    form = Format.json if as_json else form
    check(tuned, budget, held_out, {"--robust": robust, "--dry-run": dry_run, "--wide": wide}, form)
    if tuned:
        tuned_command(policy, workload, budget, held_out, given, workers, form)
        return
    if robust:
        _robust(policy, workload, given, workers, form, dry_run)
        return
    found = compare(policy, workload, **given, **workers, dry_run=dry_run)
    if found.to_run is not None:
        _plan(found, form)
        return
    say(_counts(found))
    if found.runs.height:
        _show(_sheet(found, wide), form)
    raise_failures(found.failures, found.n_computed + len(found.failures))
    if found.store_error is not None:
        raise found.store_error


def _robust(
    policies: list[str] | None,
    workloads: list[str] | None,
    given: dict[str, Any],
    workers: dict[str, Any],
    form: Format,
    dry_run: bool,
) -> None:
    from klrubench.cli.output import emit, emit_json, say, width
    from klrubench.errors import UsageError
    from klrubench.report.robust import robust_json, robust_text
    from klrubench.study.executor import raise_failures
    from klrubench.study.robust import compare_robustly

    if dry_run or form in (Format.tsv, Format.lkml):
        raise UsageError("--robust: it is written as text or --json, and takes no --dry-run")
    found = compare_robustly(policies, workloads, **given, **workers)
    gathered = found.gathered
    computed, failed = len(gathered.batch.records), len(gathered.failures)
    failures = f", {failed} failed" if failed else ""
    say(
        f"{len(gathered.cached) + computed + failed} runs: {len(gathered.cached)} cached, {computed} computed{failures}"
    )
    if form is Format.json:
        emit_json(robust_json(found))
    else:
        emit(robust_text(found, width()))
    raise_failures(gathered.failures, computed + failed)
    if gathered.store_error is not None:
        raise gathered.store_error


def _counts(found: Comparison) -> str:
    total = found.n_cached + found.n_computed + len(found.failures)
    failed = f", {len(found.failures)} failed" if found.failures else ""
    return f"{total} runs: {found.n_cached} cached, {found.n_computed} computed{failed}"


def _plan(found: Comparison, form: Format) -> None:
    """What a dry run found: the runs that are not stored, and why each would be computed."""
    from klrubench.cli.output import emit, emit_json, width
    from klrubench.report.listing import plan_text
    from klrubench.report.text import rows_of, tsv

    rows = rows_of(found.to_run)
    if form is Format.json:
        emit_json(rows)
    elif form is Format.tsv:
        emit(tsv(rows))
    else:
        emit(plan_text(rows, found.n_cached, width()))


def _sheet(found: Comparison, wide: bool) -> Sheet:
    from klrubench.report.sheet import Sheet

    cells = found.matrix()
    settings = list(dict.fromkeys(cells["setting"])) if cells.height else []
    return Sheet(
        facts=found.header,
        cells=cells,
        verdicts=found.verdicts(),
        charged_verdicts=found.verdicts(charged=True),
        suite=found.suite_scores(),
        wide={setting: found.wide(setting) for setting in settings} if wide or len(settings) == 1 else {},
        runs=found.runs,
        wakes=_may_wake(found),
        rates=bool(found.question.rates),
        baseline=found.baseline,
    )


def _may_wake(found: Comparison) -> bool:
    """Whether one of the policies has the choice of waking kswapd after a refused promotion."""
    from klrubench.study.plugins import find_policy

    names = {label.partition(":")[0] for label in found.runs["policy"]}
    return any("wake_kswapd" in find_policy(name).parameters for name in names)


def _show(sheet: Sheet, form: Format) -> None:
    from klrubench.cli.output import colour, emit, emit_json, width
    from klrubench.report import sheet as forms

    writers: dict[Format, Any] = {
        Format.text: lambda: emit(forms.text(sheet, width(), colour())),
        Format.lkml: lambda: emit(forms.as_lkml(sheet)),
        Format.tsv: lambda: emit(forms.as_tsv(sheet)),
        Format.json: lambda: emit_json(forms.as_json(sheet)),
    }
    writers[form]()
