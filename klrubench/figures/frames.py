"""Stored runs as the frame that a figure's `data` is given, and what many figures make of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from klrubench.study.scores import matrix, suite_logs
from klrubench.study.statistics import overall, t_quantile
from klrubench.study.table import frame, row

if TYPE_CHECKING:
    import polars as pl


def runs_frame(records: Iterable[Mapping[str, Any]], series: Sequence[str] = ()) -> pl.DataFrame:
    """One row a run: the columns of `study.table.row`, and

    policy_name, workload_name: without parameters; policy_json, workload_json: all parameters, resolved;
    machine_text: latencies of the tiers; footprint_gib; and for each name in `series` a list column `series_NAME`.
    """
    import polars as pl

    records = list(records)
    lists = [
        pl.Series(f"series_{name}", [_floats(record, name) for record in records], dtype=pl.List(pl.Float64))
        for name in series
    ]
    return frame(_row(record) for record in records).with_columns(lists if records else [])


def _floats(record: Mapping[str, Any], name: str) -> list[float]:
    return [float(value) for value in record["result"].get("series", {}).get(name, ())]


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    spec, found = record["spec"], row(record)
    for kind in ("policy", "workload"):
        found[f"{kind}_name"] = spec[kind]["name"]
        found[f"{kind}_json"] = json.dumps(spec[kind]["params"], sort_keys=True)
    found["machine_text"] = _machine(spec["machine"])
    found["footprint_gib"] = spec["workload"]["params"].get("footprint_gib")
    return found


def _machine(machine: Mapping[str, Any]) -> str:
    tiers = [f"{node['name']} {_first(node['read_ns']):g} ns" for node in machine.get("nodes", ())]
    return f"{machine['name']} ({', '.join(tiers)})" if tiers else str(machine["name"])


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, (list, tuple)) else value)


def values_of(runs: pl.DataFrame, kind: str, parameter: str) -> pl.Series:
    """A parameter of every row's policy or workload (`kind`), resolved; null where it has none of that name."""
    import polars as pl

    return pl.Series(parameter, [json.loads(text).get(parameter) for text in runs[f"{kind}_json"]], strict=False)


def slowdowns(runs: pl.DataFrame, baseline: str = "all_top") -> pl.DataFrame:
    """`study.scores.matrix`: slowdowns in per cent with intervals, one row a setting and policy; names and parameters
    (`policy_name`, `policy_json` ...) come along."""
    import polars as pl

    told = ["policy_name", "policy_json", "workload_name", "workload_json"]
    names = runs.select("policy", "workload", *told).unique(subset=["policy", "workload"], maintain_order=True)
    found = matrix(runs, baseline)
    if not found.height:
        raise ValueError(f"no run of the baseline {baseline}")
    return found.join(names, on=["policy", "workload"], how="left", maintain_order="left").filter(
        pl.col("slowdown_pct").is_not_null()
    )


TIMES = {"spare": "time_s", "charged": "charged_time_s", "steady": "steady_time_s"}


def overall_slowdown(
    runs: pl.DataFrame,
    policy: str,
    workloads: Sequence[str],
    which: Sequence[str] = ("spare",),
    baseline: str = "all_top",
) -> dict[str, Any]:
    """Slowdown of a policy (label) over a fixed set of workloads, as geometric mean on paired seeds.

    Returns:
        For each name in `which` (`spare`, `charged`, `steady`) `NAME_pct` and `NAME_half_pct` (None with one seed);
        `seeds`.

    Raises:
        ValueError: a workload has no run of the policy or of the baseline.
    """
    found: dict[str, Any] = {}
    for name in which:
        one = overall(suite_logs(runs, policy, workloads, TIMES[name], baseline))
        found |= {f"{name}_pct": one.pct, f"{name}_half_pct": one.half_pct, "seeds": one.seeds}
    return found


def mean_by(runs: pl.DataFrame, keys: Sequence[str], value: str) -> pl.DataFrame:
    """Mean of a column over the seeds of each group, in order of appearance, with half of its 95 % t interval.

    Columns: the keys, `value`, `VALUE_half` (null with one seed), `seeds`.
    """
    import polars as pl

    found = runs.group_by(list(keys), maintain_order=True).agg(
        pl.col(value).mean(), pl.col(value).std().alias("_sd"), pl.len().alias("seeds")
    )
    halves = [
        None if seeds < 2 or sd is None else t_quantile(seeds - 1) * sd / seeds**0.5
        for sd, seeds in found.select("_sd", "seeds").iter_rows()
    ]
    return found.drop("_sd").with_columns(pl.Series(f"{value}_half", halves, dtype=pl.Float64))
