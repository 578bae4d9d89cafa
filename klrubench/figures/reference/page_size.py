"""Sources of hotness and page sizes: walk, hint fault and sampling, on 4 KiB and 2 MiB pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, bars, expect, slowdowns, values_of

if TYPE_CHECKING:
    import polars as pl

POLICIES = ("first_touch", "random_sampling", "numa_balancing", "klruscand", "klruscand:hash=sized", "oracle_static")
SIZES = {"4k": "4 KiB", "2m": "2 MiB"}
WORKLOADS = ("kv", "gups:rate=2,hot_pages=contiguous,placement=hot_on_lower")

CAPTION = """
    Slowdown against all memory in DRAM by source of hotness and page size, on kv (hot records scattered over all
    pages) and on GUPS with the hot set in one piece, in CXL at the start: slowdowns are against all-DRAM runs with
    the same page size. DAMON and hardware sampling are left out.
"""
RUNS = [
    asked(["all_top", *POLICIES], [f"{name}{',' if ':' in name else ':'}page={size}" for name in WORKLOADS])
    for size in SIZES
]
WIDTH, HEIGHT = "page", 0.34


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Slowdown by workload, page size and policy."""
    import polars as pl

    found = slowdowns(frame).filter(pl.col("policy") != "all_top")
    named = found.with_columns(
        pl.col("workload_name").replace({"gups": "GUPS, contiguous"}).alias("program"),
        values_of(found, "workload", "page").replace(SIZES).alias("pages"),
    )
    setting = pl.concat_str("program", pl.lit("\n"), "pages").alias("setting")
    return named.sort("program", "pages", descending=[True, True], maintain_order=True).select(
        setting, "program", "pages", "policy", "slowdown_pct", "half_pct", "promoted_mib_s", "seeds"
    )


def draw(axes: Any, data: Any) -> None:
    """Grouped bars."""
    bars(axes, data, "setting", "slowdown_pct", "policy", half="half_pct")
    axes.set_ylabel("slowdown against\nall in DRAM, %")
    axes.set_ylim(bottom=min(0.0, float(data["slowdown_pct"].min())))


def TABLE(data: pl.DataFrame) -> pl.DataFrame:
    """Without the words of the axis."""
    return data.drop("setting")


def _value(data: Any, program: str, pages: str, policy: str) -> float:
    part = data.filter((data["program"] == program) & (data["pages"] == pages) & (data["policy"] == policy))
    return float(part["slowdown_pct"][0])


def _diluted(data: Any) -> tuple[bool, str]:
    small, large = (_value(data, "kv", size, "oracle_static") for size in ("4 KiB", "2 MiB"))
    return large > small + 1, f"{large:.1f} % on 2 MiB, {small:.1f} % on 4 KiB"


def _wins_on_thp(data: Any) -> tuple[bool, str]:
    scan, fault = (_value(data, "GUPS, contiguous", "2 MiB", name) for name in ("klruscand", "numa_balancing"))
    return scan <= fault + 1, f"{scan:.1f} against {fault:.1f} %"


EXPECT = [
    expect("Scattered hot records are diluted: on kv even the oracle is a point worse with 2 MiB pages.", _diluted),
    expect("With 2 MiB pages the walk ties with or beats hint faults where the hot set is in one piece (the table "
           "posted with pghot v3).", _wins_on_thp),
]  # fmt: skip
