"""damon: two DAMON contexts, one that promotes from the lower tier and one that demotes from the top tier."""

from typing import Any

from klrubench.mm import damon
from klrubench.policy import Policy, System, param


class Damon(Policy):
    """Regions of physical memory sampled by accessed bits; hot ones migrate up and cold ones down,
    within self-tuned quotas.
    """

    source = (
        "samples/damon/mtier.c on mm/damon of Linux 6.16-6.18; idea and numbers: 20250320053937.57734-1-sj@kernel.org"
    )
    status = "merged as a sample module in 6.16"
    chain = (
        "DAMON regions (accessed bit by rmap) -> DAMOS hot/cold score, young filter, quota with goal -> migrate_pages; "
        "kswapd below the low watermark"
    )
    sees = "one page a region and sampling interval: at most max_regions checks, however large memory is"
    blind = "hot pages lie scattered: a region is one number"
    not_modelled = "virtual addresses, time quotas, other filters, folio locks, pages pinned or off the LRU"

    sample_ms: float = param(
        5, low=0.5, high=1000, log=True, help="sampling interval (at the start, if tuned)", origin="mtier"
    )
    samples: int = param(20, low=2, high=1000, log=True, help="sampling intervals an aggregation", origin="mtier")
    min_regions: int = param(
        10, low=3, high=1000, log=True, help="lower bound of the number of regions", origin="mtier"
    )
    max_regions: int = param(
        1000, low=20, high=20_000, log=True, help="upper bound of the number of regions", origin="mtier"
    )
    access_bp: int = param(
        400,
        low=0,
        high=10_000,
        help="share of checks, of 10,000, that intervals are tuned for; 0: fixed",
        origin="mtier: 4 %",
    )
    quota_mib_s: float = param(
        200, low=1, high=65_536, log=True, help="most memory tried a second, each way", origin="mtier", unit="MiB/s"
    )
    tuner: str = param(
        "consist",
        choices=("consist", "temporal", "none"),
        help="how the quota follows its goal",
        origin="mtier; temporal: 2026",
    )
    used_bp: int = param(9970, low=1, high=10_000, help="top tier used, of 10,000: goal of promotion", origin="mtier")
    free_bp: int = param(50, low=1, high=10_000, help="top tier free, of 10,000: goal of demotion", origin="mtier")
    loaded: str = param(
        "boot",
        choices=("boot", "start"),
        help="quota loops have run since boot, or start with the program",
        origin="ours",
        tune=False,
    )
    restart: str = param(
        "posted",
        choices=("posted", "off"),
        help="tuning puts schemes off by 1 s (posted)",
        origin="damon_set_attrs",
        tune=False,
    )

    def start(self, system: System) -> None:
        target, below = system.default_target, system.machine.lower_nodes[0]
        self.context(system, target, damon.Scheme(False, below, target, self.free_bp, **self.quota()))
        for lower in system.machine.lower_nodes:
            self.context(system, lower, damon.Scheme(True, target, target, self.used_bp, **self.quota()))

    def quota(self) -> dict[str, Any]:
        return {
            "quota_bytes": int(self.quota_mib_s * (1 << 20)),
            "tuner": self.tuner,
            "since_boot": self.loaded == "boot",
        }

    def context(self, system: System, node: int, scheme: damon.Scheme) -> None:
        tuning = damon.Intervals(
            round(self.sample_ms * 1000), self.samples, self.access_bp, least_us=min(5000, round(self.sample_ms * 1000))
        )
        system.add(
            damon.Kdamond(
                node,
                scheme,
                tuning,
                min(self.min_regions, self.max_regions),
                self.max_regions,
                self.restart == "posted",
            )
        )
