"""random_promotion: the floor that every source of hotness has to beat."""

from klrubench.mm import promote_pages
from klrubench.policy import Policy, Steps, System, param


class RandomPromotion(Policy):
    """Promote random lower-tier pages at a fixed rate: migration without any knowledge.

    A refused promotion always wakes kswapd, up to the promo watermark (klruscand: wake_kswapd=on).
    """

    source = "control"
    chain = "random choice -> none -> asynchronous batched migration; demotion by kswapd"
    role = "control"
    blind = "always"

    rate_mib_s: float = param(
        200, low=1, high=65_536, log=True, help="promotion rate; kpromoted's cap is 200", unit="MiB/s"
    )
    interval_ms: float = param(100, low=10, high=10_000, log=True, help="from batch to batch")

    def start(self, system: System) -> None:
        system.set_tiering(system.sysctl("kernel.numa_balancing"), wake=True)
        system.daemon("random_promotion", self.promote, phase_ms=self.interval_ms)

    def promote(self, system: System) -> Steps:
        rng, carry, owed = system.rng("random_promotion"), 0, 0
        while True:
            yield system.sleep_ms(self.interval_ms)
            n, carry = system.budget(int(self.rate_mib_s * 256 * self.interval_ms / 1000), carry, "pages a batch")
            folios, owed = system.random_lower_folios(rng, n + owed)
            promote_pages(system, folios, system.default_target)
            yield
