"""numa_balancing: hint faults; kernel.numa_balancing 0 to 3, memory tiering by default."""

from typing import Any

from klrubench.mm import NumaBalancing as HintFaults
from klrubench.policy import Policy, System, param


class NumaBalancing(Policy):
    """NUMA balancing: hint faults, promotion in the fault. Mode 2
    ("NUMAB2", memory tiering) asks for a short hint latency.

    Mode 1 promotes at a page's second hint fault and marks top-tier pages too; 3 is 2 with top-tier pages marked; 0
    does nothing. A value left at its default follows the machine's settings (--sysctl).
    """

    source = (
        "Huang Ying, 'NUMA balancing: optimize page placement for memory tiering system', merged in 5.18 and 6.1; "
        "rules of Linux 6.12"
    )
    status = "merged"
    chain = (
        "hint fault (PROT_NONE) -> hint latency under a threshold, rate limit -> promotion in the fault; demotion by "
        "kswapd"
    )
    sees = "the time from marking a page to its next touch"
    blind = "a page is touched between two sweeps only once marked: fast sweeps cost faults, slow ones miss"
    not_modelled = (
        "try-lock misses; several nodes with CPUs (modes 1 and 3); mode 1 counts promotions in pgpromote_success too"
    )
    sysctls = {"kernel.numa_balancing": 2}

    mode: int = param(
        2, choices=(0, 1, 2, 3), help="0 off, 1 normal, 2 tiering, 3 both", origin="kernel.numa_balancing", tune=False
    )
    rate_limit_mb_s: int = param(
        65_536,
        low=1,
        high=1 << 20,
        log=True,
        help="promotion rate limit",
        origin="numa_balancing_promote_rate_limit_MBps",
    )
    hot_threshold_ms: int = param(
        1000, low=10, high=60_000, log=True, help="hint latency below which a page is hot", origin="hot_threshold_ms"
    )
    scan_size_mb: int = param(256, low=16, high=2048, log=True, help="memory marked in one scan", origin="scan_size_mb")
    scan_period_min_ms: int = param(
        1000, low=1, high=60_000, log=True, help="shortest sweep over the memory", origin="scan_period_min_ms"
    )
    scan_period_max_ms: int = param(
        60_000, low=100, high=3_600_000, log=True, help="longest sweep over the memory", origin="scan_period_max_ms"
    )
    cloned: bool = param(
        True,
        help="several threads begin with scan_delay as period, as cloned ones do; else with the shortest",
        origin="init_numa_balancing",
        tune=False,
    )
    latency_bits: int = param(
        21,
        low=12,
        high=21,
        help="field of hint latencies; one longer than 2^bits ms reads as a short one",
        origin="LAST_CPUPID_SHIFT: 8 bits of PID, 13 of CPU",
        tune=False,
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.sysctls = {"kernel.numa_balancing": self.mode}

    def start(self, system: System) -> None:
        given = {name: value for name, value in self.values.items() if value != self.parameters[name].default}
        if self.mode:
            system.add(HintFaults(**{**given, "mode": self.mode}))
