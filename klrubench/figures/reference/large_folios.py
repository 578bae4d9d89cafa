"""Large folios: what one record for all PTEs of a folio makes of the walk's sightings, from 4 KiB to 2 MiB."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from klrubench.figures import asked, expect, lines, mean_by, values_of

if TYPE_CHECKING:
    import polars as pl

SIZES_KIB = {"4k": 4, "16k": 16, "64k": 64, "256k": 256, "1m": 1024, "2m": 2048}
FRAME, HEAD, CHANCE = "klruscand:hash=sized", "klruscand:pghot=v3", "random_promotion"
POLICIES = (HEAD, FRAME, "klruscand:pghot=v5-compact", "numa_balancing", CHANCE, "oracle_static")
WORDS = {
    FRAME: "klruscand, v2 (a record a frame)",
    HEAD: "klruscand, v3 (a record a folio)",
    "klruscand:pghot=v5-compact": "klruscand, v5 compact",
}

CAPTION = """
    kv with half a touch a page and second, hot records scattered, over the size of the folios that memory consists
    of: those between 4 KiB and 2 MiB are mapped by PTEs, each of which has its accessed bit. Left, of the pages that
    were promoted those that were among the best for DRAM then; middle, promotion; right, touches served
    by DRAM. pghot v2 counts each
    page of a folio for itself, v3 and v5 count all of them in the record of its head, so that one pass over a folio
    with two or three young pages makes it hot. The hash of v2 has a list a record.
"""
RUNS = [asked(POLICIES, [f"kv:rate=0.5,page={size}" for size in SIZES_KIB])]
PANELS, WIDTH, HEIGHT = 3, "page", 0.34


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Precision, DRAM hits and promotion by policy and folio size."""
    import polars as pl

    sized = frame.with_columns(values_of(frame, "workload", "page").replace_strict(SIZES_KIB).alias("folio_kib"))
    keys = ["policy", "folio_kib"]
    found = mean_by(sized, keys, "dram_hit_share")
    for column in ("precision", "promoted_mib_s"):
        found = found.join(mean_by(sized, keys, column).drop("seeds"), on=keys, maintain_order="left")
    return found.select(
        *keys,
        (100 * pl.col("precision")).alias("precision_pct"),
        (100 * pl.col("precision_half")).alias("precision_half_pct"),
        (100 * pl.col("dram_hit_share")).alias("hit_pct"),
        (100 * pl.col("dram_hit_share_half")).alias("hit_half_pct"),
        "promoted_mib_s",
        pl.col("promoted_mib_s_half").alias("promoted_half_mib_s"),
        "seeds",
    )


def draw(axes: Any, data: pl.DataFrame) -> None:
    """Three panels of lines over a logarithmic axis."""
    moving = data.filter(data["precision_pct"].is_not_null())
    for panel, part, value, half in (
        (axes[0], moving, "precision_pct", "precision_half_pct"),
        (axes[1], moving, "promoted_mib_s", "promoted_half_mib_s"),
        (axes[2], data, "hit_pct", "hit_half_pct"),
    ):
        lines(panel, part, "folio_kib", value, "policy", half=half, words=WORDS)
        panel.set_xscale("log", base=2)
        panel.set_xticks(list(SIZES_KIB.values()), ["4K", "16K", "64K", "256K", "", "2M"])
        panel.set_xticks([], minor=True)
        panel.set_xlabel("folio size")
        panel.set_ylim(0, None if panel is axes[1] else 105)
    axes[0].set_ylabel("promoted pages among\nthe best for DRAM, %")
    axes[1].set_ylabel("promoted, MiB/s")
    axes[2].set_ylabel("touches served\nby DRAM, %")


def _line(data: Any, policy: str, column: str) -> dict[int, float]:
    part = data.filter(data["policy"] == policy)
    return dict(zip(part["folio_kib"], part[column], strict=True))


def _one_pass(data: Any) -> tuple[bool, str]:
    found, chance = (_line(data, policy, "precision_pct") for policy in (HEAD, CHANCE))
    words = ", ".join(f"{found[size]:.0f} against {chance[size]:.0f} % at {size} KiB" for size in (4, 64))
    return found[4] > chance[4] + 20 and found[64] < chance[64] + 5, words


def _hot_at_once(data: Any) -> tuple[bool, str]:
    head, frame = (_line(data, policy, "promoted_mib_s") for policy in (HEAD, FRAME))
    words = ", ".join(f"{head[size]:.0f} against {frame[size]:.0f} MiB/s at {size} KiB" for size in (4, 64))
    return head[4] < 1.5 * frame[4] and head[64] > 1.5 * frame[64], words


def _popped_whole(data: Any) -> tuple[bool, str]:
    rate = _line(data, FRAME, "promoted_mib_s")
    return rate[4] < rate[64] < rate[1024], f"{rate[4]:.0f}, {rate[64]:.0f} and {rate[1024]:.0f} MiB/s"


def _diluted(data: Any) -> tuple[bool, str]:
    hits = [share for _, share in sorted(_line(data, "oracle_static", "hit_pct").items())]
    return all(a > b for a, b in pairwise(hits)), ", ".join(f"{share:.0f}" for share in hits) + " %"


EXPECT = [
    expect("With v3 the walk picks better than chance at 4 KiB, and no better at 64 KiB, where a single pass makes a "
           "folio hot.", _one_pass),
    expect("v3 wants three sightings and v2 two, yet at 64 KiB v3 promotes half as much again as v2 or more; not so at "
           "4 KiB.", _hot_at_once),
    expect("kpromoted's cap is one of records: with v2 it promotes more, the larger the folio (4 KiB, 64 KiB, 1 MiB).",
           _popped_whole),
    expect("The larger the folio, the more a hot record is diluted: the static oracle falls at each step.", _diluted),
]  # fmt: skip
