"""DRAM hit share against the size of the hot set, and the oracle's closed form (after HeMem's GUPS sweep)."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, expect, lines, mean_by, values_of
from klrubench.figures.style import GREY

if TYPE_CHECKING:
    import polars as pl

RATE, DURATION_S = 2.0, 120.0
HOT = (2.5, 5, 10, 20, 30, 40, 60, 80)
TOP = 1 / 3
"""F / W: DRAM's share of the footprint at 1:2."""
POLICIES = ("first_touch", "random_sampling", "numa_balancing", "klruscand", "klruscand:hash=sized", "oracle_static")

CAPTION = """
    Share of touches served by DRAM in the last half of the run, against the hot set's share of the footprint: GUPS
    with 90 % of its updates on the hot set H, 2 touches a page and second, DRAM a third (F / W) of the footprint W.
    The thick grey line is the closed form for the best static placement: 0.9 + 0.1 F/W while H fits, then F (0.9/H
    + 0.1/W). The static oracle lies a little above: of pages alike it knows which ones will by chance be touched
    most.
"""
RUNS = [asked(POLICIES, [f"gups:rate={RATE:g},hot={hot:g}" for hot in HOT], duration=DURATION_S)]
HEIGHT = 0.85


def closed_form(hot_pct: float, top: float = TOP) -> float:
    """Share of touches of the best static placement, 0..1."""
    hot = hot_pct / 100
    return 0.9 + 0.1 * top if hot <= top else top * (0.9 / hot + 0.1)


def luck(hot_pct: float, top: float = TOP, touches: float = RATE * DURATION_S) -> float:
    """What knowing each page's number of touches adds to the closed form, 0..1 (counts taken as normal).

    Of pages alike with m touches on average, Poisson distributed, the best share q takes density(z) sqrt(m) more than
    its part, z being the quantile of q.
    """
    hot = hot_pct / 100
    kind, cold = (hot, 0.9 / hot + 0.1) if hot > top else (1 - hot, 0.1)
    part = (top if hot > top else top - hot) / kind
    normal = NormalDist()
    return kind * normal.pdf(normal.inv_cdf(1 - part)) * (cold / touches) ** 0.5


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Hit share in per cent by policy and hot set, with the closed form."""
    import polars as pl

    named = frame.with_columns(values_of(frame, "workload", "hot").alias("hot_pct"))
    found = mean_by(named, ["policy", "hot_pct"], "steady_dram_hit_share")
    share, half = pl.col("steady_dram_hit_share"), pl.col("steady_dram_hit_share_half")
    return found.select(
        "policy",
        "hot_pct",
        (100 * share).alias("hit_pct"),
        (100 * half).alias("half_pct"),
        pl.col("hot_pct").map_elements(lambda hot: 100 * closed_form(hot), pl.Float64).alias("closed_form_pct"),
        pl.col("hot_pct").map_elements(lambda hot: 100 * luck(hot), pl.Float64).alias("luck_pct"),
        "seeds",
    )


def draw(axes: Any, data: pl.DataFrame) -> None:
    """Lines over a logarithmic axis, the closed form behind them."""
    form = data.filter(data["policy"] == "oracle_static").sort("hot_pct")
    axes.plot(form["hot_pct"], form["closed_form_pct"], color=GREY, alpha=0.45, linewidth=4, label="closed form")
    lines(axes, data, "hot_pct", "hit_pct", "policy", half="half_pct")
    axes.axvline(100 * TOP, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.annotate(
        "DRAM's size", (100 * TOP, 0.02), xycoords=("data", "axes fraction"), xytext=(3, 0),
        textcoords="offset points", fontsize=axes.xaxis.label.get_size() * 0.85,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks([*dict.fromkeys(data["hot_pct"])], [f"{hot:g}" for hot in dict.fromkeys(data["hot_pct"])])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 105)
    axes.set_xlabel("hot set, % of the footprint")
    axes.set_ylabel("touches served by DRAM, %")


def _matches(data: Any) -> tuple[bool, str]:
    oracle = data.filter(data["policy"] == "oracle_static")
    off = (oracle["hit_pct"] - oracle["closed_form_pct"] - oracle["luck_pct"]).abs().max()
    return off <= 1.0, f"{off:.2f} points off at most"


def _below(data: Any) -> tuple[bool, str]:
    over = data.filter(data["hit_pct"] > data["closed_form_pct"] + data["luck_pct"] + 1)
    return not over.height, ", ".join(f"{p} at {h:g} %" for p, h in over.select("policy", "hot_pct").iter_rows())


def _falls(data: Any) -> bool:
    mine = data.filter(data["policy"] == "klruscand:hash=sized").sort("hot_pct")["hit_pct"].to_list()
    return mine[-1] < mine[0]


EXPECT = [
    expect("The static oracle meets the closed form, plus what knowing each page's number of touches adds, within "
           "a point.", _matches),
    expect("No policy is above that by more than a point.", _below),
    expect("klruscand (sized hash) serves less from DRAM with the largest hot set than with the smallest.", _falls),
]  # fmt: skip
