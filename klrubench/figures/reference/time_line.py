"""How much of each class of pages, hot and cold, lies in DRAM over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, expect, lines

if TYPE_CHECKING:
    import polars as pl

POLICIES = ("random_sampling", "numa_balancing", "klruscand", "klruscand:hash=sized", "oracle_static")
HOT = 0.2
"""The hot set, of the footprint; it takes nine touches in ten, the tenth goes anywhere."""
BIN_S = 4.0

CAPTION = """
    Share of the hot pages (left) and of all others (right) that lie in DRAM over time: GUPS, 2 touches a page and
    second, hot set a fifth of memory, scattered, DRAM a third. Pages of a class are touched alike, so the shares
    follow from touches served by DRAM (0.9 of the hot pages' share and 0.1 of all pages') and pages resident there;
    means over seeds in bins of 4 s.
"""
RUNS = [asked(POLICIES, [f"gups:rate=2,hot={100 * HOT:g}"])]
SERIES = ("t_s", "misses", "hits_top", "nr_top_pages")
PANELS, WIDTH, HEIGHT = 2, "page", 0.36


def shares(hit: Any, top: Any) -> tuple[Any, Any]:
    """Shares of the hot pages and of the others in DRAM, from the hit share and the share of all pages there."""
    hot = (hit - 0.1 * top) / 0.9
    return hot, (top - HOT * hot) / (1 - HOT)


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Shares in per cent by policy and bin of time, up to the shortest run of a policy."""
    import numpy as np
    import polars as pl

    rows = []
    for policy in dict.fromkeys(frame["policy"]):
        runs = frame.filter(frame["policy"] == policy).to_dicts()
        edges = np.arange(0, min(run["series_t_s"][-1] for run in runs) + 1e-9, BIN_S)
        found = [_binned(run, edges) for run in runs]
        hot, other = (np.mean([each[side] for each in found], axis=0) for side in (0, 1))
        rows += [
            {"policy": policy, "t_s": float(at + BIN_S / 2), "hot_pct": 100 * float(a), "other_pct": 100 * float(b)}
            for at, a, b in zip(edges, hot, other, strict=False)
        ]
    return pl.DataFrame(rows)


def _binned(run: dict[str, Any], edges: Any) -> tuple[Any, Any]:
    import numpy as np

    at = {name: np.interp(edges, run["series_t_s"], run[f"series_{name}"]) for name in SERIES[1:]}
    top = (at["nr_top_pages"][1:] + at["nr_top_pages"][:-1]) / 2 / (run["footprint_gib"] * 2**18)
    return shares(np.diff(at["hits_top"]) / np.diff(at["misses"]), top)


def TABLE(data: pl.DataFrame) -> pl.DataFrame:
    """First and last bin of each policy."""
    return data.filter((data["t_s"] == BIN_S / 2) | data["t_s"].is_in(_last(data)))


def _last(data: Any) -> list[float]:
    return [float(data.filter(data["policy"] == name)["t_s"].max()) for name in dict.fromkeys(data["policy"])]


def draw(axes: Any, data: pl.DataFrame) -> None:
    """Two panels of lines."""
    for panel, column, title in ((axes[0], "hot_pct", "hot pages"), (axes[1], "other_pct", "other pages")):
        lines(panel, data, "t_s", column, "policy", marks=False)
        panel.set_ylim(0, 105)
        panel.set_title(title)
        panel.set_xlabel("time, s")
    axes[0].set_ylabel("of them in DRAM, %")


def _possible(data: Any) -> tuple[bool, str]:
    low, high = (min(data[name].min() for name in ("hot_pct", "other_pct")), data["hot_pct"].max())
    return low >= -2 and high <= 102, f"{low:.1f} to {high:.1f} %"


def _all_hot(data: Any) -> tuple[bool, str]:
    least = data.filter(data["policy"] == "oracle_static")["hot_pct"].min()
    return least >= 99, f"{least:.1f} %"


def _rises(data: Any) -> tuple[bool, str]:
    mine = data.filter(data["policy"] == "klruscand:hash=sized").sort("t_s")["hot_pct"].to_list()
    return mine[-1] > mine[0] + 20, f"{mine[0]:.0f} to {mine[-1]:.0f} %"


EXPECT = [
    expect("The shares that follow from touches lie between 0 and 100 %, give or take two.", _possible),
    expect("The static oracle has all hot pages in DRAM throughout.", _all_hot),
    expect("klruscand (sized hash) brings in at least 20 points more of the hot pages.", _rises),
]
