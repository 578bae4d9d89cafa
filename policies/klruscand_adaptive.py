"""klruscand_adaptive: a memcg is scanned at the gap that tells its hot pages from its cold ones, or left to rest."""

from klrubench.mm import MemcgTimers, TwoRates, mglru, pghot_engine
from klrubench.policy import Policy, Steps, System, param

PASSES = 4  # a round: one that clears accessed bits, three that look
PROMOTED_PER_MS = 1024 / 20  # kpromoted at its best


class KlruscandAdaptive(Policy):
    """klruscand whose interval is chosen for each memcg from what its last passes found.

    A round is four passes, a gap apart; the first only clears accessed bits, which had the whole rest to be set. The
    shares of visited PTEs that the others find young, once, twice and three times in a row, give a hot and a cold rate
    (mm/two_rates.py) and the next round's gap, ln(hot / cold) / (hot - cold), at which one bit separates them best.
    Then the memcg rests until what was found is promoted and has saved what the visits cost, or, if the round was of no
    use, twice as long as before. One whose tasks sleep is looked up again every `interval_ms`, which walks nothing.
    A refused promotion always wakes kswapd, up to the promo watermark (klruscand: wake_kswapd=on). While it looks,
    little migrates and nothing flushes the TLB: with tlb/entries=1536 it misses the hottest pages (TLB.md of the
    reference study).
    """

    source = "ours; intervals by memcg: future work in 20250910235121.2544928-3-kinseyho@google.com (RFC v2 2/2)"
    status = "never posted"
    chain = "mglru walk (accessed bit), paced by memcg -> pghot v2, window 1.5 gaps -> kpromoted; demotion by kswapd"
    sees = "as klruscand; rates by the model of two, latencies as HMAT has them"
    blind = "misses in flight (a touch saves less than its latency), cost of migration, pages found by others"

    interval_ms: float = param(250, low=10, high=60_000, log=True, help="first gap and least rest; after no use too")
    fastest_ms: float = param(100, low=10, high=60_000, log=True, help="least gap, if a pass takes no longer")
    slowest_ms: float = param(4000, low=10, high=60_000, log=True, help="longest gap")
    rest_ms: float = param(16_000, low=10, high=60_000, log=True, help="longest rest")
    least: float = param(
        1,
        low=0,
        high=1000,
        help="hot less cold, touches a page and second, to be of use; at 1, two moves (12 us) pay in 80 s",
    )
    hash: str = param(
        "posted", choices=("posted", "sized"), help="lists of pghot's hash: as posted, or one a record", tune=False
    )

    def start(self, system: System) -> None:
        system.set_tiering(system.sysctl("kernel.numa_balancing"), wake=True)
        self.pghot, n = pghot_engine(system, "v2", sized_hash=self.hash == "sized"), len(system.memcgs)
        self.rates, self.timers = system.add(TwoRates()), MemcgTimers(system, self.interval_ms)
        self.passes = [-1] * n  # the first pass over fresh memory is cut short: one more clears
        self.gap_ms, self.pause_ms = [self.interval_ms] * n, [self.interval_ms] * n
        self.spent_ms, self.longest_ms = [0.0] * n, [0.0] * n
        system.daemon("klruscand", self.scan, phase_ms=self.interval_ms)

    def scan(self, system: System) -> Steps:
        while True:
            system.charge_full(pass_fixed=1)
            for memcg in self.timers.due():
                gap_ms, began_ms, walker = self.timers.begin(memcg), system.now_ms, mglru.WalkObject()
                self.rates.begin_pass(memcg, gap_ms)
                self.pghot.set_window(1.5 * gap_ms)
                for pages in mglru.walk_memcg(system, memcg, walker):
                    self.rates.add(memcg, pages)
                    if self.passes[memcg] > 0 and system.now_ms <= began_ms + gap_ms:  # later, a bit tells of two gaps
                        self.pghot.record(pages, source="pgtable_scan")
                    yield
                took_ms = system.now_ms - began_ms
                self.spent_ms[memcg] += took_ms
                self.longest_ms[memcg] = max(self.longest_ms[memcg], took_ms)
                self.timers.set(memcg, self.next_ms(memcg, asleep=walker.visited == 0))
            yield self.timers.sleep()

    def next_ms(self, memcg: int, asleep: bool) -> float:
        """From the start of a pass to that of the next one: a gap, or after a round a rest."""
        self.passes[memcg] += 1
        if self.passes[memcg] < PASSES and not asleep:
            return self.gap_ms[memcg]
        rates, gap_ms, pause_ms = self.rates.take(memcg), self.interval_ms, 2 * self.pause_ms[memcg]
        if asleep:
            pause_ms = 0.0
        elif rates and rates.hot_per_s - rates.cold_per_s >= self.least:
            gap_ms = min(max(rates.best_gap_ms(), self.fastest_ms), self.slowest_ms)
            paid_ms = rates.paid_ms(self.spent_ms[memcg], self.rates.saved_ns)
            pause_ms = max(self.pghot.queued() / PROMOTED_PER_MS, paid_ms)
        self.gap_ms[memcg] = max(gap_ms, self.longest_ms[memcg])
        self.pause_ms[memcg] = min(max(pause_ms, self.interval_ms), self.rest_ms)
        self.passes[memcg], self.spent_ms[memcg], self.longest_ms[memcg] = 0, 0.0, 0.0
        return self.pause_ms[memcg]
