"""Compare policies: expand the question, take what is stored, compute the rest, put it in frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.errors import StoreError
from klrubench.study.executor import Batch, Failure
from klrubench.study.expand import specs, warnings
from klrubench.study.gather import Workers, gather, open_store
from klrubench.study.progress import Progress
from klrubench.study.reasons import reasons
from klrubench.study.scores import matrix, suite_scores, verdicts, wide
from klrubench.study.spec import RunSpec, policy_part
from klrubench.study.store import Store
from klrubench.study.suite import Question, question
from klrubench.study.table import compact, frame, row

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Comparison", "compare", "matrix", "suite_scores", "verdicts", "wide"]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        question: what was asked, all defaults filled in.
        runs: one row a run: policy, workload, machine, ratio, seed, run_id, cached, policy_role, contestant,
            workload_control, every metric, and `*_json` columns (cpu, bound, vmstat, notes, sysctls ...).
        header: what the table's header says (see `header_facts`).
        warnings: lines for stderr.
        n_cached, n_computed: runs taken from the store and computed now.
        failures: runs that ended with an error; `executor.raise_failures` turns them into the command's last line.
        store_error: results could not be written; they are in `runs` all the same.
        to_run: with `dry_run`, the runs that would be computed: policy, workload, machine, ratio, seed, run_id, why.
    """

    question: Question
    runs: pl.DataFrame
    header: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    n_cached: int = 0
    n_computed: int = 0
    failures: list[Failure] = field(default_factory=list)
    store_error: StoreError | None = None
    to_run: pl.DataFrame | None = None

    def matrix(self) -> pl.DataFrame:
        """Slowdowns, one row a setting and policy (`scores.matrix`)."""
        return matrix(self.runs, self.baseline)

    def verdicts(self, charged: bool = False) -> pl.DataFrame:
        """Who is best, one row a setting (`scores.verdicts`)."""
        return verdicts(self.runs, self.baseline, charged)

    def suite_scores(self) -> pl.DataFrame:
        """The suite as a whole, one row a policy (`scores.suite_scores`)."""
        return suite_scores(self.runs, self.baseline)

    def wide(self, setting: str | None = None) -> list[dict[str, Any]]:
        """Cost beside benefit on one setting (`scores.wide`)."""
        return wide(self.runs, setting, self.baseline)

    @property
    def baseline(self) -> str:
        """Label of the policy that slowdowns are against."""
        return policy_part(self.question.baseline).label


