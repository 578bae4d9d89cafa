"""The published tables: their numbers, what was said of their set-ups, and what is taken where nothing was."""

from __future__ import annotations

import itertools
import math
from typing import Any

from klrubench.generate import Part, RangeStream
from klrubench.mm import NumaBalancing
from klrubench.policy import Policy, param
from klrubench.validation.published import Column, Entry, Found, Published, Say, fixed_work, roomy, simulated
from klrubench.workload import Layout, Stream, Workload

# --- pghot v3's microbenchmark --------------------------------------------------------------------------------------------

RANDOM = "uniform:threads=64,rate=0,compute_ns=20,mlp=1,touches=1,placement=lower,read_share=0.5"
PGHOT = "pghot v3, 20251110052343.208768-1-bharata@amd.com"
PGHOT_SETUP = "64 threads, random accesses of 4 KiB granularity, half of them writes, 8 GiB that begin on CXL, room in DRAM; means of three runs"
PGHOT_ASSUMED = (
    "latencies of cxl-asic, 20 ns of work an access, one node with CPUs; as much work as NUMAB0 does in its time. At some 100 touches a page "
    "and second every page is hot: that all are promoted tests nothing else"
)
TLB = "the differences are smaller as published: random accesses to 8 GiB also miss the TLB, which costs the same on both tiers and is not modelled"
IBS_WHY = "how many pages three samples in 5 s find depends on the ops between two misses, which were not published"
ALL_4K = 2_097_152.0

PGHOT_MODE1 = Published(
    "pghot-v3-mode1",
    "pghot v3's microbenchmark, mode 1: anonymous 4 KiB pages",
    PGHOT,
    (Column("time s"), Column("promoted", ordered=False, digits=0)),
    PGHOT_SETUP,
    f"{PGHOT_ASSUMED}; {TLB}",
    (
        Entry("NUMAB0", "numab0", {"time s": 115.668771, "promoted": 0}),
        Entry("NUMAB2", "numab2", {"time s": 102.894589, "promoted": 2_097_144}),
        Entry("NUMAB2 on pghot", "", {"time s": 107.576615, "promoted": ALL_4K}),
        Entry("pgtscan", "klruscand:preset=pghot-v3", {"time s": 111.399698, "promoted": ALL_4K}),
        Entry("IBS", "ibs:pghot=v3", {"time s": 103.232152, "promoted": 1_269_467}, IBS_WHY),
    ),
    fixed_work(f"{RANDOM},footprint_gib=8", lambda: roomy(128, 258), 256, "NUMAB0"),
)
PGHOT_MODE3 = Published(
    "pghot-v3-mode3",
    "pghot v3's microbenchmark, mode 3: anonymous memory in 2 MiB pages",
    PGHOT,
    (Column("time s"), Column("huge pages", digits=0)),
    PGHOT_SETUP,
    f"{PGHOT_ASSUMED}; 64 GiB, the 32,768 huge pages that were moved (the footprint of this mode is not said)",
    (
        Entry("NUMAB0", "numab0", {"time s": 30.944794}),
        Entry("NUMAB2", "numab2", {"time s": 29.773930, "huge pages": 3754}),
        Entry("NUMAB2 on pghot", "", {"time s": 31.184442, "huge pages": 1278}),
        Entry("pgtscan", "klruscand:preset=pghot-v3", {"time s": 28.580878, "huge pages": 33_032}),
        Entry("IBS", "ibs:pghot=v3", {"time s": 28.732128, "huge pages": 32_768}, IBS_WHY),
    ),
    fixed_work(f"{RANDOM},footprint_gib=64,page=2m", lambda: roomy(128, 258), 128, "NUMAB0"),
)

# --- kmmscand -------------------------------------------------------------------------------------------------------------

FAULT_WHY = "a promotion in the fault takes 8.6 us here and one by kmmscand's thread 6.0; 17.8-30.9 and 5.3-13 us were calculated from the posts"


