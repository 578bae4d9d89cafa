"""klruscand's rows, by running the policy as posted: sightings, gaps, periods, the law, the time line,
a full fast node.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from klrubench.mm.state import (
    FREE,
    KPROMOTED_COLD_OLD,
    KPROMOTED_DROPPED,
    KPROMOTED_NON_LRU,
    KPROMOTED_POPPED,
    KPROMOTED_RIGHT_NODE,
    KSWAPD_WAKES,
    PGDEMOTE_KSWAPD,
    PGHOT_HEAP_FULL,
    PGHOT_PGTSCANS,
    PGMIGRATE_FAIL,
    PGMIGRATE_SUCCESS,
    PGPROMOTE_CANDIDATE,
    PGPROMOTE_SUCCESS,
    PROMOTE_FOLIOS,
    PROMOTE_REFUSED,
    PTESCAN_YOUNG,
    WMARK_HIGH,
    WMARK_LOW,
)
from klrubench.simulate.system import System
from klrubench.study.plugins import find_workload
from klrubench.validation.emulated import (
    CLASS_PAGES,
    HOTSET_PAGES,
    PERIOD_S,
    TABLE,
    Meter,
    Plan,
    Script,
    before_pass,
    between_passes,
    emulated,
    fast_pages,
    hotset_classes,
    on_fast,
    start,
    starved,
    watch,
)
from klrubench.validation.facts import curve, facts
from klrubench.validation.finding import Finding, below, check, finding, holds, near, same

GROUP = "klruscand"
SET = 512  # pages of a group that is touched together
SLOTS_PER_S = 50_000  # hotset loads once in each 20 us; without hint faults no slot is lost
LOADS = np.array([0.80, 0.15, 0.05]) * SLOTS_PER_S
HOTSET = {"rate": SLOTS_PER_S / HOTSET_PAGES}
IDLE_OUT_S = 8.192  # a multiple of the 2048 ms period, beyond the window of the sightings that populating has left
LEAD_S = 0.1375  # from the program's first load to the first pass, in the run that was observed
POSTED = {"wake_kswapd": "posted"}


def groups_promoted(passes: dict[str, list[int]], last: int) -> dict[str, int]:
    """Pages promoted of each group of 512, touched before the passes of its list (>= 3: populating has idled out)."""
    groups = {name: np.arange(k * SET, (k + 1) * SET) for k, name in enumerate(passes)}
    plan: Plan = [
        (second + k * SET / 8192, pages)
        for k, (name, group) in enumerate(groups.items())
        for second, pages in before_pass(passes[name], group)
    ]
    program = Script((len(groups) + 4) * TABLE, sorted(plan, key=lambda step: step[0]))
    system = start("klruscand", program, duration_s=(last + 1) * PERIOD_S)
    system.run()
    return {name: int(fast_pages(system)[group].sum()) for name, group in groups.items()}


@check("klru_threshold", GROUP)
def klru_threshold() -> Finding:
    """Two sightings promote, one does not: all 512 pages of a group behave alike."""
    passes = {"none": [], "one": [3], "two": [3, 4], "three": [3, 4, 5], "one late": [7], "two late": [6, 7]}
    promoted = groups_promoted(passes, 8)
    expected = {"none": 0, "one": 0, "two": SET, "three": SET, "one late": 0, "two late": SET}
    return finding(
        f"2: {promoted['two']}/512 of a group sighted twice, {promoted['one']}/512 of one sighted once",
        same("pages promoted by sightings", expected, promoted),
    )


@check("klru_gap_rule", GROUP)
def klru_gap_rule() -> Finding:
    """Sightings one or two passes apart promote, three or more never; every third pass for ever: never."""
    gaps = {f"gap {gap}": [3, 3 + gap] for gap in range(1, 7)}
    promoted = groups_promoted({**gaps, "every third": list(range(3, 19, 3)), "every second": [3, 5, 7]}, 19)
    expected = {name: SET if name in ("gap 1", "gap 2", "every second") else 0 for name in promoted}
    far = sum(promoted[f"gap {gap}"] for gap in range(3, 7))
    return finding(
        f"gap 1 and 2: {promoted['gap 1']} and {promoted['gap 2']} of 512; 3 to 6: {far}; every third pass: "
        f"{promoted['every third']}",
        same("pages promoted", expected, promoted),
    )


def pass_starts(system: System) -> tuple[list[float], list[float]]:
    """Run: (ms at which each pass began, CPU time of klruscand until then in ms).

    A pass begins with its fixed charge.
    """
    starts: list[float] = []
    spent: list[float] = []
    charge = system.charge_full

    def watched(**counts: int) -> None:
        if "pass_fixed" in counts:
            starts.append(system.now_ms)
            spent.append(system.cpu_ps["klruscand"] / 1e9)
        charge(**counts)

    system.charge_full = watched  # type: ignore[method-assign]
    system.run()
    return starts, spent


@check("klru_period", GROUP)
def klru_period() -> Finding:
    """Start to start at HZ=1000: the sleep is rounded up by the timer wheel."""
    expected = {500: 504, 1000: 1024, 2000: 2048, 4000: 4032}
    found, parts = [], []
    for interval, period in expected.items():
        system = start("klruscand", Script(8 * TABLE, []), duration_s=20, policy_values={"interval_ms": interval})
        periods = np.diff(pass_starts(system)[0])[1:]
        found.append(f"{np.median(periods):.0f}")
        parts.append(
            near(f"interval {interval} ms, furthest", period, float(max(periods, key=lambda p: abs(p - period))), by=2)
        )
    return finding(f"{'/'.join(found)} ms", *parts)


@check("klru_no_catchup", GROUP)
def klru_no_catchup() -> Finding:
    """Passes longer than the interval follow each other without pause, and none is made up for."""
    system = start(starved(interval_ms=50.0), duration_s=9, workload_values={"rate": 30.0})
    starts, spent = pass_starts(system)
    lasted, apart = np.diff(spent)[:19], np.diff(starts)[:19]
    pause = float(np.abs(apart - lasted).max())
    return finding(
        f"pause {pause:.3f} ms at most in {len(lasted)} of 19 passes of {lasted.min():.0f} to {lasted.max():.0f} ms, "
        f"interval 50 ms",
        holds("passes outlast the interval", "> 50 ms", bool((lasted > 50).all()), float(lasted.min())),
        below("largest pause, ms", pause, 1e-6),
        same("passes", 19, len(lasted)),
    )


def hotset(seed: int = 1, duration_s: float = 12.5, **options: Any) -> System:
    """The run of klruscand_hotset.csv: the sightings of populating have idled out before the program's first load."""
    return start(
        "klruscand",
        duration_s=duration_s,
        idle_s=IDLE_OUT_S - LEAD_S,
        seed=seed,
        policy_values=POSTED,
        workload_values=HOTSET,
        **options,
    )