def compare(
    policies: Sequence[str] | None = None,
    workloads: Sequence[str] | None = None,
    *,
    suite: str = "default",
    study: str | Path | None = None,
    machine: str | Sequence[str] | None = None,
    ratios: Sequence[str] | None = None,
    rates: Sequence[float] | None = None,
    placements: Sequence[str] | None = None,
    seeds: int | None = None,
    duration_s: float | None = None,
    scale: str | None = None,
    kernel: str | None = None,
    hz: int | None = None,
    sysctls: dict[str, int | str] | None = None,
    costs: dict[str, str] | None = None,
    daemon_cpus: str | None = None,
    baseline: str | None = None,
    jobs: int | None = None,
    executor: str | None = None,
    store: Store | Path | str | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Compare policies on workloads, computing only what is not stored yet.

    Args:
        policies, workloads: `NAME[:k=v,...]`; default: those of the suite. The bounds are always added.
        suite: `quick`, `default` or `full`: what is not given comes from it.
        study: a TOML file with the same names; what is given here goes before it.
        machine, ratios, rates, placements: axes; several values make rows of their own.
        seeds: paired seeds 1 .. N.
        duration_s: seconds of work on an unloaded all-DRAM machine.
        scale: `auto` or 1 over a power of two (`1/32`).
        kernel, hz, sysctls, costs, daemon_cpus: changes to the machine and to how it is simulated.
        baseline: the policy that slowdowns are against (`all_top`).
        jobs: processes or threads (default: one a CPU).
        executor: where runs are computed: processes, threads, dask:ADDRESS, dask:FILE or slurm:PROFILE.toml.
        store: results folder (default: the study's results/, or ./klrubench-results).
        progress: who is told how far it is.
        dry_run: compute nothing; `to_run` says what would be computed, and why.
        say: told the lines that belong on stderr as soon as they are known.

    Raises:
        UsageError: something that was given makes no sense, in one line.
        InterruptedRunsError: Ctrl-C; results are kept.
        StoreError: results cannot be written (noticed before computing).
    """
    asked = question(
        suite,
        study,
        policy=policies,
        workload=workloads,
        machine=machine,
        ratio=ratios,
        rates=rates,
        placement=placements,
        seeds=seeds,
        duration=duration_s,
        scale=scale,
        kernel=kernel,
        hz=hz,
        sysctl=sysctls,
        cost=costs,
        daemon_cpus=daemon_cpus,
        baseline=baseline,
    )
    runs = specs(asked)
    told = warnings(asked, runs)
    place = open_store(store, say)
    for line in told:
        say(f"warning: {line}")
    if dry_run:
        return _dry(asked, runs, told, place)
    return _answer(asked, runs, told, place, Workers(jobs, executor, progress), say)


def _dry(asked: Question, runs: list[RunSpec], told: list[str], store: Store) -> Comparison:
    why = reasons(runs, store)
    planned = [{**_names(run), "why": why[run.run_id]} for run in runs if run.run_id in why]
    header, cached = header_facts(runs), len(runs) - len(planned)
    return Comparison(asked, frame([]), header, told, n_cached=cached, to_run=frame(planned))


def _names(run: RunSpec) -> dict[str, Any]:
    words = {"policy": run.policy.label, "workload": run.workload.label, "machine": run.machine["name"]}
    return {**words, "ratio": _ratio(run), "seed": run.seed, "run_id": run.run_id}


def _ratio(run: RunSpec) -> str:
    from klrubench.study.table import ratio_text

    return ratio_text(run.machine.get("ratio"))


def _answer(
    asked: Question,
    runs: list[RunSpec],
    told: list[str],
    store: Store,
    workers: Workers,
    say: Callable[[str], None],
) -> Comparison:
    found = gather(runs, store, workers, say)
    rows = []
    for run in runs:
        record = found.records.get(run.run_id)
        if record is not None:
            rows.append({**row(record), "cached": run.run_id in found.cached})
    error = found.store_error or _compacted(store, found.batch)
    return Comparison(
        asked,
        frame(rows),
        header_facts(runs),
        [*told, *store.notes],
        n_cached=len(found.cached),
        n_computed=len(found.batch.records),
        failures=found.failures,
        store_error=error,
    )


def _compacted(store: Store, batch: Batch) -> StoreError | None:
    try:
        if batch.records:
            compact(store)
    except StoreError as error:
        return error
    return None


def header_facts(runs: list[RunSpec]) -> dict[str, Any]:
    """What stands above a table.

    runs, seeds, duration_s, daemon_cpus; machine (`to_dict()` of the first run), varies (which of machine and ratio
    differ between rows); by workload label: scales (the fold), footprints_gib, threads, pages, seeds_change,
    calibration; by policy label: sysctls.
    """
    workloads = {run.workload.label: run for run in runs}
    params = {label: run.workload.params for label, run in workloads.items()}
    varies = {name: {str(_names(run)[name]) for run in runs} for name in ("machine", "ratio")}
    return {
        "runs": len(runs),
        "seeds": len({run.seed for run in runs}),
        "duration_s": runs[0].duration_s,
        "machine": runs[0].machine,
        "varies": sorted(name for name, values in varies.items() if len(values) > 1),
        "scales": {label: run.fold for label, run in workloads.items()},
        "footprints_gib": {label: values.get("footprint_gib") for label, values in params.items()},
        "threads": {label: values.get("threads") for label, values in params.items()},
        "pages": {label: values.get("page", "4k") for label, values in params.items()},
        "seeds_change": {label: run.workload.facts.get("seeds_change", "") for label, run in workloads.items()},
        "calibration": {label: run.workload.facts.get("calibration", "") for label, run in workloads.items()},
        "sysctls": {run.policy.label: run.policy.facts.get("sysctls", {}) for run in runs},
        "daemon_cpus": runs[0].options.get("daemon_cpus", "spare"),
    }
