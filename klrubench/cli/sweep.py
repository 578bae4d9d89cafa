"""`klrubench sweep`: search a policy's parameters; `klrubench sweep show`: look at a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from klrubench.cli.options import (
    NAMED,
    RATIO_HELP,
    Cost,
    DaemonCpus,
    Executor,
    Hz,
    Jobs,
    Json,
    Kernel,
    Results,
    Sysctl,
    daemons_option,
    duration_option,
    pairs,
    words,
)
from klrubench.errors import UsageError

SHOW = "show"
RANGE = "NAME=LOW:HIGH[:log]"


def command(
    policy: Annotated[
        str, typer.Argument(metavar="POLICY[:k=v,...]", help="What to tune; what is given is held. Or: show.")
    ],
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="With show: the sweep to look at.")] = None,
    workload: Annotated[
        list[str] | None, typer.Option("--workload", "-w", metavar=NAMED, help="Tuned on; may be repeated.")
    ] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(metavar=NAMED, help="Only judges the winner; may be repeated; none: none.")
    ] = None,
    machine: Annotated[
        str | None, typer.Option("--machine", "-m", metavar="NAME", help="Machine, or a TOML file.")
    ] = None,
    ratio: Annotated[str | None, typer.Option(metavar="A:B", help=RATIO_HELP)] = None,
    kernel: Kernel = None,
    hz: Hz = None,
    sysctl: Sysctl = None,
    cost: Cost = None,
    daemon_cpus: Annotated[DaemonCpus | None, daemons_option] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar=RANGE, help="Range to search, NAME=A/B/C, or NAME alone. May be repeated."),
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Held at a value. May be repeated.")
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            "-o",
            metavar="NAME,...",
            help="charged (default), spare, traffic, daemon_cpu, p99, convergence.",
        ),
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(metavar="NAME<=N", help="Bound on one of the same. May be repeated.")
    ] = None,
    sampler: Annotated[
        str, typer.Option(metavar="NAME", help="tpe, cmaes, qmc, nsga2, nsga3, grid, random, gp, cori.")
    ] = "tpe",
    trials: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="Settings to try.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Paired seeds a trial.")] = 3,
    duration: Annotated[float, duration_option] = 60.0,
    scale: Annotated[
        str, typer.Option(metavar="auto|1/N", help="Of the sweep's runs; auto: about 1e7 accesses.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=(1 << 31) - 1, metavar="N", help="Of the sampler.")] = 1,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same trials on any number of processes.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, max=100, metavar="K", help="Best trials that are run again.")] = 3,
    fresh_seeds: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Fresh seeds that judge them.")] = 5,
    full_duration: Annotated[
        float, typer.Option(min=0.001, max=1e6, metavar="SECONDS", help="Work of the runs that judge.")
    ] = 120.0,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the study; default: policy and a hash.")] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL|DIR", help="Database, or folder of journals; default: results/sweeps.")
    ] = None,
    jobs: Jobs = None,
    executor: Executor = None,
    as_json: Json = False,
    as_tsv: Annotated[bool, typer.Option("--tsv", help="With show: the judgement, tab-separated.")] = False,
    results: Results = None,
) -> None:
    """Find the best parameters of a policy, and prove them on other seeds.

    Runs in the sweep are short and coarse; the winners are run again in full,
    on fresh seeds and on workloads that did not choose them. Ctrl-C keeps
    what is done: the same command goes on from there.

    \b
    Examples:
      klrubench sweep klruscand -w kv
      klrubench sweep klruscand --param interval_ms=50:10000:log --fix batch=131072
      klrubench sweep klruscand --constraint "daemon_cpu<=0.5" --trials 200
      klrubench sweep klruscand -o charged,traffic --sampler nsga2 --trials 500
      klrubench sweep show klruscand-7c1e
    """
    if policy == SHOW:
        _show(study, storage, results, as_json, as_tsv)
        return
    if study is not None:
        raise UsageError(
            f"'{study}': one policy a sweep; workloads go with -w; to look at a sweep: klrubench sweep show NAME"
        )
    from klrubench.cli.output import emit, emit_json, say, width
    from klrubench.report.sweep import sweep_text
    from klrubench.study.sweep.drive import sweep
    from klrubench.study.sweep.plan import Asked
    from klrubench.study.sweep.progress import sweep_progress

    system: dict[str, Any] = {
        "machine": machine,
        "ratio": ratio,
        "kernel": kernel,
        "hz": hz,
        "sysctl": pairs(sysctl, "--sysctl") or None,
        "cost": pairs(cost, "--cost") or None,
        "daemon_cpus": daemon_cpus.value if daemon_cpus else None,
    }
    asked = Asked(
        policy,
        workload=tuple(workload or ()),
        held_out=tuple(held_out or ()),
        param=tuple(param or ()),
        fix=pairs(fix, "--fix"),
        objective=tuple(word for each in objective or () for word in words(each)),
        constraint=tuple(constraint or ()),
        sampler=sampler,
        trials=trials,
        seeds=seeds,
        duration=duration,
        scale=scale,
        system={key: value for key, value in system.items() if value is not None},
        seed=seed,
        deterministic=deterministic,
        full_duration=full_duration,
        fresh_seeds=fresh_seeds,
        top=top,
    )
    found = sweep(
        asked,
        name=name,
        storage=storage,
        store=results,
        jobs=jobs,
        executor=executor,
        say=say,
        progress=sweep_progress(),
    )
    if as_json:
        emit_json(found.summary)
    else:
        emit(sweep_text(found.summary, width()))
        say(f"more: klrubench sweep show {found.name}{_again(storage, results)}")


def _again(storage: str | None, results: Path | None) -> str:
    """The options that `show` needs too."""
    from klrubench.study.sweep.storage import without_password

    where = f" --storage {without_password(storage)}" if storage else ""
    return where + (f" --results {results}" if results else "")


def _show(study: str | None, storage: str | None, results: Path | None, as_json: bool, as_tsv: bool) -> None:
    from klrubench.cli.output import ascii_only, emit, emit_json, width
    from klrubench.report.sweep import show_text
    from klrubench.report.sweep_tsv import judged_tsv
    from klrubench.study.gather import open_store
    from klrubench.study.sweep.drive import place_of
    from klrubench.study.sweep.show import summary
    from klrubench.study.sweep.storage import load

    place = place_of(storage, open_store(results))
    if study is None:
        known = ", ".join(sorted(path.stem for path in place.folder.glob("*.journal"))) or "none yet"
        raise UsageError(f"which sweep? klrubench sweep show NAME; there: {known}")
    found = summary(load(place, study))
    if as_json:
        emit_json(found)
    elif as_tsv:
        emit(judged_tsv(found))
    else:
        emit(show_text(found, width(), ascii_only()))
