"""Where an accessed bit stops saying anything: touch rate by klruscand's interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import annotated_map, asked, expect, slowdowns, values_of

if TYPE_CHECKING:
    import polars as pl

RATES = {0.1: 128, 0.5: 128, 2.0: 128, 5.0: 256, 10.0: 512, 20.0: 512}
"""Touches a page and second, and how many pages share a simulated one: the more touches, the coarser."""
INTERVALS_MS = (100, 500, 1000, 2000, 4000)

CAPTION = """
    Points of slowdown that klruscand saves against no migration on kv, by touch rate and scan interval (blue: it
    helps, orange and a minus sign: it harms). pghot's hash has a list a record: as posted, walking its lists takes
    a whole core at any interval and hides what the interval does. Kernel threads on spare cores.
"""
_SCAN = [f"klruscand:hash=sized,interval_ms={interval}" for interval in INTERVALS_MS]
RUNS = [
    asked(["all_top", "first_touch", *_SCAN], ["kv"], rates=[rate], scale=f"1/{fold}", seeds=3)
    for rate, fold in RATES.items()
]
HEIGHT = 0.8


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Points saved by rate and interval."""
    import polars as pl

    found = slowdowns(frame)
    found = found.with_columns(
        values_of(found, "workload", "rate").cast(pl.Float64),
        values_of(found, "policy", "interval_ms").cast(pl.Float64),
    )
    still = found.filter(pl.col("policy") == "first_touch").select("rate", pl.col("slowdown_pct").alias("still_pct"))
    mine = found.filter(pl.col("policy_name") == "klruscand").join(still, on="rate", maintain_order="left")
    return mine.select(
        "rate",
        "interval_ms",
        (pl.col("still_pct") - pl.col("slowdown_pct")).alias("saved_points"),
        "slowdown_pct",
        "half_pct",
        "recall",
        "precision",
    )


def draw(axes: Any, data: pl.DataFrame) -> None:
    """A cell for each rate and interval."""
    annotated_map(axes, data, "rate", "interval_ms", "saved_points", unit="points saved against no migration",
                  number="{:+.1f}", diverging=True)  # fmt: skip
    axes.set_xlabel("touches a page and second")
    axes.set_ylabel("klruscand's interval, ms")


def _saturated(data: Any) -> tuple[bool, str]:
    fast = data.filter(data["rate"] >= 10)
    best = fast.row(int(fast["saved_points"].arg_max() or 0), named=True)
    return best["saved_points"] < 5, f"{best['saved_points']:.1f} at rate {best['rate']:g}, {best['interval_ms']:g} ms"


def _slow_enough(data: Any) -> tuple[bool, str]:
    cell = data.filter((data["rate"] == 2) & (data["interval_ms"] == 2000))["saved_points"][0]
    return cell > 0, f"{cell:.1f} points"


EXPECT = [
    expect("At 10 touches a page and second or more no interval saves 5 points against no migration.", _saturated),
    expect("At 2 touches a page and second the posted 2000 ms helps.", _slow_enough),
]
