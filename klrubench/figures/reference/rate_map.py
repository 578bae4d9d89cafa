"""Who wins where: touch rate by DRAM:CXL ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import annotated_map, asked, expect, slowdowns, values_of, word_for

if TYPE_CHECKING:
    import polars as pl

RATES = {0.1: 128, 0.5: 128, 2.0: 128, 5.0: 256, 10.0: 512, 20.0: 512}
"""Touches a page and second, and how many pages share a simulated one: the more touches, the coarser."""
RATIOS = ("2:1", "1:1", "1:2", "1:4", "1:8")
SIZED = "klruscand:hash=sized"
POLICIES = ("first_touch", "random_promotion", "random_sampling", "numa_balancing", "klruscand", SIZED)
SHORT = {
    "first_touch": "none",
    "random_promotion": "random",
    "random_sampling": "sampling",
    "numa_balancing": "NUMA b.",
    "klruscand": "klrusc.",
    SIZED: "klr.sized",
}
MARGIN = 1.0

CAPTION = """
    Who wins where: the policy with the least slowdown on kv (Zipf over records), by touch rate and by the share of
    the footprint that fits DRAM; the number (and the shade) is how many points of slowdown it saves against no
    migration. "=": nobody is a point better than no migration; "random": random promotion; "klr.sized": klruscand
    with a hash of one record a list. Kernel threads on spare cores.
"""
RUNS = [
    asked(["all_top", *POLICIES], ["kv"], ratio=RATIOS, rates=[rate], scale=f"1/{fold}", seeds=3)
    for rate, fold in RATES.items()
]
HEIGHT = 0.8


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Winner and its saving by rate and DRAM share."""
    import polars as pl

    found = slowdowns(frame)
    found = found.with_columns(
        values_of(found, "workload", "rate").cast(pl.Float64),
        pl.col("ratio").map_elements(_top_pct, pl.Int64).alias("dram_pct"),
    )
    rows = []
    for (rate, top), part in found.group_by(["rate", "dram_pct"], maintain_order=True):
        times = dict(zip(part["policy"], part["slowdown_pct"], strict=True))
        best = min(POLICIES, key=lambda name: times.get(name, float("inf")))
        saved = times["first_touch"] - times[best]
        rows.append({
            "rate": rate, "dram_pct": top, "winner": best, "saved_points": saved,
            "shown": SHORT[best] if saved > MARGIN else "=",
            **{f"{name}_pct": times.get(name) for name in POLICIES},
        })  # fmt: skip
    return pl.DataFrame(rows)


def _top_pct(ratio: str) -> int:
    top, lower = (float(part) for part in ratio.split(":"))
    return round(100 * top / (top + lower))


def draw(axes: Any, data: pl.DataFrame) -> None:
    """A cell for each rate and share."""
    annotated_map(axes, data, "rate", "dram_pct", "saved_points", text="shown", unit="points saved by the winner",
                  number="{:.1f}")  # fmt: skip
    axes.set_xlabel("touches a page and second")
    axes.set_ylabel("DRAM, % of the footprint")


def _saturated(data: Any) -> tuple[bool, str]:
    fast = data.filter(data["rate"] >= 20)
    gains = fast["first_touch_pct"] - fast["klruscand_pct"]
    return gains.max() < 5, f"klruscand saves {gains.max():.1f} points of {word_for('first_touch')}"


def _nothing_at_stake(data: Any) -> tuple[bool, str]:
    most = data.filter(data["rate"] <= 0.1)["saved_points"].max()
    return most < 2, f"{most:.1f} points"


def _ahead(data: Any) -> tuple[bool, str]:
    cell = data.filter((data["rate"] == 2) & (data["dram_pct"] == 33)).row(0, named=True)
    return cell["winner"] in ("klruscand", SIZED), f"{cell['winner']}"


EXPECT = [
    expect("At 0.1 touches a page and second nothing is at stake: no one saves 2 points.", _nothing_at_stake),
    expect("At 2 touches a page and second and DRAM a third klruscand wins, hash as posted or sized.", _ahead),
    expect("At 20 touches a page and second an accessed bit says nothing: klruscand saves less than 5 points.",
           _saturated),
]  # fmt: skip
