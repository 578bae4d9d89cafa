"""The published tables: their numbers, what was said of their set-ups, and what is taken where nothing was."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from klrubench.generate import Part, RangeStream
from klrubench.mm import NumaBalancing
from klrubench.policy import Policy, param
from klrubench.validation.published import Column, Entry, Found, Published, Say, fixed_work, roomy, simulated
from klrubench.workload import Layout, Stream, Workload

# --- pghot v3's microbenchmark ----------------------------------------------------------------------------------------

RANDOM = "uniform:threads=64,rate=0,compute_ns=20,mlp=1,touches=1,placement=lower,read_share=0.5"
PGHOT = "pghot v3, 20251110052343.208768-1-bharata@amd.com"
PGHOT_SETUP = (
    "64 threads, random accesses, half of them writes, to memory that begins on CXL (8 GiB in mode 1), room in "
    "DRAM; means of three runs"
)
PGHOT_ASSUMED = (
    "latencies of cxl-asic, 20 ns of work an access, one node with CPUs; as much work as NUMAB0 does in its time. "
    "At some 100 touches a page "
    "and second every page is hot: that all are promoted tests nothing else"
)
STORES = (
    "the gain from DRAM is larger here: a write waits like a read (a store buffer would hide it), and nothing but "
    "memory takes time "
    "(random accesses to 8 GiB also miss the TLB, on both tiers)"
)
NO_HINT_PGHOT = "hint faults that record in pghot are no policy here"
SCAN_WHY = (
    "here the scan is done before the sweep of hint faults, which marks 256 MiB a second at first; the post does "
    "not say why the scan was late, and one "
    "kmigrated at the upper end of its cost (13 us a page, 27 s for all) would still be done before the sweep"
)
IBS_WHY = (
    "three samples within 5 s of each other must meet a page; at one in 10,000 of these misses a page is sampled "
    "once in 110 s, and to find as many as the "
    "post did takes about 0.08 samples a page and second, that is 1.7 billion misses a second: its ops or its rule "
    "were others (v3's masks were posted "
    "overlapping; what they were meant to be is modelled)"
)
ALL_4K = 2_097_152.0

PGHOT_MODE1 = Published(
    "pghot-v3-mode1",
    "pghot v3's microbenchmark, mode 1: anonymous 4 KiB pages",
    PGHOT,
    (Column("time s"), Column("promoted", ordered=False, digits=0), Column("90 % moved, s")),
    PGHOT_SETUP,
    f"{PGHOT_ASSUMED}; {STORES}",
    (
        Entry("NUMAB0", "numab0", {"time s": 115.668771, "promoted": 0}),
        Entry("NUMAB2", "numab2", {"time s": 102.894589, "promoted": 2_097_144}, SCAN_WHY),
        Entry("NUMAB2 on pghot", "", {"time s": 107.576615, "promoted": ALL_4K}, NO_HINT_PGHOT),
        Entry("pgtscan", "klruscand:preset=pghot-v3", {"time s": 111.399698, "promoted": ALL_4K}),
        Entry("IBS", "ibs:pghot=v3", {"time s": 103.232152, "promoted": 1_269_467}, IBS_WHY),
    ),
    fixed_work(f"{RANDOM},footprint_gib=8", lambda: roomy(128, 258), 512, "NUMAB0"),
)
PGHOT_MODE3 = Published(
    "pghot-v3-mode3",
    "pghot v3's microbenchmark, mode 3: anonymous memory in 2 MiB pages",
    PGHOT,
    (Column("time s"), Column("huge pages", digits=0), Column("90 % moved, s")),
    PGHOT_SETUP,
    f"{PGHOT_ASSUMED}; 64 GiB, the 32,768 huge pages that were moved (the footprint of this mode is not said)",
    (
        Entry("NUMAB0", "numab0", {"time s": 30.944794}),
        Entry("NUMAB2", "numab2", {"time s": 29.773930, "huge pages": 3754}),
        Entry("NUMAB2 on pghot", "", {"time s": 31.184442, "huge pages": 1278}, NO_HINT_PGHOT),
        Entry("pgtscan", "klruscand:preset=pghot-v3", {"time s": 28.580878, "huge pages": 33_032}),
        Entry("IBS", "ibs:pghot=v3", {"time s": 28.732128, "huge pages": 32_768}, IBS_WHY),
    ),
    fixed_work(f"{RANDOM},footprint_gib=64,page=2m", lambda: roomy(128, 258), 128, "NUMAB0"),
)

# --- kmmscand ---------------------------------------------------------------------------------------------------------

KMMSCAND = (
    "V1 of Mar 2025 (time s); V0, 20241201153818.2633616-1-raghavendra.kt@amd.com (V0 time s, and its split into "
    "scanning and migrating)"
)
KSCAND = "V3, 20250814153307.1553061-1-raghavendra.kt@amd.com; Genoa, Linux 6.16"
KMMSCAND_ASSUMED = (
    "latencies of cxl-asic, 20 ns of work an access, half of them writes, room in DRAM; as much work as NUMAB2 "
    "does in its time"
)
FAULT_WHY = (
    "by these posts a promoting fault takes 17.8-30.9 us a page and the thread 5.3-13 us; here 8.6 us, as counted "
    "in 6.18, and 7.5 us, flushes included"
)
AGAINST_ITSELF = (
    "the post's other three sizes, and its patched NUMAB1 at this one, have it the other way round, as here; no size "
    "is special here, and the post does not explain this one"
)
PATCHED_NUMAB1 = "hint faults and kmmscand at once are no policy here"


def kmmscand(
    size_gib: int,
    times: tuple[float, float, float, float],
    v0: tuple[float, float] | None = None,
    hint: tuple[float, float] = (0, 0),
    scan: tuple[float, float] = (0, 0),
    why: str = FAULT_WHY,
) -> Published:
    """One size of kmmscand's tables; times of V1 as published: NUMAB2, patched NUMAB1, NUMAB1, patched NUMAB0.

    `v0`: its times, of NUMAB2 and of kmmscand; `hint` and `scan`: their seconds of scanning, then of faulting or
    migrating.
    """
    columns = [Column("time s")]
    split: list[dict[str, float]] = [{}, {}]
    if v0 is not None:
        columns += [Column("V0 time s"), Column("scanning s", digits=2), Column("migrating s", digits=2)]
        names = [column.name for column in columns[1:]]
        split = [dict(zip(names, (v0[k], *pair), strict=True)) for k, pair in enumerate((hint, scan))]
    return Published(
        f"kmmscand-{size_gib}g",
        f"kmmscand, {size_gib} GiB",
        KMMSCAND,
        tuple(columns),
        f"64 threads, random accesses to {size_gib} GiB that begin on CXL; promotion on the first sighting",
        KMMSCAND_ASSUMED,
        (
            Entry("NUMAB2", "numab2", {"time s": times[0], **split[0]}, why),
            Entry("kmmscand, NUMAB1", "", {"time s": times[1]}, PATCHED_NUMAB1),
            Entry("NUMAB1", "numa_balancing:mode=1", {"time s": times[2]}, FAULT_WHY),
            Entry("kmmscand, NUMAB0", "kmmscand:sightings=1", {"time s": times[3], **split[1]}, FAULT_WHY),
        ),
        beginning_on_cxl(size_gib),
    )


def kscand(size_gib: int, hint_s: float, scan_s: float) -> Published:
    """One size of the table of V3, which promotes on the second sighting."""
    return Published(
        f"kscand-v3-{size_gib}g",
        f"kscand V3, {size_gib} GiB",
        KSCAND,
        (Column("time s"),),
        f"random accesses to {size_gib} GiB that begin on CXL; promotion on the second sighting",
        f"64 threads; {KMMSCAND_ASSUMED}",
        (
            Entry("NUMAB2", "numab2", {"time s": hint_s}, FAULT_WHY),
            Entry("kscand", "kmmscand:sightings=2", {"time s": scan_s}, FAULT_WHY),
        ),
        beginning_on_cxl(size_gib),
    )


def beginning_on_cxl(size_gib: int) -> Callable[[Published, Say], list[Found]]:
    """The run of either: 4096 simulated pages whatever the size."""
    workload = f"{RANDOM},footprint_gib={size_gib}"
    return fixed_work(workload, lambda: roomy(4 * size_gib, 4 * size_gib), 64 * size_gib, "NUMAB2")


KMMSCANDS = (
    kmmscand(8, (134.33, 120.52, 186.71, 119.88), (133.66, 113.77), (0.883, 64.86), (2.74, 11.19)),
    kmmscand(16, (292.24, 275.97, 376.09, 325.06), why=AGAINST_ITSELF),
    kmmscand(32, (585.06, 546.49, 744.37, 546.15), (584.77, 542.79), (4.79, 149.16), (23.4, 108.72)),
    kmmscand(64, (1278.98, 1205.20, 1534.49, 1221.41)),
    kscand(8, 228, 206),
    kscand(32, 547, 534),
    kscand(128, 1100, 920),
)

# --- hot page selection -----------------------------------------------------------------------------------------------

SLICES = 512
LADDER_WHY = (
    "in the end every step holds nearly the same pages here, and a migration costs the program its fault alone: no "
    "contention for list locks, "
    "no write amplification of the medium"
)
LADDER_S, LADDER_FOLD, LADDER_GIB = 2000.0, 8192, 384
LIMIT_MB_S = 165


class _Pmbench(Workload):
    """Random accesses, normally distributed over the address space, at full size by slices: no page changes its "
    "rate with the scale."""

    sigma: float = param(1 / 6, low=0.01, high=1, help="standard deviation, of the address space")

    def stream(self, layout: Layout) -> Stream:
        """Slices of the address space by the normal density at their middle."""
        edges = [layout.pages * k // SLICES for k in range(SLICES + 1)]
        parts = [
            Part(math.exp(-((((k + 0.5) / SLICES - 0.5) / self.sigma) ** 2) / 2), first, last - first, self.read_share)
            for k, (first, last) in enumerate(itertools.pairwise(edges))
        ]
        return RangeStream(layout, parts)


class _Step(Policy):
    """Memory tiering as it was after each patch of the series."""

    sysctls = {"kernel.numa_balancing": 2}  # noqa: RUF012  (as policies have it)

    threshold_ms: int = param(1000, low=1, help="hint latency below which a page is hot")
    limit_mb_s: int = param(65_536, low=1, help="promotion rate limit")
    adjusting: bool = param(False, help="the threshold follows the limit")

    def start(self, system: Any) -> None:
        system.add(NumaBalancing(self.limit_mb_s, self.threshold_ms, adjusting=self.adjusting, cloned=False))


STEPS = (
    _Step(threshold_ms=1 << 20),
    _Step(),
    _Step(limit_mb_s=LIMIT_MB_S),
    _Step(limit_mb_s=LIMIT_MB_S, adjusting=True),
)


def climb(table: Published, say: Say) -> list[Found]:
    """Accesses a second and MB promoted a second in the last half of each step's run."""
    return climbed(table, say, LADDER_S, LADDER_FOLD)


def climbed(table: Published, say: Say, duration_s: float, fold: int) -> list[Found]:
    """`climb` with a run of another length or scale."""
    from klrubench.machine import load_machine

    machine = load_machine("optane", ratio="1:3", kernel="6.1", sysctls={"lru_gen/enabled": 0})
    program = _Pmbench(footprint_gib=LADDER_GIB, threads=32, rate=0, compute_ns=50, mlp=1, touches=1, read_share=0.8)
    found = []
    for entry, step in zip(table.entries, STEPS, strict=True):
        say(f"  {entry.label}")
        found.append(steady(simulated(step, program, machine, duration_s, fold)))
    return found


def steady(result: Any) -> Found:
    """Rates of the last half of a run, by its time line."""
    import numpy as np

    times, accesses, promoted = (np.array(result.series[name]) for name in ("t_s", "accesses", "pgpromote_success"))
    half = times[-1] / 2
    spans = [float((column[-1] - np.interp(half, times, column)) / half) for column in (accesses, promoted)]
    return {"million accesses/s": spans[0] / 1e6, "promoted MB/s": spans[1] * 4096 / 1e6}


LADDER = Published(
    "hot-page-selection",
    "hot page selection, its rate limit and its threshold (Huang Ying 2022, merged in 6.1)",
    "cover letter of the series; pmbench on Optane",
    (Column("million accesses/s"), Column("promoted MB/s")),
    "pmbench, normal distribution over the addresses, 80 % reads, two sockets with Optane",
    "preset optane with the rules of 6.1 and active and inactive lists (MGLRU is off by default), "
    f"{LADDER_GIB} GiB at 1:3, that is 96 GiB of "
    "DRAM (six channels of 16 GiB), 32 threads with 50 ns of work an access, a standard deviation of a sixth, "
    f"{LIMIT_MB_S} MB/s of limit (not said; read off "
    "the table's own rate), threads that scan at the shortest period from the start (long-lived ones do); rates of "
    "the last half of a run of over an hour; "
    "reclaim on a CPU of its own",
    (
        Entry("base", "any hint fault promotes", {"million accesses/s": 146.9, "promoted MB/s": 725.6}),
        Entry("+ hot selection", "latency < 1000 ms", {"million accesses/s": 165.7, "promoted MB/s": 544.0}),
        Entry(
            "+ rate limit", f"and {LIMIT_MB_S} MB/s", {"million accesses/s": 162.8, "promoted MB/s": 165.2}, LADDER_WHY
        ),
        Entry("+ auto threshold", "and it follows", {"million accesses/s": 170.5, "promoted MB/s": 136.9}, LADDER_WHY),
    ),
    climb,
)

TABLES = (PGHOT_MODE1, PGHOT_MODE3, LADDER, *KMMSCANDS)
