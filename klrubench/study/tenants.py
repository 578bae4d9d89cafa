"""Several tenants on one machine: each one's slowdown, and how evenly a policy serves them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from klrubench.study.statistics import estimate, log_ratios

Run = dict[str, Any]
_MEANS = ("work_s", "time_s", "dram_hit_share", "steady_dram_hit_share", "dram_pages", "op_p99_ns")


def jain(speeds: Sequence[float]) -> float:
    """Jain's index of fairness, (sum x)^2 / (n sum x^2): 1 where all are served alike, 1/n where one has it all.

    Source: Jain, Chiu, Hawe, "A quantitative measure of fairness and discrimination", DEC TR-301, 1984.
    """
    return math.fsum(speeds) ** 2 / (len(speeds) * math.fsum(speed * speed for speed in speeds))


def tenant_rows(run: Run) -> list[dict[str, Any]]:
    """The rows by memcg of a run (of its flat row); empty where there is one tenant only."""
    rows = json.loads(run.get("tenants_json") or "[]")
    return rows if len(rows) > 1 else []


def speeds(own: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]) -> list[float]:
    """Speed of each tenant against the baseline, 1 being as fast: time awake there over time awake here."""
    return [theirs["work_s"] / mine["work_s"] for mine, theirs in zip(own, base, strict=True)]


def shared(each: Sequence[Run], base: Sequence[Run]) -> dict[str, Any]:
    """How one policy's runs served the tenants, on the seeds that the baseline has too.

    Returns:
        `tenants`: a row a memcg with memcg, workload, threads, pages, slowdown_pct and half_pct of the time awake, and
        means over seeds; `jain` and `least_most` (least speed over greatest), means too. Empty for a single tenant.
    """
    bases = {run["seed"]: tenant_rows(run) for run in base}
    pairs = [(tenant_rows(run), bases[run["seed"]]) for run in each if run["seed"] in bases]
    if not pairs or not all(own and theirs for own, theirs in pairs):
        return {}
    rates = [speeds(own, theirs) for own, theirs in pairs]
    return {
        "tenants": [_tenant(index, pairs) for index in range(len(pairs[0][0]))],
        "jain": math.fsum(map(jain, rates)) / len(rates),
        "least_most": math.fsum(min(rate) / max(rate) for rate in rates) / len(rates),
    }


def _tenant(index: int, pairs: Sequence[tuple[list[dict[str, Any]], list[dict[str, Any]]]]) -> dict[str, Any]:
    own = [mine[index] for mine, _ in pairs]
    found = estimate(log_ratios([row["work_s"] for row in own], [base[index]["work_s"] for _, base in pairs]))
    means = {name: _mean([row.get(name) for row in own]) for name in _MEANS}
    words = {name: own[0][name] for name in ("memcg", "workload", "threads", "pages")}
    return {**words, "slowdown_pct": found.pct, "half_pct": found.half_pct, **means}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
