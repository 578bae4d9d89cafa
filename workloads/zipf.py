"""Pages by Zipf's law in a random order: the textbook skew, laid on pages directly."""

from __future__ import annotations

from klrubench.generate import ZipfStream
from klrubench.workload import Layout, Stream, Workload, param


class Zipf(Workload):
    """The page of rank r is touched in proportion to r^-s; ranks are scattered over the address space.

    Laid on pages, not on records, the law overstates what tiering can win for a key-value store; `kv` has records.
    """

    scattered = True
    source = "Zipf's law as in YCSB (Cooper et al., SoCC 2010), ranks drawn exactly over the full-size pages"

    s: float = param(0.99, low=0, high=4, help="exponent; 0: uniform", origin="YCSB's ZIPFIAN_CONSTANT")

    def stream(self, layout: Layout) -> Stream:
        """Draw a rank over the full-size pages, fold it, scatter it."""
        return ZipfStream(layout, self.s, self.read_share)
