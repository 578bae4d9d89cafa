"""All stored runs as one whole: which code, what belongs together, slowdowns, parameters that were varied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from klrubench.study.difference import versions
from klrubench.study.identity import canonical, digest
from klrubench.study.scores import BASELINE, matrix
from klrubench.study.statistics import Estimate, estimate, log_ratios
from klrubench.study.store import Store
from klrubench.study.table import frame, ratio_text, row

Record = dict[str, Any]
LEAST_POINTS = 3
"""Values of a parameter from which on it counts as swept."""


def runs_of(store: Store) -> tuple[list[tuple[str, Record]], str]:
    """Every stored run with the short hash of the code that computed it, and the hash of the newest code."""
    found = [(code, record) for code, records in versions(store).items() for record in records]
    return found, found[-1][0] if found else ""


def same_work(record: Mapping[str, Any], code: str) -> tuple[str, ...]:
    """What two runs share when one is held against the other."""
    parts = record["spec"]["components"]
    names = ("machine", "workload", "workload content", "workload code", "seed", "duration", "scale", "options")
    return (code, *(parts.get(name, "") for name in names))


def slowdowns(runs: Sequence[tuple[str, Record]]) -> dict[str, tuple[float, float]]:
    """By run id: slowdown and charged slowdown in % against the all-DRAM run of the same work, where one is stored."""
    bases = {same_work(r, code): r for code, r in runs if r["spec"]["policy"]["label"] == BASELINE}
    found = {}
    for code, record in runs:
        base = bases.get(same_work(record, code))
        if base is not None:
            ideal, own = base["result"]["metrics"]["time_s"], record["result"]["metrics"]
            found[record["id"]] = (100 * (own["time_s"] / ideal - 1), 100 * (own["charged_time_s"] / ideal - 1))
    return found


def comparisons(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Sets of runs that one table can hold, largest first: same kernel, HZ, settings, costs, duration, thread place.

    Returns:
        `title`, `runs`, `rows` (of `scores.matrix`). Where a run is stored at several scales, the finest counts.
    """
    groups: dict[tuple[Any, ...], dict[tuple[Any, ...], Record]] = {}
    for record in sorted(records, key=lambda record: -record["spec"]["fold"]):
        spec = record["spec"]
        machine = spec["machine"]
        key = (spec["duration_s"], spec["options"].get("daemon_cpus", "spare"), machine["kernel"], machine["hz"],
               *_tuned(machine))  # fmt: skip
        each = (spec["workload"]["label"], spec["policy"]["label"], machine["name"], ratio_text(machine["ratio"]),
                spec["seed"])  # fmt: skip
        groups.setdefault(key, {})[each] = record
    found = []
    for key, group in groups.items():
        runs = frame([row(record) for record in group.values()])
        rows = sorted(matrix(runs, BASELINE).to_dicts(), key=_rank)
        if rows:
            settings = f"; sysctls {key[4]}" if len({(k[4]) for k in groups}) > 1 else ""
            title = f"{key[0]:g} s of work, kernel threads on {key[1]} CPUs, kernel {key[2]}, HZ {key[3]}{settings}"
            found.append({"title": title, "runs": len(group), "rows": rows})
    return sorted(found, key=lambda each: -each["runs"])


def _rank(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Settings in order; in each the contestants from the best on, then the others."""
    return row["setting"], row["policy_role"] != "policy", row["slowdown_pct"], row["policy"]


def _tuned(machine: Mapping[str, Any]) -> tuple[str, str]:
    """Sysctls (as a short hash) and how far costs are from the machine's own."""
    costs = {
        name: cost["ns"] for name, cost in machine["costs"].items() if cost["ns"] != cost.get("own_ns", cost["ns"])
    }
    return digest(canonical(machine["sysctls"]))[:6], canonical(costs)


def sweeps(runs: Sequence[tuple[str, Record]]) -> list[dict[str, Any]]:
    """Numeric parameters of policies that were run at three values or more, all else alike, against all-DRAM.

    Returns:
        `policy` (the others of its parameters), `parameter`, `log`, `lines`: one a workload: `name`, `x`, and `y`,
        `low`, `high` (slowdown in % and the ends of its 95 % interval; None with one seed).
    """
    bases = {same_work(r, code): r for code, r in runs if r["spec"]["policy"]["label"] == BASELINE}
    found: dict[tuple[str, str], dict[tuple[Any, ...], dict[float, list[tuple[float, float]]]]] = {}
    for code, record in runs:
        base, policy = bases.get(same_work(record, code)), record["spec"]["policy"]
        if base is None:
            continue
        times = (record["result"]["metrics"]["time_s"], base["result"]["metrics"]["time_s"])
        for name, value in policy["params"].items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            others = {key: other for key, other in policy["params"].items() if key != name}
            work = same_work(record, code)
            line = (record["spec"]["workload"]["label"], canonical(others), *work[:5], *work[6:])
            spot = found.setdefault((policy["name"], name), {}).setdefault(line, {})
            spot.setdefault(float(value), []).append(times)
    plots = [_sweep(policy, name, lines) for (policy, name), lines in sorted(found.items())]
    return [plot for plot in plots if plot["lines"]]


def _sweep(policy: str, name: str, lines: Mapping[tuple[Any, ...], Mapping[float, list[Any]]]) -> dict[str, Any]:
    drawn = []
    for key, spots in lines.items():
        if len(spots) < LEAST_POINTS:
            continue
        xs = sorted(spots)
        logs = [estimate(log_ratios(*zip(*spots[x], strict=True))) for x in xs]
        drawn.append({"name": key[0], "x": xs, "y": [each.pct for each in logs], **_ends(logs)})
    xs = [x for line in drawn for x in line["x"]]
    wide = bool(xs) and min(xs) > 0 and max(xs) >= 8 * min(xs)
    return {"policy": policy, "parameter": name, "log": wide, "lines": drawn}


def _ends(logs: Sequence[Estimate]) -> dict[str, list[float | None]]:
    return {"low": [each.low_pct for each in logs], "high": [each.high_pct for each in logs]}
