"""How fast a policy notices that the hot set moved: DRAM's share of touches over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, expect, lines
from klrubench.figures.marks import band

if TYPE_CHECKING:
    import polars as pl

POLICIES = ("first_touch", "random_sampling", "numa_balancing", "klruscand", "klruscand:hash=sized", "oracle_static")
SHIFT = 0.5
"""Share of the run's touches after which the hot set moves."""
BIN_S = 4.0

CAPTION = """
    Share of touches served by DRAM over the work done, in seconds of an unloaded all-DRAM machine: GUPS with a hot
    set of a fifth of memory, a quarter of which is replaced half-way (dashed line). Means over seeds. The static
    oracle knows the whole run and cannot move.
"""
RUNS = [asked(POLICIES, ["hotset_shift"], duration=240)]
SERIES = ("misses", "hits_top")
HEIGHT = 0.8


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Hit share by policy and bin of work; time is work so that policies of different speed line up."""
    import numpy as np
    import polars as pl

    rows: dict[tuple[str, float], list[float]] = {}
    for run in frame.iter_rows(named=True):
        misses, hits = np.array(run["series_misses"]), np.array(run["series_hits_top"])
        done_s = misses / misses[-1] * run["duration_s"]
        edges = np.arange(0, run["duration_s"] + BIN_S / 2, BIN_S)
        share = np.diff(np.interp(edges, done_s, hits)) / np.diff(np.interp(edges, done_s, misses))
        for start, value in zip(edges, share, strict=False):
            rows.setdefault((run["policy"], float(start + BIN_S / 2)), []).append(100 * float(value))
    return pl.DataFrame([
        {"policy": policy, "work_s": at, "hit_pct": sum(values) / len(values), "seeds": len(values)}
        for (policy, at), values in rows.items()
    ])  # fmt: skip


def TABLE(data: pl.DataFrame) -> pl.DataFrame:
    """Before, at and after the shift, by policy."""
    import polars as pl

    return pl.DataFrame([{"policy": name, **_levels(data, name)} for name in dict.fromkeys(data["policy"])])


def _levels(data: Any, policy: str) -> dict[str, float]:
    part = data.filter(data["policy"] == policy).sort("work_s")
    middle = SHIFT * (part["work_s"][-1] + BIN_S / 2)
    before = part.filter(part["work_s"] < middle)["hit_pct"][-3:].mean()
    at = part.filter(part["work_s"] > middle)["hit_pct"][0]
    return {"before_pct": before, "at_shift_pct": at, "end_pct": part["hit_pct"][-3:].mean()}


def draw(axes: Any, data: Any) -> None:
    """Lines, and the moment of the shift."""
    lines(axes, data, "work_s", "hit_pct", "policy", marks=False)
    band(axes, [SHIFT * (data["work_s"].max() + BIN_S / 2)], "hot set\nmoves")
    axes.set_ylim(0, 105)
    axes.set_xlabel("work done, s")
    axes.set_ylabel("touches served by DRAM, %")


def _dips(data: Any) -> tuple[bool, str]:
    level = _levels(data, "klruscand:hash=sized")
    return level["at_shift_pct"] < level["before_pct"] - 5, f"{level['before_pct']:.0f} to {level['at_shift_pct']:.0f}"


def _recovers(data: Any) -> tuple[bool, str]:
    level = _levels(data, "klruscand:hash=sized")
    half = (level["before_pct"] + level["at_shift_pct"]) / 2
    return level["end_pct"] > half, f"{level['at_shift_pct']:.0f} at the shift, {level['end_pct']:.0f} at the end"


def _flat(data: Any) -> tuple[bool, str]:
    part = data.filter(data["policy"] == "first_touch")["hit_pct"]
    return part.max() - part.min() < 5, f"it spans {part.max() - part.min():.1f} points"


EXPECT = [
    expect("klruscand (sized hash) loses 5 points or more at the shift.", _dips),
    expect("klruscand (sized hash) wins more than half of that back before the end.", _recovers),
    expect("Without migration the share stays within 5 points (hot pages lie scattered).", _flat),
]
