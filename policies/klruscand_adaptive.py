"""klruscand_adaptive: a memcg is scanned at the gap that tells its hot pages from its cold ones, or left to rest."""

from klrubench.mm import MemcgTimers, TwoRates, mglru, pghot_engine
from klrubench.policy import Policy, param


class KlruscandAdaptive(Policy):
    """klruscand whose interval is chosen for each memcg from what its last passes found.

    A round is four passes, a gap apart; the first only clears accessed bits, which had the whole rest to be set. What
    the others find young gives a hot and a cold rate (mm/two_rates.py) and the next gap, ln(hot / cold) / (hot - cold).
    Then it rests until what was found is promoted and has saved what the visits cost, or, if of no use, twice as long.
    """

    source = "ours; intervals by memcg: future work in 20250910235121.2544928-3-kinseyho@google.com (RFC v2 2/2)"
    chain = "mglru walk (accessed bit), paced by memcg -> pghot v2, window 1.5 gaps -> kpromoted; demotion by kswapd"

    interval_ms: float = param(250, low=10, high=60_000, log=True, help="first gap; also after a round of no use")
    fastest_ms: float = param(100, low=10, high=60_000, log=True, help="least gap")
    slowest_ms: float = param(4000, low=10, high=60_000, log=True, help="longest gap")
    rest_ms: float = param(16_000, low=10, high=60_000, log=True, help="longest rest")
    least: float = param(1, low=0, high=1000, help="touches a page and second that hot is above cold, to be of use")
    hash: str = param(
        "posted", choices=("posted", "sized"), help="lists of pghot's hash: as posted, or one a record", tune=False
    )

    def start(self, system):
        system.set_tiering(system.sysctl("kernel.numa_balancing"), wake=True)
        self.pghot, n = pghot_engine(system, "v2", sized_hash=self.hash == "sized"), len(system.memcgs)
        self.rates, self.timers = system.add(TwoRates()), MemcgTimers(system, self.interval_ms)
        self.passes = [-1] * n  # the first pass over fresh memory is cut short: one more clears
        self.gap_ms, self.pause_ms, self.spent_ms = [self.interval_ms] * n, [self.interval_ms] * n, [0.0] * n
        system.daemon("klruscand", self.scan, phase_ms=self.interval_ms)

    def scan(self, system):
        while True:
            system.charge_full(pass_fixed=1)
            for memcg in self.timers.due():
                walker, began_ms, gap_ms = mglru.WalkObject(), system.now_ms, self.timers.elapsed_ms(memcg)
                self.rates.begin_pass(memcg, gap_ms)
                self.pghot.set_window(1.5 * gap_ms)
                for pages in mglru.walk_memcg(system, memcg, walker):
                    self.rates.add(memcg, pages)
                    if self.passes[memcg] > 0 and system.now_ms <= began_ms + self.gap_ms[memcg]:  # later: two gaps
                        self.pghot.record(pages, source="pgtable_scan")
                    yield
                self.spent_ms[memcg] += system.now_ms - began_ms
                self.timers.set(memcg, self.next_ms(memcg, asleep=walker.visited == 0))
            yield self.timers.sleep()

    def next_ms(self, memcg, asleep):
        if not asleep and self.passes[memcg] < 3:
            self.passes[memcg] += 1
            return self.gap_ms[memcg]
        rates, gap_ms, pause_ms = self.rates.take(memcg), self.interval_ms, 0 if asleep else 2 * self.pause_ms[memcg]
        if rates and rates.hot_per_s - rates.cold_per_s >= self.least:
            gap_ms = min(max(rates.best_gap_ms(), self.fastest_ms), self.slowest_ms)
            pause_ms = max(self.pghot.queued() / 51.2, rates.paid_ms(self.spent_ms[memcg]))  # kpromoted: 1024 in 20 ms
        self.passes[memcg], self.spent_ms[memcg], self.gap_ms[memcg] = 0, 0.0, gap_ms
        self.pause_ms[memcg] = min(max(pause_ms, self.interval_ms), self.rest_ms)
        return self.pause_ms[memcg]