def kmmscand(
    size_gib: int, times: tuple[float, float, float, float], hint: tuple[float, float], scan: tuple[float, float]
) -> Published:
    """One size of kmmscand's table; times as published: NUMAB2, patched NUMAB1, NUMAB1, patched NUMAB0.

    `hint` and `scan`: seconds of scanning, then of faulting or migrating, of hint faults and of kmmscand.
    """
    parts = [dict(zip(("scanning s", "migrating s"), pair, strict=True)) for pair in (hint, scan)]
    return Published(
        f"kmmscand-{size_gib}g",
        f"kmmscand, {size_gib} GiB",
        "V1 of Mar 2025 (times) and V0, 20241201153818.2633616-1-raghavendra.kt@amd.com (cost split)",
        (Column("time s"), Column("scanning s", digits=2), Column("migrating s", digits=2)),
        f"64 threads, random accesses to {size_gib} GiB that begin on CXL",
        "latencies of cxl-asic, 20 ns of work an access, half of them writes, room in DRAM; promotion on the first sighting, as V0 and V1 had it; "
        "as much work as NUMAB2 does in its time",
        (
            Entry("NUMAB2", "numab2", {"time s": times[0], **parts[0]}, FAULT_WHY),
            Entry("kmmscand, NUMAB1", "", {"time s": times[1]}),
            Entry("NUMAB1", "numa_balancing:mode=1", {"time s": times[2]}, FAULT_WHY),
            Entry("kmmscand, NUMAB0", "kmmscand:sightings=1", {"time s": times[3], **parts[1]}, FAULT_WHY),
        ),
        fixed_work(
            f"{RANDOM},footprint_gib={size_gib}", lambda: roomy(4 * size_gib, 4 * size_gib), 32 * size_gib, "NUMAB2"
        ),
    )


KMMSCAND_8 = kmmscand(8, (134.33, 120.52, 186.71, 119.88), (0.883, 64.86), (2.74, 11.19))
KMMSCAND_32 = kmmscand(32, (585.06, 546.49, 744.37, 546.15), (4.79, 149.16), (23.4, 108.72))

# --- hot page selection ---------------------------------------------------------------------------------------------------

SLICES = 512
LADDER_S, LADDER_FOLD = 480.0, 512
LIMIT_MB_S = 165


class _Pmbench(Workload):
    """Random accesses, normally distributed over the address space."""

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
    from klrubench.machine import load_machine

    machine = load_machine("optane", ratio="1:3")
    program = _Pmbench(footprint_gib=64, threads=32, rate=0, compute_ns=50, mlp=1, touches=1, read_share=0.8)
    found = []
    for entry, step in zip(table.entries, STEPS, strict=True):
        say(f"  {entry.label}")
        found.append(steady(simulated(step, program, machine, LADDER_S, LADDER_FOLD)))
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
    f"preset optane, 64 GiB at 1:3, 32 threads with 50 ns of work an access, a standard deviation of a sixth, {LIMIT_MB_S} MB/s of limit (not said; "
    f"read off the table's own rate), the last {LADDER_S / 2:.0f} of {LADDER_S:.0f} s",
    (
        Entry("base", "any hint fault promotes", {"million accesses/s": 146.9, "promoted MB/s": 725.6}),
        Entry("+ hot selection", "latency < 1000 ms", {"million accesses/s": 165.7, "promoted MB/s": 544.0}),
        Entry("+ rate limit", f"and {LIMIT_MB_S} MB/s", {"million accesses/s": 162.8, "promoted MB/s": 165.2}),
        Entry("+ auto threshold", "and it follows", {"million accesses/s": 170.5, "promoted MB/s": 136.9}),
    ),
    climb,
)

TABLES = (PGHOT_MODE1, PGHOT_MODE3, LADDER, KMMSCAND_8, KMMSCAND_32)
