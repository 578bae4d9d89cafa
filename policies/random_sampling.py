"""random_sampling: idle page tracking on random pages, feeding the same pghot."""

import numpy as np

from klrubench.mm import PGHOT_DEFAULTS, PGHOT_EXPLAINS, PGHOT_VERSIONS, page_idle, pghot_engine
from klrubench.policy import Policy, Steps, System, param


class RandomSampling(Policy):
    """Idle page tracking on random folios: mark a sample, look again, record the touched ones in pghot.
    Not PEBS or IBS.
    """

    source = "mm/page_idle.c as a sampler; the random choice is ours"
    status = "a baseline; never posted"
    chain = (
        "idle bit of random pages -> pghot v2 (hash, heap) -> kpromoted (v3, v5: record a frame -> kmigrated); "
        "demotion by kswapd"
    )
    sees = "one bit a sampled page a round"
    blind = "a page is found only when it is drawn: 1 GiB of a sample at a time"
    not_modelled = "THP split by rmap walks"
    implies = {"pghot": PGHOT_DEFAULTS}
    explains = {"pghot": PGHOT_EXPLAINS}

    interval_ms: float = param(1000, low=10, high=60_000, log=True, help="from marking to looking")
    pages: int = param(1 << 18, low=64, high=1 << 24, log=True, help="lower-tier pages in a sample (2^18: 1 GiB)")
    pghot: str = param(
        "v2", choices=PGHOT_VERSIONS, help="version of pghot; each brings its threshold and window", tune=False
    )
    threshold: int = param(2, low=1, high=7, help="sightings in a row (v3: 3)", origin="pghot v2")
    window_ms: float = param(
        5000,
        low=100,
        high=60_000,
        log=True,
        help="largest gap between two (v5-compact: 4000); at its default as the sysctl says",
        origin="pghot v2",
    )
    ideal_clock: bool = param(False, help="pghot's time neither wraps nor loses bits", origin="ours", tune=False)
    wake_kswapd: str = param(
        "on", choices=("on", "posted"), help="a refused promotion wakes kswapd", origin="ours", tune=False
    )

    def start(self, system: System) -> None:
        system.set_tiering(system.sysctl("kernel.numa_balancing"), wake=self.wake_kswapd == "on")
        self.store = pghot_engine(
            system, self.pghot, threshold=self.threshold, window_ms=self.window_ms, ideal_clock=self.ideal_clock
        )
        system.daemon("random_sampling", self.sample, phase_ms=self.interval_ms)

    def sample(self, system: System) -> Steps:
        rng, n, left = system.rng("random_sampling"), system.scaled(self.pages, "pages a round"), 0
        while True:
            drawn, left = system.random_lower_folios(rng, n + left)
            for _look in range(self.threshold):  # as many looks as pghot wants sightings
                system.charge(idle_set=page_idle.set_idle(system.mm, drawn))
                yield system.sleep_ms(self.interval_ms)
                touched = np.empty(len(drawn), np.uint32)
                checked, young = page_idle.check_idle(system.mm, drawn, touched)
                system.charge(idle_check=checked)
                self.store.record(touched[:young], source="idle_page")
                yield
