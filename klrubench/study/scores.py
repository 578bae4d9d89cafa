"""Tables from runs: slowdown of every policy on every workload, verdicts, the suite as a whole, cost beside benefit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from klrubench.study.statistics import (
    Estimate,
    Verdict,
    estimate,
    gap_closed,
    log_ratios,
    median_worst,
    overall,
    verdict,
)
from klrubench.study.table import frame
from klrubench.study.tenants import shared, tenant_rows

if TYPE_CHECKING:
    import polars as pl

BASELINE = "all_top"
_MEANS = (
    "touches_per_page_s",
    "young_share",
    "dram_hit_share",
    "steady_dram_hit_share",
    "promoted_mib_s",
    "demoted_mib_s",
    "promoted_again_share",
    "precision",
    "recall",
    "metadata_bytes",
    "metadata_peak_bytes",
    "convergence_s",
    "op_p50_ns",
    "op_p99_ns",
    "op_p999_ns",
    "daemon_cpu_s",
    "app_cpu_s",
    "time_s",
)
Run = dict[str, Any]
Grid = dict[str, dict[str, list[Run]]]


def with_setting(runs: pl.DataFrame) -> pl.DataFrame:
    """Adds `setting`, the label of a table's row: the workload, and machine and ratio where several occur."""
    import polars as pl

    parts = ["workload", *(name for name in ("machine", "ratio") if runs[name].n_unique() > 1)]
    return runs.with_columns(pl.concat_str(parts, separator=" ").alias("setting"))


def grid(runs: pl.DataFrame) -> Grid:
    """The runs by setting and policy, in order of appearance, each list by seed."""
    found: Grid = {}
    for run in with_setting(runs).iter_rows(named=True):
        found.setdefault(run["setting"], {}).setdefault(run["policy"], []).append(run)
    for policies in found.values():
        for each in policies.values():
            each.sort(key=lambda run: int(run["seed"]))
    return found


