"""klruscand_backoff: klruscand that slows down while as much is demoted as is promoted."""

from klrubench.policy import Steps, System, param

from .klruscand import Klruscand


class KlruscandBackoff(Klruscand):
    """klruscand whose intervals double when demotions have equalled promotions since the last pass, and halve if not.

    Equal flows say that the top tier is full and that pages change places, not that this is of no use: a full top tier
    has no other way to get better pages. Passes further apart than `window_ms` promote nothing; beyond it this is a
    switch that is off and tried again and again.
    """

    source = "ours; asked for on the list: equal promotion and demotion rates should throttle (call notes, 12 Feb 2026)"
    status = "never posted"

    equal: float = param(10, low=0, high=100, help="difference of the flows that counts as equal", unit="%")
    most: int = param(16, low=1, high=1024, log=True, help="times the interval at most")

    def scan(self, system: System) -> Steps:
        slower, up, down = 1.0, 0, 0
        for request in super().scan(system):
            if request is not None:  # the end of a pass
                promoted, demoted = system.vmstat("pgpromote_success") - up, system.vmstat("pgdemote_kswapd") - down
                up, down = up + promoted, down + demoted
                equal = promoted > 0 and abs(promoted - demoted) <= self.equal / 100 * promoted
                factor = 2 if equal and slower < self.most else 0.5 if not equal and slower > 1 else 1
                slower *= factor
                for memcg, interval_ms in enumerate(self.timers.interval_ms):
                    self.timers.set(memcg, factor * interval_ms)
                request = self.timers.sleep()
            yield request
