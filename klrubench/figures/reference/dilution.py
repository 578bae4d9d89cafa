"""Page-size dilution: the best a tier can do with records, 4 KiB and 2 MiB pages (Zipf over scattered records)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, expect, lines, mean_by, values_of

if TYPE_CHECKING:
    import polars as pl

SHARES = {"1:19": 5.0, "1:9": 10.0, "1:4": 20.0, "1:2": 100 / 3, "1:1": 50.0}
EXACT = {
    "records": (78.0, 83.0, 88.1, 91.8, 94.8),
    "4 KiB": (69.5, 75.5, 82.1, 87.4, 92.1),
    "2 MiB": (28.8, 37.1, 48.0, 59.3, 71.6),
}
"""Share of touches of the hottest 5, 10, 20, 33 and 50 %: computed for 10^6 records of 1 KiB, exponent 0.99, in random
order. More records concentrate a little more (10^7: 85.2, 78.6 and 45.1 % on the hottest tenth)."""

CAPTION = """
    Share of touches that the hottest part of memory takes, by what can be moved: the static oracle on kv (records
    of 1 KiB, Zipf 0.99, scattered over pages) with whole records as pages (4 KiB records), 4 KiB pages and 2 MiB
    pages. Grey crosses: computed without simulation for a million records. At coarse scales a simulated 2 MiB page
    stands for many and evens them out.
"""
RUNS = [
    asked(
        ["oracle_static"], ["kv:record_bytes=4096", "kv", "kv:page=2m"], ratio=tuple(SHARES), duration=60, scale="1/16"
    )
]
HEIGHT = 0.8


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Hit share by unit of movement and DRAM share, with the computed one."""
    import polars as pl

    unit = [
        "2 MiB" if page == "2m" else "records" if size == 4096 else "4 KiB"
        for page, size in zip(
            values_of(frame, "workload", "page"), values_of(frame, "workload", "record_bytes"), strict=True
        )
    ]
    found = mean_by(frame.with_columns(pl.Series("unit", unit)), ["unit", "ratio"], "dram_hit_share")
    places = list(SHARES)
    exact = [EXACT[name][places.index(ratio)] for name, ratio in found.select("unit", "ratio").iter_rows()]
    return found.select(
        "unit",
        pl.col("ratio").replace_strict(SHARES, return_dtype=pl.Float64).alias("dram_pct"),
        (100 * pl.col("dram_hit_share")).alias("hit_pct"),
        (100 * pl.col("dram_hit_share_half")).alias("half_pct"),
        pl.Series("computed_pct", exact),
        "seeds",
    )


def draw(axes: Any, data: pl.DataFrame) -> None:
    """Three lines and the computed points."""
    lines(
        axes,
        data,
        "dram_pct",
        "hit_pct",
        "unit",
        half="half_pct",
        words={"4 KiB": "4 KiB pages", "2 MiB": "2 MiB pages"},
    )
    axes.plot(data["dram_pct"], data["computed_pct"], "x", color="#666666", label="computed, 1 M records")
    axes.set_ylim(0, 105)
    axes.set_xlabel("hottest part of memory in DRAM, %")
    axes.set_ylabel("touches served by DRAM, %")


def _ordered(data: Any) -> tuple[bool, str]:
    by = {unit: data.filter(data["unit"] == unit).sort("dram_pct")["hit_pct"].to_list() for unit in EXACT}
    triples = list(zip(by["records"], by["4 KiB"], by["2 MiB"], strict=True))
    return all(a > b > c for a, b, c in triples), str([[round(v) for v in each] for each in triples])


def _as_computed(data: Any) -> tuple[bool, str]:
    """The simulated memory holds 33 million records: up to 10 points more on small parts than a million."""
    off = data["hit_pct"] - data["computed_pct"]
    return off.min() >= -3 and off.max() <= 10, f"{off.min():+.1f} to {off.max():+.1f} points off"


EXPECT = [
    expect("Records over 4 KiB pages over 2 MiB pages, at every size.", _ordered),
    expect("Within -3 and +10 points of the shares computed for a million records (33 times fewer).", _as_computed),
]
