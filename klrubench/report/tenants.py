"""Tenants in tables: a row a memcg of one run, and columns a memcg of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from klrubench.report.text import Column, fixed, half, missing, points, share, significant, table

_GIB_PER_PAGE = 1 / (1 << 18)
LEGEND = {
    "tenants": "slow: time awake against all-DRAM, %",
    "jain": "Jain: (sum x)^2 / (n sum x^2) of the tenants' speeds against all-DRAM; min/max: least speed over greatest",
}


def tenant_columns(rows: Sequence[Mapping[str, Any]]) -> list[list[Column]]:
    """Columns for each memcg, and the fairness of each policy; nothing where there is one tenant only."""
    counts = {len(row.get("tenants") or ()) for row in rows}
    most = max(counts, default=0)
    if most < 2:
        return []
    groups = [_memcg(rows, index) for index in range(most)]
    fairness = [
        Column(("Jain",), [fixed(row.get("jain"), 3) for row in rows], group="fairness", gap=2),
        Column(("min/max",), [fixed(row.get("least_most"), 3) for row in rows], group="fairness"),
    ]
    return [*groups, fairness]


def _memcg(rows: Sequence[Mapping[str, Any]], index: int) -> list[Column]:
    found = [(row.get("tenants") or [{}] * (index + 1))[index] for row in rows]
    name = next((str(tenant["memcg"]) for tenant in found if tenant), "")
    columns = [Column(("slow", "%"), [points(tenant.get("slowdown_pct")) for tenant in found], group=name, gap=2)]
    if any(not missing(tenant.get("half_pct")) for tenant in found):
        columns.append(Column(("+-",), [half(tenant.get("half_pct")) for tenant in found], left=True, group=name))
    hits = [share(tenant.get("dram_hit_share"), 1) for tenant in found]
    gib = [fixed(_gib(tenant.get("dram_pages")), 1) for tenant in found]
    return [*columns, Column(("DRAM", "hit %"), hits, group=name), Column(("DRAM", "GiB"), gib, group=name)]


def _gib(pages: float | None) -> float | None:
    return None if missing(pages) or pages is None else pages * _GIB_PER_PAGE


def tenant_lines(tenants: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """The tenants of one run, a line each; empty where there is one only.

    Args:
        tenants: the rows of the run's result.
        base: those of the run that slowdowns are against, if there is one.
    """
    if len(tenants) < 2:
        return []
    slow = [100 * (own["work_s"] / theirs["work_s"] - 1) for own, theirs in zip(tenants, base, strict=False)]
    return table(
        [
            Column(("memcg",), [row["memcg"] for row in tenants], left=True, gap=0),
            Column(("threads",), [str(row["threads"]) for row in tenants], gap=2),
            Column(("GiB",), [significant(_gib(row["pages"]), 3) for row in tenants], gap=2),
            Column(("touches", "/page/s"), [significant(row.get("touches_per_page_s")) for row in tenants], gap=2),
            Column(("awake", "s"), [fixed(row["work_s"], 2) for row in tenants], gap=2),
            *([Column(("slow", "%"), [fixed(value, 2) for value in slow], gap=2)] if slow else []),
            Column(("DRAM", "hit %"), [share(row.get("dram_hit_share"), 2) for row in tenants], gap=2),
            Column(("last", "half"), [share(row.get("steady_dram_hit_share"), 2) for row in tenants], gap=2),
            Column(("DRAM", "GiB"), [fixed(_gib(row["dram_pages"]), 2) for row in tenants], gap=2),
            Column(("op p99", "us"), [significant(_us(row.get("op_p99_ns")), 3) for row in tenants], gap=2),
        ]
    )


def _us(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1000
