"""What finding and moving pages costs: scanning, faults, promotion, demotion."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, bars, expect, word_for

if TYPE_CHECKING:
    import polars as pl

POLICIES = ("numa_balancing", "random_sampling", "kmmscand", "klruscand", "klruscand:hash=sized")
PARTS = {
    "scan": ("klruscand", "random_sampling", "kscand", "task_numa_work"),
    "fault": ("hint faults",),
    "promote": ("kpromoted", "kmigrated"),
    "demote": ("kswapd",),
    "flush": ("tlb flushes",),
}
WORDS = {
    "scan": "scan and record",
    "fault": "faults, moves in them",
    "promote": "promotion threads",
    "demote": "kswapd",
    "flush": "TLB flushes",
    "other": "other",
}

CAPTION = """
    CPU seconds that each policy spends in a run, by what for, on kv with all pages in CXL and DRAM empty at the
    start. NUMA balancing promotes inside the hint fault, in the application's own time; marking pages is its scan.
    The other policies pay in kernel threads, which here run on spare cores.
"""
RUNS = [asked(POLICIES, ["kv:placement=lower"])]
HEIGHT = 0.85


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Mean seconds over seeds, by policy and part; `other` holds what no part names."""
    import polars as pl

    rows = []
    for policy in dict.fromkeys(frame["policy"]):
        runs = [json.loads(text) for text in frame.filter(frame["policy"] == policy)["cpu_json"]]
        known = {name for names in PARTS.values() for name in names}
        other = tuple(dict.fromkeys(name for run in runs for name in run if name not in known))
        for part, names in {**PARTS, "other": other}.items():
            seconds = sum(run.get(name, 0.0) for run in runs for name in names) / len(runs)
            if seconds or part != "other":
                rows.append({"policy": policy, "part": part, "cpu_s": seconds, "seeds": len(runs)})
    return pl.DataFrame(rows)


def draw(axes: Any, data: pl.DataFrame) -> None:
    """A stacked bar a policy."""
    import polars as pl

    named = data.with_columns(
        pl.col("policy").map_elements(lambda label: word_for(label).replace(" ", "\n"), pl.String)
    )
    bars(axes, named, "policy", "cpu_s", "part", stacked=True, words=WORDS)
    axes.set_ylabel("CPU time, s")


def _seconds(data: Any, policy: str, *parts: str) -> float:
    return float(data.filter((data["policy"] == policy) & data["part"].is_in(parts))["cpu_s"].sum())


def _in_the_fault(data: Any) -> tuple[bool, str]:
    fault, other = (_seconds(data, name, "fault") for name in ("numa_balancing", "klruscand"))
    return fault > 0 and other == 0, f"{fault:.1f} s against {other:.1f} s"


def _posted(data: Any) -> tuple[bool, str]:
    fault, scan = _seconds(data, "numa_balancing", "fault"), _seconds(data, "kmmscand", "scan", "promote")
    return fault > scan, f"{fault:.1f} s against {scan:.1f} s"


def _lists(data: Any) -> tuple[bool, str]:
    posted, sized = (_seconds(data, name, "scan") for name in ("klruscand", "klruscand:hash=sized"))
    return posted > 2 * sized, f"{posted:.1f} s against {sized:.1f} s"


def _whole(data: Any) -> tuple[bool, str]:
    rest = float(data.filter(data["part"] == "other")["cpu_s"].sum())
    return rest == 0, f"{rest:.2f} s unnamed"


EXPECT = [
    expect("NUMA balancing pays in faults, klruscand not at all.", _in_the_fault),
    expect("NUMA balancing's faults take longer than kmmscand's scan and promotion (posted: 4 to 5 times in 8 GB).",
           _posted),
    expect("pghot's hash lists as posted more than double klruscand's recording time.", _lists),
    expect("The parts are all of the CPU time.", _whole),
]  # fmt: skip
