"""klruscand: hot pages on lower tiers, by the MGLRU page-table walk."""

from typing import Any

from klrubench.mm import PGHOT_DEFAULTS, PGHOT_EXPLAINS, PGHOT_VERSIONS, MemcgTimers, mglru, pghot_engine
from klrubench.policy import Policy, Steps, System, param

POSTINGS = {
    "rfc-v1": {"interval_ms": 4000, "pghot": "v0"},
    "rfc-v2": {"interval_ms": 2000, "pghot": "v2"},
    "pghot-v1": {"interval_ms": 100, "pghot": "v1"},
    "pghot-v3": {"interval_ms": 500, "pghot": "v3"},
    "pghot-v5": {"interval_ms": 500, "pghot": "v5-compact"},
}
PRESETS = {"pghot-v5": "the last posting with klruscand (-u8), 20260129144043.231636-1-bharata@amd.com"}


class Klruscand(Policy):
    """Find hot pages on slower nodes with the MGLRU page-table walk (RFC v2, 10 Sep 2025).

    pghot's stored time wraps: v5-compact each 4.1 s at HZ=1000 (16.4 s at 250), v5-precise 16.4 s (65.5 s),
    v2 and v3 524 s (2097 s). A folio mapped by PTEs (a workload's page=64k, say) is a report for each young PTE: up to
    v2 each counts for its own frame, from v3 on all for the folio, which one pass can bring to the threshold.
    """

    source = "RFC v2 2/2, 20250910235121.2544928-3-kinseyho@google.com; no numbers were posted"
    status = "not merged; carried in pghot v1-v5, dropped in v6 (23 Mar 2026)"
    chain = (
        "mglru walk (accessed bit) -> pghot v2 (hash, heap) -> kpromoted (v3, v5: record a frame -> kmigrated); "
        "demotion by kswapd"
    )
    sees = "one bit a page a pass; not read()/write() cache, hugetlb, mlocked, DAX, sleeping tasks"
    blind = "most pages are touched within an interval ('young' in compare)"
    not_modelled = (
        "lock contention as time, THP split; TLB-resident pages unless sysctl tlb/entries is set; RFC v1's lost pfn a "
        "full batch"
    )
    implies = {"preset": POSTINGS, "pghot": PGHOT_DEFAULTS}
    explains = {"preset": PRESETS, "pghot": PGHOT_EXPLAINS, **mglru.EXPLAINS}

    interval_ms: float = param(
        2000, low=10, high=60_000, log=True, help="start to start; overruns not caught up", origin="KLRUSCAND_INTERVAL"
    )
    intervals: str = param(
        "",
        help="intervals by memcg, kv=500/idle=10000 or in their order 500/10000; others: interval_ms",
        origin="future work of the patch",
    )
    batch: int = param(
        2 << 16, low=64, high=2 << 20, log=True, help="pfns that trigger a flush; not a cap", origin="BATCH_SIZE"
    )
    preset: str = param(
        "rfc-v2",
        choices=tuple(POSTINGS),
        help="interval and pghot as posted together; what is typed beside it wins",
        tune=False,
    )
    pghot: str = param(
        "v2",
        choices=PGHOT_VERSIONS,
        help="version of pghot; each brings its threshold and window",
        origin="posted with RFC v2",
        tune=False,
    )
    threshold: int = param(2, low=1, high=7, help="sightings in a row (v3: 3)", origin="pghot v2")
    window_ms: float = param(
        5000,
        low=100,
        high=60_000,
        log=True,
        help="largest gap between two (v5-compact: 4000); at its default as the sysctl says",
        origin="pghot v2",
    )
    ideal_clock: bool = param(False, help="pghot's time neither wraps nor loses bits", origin="ours", tune=False)
    wake_kswapd: str = param(
        "on",
        choices=("on", "posted"),
        help="a refused promotion wakes kswapd, which frees up to the promo watermark instead of high (posted: both "
        "only under numa_balancing=2)",
        origin="ours",
        tune=False,
    )
    variant: str = param(
        "as_posted",
        choices=("as_posted", "clean"),
        help="with all side effects of the posted walk, or none",
        origin="RFC v2",
        tune=False,
    )
    effects: str = param(
        "variant", help="or those named: aging+bloom+force+pmd+steal+resume+edge, all, none", origin="RFC v2"
    )
    filter: str = param(
        "own", choices=("own", "none"), help="Bloom filters of a walk without effect bloom", origin="ours", tune=False
    )
    trylock_miss: float = param(
        0.0, low=0, high=1, help="share of try-locks (PTE tables, mmap) that miss", origin="ours", tune=False
    )
    hash: str = param(
        "posted",
        choices=("posted", "sized"),
        help="lists of pghot's hash: as posted, or one a record",
        origin="pghot v2; sized: ours",
        tune=False,
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.side_effects = self.variant if self.effects == "variant" else self.effects
        mglru.repairs(self.side_effects)

    def start(self, system: System) -> None:
        system.set_trylock_miss(self.trylock_miss)
        system.set_tiering(system.sysctl("kernel.numa_balancing"), wake=self.wake_kswapd == "on")
        self.store = pghot_engine(
            system,
            self.pghot,
            threshold=self.threshold,
            window_ms=self.window_ms,
            ideal_clock=self.ideal_clock,
            sized_hash=self.hash == "sized",
        )
        system.daemon("klruscand", self.scan, phase_ms=self.interval_ms)

    def scan(self, system: System) -> Steps:
        walker = mglru.WalkObject(self.side_effects, filtered=self.filter == "own")
        timers = self.timers = MemcgTimers(system, self.interval_ms, self.intervals)
        while True:
            system.charge_full(pass_fixed=1)
            node = None
            for lruvec in system.lruvecs(tier="lower", memcgs=timers.due()):
                if lruvec.node != node:
                    walker.zero()
                    node = lruvec.node
                for pages in mglru.walk(system, lruvec, self.batch, walker):
                    if pages is not None:
                        self.store.record(pages, source="pgtable_scan")
                    if system.slice_over():
                        yield
            yield timers.sleep()
