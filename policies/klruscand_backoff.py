"""klruscand_backoff: klruscand that slows down while as much is demoted as is promoted."""

from klrubench.mm import mglru
from klrubench.policy import param

from .klruscand import Klruscand


class KlruscandBackoff(Klruscand):
    """klruscand with an interval that doubles after each pass since which demotions have equalled promotions, and halves after others.

    Equal flows mean that the top tier is full and pages change places. Passes further apart than `window_ms` promote nothing.
    """

    source = "ours; asked for on the list: equal promotion and demotion rates should throttle (call notes, 12 Feb 2026)"
    status = "never posted"

    equal: float = param(10, low=0, high=100, help="difference of the flows that counts as equal", unit="%", origin="ours")
    slowest_ms: float = param(30_000, low=10, high=60_000, log=True, help="longest interval", origin="ours")

    def scan(self, system):
        interval_ms, up, down = self.interval_ms, 0, 0
        while True:
            wake_ms = system.now_ms + interval_ms
            ...
