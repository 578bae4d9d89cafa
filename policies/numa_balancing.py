"""numa_balancing: hint faults, memory tiering mode."""

from klrubench.mm import NumaBalancing as HintFaults
from klrubench.policy import Policy, param


class NumaBalancing(Policy):
    """NUMA balancing mode 2 ("NUMAB2"): hint faults, hint latency, promotion in the fault."""

    source = "Huang Ying, 'NUMA balancing: optimize page placement for memory tiering system', merged in 5.18 and 6.1; rules of Linux 6.12"
    status = "merged"
    chain = "hint fault (PROT_NONE) -> hint latency under a threshold, rate limit -> promotion in the fault; demotion by kswapd"
    sees = "the time from marking a page to its next touch"
    blind = "a page is touched between two sweeps only once marked: fast sweeps cost faults, slow ones miss"
    not_modelled = "modes 1 and 3, access bits of VMAs by PID, try-lock misses"
    sysctls = {"kernel.numa_balancing": 2}

    rate_limit_mb_s: int = param(65_536, low=1, high=1 << 20, log=True, help="promotion rate limit", origin="numa_balancing_promote_rate_limit_MBps")
    hot_threshold_ms: int = param(1000, low=10, high=60_000, log=True, help="hint latency below which a page is hot", origin="hot_threshold_ms")
    scan_size_mb: int = param(256, low=16, high=2048, log=True, help="memory marked in one scan", origin="scan_size_mb")

    def start(self, system):
        system.add(HintFaults(self.rate_limit_mb_s, self.hot_threshold_ms, self.scan_size_mb))