def _logs(runs: Sequence[Run], base: Sequence[Run], value: str) -> list[float]:
    """Log ratios over the seeds that both have."""
    bases = {run["seed"]: run for run in base}
    pairs = [(run[value], bases[run["seed"]][value]) for run in runs if run["seed"] in bases]
    return log_ratios([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def matrix(runs: pl.DataFrame, baseline: str = BASELINE) -> pl.DataFrame:
    """One row for each setting and policy: slowdown against the baseline on paired seeds, with 95 % intervals.

    Columns: setting, workload, machine, ratio, policy, policy_role, contestant, workload_control, seeds;
    `slowdown_pct`, `low_pct`, `high_pct`, `half_pct` (null with one seed), `exact` (no variance); `_pct` and
    `_half_pct` of steady, charged and charged_steady; `gap_closed` (share, null where the gap is under a point);
    means over seeds.
    Settings without a run of the baseline are left out.
    """
    rows = []
    for setting, policies in grid(runs).items():
        rows += _setting_rows(setting, policies, policies.get(baseline, []))
    return frame(rows)


def _setting_rows(setting: str, policies: dict[str, list[Run]], base: list[Run]) -> list[dict[str, Any]]:
    rows = [_cell(setting, each, base) for each in policies.values()]
    rows = [row for row in rows if row]
    by_policy = {row["policy"]: row for row in rows}
    first, oracle = by_policy.get("first_touch"), by_policy.get("oracle_static")
    for row in rows:
        row["gap_closed"] = _gap_closed(first, row, oracle)
    return rows


def _gap_closed(first: Run | None, row: Run, oracle: Run | None) -> float | None:
    if first is None or oracle is None:
        return None
    return gap_closed(first["slowdown_pct"], row["slowdown_pct"], oracle["slowdown_pct"])


def _cell(setting: str, each: list[Run], base: list[Run]) -> dict[str, Any]:
    logs = _logs(each, base, "time_s")
    if not logs:
        return {}
    words = ("workload", "machine", "ratio", "policy", "policy_role", "contestant", "workload_control")
    found = {"setting": setting, **{name: each[0][name] for name in words}}
    return {**found, **_slowdown(estimate(logs)), **_other_slowdowns(each, base), **_means(each, base)}


def _slowdown(found: Estimate) -> dict[str, Any]:
    ends = {"low_pct": found.low_pct, "high_pct": found.high_pct, "half_pct": found.half_pct}
    return {"seeds": found.seeds, "slowdown_pct": found.pct, **ends, "exact": found.exact}


def _other_slowdowns(each: list[Run], base: list[Run]) -> dict[str, Any]:
    times = {name: f"{name}_time_s" for name in ("steady", "charged", "charged_steady")}
    found = {name: estimate(_logs(each, base, time)) for name, time in times.items() if time in each[0]}
    return {
        key: value
        for name, one in found.items()
        for key, value in ((f"{name}_pct", one.pct), (f"{name}_half_pct", one.half_pct))
    }


def _means(each: list[Run], base: list[Run]) -> dict[str, Any]:
    found = {name: _mean(run.get(name) for run in each) for name in _MEANS if name in each[0]}
    quick = _mean(run.get("op_p99_ns") for run in base)
    slow = found.get("op_p99_ns")
    return {**found, "op_p99_ratio": slow / quick if slow is not None and quick else None}


def _mean(values: Iterable[Any]) -> float | None:
    """Mean over seeds; `None` when a seed has no value (a run that never converged has no mean time)."""
    known = list(values)
    return None if not known or None in known else float(sum(known) / len(known))


def verdicts(runs: pl.DataFrame, baseline: str = BASELINE, charged: bool = False) -> pl.DataFrame:
    """One row a setting: the best of the contestants, the next best, and whether the difference is sure.

    Contestants are the policies that a kernel could run: neither the bounds that buy other memory nor the oracles. One
    that lacks a seed is left out.

    Args:
        runs: one row a run.
        baseline: what slowdowns are against.
        charged: compare times with the kernel threads' CPU time charged.
    """
    value = "charged_time_s" if charged else "time_s"
    rows = []
    for setting, policies in grid(runs).items():
        base = policies.get(baseline, [])
        seeds = _seeds(base)
        running = {name: each for name, each in policies.items() if each[0]["contestant"] and _seeds(each) == seeds}
        logs = {name: _logs(each, base, value) for name, each in running.items()}
        if logs:
            rows.append({"setting": setting, **_verdict_row(verdict(logs))})
    return frame(rows)


def _seeds(runs: Sequence[Run]) -> list[int]:
    return [run["seed"] for run in runs]


def _verdict_row(found: Verdict) -> dict[str, Any]:
    return {**asdict(found), "equal_to": ",".join(found.equal_to)}


def suite_scores(runs: pl.DataFrame, baseline: str = BASELINE) -> pl.DataFrame:
    """One row a policy: geometric mean over all settings, and the share of the gap closed.

    The interval speaks of other seeds with this suite fixed, not of other workloads. `gap_median` and `gap_worst` leave
    out control workloads and settings without a gap; `worst_setting` is where `gap_worst` was found. Policies that lack
    a setting have no row.
    """
    settings = grid(runs)
    cells = matrix(runs, baseline).to_dicts()
    rows = []
    for policy in dict.fromkeys(cell["policy"] for cell in cells):
        logs = [_logs(policies.get(policy, []), policies.get(baseline, []), "time_s") for policies in settings.values()]
        if all(logs):
            mine = [cell for cell in cells if cell["policy"] == policy and not cell["workload_control"]]
            rows.append({"policy": policy, "settings": len(logs), **_slowdown(overall(logs)), **_gap(mine)})
    return frame(rows)


def suite_logs(
    runs: pl.DataFrame, policy: str, workloads: Sequence[str], value: str = "time_s", against: str = BASELINE
) -> list[list[float]]:
    """Log ratios of a time of one policy (label) to that of another, a list a workload, one number a paired seed.

    Raises:
        ValueError: a workload has no pair of runs.
    """
    found = []
    for workload in workloads:
        here = runs.filter(runs["workload"] == workload)
        own, other = (list(here.filter(here["policy"] == label).iter_rows(named=True)) for label in (policy, against))
        logs = _logs(own, other, value)
        if not logs:
            raise ValueError(f"no run of {policy} with one of {against} on {workload}")
        found.append(logs)
    return found


def _gap(cells: list[dict[str, Any]]) -> dict[str, Any]:
    median, worst = median_worst([cell["gap_closed"] for cell in cells])
    where = next((cell["setting"] for cell in cells if worst is not None and cell["gap_closed"] == worst), "")
    return {"gap_median": median, "gap_worst": worst, "worst_setting": where}


def wide(runs: pl.DataFrame, setting: str | None = None, baseline: str = BASELINE) -> list[dict[str, Any]]:
    """Cost beside benefit on one setting (default: the first): the cells of `matrix`, and what is no plain number.

    Added to each: `cpu_pct` ({thread or kind of stall: % of a core}), `daemon_threads`, `bound` ({name: share of the
    run}), `vmstat` ({name: mean}), `sysctls`, `notes`; where there are several tenants, `tenants`, `jain` and
    `least_most` (see `tenants.shared`).
    """
    settings = grid(runs)
    chosen = next(iter(settings)) if setting is None else setting
    cells = [cell for cell in matrix(runs, baseline).to_dicts() if cell["setting"] == chosen]
    policies = settings[chosen]
    base = policies.get(baseline, [])
    return [
        {**cell, **_structures(policies[cell["policy"]]), **shared(policies[cell["policy"]], base)} for cell in cells
    ]


def _structures(each: list[Run]) -> dict[str, Any]:
    times = [_length_s(run) for run in each]
    cpu = [json.loads(run["cpu_json"]) for run in each]
    shares = [{name: 100 * value / time for name, value in one.items()} for one, time in zip(cpu, times, strict=True)]
    return {
        "cpu_pct": _mean_dict(shares),
        "daemon_threads": json.loads(each[0]["daemon_threads_json"]),
        "bound": _mean_dict([json.loads(run["bound_json"]) for run in each]),
        "vmstat": _mean_dict([json.loads(run["vmstat_json"]) for run in each]),
        "sysctls": json.loads(each[0]["sysctls_json"]),
        "notes": list(dict.fromkeys(note for run in each for note in json.loads(run["notes_json"]))),
    }


def _length_s(run: Run) -> float:
    """How long a run lasted: `time_s` is the mean over tenants, kernel threads go on until the last one is done."""
    tenants = tenant_rows(run)
    return max(row["time_s"] for row in tenants) if tenants else float(run["time_s"])


def _mean_dict(found: list[dict[str, float]]) -> dict[str, float]:
    """Mean by name; a name that a seed lacks counts as 0 there."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: sum(one.get(name, 0.0) for one in found) / len(found) for name in names}
