"""klruscand_adaptive: each memcg is scanned at the gap that tells its hot pages from its cold ones, and rests when that finds little."""

from klrubench.mm import MemcgTimers, TwoRates, mglru, pghot_engine
from klrubench.policy import Policy, param

CLEARING, LAST, KPROMOTED_PER_MS = 0, 3, 1024 / 20


class KlruscandAdaptive(Policy):
    """klruscand whose interval is chosen for each memcg from what its last passes found.

    A round is four passes a gap apart. The first only clears accessed bits: what had the whole rest to be set says nothing. What the other
    three find young gives a hot and a cold rate (`mm/two_rates.py`), and these the next gap, ln(hot / cold) / (hot - cold). Then the memcg
    rests: until what was found is promoted and has saved what the round cost, about visited / (hot pages * (hot - cold)) seconds, or, where
    hot and cold differ by less than `least`, twice as long each time.
    """

    source = "ours; intervals by memcg are named as future work in RFC v2 2/2, 20250910235121.2544928-3-kinseyho@google.com"
    chain = "mglru walk (accessed bit), paced by memcg -> pghot v2, window 1.5 gaps -> kpromoted; demotion by kswapd"
    blind = "the pages of a memcg are touched alike, or fewer than `least` times a second"

    interval_ms: float = param(250, low=10, high=60_000, log=True, help="first gap, and the one after a round of no use", origin="ours")
    fastest_ms: float = param(100, low=10, high=60_000, log=True, help="least gap", origin="ours")
    slowest_ms: float = param(4000, low=10, high=60_000, log=True, help="longest gap", origin="ours")
    rest_ms: float = param(16_000, low=10, high=60_000, log=True, help="longest rest", origin="ours")
    least: float = param(1, low=0, high=1000, help="touches a page and second between hot and cold", origin="ours: 12 us a promotion, 157 ns a touch")
    hash: str = param("posted", choices=("posted", "sized"), help="lists of pghot's hash: as posted, or one a record", origin="pghot v2; sized: ours")

    def start(self, system):
        system.set_tiering(system.sysctl("kernel.numa_balancing"), wake=True)
        self.pghot, n = pghot_engine(system, "v2", sized_hash=self.hash == "sized"), len(system.memcgs)
        self.rates, self.timers = system.add(TwoRates()), MemcgTimers(system, self.interval_ms)
        self.passes = [CLEARING - 1] * n  # the first pass over fresh memory is cut short: one more clears
        self.gap_ms, self.pause_ms = [self.interval_ms] * n, [self.interval_ms] * n
        system.daemon("klruscand", self.scan, phase_ms=self.interval_ms)

    def scan(self, system):
        while True:
            system.charge_full(pass_fixed=1)
            for memcg in self.timers.due():
                walker, gap_ms = mglru.WalkObject(), self.timers.elapsed_ms(memcg)
                self.rates.begin_pass(memcg, gap_ms / 1000)
                self.pghot.set_window(1.5 * gap_ms)
                for lruvec in system.lruvecs(tier="lower", memcgs=[memcg]):
                    for pages in mglru.walk(system, lruvec, 2 << 16, walker):
                        if pages is not None and self.rates.add(memcg, pages) and self.passes[memcg] > CLEARING:
                            self.pghot.record(pages, source="pgtable_scan")
                        yield
                self.timers.set(memcg, self.next_ms(memcg, walker.visited))
            yield self.timers.sleep()

    def next_ms(self, memcg, visited):
        if visited and self.passes[memcg] < LAST:
            self.passes[memcg] += 1
            return self.gap_ms[memcg]
        rates, self.passes[memcg], self.gap_ms[memcg] = self.rates.take(memcg), CLEARING, self.interval_ms
        pause_ms = 2 * self.pause_ms[memcg] if visited else 0  # asleep: looking costs next to nothing
        if visited and rates and rates.hot_per_s - rates.cold_per_s >= self.least:
            self.gap_ms[memcg] = min(max(1000 * rates.best_gap_s(), self.fastest_ms), self.slowest_ms)
            pause_ms = max(self.pghot.queued() / KPROMOTED_PER_MS, 1000 * visited / rates.hot_pages / (rates.hot_per_s - rates.cold_per_s))
        self.pause_ms[memcg] = min(max(pause_ms, self.interval_ms), self.rest_ms)
        return self.pause_ms[memcg]
