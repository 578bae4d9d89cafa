"""The side effects of klruscand's posted walk, one by one, between clean and as posted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, bars, expect, slowdowns, values_of

if TYPE_CHECKING:
    import polars as pl

EFFECTS = ("none", "aging", "bloom", "force", "pmd", "steal", "resume", "edge", "all")
WORDS = {"none": "clean", "all": "as posted"}
WORKLOADS = ("kv", "gups:rate=2")

CAPTION = """
    Slowdown of klruscand against all memory in DRAM with the side effects of its posted walk, one at a time: none
    (clean), each alone, all (as posted); pghot's hash is sized. aging: passes count as the lruvec's own; bloom: the
    filter is never written; force: a newborn address space unprunes the node's pass; pmd: PMD accessed bits lost
    for others; steal: PTE accessed bits lost for others; resume: pages reported twice after a full batch; edge: the
    rest of an address space lost for a pass. Where `bloom` is repaired the walk has no filter at all (filter=none):
    with one of its own, a first pass that `edge` cuts short would leave the rest out of it for good. aging, bloom and
    force then have nothing to change on these workloads.
"""
SCAN = "klruscand:hash=sized,filter=none,effects="
RUNS = [asked(["all_top", *(SCAN + each for each in EFFECTS)], WORKLOADS)]
HEIGHT = 0.8


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Slowdown by workload and set of side effects."""
    import polars as pl

    found = slowdowns(frame).filter(pl.col("policy") != "all_top")
    named = found.with_columns(values_of(found, "policy", "effects").replace(WORDS).alias("effect"))
    return named.select("workload", "effect", "slowdown_pct", "half_pct", "promoted_mib_s", "daemon_cpu_s", "seeds")


def draw(axes: Any, data: pl.DataFrame) -> None:
    """A group of bars for each set."""
    bars(axes, data, "effect", "slowdown_pct", "workload", half="half_pct", words={"gups:rate=2": "GUPS"})
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="x", rotation=40)
    axes.set_ylabel("slowdown against\nall in DRAM, %")


def _spread(data: Any, workload: str) -> dict[str, float]:
    part = data.filter(data["workload"] == workload)
    return dict(zip(part["effect"], part["slowdown_pct"], strict=True))


def _matters(data: Any) -> tuple[bool, str]:
    gaps = {name: abs(_spread(data, name)["as posted"] - _spread(data, name)["clean"]) for name in WORKLOADS}
    return max(gaps.values()) > 1, ", ".join(f"{name} {gap:.1f} points apart" for name, gap in gaps.items())


def _small(data: Any) -> tuple[bool, str]:
    """One bookkeeping slip at the end of a batch concerns a few tables of a pass."""
    off = {name: abs(_spread(data, name)["resume"] - _spread(data, name)["clean"]) for name in WORKLOADS}
    return max(off.values()) < 1, ", ".join(f"{name} {gap:.1f} points" for name, gap in off.items())


EXPECT = [
    expect("As posted and clean differ by more than a point on one of the workloads.", _matters),
    expect("Pages reported twice after a full batch (resume) change slowdown by less than a point.", _small),
]
