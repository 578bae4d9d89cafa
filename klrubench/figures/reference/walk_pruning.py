"""What the walk's pruning saves, and what it misses: hot pages scattered or in one piece."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, bars, expect, values_of

if TYPE_CHECKING:
    import polars as pl

WALKS = {
    ("variant", "own"): "as posted",
    ("none", "none"): "clean, no Bloom filter",
    ("none", "own"): "clean, Bloom filters",
}
"""Values of `effects` and `filter`."""
LIE = {"scattered": "scattered", "contiguous": "in one piece"}

CAPTION = """
    PTE slots that klruscand's walk visits in a run (left) and the share of touches served by DRAM in the last half
    (right), by what prunes the walk: as posted (the Bloom filter is read and never written), without any, and with
    filters of its own; PMD accessed bits prune in all three. GUPS with 0.2 touches a page and second, its hot set
    in CXL at the start and scattered or in one piece.
"""
RUNS = [
    asked(
        [f"klruscand:hash=sized,effects={effects},filter={kind}" for effects, kind in WALKS],
        [f"gups:rate=0.2,placement=hot_on_lower,hot_pages={name}" for name in LIE],
    )
]
PANELS, HEIGHT = 2, 0.72


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Slots visited, precision and recall, means over seeds."""
    import polars as pl

    walks = [values_of(frame, "policy", name) for name in ("effects", "filter")]
    named = frame.with_columns(
        values_of(frame, "workload", "hot_pages").replace(LIE).alias("hot_pages"),
        pl.Series("walk", [WALKS[pair] for pair in zip(*walks, strict=True)]),
        pl.Series("slots_m", [json.loads(text).get("ptescan_slots", 0) / 1e6 for text in frame["vmstat_json"]]),
    )
    return named.group_by("hot_pages", "walk", maintain_order=True).agg(
        pl.col("slots_m").mean(),
        (100 * pl.col("precision").mean()).alias("precision_pct"),
        (100 * pl.col("recall").mean()).alias("recall_pct"),
        (100 * pl.col("steady_dram_hit_share").mean()).alias("hit_pct"),
        pl.len().alias("seeds"),
    )


def draw(axes: Any, data: pl.DataFrame) -> None:
    """Two panels of bars."""
    bars(axes[0], data, "hot_pages", "slots_m", "walk")
    axes[0].set_ylabel("PTE slots visited, millions")
    bars(axes[1], data, "hot_pages", "hit_pct", "walk")
    axes[1].set_ylabel("touches served by DRAM, %")
    axes[1].set_ylim(0, 105)
    for panel in axes:
        panel.set_xlabel("hot pages")


def _value(data: Any, hot_pages: str, walk: str, column: str) -> float:
    return float(data.filter((data["hot_pages"] == hot_pages) & (data["walk"] == walk))[column][0])


def _saved(data: Any, hot_pages: str) -> float:
    with_, without = (
        _value(data, hot_pages, f"clean, {name}", "slots_m") for name in ("Bloom filters", "no Bloom filter")
    )
    return 100 * (1 - with_ / without)


def _clustered(data: Any) -> tuple[bool, str]:
    one, many = _saved(data, "in one piece"), _saved(data, "scattered")
    return one > many, f"{one:.0f} % saved in one piece, {many:.0f} % scattered"


def _fewer(data: Any) -> tuple[bool, str]:
    saved = _saved(data, "in one piece")
    return saved > 30, f"{saved:.0f} %"


EXPECT = [
    expect("A walk's own Bloom filters save more where hot pages lie in one piece than where they are scattered.",
           _clustered),
    expect("There they save more than 30 % of the slots.", _fewer),
]  # fmt: skip
