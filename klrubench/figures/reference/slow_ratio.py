"""Slowdown against the share of memory that is slow (after Soar)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, expect, lines, slowdowns

if TYPE_CHECKING:
    import polars as pl

RATIOS = ("9:1", "3:1", "2:1", "1:1", "1:2", "1:3", "1:4", "1:9")
POLICIES = ("first_touch", "random_sampling", "numa_balancing", "klruscand", "klruscand:hash=sized", "oracle_static")

CAPTION = """
    Slowdown against all memory in DRAM, over the share of the footprint that has to lie in CXL: kv, 2 touches a
    page and second, kernel threads on spare cores. Lower is better.
"""
RUNS = [asked(["all_top", *POLICIES], ["kv"], ratio=RATIOS)]
HEIGHT = 0.8


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Slowdown by policy and slow share."""
    import polars as pl

    found = slowdowns(frame).filter(pl.col("policy") != "all_top")
    slow = pl.col("ratio").map_elements(_slow_pct, pl.Float64).alias("slow_pct")
    return found.select("policy", "ratio", slow, "slowdown_pct", "half_pct", "seeds")


def _slow_pct(ratio: str) -> float:
    top, lower = (float(part) for part in ratio.split(":"))
    return 100 * lower / (top + lower)


def draw(axes: Any, data: pl.DataFrame) -> None:
    """Lines with intervals."""
    lines(axes, data, "slow_pct", "slowdown_pct", "policy", half="half_pct")
    axes.set_xlabel("memory in CXL, % of the footprint")
    axes.set_ylabel("slowdown against\nall in DRAM, %")
    axes.set_ylim(bottom=0)


def _line(data: Any, policy: str) -> list[float]:
    return [float(each) for each in data.filter(data["policy"] == policy).sort("slow_pct")["slowdown_pct"]]


def _rises(data: Any) -> tuple[bool, str]:
    falls = []
    for policy in ("first_touch", "oracle_static"):
        values = _line(data, policy)
        falls += [policy for a, b in pairwise(values) if b < a - 0.5]
    return not falls, f"{', '.join(dict.fromkeys(falls))} falls somewhere"


def _crosses(data: Any) -> tuple[bool, str]:
    still, moved = _line(data, "first_touch")[-1], _line(data, "numa_balancing")[-1]
    return moved > still, f"{moved:.1f} against {still:.1f} % with 90 % in CXL"


EXPECT = [
    expect("The bounds rise with the share of slow memory.", _rises),
    expect("With 90 % of memory slow, migrating in the fault costs more than it brings: NUMA balancing is above no "
           "migration (Soar: policies that migrate cross above no tiering past 80 %).", _crosses),
]  # fmt: skip
