"""klruscand's interval and batch: slowdown, recall and CPU time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import annotated_map, asked, expect, slowdowns, values_of

if TYPE_CHECKING:
    import polars as pl

INTERVALS_MS = (500, 1000, 2000, 4000)
BATCHES = (1 << 12, 1 << 14, 2 << 16, 2 << 18)

CAPTION = """
    klruscand on kv by scan interval and batch (page frames collected before a flush): slowdown against all memory
    in DRAM, recall of the pages that will be hot, and CPU time of kernel threads. Posted: 2000 ms and 131072
    frames; pghot's hash is sized (a list a record), or walking its lists would be all that is seen.
"""
_SCAN = [f"klruscand:hash=sized,interval_ms={each},batch={batch}" for each in INTERVALS_MS for batch in BATCHES]
RUNS = [asked(["all_top", *_SCAN], ["kv"])]
PANELS, WIDTH, HEIGHT = 3, "page", 0.32
SHOWN = (
    ("slowdown_pct", "slowdown, %", "{:.1f}"),
    ("recall_pct", "recall, %", "{:.0f}"),
    ("cpu_pct", "CPU time, % of a core", "{:.0f}"),
)


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Slowdown, recall and CPU time by interval and batch."""
    import polars as pl

    found = slowdowns(frame).filter(pl.col("policy") != "all_top")
    return found.select(
        values_of(found, "policy", "interval_ms").cast(pl.Float64),
        values_of(found, "policy", "batch").cast(pl.Int64),
        "slowdown_pct",
        "half_pct",
        (100 * pl.col("recall")).alias("recall_pct"),
        (100 * pl.col("daemon_cpu_s") / pl.col("time_s")).alias("cpu_pct"),
        "seeds",
    )


def draw(axes: Any, data: pl.DataFrame) -> None:
    """A map for each quantity."""
    import polars as pl

    named = data.with_columns((pl.col("batch") / 1024).cast(pl.Int64), pl.col("interval_ms") / 1000)
    for panel, (value, title, number) in zip(axes, SHOWN, strict=True):
        annotated_map(panel, named, "interval_ms", "batch", value, number=number)
        panel.set_title(title)
        panel.set_xlabel("interval, s")
    axes[0].set_ylabel("batch, Ki frames")


def _batch_flat(data: Any) -> tuple[bool, str]:
    spans = [part["slowdown_pct"].max() - part["slowdown_pct"].min() for _, part in data.group_by("interval_ms")]
    return max(spans) < 1, f"it spans {max(spans):.1f} points"


def _cpu_falls(data: Any) -> tuple[bool, str]:
    values = data.sort("interval_ms").group_by("interval_ms", maintain_order=True).mean()["cpu_pct"].to_list()
    return values[0] >= values[-1], " to ".join(f"{value:.0f} %" for value in (values[0], values[-1]))


EXPECT = [
    expect("The batch does not matter: at each interval slowdowns lie within a point.", _batch_flat),
    expect("Longer intervals need no more CPU time.", _cpu_falls),
]
