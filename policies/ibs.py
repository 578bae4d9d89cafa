"""ibs: hardware samples of cache misses, recorded in pghot."""

from klrubench.mm import PGHOT_DEFAULTS, PGHOT_EXPLAINS, PGHOT_VERSIONS, pghot_engine
from klrubench.mm import Ibs as IbsSamples
from klrubench.policy import Policy, System, param


class Ibs(Policy):
    """Instruction-based sampling of L3 misses by the CPU, each sample a sighting for pghot."""

    source = "IBS driver of the pghot series v1-v5, 20250910144653.212066-1-bharata@amd.com"
    status = "not merged; dropped in v6 (23 Mar 2026), back in v7 as a memory profiler of its own"
    chain = (
        "IBS sample (L3 miss, accessor's node known) -> pghot v2 (hash, heap) -> kpromoted (v3, v5: record a frame -> "
        "kmigrated); demotion by kswapd"
    )
    sees = "single misses with their time, at once: how often, not only whether"
    blind = "a page misses less often than the period times its window: samples are few"
    not_modelled = "skid, kernel-mode ops, NMI nesting, virtual machines"
    implies = {"pghot": PGHOT_DEFAULTS}
    explains = {"pghot": PGHOT_EXPLAINS}

    period: int = param(10_000, low=16, high=1 << 20, log=True, help="ops a sample", origin="IBS_SAMPLE_PERIOD")
    ring: int = param(
        150,
        low=2,
        high=65_536,
        log=True,
        help="samples a CPU holds until its worker runs",
        origin="IBS_NR_SAMPLES; G0: 50",
    )
    drain_ms: float = param(
        1,
        low=0.01,
        high=1000,
        log=True,
        help="from a sample to the worker's run",
        origin="[A] irq_work, then a worker",
        tune=False,
    )
    pghot: str = param(
        "v2",
        choices=PGHOT_VERSIONS,
        help="version of pghot; each brings its threshold and window",
        origin="posted together",
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
        "on", choices=("on", "posted"), help="a refused promotion wakes kswapd", origin="ours", tune=False
    )

    def start(self, system: System) -> None:
        system.set_tiering(system.sysctl("kernel.numa_balancing"), wake=self.wake_kswapd == "on")
        self.store = pghot_engine(
            system, self.pghot, threshold=self.threshold, window_ms=self.window_ms, ideal_clock=self.ideal_clock
        )
        system.add(IbsSamples(self.store, self.period, self.ring, self.drain_ms))