def law(gaps_s: list[float]) -> np.ndarray:
    """Share promoted by class: sighted with 1-exp(-r*gap), promoted at a sighting <= 5 s after the previous one."""
    now, shares = 0.0, []
    seen: dict[float, np.ndarray] = {-99.0: np.ones(3)}  # not promoted, by time of the last sighting
    promoted = np.zeros(3)
    for gap in gaps_s:
        now += gap
        sighted = 1 - np.exp(-LOADS / CLASS_PAGES * gap)
        promoted = promoted + sum(sighted * share for at, share in seen.items() if now - at <= 5)
        again = sum(sighted * share for at, share in seen.items() if now - at > 5)
        seen = {at: share * (1 - sighted) for at, share in seen.items()} | {now: np.asarray(again)}
        shares.append(promoted)
    return np.array(shares)


def shares_on_fast(interval_ms: int, period_s: float, passes: int, seed: int) -> np.ndarray:
    """Share of each class promoted after each pass of a run that begins with one."""
    idle = -(-8 // period_s) * period_s
    system = start(
        "klruscand",
        duration_s=(passes + 0.9) * period_s,
        idle_s=idle,
        seed=seed,
        workload_values=HOTSET,
        policy_values={"interval_ms": interval_ms} | POSTED,
    )
    classes, seen = hotset_classes(system), []
    for number in range(1, passes + 1):
        mark = round((number + 0.85) * period_s * SLOTS_PER_S)
        system.at_touch(mark, lambda: seen.append(on_fast(system, classes)))
    system.run()
    return np.array(seen) / CLASS_PAGES


@check("klru_law_hotset", GROUP)
def klru_law_hotset() -> Finding:
    """Share on the fast node per class after every pass against the closed form (mean of four runs)."""
    parts, rms = [], []
    for interval, period in ((2000, 2.048), (1000, 1.024), (4000, 4.032)):
        found = np.mean([shares_on_fast(interval, period, 12, seed) for seed in range(4)], axis=0)
        apart = found - law([period] * 12)
        rms.append(float(np.sqrt(np.mean(apart**2))))
        parts.append(below(f"{interval} ms: largest deviation", float(np.abs(apart).max()), 0.01))
        parts.append(below(f"{interval} ms: rms", rms[-1], 0.004))
    return finding(f"rms residual {rms[0]:.4f} ({rms[1]:.4f} at 1000 ms, {rms[2]:.4f} at 4000 ms)", *parts)


@cache
def series() -> list[tuple[float, Any]]:
    """(second after the program's first load, (classes, sightings, promotions)) every 100 ms of the observed run."""
    system = hotset()
    classes, begin = hotset_classes(system), system.tenants[0].slept_ps / 1e12
    counts = (PGHOT_PGTSCANS, PGPROMOTE_SUCCESS)
    rows = watch(system, 100, lambda s: (on_fast(s, classes), *(int(s.mm.stat[k]) for k in counts)))
    return [(second - begin, state) for second, state in rows]


def at(second: float) -> Any:
    """The state at a second of the observed run."""
    return min(series(), key=lambda row: abs(row[0] - second))[1]


def off_class(found: Any, observed: Any) -> float:
    """Largest deviation of three counts, as a share of their classes."""
    return float(np.abs(np.subtract(found, observed) / CLASS_PAGES).max())


@check("klru_hotset_series", GROUP)
def klru_hotset_series() -> Finding:
    """Pages on the fast node after each pass within 2 % of the class."""
    counts = [tuple(map(int, triple.split("/"))) for triple in facts()["klru_hotset_series"].measured.split()]
    found = [at(LEAD_S + k * PERIOD_S + 1.5)[0] for k in range(len(counts))]
    parts = [
        below(f"pass {k}: furthest, share of class", off_class(ours, seen), 0.02)
        for k, (ours, seen) in enumerate(zip(found, counts, strict=True))
    ]
    return finding(" ".join("/".join(map(str, each)) for each in found), *parts)


@check("klruscand_hotset", GROUP)
def klruscand_hotset() -> Finding:
    """Rows well after a pass: pages of each class, sightings and promotions.

    The rows up to 0.75 s after a pass are left out: the observed machine had one CPU for the program, klruscand and
    kpromoted, so that a pass's promotions took several times as long as they do with a CPU each.
    """
    rows = [row for row in curve("klruscand_hotset") if (row["millisecond"] / 1000 - LEAD_S) % PERIOD_S >= 0.75]
    worst = [0.0, 0.0, 0.0]
    for row in rows:
        classes, recorded, promoted = at(row["millisecond"] / 1000)
        off = off_class(classes, [row[f"{name}_on_fast"] for name in ("hot", "warm", "cold")])
        sightings = abs(recorded - row["pghot_recorded_pgtscans"]) / row["pghot_recorded_pgtscans"]
        moved = abs(promoted - row["pgpromote_success"]) / HOTSET_PAGES
        worst = [max(pair) for pair in zip(worst, (off, sightings, moved), strict=True)]
    return finding(
        f"{len(rows)} rows (well after a pass): classes within {100 * worst[0]:.1f} %, "
        f"sightings {100 * worst[1]:.1f} %",
        below("furthest, share of class", worst[0], 0.02),
        below("sightings, share of count", worst[1], 0.02),
        below("promotions, share of pages", worst[2], 0.02),
        holds("rows compared", "14 or more", len(rows) >= 14, len(rows)),
    )


@check("klru_freespace", GROUP)
def klru_freespace() -> Finding:
    """More than 1 GiB free: the same promotions, pgpromote_candidate stays 0; otherwise it equals the pops."""
    small, large = hotset(), hotset(machine=emulated(fast_pages=3 << 18))
    for system in (small, large):
        system.run()
    popped, candidates = (int(small.mm.stat[k]) for k in (KPROMOTED_POPPED, PGPROMOTE_CANDIDATE))
    roomy = int(large.mm.stat[PGPROMOTE_CANDIDATE])
    differ = int(np.count_nonzero(fast_pages(small) != fast_pages(large)))
    return finding(
        f"same promotions ({differ} pages differ); candidates {roomy} with room to spare, else {candidates} = "
        f"{popped} pops",
        same("pages promoted in one of both", 0, differ),
        same("candidates with more than 1 GiB free", 0, roomy),
        same("candidates otherwise: the pops", popped, candidates),
        holds("pops", "> 15,000", popped > 15_000, popped),
    )


LOST = (
    PGMIGRATE_FAIL, KPROMOTED_DROPPED, KPROMOTED_NON_LRU, KPROMOTED_RIGHT_NODE, KPROMOTED_COLD_OLD, PROMOTE_REFUSED,
    PGHOT_HEAP_FULL,
)  # fmt: skip


@check("klru_no_loss", GROUP)
def klru_no_loss() -> Finding:
    """Heap pushes equal promotions, nothing is dropped, nothing fails, while the fast node has room."""
    system = hotset(duration_s=20)
    meter = Meter(system)
    system.run()
    pushes, promoted = meter.events["heap_push"], int(system.mm.stat[PGPROMOTE_SUCCESS])
    queued = int(system.policy.store.arrays.heap_n.sum())  # type: ignore[attr-defined]
    return finding(
        f"{pushes} == {promoted}",
        same("pushes and promotions", pushes, promoted),
        same("left in the heap", 0, queued),
        same("lost", [0] * len(LOST), system.mm.stat[list(LOST)].tolist()),
        holds("promotions", "> 20,000", promoted > 20_000, promoted),
    )


HOG = 1 << 18
FULL_S = 40
POPPED_AT = 20_450  # loads a second at which as many pages are popped as the row says


def behind_a_hog(loads_per_s: int, seed: int = 1) -> System:
    """`hotset`, idled out, in a program that has filled the fast node before with pages it never touches again."""
    hotset_class: Any = find_workload("hotset")

    class BehindAHog(hotset_class):
        def full_pages(self) -> int:
            return HOG + int(super().full_pages())

        def stream(self, layout: Any) -> Any:
            self.inner = super().stream(replace(layout, full_pages=layout.full_pages - HOG, pages=layout.pages - HOG))
            return self

        def fill(self, out: np.ndarray, first: int) -> None:
            self.inner.fill(out, first)
            out += np.uint32(HOG)

    values = {"rate": loads_per_s / (HOTSET_PAGES + HOG), "placement": "first_touch"}
    return start(
        "klruscand", BehindAHog(**values), duration_s=FULL_S, seed=seed, idle_s=IDLE_OUT_S, policy_values=POSTED
    )


def pops_by_the_rules(loads_per_s: int) -> float:
    """Pages of `hotset` that a full node's kpromoted is expected to pop in 40 s, one pass each 2048 ms.

    A page is sighted in a pass with 1 - exp(-rate * period). A sighting in one of the two passes after another one is a
    pop, which forgets both; popped pages stay where they are.
    """
    total = 0.0
    for loads, pages in zip(LOADS / SLOTS_PER_S * loads_per_s, CLASS_PAGES, strict=True):
        seen = 1 - np.exp(-loads / pages * PERIOD_S)
        none, last, before_last = 1.0, 0.0, 0.0
        for _ in range(int(FULL_S / PERIOD_S)):
            popped = seen * (last + before_last)
            none, last, before_last = popped + (1 - seen) * (none + before_last), seen * none, (1 - seen) * last
            total += pages * popped
    return total


@check(
    "klru_full_nb0",
    GROUP,
    inferred="the loads a second of the program beside the one that fills the node (pops grow with them) are not "
    f"recorded and were read off the pops: {POPPED_AT}, two fifths of what hotset makes alone on the CPU: that "
    "number tests nothing. The other three owe nothing to it, nor does the law of the pops, which is checked at both",
)
def klru_full_nb0() -> Finding:
    """Fast node full, numa_balancing=0, 40 s: hardly a promotion, no kswapd, refusals in no kpromoted counter."""
    system, alone = behind_a_hog(POPPED_AT), behind_a_hog(SLOTS_PER_S)
    mm, free = system.mm, int(system.mm.node[0, FREE])
    full = bool(mm.node[0, WMARK_LOW] <= free <= mm.node[0, WMARK_HIGH])
    system.run()
    alone.run()
    promoted, popped, dropped = (int(mm.stat[k]) for k in (PGPROMOTE_SUCCESS, KPROMOTED_POPPED, KPROMOTED_DROPPED))
    kswapd, most = float(system.cpu_ps["kswapd"]), int(alone.mm.stat[KPROMOTED_POPPED])
    tried = int(mm.stat[PROMOTE_REFUSED]) + promoted
    return finding(
        f"{promoted} / {popped} / {kswapd:.0f} / {dropped}; popped at {SLOTS_PER_S} loads/s: {most}",
        holds("free pages at the start", "between the low and the high watermark", full, free),
        near("promoted", 16, promoted, by=50),
        near("popped", 74_802, popped, by=50),
        near(f"popped at {POPPED_AT} loads/s, by the rules", pops_by_the_rules(POPPED_AT), popped, share=0.01),
        near(f"popped at {SLOTS_PER_S} loads/s, by the rules", pops_by_the_rules(SLOTS_PER_S), most, share=0.01),
        same(
            "kswapd run time, wakes, demotions", [0, 0, 0], [kswapd, *mm.stat[[KSWAPD_WAKES, PGDEMOTE_KSWAPD]].tolist()]
        ),
        same("kpromoted_dropped, non_lru", [0, 0], [dropped, int(mm.stat[KPROMOTED_NON_LRU])]),
        same("candidates and tries: the pops", [popped] * 2, [int(mm.stat[PGPROMOTE_CANDIDATE]), tried]),
    )


@check("klru_thp", GROUP)
def klru_thp() -> Finding:
    """PMD-mapped 2 MiB pages: one report a page and pass, promoted whole after two."""
    values = {"footprint_gib": 16 / 512, "page": "2m", "rate": 2.0, "threads": 1, "placement": "lower"}
    system = start("klruscand", "uniform", workload_values=values, duration_s=6, idle_s=IDLE_OUT_S)
    counters = [PTESCAN_YOUNG, PROMOTE_FOLIOS, PGMIGRATE_SUCCESS, PGPROMOTE_SUCCESS]
    seen = between_passes(system, lambda s: s.mm.stat[counters].tolist())
    first, second = (np.subtract(seen[k + 1], seen[k]).tolist() for k in (4, 5))
    return finding(
        f"{second[0]} reports a pass; after two {second[1]} THP migrations, pgpromote_success += {second[3]}",
        same("first pass: reports, folios moved, pages moved and promoted", [16, 0, 0, 0], first),
        same("second pass", [16, 16, 16 * 512, 8192], second),
    )
