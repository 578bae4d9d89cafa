"""kmmscand: a kernel thread that scans PTEs for accessed bits, another that promotes."""

from klrubench.mm import Kscand
from klrubench.policy import Policy, System, param


class Kmmscand(Policy):
    """Scan the address space of every process for accessed bits, promote slow pages on their second sighting
    (kscand V3).
    """

    source = (
        "RFC V3, 20250814153307.1553061-1-raghavendra.kt@amd.com; V1 of Mar 2025 and V0 of Dec 2024 promoted on the "
        "first sighting"
    )
    status = "not merged; its author's work went on in pghot's discussions"
    chain = (
        "PTE scan (accessed bit) -> two scans in a row, young generation -> kmigrated, folio by folio; demotion by "
        "kswapd"
    )
    sees = "one bit a page a scan, of both tiers; no page table is passed over"
    blind = "most pages are touched between two scans"
    not_modelled = (
        "shared folios, try-lock misses, huge page tables split by the walk, prctl scan scale; kswapd always frees up "
        "to the promo watermark (posted: only under numa_balancing=2)"
    )

    sightings: int = param(
        2, low=1, high=10, help="scans in a row that find a page accessed", origin="V3: second access; V1: 1"
    )
    period_ms: int = param(
        2000,
        low=600,
        high=5000,
        log=True,
        help="first scan period; adapts within 600-5000",
        origin="KSCAND_SCAN_PERIOD",
    )
    size_mib: int = param(
        1024,
        low=256,
        high=4096,
        log=True,
        help="first scan size; adapts within 256-4096",
        origin="KSCAND_SCAN_SIZE",
        unit="MiB",
    )
    sleep_ms: float = param(
        20, low=1, high=1000, log=True, help="of both threads between two cycles", origin="kscand_scan_sleep_ms"
    )
    backoff: str = param(
        "posted",
        choices=("posted", "off"),
        help="failed promotions lengthen the period, up to 11 times",
        origin="V3 11/17",
        tune=False,
    )
    variant: str = param(
        "clean",
        choices=("clean", "as_posted"),
        help="as posted: whole VMAs, listed once young, idle not needed",
        origin="V3",
        tune=False,
    )

    def start(self, system: System) -> None:
        system.set_tiering(
            system.sysctl("kernel.numa_balancing"), wake=True
        )  # kscand's copy of the gate always wakes kswapd
        self.kscand = system.add(
            Kscand(self.sightings, self.period_ms, self.size_mib, self.sleep_ms, self.variant, self.backoff == "posted")
        )
