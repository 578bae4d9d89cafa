"""The configurations of klruscand that were posted, as marked points among intervals and thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, expect, slowdowns, values_of
from klrubench.figures.style import GREY, look

if TYPE_CHECKING:
    import polars as pl

POSTED = {
    "rfc-v1": ("RFC v1", (-6, -3)),
    "rfc-v2": ("RFC v2", (-6, -3)),
    "pghot-v1": ("pghot v1", (6, -5)),
    "pghot-v3": ("pghot v3", (-6, -3)),
}
INTERVALS_MS = (100, 500, 1000, 2000, 4000)
THRESHOLDS = (1, 2, 3)

CAPTION = """
    What was posted (stars), among klruscand with pghot v2, a sized hash and other intervals and thresholds (small
    marks, joined by threshold; the filled one: 2000 ms): slowdown against all memory in DRAM on kv, over CPU time
    of kernel threads. Lower left is better. The posted ones differ in their version of pghot too: RFC v1 4000 ms,
    RFC v2 2000 ms, pghot v1 100 ms, pghot v3 500 ms.
"""
_AROUND = [f"klruscand:hash=sized,interval_ms={each},threshold={k}" for k in THRESHOLDS for each in INTERVALS_MS]
RUNS = [asked(["all_top", "first_touch", *_AROUND, *(f"klruscand:preset={name}" for name in POSTED)], ["kv"])]
HEIGHT = 0.85


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Slowdown and CPU time of every configuration; `kind` is posted, around or still (no migration)."""
    import polars as pl

    found = slowdowns(frame).filter(pl.col("policy") != "all_top")
    named = found.with_columns(
        *(values_of(found, "policy", name) for name in ("preset", "interval_ms", "threshold")),
        (100 * pl.col("daemon_cpu_s") / pl.col("time_s")).alias("cpu_pct"),
    )
    columns = ("policy", "preset", "interval_ms", "threshold", "cpu_pct", "slowdown_pct", "half_pct", "seeds")
    return named.select(_kind(named), *columns)


def _kind(found: pl.DataFrame) -> pl.Series:
    import polars as pl

    own = pl.Series("kind", ["around"] * found.height)
    marks = [
        "still" if name == "first_touch" else "posted" if "preset=" in label or label == "klruscand" else word
        for name, label, word in zip(found["policy_name"], found["policy"], own, strict=True)
    ]
    return pl.Series("kind", marks)


def draw(axes: Any, data: pl.DataFrame) -> None:
    """Small marks joined by threshold, stars with names."""
    import polars as pl

    cloud = data.filter(pl.col("kind") == "around")
    for place, threshold in enumerate(THRESHOLDS):
        part, how = cloud.filter(pl.col("threshold") == threshold).sort("interval_ms"), look("", place)
        axes.plot(part["cpu_pct"], part["slowdown_pct"], color=how.colour, marker=how.marker, linestyle=how.dashes,
                  markerfacecolor="white", label=f"{threshold} sighting{'s' if threshold > 1 else ''}")  # fmt: skip
        there = part.filter(pl.col("interval_ms") == 2000)
        axes.plot(there["cpu_pct"], there["slowdown_pct"], color=how.colour, marker=how.marker, markersize=4.5)
    points = data.filter(pl.col("kind") == "posted")
    axes.plot(points["cpu_pct"], points["slowdown_pct"], "*", color="black", markersize=9, label="as posted", zorder=5)
    for one in points.iter_rows(named=True):
        words, shift = POSTED[one["preset"]]
        axes.annotate(words, (one["cpu_pct"], one["slowdown_pct"]), xytext=shift, textcoords="offset points",
                      ha="left" if shift[0] > 0 else "right", fontsize=axes.xaxis.label.get_size() * 0.85)  # fmt: skip
    still = data.filter(pl.col("kind") == "still")["slowdown_pct"][0]
    axes.axhline(still, color=GREY, linestyle=(0, (2, 2)), linewidth=0.9)
    axes.annotate("no migration", (0.99, still), xycoords=("axes fraction", "data"), xytext=(0, 2), ha="right",
                  textcoords="offset points", fontsize=axes.xaxis.label.get_size() * 0.85)  # fmt: skip
    axes.margins(0.14)
    axes.set_xlabel("CPU time of kernel threads, % of a core")
    axes.set_ylabel("slowdown against\nall in DRAM, %")


def _posted(data: Any, preset: str) -> dict[str, Any]:
    return data.filter((data["kind"] == "posted") & (data["preset"] == preset)).row(0, named=True)


def _not_best(data: Any) -> tuple[bool, str]:
    best, mine = float(data["slowdown_pct"].min()), _posted(data, "rfc-v2")["slowdown_pct"]
    return mine > best + 1, f"RFC v2 {mine:.1f} %, the best {best:.1f} %"


def _selective(data: Any) -> tuple[bool, str]:
    v1, v2 = (_posted(data, name)["slowdown_pct"] for name in ("rfc-v1", "rfc-v2"))
    return v2 < v1, f"{v2:.1f} % against {v1:.1f} %"


EXPECT = [
    expect("What RFC v2 posted is not the best: another setting is more than a point below it.", _not_best),
    expect(
        "Waiting for a second sighting (RFC v2) beats promoting at the first, as RFC v1's pghot in fact does.",
        _selective,
    ),
]
