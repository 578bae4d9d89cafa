"""chmu: a CXL memory device that counts its own requests and lists hot units."""

from klrubench.mm import PGHOT_DEFAULTS, PGHOT_EXPLAINS, PGHOT_VERSIONS, pghot_engine
from klrubench.mm import Chmu as HotnessUnit
from klrubench.policy import Policy, System, param


class Chmu(Policy):
    """The CXL hotness monitoring unit: counters in the device, a hotlist that the kernel reads."""

    source = "CXL 3.2 hotness monitoring unit; perf driver 20241121101845.1815660-1-Jonathan.Cameron@huawei.com"
    status = "RFC of a perf driver; no posted code promotes by it, the chain here is ours"
    chain = (
        "requests counted by the device, threshold -> hotlist -> pghot v2 (hash, heap) or at once -> kpromoted; "
        "demotion by kswapd"
    )
    sees = "every request that reaches the device, as a count an epoch"
    blind = "more units are touched in an epoch than the device has counters; nothing of the top tier"
    not_modelled = (
        "writebacks, prefetches, interleaving, fill-level interrupts, threshold control, randomised down-sampling; a "
        "refused promotion always wakes kswapd, up to the promo watermark (klruscand: wake_kswapd=on)"
    )
    implies = {"pghot": PGHOT_DEFAULTS}
    explains = {"pghot": PGHOT_EXPLAINS}

    mode: str = param(
        "epoch",
        choices=("epoch", "always_on"),
        help="list at the end of an epoch, or when the threshold is reached",
        origin="CXL 3.2",
    )
    epoch_ms: int = param(
        1000,
        low=1,
        high=100_000,
        log=True,
        help="epoch; always on: time between two reads",
        origin="QEMU: 100 ms-100 s",
    )
    unit_kib: int = param(
        4,
        choices=tuple(4 << k for k in range(10)),
        help="memory a counter counts for",
        origin="QEMU: 4, 8 KiB",
        unit="KiB",
    )
    hot_count: int = param(
        8, low=1, high=65_535, log=True, help="count from which a unit is hot", origin="[A]; HeMem: 8"
    )
    counters: int = param(
        1 << 16,
        low=1 << 10,
        high=1 << 26,
        log=True,
        help="counters of the device, 8 ways",
        origin="[A] left to the device",
        tune=False,
    )
    replace: str = param(
        "least",
        choices=("least", "inherit", "never"),
        help="what a unit without a counter gets",
        origin="[A]",
        tune=False,
    )
    hotlist: int = param(
        65_535, low=64, high=65_535, log=True, help="entries of the ring", origin="CXL 3.2; QEMU: 1024"
    )
    every: int = param(
        1,
        choices=tuple(1 << k for k in range(16)),
        help="down-sampling: one request in so many counts",
        origin="CXL 3.2",
    )
    requests: str = param(
        "all", choices=("all", "reads", "writes"), help="requests that count", origin="CXL 3.2", tune=False
    )
    rule: str = param(
        "pghot", choices=("pghot", "hotlist"), help="hot when pghot says so, or as soon as listed", tune=False
    )
    pghot: str = param(
        "v2",
        choices=PGHOT_VERSIONS,
        help="version of pghot (rule=pghot); each brings its threshold and window",
        tune=False,
    )
    threshold: int = param(2, low=1, high=7, help="times listed in a row (v3: 3)", origin="pghot v2")
    window_ms: float = param(
        5000,
        low=100,
        high=60_000,
        log=True,
        help="largest gap between two (v5-compact: 4000); at its default as the sysctl says",
        origin="pghot v2",
    )

    def start(self, system: System) -> None:
        system.set_tiering(system.sysctl("kernel.numa_balancing"), wake=True)
        store = None
        if self.rule == "pghot":
            store = pghot_engine(system, self.pghot, threshold=self.threshold, window_ms=self.window_ms)
        system.add(HotnessUnit(
            store, self.mode, self.epoch_ms, self.counters, self.hotlist, self.unit_kib << 10, self.hot_count,
            self.replace, self.requests, every=self.every,
        ))  # fmt: skip
