"""pghot_hint_faults: hint faults that record in pghot, whose threads promote."""

from klrubench.mm import PGHOT_DEFAULTS, PghotHintFaults, pghot_engine
from klrubench.policy import Policy, System, param

VERSIONS = ("v1", "v2", "v3", "v5-compact", "v5-precise")


class PghotFaults(Policy):
    """NUMA balancing's marks and faults as a source of pghot: a fault records the folio and does not promote.

    v2 counts a page's faults however far apart they are, v3 and v5 within the window, as other sightings. v1 had no
    such source: it counts them as others. A value left at its default follows the machine's settings (--sysctl).
    """

    source = "pghot RFC v2, 20250910144653.212066-1-bharata@amd.com, v3 and v5; the only source of v6"
    status = "not merged; off by default in v3"
    chain = (
        "hint fault (PROT_NONE) -> pghot (v2: hash, heap -> kpromoted; v3, v5: record a frame -> kmigrated); "
        "demotion by kswapd"
    )
    sees = "the first touch of a page after each marking, and the node of its CPU"
    blind = (
        "a sweep marks all of memory alike: a page is seen once a sweep, and pages touched once in each look the same"
    )
    not_modelled = "several nodes with CPUs"
    sysctls = {"kernel.numa_balancing": 2}
    implies = {"pghot": {name: PGHOT_DEFAULTS[name] for name in VERSIONS}}

    pghot: str = param(
        "v2",
        choices=VERSIONS,
        help="version of pghot; each brings its threshold and window",
        origin="pghot",
        tune=False,
    )
    threshold: int = param(2, low=1, high=7, help="faults in a row (v3: 3)", origin="pghot v2")
    window_ms: float = param(
        5000, low=100, high=60_000, log=True, help="largest gap between two (v5-compact: 4000)", origin="pghot v2"
    )
    scan_size_mb: int = param(256, low=16, high=2048, log=True, help="memory marked in one scan", origin="scan_size_mb")
    scan_period_min_ms: int = param(
        1000, low=1, high=60_000, log=True, help="shortest sweep over the memory", origin="scan_period_min_ms"
    )
    scan_period_max_ms: int = param(
        60_000, low=100, high=3_600_000, log=True, help="longest sweep over the memory", origin="scan_period_max_ms"
    )

    def start(self, system: System) -> None:
        self.store = pghot_engine(system, self.pghot, threshold=self.threshold, window_ms=self.window_ms)
        scans = ("scan_size_mb", "scan_period_min_ms", "scan_period_max_ms")
        given = {name: self.values[name] for name in scans if self.values[name] != self.parameters[name].default}
        system.add(PghotHintFaults(self.store, **given))
