"""GUPS with a hot set, as HeMem has it: random updates, nine in ten of them to a small part of memory."""

from __future__ import annotations

from klrubench.generate import RangeStream, hot_set, scattered
from klrubench.workload import Layout, Stream, Workload, param


class Gups(Workload):
    """90 % of the updates go to the hot set, 10 % to the whole region, hot set included; every touch reads and writes.

    Closed loop by default: 4 ns of work an update and four misses in flight make 22 touches a page and second with six
    threads on 32 GiB of 114 ns DRAM. At that rate every page is young in every scan; `rate=2` slows the updates down.
    A placement that holds the hot set in F of W bytes, and fills F up, hits 0.9 + 0.1 F / W of the time.
    """

    source = "GUPS of HeMem (Raybuck et al., SOSP 2021): 90/10, hot set of a fifth of the region"

    hot: float = param(20.0, low=0.1, high=100, log=True, help="hot set, of the footprint", unit="%")
    hot_pages: str = param(
        "scattered", choices=("scattered", "contiguous"), help="where hot pages lie", origin="HeMem: contiguous"
    )
    rate: float = param(0.0, low=0, high=10_000, log=True, help="touches a page and second, all-DRAM; 0: closed loop")
    compute_ns: float = param(
        4.0, low=0, high=1e6, log=True, help="compute a cache miss (used when rate=0)", origin="22 touches/page/s"
    )
    mlp: float = param(4.0, low=1, high=64, help="misses in flight a thread", origin="updates are independent")
    touches: int = param(1, low=1, high=512, help="touches an operation (for op latency)", origin="an update")
    read_share: float = param(0.0, low=0, high=1, help="share of touches that read", origin="an update writes")

    def stream(self, layout: Layout) -> Stream:
        """Choose hot set or whole region, then a page of it, all alike."""
        order = scattered(layout) if self.hot_pages == "scattered" else None
        return RangeStream(layout, hot_set(layout, self.hot, self.read_share), order)
