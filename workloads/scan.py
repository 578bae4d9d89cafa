"""A sweep over memory: every page is touched just before it is not needed any more for a whole round."""

from __future__ import annotations

from klrubench.generate import SweepStream
from klrubench.workload import Layout, Stream, Workload, param


class Scan(Workload):
    """Reads memory from end to end, line by line, over and over; no page is hotter than another over a round.

    A policy that promotes what it saw last moves every page of a footprint larger than DRAM, and gains nothing.
    """

    source = "negative control; sequential loads at MLP 7 as in Soar (Liu et al., OSDI 2025)"
    control = True

    lines: int = param(64, low=1, high=64, help="touches a page before the next", origin="cache lines of a 4 KiB page")
    mlp: float = param(7.0, low=1, high=64, help="misses in flight a thread", origin="Soar: sequential loads")

    def stream(self, layout: Layout) -> Stream:
        """All pages in address order, from one that the seed chooses."""
        return SweepStream(layout, self.lines, self.read_share)
