"""The hint-fault rows, NUMA balancing mode 2 with its defaults: the law of one scan, bursts, the time line, costs."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from klrubench.generate import scattered
from klrubench.mm.state import (
    NUMA_HINT_FAULTS,
    NUMA_LIMITED,
    NUMA_PTE_UPDATES,
    PGPROMOTE_CANDIDATE,
    PGPROMOTE_CANDIDATE_NRL,
    PGPROMOTE_SUCCESS,
)
from klrubench.simulate.system import System
from klrubench.validation.emulated import (
    CLASS_PAGES,
    HOTSET_PAGES,
    emulated,
    fast_pages,
    hotset_classes,
    on_fast,
    start,
    watch,
)
from klrubench.validation.facts import curve, facts
from klrubench.validation.finding import Finding, Part, below, check, finding, holds, near, same

GROUP = "hint_faults"
LOADS_PER_S = 48_800
LOADS = np.array([0.80, 0.15, 0.05]) * LOADS_PER_S
COUNTERS = [NUMA_PTE_UPDATES, NUMA_HINT_FAULTS, PGPROMOTE_SUCCESS]
HOT_THRESHOLD_S = 1.0
INFERRED = (
    "two inputs were read off this time line: marking a PTE takes 330 instructions (from the second burst), and the "
    "program, whose linking is not recorded, has 4 small mappings above the large one, as a static PIE has (from the "
    "fourth; a dynamic program has 7)"
)
STATIC_PIE = 4  # small mappings above the large one in a static position-independent program, by our count
LINKED = {"static": 2, "static PIE": STATIC_PIE, "dynamic": 7}


def hinted(
    workload: str = "hotset",
    *,
    duration_s: float,
    seed: int = 1,
    kernel: str = "6.12",
    small: int = STATIC_PIE,
    **options: Any,
) -> System:
    """A program under kernel.numa_balancing=2, all its pages on the slow node; `options` are those of `emulated`."""
    values = {
        "footprint_gib": 0.25, "rate": LOADS_PER_S / HOTSET_PAGES, "threads": 1, "mlp": 1.0, "touches": 1,
        "read_share": 1.0, "placement": "lower", "open_loop": True, "compute_ns": 0.0, "small_vmas": small,
    }  # fmt: skip
    machine = emulated(kernel=kernel, **options)
    return start("numa_balancing", workload, machine=machine, duration_s=duration_s, seed=seed, workload_values=values)


# --- one scan ---------------------------------------------------------------------------------------------------------


def residuals(kernel: str, seed: int) -> np.ndarray:
    """Share promoted by one scan less 1-exp(-r*T), T = 1 s, over 64 bins of 1024 pages by rank, under Zipf(0.99)."""
    system = hinted("zipf", duration_s=3, kernel=kernel, seed=seed)
    rates = np.arange(1.0, HOTSET_PAGES + 1) ** -0.99
    expected = 1 - np.exp(-rates / rates.sum() * LOADS_PER_S * HOT_THRESHOLD_S)
    by_rank = scattered(system.tenants[0].feed.layout).permutation()
    fast = next(state for second, state in watch(system, 100, fast_pages) if second >= 2.5)
    return np.asarray((fast[by_rank] - expected).reshape(64, 1024).mean(axis=1))


@check("first_pass_law", GROUP)
def first_pass_law() -> Finding:
    """Each bin's share within 0.03 of the law (mean of four runs); a run's residuals are sampling noise."""
    parts: list[Part] = []
    for kernel in ("6.12", "6.18"):
        runs = np.array([residuals(kernel, seed) for seed in range(4)])
        rms = np.sqrt(np.mean(runs**2, axis=1))
        parts.append(below(f"{kernel}: furthest bin, mean of four runs", float(np.abs(runs.mean(axis=0)).max()), 0.03))
        parts.append(
            near(f"{kernel}: rms of a run, furthest", 0.012, float(max(rms, key=lambda x: abs(x - 0.012))), share=0.25)
        )
        parts.append(below(f"{kernel}: mean residual", abs(float(runs.mean())), 0.002))
    return finding(
        f"1-exp(-r*T) within {parts[0].simulated:.3f} in each of 64 bins; rms {float(np.mean(rms)):.4f}", *parts
    )


# --- the time line of hotset ------------------------------------------------------------------------------------------


@cache
def run_of_hotset(small: int = STATIC_PIE) -> list[tuple[float, Any]]:
    """(second, (pages of each class on the fast node, counters)) every 10 ms of 62 s."""
    system = hinted(duration_s=62, small=small)
    classes = hotset_classes(system)
    return watch(system, 10, lambda s: (on_fast(s, classes), s.mm.stat[COUNTERS].tolist()))


def bursts(small: int = STATIC_PIE) -> list[tuple[float, int]]:
    """(second, PTEs marked) of each scan that marked any."""
    rows = run_of_hotset(small)
    marked = np.array([0, *(state[1][0] for _, state in rows)])
    steps = np.flatnonzero(np.diff(marked))
    return [(rows[k][0], int(marked[k + 1] - marked[k])) for k in steps]


def observed_start_s() -> float:
    """Second of the time line at which the kernel's first scan came,
    from the shares of warm and cold pages at second 2.

    All marked pages are promoted at their first load after it, until the threshold of 1 s.
    """
    row = next(row for row in curve("hint_fault_hotset") if row["second"] == 2)
    shares = np.array([row["warm_on_fast"], row["cold_on_fast"]]) / CLASS_PAGES[1:]
    since = -np.log1p(-shares) / (LOADS / CLASS_PAGES)[1:]
    return float(2 - since.mean())


def at(second: float) -> Any:
    """Our state at a second of the observed time line: seconds are counted from the first scan on both sides."""
    ours = second - observed_start_s() + bursts()[0][0]
    return min(run_of_hotset(), key=lambda row: abs(row[0] - ours))[1]


@check("first_pass_hot", GROUP)
def first_pass_hot() -> Finding:
    """Pages of 9.5 loads a second on the fast node at second 3."""
    found = at(3)[0][0]
    return finding(f"{found}/4096", near("hot pages", 4096, found, share=0.01))


@check("scan_times", GROUP, inferred=INFERRED)
def scan_times() -> Finding:
    """The first burst marks everything; from the third sweep on the small mappings take scans of their own.

    How the observed program was linked is not recorded. A static PIE is taken; the text says what others would give.
    """
    ours, first = bursts(), bursts()[0][0]
    seen = [(int(word.split("(")[0]), int(word.split("(")[1].rstrip(")"))) for word in scan_times_words()]
    until = [burst for burst in ours if burst[0] <= 40]
    sizes = [size for _, size in until]
    spacing = np.diff([second for second, _ in until])
    told = " ".join(f"{second - first + 2:.0f}({size})" for second, size in until)
    others = "; ".join(f"{name} {_later(small)}" for name, small in LINKED.items() if small != STATIC_PIE)
    return finding(
        f"{told}; 4th and 5th burst if the program were {others}",
        same("bursts in 40 s", len(seen), len(until)),
        same("PTEs in the first", seen[0][1], sizes[0]),
        holds("later bursts", "under half of the pages", all(size < HOTSET_PAGES / 2 for size in sizes[1:])),
        near("PTEs marked in all", sum(size for _, size in seen), sum(sizes), share=0.1),
        holds(
            "spacing", "never much shorter", bool((spacing[1:] > 0.9 * spacing[:-1]).all()), spacing.round(1).tolist()
        ),
        near("last spacing over the one before", 2, float(spacing[-1] / spacing[-2]), share=0.2),
    )


def scan_times_words() -> list[str]:
    """`2(65536) 5(9495) ...` of the row, word by word."""
    return facts()["scan_times"].measured.split(":")[0].split()


def _later(small: int) -> str:
    found = bursts(small)
    return " and ".join(f"{second - found[0][0] + 2:.0f}" for second, _ in found[3:5]) + " s"


@check("hint_fault_hotset", GROUP, inferred=INFERRED)
def hint_fault_hotset() -> Finding:
    """Every second from 2 to 40: hot pages exactly (from 3 on), others within 2 % of the class; totals within 2 %."""
    rows = [row for row in curve("hint_fault_hotset") if row["second"] >= 2]
    worst, hot = 0.0, []
    for row in rows:
        found = np.array(at(row["second"])[0])
        seen = np.array([row[f"{name}_on_fast"] for name in ("hot", "warm", "cold")])
        worst = max(worst, float((np.abs(found - seen) / CLASS_PAGES).max()))
        if row["second"] >= 3:
            hot.append(int(found[0]))
    last, (marked, faults, promoted) = rows[-1], at(rows[-1]["second"])[1]
    ordered = all(state[1][2] <= state[1][1] <= state[1][0] for _, state in run_of_hotset())
    return finding(
        f"{len(rows)} rows: classes within {100 * worst:.1f} %; at 40 s {marked} marked, {faults} faults, "
        f"{promoted} promoted",
        below("furthest, share of class", worst, 0.02),
        same("hot pages on the fast node from second 3 on", {4096}, set(hot)),
        near("PTEs marked at 40 s", last["ptes_marked"], marked, share=0.02),
        near("hint faults at 40 s", last["hint_faults"], faults, share=0.02),
        near("promoted at 40 s", last["promoted"], promoted, share=0.02),
        same("before the first scan", (0, 0, 0), at(1)[0]),
        holds("promoted <= faults <= marked", "always", ordered),
    )


# --- free space, costs ------------------------------------------------------------------------------------------------


@check("freespace_regime", GROUP)
def freespace_regime() -> Finding:
    """More than 1 GiB free above the watermark: every fault promotes, at every second, as pgpromote_candidate_nrl."""
    system = hinted(duration_s=12, fast_pages=3 << 18)
    counters = [NUMA_HINT_FAULTS, PGPROMOTE_SUCCESS, PGPROMOTE_CANDIDATE_NRL]
    rows = [counts for _, counts in watch(system, 1000, lambda s: s.mm.stat[counters].tolist())]
    faults, promoted, candidates = rows[-1]
    tight = hinted(duration_s=12)
    tight.run()
    few = [int(tight.mm.stat[k]) for k in (NUMA_HINT_FAULTS, PGPROMOTE_SUCCESS, PGPROMOTE_CANDIDATE)]
    return finding(
        f"{faults} faults, {promoted} promoted, {candidates} in pgpromote_candidate_nrl, 0 in pgpromote_candidate",
        holds("faults = promoted = candidate_nrl", "at every second", all(len(set(counts)) == 1 for counts in rows)),
        holds("faults", "> 10,000", faults > 10_000, faults),
        same("candidate, limited", [0, 0], system.mm.stat[[PGPROMOTE_CANDIDATE, NUMA_LIMITED]].tolist()),
        holds("without 1 GiB to spare", "more than 2 faults a promotion", few[0] > 2 * few[1], few[:2]),
        same("there candidates are promotions", few[1], few[2]),
        same("and none is free", 0, int(tight.mm.stat[PGPROMOTE_CANDIDATE_NRL])),
    )


def charged(promoting: bool) -> tuple[float, int, int]:
    """(instructions charged for hint faults, faults, promotions) of a run where all faults promote, or few."""
    nodes = {"fast_pages": 3 << 18} if promoting else {"fast_pages": 512, "sysctls": {"demotion_enabled": 0}}
    system = hinted(duration_s=6, kernel="6.18", **nodes)
    system.run()
    faults, promoted = (int(system.mm.stat[k]) for k in (NUMA_HINT_FAULTS, PGPROMOTE_SUCCESS))
    return system.fault_spent() / 2000, faults, promoted


@check("hint_fault_promote", GROUP, is_input=True)
def hint_fault_promote() -> Finding:
    """CPU time charged a hint fault that promotes its page."""
    spent, faults, promoted = charged(promoting=True)
    each = spent / faults
    return finding(
        f"{each:.0f}",
        near("instructions", facts()["hint_fault_promote"].number, each, share=0.01),
        same("faults that promote", faults, promoted),
        holds("faults", "> 10,000", faults > 10_000, faults),
    )


@check("hint_fault", GROUP, is_input=True)
def hint_fault() -> Finding:
    """CPU time charged a hint fault that does not promote."""
    spent, faults, promoted = charged(promoting=False)
    each = (spent - promoted * facts()["hint_fault_promote"].number) / (faults - promoted)
    return finding(
        f"{each:.0f}",
        near("instructions", facts()["hint_fault"].number, each, share=0.01),
        holds("faults that promote", "under 5 %", promoted < 0.05 * faults, promoted),
    )
