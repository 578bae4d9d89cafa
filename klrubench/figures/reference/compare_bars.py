"""Slowdown of every policy on workloads of both sides of the saturation line, with intervals and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, bars, expect, slowdowns

if TYPE_CHECKING:
    import polars as pl

POLICIES = ("all_lower", "first_touch", "random_sampling", "numa_balancing", "klruscand", "oracle_static")
WORKLOADS = ("kv", "kv:idle=60", "gups:rate=2", "gups", "hotset_shift", "uniform")

CAPTION = """
    Slowdown against all memory in DRAM (same work, whole run), by workload: the bounds (all in CXL, no migration, the
    static oracle with free moves) beside three policies, kernel threads on spare cores. Lower is better.
"""
RUNS = [asked(["all_top", *POLICIES], WORKLOADS)]
WIDTH, HEIGHT = "page", 0.34


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Slowdown and half its interval for each workload and policy."""
    found = slowdowns(frame)
    columns = ("workload", "policy", "slowdown_pct", "half_pct", "charged_pct", "seeds")
    return found.filter(found["policy"] != "all_top").select(columns)


def draw(axes: Any, data: pl.DataFrame) -> None:
    """Grouped bars."""
    bars(axes, data, "workload", "slowdown_pct", "policy", half="half_pct")
    axes.set_ylabel("slowdown against\nall in DRAM, %")
    axes.set_ylim(bottom=min(0.0, float(data["slowdown_pct"].min())))


def _by(data: pl.DataFrame, workload: str) -> dict[str, float]:
    part = data.filter(data["workload"] == workload)
    return dict(zip(part["policy"], part["slowdown_pct"], strict=True))


def _oracle_below(data: pl.DataFrame) -> tuple[bool, str]:
    names = [name for name in dict.fromkeys(data["workload"]) if not name.startswith("hotset_shift")]
    worse = [
        f"{policy} on {name}"
        for name in names
        for policy, value in _by(data, name).items()
        if value < _by(data, name)["oracle_static"] - 1
    ]
    return not worse, "below it: " + ", ".join(worse)


def _uniform(data: pl.DataFrame) -> tuple[bool, str]:
    values = _by(data, "uniform")
    best = min(values, key=lambda name: values[name])
    return values["first_touch"] <= values[best] + 1, f"{best} {values[best]:.1f} %"


def _klruscand_idle(data: pl.DataFrame) -> tuple[bool, str]:
    values = _by(data, "kv:idle=60")
    words = f"klruscand {values['klruscand']:.1f} %, no migration {values['first_touch']:.1f} %"
    return values["klruscand"] < values["first_touch"] - 1, words


EXPECT = [
    expect("The static oracle is below every policy by no less than -1 point on all but a shifting hot set.",
           _oracle_below),
    expect("On uniform touches nothing beats leaving pages where they are by a point.", _uniform),
    expect("With idle pages (kv:idle=60) klruscand beats no migration by more than a point.", _klruscand_idle),
]  # fmt: skip
