"""Slowdown of every policy on workloads of both sides of the saturation line, with intervals and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, bars, expect, slowdowns
from klrubench.figures.style import GREY

if TYPE_CHECKING:
    import polars as pl

POLICIES = (
    "all_lower",
    "first_touch",
    "random_sampling",
    "numa_balancing",
    "klruscand",
    "klruscand:hash=sized",
    "oracle_static",
)
WORKLOADS = ("kv", "kv:idle=60", "gups:rate=2", "gups", "hotset_shift", "uniform")

SHARES = {"slowdown_pct": "share_pct", "half_pct": "share_half_pct"}

CAPTION = """
    Slowdown against all memory in DRAM, in per cent of the slowdown of all memory in CXL (in brackets, whole run),
    by workload: the bounds (all in CXL: the line; no migration; the static oracle with free moves) beside the
    policies, kernel threads on spare cores. Lower is better.
"""
RUNS = [asked(["all_top", *POLICIES], WORKLOADS)]
WIDTH, HEIGHT = "page", 0.34


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Slowdown and half its interval for each workload and policy."""
    import polars as pl

    found = slowdowns(frame).filter(pl.col("policy") != "all_top")
    worst = found.filter(pl.col("policy") == "all_lower").select(
        "workload", pl.col("slowdown_pct").alias("all_cxl_pct")
    )
    found = found.join(worst, on="workload", maintain_order="left")
    shares = [(100 * pl.col(name) / pl.col("all_cxl_pct")).alias(to) for name, to in SHARES.items()]
    columns = ("workload", "policy", "slowdown_pct", "half_pct", "charged_pct", "all_cxl_pct")
    return found.select(*columns, *shares, "seeds")


def draw(axes: Any, data: pl.DataFrame) -> None:
    """Grouped bars."""
    import polars as pl

    named = data.filter(pl.col("policy") != "all_lower").with_columns(
        pl.format("{}\n({} %)", "workload", pl.col("all_cxl_pct").round(0).cast(pl.Int64)).alias("name")
    )
    bars(axes, named, "name", "share_pct", "policy", half="share_half_pct")
    axes.axhline(100, color=GREY, linewidth=1)
    axes.annotate("all in CXL", (0, 100), xycoords=("axes fraction", "data"), xytext=(2, 2),
                  textcoords="offset points", fontsize=axes.xaxis.label.get_size() * 0.85)  # fmt: skip
    axes.set_ylabel("slowdown, % of that\nof all in CXL")


def _by(data: Any, workload: str) -> dict[str, float]:
    part = data.filter(data["workload"] == workload)
    return dict(zip(part["policy"], part["slowdown_pct"], strict=True))


def _oracle_below(data: Any) -> tuple[bool, str]:
    names = [name for name in dict.fromkeys(data["workload"]) if not name.startswith("hotset_shift")]
    worse = [
        f"{policy} on {name}"
        for name in names
        for policy, value in _by(data, name).items()
        if value < _by(data, name)["oracle_static"] - 1
    ]
    return not worse, "below it: " + ", ".join(worse)


def _uniform(data: Any) -> tuple[bool, str]:
    values = _by(data, "uniform")
    best = min(values, key=lambda name: values[name])
    return values["first_touch"] <= values[best] + 1, f"{best} {values[best]:.1f} %"


def _klruscand_idle(data: Any) -> tuple[bool, str]:
    values = _by(data, "kv:idle=60")
    words = f"klruscand {values['klruscand:hash=sized']:.1f} %, no migration {values['first_touch']:.1f} %"
    return values["klruscand:hash=sized"] < values["first_touch"] - 1, words


EXPECT = [
    expect("No policy beats the static oracle by a point, but where the hot set shifts.", _oracle_below),
    expect("On uniform touches nothing beats leaving pages where they are by a point.", _uniform),
    expect("With idle pages (kv:idle=60) klruscand with a sized hash beats no migration by a point.", _klruscand_idle),
]
